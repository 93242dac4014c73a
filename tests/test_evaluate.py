"""Answers, ratings and what is computed from them, by hand where hands suffice."""

import json
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

import evaluate as e
from data.server import serving
from platolm import Problem, prompt

QUESTIONS = [
    {"question_id": 7, "category": "math", "asked": True, "turns": ["how much is the rope", "times 2?"]},
    {"question_id": 8, "category": "stem", "asked": False, "turns": ["hi", "who mends clocks?"]},
]


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return tmp_path


def test_a_second_answer_follows_from_the_first(make_model, tokenizer):
    model = make_model()
    first, second = e.answer(model, tokenizer, QUESTIONS, limit=6, slots=1)[0]
    alone = e.answer(model, tokenizer, [{"turns": QUESTIONS[0]["turns"][:1]}], limit=6)[0]
    assert alone == [first]
    talk = [{"from": "human", "value": "how much is the rope"}, {"from": "gpt", "value": first},
            {"from": "human", "value": "times 2?"}]
    row, = e.generate(model, [prompt(talk, tokenizer, "gpt")], [tokenizer.eos], 6, temperature=0)
    assert tokenizer.decode(row.wrote) == second


@pytest.mark.parametrize("text, number", [
    ("Good. [[7]]", 7), ("[[7.5]] I say", 7.5), ("rated [7]", 7), ("[2] but [[9]]", 9),
    ("[[3]] then [[4]]", 3), ("[[11]]", None), ("in [1931]", None), ("seven", None), ("", None), ("[[good]]", None)])
def test_a_rating_is_read_from_a_judgment(text, number):
    assert e.rating(text) == number


def test_the_judge_sees_the_talk_up_to_the_answer_in_question():
    text = e.judge_prompt(["q1", "q2"], ["a1", "a2"])
    assert text.endswith("[conversation]\nuser: q1\nassistant: a1\nuser: q2\nassistant: a2\n"
                         "[end of conversation]")
    assert "a2" not in e.judge_prompt(["q1"], ["a1"])


def test_scores_by_hand():
    assert e.scale([1, 10, 5.5]).tolist() == [0, 1, 0.5]
    arm = e.summary(np.array([[1.0, 0.5], [0.0, 0.25]]), QUESTIONS)
    assert arm["overall"] == 0.4375 and arm["turn1"] == 0.5 and arm["turn2"] == 0.375
    assert arm["asked"] == 0.75 and arm["never_asked"] == 0.125
    assert arm["categories"] == {"math": 0.75, "stem": 0.125}


def test_scores_by_kind_of_turn_by_hand():
    questions = [QUESTIONS[0] | {"kinds": ["question", "number"]},
                 QUESTIONS[1] | {"kinds": ["question", "question"]}]
    assert e.by_kind(np.array([[1.0, 0.5], [0.0, 0.2]]), questions) == {
        "number": 0.5, "question": pytest.approx(0.4)}
    assert e.by_kind(np.array([[1.0, 0.5]]), QUESTIONS[:1]) == {}


def test_a_gold_answer_needs_all_its_words_and_whole_ones():
    assert e.held("The Red Hat, no. 14 coins!", ["red hat", "14"])
    assert not e.held("114 coins", ["14"]) and not e.held("hats", ["hat"])
    assert not e.held("only red", ["red", "hat"]) and e.held("anything", [])


def test_gold_answers_are_asked_for_with_all_that_was_said_before(make_model, tokenizer, monkeypatch):
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"},
            {"from": "human", "value": "who"}, {"from": "gpt", "value": "bram"}]
    seen = []

    def generate(model, prompts, *rest, **how):
        seen.extend(prompts)
        return [Namespace(wrote=tokenizer.encode("it is bram"))] * len(prompts)
    monkeypatch.setattr(e, "generate", generate)
    records = [{"conversations": said, "keys": [[], ["bram"]]},
               {"conversations": said[:2], "keys": [["who"]]}]
    assert e.gold_hits(None, tokenizer, records) == [[True], [False]]
    assert seen == [prompt(said[:3], tokenizer, "gpt"), prompt(said[:1], tokenizer, "gpt")]


def test_a_ratio_and_its_interval():
    middle, low, high = e.ratio([1, 3, 2], [2, 4, 2])
    assert middle == 0.75 and 0.5 <= low <= middle <= high <= 1
    assert e.ratio([2, 4], [4, 8]) == (0.5, 0.5, 0.5)


def test_the_surprise_at_each_human_turn_is_that_of_its_tokens_one_by_one(make_model, tokenizer):
    model = make_model()
    talk = [{"from": "human", "value": "who sells ropes"}, {"from": "gpt", "value": "the red shop"},
            {"from": "human", "value": "really?"}, {"from": "gpt", "value": "yes"}]
    records = [{"conversations": talk, "end": "left"}, {"conversations": talk[:2], "end": "cut"}]
    for blind in (False, True):
        found = e.turn_losses(model, tokenizer, records, blind)
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


def test_what_listening_is_worth_by_hand():
    record = {"leans": [False, True, False], "asked": [False, True, True]}
    assert e.heard(record) == [(1, True, False), (2, False, True)]
    rows = e.listening([record], [[[9], [1, 1], [3]]], [[[9], [2, 4], [3]]])
    found = {(row["leaning"], row["asked"]): row for row in rows}
    assert found[True, False]["difference"] == 2 and found[True, False]["tokens"] == 2
    assert found[False, True]["difference"] == 0
    assert found[None, None]["difference"] == pytest.approx(4 / 3)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        _, low, high = e.bootstrap(rng.random(160) < 0.7, draws=400, seed=seed)
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_pairing_takes_out_what_all_questions_share():
    rng = np.random.default_rng(0)
    hard, noise = rng.random(100), rng.normal(size=100) / 100
    difference, low, high = e.paired(hard + 0.05 + noise, hard)
    assert low < difference < high and high - low < 0.01
    assert e.paired(hard, hard) == (0, 0, 0)


def run(*words):
    return subprocess.run([sys.executable, "evaluate.py", *map(str, words)], capture_output=True,
                          text=True)


def test_from_a_checkpoint_to_the_table(bench, talker, tokenizer):
    """Answer, judge over HTTP, score: the files of MT-Bench, and a judge who likes long answers."""
    talker.save(bench / "socratic"), tokenizer.save(bench / "socratic")
    done = run("answer", f"talker={bench}/socratic", "--bench", bench, "--limit", 9)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(text) for text in (bench / "model_answer/talker.jsonl").read_text().splitlines()]
    assert [(a["question_id"], a["model_id"], len(a["choices"][0]["turns"])) for a in answers] == [
        (7, "talker", 2), (8, "talker", 2)]
    for row in answers:
        row["choices"][0]["turns"] = ["long " * 20] * 2
    (bench / "model_answer/wordy.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))

    def judge(messages):
        last = messages[0]["content"].split("assistant: ")[-1]
        return f"It is so. [[{10 if 'long long' in last else 1}]]"
    with serving(judge) as url:
        done = run("judge", "talker", "wordy", "--bench", bench, "--judge", url)
    assert "8 judgments of 2 assistants, 0 without a rating" in done.stdout, done.stderr
    row = json.loads((bench / "model_judgment/grader_single.jsonl").read_text().splitlines()[0])
    assert row.keys() == {"question_id", "model", "turn", "judge", "user_prompt", "judgment", "score", "tstamp"}

    done = run("score", "talker", "wordy", "--bench", bench, "--against", "wordy", "--out", bench / "r.json")
    results = json.loads((bench / "r.json").read_text())
    assert results["arms"]["wordy"]["overall"] == 1 and results["arms"]["talker"]["overall"] == 0
    assert results["paired"]["wordy-talker"] == {"difference": 1, "low": 1, "high": 1}
    assert done.stdout.index("wordy") < done.stdout.index("talker"), "the best arm stands first"


def test_an_answer_without_a_rating_is_not_scored_in_silence(bench):
    rows = [{"model": "a", "question_id": q, "turn": t, "score": -1 if (q, t) == (8, 2) else 5}
            for q in (7, 8) for t in (1, 2)]
    (bench / "model_judgment").mkdir()
    (bench / "model_judgment/grader_single.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(Problem, match="1 answers of a have no rating"):
        e.scores_of(bench, "grader", ["a"], QUESTIONS)
    with pytest.raises(Problem, match="4 answers of b have no rating"):
        e.scores_of(bench, "grader", ["b"], QUESTIONS)
    (bench / "question.jsonl").write_text("")
    with pytest.raises(Problem, match="no questions"):
        e.questions_of(bench)
    (bench / "question.jsonl").write_text('{"question_id": 1, "turns": []}\n')
    with pytest.raises(Problem, match="line 1: no category and no turns"):
        e.questions_of(bench)


@pytest.mark.parametrize("words, said", [
    (["answer", "nowhere", "--bench", "{bench}"], "nowhere/config.json: No such file"),
    (["answer", "nowhere", "--bench", "{bench}/void"], "question.jsonl: No such file"),
    (["judge", "nobody", "--bench", "{bench}", "--judge", "http://127.0.0.1:9/v1"], "nobody.jsonl: No such file"),
    (["score", "nobody", "--bench", "{bench}"], "grader_single.jsonl: No such file"),
])
def test_trouble_is_one_sentence(bench, words, said):
    done = run(*[word.format(bench=bench) for word in words])
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
