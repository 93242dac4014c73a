"""The loop and its guards, Socratic, and many dialogues at once."""

import gc
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from data.api.journal import Journal, journal_records
from data.api.server import serving
from data.checkpoint import save_model
from data.openings import Opening, read_seeds
from data.program import UserError, run, to_jsonl
from data.users import Prompted, Remote, Scripted, UserSettings, Whole, scale_odds, parse_transcript
from model import Engine, generate_batch
from platolm import DialogueEnd, encode
from simulate import Client, Simulation, Socratic, Teacher, converse, main, reason_to_stop, replay_then

# ------------------------------------------------------------------------------------------------
# converse


def script(*questions):
    """A user who says these things and leaves; who is asked again and again complains."""
    calls = count(1)

    def ask(turns):
        assert next(calls) <= 20, f"a user who has only {questions} to say is asked for the 21st time"
        return dict(enumerate(questions)).get(len(turns) // 2)
    return ask


def echo(turns):
    return f"you said: {turns[-1]['value']}"


def ends_with(scenario, got, values, reason):
    """Compare (turns, reason) with the values of turns of a human and gpt in alternation, and a reason."""
    expected = to_turns(*values), reason
    assert got == expected, f"{scenario}:\nexpected {expected}\ngot      {got}"


@pytest.mark.exercise(6)
def test_a_dialogue_by_hand():
    ends_with("the human asks a and b, then leaves", converse(script("a", "b"), echo, 9),
              ["a", "you said: a", "b", "you said: b"], "left")


@pytest.mark.exercise(6)
def test_each_sees_what_was_said_before():
    saw, questions = [], script("a", "b")
    converse(lambda turns: saw.append(len(turns)) or questions(turns),
             lambda turns: saw.append(len(turns)) or "so", 9)
    assert saw == [0, 1, 2, 3, 4], (
        "the human asks a and b, then leaves: ask and answer, called in turn, should get "
        f"[0, 1, 2, 3, 4] turns, got {saw}")


def talker_of(role, said, most):
    """A speaker who always has something new to say, notes in `said` who spoke, and complains after so many calls."""
    def speak(turns):
        said.append(role)
        assert len(said) <= most, f"after {most} turns nobody should be asked for another, but they are: {said}"
        return f"{role} says {len(said)}"
    return speak


@pytest.mark.exercise(6)
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_so_many_rounds_and_after_the_last_answer_no_question(rounds):
    said = []
    turns, end = converse(talker_of("human", said, 2 * rounds), talker_of("gpt", said, 2 * rounds), rounds)
    scenario = f"both always say something new, rounds={rounds}"
    assert said == ["human", "gpt"] * rounds, f"{scenario}: these were asked to speak: {said}"
    ends_with(scenario, (turns, end), [f"{role} says {n}" for n, role in enumerate(said, 1)], "turn_limit")


@pytest.mark.exercise(6)
def test_a_question_that_ends_the_dialogue_is_not_answered():
    answered = []
    got = converse(script("a", "b", "a", "c"), lambda turns: answered.append(turns[-1]["value"]) or "so", 9)
    ends_with("the human asks a, b, and 'a' again, which reason_to_stop calls repeats",
              got, ["a", "so", "b", "so"], "repeats")
    assert answered == ["a", "b"], f"'a' again is the end, but paid for are the answers to {answered}"


@pytest.mark.exercise(6)
def test_every_way_to_end_keeps_whole_rounds():
    def dies(end, at):
        def side(turns):
            if len(turns) >= at:
                raise DialogueEnd(end)
            return f"say {len(turns)}"
        return side
    said = ["a", "you said: a", "b", "you said: b"]
    ends_with("three questions, rounds=2", converse(script("a", "b", "c"), echo, 2), said, "turn_limit")
    ends_with("'a' is asked again after a and b", converse(script("a", "b", "a"), echo, 9), said, "repeats")
    ends_with("ask returns None at once", converse(script(None), echo, 9), [], "left")
    ends_with("the second ask raises DialogueEnd", converse(dies("token_limit", 2), echo, 9),
              ["say 0", "you said: say 0"], "token_limit")
    ends_with("the second answer raises DialogueEnd", converse(script("a", "b"), dies("content_filter", 3), 9),
              ["a", "say 1"], "content_filter")


@pytest.mark.exercise(6)
@pytest.mark.parametrize("who", ["ask", "answer"])
def test_an_error_that_is_no_end_is_not_caught(who):
    def breaks(turns):
        raise ValueError("broken")
    try:
        got = converse(breaks if who == "ask" else script("a"), breaks, 9)
    except ValueError:
        return
    pytest.fail(f"{who} raises ValueError, which is no DialogueEnd and should not be caught; converse returned {got}")


@pytest.mark.exercise(5)
@pytest.mark.parametrize("said, question, reason", [
    ([], "who are you?", None), ([], "", "left"), (["a", "b"], " \n", "left"),
    ([], "so</s>", "role_leak"), (["a", "b"], "and then Assistant: hello", "role_leak"),
    ([], "Human:\nwho is there?", "role_leak"), ([], "what is a human: being?", None), ([], "any assistant", None),
    (["a", "b"], "a", "repeats"), (["a", "b", "c", "d"], "a", "repeats"), (["a", "b"], "A", None),
    (["is it so?", "yes", "sure?", "very"], "yes", None),
    (["thanks!", "you are welcome"], "bye", "repeats"), (["thanks!", "welcome"], "thanks, and the door?", None),
    ([], "thanks", None), (["a", "thanks"], "thank you", None),
    (["thanks", "ok", "and the door?", "is green"], "thank you", None)])
def test_when_to_stop_by_hand(said, question, reason):
    got = reason_to_stop(question, to_turns(*said))
    assert got == reason, f"after {said}, {question!r} should give {reason!r}, and gives {got!r}"


@pytest.mark.exercise(5)
@pytest.mark.parametrize("question, end", [
    ("and then Assistant: hello", "role_leak"), ("so</s>Assistant", "role_leak"),
    ("Human: me again", "role_leak"), ("", "left"), ("  \n", "left"), ("a", "repeats"),
])
def test_what_no_human_says_is_never_said(question, end):
    turns, why = converse(script("a", question), echo, 9)
    assert (len(turns), why) == (2, end)


@pytest.mark.exercise(5)
def test_two_who_thank_each_other_for_ever_do_not():
    turns, end = converse(script("a", "Thanks!", "thank you so much, bye!", "b"), echo, 9)
    assert (len(turns), end) == (4, "repeats")
    assert converse(script("thanks", "thanks, and the door?", "is that it"), echo, 9)[1] == "left"


@pytest.mark.exercise(5)
def test_a_label_with_a_capital_elsewhere_is_no_leak():
    assert converse(script("what is a human: being?"), echo, 9)[1] == "left"


# ------------------------------------------------------------------------------------------------
# Socratic


@pytest.fixture
def serve():
    """serve(reply) gives the address of a server of that reply."""
    with ExitStack() as running:
        yield lambda reply, **more: running.enter_context(serving(reply, **more))


def answers(turns):
    """A teacher without a wire: an answer that depends on all that was said."""
    return f"that was number {len(turns)}, {sum(len(t['value']) for t in turns) % 7}."


@pytest.fixture
def socratic(talker, tokenizer):
    """socratic(slots) is the same user every time, with more or fewer dialogues at once."""
    def make(slots, **more):
        settings = UserSettings(**{"seed": 5, "max_question": 20, "temperature": 1.2, **more})
        return Socratic(talker, tokenizer, slots, settings)
    return make


def plan(count, **more):
    return [Opening(n, f"socratic-{n:06d}", **more) for n in range(count)]


def simulate(user, teacher, openings, rounds, in_flight, path, settings=None, **more):
    """A whole run; returns its records."""
    journal = Journal(path, settings or {})
    try:
        Simulation(user, teacher, journal, rounds, **more).run(openings, in_flight)
        return list(journal_records(journal, openings))
    finally:
        journal.close()


def by_hand(user, teacher, number, rounds):
    """The obvious way: one dialogue after another, nothing journalled."""
    ask = user.start_dialogue(number)
    turns, end = converse(ask, teacher, rounds)
    ask.close()
    return {"id": f"socratic-{number:06d}", "conversations": turns, "end": end}


def test_one_at_a_time_or_many_at_once_is_the_same(socratic, tmp_path):
    user = socratic(1)
    alone = [by_hand(user, answers, n, 4) for n in range(8)]
    together = simulate(socratic(8), answers, plan(8), 4, 8, tmp_path / "a")
    waiting = simulate(socratic(3), answers, plan(8), 4, 3, tmp_path / "b")
    assert together == alone == waiting
    assert len({to_jsonl({**talk, "id": 0}) for talk in alone}) > 4, "all dialogues are alike"
    assert sum(len(talk["conversations"]) for talk in alone) > 16, "too little is said to prove much"


def test_the_engine_has_read_what_training_would_read(socratic, tokenizer):
    """Also where he sampled other pieces than his words' own: the cache goes back and reads those."""
    user = socratic(1, max_question=30)
    ask = user.start_dialogue(0)
    said = []
    for _ in range(3):
        try:
            said.append({"from": "human", "value": ask(said) or "(silent)"})
        except DialogueEnd:
            said.append({"from": "human", "value": "(lost)"})
        said.append({"from": "gpt", "value": "aha"})
    try:
        ask(said)
    except DialogueEnd:
        pass
    ids, _ = encode(said, tokenizer, "human")
    assert ask.row.cached[:len(ids)] == ids


def test_silence_is_leaving_and_half_a_question_is_none(socratic, tokenizer):
    class Row:
        finish_reason, output = "stop", []
    user = socratic(1)
    ask = user.start_dialogue(0)
    user.writer.request = lambda do, *what: Row
    assert ask([]) is None
    for why, end in (("length", "token_limit"), ("context", "context_full")):
        Row.finish_reason = why
        with pytest.raises(DialogueEnd, match=end):
            ask([])
    user.settings = replace(user.settings, context=10)
    with pytest.raises(DialogueEnd, match="context_full"):
        ask([])


def test_a_failing_engine_is_heard_of_by_everyone(socratic, tmp_path):
    user = socratic(2)
    def breaks():
        raise RuntimeError("out of memory")
    user.engine.step = breaks
    with pytest.raises(RuntimeError, match="out of memory"):
        simulate(user, answers, plan(4), 4, 2, tmp_path / "j")
    with pytest.raises(RuntimeError, match="out of memory"):
        user.start_dialogue(1)
    user = socratic(1)
    user.engine.add_row = breaks
    with pytest.raises(RuntimeError, match="out of memory"):
        user.start_dialogue(0)


def test_the_dial_moves_how_many_leave(socratic):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]

    def leaves(user, number):
        ask = user.start_dialogue(number)
        try:
            return ask(turns) is None
        except DialogueEnd:
            return False
        finally:
            ask.close()

    def count_leaving(odds):
        user = socratic(60, leave=odds)
        with ThreadPoolExecutor(60) as pool:
            return sum(pool.map(lambda number: leaves(user, number), range(60)))
    counts = [count_leaving(odds) for odds in (0, 0.2, 1, 5, 1e9)]
    # (a few say nothing but spaces, at any odds)
    assert counts[0] < 5 and counts[-1] == 60 and counts == sorted(counts) and counts[1] < counts[3]


def test_the_dial_multiplies_the_odds(talker, tokenizer):
    """Against the probabilities themselves."""
    ids = [tokenizer.bos, 5]
    engine = Engine(talker, 1)
    p = talker(torch.tensor([ids]))[0, -1].softmax(-1)[7].item()
    for odds in (0.5, 20):
        logits = talker(torch.tensor([ids]))[:, -1]
        row = engine.add_row()
        engine.start(row, ids, [7], 1, lambda: 0.5, math.log(odds))
        engine.apply_eos_bias([row], logits)
        assert logits.softmax(-1)[0, 7].item() == pytest.approx(scale_odds(p, odds), rel=1e-4)
        engine.remove_row(row)


def test_an_intent_is_read_by_the_human_alone(tokenizer):
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    human, learnt = encode(said, tokenizer, "human", "wants rope")
    plain, plainly = encode(said, tokenizer, "human")
    assert "wants rope" in tokenizer.decode(human) and sum(learnt) == sum(plainly)
    assert encode(said, tokenizer, "gpt", "wants rope") == encode(said, tokenizer, "gpt")


# ------------------------------------------------------------------------------------------------
# other users


SETTINGS = UserSettings(temperature=0, max_question=20, context=256, seed=5)


def test_socratic_behind_an_address_says_what_he_says_here(talker, tokenizer, serve, socratic, tmp_path):
    heard = []

    def complete(request):
        heard.append(request)
        row, = generate_batch(talker, [request["prompt"]], [tokenizer.eos], request["max_tokens"], temperature=0)
        return tokenizer.decode(row.output), len(row.output) + 1, row.finish_reason, None
    url = serve(lambda messages: "", complete=complete)
    here = simulate(socratic(2, temperature=0), answers, plan(2), 3, 2, tmp_path / "a")
    there = simulate(Remote(Client(url), SETTINGS, "m", tokenizer), answers, plan(2), 3, 2, tmp_path / "b")
    assert here == there and heard
    assert all(isinstance(token, int) for request in heard for token in request["prompt"])


def test_the_dial_at_an_address_that_tells_logprobs(tokenizer, serve):
    """Of 400 people who would leave with p = 0.3, as many leave as the dial asks for."""
    def complete(request):
        left = random.Random(request["seed"]).random() < 0.3
        return "" if left else "and?", 1, "stop", {"top_logprobs": [{"</s>": math.log(0.3)}]}
    url = serve(lambda messages: "", complete=complete)
    for odds in (0.25, 4.0):
        user = Remote(Client(url), replace(SETTINGS, leave=odds), "m", tokenizer)
        share = sum(user.start_dialogue(n)([]) is None for n in range(400)) / 400
        assert share == pytest.approx(scale_odds(0.3, odds), abs=0.08)


def test_a_prompted_user_is_told_last_and_keeps_its_own_first_turn(serve, tmp_path):
    """The role-flip bugs of others: told first, roles swap; a dropped own turn restarts the talk."""
    heard = []

    def reply(messages):
        heard.append(messages)
        return ["hi there", "\n and rope?", "(leaves)"][len(messages) // 2]
    user = Prompted(Client(serve(reply)), SETTINGS, "m", "you want {intent}")
    record, = simulate(user, lambda turns: "ok", plan(1, intent="a rope"), 9, 1, tmp_path / "j")
    assert [t["value"] for t in record["conversations"]] == ["hi there", "ok", "and rope?", "ok"]
    assert record["end"] == "left" and record["intent"] == "a rope"
    assert all(talk[-1] == {"role": "user", "content": "you want a rope"} for talk in heard)
    assert [(m["role"], m["content"]) for m in heard[2][:-1]] == [
        ("user", "hi there"), ("assistant", "ok"), ("user", "and rope?"), ("assistant", "ok")]


def test_a_whole_dialogue_in_one_call(serve, tmp_path):
    text = "Sure!\nHuman: hi\nAssistant: hello\nyou\n\nHuman: bye now\nAssistant: bye\nHuman: oh"
    calls = []
    user = Whole(Client(serve(lambda messages: calls.append(1) or text)), SETTINGS, "m", "write")

    def never(turns):
        raise AssertionError("the teacher is not asked")
    record, = simulate(user, never, plan(1), 9, 1, tmp_path / "j")
    assert len(calls) == 1 and record["end"] == "left"
    assert [t["value"] for t in record["conversations"]] == ["hi", "hello\nyou", "bye now", "bye"]
    assert parse_transcript("nothing of the kind") == [] == parse_transcript("Assistant: me first")


# ------------------------------------------------------------------------------------------------
# beginnings that are given


class Asks:
    """A user of these questions, the same in every dialogue."""

    def __init__(self, *questions):
        self.questions, self.saw = questions, []

    def start_dialogue(self, number, intent="", rows=()):
        return self

    def __call__(self, turns):
        self.saw.append([t["value"] for t in turns])
        return dict(enumerate(self.questions)).get(len(turns) // 2)

    def close(self):
        pass


def test_a_given_question_is_asked_once_and_first(serve, tmp_path):
    """A first question said twice, or lost on resume, is how others' simulators flipped roles."""
    heard = []
    url = serve(lambda messages: heard.append(messages) or f"answer {len(messages)}")
    given = [{"from": "human", "value": "seed?"}]
    record, = simulate(Asks("never", "second"), Teacher(Client(url), "m"), plan(1, turns=given, seed="s1"), 9, 1,
                       tmp_path / "j")
    assert [t["value"] for t in record["conversations"]] == ["seed?", "answer 1", "second", "answer 3"]
    assert [m["content"] for m in heard[1]] == ["seed?", "answer 1", "second"]
    assert record["seed"] == "s1" and record["given"] == 1


@pytest.mark.exercise(25)
def test_a_history_is_repeated_and_nothing_of_it_is_asked_for():
    bought = []

    def buy(turns):
        bought.append(len(turns))
        return f"new {len(turns)}"
    speak = replay_then(to_turns("q1", "a1", "q2", "a2"), buy)
    texts = [speak(to_turns(*"abcde"[:length])) for length in range(6)]
    assert texts == ["q1", "a1", "q2", "a2", "new 4", "new 5"], f"called after 0, 1, 2, ... turns it says {texts}"
    assert bought == [4, 5], f"after so many turns something new was asked for: {bought}, not [4, 5]"


@pytest.mark.exercise(25)
def test_a_speaker_of_one_side_finds_its_own_turns_in_a_history_of_both():
    human = replay_then(to_turns("q1", "a1", "q2", "a2"), lambda turns: None)
    texts = [human(to_turns(*"abcde"[:length])) for length in (0, 2, 4)]
    assert texts == ["q1", "q2", None], f"the human, called after 0, 2 and 4 turns, says {texts}"
    # a history may end with a question
    gpt = replay_then(to_turns("q1", "a1", "q2"), lambda turns: "new")
    texts = [gpt(to_turns(*"abcde"[:length])) for length in (1, 3, 5)]
    assert texts == ["a1", "new", "new"], f"gpt, called after 1, 3 and 5 turns, says {texts}"
    assert replay_then([], lambda turns: "new")([]) == "new"


@pytest.mark.exercise(25)
def test_given_rounds_are_not_bought_again(tmp_path):
    given = to_turns("q1", "a1", "q2", "a2")
    asked = []
    record, = simulate(Asks("-", "-", "q3"), lambda turns: asked.append(len(turns)) or "a3",
                       plan(1, turns=given, seed="x"), 9, 1, tmp_path / "j")
    assert [t["value"] for t in record["conversations"]] == ["q1", "a1", "q2", "a2", "q3", "a3"] and asked == [5]


def test_an_answer_without_a_word_ends_the_dialogue(tmp_path):
    once = lambda turns: "ok" if len(turns) == 1 else " "
    record, = simulate(Asks("a", "b"), once, plan(1), 9, 1, tmp_path / "j")
    assert record["end"] == "error" and len(record["conversations"]) == 2


def test_who_adds_nothing_to_what_was_given_is_dropped(tmp_path):
    assert simulate(Asks(), answers, plan(2, turns=to_turns("q1", "a1"), seed="x"), 9, 1, tmp_path / "j") == []


def to_turns(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def test_seeds_come_from_any_of_our_files(tmp_path, files, capsys):
    bench = tmp_path / "question.jsonl"
    bench.write_text(to_jsonl({"question_id": 81, "category": "x", "turns": ["first?", "second?"]}))
    assert list(read_seeds(bench, 0)) == [("81", to_turns("first?"))]
    found = list(read_seeds(files, 1))
    assert len(found) == 3 and all(len(turns) == 2 for _, turns in found)
    gpt_first = tmp_path / "g.jsonl"
    turns = [{"from": "gpt", "value": "well"}, *to_turns("q", "a")]
    gpt_first.write_text(to_jsonl({"id": "g", "conversations": turns}))
    assert list(read_seeds(gpt_first, 1)) == [("g", to_turns("q", "a"))]
    blank = {"conversations": [{"from": "human", "value": " "}]}
    for bad, why in (({"id": "x"}, "neither"), ({"turns": [7]}, "neither"), ({"conversations": []}, "empty"),
                     (blank, "says nothing")):
        bench.write_text(to_jsonl(bad))
        with pytest.raises(UserError, match=f"line 1.*{why}"):
            list(read_seeds(bench, 0))
    assert list(read_seeds(gpt_first, 2)) == []
    assert "1 of 1 begin with fewer than 2 whole rounds" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------
# a run that is killed


def test_after_trouble_no_more_answers_are_bought(socratic, tmp_path):
    asked = []

    def teacher(turns):
        asked.append(1)
        if len(asked) == 3:
            raise UserError("no credit")
        return answers(turns)
    with pytest.raises(UserError, match="no credit"):
        simulate(socratic(2), teacher, plan(40), 4, 2, tmp_path / "part")
    assert len(asked) < 12


def test_taken_up_at_any_turn_it_is_the_same_dialogue(socratic, tmp_path):
    """The journal cut after each of its rows: the rest is said as it would have been."""
    whole = simulate(socratic(1), answers, plan(2), 4, 1, tmp_path / "whole")
    rows = (tmp_path / "whole").read_text().splitlines(keepends=True)
    assert len(rows) > 8
    rounds = sum(len(record["conversations"]) // 2 for record in whole)
    for count in range(1, len(rows) + 1):
        path = tmp_path / f"cut{count}"
        path.write_text("".join(rows[:count]))
        calls = []
        again = simulate(socratic(2), lambda turns: calls.append(1) or answers(turns), plan(2), 4, 2, path)
        assert again == whole
        journalled = sum('"from": "gpt"' in row for row in rows[:count])
        assert len(calls) == rounds - journalled, "an answer was bought twice"


def cut_anywhere(path, user, teacher, openings, rounds, calls):
    """The journal of a whole run, cut after each of its rows and gone on from: what is bought then."""
    whole = simulate(user(), teacher, openings, rounds, 1, path)
    rows = path.read_text().splitlines(keepends=True)
    for kept in range(1, len(rows) + 1):
        path.write_text("".join(rows[:kept]))
        calls.clear()
        assert simulate(user(), teacher, openings, rounds, 1, path) == whole
        yield rows[:kept], len(calls)


def test_a_script_goes_on_as_it_would_have(tmp_path, files):
    answer = lambda turns: "the guide told of " + " ".join(f"{word}{'x' * len(turns)}" for word in ("ropes", "bells"))
    assert len(list(cut_anywhere(tmp_path / "j", lambda: Scripted("follow-up", 5), answer, plan(2), 4, []))) > 4


def test_a_written_dialogue_is_paid_for_once(tmp_path, serve):
    """Its row in the journal holds all of it: from there on, nothing is asked again."""
    calls = []
    url = serve(lambda messages: calls.append(1) or f"Human: hi {len(calls)}\nAssistant: ho\nHuman: so\nAssistant: ok")
    user = lambda: Whole(Client(url), SETTINGS, "m", "write")
    never = lambda turns: 1 / 0
    path = tmp_path / "j"
    whole = simulate(user(), never, plan(1), 9, 1, path)
    rows = path.read_text().splitlines(keepends=True)
    for kept in range(2, len(rows) + 1):
        path.write_text("".join(rows[:kept]))
        assert simulate(user(), never, plan(1), 9, 1, path) == whole and len(calls) == 1
    # one that is no dialogue is tried again at the next start
    refusing = Client(serve(lambda messages: "I would rather not"), sleep=lambda seconds: None)
    nothing = Whole(refusing, SETTINGS, "m", "write")
    simulate(nothing, never, plan(1), 9, 1, tmp_path / "n")
    assert "no dialogue of" in (tmp_path / "n").read_text()
    assert simulate(user(), never, plan(1), 9, 1, tmp_path / "n")[0]["end"] == "left"


def test_killed_in_the_middle_and_started_again(talker, tokenizer, tmp_path, serve, monkeypatch):
    """A real process, a real kill -9: the file is as if nothing had happened."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    save_model(talker, tmp_path / "user")
    tokenizer.save(tmp_path / "user")
    served = threading.Semaphore(0)

    def reply(messages):
        served.release()
        return f"number {len(messages)}."
    url = serve(reply)

    def words(name):
        return ["simulate.py", "--user", str(tmp_path / "user"), "--teacher", url, "--out", str(tmp_path / name),
                "--dialogues", "30", "--in-flight", "4", "--max-question", "20", "--rounds", "4"]

    def start(name):
        return subprocess.Popen([sys.executable, *words(name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    monkeypatch.setattr(sys, "argv", words("whole.jsonl"))
    main()
    count = 0
    while served.acquire(blocking=False):
        count += 1
    first = start("killed.jsonl")
    for _ in range(count // 2):
        served.acquire()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert Path(f"{tmp_path}/killed.jsonl.journal").exists() and not (tmp_path / "killed.jsonl").exists()
    second = start("killed.jsonl")
    printed, errors = second.communicate()
    assert second.returncode == 0 and re.search(rb"going on: \d+ of 30", printed), errors
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    while served.acquire(blocking=False):
        count -= 1
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-planted" not in written + printed


def test_no_teacher_is_one_sentence(talker, tokenizer, tmp_path, monkeypatch):
    save_model(talker, tmp_path), tokenizer.save(tmp_path)
    words = ["--user", tmp_path, "--teacher", "http://127.0.0.1:9/v1", "--out", tmp_path / "x"]
    monkeypatch.setattr(sys, "argv", ["simulate.py", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        run(main)
    # a text as exit code: Python prints it on stderr, and the status is 1
    assert stop.value.code.startswith("simulate.py: no teacher answers") and "\n" not in stop.value.code


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells a process its sockets")
def test_nothing_is_left_behind(socratic, serve, tmp_path):
    """No thread, no socket; and the memory of a dialogue goes with it."""
    url = serve(lambda messages: "well.")
    threads, sockets = threading.active_count(), open_sockets()
    client, user = Client(url), socratic(8)
    simulate(user, Teacher(client, "m"), plan(20), 3, 8, tmp_path / "j")
    user.close(), client.close()
    user.writer.thread.join(10)
    gc.collect()
    assert len(user.engine.free) == 8 and not user.writer.writing
    # the server's threads go when its connections do
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert threading.active_count() <= threads and open_sockets() <= sockets


def open_sockets():
    return sum(os.readlink(f"/proc/self/fd/{n}").startswith("socket") for n in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{n}"))


# ------------------------------------------------------------------------------------------------
# the command


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """command(*words) runs simulate.py on words; gives what it prints. OUT is tmp_path/chat.jsonl."""
    def run(*words):
        given = ["simulate.py", "--out", tmp_path / "chat.jsonl", *words]
        monkeypatch.setattr(sys, "argv", [str(word) for word in given])
        main()
        return capsys.readouterr().out
    return run


def test_a_script_goes_on_from_seeds_each_used_twice(command, serve, files, tmp_path):
    url = serve(lambda messages: f"the acorn sells rope. {len(messages)}")
    words = ["--user", "script:follow-up", "--teacher", url, "--seeds", files, "--times", 2]
    said = command(*words, "--in-flight", 3)
    assert "6 dialogues" in said
    found = [json.loads(text) for text in (tmp_path / "chat.jsonl").read_text().splitlines()]
    assert [r["conversations"][0]["value"] for r in found] == [
        text for text in ("who mends clocks?", "hi", "tell me of the sea") for _ in range(2)]
    assert all(r["given"] == 1 and r["seed"] == "made" for r in found)
    # again: nothing is asked; more of them, or a dry run, is the same run; another seed is not
    assert "going on: 6 of 6" in command(*words)
    assert "estimate" in command(*words, "--dry-run")
    with pytest.raises(UserError, match="other seed .0 there, 1 here"):
        command(*words, "--seed", 1)
    # the same file, touched or moved, is the same
    files.rename(tmp_path / "moved.jsonl")
    words[words.index(files)] = tmp_path / "moved.jsonl"
    os.utime(tmp_path / "moved.jsonl", (1, 1))
    assert "going on: 6 of 6" in command(*words)


def test_who_is_meant_by_user(command, serve, tmp_path):
    url = ["--teacher", serve(lambda messages: "(leaves)")]
    for user, why in (("nobody", "no checkpoint directory and no address"), ("script:none", "there is no script"),
                      ("http://127.0.0.1:9/v1", "--tokenizer DIR")):
        with pytest.raises(UserError, match=why):
            command("--user", user, *url, "--dialogues", 1)
    # what came to nothing binds nobody
    said = command("--user", "prompt:data/user.txt", *url, "--dialogues", 2)
    assert "0 dialogues; 2 in which nothing new was said were dropped" in said


def test_flags_that_cannot_be_meant(command, serve, tmp_path, tokenizer):
    url, tokens = serve(lambda messages: "well"), tmp_path / "tokens"
    tokenizer.save(tokens)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xe4")
    words = ["--user", "script:follow-up", "--teacher", url, "--dialogues", 1]
    for more, why in ((["--max-dollars", 1], "would never hold"), (["--seeds", tmp_path / "empty"], "line 1"),
                      (["--intents", tmp_path / "empty"], "nothing to begin"),
                      (["--system", tmp_path / "latin"], "not a UTF-8"),
                      (["--teacher", "http://[::1/v1"], "is no address"),
                      (["--user", "data"], "no checkpoint directory"),
                      (["--seed-rounds", 1], "--seeds FILE"), (["--out", tmp_path], "is a directory"),
                      (["--user", "http://127.0.0.1:9/v1", "--tokenizer", tokens], "no user answers")):
        with pytest.raises(UserError, match=why):
            command(*words, *more)
    for more in (["--seed", -1], ["--shard", "3/2"], ["--leave", -1], ["--timeout", 0], ["--price", "x", 1],
                 ["--top-p", "nan"], ["--top-p", 2], ["--teacher", "nowhere"], ["--shard", "x"]):
        with pytest.raises(SystemExit):
            command(*words, *more)


def test_a_dry_run_sends_and_writes_nothing(command, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ["--dialogues", 10, "--rounds", 1, "--max-question", 4, "--max-tokens", 6, "--dry-run"]
    once = command("--user", "nowhere", *words).splitlines()
    assert once[1].split()[2:6] == ["10", "200", "60", "0.00"]
    told = os.path.getsize("data/user.txt") // 4
    both = command("--user", "prompt:data/user.txt", *words).splitlines()
    assert both[1].split()[2:5] == ["20", f"{200 + 10 * (told + 8):,}", "100"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="the price of 'new' is unknown"):
        command("--user", "nowhere", "--model", "new", *words)
