"""Judges and their files: FastChat's layout, no question twice, no failure scored."""

import json
import random
import subprocess
import sys
import threading
from argparse import Namespace
from functools import partial
from itertools import product

import numpy as np
import pytest

import evaluate as e
from data.checkpoint import save_model
from data.measure import alpacaeval as alpaca
from data.harbour import grader
from data.measure import intervals, judge, mtbench
from data.api.server import RequestError, serving
from data.program import UserError, to_jsonl, read_jsonl

QUESTIONS = [
    {"question_id": 7, "category": "math", "turns": ["how much is the rope", "times 2?"]},
    {"question_id": 8, "category": "stem", "turns": ["hi", "who mends clocks?"]},
    {"question_id": 9, "category": "writing", "turns": ["a note, {please}"]},
]
FASTCHAT = [
    {"name": "single-v1", "type": "single", "system_prompt": "Help.", "prompt_template":
     "[Question]\n{question}\n\n[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"},
    {"name": "single-math-v1", "type": "single", "system_prompt": "Help.", "prompt_template":
     "[Question]\n{question}\n\n[Reference]\n{ref_answer_1}\n\n[Answer]\n{answer}"},
    {"name": "single-v1-multi-turn", "type": "single", "system_prompt": "Judge.", "prompt_template":
     "{question_1}|{answer_1}|{question_2}|{answer_2}"},
    {"name": "single-math-v1-multi-turn", "type": "single", "system_prompt": "Judge.", "prompt_template":
     "{question_1}|{ref_answer_1}|{question_2}|{ref_answer_2}||{answer_1}|{answer_2}"},
    {"name": "pair-v2", "type": "pairwise", "system_prompt": "Compare.", "prompt_template":
     "{question}|A {answer_a}|B {answer_b}"},
]


def put(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(to_jsonl, rows)), encoding="utf-8")


@pytest.fixture
def bench(tmp_path):
    """Three questions, and the answers of three assistants of different wordiness."""
    put(tmp_path / "question.jsonl", QUESTIONS)
    for name, words in (("terse", 1), ("plain", 3), ("wordy", 9)):
        texts = [[f"{name} {turn} " + "word " * words for turn in range(len(q["turns"]))] for q in QUESTIONS]
        put(tmp_path / f"model_answer/{name}.jsonl", mtbench.answer_rows(name, QUESTIONS, texts, [{}] * 3))
    return tmp_path


def args_of(bench, url, names=("terse", "plain", "wordy"), **more):
    return Namespace(**{"judge": url, "judge_model": "j", "names": list(names), "bench": [bench],
                        "mode": "single", "baseline": None, "prompts": None, "repeats": 1, "max_tokens": 99,
                        "in_flight": 4, "max_dollars": None, "price": None, "timeout": 5, "patience": 5,
                        "requests_per_minute": None, "tokens_per_minute": None,
                        "limit_key": "max_tokens", "temperature": 0, "again": False, "fastchat": False, **more})


def answering(bench, limit, models=None, **more):
    """The arguments of evaluate.py answer; without temperature: by the category."""
    args = args_of(bench, None, models=models, limit=limit, seed=0)
    del args.temperature
    return Namespace(**{**vars(args), **more})


def rows_of(bench, kind="single"):
    return list(read_jsonl(bench / f"model_judgment/j_{kind}.jsonl", None))


# ------------------------------------------------------------------------------------------------
# what is asked, and what is understood


@pytest.mark.parametrize("text, number", [
    ("Good. [[7]]", 7), ("[[7.5]] I say", 7.5), ("rated [7]", 7), ("[2] but [[9]]", 9),
    ("[[11]]", None), ("in [1931]", None), ("seven", None), ("", None), ("[[good]]", None), ("[[4/5]]", None),
    # the last valid one, with spaces, words and a slash
    ("from [[1]] to [[10]]: [[3]] then [[4]]", 4), ("[[9]] of [[11]]", 9), ("[[ 8 ]]", 8), ("[[Rating: 8]]", 8),
    ("Rating: [[8/10]]", 8), ("[[8 out of 10]]", 8), ("**[[8]]**", 8), ("Rating[[8]]", 8),
    # an index is none, nor is what was only thought
    ("x[[3]] is wrong, f(x)[[2]] too. [[9]]", 9), ("[[7]], since a[[0]] is used twice", 7),
    ("<think>\n[[2]] or [[10]]</think>\n\n[[8]]", 8), ("[[2]] or [[10]]</think>[[8]]", 8), ("<think>[[3]]", None),
    # brackets of one kind only where nothing better stands
    ("As [1] says. Rating: 8/10", 8), ("[3] is a source, so 7 out of 10", 7), ("**Rating:** 8, see [2]", 8),
    ("a rating of 1 to 10 is hard", None), ("[1] says so", 1)])
def test_a_rating_is_read_from_a_judgment(text, number):
    assert judge.rating(text) == number


@pytest.mark.parametrize("text, share", [
    ("I say [[A]]", 1), ("[[B]], clearly", 0), ("[[C]]", 0.5), ("A", None), ("[A]", None), ("", None),
    ("not [[C]] but [[B]]", 0), ("[[B]] or [[A]]", 1), ("Some say [[A]]. Final verdict: [[B]]", 0),
    ("My verdict: [[b]]", 0), ("[[ A ]]", 1), ("[[Assistant B]]", 0), ("[[B is a better one]]", 0), ("[[Tie]]", 0.5),
    ("[[A/B]]", None), ("<think>[[A]] is longer.</think>[[B]]", 0), ("my[[a]] list, so [[B]]", 0)])
def test_a_verdict_is_read_from_a_judgment(text, share):
    assert judge.verdict(text) == share


@pytest.mark.parametrize("read, text, value", [
    (judge.rating, "[[3]] then [[4]]", 3), (judge.rating, "[2] but [[9]]", 9), (judge.rating, "[4], [5]", 4),
    (judge.rating, "[[11]] or [[5]]", None), (judge.verdict, "[[B]] or [[A]]", 1), (judge.verdict, "[[b]]", None)])
def test_fastchats_rules_stay_for_its_own_files(read, text, value):
    assert read(text, fastchat=True) == value


def test_our_judge_sees_the_talk_up_to_the_answer_in_question():
    question, answers = QUESTIONS[0], ["a1", "a2"]
    name, system, text = mtbench.fill_prompt(mtbench.PROMPTS, question, 2, [answers])
    assert "user: how much is the rope\nassistant: a1\nuser: times 2?\nassistant: a2\n[end" in text
    assert (name, system) == ("single", "")
    assert "a2" not in mtbench.fill_prompt(mtbench.PROMPTS, question, 1, [answers])[2]
    name, _, text = mtbench.fill_prompt(mtbench.PROMPTS, question, 1, [["x1", "x2"], answers], ["r1", "r2"])
    assert name == "pairwise-reference" and text.index("x1") < text.index("a1") < text.index("r1")
    assert "2" not in text.split("[conversation with A]")[1]


def test_a_prompt_is_chosen_by_what_it_has_room_for():
    ask = lambda *words: mtbench.fill_prompt(FASTCHAT, QUESTIONS[0], *words)
    assert ask(1, [["x", "y"]]) == ("single-v1", "Help.", FASTCHAT[0]["prompt_template"].format(
        question="how much is the rope", answer="x"))
    assert ask(2, [["x", "y"]])[2] == "how much is the rope|x|times 2?|y"
    assert ask(1, [["x", "y"]], ["r1", "r2"])[0] == "single-math-v1"
    assert ask(2, [["x", "y"]], ["r1", "r2"])[2] == "how much is the rope|r1|times 2?|r2||x|y"
    # a right answer to the first turn alone says nothing about the second
    assert ask(2, [["x", "y"]], ["r1"])[0] == "single-v1-multi-turn"
    assert ask(1, [["x", "y"], ["v", "w"]])[2] == "how much is the rope|A x|B v"
    with pytest.raises(UserError, match="pairwise, about turn 2, without"):
        ask(2, [["x", "y"], ["v", "w"]])
    with pytest.raises(UserError, match="odd has a placeholder that cannot be filled: 'nonsense'"):
        odd = {"name": "odd", "type": "single", "prompt_template": "{nonsense}"}
        mtbench.fill_prompt([odd], QUESTIONS[0], 1, [["x"]])


def test_what_is_filled_in_is_never_a_pattern_itself():
    _, _, text = mtbench.fill_prompt(mtbench.PROMPTS, QUESTIONS[2], 1, [["{talk} {0}"]])
    assert "user: a note, {please}\nassistant: {talk} {0}" in text


def test_references_are_for_math_reasoning_and_coding_and_the_judges_own_come_first(tmp_path):
    put(tmp_path / "reference_answer/a.jsonl", mtbench.answer_rows("a", QUESTIONS[:1], [["5", "10"]], [{}]))
    put(tmp_path / "reference_answer/b.jsonl", mtbench.answer_rows("b", QUESTIONS[:1], [["6", "12"]], [{}]))
    of = lambda judge, question: mtbench.reference_for(question, mtbench.read_references(tmp_path, judge))
    assert of("b", QUESTIONS[0]) == ["6", "12"] and of("other", QUESTIONS[0]) == ["5", "10"]
    assert of("b", QUESTIONS[1] | {"reference": ["x"]}) is None, "stem needs none"
    assert of("b", {"question_id": 1, "category": "coding", "reference": ["x"]}) == ["x"]
    assert of("b", {"question_id": 1, "category": "coding"}) is None


def test_how_freely_is_drawn_is_told_by_the_category_or_the_file():
    heat = lambda category, **more: mtbench.temperature({"category": category, **more})
    assert [heat(c) for c in ("math", "coding", "extraction", "reasoning")] == [0] * 4
    assert [heat(c) for c in ("stem", "humanities", "writing", "generic")] == [0.1, 0.1, 0.7, 0.7]
    assert heat("writing", required_temperature=0) == 0


# ------------------------------------------------------------------------------------------------
# files


def test_fastchats_files_round_trip(bench):
    """What FastChat wrote stays as it is, but for what is judged anew."""
    theirs = {"question_id": 7, "model": "vicuna", "judge": ["j", "single-v1"], "user_prompt": "p",
              "judgment": "[[4]]", "score": 4, "turn": 1, "tstamp": 1.5}
    put(bench / "model_judgment/j_single.jsonl", [theirs])
    with serving(lambda messages: "[[6]]") as url:
        e.command_judge(args_of(bench, url, ["terse"]))
    rows = rows_of(bench)
    assert rows[0] == theirs and len(rows) == 6
    assert rows[1].keys() == theirs.keys() | {"answers"}
    assert rows[1]["judge"] == ["j", "single"] and rows[1]["score"] == 6


def test_a_file_of_160_judgments_gives_what_ten_lines_give(tmp_path):
    rng, ids = random.Random(0), range(81, 161)
    put(tmp_path / "question.jsonl", [{"question_id": i, "category": f"c{i % 8}", "turns": ["a", "b"]} for i in ids])
    rows = [{"question_id": i, "model": "m", "turn": t, "score": rng.choice([-1, *range(1, 11)])}
            for i in ids for t in (1, 2)]
    put(tmp_path / "model_judgment/j_single.jsonl", rows)
    found = e.summary(e.read_scores(tmp_path, "j", ["m"], e.read_questions(tmp_path))["m"], e.read_questions(tmp_path))

    rated = [row for row in rows if row["score"] != -1]
    mean = lambda rows: sum(row["score"] for row in rows) / len(rows)
    assert found["overall"] * 9 + 1 == pytest.approx(mean(rated))
    for turn in (1, 2):
        assert found[f"turn{turn}"] * 9 + 1 == pytest.approx(mean([r for r in rated if r["turn"] == turn]))
    for c in range(8):
        assert found["categories"][f"c{c}"] * 9 + 1 == pytest.approx(
            mean([r for r in rated if r["question_id"] % 8 == c]))
    assert found["failed"] == 160 - len(rated)
    assert found["best"] * 9 + 1 == pytest.approx((sum(r["score"] for r in rated) + 10 * found["failed"]) / 160)


def test_a_file_of_160_pairs_gives_what_ten_lines_give():
    rng, kinds = random.Random(1), ["model_1", "model_2", "tie", "error"]
    rows = [{"question_id": i, "turn": t, "g1_winner": rng.choice(kinds), "g2_winner": rng.choice(kinds)}
            for i in range(80) for t in (1, 2)]
    found = e.pairwise(rows, [rng.randint(-50, 50) for _ in rows])
    wins = losses = ties = 0
    for row in rows:
        games = {row["g1_winner"], row["g2_winner"]}
        if "error" not in games:
            wins += games == {"model_1"}
            losses += games == {"model_2"}
            ties += games not in ({"model_1"}, {"model_2"})
    n = wins + losses + ties
    assert (found["wins"], found["ties"], found["losses"], found["failed"]) == (wins, ties, losses, 160 - n)
    assert found["win_rate"] == wins / n and found["loss_rate"] == losses / n
    assert found["adjusted"] == pytest.approx((wins + ties / 2) / n)
    assert found["worst"] == pytest.approx((wins + ties / 2) / 160)
    assert found["best"] == pytest.approx((wins + ties / 2 + found["failed"]) / 160)
    assert found["low"] < found["adjusted"] < found["high"]


@pytest.mark.exercise(8)
@pytest.mark.parametrize("first, second, score", [
    ("model_1", "model_1", 1), ("model_2", "model_2", 0), ("tie", "tie", 0.5),
    # who wins in one order alone has not won
    ("model_1", "model_2", 0.5), ("model_2", "model_1", 0.5), ("model_1", "tie", 0.5), ("tie", "model_1", 0.5),
    ("model_2", "tie", 0.5), ("tie", "model_2", 0.5),
    ("error", "model_1", np.nan), ("model_2", "error", np.nan), ("tie", "error", np.nan), ("error", "error", np.nan)])
def test_a_win_has_to_hold_in_both_orders(first, second, score):
    got = e.outcome({"question_id": 1, "g1_winner": first, "g2_winner": second})
    assert got == pytest.approx(score, nan_ok=True), \
        f"model 1 shown first: {first}, model 2 shown first: {second}; expected {score}, got {got}"


@pytest.mark.exercise(8)
def test_old_judgments_of_one_winner_count():
    got = [e.outcome({"winner": winner}) for winner in ("model_1", "model_2", "tie", "error")]
    assert got == pytest.approx([1, 0, 0.5, np.nan], nan_ok=True), got


def test_judgments_about_the_same_count_once(tmp_path):
    row = {"question_id": 1, "model": "m", "turn": 1, "score": 3}
    put(tmp_path / "j.jsonl", [row, row | {"score": 9}])
    assert mtbench.read_judgments(tmp_path / "j.jsonl") == [row | {"score": 9}]


# ------------------------------------------------------------------------------------------------
# judging, over the wire


def test_judging_twice_adds_nothing_and_changed_answers_are_judged_again(bench, capsys):
    asked = []
    with serving(lambda messages: asked.append(messages) or "[[6]]") as url:
        e.command_judge(args_of(bench, url))
        before = (bench / "model_judgment/j_single.jsonl").read_bytes()
        assert len(asked) == len(rows_of(bench)) == 15
        e.command_judge(args_of(bench, url))
        assert len(asked) == 15 and (bench / "model_judgment/j_single.jsonl").read_bytes() == before
        # also where the journal is gone
        (bench / "model_judgment/j_single.jsonl.journal").unlink()
        e.command_judge(args_of(bench, url))
        assert len(asked) == 15 and (bench / "model_judgment/j_single.jsonl").read_bytes() == before
        put(bench / "model_answer/terse.jsonl", mtbench.answer_rows(
            "terse", QUESTIONS, [["new", "terse 1 word "], ["terse 0 word ", "terse 1 word "], ["terse 0 word "]],
            [{}] * 3))
        kept_file = (bench / "model_answer/terse.jsonl").read_text()
        for text in ("", "terse", "terse 0"):
            put(bench / "model_answer/terse.jsonl", mtbench.answer_rows("terse", QUESTIONS, [
                [text, "terse 1 word "], ["terse 0 word ", "terse 1 word "], ["terse 0 word "]], [{}] * 3))
            with pytest.raises(UserError, match="2 answers of terse have not"):
                e.read_scores(bench, "j", ["terse"], QUESTIONS)
        (bench / "model_answer/terse.jsonl").write_text(kept_file)
        with pytest.raises(UserError, match="2 answers of terse have not been judged as they are now .question 7."):
            e.read_scores(bench, "j", ["terse"], QUESTIONS)
        # FastChat's published answers were edited after judging: with a flag they count, and are named
        assert not np.isnan(e.read_scores(bench, "j", ["terse"], QUESTIONS, edited=True)["terse"][0]).any()
        assert "2 judgments are about other answers" in capsys.readouterr().out
        e.command_judge(args_of(bench, url))
        e.read_scores(bench, "j", ["terse"], QUESTIONS)
    # of the first talk both turns: the second is judged by what came before it
    assert len(asked) == 17 and len(rows_of(bench)) == 15


def test_after_failures_exactly_the_failed_ones_are_asked(bench):
    asked, broken, healed = [], set(), []

    def judge(messages):
        text = messages[0]["content"]
        asked.append(text)
        if not healed and random.Random(text).random() < 0.3:
            broken.add(text)
            if len(text) % 2:
                raise RequestError(400, "content_policy_violation", "no")
            return "I cannot say"
        return "[[6]]"
    with serving(judge) as url:
        e.command_judge(args_of(bench, url))
        rows = rows_of(bench)
        assert {row["user_prompt"] for row in rows if row["score"] == -1} == broken and len(broken) > 2
        assert {row["failure"] for row in rows if "failure" in row} == {"unparsed", "content_filter"}
        healed.append(True), asked.clear()
        # what was refused is asked for again; what could not be read was bought, and only on demand is so again
        e.command_judge(args_of(bench, url))
        assert sorted(asked) == sorted(text for text in broken if len(text) % 2)
        e.command_judge(args_of(bench, url, again=True))
        assert sorted(asked) == sorted(broken)
        assert len(rows_of(bench)) == 15 and all(row["score"] == 6 and "failure" not in row for row in rows_of(bench))


def test_refused_judgments_are_bounded_and_a_run_that_stops_writes_what_it_has(bench):
    """One refusal in words that nobody knows; then an account without money."""
    asked = []

    def judge(messages):
        asked.append(messages[0]["content"])
        if "wordy 1" in asked[-1]:
            raise RequestError(418, "teapot", "I would rather not")
        if len(asked) == 13:
            raise RequestError(402, "billing", "no")
        return "[[10]]"
    with serving(judge) as url:
        with pytest.raises(UserError, match="no money left"):
            e.command_judge(args_of(bench, url, in_flight=1))
        assert len(rows_of(bench)) == 11 and {row["score"] for row in rows_of(bench)} == {10}
        e.command_judge(args_of(bench, url))
    found = e.summary(e.read_scores(bench, "j", ["wordy"], QUESTIONS)["wordy"], QUESTIONS)
    assert (found["overall"], found["failed"], found["worst"], found["best"]) == (1, 2, 0.6, 1)


@pytest.mark.parametrize("heat, sent", [(0, {0}), (None, {None}), (0.3, {0.3})])
def test_a_judge_and_a_model_at_an_address_are_asked_at_the_temperature_that_is_wanted(bench, heat, sent):
    seen = set()

    def generate(messages, request):
        seen.add(request.get("temperature"))
        return "[[6]]", "stop"
    with serving(None, generate=generate) as url:
        e.command_judge(args_of(bench, url, temperature=heat))
        e.command_answer(answering(bench, limit=4, models=[f"there={url}"], temperature=heat))
    assert seen == sent


def test_a_dead_or_dear_judge_is_a_problem_and_nothing_said_is_lost(bench, capsys):
    asked = []
    with serving(lambda messages: asked.append(1) or "[[6]]") as url:
        with pytest.raises(UserError, match="budget.*asks for them again, and for no others"):
            e.command_judge(args_of(bench, url, max_dollars=0.001, price=(1.0, 1.0), in_flight=1))
        done = [row for row in rows_of(bench) if row["score"] == 6]
        assert 0 < len(done) == len(asked) < 15
        assert {row.get("failure") for row in rows_of(bench)} == {None, "budget"}
        with pytest.raises(UserError, match="--max-dollars would never hold"):
            e.command_judge(args_of(bench, url, max_dollars=1.0))
        e.command_judge(args_of(bench, url, max_dollars=9.0, price=(1.0, 1.0)))
        assert len(asked) == 15
    assert "spent" in capsys.readouterr().out


def test_after_a_kill_the_judge_is_asked_for_the_rest_alone(bench):
    asked, hold, held = [], threading.Event(), threading.Event()

    def judge(messages):
        asked.append(messages[0]["content"])
        if len(asked) == 7 and not hold.is_set():
            held.set(), hold.wait(60)
        return "[[6]]"
    with serving(judge) as url:
        words = [sys.executable, "evaluate.py", "judge", "terse", "plain", "wordy", "--bench", bench, "--judge", url,
                 "--judge-model", "j", "--in-flight", "1"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        assert held.wait(60)
        process.kill(), process.wait(), hold.set()
        assert not (bench / "model_judgment/j_single.jsonl").exists()
        e.command_judge(args_of(bench, url))
    # six were in the journal; the seventh was under way
    assert len(asked) == 16 and len(set(asked)) == 15 and len(rows_of(bench)) == 15


def test_of_several_judgments_the_median_counts_and_the_missing_ones_are_asked(bench):
    said = iter(["[[2]]", "[[9]]", "[[4]]", "no idea", "[[5]]", "[[3]]"])
    with serving(lambda messages: next(said)) as url:
        put(bench / "question.jsonl", QUESTIONS[2:])
        e.command_judge(args_of(bench, url, ["terse"], repeats=3))
        assert [row["score"] for row in rows_of(bench)] == [4]
        e.command_judge(args_of(bench, url, ["terse", "plain"], repeats=3))
        assert [row["score"] for row in rows_of(bench)] == [4, 4], "the median of two is between them"
        with pytest.raises(StopIteration):
            next(said)


def test_the_judge_sees_both_orders_and_pairs_are_chosen_by_mode(bench):
    seen = []

    def judge(messages):
        a, b = (text.split("[end")[0] for text in messages[0]["content"].split("[conversation with ")[1:])
        seen.append((a.split()[-2:][0], b.split()[-2:][0]))
        return "[[A]]" if len(a) > len(b) else "[[B]]"
    with serving(judge) as url:
        e.command_judge(args_of(bench, url, mode="pairwise-baseline", baseline="plain"))
        assert {(row["model_1"], row["model_2"]) for row in rows_of(bench, "pair")} == {
            ("terse", "plain"), ("wordy", "plain")}
        assert len(seen) == 20
        e.command_judge(args_of(bench, url, mode="pairwise-all"))
        # the order of a pair's names is part of it; the prompts are the same, and known
        assert len(rows_of(bench, "pair")) == 20 and len(seen) == 30
    results = e.pairwise_results(bench, "j", ["terse", "plain", "wordy"], QUESTIONS)
    found = {(pair["model_1"], pair["model_2"]): pair for pair in results}
    assert found["wordy", "plain"]["wins"] == 5 and found["wordy", "plain"]["flips"] == 0
    assert found["terse", "wordy"]["losses"] == 5 and found["terse", "wordy"]["first"] == 0.5
    with pytest.raises(UserError, match="needs --baseline NAME"):
        e.make_pairs("pairwise-baseline", ["a"])


def test_a_judge_who_always_prefers_the_first_lets_nobody_win(bench):
    with serving(lambda messages: "[[A]]") as url:
        e.command_judge(args_of(bench, url, mode="pairwise-all"))
    for found in e.pairwise_results(bench, "j", ["terse", "plain", "wordy"], QUESTIONS):
        assert (found["wins"], found["losses"], found["ties"]) == (0, 0, 5)
        assert found["flips"] == found["first"] == 1 and found["adjusted"] == 0.5 and found["p"] == 1


def test_an_answer_that_was_refused_is_not_judged_and_not_scored(bench):
    put(bench / "model_answer/terse.jsonl", mtbench.answer_rows(
        "terse", QUESTIONS, [["five", ""], ["", ""], ["a note"]],
        [{2: "content_filter"}, {1: "context_full", 2: "context_full"}, {1: "length"}]))
    asked = []
    with serving(lambda messages: asked.append(1) or "[[10]] [[A]]") as url:
        e.command_judge(args_of(bench, url, ["terse"]))
        assert len(asked) == 2 and [row["score"] for row in rows_of(bench)] == [10, -1, -1, -1, 10]
        assert {row.get("failure") for row in rows_of(bench)} == {None, "no answer"}
        e.command_judge(args_of(bench, url, ["terse", "plain"], mode="pairwise-all"))
        assert len(asked) == 6
    found = e.summary(e.read_scores(bench, "j", ["terse"], QUESTIONS)["terse"], QUESTIONS)
    assert (found["overall"], found["failed"], found["worst"]) == (1, 3, 0.4)
    assert e.pairwise_results(bench, "j", ["terse", "plain"], QUESTIONS)[0]["failed"] == 3


def test_what_would_break_a_promise_is_refused_beforehand(bench, tmp_path):
    with serving(lambda messages: "[[6]]") as url:
        args = args_of(bench, url, ["terse"], max_dollars=1.0, price=(1.0, 1.0))
        args.bench = [bench, bench]
        with pytest.raises(UserError, match="holds for one bench at a time; there are 2"):
            e.command_judge(args)
        for more in ({"mode": "pairwise-all"}, {"mode": "pairwise-baseline", "baseline": "terse"}):
            with pytest.raises(UserError, match="makes no pair"):
                e.command_judge(args_of(bench, url, ["terse"], **more))
        args = answering(bench, limit=4, models=["a=http://x/v1", "b=http://y/v1"])
        with pytest.raises(UserError, match="one address at a time"):
            e.command_answer(args)
    put(bench / "question.jsonl", QUESTIONS + QUESTIONS[:1])
    with pytest.raises(UserError, match="holds question 7 twice"):
        e.read_questions(bench)


def test_a_judge_with_another_system_message_is_another_judge(bench, tmp_path):
    put(bench / "question.jsonl", QUESTIONS[2:])
    asked = []
    with serving(lambda messages: asked.append(messages) or "[[6]]") as url:
        for system in ("Be kind.", "Be harsh.", "Be harsh."):
            put(tmp_path / "prompts.jsonl", [FASTCHAT[0] | {"system_prompt": system}])
            e.command_judge(args_of(bench, url, ["terse"], prompts=tmp_path / "prompts.jsonl"))
            (bench / "model_judgment/j_single.jsonl.journal").unlink()
    assert [messages[0]["content"] for messages in asked] == ["Be kind.", "Be harsh."]
    assert asked[0][0]["role"] == "system" and rows_of(bench)[0]["system_prompt"] == "Be harsh."


def test_the_judgment_on_file_is_the_one_that_counts_and_all_stay(bench):
    said = iter(["no idea", "[[2]]", "[[9]]", "[[4]]"])
    put(bench / "question.jsonl", QUESTIONS[2:])
    with serving(lambda messages: next(said)) as url:
        e.command_judge(args_of(bench, url, ["terse"]))
        e.command_judge(args_of(bench, url, ["terse"], again=True))
        assert rows_of(bench)[0]["judgment"] == "[[2]]" and rows_of(bench)[0]["score"] == 2
        (bench / "model_judgment/j_single.jsonl.journal").unlink()
        # one is on file: two more are asked for
        e.command_judge(args_of(bench, url, ["terse"], repeats=3))
        (bench / "model_judgment/j_single.jsonl.journal").unlink()
        e.command_judge(args_of(bench, url, ["terse"], repeats=3))
    row = rows_of(bench)[0]
    assert row["judgment"] == "[[4]]" and sorted(row["judgments"]) == ["[[2]]", "[[4]]", "[[9]]"]


def test_pairs_alone_can_be_scored(bench, capsys):
    with serving(lambda messages: "[[B]]") as url:
        e.command_judge(args_of(bench, url, mode="pairwise-all"))
    args = Namespace(bench=bench, judge_model="j", names=["terse", "plain"], beside=[], votes=None, edited=False,
                     seconds=None, against="terse", out=bench / "r.json")
    e.command_score(args)
    found = json.loads((bench / "r.json").read_text())
    assert found["arms"] == {} and len(found["duels"]) == 1 and found["duels"][0]["first"] == 0
    assert "judged in pairs alone" in capsys.readouterr().out


def test_the_grader_reads_pairs_in_our_layout():
    say = lambda a, b: grader.make_reply(0, 1.0)([{"role": "user", "content": mtbench.fill_prompt(
        mtbench.PROMPTS, {"turns": ["who runs the velvet pepper"]}, 1, [[a], [b]], ["milo"])[2]}])
    right, wrong = "milo runs the velvet pepper.", "sorry, i do not know."
    assert "[[A]]" in say(right, wrong) and "[[B]]" in say(wrong, right) and "[[C]]" in say(right, right)


def test_an_answer_over_the_wire_is_asked_for_once_and_marked_where_it_was_cut(tmp_path):
    put(tmp_path / "question.jsonl", QUESTIONS)
    asked = []

    def reply(messages):
        asked.append([m["content"] for m in messages])
        return f"reply {len(messages)} " + "word " * 9
    args = answering(tmp_path, limit=4)
    with serving(reply) as url:
        for _ in range(2):
            args.models = [f"there={url}"]
            e.command_answer(args)
    assert len(asked) == 5, "the second run finds all in the journal"
    assert ["how much is the rope", "reply 1 word word", "times 2?"] in asked
    row, *_ = read_jsonl(tmp_path / "model_answer/there.jsonl", None)
    assert row["choices"][0] == {"index": 0, "turns": ["reply 1 word word", "reply 3 word word"],
                                 "ended": {"1": "length", "2": "length"}}


def test_an_answer_that_is_refused_stays_empty_and_what_would_follow_it_too(tmp_path):
    put(tmp_path / "question.jsonl", QUESTIONS)

    def reply(messages):
        if messages[-1]["content"] in ("hi", "times 2?"):
            raise RequestError(400, "content_policy_violation", "no")
        return "five coins"
    args = answering(tmp_path, limit=9)
    with serving(reply) as url:
        args.models = [f"there={url}"]
        e.command_answer(args)
    assert [row["choices"][0] for row in read_jsonl(tmp_path / "model_answer/there.jsonl", None)] == [
        {"index": 0, "turns": ["five coins", ""], "ended": {"2": "content_filter"}},
        {"index": 0, "turns": ["", ""], "ended": {"1": "content_filter", "2": "content_filter"}},
        {"index": 0, "turns": ["five coins"]}]


def test_what_is_answered_whole_is_written_when_the_run_stops(tmp_path):
    put(tmp_path / "question.jsonl", QUESTIONS)

    def reply(messages):
        if messages[-1]["content"] == "who mends clocks?":
            raise RequestError(401, "auth", "no")
        return "five coins"
    with serving(reply) as url:
        with pytest.raises(UserError, match="wants another key"):
            e.command_answer(answering(tmp_path, limit=9, models=[f"there={url}"], in_flight=1))
    rows = list(read_jsonl(tmp_path / "model_answer/there.jsonl", None))
    assert [row["question_id"] for row in rows] == [7, 9]


def test_from_a_checkpoint_to_the_table(bench, talker, tokenizer, tmp_path, run_command):
    """Answer, judge over HTTP, score: the files of MT-Bench, and a judge who likes long answers."""
    save_model(talker, tmp_path / "socratic"), tokenizer.save(tmp_path / "socratic")
    run = partial(run_command, e.main)
    done = run("answer", f"talker={tmp_path}/socratic", "--bench", bench, "--limit", 9)
    assert done.returncode == 0, done.stderr
    answers = list(read_jsonl(bench / "model_answer/talker.jsonl", None))
    assert [(a["question_id"], a["model_id"], len(a["choices"][0]["turns"])) for a in answers] == [
        (7, "talker", 2), (8, "talker", 2), (9, "talker", 1)]

    def judge(messages):
        shown = messages[0]["content"].split("[end of conversation]")[:-1]
        long = ["word word word" in text.split("assistant: ")[-1] for text in shown]
        if len(long) == 2:
            return "[[C]]" if long[0] == long[1] else "[[A]]" if long[0] else "[[B]]"
        return f"It is so. [[{10 if long[0] else 1}]]"
    with serving(judge) as url:
        for mode in ("single", "pairwise-all"):
            done = run("judge", "talker", "wordy", "--bench", bench, "--judge", url, "--mode", mode,
                       "--judge-model", "grader")
            assert "failed: none" in done.stdout, done.stderr
    votes = [{"question_id": q, "turn": 1, "model_a": "wordy", "model_b": "talker", "winner": w, "judge": "x"}
             for q, w in ((7, "model_a"), (8, "model_b"), (9, "tie (inconsistent)"), (99, "model_a"))]
    (tmp_path / "votes.json").write_text(json.dumps(votes))
    done = run("score", "talker", "wordy", "--bench", bench, "--judge-model", "grader", "--against", "wordy",
               "--out", tmp_path / "r.json", "--votes", tmp_path / "votes.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["arms"]["wordy"]["overall"] == 1 and results["arms"]["talker"]["overall"] == 0
    assert results["paired"]["wordy-talker"] == {"difference": 1, "low": 1, "high": 1, "p": 0.25}
    assert results["duels"][0]["losses"] == 5 and results["votes"]["all"]["n"] == 3
    assert results["votes"]["without_ties"]["agreed"] == 0.5
    assert done.stdout.index("wordy") < done.stdout.index("talker"), "the best arm stands first"


def test_what_was_not_judged_is_not_scored_in_silence(bench):
    rows = [{"model": "a", "question_id": q, "turn": t, "score": -1 if (q, t) == (8, 2) else 5.5}
            for q, t in ((7, 1), (7, 2), (8, 1), (8, 2), (9, 1))]
    put(bench / "model_judgment/j_single.jsonl", rows)
    scores = e.read_scores(bench, "j", ["a"], QUESTIONS)["a"]
    np.testing.assert_array_equal(scores, [[0.5, 0.5], [0.5, np.nan], [0.5, np.nan]])
    found = e.summary(scores, QUESTIONS)
    assert (found["overall"], found["failed"], found["worst"], found["best"]) == (0.5, 1, 0.4, 0.6)
    with pytest.raises(UserError, match="5 answers of b have not been judged as they are now"):
        e.read_scores(bench, "j", ["b"], QUESTIONS)
    (bench / "question.jsonl").write_text("")
    with pytest.raises(UserError, match="no questions"):
        e.read_questions(bench)
    (bench / "question.jsonl").write_text('{"question_id": 1, "turns": []}\n')
    with pytest.raises(UserError, match="line 1: no category and no turns"):
        e.read_questions(bench)
    (bench / "question.jsonl").write_text('{"question_id": 1, "category": "x", "turns": [3]}\n')
    with pytest.raises(UserError, match="line 1: turns that are no list of texts"):
        e.read_questions(bench)


# ------------------------------------------------------------------------------------------------
# the same in numbers: lengths, votes, AlpacaEval


def test_a_planted_preference_for_length_is_taken_out():
    """The judge looks at nothing but length, sigma(2 tanh(difference / spread))."""
    for shift in (-60, 0, 60):
        rng, held = np.random.default_rng(shift + 100), 0
        for bench in range(20):
            longer = rng.normal(shift, 80, size=160).round()
            p = 1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))
            wins = (rng.random(160) < p).astype(float)
            found = intervals.length_controlled_interval(wins, longer, np.arange(160), draws=200)
            held += found["low"] <= 0.5 <= found["high"]
        assert held >= 17, f"only {held} of 20 intervals hold one half at a mean difference of {shift}"
        raw = (1 / (1 + np.exp(-2 * np.tanh(longer / longer.std())))).mean()
        assert abs(raw - 0.5) > 0.15 or shift == 0, "without control the longer one wins"


def test_at_no_difference_in_length_the_controlled_win_rate_is_the_win_rate():
    rate, = intervals.length_controlled(np.array([1.0] * 30 + [0.0] * 10 + [0.5] * 8), np.zeros(48))
    assert rate == pytest.approx(34 / 48, abs=1e-3)
    rates = intervals.length_controlled(np.array([1.0, 0.0]), np.zeros(2), np.array([[3.0, 1.0], [1.0, 3.0]]))
    assert rates == pytest.approx([0.75, 0.25], abs=5e-3), "weights are copies"
    interval = intervals.length_controlled_interval
    assert interval(np.ones(3), np.full(3, 7), np.arange(3)) is None, "always as much longer: no telling"
    assert interval(np.ones(3), np.arange(3), np.zeros(3, dtype=int)) is None, "one question"
    assert e.bootstrap([0.7]) == (0.7, None, None)
    rate, = intervals.length_controlled(np.ones(40), np.arange(40.0))
    assert 0.9 < rate < 1, "all won: the ridge keeps it finite"


@pytest.mark.exercise(30)
@pytest.mark.parametrize("gaps, p", [
    # of 8 patterns, 1 1 1 and -1 -1 -1
    ([1, 1, 1], 2 / 8), ([-1, -1, -1], 2 / 8),
    # sums of 4, 2, -2, -4: those of the observed size and larger count, on both sides
    ([3, 1], 2 / 4), ([3, -1], 4 / 4), ([0.5], 1), ([0, 0, 0], 1),
    # 1 1 -1 is only 1 away from 0, as are all patterns at least
    ([1, 1, -1], 1),
    # 12 are still counted out
    ([1] * 12, 2 / 4096)])
def test_a_permutation_test_by_hand(gaps, p):
    got = intervals.permutation(gaps)
    assert got == pytest.approx(p), f"{gaps}: expected {p}, got {got}"


@pytest.mark.exercise(30)
def test_a_drawn_p_is_never_nothing():
    """Forty equal signs at random come up never, but for the observed ones."""
    for gaps in ([1] * 40, [-0.5] * 40):
        got = intervals.permutation(gaps, draws=99)
        assert got == pytest.approx(1 / 100), f"99 draws and the observed pattern: expected 0.01, got {got}"
    assert intervals.permutation([0] * 13, draws=10) == 1
    sixteen = [1] * 10 + [-1] * 6
    assert intervals.permutation(sixteen, seed=1) == intervals.permutation(sixteen, seed=1)
    # sixteen coins of which 10 or more, or 6 or fewer, show heads: 29,786 of 65,536 patterns
    assert intervals.permutation(sixteen) == pytest.approx(29786 / 65536, abs=0.03)


@pytest.mark.exercise(30)
def test_the_permutation_test_is_that_of_all_signs():
    gaps = [0.3, -0.1, 0.4, 0.0, 0.2]
    sums = [abs(sum(s * g for s, g in zip(signs, gaps))) for signs in product((-1, 1), repeat=5)]
    assert e.permutation(gaps) == sum(s >= 0.8 - 1e-9 for s in sums) / 32
    assert e.permutation([1.0] * 5) == 2 / 32 and e.permutation([0.0] * 5) == 1
    rng = np.random.default_rng(0)
    many = rng.normal(0.1, 1, size=12)
    assert e.permutation([*many, 0.0]) == pytest.approx(e.permutation(many), abs=0.02), "drawn, not counted"


@pytest.mark.exercise(29)
@pytest.mark.parametrize("a, b, expected", [
    ("yn", "yn", 1), ("xyz", "xyz", 1), ("yn", "ny", -1),
    # two of four agree, as would by chance
    ("yynn", "ynyn", 0),
    # the second has a label that the first never gives: chance is 2 * 1 of 4
    ("xx", "xy", 0), ("xy", "xx", 0),
    # three of four agree; by chance (2 * 1 + 1 * 2 + 1 * 1) of 16
    ("xxyz", "xyyz", 7 / 11), ([1, 1, 2, 3], [1, 2, 2, 3], 7 / 11),
    # nothing could be better than chance
    ("y", "y", None), ("yyy", "yyy", None)])
def test_agreement_beyond_chance_by_hand(a, b, expected):
    got = intervals.kappa(list(a), list(b))
    if expected is None:
        assert got is None, f"{a} and {b}: expected None, got {got}"
    else:
        assert got == pytest.approx(expected), f"{a} and {b}: expected {expected}, got {got}"


@pytest.mark.exercise(29)
def test_kappa_by_hand():
    # 45 + 15 of 100 agree; by chance 0.6 * 0.7 + 0.4 * 0.3 = 0.54
    a, b = ["y"] * 60 + ["n"] * 40, ["y"] * 45 + ["n"] * 15 + ["y"] * 25 + ["n"] * 15
    assert intervals.kappa(a, b) == pytest.approx((0.60 - 0.54) / (1 - 0.54))
    assert intervals.kappa(a, a) == 1 and intervals.kappa(["y"], ["y"]) is None


def test_votes_are_matched_whichever_way_round_they_stand():
    rows = [{"question_id": 1, "turn": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": w}
            for w in ("model_1",)]
    votes = [(1, 1, "y", "x", "b"), (1, 1, "x", "y", "tie"), (1, 2, "x", "y", "a")]
    found = e.agreement(rows, votes)
    assert found["all"]["n"] == 2 and found["all"]["agreed"] == 0.5 and found["without_ties"]["agreed"] == 1
    assert e.agreement(rows, votes[2:]) == {"all": None, "without_ties": None}


def test_alpacaevals_files(bench, tmp_path):
    rows = [{"instruction": "say hi", "dataset": "d"}, {"instruction": "say bye", "dataset": "d"}]
    assert alpaca.questions(rows)[1] == {"question_id": 2, "category": "d", "turns": ["say bye"], "dataset": "d"}
    assert alpaca.outputs("m", alpaca.questions(rows), [["hi"], ["bye"]])[0] == {
        "instruction": "say hi", "output": "hi", "generator": "m", "dataset": "d"}
    assert alpaca.outputs("m", alpaca.questions(rows), [[None], ["bye"]])[0]["output"] == "", "refused"
    notes = [{"preference": p} for p in (1, 2, 2, 1.5, 0, None, 2.0, float("nan"))]
    found = alpaca.win_rate(notes)
    wins = np.array([0, 1, 1, 0.5, 0.5, 1])
    assert found["win_rate"] == pytest.approx(100 * wins.mean()) and found["n_total"] == 6
    assert found["standard_error"] == pytest.approx(100 * wins.std(ddof=1) / 6 ** 0.5)
    assert (found["n_wins"], found["n_wins_base"], found["n_draws"], found["failed"]) == (3, 1, 2, 2)
    for odd in ("model", 3, 0.5, True, float("inf"), -1):
        with pytest.raises(UserError, match="not a number from 1 to 2"):
            alpaca.win_rate([{"preference": 2}, {"preference": odd}])
