"""The loop, the client against a server that misbehaves, and many dialogues at once."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

import simulate as s
from data.server import Refused, serving
from platolm import Problem, encode, line
from simulate import End, Socratic, Teacher, chat, connect, converse, dialogue

# ------------------------------------------------------------------------------------------------
# converse


def script(*questions):
    """A user who says these things and leaves."""
    return lambda turns: dict(enumerate(questions)).get(len(turns) // 2)


def echo(turns):
    return f"you said: {turns[-1]['value']}"


def test_a_dialogue_by_hand():
    turns, end = converse(script("a", "b"), echo, 9)
    assert end == "left" and [t["value"] for t in turns] == ["a", "you said: a", "b", "you said: b"]
    assert [t["from"] for t in turns] == ["human", "gpt"] * 2


def test_each_sees_what_was_said_before():
    saw = []
    converse(lambda turns: saw.append(len(turns)) or (None if len(turns) > 3 else str(len(turns))),
             lambda turns: saw.append(len(turns)) or "so", 9)
    assert saw == [0, 1, 2, 3, 4]


def test_every_way_to_end_keeps_whole_rounds():
    def dies(end, at):
        def side(turns):
            if len(turns) >= at:
                raise End(end)
            return f"say {len(turns)}"
        return side
    assert converse(script("a", "b", "c"), echo, 2)[1] == "turn_limit"
    assert converse(script("a", "b", "a"), echo, 9)[1] == "repeats"
    assert converse(script(None), echo, 9) == ([], "left")
    turns, end = converse(dies("token_limit", 2), echo, 9)
    assert (len(turns), end) == (2, "token_limit")
    turns, end = converse(script("a", "b"), dies("content_filter", 3), 9)
    assert (len(turns), end) == (2, "content_filter")


# ------------------------------------------------------------------------------------------------
# the client


@pytest.fixture
def serve():
    """serve(reply) gives the address of a server of that reply."""
    with ExitStack() as running:
        yield lambda reply: running.enter_context(serving(reply))


def failing(times, status, kind="trouble"):
    """A reply that fails so many times before it works."""
    left = [times]

    def reply(messages):
        left[0] -= 1
        if left[0] >= 0:
            raise Refused(status, kind, f"{kind}, I heard {messages[-1]['content']}")
        return "well"
    return reply


ASK = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_time_heals_is_tried_again_later_and_later(serve, status):
    waits = []
    url = serve(failing(3, status))
    assert chat(connect(url), url, "m", ASK, sleep=waits.append) == ("well", "stop")
    assert len(waits) == 3 and waits == sorted(waits) and 0 < waits[0] <= 1 and waits[2] <= 4


@pytest.mark.parametrize("status, kind", [(400, "bad"), (401, "key"), (404, "model"), (429, "insufficient_quota")])
def test_what_time_does_not_heal_is_not(serve, status, kind):
    url, waits = serve(failing(1, status, kind)), []
    with pytest.raises(Problem, match=f"try 1 of 6: HTTP {status}.*{kind}"):
        chat(connect(url), url, "m", ASK, sleep=waits.append)
    assert waits == []


def test_patience_has_an_end(serve):
    url, waits = serve(failing(99, 500)), []
    with pytest.raises(Problem, match="try 6 of 6: HTTP 500"):
        chat(connect(url), url, "m", ASK, sleep=waits.append)
    assert len(waits) == 5


def test_nobody_there_is_one_sentence():
    with pytest.raises(Problem, match="no teacher answers at http://127.0.0.1:9/v1"):
        s.greet(Teacher("http://127.0.0.1:9/v1", "m"))
    with pytest.raises(Problem, match="no answer .ConnectionError."):
        chat(connect("http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1", "m", ASK, sleep=lambda _: None)


@pytest.mark.parametrize("body", [b"<html>", b'{"choices": [{"message": {"content": ["hi"]}}]}',
                                  b'{"choices": [{"message": {"content": "\\ud800"}}]}', b"{}", b'{"choices": []}', b"[1]", b'{"choices": [{}]}', b""])
def test_a_reply_in_no_known_language_is_a_problem(body):
    reply = requests.Response()
    reply.status_code, reply._content = 200, body
    with pytest.raises(Problem, match="does not speak"):
        s.content(reply, connect("http://here"))


def test_the_key_is_sent_as_a_header_and_never_repeated(serve):
    url = serve(failing(1, 401, "invalid key sk-planted"))
    session = connect(url, "sk-planted")
    assert session.headers["Authorization"] == "Bearer sk-planted"
    with pytest.raises(Problem) as problem:
        chat(session, url, "m", [{"role": "user", "content": "sk-planted"}])
    assert "sk-planted" not in str(problem.value) and "(key)" in str(problem.value)
    # a key that is no header: the library's own complaint would quote it
    with pytest.raises(Problem, match="cannot be asked") as problem:
        chat(connect(url, "sk-plan\nted"), url, "m", ASK)
    assert "sk-plan" not in str(problem.value)


def test_no_proxy_and_no_netrc_stand_between_us_and_this_machine(monkeypatch, serve):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    url = serve(lambda messages: "well")
    assert Teacher(url, "m")([{"from": "human", "value": "hi"}]) == "well"


def test_the_teacher_hears_the_dialogue_in_openais_words(serve):
    heard = []
    url = serve(lambda messages: heard.append(messages) or "b")
    Teacher(url, "m", system="be brief")([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
                                          {"from": "human", "value": "c"}])
    assert [(m["role"], m["content"]) for m in heard[0]] == [
        ("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]


def test_a_dialogue_too_long_for_the_teacher_ends_and_the_others_go_on(serve):
    url = serve(failing(1, 400, "context_length_exceeded"))
    with pytest.raises(End, match="context_full"):
        Teacher(url, "m")([{"from": "human", "value": "hi"}])


def test_after_trouble_no_more_answers_are_bought(socratic, tmp_path):
    asked = []

    def teacher(turns):
        asked.append(1)
        if len(asked) == 3:
            raise Problem("no credit")
        return answers(turns)
    with pytest.raises(Problem, match="no credit"):
        s.simulate(socratic(2), teacher, 40, 4, 2, tmp_path / "part")
    assert len(asked) < 12


def test_fewer_dialogues_than_are_there(socratic, tmp_path):
    many = s.simulate(socratic(2), answers, 5, 4, 2, tmp_path / "part")
    assert s.simulate(socratic(2), answers, 3, 4, 2, tmp_path / "part") == many[:3]


def test_an_empty_answer_ends_the_dialogue(serve):
    with pytest.raises(End, match="error"):
        Teacher(serve(lambda messages: " "), "m")([{"from": "human", "value": "hi"}])


# ------------------------------------------------------------------------------------------------
# Socratic


def answers(turns):
    """A teacher without a wire: an answer that depends on all that was said."""
    return f"that was number {len(turns)}, {sum(len(t['value']) for t in turns) % 7}."


@pytest.fixture
def socratic(talker, tokenizer):
    """socratic(slots) is the same user every time, with more or fewer dialogues at once."""
    return lambda slots, limit=20: Socratic(talker, tokenizer, slots, 5, limit, temperature=1.2)


def test_one_at_a_time_or_many_at_once_is_the_same(socratic, tmp_path):
    alone = [dialogue(n, f"socratic-{n:06d}", socratic(1), answers, 4, threading.Event())
             for n in range(8)]
    together = s.simulate(socratic(8), answers, 8, 4, 8, tmp_path / "part")
    waiting = s.simulate(socratic(3), answers, 8, 4, 3, tmp_path / "part3")
    assert together == alone == waiting
    assert len({line({**talk, "id": 0}) for talk in alone}) > 4, "all dialogues are alike"
    assert sum(len(talk["conversations"]) for talk in alone) > 16, "too little is said to prove much"


def test_the_engine_has_read_what_training_would_read(socratic, tokenizer):
    """Also where he sampled other pieces than his words' own: the cache goes back and reads those."""
    user = socratic(1, limit=30)
    ask = user.join(0)
    said = []
    for _ in range(3):
        try:
            said.append({"from": "human", "value": ask(said) or "(silent)"})
        except End:
            said.append({"from": "human", "value": "(lost)"})
        said.append({"from": "gpt", "value": "aha"})
    try:
        ask(said)
    except End:
        pass
    ids, _ = encode(said, tokenizer, "human")
    assert ask.row.cached[:len(ids)] == ids


def test_silence_is_leaving_and_half_a_question_is_none(socratic, tokenizer):
    class Row:
        why, wrote = "stop", []
    user = socratic(1)
    ask = user.join(0)
    user.request = lambda do, *what: Row
    assert ask([]) is None
    for why, end in (("length", "token_limit"), ("context", "context_full")):
        Row.why = why
        with pytest.raises(End, match=end):
            ask([])
    Row.why, Row.wrote = "stop", tokenizer.encode("ok Assistant: hello")
    with pytest.raises(End, match="role_leak"):
        ask([])


def test_a_failing_engine_is_heard_of_by_everyone(socratic, tmp_path):
    user = socratic(2)
    def breaks():
        raise RuntimeError("out of memory")
    user.engine.step = breaks
    with pytest.raises(RuntimeError, match="out of memory"):
        s.simulate(user, answers, 4, 4, 2, tmp_path / "part")
    with pytest.raises(RuntimeError, match="out of memory"):
        user.join(1)
    user = socratic(1)
    user.engine.join = breaks
    with pytest.raises(RuntimeError, match="out of memory"):
        user.join(0)


# ------------------------------------------------------------------------------------------------
# a run that is killed


def test_a_torn_line_is_set_aside_and_its_dialogue_held_again(socratic, tmp_path):
    whole = s.simulate(socratic(2), answers, 6, 4, 2, tmp_path / "whole")
    part = tmp_path / "part"
    part.write_text(line({"settings": {}}) + line(whole[3]) + line(whole[0]) + line(whole[1])[:25])
    asked = []
    again = s.simulate(socratic(2), lambda turns: asked.append(1) or answers(turns), 6, 4, 2, part)
    assert again == whole
    assert part.with_suffix(".torn").read_text() == line(whole[1])[:25]
    held = [w for w in whole if w["id"] not in (whole[0]["id"], whole[3]["id"])]
    assert len(asked) >= sum(len(w["conversations"]) // 2 for w in held)
    assert sorted(part.read_text().splitlines()[1:]) == sorted(line(w)[:-1] for w in whole)


def test_two_runs_with_other_settings_do_not_mix(socratic, tmp_path):
    s.simulate(socratic(1), answers, 1, 4, 1, tmp_path / "part", {"seed": 0, "temperature": 1})
    with pytest.raises(Problem, match="other temperature; delete it"):
        s.simulate(socratic(1), answers, 2, 4, 1, tmp_path / "part", {"seed": 0, "temperature": 2})


def test_killed_in_the_middle_and_started_again(talker, tokenizer, tmp_path, serve):
    """A real process, a real kill -9: the file is as if nothing had happened."""
    talker.save(tmp_path / "user")
    tokenizer.save(tmp_path / "user")
    served = threading.Semaphore(0)

    def reply(messages):
        served.release()
        return f"number {len(messages)}."
    url = serve(reply)

    def start(out):
        return subprocess.Popen(
            [sys.executable, "simulate.py", "--user", tmp_path / "user", "--teacher", url, "--out", out,
             "--dialogues", "30", "--in-flight", "4", "--max-question", "20", "--rounds", "4"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OPENAI_API_KEY": "sk-planted"})

    whole = start(tmp_path / "whole.jsonl")
    assert whole.wait() == 0, whole.stderr.read()
    count = 0
    while served.acquire(blocking=False):
        count += 1
    first = start(tmp_path / "killed.jsonl")
    for _ in range(count // 2):
        served.acquire()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert Path(f"{tmp_path}/killed.jsonl.part").exists() and not (tmp_path / "killed.jsonl").exists()
    second = start(tmp_path / "killed.jsonl")
    said, _ = second.communicate()
    assert second.returncode == 0 and re.search(rb"going on: \d+ of 30", said)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-planted" not in written + said


def test_no_teacher_is_one_sentence(talker, tokenizer, tmp_path):
    talker.save(tmp_path), tokenizer.save(tmp_path)
    done = subprocess.run([sys.executable, "simulate.py", "--user", tmp_path, "--teacher",
                           "http://127.0.0.1:9/v1", "--out", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "no teacher answers" in done.stderr
