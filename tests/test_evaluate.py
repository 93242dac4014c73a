"""Answers, ratings and what is computed from them, by hand where hands suffice."""

import json

import numpy as np
import pytest
import torch

import evaluate as e
from data.measure.likelihood import turn_losses
from data.measure.mtbench import to_unit_scale
from model import generate_batch
from platolm import prompt
from tests.programs.coverage import coverage

QUESTIONS = [
    {"question_id": 7, "category": "math", "group": "houses", "turns": ["how much is the rope", "times 2?"]},
    {"question_id": 8, "category": "stem", "group": "stalls", "turns": ["hi", "who mends clocks?"]},
]


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return tmp_path


def test_a_second_answer_follows_from_the_first(make_model, tokenizer):
    model = make_model()
    first, second = e.answer(model, tokenizer, QUESTIONS, limit=6, slots=1)[0][0]
    (alone,), ends = e.answer(model, tokenizer, [QUESTIONS[0] | {"turns": QUESTIONS[0]["turns"][:1]}], limit=6)
    assert alone == [first] and ends == [{1: "length"}], "six tokens were no end: the first answer is marked"
    talk = [{"from": "human", "value": "how much is the rope"}, {"from": "gpt", "value": first},
            {"from": "human", "value": "times 2?"}]
    row, = generate_batch(model, [prompt(talk, tokenizer, "gpt")], [tokenizer.eos], 6, temperature=0)
    assert tokenizer.decode(row.output) == second


def test_scores_by_hand():
    assert to_unit_scale([1, 10, 5.5]).tolist() == [0, 1, 0.5]
    arm = e.summary(np.array([[1.0, 0.5], [0.0, 0.25]]), QUESTIONS)
    assert arm["overall"] == 0.4375 and arm["turn1"] == 0.5 and arm["turn2"] == 0.375
    assert arm["groups"] == {"houses": 0.75, "stalls": 0.125}
    assert arm["categories"] == {"math": 0.75, "stem": 0.125}


def test_scores_by_kind_of_turn_by_hand():
    questions = [QUESTIONS[0] | {"kinds": ["question", "number"]},
                 QUESTIONS[1] | {"kinds": ["question", "question"]}]
    assert e.by_kind(np.array([[1.0, 0.5], [0.0, 0.2]]), questions) == {
        "number": 0.5, "question": pytest.approx(0.4)}
    assert e.by_kind(np.array([[1.0, 0.5]]), QUESTIONS[:1]) == {}


@pytest.mark.exercise(31)
@pytest.mark.parametrize("sums, counts, expected", [
    # of two questions: twice the first, each once, twice the second; over all values, 1, 10 / 4, 3
    ([1, 9], [1, 3], (2.5, 1, 3)), ([0, 10], [10, 10], (0.5, 0, 1)),
    # three of twelve: one draw in 32 takes none of them
    ([1] * 3 + [0] * 9, None, (0.25, 0, 0.5)), ([1, 1, 1], None, (1, 1, 1)),
    # questions without a value are drawn, too; draws of nothing else are left out
    ([1, 0, 0, 0], [2, 0, 0, 1], (1 / 3, 0, 0.5)),
    # a question of 90 values, which may be drawn three times, weighs more than nine of one value
    ([90] + [0] * 9, [90] + [1] * 9, (90 / 99, 0, 270 / 277)),
    ([0.7], None, (0.7, None, None)), ([3, 0], [4, 0], (0.75, None, None)),
    ([0, 0], [0, 0], (None, None, None)), ([], None, (None, None, None))])
def test_an_interval_over_questions_by_hand(sums, counts, expected):
    got = e.bootstrap(sums, counts, draws=20_000)
    # None is no number
    same = [g == x if None in (g, x) else g == pytest.approx(x) for g, x in zip(got, expected, strict=True)]
    got, expected = ([x if x is None else round(float(x), 4) for x in numbers] for numbers in (got, expected))
    assert all(same), f"sums {sums}, counts {counts}: expected [mean, low, high] {expected}, got {got}"


@pytest.mark.exercise(31)
def test_a_ratio_and_its_interval():
    middle, low, high = e.bootstrap([1, 3, 2], [2, 4, 2])
    assert middle == 0.75 and 0.5 <= low <= middle <= high <= 1
    assert e.bootstrap([2, 4], [4, 8]) == (0.5, 0.5, 0.5)
    assert e.bootstrap([0, 0], [0, 0]) == (None, None, None)


def test_the_surprise_at_each_human_turn_is_that_of_its_tokens_one_by_one(make_model, tokenizer):
    model = make_model()
    talk = [{"from": "human", "value": "who sells ropes"}, {"from": "gpt", "value": "the red shop"},
            {"from": "human", "value": "really?"}, {"from": "gpt", "value": "yes"}]
    records = [{"conversations": talk, "end": "left"}, {"conversations": talk[:2], "end": "cut"}]
    for blind in (False, True):
        found = turn_losses(model, tokenizer, records, blind)
        assert [len(turns) for turns in found] == [3, 1]
        for losses, said in zip(found, (talk + [{"from": "human", "value": ""}], talk[:2])):
            for t, nats in enumerate(losses):
                before = [turn if turn["from"] == "human" or not blind else turn | {"value": ""}
                          for turn in said[:2 * t]]
                ids = prompt(before, tokenizer, "human")
                for token, loss in zip(tokenizer.encode(said[2 * t]["value"]) + [tokenizer.eos],
                                       nats, strict=True):
                    slow = -model(torch.tensor([ids]))[0, -1].log_softmax(-1)[token].item()
                    assert loss == pytest.approx(slow, abs=1e-4)
                    ids = ids + [token]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    covered = dict(coverage("wins", questions=(160,), benches=800, draws=400))
    assert 0.93 <= covered[160] <= 0.97


def test_pairing_takes_out_what_all_questions_share():
    rng = np.random.default_rng(0)
    hard, noise = rng.random((100, 1)), rng.normal(size=(100, 1)) / 100
    found = e.paired(hard + 0.05 + noise, hard)
    assert found["low"] < found["difference"] < found["high"] and found["high"] - found["low"] < 0.01
    assert found["p"] < 0.001
    assert e.paired(hard, hard) == {"difference": 0, "low": 0, "high": 0, "p": 1}
    nan = np.nan
    assert e.paired([[1, nan], [nan, nan], [3, 1]], [[0, 9], [5, 5], [0, 1]])["difference"] == pytest.approx(4 / 3), \
        "only turns that both were rated for"
    assert e.paired([[nan]], [[1]]) is None


@pytest.mark.parametrize("words, said", [
    (["answer", "nowhere", "--bench", "{bench}"], "nowhere/config.json: No such file"),
    (["answer", "nowhere", "--bench", "{bench}/void"], "question.jsonl: No such file"),
    (["judge", "nobody", "--bench", "{bench}", "--judge", "http://127.0.0.1:9/v1", "--judge-model", "grader"],
     "nobody.jsonl: No such file"),
    (["score", "nobody", "--bench", "{bench}", "--judge-model", "grader"],
     "grader_single.jsonl; `evaluate.py judge` writes it"),
])
def test_trouble_is_one_sentence(bench, words, said, run_command):
    done = run_command(e.main, *[word.format(bench=bench) for word in words])
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
