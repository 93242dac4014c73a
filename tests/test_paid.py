"""
What paid generation promises, a test for each promise, against a server with every kind of fault.

The tests have a clock that goes on only when the code sleeps: nothing here waits.
"""

import itertools
import json
import random
import socket
import threading
from contextlib import ExitStack
from functools import partial

import pytest
import requests
import urllib3

from data.api import session
from data.api.budget import (Ledger, cost_in_dollars, forecast, price_of, teacher_tokens, transcript_tokens,
                             user_tokens, worst_case)
from data.api.journal import Journal, journal_records, mean_sizes
from data.api.limiter import Limiter, RunStopped
from data.api.protocol import RetriesExhausted, RetryableError
from data.api.server import RequestError, serving
from data.api.session import check_server, open_session
from data.openings import Opening
from data.program import Progress, UserError, format_dollars, to_jsonl
from platolm import END_REASONS, DialogueEnd
from simulate import TRIES, WASTED, Client, Simulation, Teacher
from tests.chaos import (AFTER, BEFORE, DEAR, INTACT, PRICE, REFUSALS, Allowance, Chaos, Limited, SharedClock, Tally,
                         at_random)

ASK = [{"role": "user", "content": "hello"}]
WORST = cost_in_dollars(PRICE, *worst_case(["hello"], 64))


class Clock:
    """A clock that goes on by sleep(), and by `tick` whenever it is read."""

    def __init__(self, tick=0.0):
        self.now, self.tick, self.slept, self.lock = 0.0, tick, [], threading.Lock()

    def __call__(self):
        with self.lock:
            self.now += self.tick
            return self.now

    def sleep(self, seconds):
        with self.lock:
            self.slept.append(seconds)
            self.now += seconds


@pytest.fixture
def chaos():
    """chaos(script) gives the address of a server with these faults, and its tally."""
    with ExitStack() as running:
        def start(script, reply=lambda messages: f"wëll, ünd {len(messages)}", wait=2.0):
            tally = Tally(script, wait)
            url = running.enter_context(serving(reply, handler=Chaos, tally=tally))
            return url, tally
        yield start


def client_of(url, clock=None, **more):
    clock = clock or Clock()
    return Client(url, clock=clock, sleep=clock.sleep,
                  **{"limiter": Limiter(clock=clock, sleep=clock.sleep), **more})


def talk(client, **options):
    return client.chat("m", ASK, 64, **options)


# ------------------------------------------------------------------------------------------------
# 1, 2: waits


@pytest.mark.parametrize("fault", ["rate limit, seconds", "rate limit, float", "rate limit, date", "rate limit, ms",
                                   "503, seconds"])
def test_a_wait_that_is_asked_for_is_obeyed_by_all(chaos, fault):
    clock, arrived = Clock(), []
    url, _ = chaos([None, fault], lambda messages: arrived.append(clock.now) or "well")
    pace = Limiter(clock=clock, sleep=clock.sleep)
    one, other = (client_of(url, clock, limiter=pace) for _ in range(2))
    talk(one), pace.wait(1)
    # what is refused is asked for again, by whichever worker
    assert talk(one) == talk(other) == "well" and len(arrived) == 3
    assert all(2 <= when < 4.2 for when in arrived[1:])


def test_a_wait_beyond_patience_stops_the_run_and_says_so():
    with pytest.raises(UserError, match="asks to wait .* start again then"):
        client_of("http://127.0.0.1:9").errors.raise_for(429, {"retry-after": "99999"}, {}, b"{}", {})


def test_a_pace_is_kept():
    clock = Clock()
    by_requests = Limiter(requests=30, clock=clock, sleep=clock.sleep)
    for _ in range(4):
        by_requests.wait(10)
    assert clock.slept == pytest.approx([2, 2, 2])
    clock = Clock()
    by_tokens = Limiter(requests=600, tokens=6000, clock=clock, sleep=clock.sleep)
    for tokens in (100, 400, 5):
        by_tokens.wait(tokens)
    assert clock.slept == pytest.approx([1, 4])


def test_after_a_pause_the_pace_is_kept_too():
    """Those whose turn fell into the pause do not all leave at its end."""
    clock, left, pauses = Clock(), [], [60]
    pace = Limiter(requests=60, clock=clock, sleep=clock.sleep)

    def sleep(seconds):
        # the pause begins while the second one waits for its turn
        if pauses:
            pace.pause(pauses.pop())
        clock.sleep(seconds)
    pace.sleep = sleep
    for _ in range(4):
        pace.wait(1)
        left.append(clock.now)
    assert left == pytest.approx([0, 60, 61, 62])


def through(allowance, clock, path, count, rounds=3, in_flight=64, patience=600):
    """The ends of so many dialogues through a server with an allowance, by one clock; and the minutes it took."""
    stop, ended = threading.Event(), threading.Event()

    def sleep(seconds):
        clock.sleep(seconds)
        if stop.is_set():
            raise RunStopped
    pace = Limiter(clock=clock, sleep=sleep)
    threading.Thread(target=clock.run, args=[lambda asleep: pace.in_flight > asleep, ended], daemon=True).start()
    journal = Journal(path, {})
    try:
        with serving(lambda messages: "well", handler=Limited, allowance=allowance) as url:
            client = Client(url, limiter=pace, clock=clock, sleep=sleep, patience=patience)
            run = Simulation(Talkative(), Teacher(client, "m", max_tokens=64), journal, rounds, stop=stop, clock=clock)
            run.run([Opening(n, f"d{n}") for n in range(count)], in_flight)
            return list(journal.ends.values()), clock.now / 60
    finally:
        ended.set()
        journal.close()


@pytest.mark.parametrize("tells", [True, False])
def test_a_rate_limit_is_no_failure(tmp_path, tells):
    """100 dialogues, 64 at a time, 60 requests a minute: all come home, and few requests are refused."""
    clock = SharedClock()
    allowance = Allowance(clock, 60, "sliding", tells)
    ends, minutes = through(allowance, clock, tmp_path / "j", 100)
    print(f"tells {tells}: {allowance.served} served, {allowance.refused} refused, {minutes:.1f} minutes")
    assert ends == ["turn_limit"] * 100 and allowance.served == 300
    assert allowance.refused <= (allowance.served + allowance.refused) / 10
    assert minutes < 9, "300 requests take 4 minutes at best"


def batches(answer, total, latency=0.0):
    """Send requests as many at once as a Limiter allows; answer() gives (0 or a wait, whether it is told)."""
    clock, refused = Clock(), 0
    pace = Limiter(clock=clock, sleep=clock.sleep)
    served = 0
    while served < total:
        began, outcomes = None, []
        while len(outcomes) < min(int(pace.window), 64) and (began is None or clock.now <= began + latency):
            pace.wait(1)
            pace.accepted += 1
            began = clock.now if began is None else began
            outcomes.append((clock.now, *answer(clock)))
        clock.now = max(clock.now, began + latency)
        for sent, wait, tells in outcomes:
            refused += wait > 0
            served += wait == 0
            pace.refused(sent, wait if tells else None) if wait else pace.served(sent)
    return refused, clock.now / 60


@pytest.mark.parametrize("kind", ["sliding", "minutes", "bucket"])
@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("latency", [0.0, 2.0])
def test_however_a_server_counts_few_requests_are_refused_and_little_time_is_lost(kind, tells, latency):
    clocks = []

    def answer(clock):
        if not clocks:
            clocks.append(Allowance(clock, 60, kind))
        return clocks[0].wait(), tells
    refused, minutes = batches(answer, 300, latency)
    assert refused <= (300 + refused) / 10 and minutes < 7


def test_refusals_now_and_then_are_no_rate_limit():
    rng = random.Random(1)
    refused, minutes = batches(lambda clock: (rng.random() < 0.02, True), 1000, 0.1)
    assert 10 < refused < 30 and minutes < 1


def test_a_server_that_serves_nobody_is_given_up_and_the_flag_is_named(tmp_path):
    clock = SharedClock()
    with pytest.raises(UserError, match="5 dialogues in a row.*has served nobody.*--requests-per-minute"):
        through(Allowance(clock, 0, "minutes"), clock, tmp_path / "j", 100)
    assert clock.now < 3600


def test_a_long_queue_is_not_impatience(chaos):
    clock = Clock()
    url, _ = chaos([None, "500", None, "503 as a word"])
    client = client_of(url, clock, limiter=Limiter(requests=0.01, clock=clock, sleep=clock.sleep), patience=60)
    assert [talk(client) for _ in range(3)] and clock.now > 10000


# ------------------------------------------------------------------------------------------------
# 3, 4: errors that are transient, and errors that are not


def test_a_billing_stop_stops_all_workers_and_loses_nothing(chaos, tmp_path):
    url, tally = chaos([None] * 10 + ["billing"] * 100)
    with pytest.raises(UserError, match="no money left.*what was said is kept"):
        simulate(url, tmp_path / "j", 20, in_flight=8)
    assert tally.requests <= 10 + 8, "a worker went on asking"
    journal = Journal(tmp_path / "j", {})
    assert sum(len(journal.turns(name)) // 2 for name in journal.offsets) == tally.delivered == 10
    journal.close()
    url, tally = chaos([])
    assert simulate(url, tmp_path / "j", 20) == simulate(url, tmp_path / "fresh", 20)
    assert tally.delivered == 20 * 3 - 10 + 20 * 3


TRANSIENT = [*BEFORE, *AFTER, *INTACT]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_error_is_retried_until_it_is_gone(chaos, fault):
    url, tally = chaos([None] + [fault] * 3)
    client = client_of(url)
    talk(client)
    text = talk(client)
    assert text == "wëll, ünd 1" and text.meta["finish"] == "stop"
    assert text.meta["attempts"] == tally.requests - 1 == (1 if fault in INTACT else 4)


def patient(seconds=10 ** 6):
    """A client with so much patience, of an address where nobody is."""
    return Client("http://127.0.0.1:9/v1", patience=seconds)


@pytest.mark.exercise(22)
@pytest.mark.parametrize("failures, bound", [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 32), (8, 60), (9, 60)])
def test_a_wait_is_anywhere_below_a_bound_that_doubles(failures, bound):
    client, failure = patient(), RetryableError("HTTP 500: no")
    waits = sorted(client.wait_after(failure, failures, 0, 1) for _ in range(300))
    said = f"after {failures} failures, 300 waits are from {waits[0]:.3f} to {waits[-1]:.3f} s; the bound is {bound}"
    assert 0 <= waits[0] < 0.1 * bound and 0.9 * bound < waits[-1] <= bound, said
    assert 0.4 * bound < sum(waits) / 300 < 0.6 * bound, said


@pytest.mark.exercise(22)
@pytest.mark.parametrize("asked", [0.25, 7, 300])
def test_a_wait_that_the_server_asks_for_is_kept_to(asked):
    client, failure = patient(), RetryableError("slow down", asked)
    got = [client.wait_after(failure, failures, 0, 1) for failures in (1, 5)]
    assert got == [asked, asked], f"the server asks to wait {asked} s, and the waits are {got}"
    waits = [client.wait_after(RetryableError("slow down", 0), 7, 0, 1) for _ in range(20)]
    assert max(waits) > 1, "who asks for a wait of 0 s asks for none, and is not to be hammered"


@pytest.mark.exercise(22)
@pytest.mark.parametrize("wait, failures, wasted, elapsed", [
    (None, TRIES, 0, 1), (7, TRIES, 0, 1), (None, 5, WASTED, 1), (None, 1, 0, 61), (30, 1, 0, 40)])
def test_when_no_try_follows_the_servers_words_are_kept(wait, failures, wasted, elapsed):
    failure = RetryableError("HTTP 500: the cat is on the fire", wait)
    with pytest.raises(RetriesExhausted) as given_up:
        got = patient(60).wait_after(failure, failures, wasted, elapsed)
        pytest.fail(f"the next try comes in {got} s: {failures} failures, {wasted} wasted, {elapsed} s, wait {wait}")
    for part in ("http://127.0.0.1:9/v1", str(failures), str(elapsed), str(wait or ""), str(failure)):
        assert part in str(given_up.value), f"{part!r} is missing in {str(given_up.value)!r}"


@pytest.mark.exercise(22)
def test_until_then_a_try_follows():
    for wait, failures, wasted, elapsed in ((None, TRIES - 1, WASTED - 1, 0), (19, 1, 0, 40)):
        assert patient(60).wait_after(RetryableError("no", wait), failures, wasted, elapsed) <= 60


def test_waits_grow_and_are_spread():
    """Full jitter: anywhere between nothing and a bound that doubles, to a minute at most."""
    waits = [[] for _ in range(TRIES - 1)]
    for _ in range(40):
        clock = Clock()
        with pytest.raises(RetriesExhausted):
            talk(client_of("http://127.0.0.1:9/v1", clock, patience=10 ** 6))
        assert len(clock.slept) == TRIES - 1
        for column, wait in zip(waits, clock.slept):
            column.append(wait)
    for n, column in enumerate(waits):
        bound = min(60, 2 ** (n - 1))
        assert max(column) <= bound and min(column) < bound / 2 < max(column)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
def test_an_error_that_is_not_transient_is_not_retried(status):
    asked = []

    def reply(messages):
        asked.append(1)
        raise RequestError(status, "some_error", "no")
    with serving(reply) as url:
        clock = Clock()
        with pytest.raises(UserError, match=f"(refuses|another key).*: HTTP {status}"):
            talk(client_of(url, clock))
        assert asked == [1] and clock.slept == []


@pytest.mark.parametrize("error, end", [
    ({"code": "context_length_exceeded"}, "context_full"), ({"type": "exceed_context_size_error"}, "context_full"),
    ({"code": 400, "message": "This model's maximum context length is 9 tokens"}, "context_full"),
    ({"code": "content_filter"}, "content_filter"),
])
def test_a_dialogue_that_the_teacher_cannot_take_ends_and_the_others_go_on(tmp_path, error, end):
    def reply(messages):
        if len(messages) > 3:
            refused = RequestError(400, "invalid_request_error", "no")
            refused.body["error"].update(error)
            raise refused
        return "well"
    with serving(reply) as url:
        found = simulate(url, tmp_path / "j", 3)
    assert [(len(r["conversations"]), r["end"]) for r in found] == [(4, end)] * 3


def test_one_refused_prompt_ends_its_dialogue_and_no_other(chaos, tmp_path, capsys):
    """In any words, once an answer was had; the next start tries again what was refused for an unknown reason."""
    url, tally = chaos([None, *REFUSALS])
    found = simulate(url, tmp_path / "j", 9, in_flight=1)
    ends = [record["end"] for record in found]
    assert ends == ["content_filter"] + ["turn_limit"] * 5, "without a round a dialogue is not written"
    assert "refused a request; it is counted as content_filter" in capsys.readouterr().out
    journal = Journal(tmp_path / "j", {})
    ends = [journal.ends[f"d{n:03d}"] for n in range(4)]
    assert ends == ["content_filter", "content_filter", "context_full", "refused"]
    journal.close()
    assert len(simulate(url, tmp_path / "j", 9)) == 7


@pytest.mark.parametrize("script, requests, why", [
    ([None] * 6 + ["unknown 4xx"] * 99, 11, "5 dialogues in a row got no answer.*I would rather not"),
    ([None] + ["filter"] * 99, 6, "5 dialogues in a row"), (["unknown 4xx"] * 99, 1, "refuses: HTTP 418"),
    (["wrong key"] * 99, 1, "wants another key"), ([None] * 6 + ["wrong key"] * 99, 7, "wants another key"),
    (["no model"] * 99, 1, "refuses: HTTP 404.*does the address end in /v1"), (["billing"] * 99, 1, "no money left"),
    (["200, no credit"] * 99, 1, "no money left"), (["200, as a word"] * 99, 1, "does the address end in /v1"),
    (["HTML"] * 99, 1, "does the address end in /v1")])
def test_what_stops_a_run_and_how_soon(chaos, tmp_path, script, requests, why):
    url, tally = chaos(script)
    with pytest.raises(UserError, match=why):
        simulate(url, tmp_path / "j", 40, in_flight=1)
    assert tally.requests == requests
    if requests == 1:
        # nor does anybody else ask, however many wait
        url, tally = chaos(script)
        with pytest.raises(UserError, match=why):
            simulate(url, tmp_path / "many", 40, in_flight=32)
        assert tally.requests == 1


def test_many_dialogues_that_fill_a_small_context_are_no_bad_sign(tmp_path):
    def reply(messages):
        if len(messages) > 3:
            raise RequestError(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")
        return "well"
    with serving(reply) as url:
        found = simulate(url, tmp_path / "j", 30, in_flight=16)
    assert [(len(r["conversations"]), r["end"]) for r in found] == [(4, "context_full")] * 30


def test_a_parameter_that_a_server_does_not_take_is_left_out_and_said_once(capsys):
    seen = []

    def generate(messages, request):
        seen.append({key for key in request if key not in ("model", "messages")})
        for name, other in (("temperature", ""), ("max_tokens", "max_completion_tokens")):
            if name in request:
                raise RequestError(400, "invalid_request_error", f"Unsupported: '{name}'. Use '{other}' instead.")
        return "well", "stop"
    with serving(None, generate=generate) as url:
        client = client_of(url)
        texts = [talk(client, temperature=0, seed=1) for _ in range(3)]
    assert texts == ["well"] * 3 and len(seen) == 5 and seen[-1] == {"seed", "max_completion_tokens"}
    assert texts[0].meta["parameters"] == {"model": "m", "max_completion_tokens": 64, "seed": 1}
    assert capsys.readouterr().out.count("does not take") == 2


def test_an_address_keeps_its_query_and_a_page_is_told_from_an_api(capsys):
    paths = []

    class Azure(Chaos):
        def do_GET(self):
            paths.append(self.path)
            self.send(403, {})

        def do_POST(self):
            paths.append(self.path)
            self.path = "/v1/chat/completions"
            self.send(*self.answer(self.read_body()))
    with serving(lambda messages: "well", handler=Azure) as url:
        client = client_of(f"{url}/deployments/x?api-version=2024-02-01")
        check_server(client, "teacher")
        assert talk(client) == "well", "a list of models that is forbidden is no wrong key"
    assert [path.partition("x/")[2] for path in paths] == [
        "models?api-version=2024-02-01", "chat/completions?api-version=2024-02-01"]

    class Page(Chaos):
        def do_GET(self):
            self.send(200, b"<html>", "text/html")
    with serving(lambda messages: "", handler=Page) as url:
        with pytest.raises(UserError, match="no API but a page: does the address end in /v1"):
            check_server(client_of(url), "teacher")


def test_a_server_that_is_silent_is_told_of_before_it_is_given_up(monkeypatch, capsys):
    monkeypatch.setattr(session, "PATIENT", 0.02)
    monkeypatch.setattr(session, "GREETING", 0.03)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match="no teacher answers at .*ReadTimeout"):
            check_server(client_of(f"http://127.0.0.1:{silent.getsockname()[1]}/v1"), "teacher")
    assert "is silent; waiting" in capsys.readouterr().out


def test_an_old_urllib3_is_named(monkeypatch):
    monkeypatch.delattr("urllib3.response.HTTPResponse.read1")
    with pytest.raises(UserError, match=f"urllib3 {urllib3.__version__} is too old.*pip install"):
        open_session("http://127.0.0.1:9/v1")


def test_nobody_there_is_one_sentence():
    with pytest.raises(UserError, match="no teacher answers at http://127.0.0.1:9/v1"):
        check_server(client_of("http://127.0.0.1:9/v1"), "teacher")
    with pytest.raises(RetriesExhausted, match=f"after {TRIES} tries.*ConnectionError"):
        talk(client_of("http://127.0.0.1:9/v1"))


def test_one_dialogue_nobody_answers_is_tried_again_at_the_next_start(tmp_path):
    sick = [True]

    def reply(messages):
        if sick[0] and messages[0]["content"] == "q 1 0" and len(messages) == 3:
            raise RequestError(500, "server_error", "I cannot")
        return "well"
    with serving(reply) as url:
        found = simulate(url, tmp_path / "j", 4)
        assert [r["end"] for r in found] == ["turn_limit", "error", "turn_limit", "turn_limit"]
        assert len(found[1]["conversations"]) == 2
        sick[0] = False
        assert [r["end"] for r in simulate(url, tmp_path / "j", 4)] == ["turn_limit"] * 4


@pytest.mark.parametrize("given", [(), ({"from": "human", "value": "q"}, {"from": "gpt", "value": "a"})])
def test_a_dead_server_stops_the_run(tmp_path, given):
    with pytest.raises(UserError, match="5 dialogues in a row got no answer"):
        simulate("http://127.0.0.1:9/v1", tmp_path / "j", 100, given=given)
    journal = Journal(tmp_path / "j", {})
    assert len(journal.ends) < 20
    journal.close()


# ------------------------------------------------------------------------------------------------
# 5, 6: bodies; deadlines


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": [7]}',
                                  '{"choices": [{"message": {"content": [7]}}]}', "[" * 10 ** 5])
def test_a_reply_in_no_known_language_is_one_sentence(text):
    class Odd(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(200, text.encode())
    with serving(lambda messages: "", handler=Odd) as url:
        with pytest.raises(UserError, match="does not speak|without a word"):
            talk(client_of(url))


def test_a_text_that_cannot_be_written_is_mended(chaos):
    class Odd(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(200, b'{"choices": [{"message": {"content": "a\\ud800b"}}], "model": "\\ud801"}')
    with serving(lambda messages: "", handler=Odd) as url:
        text = talk(client_of(url))
    to_jsonl({"value": text, **text.meta}).encode()
    assert text == "a?b"


def test_a_refusal_ends_the_dialogue():
    class Odd(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]})
    with serving(lambda messages: "", handler=Odd) as url:
        with pytest.raises(DialogueEnd, match="content_filter"):
            talk(client_of(url))


def test_a_server_that_drips_for_ever_is_given_up():
    """Each look at the clock lets another byte through, and takes a second."""
    go, tries = threading.Semaphore(0), []

    class Drip(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            tries.append(1)
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                go.acquire()

    class Seconds(Clock):
        def __call__(self):
            go.release()
            return super().__call__()
    with serving(lambda messages: "", handler=Drip) as url:
        with pytest.raises(RetriesExhausted, match="takes too long"):
            talk(client_of(url, Seconds(tick=1), patience=30))
        assert tries == [1]
        # whoever still drips may end
        go.release(10 ** 6)


def test_a_silent_server_is_given_up():
    given_up = threading.Event()

    def reply(messages):
        given_up.wait(60)
        return "late"
    with serving(reply) as url:
        with pytest.raises(RetriesExhausted, match="ReadTimeout"):
            talk(client_of(url, timeout=(5, 0.02)))
        given_up.set()


def test_a_dialogue_has_its_time(tmp_path):
    with serving(lambda messages: "well") as url:
        found = simulate(url, tmp_path / "j", 2, clock=Clock(tick=40), minutes=2)
    assert {r["end"] for r in found} == {"error"} and all(len(r["conversations"]) == 2 for r in found)


# ------------------------------------------------------------------------------------------------
# 7, 8, 10, 11, 13 - 15: the journal (the kill -9 itself: test_simulate.py, and make chaos)


class Talkative:
    """A user who asks three things."""

    def start_dialogue(self, number, intent="", rows=()):
        user = lambda turns: f"q {number} {len(turns)}"
        user.close = lambda: None
        return user


def simulate(url, path, count, in_flight=4, rounds=3, ledger=None, price=(0, 0), settings=None, clock=None,
             minutes=60, given=(), **more):
    """A whole run; returns its records."""
    journal, stop = Journal(path, settings or {}), threading.Event()
    ticking = Clock()

    def sleep(seconds):
        if stop.is_set():
            raise RunStopped
        ticking.sleep(seconds)
    ledger = ledger(journal) if ledger else Ledger()
    client = Client(url, "sk-planted", price, Limiter(clock=ticking, sleep=sleep), ledger, clock=ticking,
                    sleep=sleep, answered=journal.answered, **more)
    plan = [Opening(n, f"d{n:03d}", given) for n in range(count)]
    try:
        Simulation(Talkative(), Teacher(client, "m", max_tokens=64), journal, rounds, minutes, stop,
                   clock or Clock()).run(plan, in_flight)
        return list(journal_records(journal, plan))
    finally:
        journal.close()
        client.close()


def test_through_all_faults_the_file_is_the_same(chaos, tmp_path):
    url, _ = chaos([])
    calm = simulate(url, tmp_path / "calm", 30)
    rough, tally = chaos(at_random(0.4, 1, but=("slow bytes",)))
    assert simulate(rough, tmp_path / "rough", 30, in_flight=16) == calm
    assert sum(tally.faults[name] for name in tally.faults if name) > 20
    assert all(record["end"] in END_REASONS for record in calm)


def test_a_torn_last_line_is_set_aside(chaos, tmp_path, capsys):
    url, tally = chaos([])
    whole = simulate(url, tmp_path / "j", 3)
    data = (tmp_path / "j").read_bytes()
    offset = data.index(b'"from": "gpt"') + 20
    (tmp_path / "j").write_bytes(data[:offset])
    assert simulate(url, tmp_path / "j", 3) == whole
    assert "torn last line" in capsys.readouterr().out
    assert (tmp_path / "j.torn").read_bytes() == data[data.rindex(b"\n", 0, offset) + 1:offset] + b"\n"


@pytest.mark.parametrize("middle", [b"{\n", b"[1]\n", b"\xff\n", b'{"turn": 1}\n', b'{"end": "left"}\n'])
def test_rubbish_in_the_middle_is_refused_by_its_line(tmp_path, middle):
    head, last = to_jsonl({"settings": {}}).encode(), to_jsonl({"id": "a", "end": "left"}).encode()
    (tmp_path / "j").write_bytes(head + middle + last)
    with pytest.raises(UserError, match="line 2"):
        Journal(tmp_path / "j", {})


def test_another_configuration_is_refused_by_name_once_an_answer_stands(tmp_path):
    """Before, a corrected flag is no other run; but the money stays spent."""
    rows = [{"id": "a", "turn": 0, "from": "human", "value": "q"}, {"id": "a", "end": "refused"},
            {"call": 0, "cost": 0.5}]
    for settings in ({"seed": 0, "temperature": 1.0}, {"seed": 0, "temperature": 0.7}):
        journal = Journal(tmp_path / "j", settings)
        assert not journal.ends and not journal.turns("a")
        for row in rows:
            journal.write(row)
        journal.close()
    journal = Journal(tmp_path / "j", settings)
    assert journal.ends == {"a": "refused"} and len(journal.turns("a")) == 1
    assert Ledger(rows=journal.calls).spent == 0.5, "the same call, settled twice"
    journal.write({"id": "a", "turn": 1, "from": "gpt", "value": "a"})
    journal.close()
    with pytest.raises(UserError, match=r"other temperature \(0.7 there, 1.0 here\); take another --out"):
        Journal(tmp_path / "j", {"seed": 0, "temperature": 1.0})


def test_a_second_process_is_refused(tmp_path):
    first = Journal(tmp_path / "j", {})
    with pytest.raises(UserError, match="another process is writing"):
        Journal(tmp_path / "j", {})
    first.close()
    Journal(tmp_path / "j", {}).close()


def test_every_turn_says_how_it_came_about(chaos, tmp_path):
    url, _ = chaos([None, "500"])
    simulate(url, tmp_path / "j", 1, price=PRICE)
    rows = [json.loads(text) for text in (tmp_path / "j").read_text().splitlines()]
    answers = [row for row in rows if row.get("from") == "gpt"]
    assert [row["turn"] for row in answers] == [1, 3, 5] and [row["attempts"] for row in answers] == [1, 2, 1]
    for row in answers:
        assert row["parameters"] == {"model": "m", "max_tokens": 64} and row["model"] == "local"
        assert row["request"].startswith("chatcmpl-") and row["seconds"] >= 0 and row["finish"] == "stop"
        assert row["cost"] == pytest.approx(cost_in_dollars(PRICE, *row["usage"]))


def test_an_answer_is_on_disk_before_anybody_goes_on_from_it(chaos, tmp_path):
    class Nosy(Talkative):
        def start_dialogue(self, number, intent="", rows=()):
            def user(turns):
                rows = [json.loads(text) for text in (tmp_path / "j").read_text().splitlines()]
                assert [r["value"] for r in rows if "turn" in r] == [t["value"] for t in turns]
                return f"q {len(turns)}"
            user.close = lambda: None
            return user
    url, _ = chaos([])
    journal = Journal(tmp_path / "j", {})
    Simulation(Nosy(), Teacher(client_of(url), "m"), journal, 3).run([Opening(0, "d")], 1)
    journal.close()


def test_an_answer_cut_at_its_limit_is_kept_and_marked(tmp_path):
    asked = []
    with serving(lambda messages: asked.append(1) or "word " * 100) as url:
        record, = simulate(url, tmp_path / "j", 1, rounds=1)
    assert asked == [1] and record["end"] == "turn_limit"
    question, answer = record["conversations"]
    assert answer["finish"] == "length" and len(answer["value"].split()) == 64 and "finish" not in question


def test_the_limit_is_called_what_the_server_calls_it():
    heard = []

    class Nosy(Chaos):
        def answer(self, body):
            heard.append(json.loads(body))
            return super().answer(body)

        def do_POST(self):
            self.send(*self.answer(self.rfile.read(int(self.headers["Content-Length"]))))
    with serving(lambda messages: "well", handler=Nosy) as url:
        talk(client_of(url))
        talk(client_of(url, limit_key="max_completion_tokens"), temperature=0)
    assert heard == [{"model": "m", "messages": ASK, "max_tokens": 64},
                     {"model": "m", "messages": ASK, "max_completion_tokens": 64, "temperature": 0}]


# ------------------------------------------------------------------------------------------------
# 9: money


def reserve(ledger, dollars):
    """Reserve so many dollars, for a model of its own: a million tokens read at this price."""
    return ledger.reserve((dollars, 0), (10 ** 6, 0), str(ledger.numbers))


def let_wait(ledger, *changes):
    """
    Let each wait of a ledger be one of these functions; one more is a failure, for nobody would end it.
    Returns a list that grows with every wait.
    """
    rest, waited = iter(changes), []

    def wait(timeout=None):
        # only who holds the Condition may wait for it, and notify
        ledger.changed.notify(0)
        change = next(rest, None)
        assert change, f"it waits once more, and nobody would wake it; in flight are {dict(ledger.open)}"
        waited.append(change)
        change()
        return True
    ledger.changed.wait = wait
    return waited


@pytest.mark.exercise(23)
def test_reservations_by_hand():
    rows = []
    ledger = Ledger(1.0, rows.append)
    let_wait(ledger)
    calls = [reserve(ledger, 0.25), ledger.reserve((0, 5), (10 ** 6, 10 ** 5), "m")]
    assert calls == [0, 1] and rows == [{"call": 0, "reserved": 0.25}, {"call": 1, "reserved": 0.5}]
    assert {call: ledger.open[call].dollars for call in ledger.open} == {0: 0.25, 1: 0.5} and ledger.spent == 0
    assert ledger.reserve((0, 0), (10 ** 6, 10), "free") is None and len(rows) == len(ledger.open) == 2
    # the last quarter is there, too
    assert reserve(ledger, 0.25) == 2


@pytest.mark.exercise(23)
def test_where_there_is_no_room_and_nobody_to_wait_for_the_dialogue_ends():
    rows = []
    ledger = Ledger(1.0, rows.append, [{"call": 0, "cost": 0.9}])
    let_wait(ledger)
    with pytest.raises(DialogueEnd, match="budget"):
        reserve(ledger, 0.2)
    assert rows == [] and ledger.open == {}
    assert reserve(ledger, 0.05) == 1, "there is room for less"


@pytest.mark.exercise(23)
def test_what_is_in_flight_counts_and_is_waited_for():
    ledger = Ledger(1.0)
    first = reserve(ledger, 0.6)
    # woken, although another one was faster; only then there is room
    waited = let_wait(ledger, lambda: None, lambda: ledger.settle(first, 0.1))
    second = reserve(ledger, 0.6)
    assert len(waited) > 0, "0.6 in flight and 0.6 more pass a cap of 1, and it does not wait"
    assert len(waited) == 2, "who is woken has to see first whether there is room: another one may have been faster"
    assert [ledger.open[call].dollars for call in ledger.open] == [0.6] and second == 1 and ledger.spent == 0.1


@pytest.mark.exercise(23)
def test_what_a_report_teaches_meanwhile_is_reserved():
    rows = []
    ledger = Ledger(1.0, rows.append)
    first = ledger.reserve(PRICE, (10, 10), "m")
    let_wait(ledger, lambda: ledger.settle(first, 1e-3, (5, 1000)))
    second = ledger.reserve(PRICE, (10, 10), "m")
    got = ledger.open[second].tokens
    assert got == (10, 10 + 2 * 990), f"the first call wrote 990 tokens too many; the second one reserves {got} tokens"
    assert rows[-1] == {"call": second, "reserved": pytest.approx(cost_in_dollars(PRICE, 10, 1990))}


@pytest.mark.exercise(23)
def test_who_waited_until_the_end_gets_nothing():
    rows, stop = [], threading.Event()
    ledger = Ledger(1.0, rows.append, stop=stop)
    first = reserve(ledger, 0.6)

    def ends():
        stop.set()
        ledger.settle(first, 0.1)
    let_wait(ledger, ends)
    with pytest.raises(RunStopped):
        reserve(ledger, 0.6)
    assert ledger.open == {} and [row for row in rows if "reserved" in row] == [{"call": 0, "reserved": 0.6}]


@pytest.mark.exercise(23)
def test_what_cannot_be_noted_is_not_reserved():
    def full(row):
        raise OSError("no space")
    ledger = Ledger(1.0, full)
    let_wait(ledger)
    with pytest.raises(OSError):
        reserve(ledger, 0.9)
    assert ledger.open == {}, "a call that was never sent is in flight for ever"


@pytest.mark.exercise(24)
def test_settling_by_hand(capsys):
    rows = []
    ledger = Ledger(1.0, rows.append)
    calls = [reserve(ledger, 0.25), reserve(ledger, 0.5)]
    ledger.settle(None, 0.0)
    assert ledger.spent == 0 and len(ledger.open) == 2, "a free call has no number, and changes nothing"
    ledger.settle(calls[0], 0.125)
    assert ledger.spent == 0.125, f"0.25 were reserved, and it cost 0.125; spent are {ledger.spent}"
    assert list(ledger.open) == [calls[1]], f"call 0 is settled, and in flight are {list(ledger.open)}"
    assert rows[2:] == [{"call": 0, "cost": 0.125}]
    assert capsys.readouterr().out == ""
    ledger.settle(calls[1], 1.0)
    assert ledger.spent == 1.125 and ledger.open == {} and rows[3:] == [{"call": 1, "cost": 1.0}]
    assert ledger.excess() in capsys.readouterr().out, "who passes the cap says so"


@pytest.mark.exercise(24)
def test_a_model_is_silent_where_it_was_paid_and_reports_nothing():
    ledger = Ledger()
    let_wait(ledger)
    for cost, silent in ((0.0, 0), (1e-6, 1), (0.0, 1), (1e-6, 2)):
        ledger.settle(ledger.reserve(PRICE, (10, 10), "m"), cost)
        got = ledger.silent["m"]
        assert got == silent, f"a call that cost ${cost} and reported nothing: {silent} are silent, not {got}"
    ledger.settle(ledger.reserve(PRICE, (10, 10), "m"), 1e-6, (5, 5))
    assert ledger.silent["m"] == Ledger.SILENT, "who has reported once is never waited for again"


@pytest.mark.exercise(24)
def test_what_a_report_teaches_is_noted_and_known_after_a_restart():
    rows = []
    ledger = Ledger(1.0, rows.append)
    let_wait(ledger)
    ledger.settle(ledger.reserve(PRICE, (10, 10), "m"), 1e-4, (5, 5))
    assert rows[-1] == {"call": 0, "cost": 1e-4}
    ledger.settle(ledger.reserve(PRICE, (10, 10), "m"), 1e-3, (5, 1000))
    assert rows[-1] == {"call": 1, "cost": 1e-3, "beyond": {"m": (0, 2 * 990)}}
    assert Ledger(1.0, rows=rows).beyond == {"m": (0, 2 * 990)}


@pytest.mark.exercise(24)
def test_all_who_wait_are_woken():
    ledger, numbers, waiting = Ledger(1.0), [], threading.Semaphore(0)
    call = reserve(ledger, 0.9)
    real_wait = ledger.changed.wait

    def wait(timeout=None):
        waiting.release()
        if not real_wait(2):
            raise TimeoutError("nobody wakes me")
    ledger.changed.wait = wait

    def reserve_later(model):
        try:
            numbers.append(ledger.reserve((0.4, 0), (10 ** 6, 0), model))
        except TimeoutError as error:
            numbers.append(str(error))
    threads = [threading.Thread(target=reserve_later, args=[model], daemon=True) for model in ("m", "n")]
    for thread in threads:
        thread.start()
        assert waiting.acquire(timeout=10)
    ledger.settle(call, 0.1)
    for thread in threads:
        thread.join(10)
    assert sorted(numbers, key=str) == [1, 2], f"two wait for room, and there is room for both: {numbers}"


def capped(cap):
    return lambda journal: Ledger(cap, journal.write, journal.calls)


def test_the_cap_holds_by_the_servers_count_too(chaos, tmp_path):
    """16 workers, lost answers, lies about usage: restarted again and again until the money is gone."""
    url, tally = chaos(itertools.chain([None], at_random(0.4, 7, but=("slow bytes", *DEAR))))
    cap, before = 0.01, 0
    for _ in range(4):
        found = simulate(url, tmp_path / "j", 60, 16, 6, capped(cap), PRICE)
        journal = Journal(tmp_path / "j", {})
        spent = Ledger(cap, rows=journal.calls).spent
        journal.close()
        assert before <= spent <= cap and tally.dollars <= spent + 1e-12
        before = spent
    assert {"budget"} <= {record["end"] for record in found} <= set(END_REASONS)
    # nothing more can be had: not even the smallest worst case fits
    made = tally.made
    simulate(url, tmp_path / "j", 60, 16, 6, capped(cap), PRICE)
    assert tally.made - made <= 2
    assert spent > cap / 2, "the cap stopped far too early"


@pytest.mark.parametrize("faults", [["reasoning in the total"], ["more than the limit"], [None, None, *DEAR]])
@pytest.mark.parametrize("cap", [0.0005, 0.012, 0.05])
def test_a_model_that_keeps_no_limit_is_booked_as_it_reports_and_passes_the_cap_at_most_once(
        chaos, tmp_path, capsys, faults, cap):
    """By at most the excess of the calls that were under way when it was found out: at the start, one."""
    url, tally = chaos(itertools.cycle(faults))
    for _ in range(3):
        simulate(url, tmp_path / "j", 30, 16, 6, capped(cap), PRICE)
    journal = Journal(tmp_path / "j", {})
    ledger = Ledger(cap, rows=journal.calls)
    journal.close()
    assert ledger.spent == pytest.approx(tally.dollars)
    dearest, at_once = 0.010, 1 if None not in faults else 16
    assert ledger.spent <= cap + at_once * dearest
    printed = capsys.readouterr().out
    assert "booked as reported" in printed and ("more than --max-dollars" in printed) == (ledger.spent > cap)
    assert ledger.spent <= cap or "more than --max-dollars" in ledger.summary()


def test_until_its_first_report_a_model_has_one_call_in_flight():
    ledger, order = Ledger(), []
    first = ledger.reserve(PRICE, (10, 10), "m")
    # another model has a first call of its own
    ledger.settle(ledger.reserve(PRICE, (10, 10), "other"), 1e-6, (1, 1))

    def second():
        calls = [ledger.reserve(PRICE, (10, 10), "m") for _ in range(2)]
        order.append("second")
        assert ledger.open[calls[0]].tokens == (10, 10 + 2 * 990), "the report raises what is reserved"
    thread = threading.Thread(target=second)
    thread.start()
    order.append("first")
    ledger.settle(first, 1e-3, (5, 1000))
    thread.join(30)
    assert order == ["first", "second"] and ledger.spent == pytest.approx(1e-3 + 1e-6)
    silent = Ledger()
    for _ in range(Ledger.SILENT):
        silent.settle(silent.reserve(PRICE, (10, 10), "m"), 1e-6)
    assert [silent.reserve(PRICE, (10, 10), "m") for _ in range(2)] == [3, 4], "one that never reports waits no more"


@pytest.mark.parametrize("page", [
    {"message": {"content": ""}, "finish_reason": "stop"}, {"message": {"content": None}, "finish_reason": "length"},
    {"message": {"content": "", "reasoning_content": "so"}, "finish_reason": "stop"},
    {"message": {"content": "<think>so"}, "finish_reason": "length"}, {"message": {}}, {"finish_reason": "error"},
    {"message": {"content": "x"}, "finish_reason": "content_filter"}])
def test_nothing_is_bought_over_and_over(tmp_path, page):
    """Three paid answers without a text are enough, in however many dialogues."""
    bought = []

    class Nothing(Chaos):
        def do_POST(self):
            self.read_body()
            bought.append(1)
            self.send(200, {"choices": [page], "usage": {"prompt_tokens": 9, "completion_tokens": 64}})
    with serving(lambda messages: "", handler=Nothing) as url:
        with pytest.raises(UserError, match="was paid for 3 answers, and none holds a text"):
            simulate(url, tmp_path / "j", 60, 16, 3, capped(1), PRICE)
    assert len(bought) == 3


def test_one_text_is_not_bought_more_than_three_times_either(chaos):
    url, tally = chaos([None] + ["empty"] * 9)
    client = client_of(url, price=PRICE)
    talk(client)
    with pytest.raises(RetriesExhausted, match="after 3 tries.*without a word"):
        talk(client)


def test_more_money_takes_up_what_the_cap_stopped(chaos, tmp_path):
    url, tally = chaos([])
    rich = simulate(url, tmp_path / "rich", 10)
    asked = tally.requests
    simulate(url, tmp_path / "j", 10, 4, 3, capped(0.002), PRICE)
    assert simulate(url, tmp_path / "j", 10, 4, 3, capped(1), PRICE) == rich
    assert tally.requests == 2 * asked, "an answer was bought twice"


@pytest.mark.parametrize("fault, paid", [
    *((name, "worst") for name in ("reset", "cut", "cut inside a character", "torn JSON", "HTML", "502 in HTML")),
    *((name, "worst") for name in ("no usage", "usage below 0", "usage of nothing")),
    *((name, "nothing") for name in BEFORE if name != "502 in HTML"),
    *((name, "usage") for name in ("null", "empty", "failed", "usage in words", "content in parts")),
])
def test_what_a_try_costs(chaos, fault, paid):
    rows = []
    url, tally = chaos([None, fault])
    client = client_of(url, price=PRICE, ledger=Ledger(1, rows.append))
    talk(client)
    rows.clear()
    talk(client)
    assert rows[0] == {"call": 1, "reserved": pytest.approx(WORST)} and rows[1]["call"] == 1
    used = cost_in_dollars(PRICE, 1, 3)
    assert rows[1]["cost"] == pytest.approx({"worst": WORST, "nothing": 0, "usage": used}[paid])
    assert fault in INTACT or rows[-1]["cost"] == pytest.approx(used)


def test_a_connection_refused_costs_nothing():
    rows = []
    with pytest.raises(RetriesExhausted):
        talk(client_of("http://127.0.0.1:9/v1", price=PRICE, ledger=Ledger(1, rows.append)))
    assert {row["cost"] for row in rows if "cost" in row} == {0}


def test_what_a_kill_left_reserved_counts_as_spent():
    rows = [{"call": 0, "reserved": 3.0}, {"call": 1, "reserved": 2.0}, {"call": 0, "cost": 0.5}]
    ledger = Ledger(5, rows=rows)
    assert ledger.spent == 2.5 and reserve(ledger, 2.5) == 2
    with pytest.raises(DialogueEnd, match="budget"):
        reserve(Ledger(5, rows=rows), 2.51)


def test_who_finds_no_room_waits_for_what_comes_back():
    ledger, order = Ledger(1.0), []
    call = reserve(ledger, 0.9)

    def second():
        order.append("asks")
        ledger.settle(reserve(ledger, 0.5), 0.5)
        order.append("has it")
    thread = threading.Thread(target=second)
    thread.start()
    ledger.settle(call, 0.1)
    thread.join(30)
    assert order == ["asks", "has it"] and ledger.spent == pytest.approx(0.6)


def test_worst_case_is_never_less_than_any_tokenizer_makes(tokenizer):
    for text in ("", "hello", "  \n\t", "naïve ☕ 日本", "</s>"):
        assert len(tokenizer.encode(text)) <= worst_case([text], 0)[0]


@pytest.mark.exercise(24)
def test_a_disk_that_is_full_leaves_nobody_waiting():
    def full(row):
        raise OSError("no space")
    ledger = Ledger(1.0, full)
    let_wait(ledger)
    for _ in range(2):
        with pytest.raises(OSError):
            reserve(ledger, 0.9)
    ledger.note = lambda row: None
    call = reserve(ledger, 0.9)
    ledger.note = full
    with pytest.raises(OSError):
        ledger.settle(call, 0.1)
    assert ledger.open == {}, "what cannot be noted is settled all the same, or others wait for it for ever"
    assert ledger.spent == pytest.approx(0.1)


@pytest.mark.exercise(23)
def test_who_waited_for_room_gets_none_after_the_end():
    stop = threading.Event()
    ledger = Ledger(1.0, stop=stop)
    let_wait(ledger)
    stop.set()
    with pytest.raises(RunStopped):
        reserve(ledger, 0.5)


def test_prices():
    assert price_of("http://localhost:8000/v1", "anything") == (0, 0) == price_of("http://127.0.0.1:1", "gpt-4")
    assert price_of("https://api.openai.com/v1", "gpt-4") == (30, 60)
    assert price_of("https://api.openai.com/v1", "new", (1, 2)) == (1, 2)
    with pytest.raises(UserError, match="the price of 'new' is unknown: --price"):
        price_of("https://api.openai.com/v1", "new")


def test_a_forecast_by_hand():
    """Two rounds, questions of 3 and answers of 5 tokens, a system line of 7, 8 more a message."""
    first, second = (7 + 8) + (3 + 8), (7 + 8) + (3 + 8) + (5 + 8) + (3 + 8)
    assert teacher_tokens(2, 3, 5, 7) == (2, first + second, 10)
    # a prompted user: the instruction of 9 tokens, after nothing and after a round
    assert user_tokens(2, 3, 5, 9) == (2, (9 + 8) + (3 + 8) + (5 + 8) + (9 + 8), 6)
    assert transcript_tokens(2, 3, 5, 9) == (1, 9 + 8, 16)
    sides = [((1, 2), partial(teacher_tokens, system=7)), ((0, 1000), partial(user_tokens, instruction=9))]
    most, likely = forecast(100, (2, 3, 5), sides)[1:3]
    assert most.split() == ["at", "most", "400", "13,400", "1,600", "0.61"] and likely.split()[1] == "400"


def test_an_estimate_learns_from_what_was_said(chaos, tmp_path):
    url, _ = chaos([])
    simulate(url, tmp_path / "j", 5)
    journal = Journal(tmp_path / "j", {})
    found = mean_sizes(journal)
    journal.close()
    assert found[0] == 3 and 1 < found[1] < 2 < found[2] < 4


def test_small_sums_are_not_nothing():
    assert (format_dollars(0.00123), format_dollars(1234.5)) == ("$0.0012", "$1,234.50")


def test_the_live_line():
    clock, ledger = Clock(), Ledger()
    ledger.spent = 1.0
    progress = Progress("chat", 10, ledger, clock)
    for _ in range(4):
        progress.count_turn()
    clock.now, ledger.spent, progress.done = 20.0, 3.0, 2
    assert progress.line().split() == ("chat dialogues 2/10 0.2 turns/s $3.00 spent, $11.00 in all 1m20s left").split()


# ------------------------------------------------------------------------------------------------
# 12: the key


def test_the_key_is_sent_as_a_header_and_stands_in_nothing_but_an_answer(tmp_path, capsys):
    """Also where the server echoes it: in names, headers, errors, escaped or not. Answers are never rewritten."""
    echo = "your key is sk-planted, \\u0073k-planted"

    class Echo(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Authorization"] == "Bearer sk-planted"
            fault = self.tally.next_fault()
            if fault in ("500", "418"):
                body = f'{{"error": {{"message": "{echo}"}}}}'.encode()
                return self.send(int(fault), body, x_request_id="sk-planted")
            if fault == "word":
                return self.send(500, b"x" * 295 + b"sk-planted")
            body = f'{{"id": "{echo}", "model": "{echo}", "choices": [{{"message": {{"content": "{echo}"}}, ' \
                   f'"finish_reason": "{echo}"}}]}}'
            self.send(200, body.encode(), x_request_id="sk-planted")
    script = itertools.cycle([None, "500", None, "word", None, "418", None])
    with serving(lambda messages: "", handler=Echo, tally=Tally(script)) as url:
        found = simulate(url, tmp_path / "j", 4)
        with pytest.raises(RetriesExhausted) as problem:
            talk(Client(url, "sk-planted", limiter=Limiter(sleep=lambda s: None), sleep=lambda s: None, patience=-1))
    answer = "your key is sk-planted, sk-planted"
    assert found[0]["conversations"][1]["value"] == answer and "refused" in {r["end"] for r in found}
    printed = str(problem.value) + capsys.readouterr().out
    assert "planted" not in printed and "sk-p" not in printed and "(key)" in printed
    for row in map(json.loads, (tmp_path / "j").read_text().splitlines()):
        assert row.pop("value", answer) == answer or row["from"] == "human"
        assert "planted" not in json.dumps(row)


def test_a_piece_of_the_key_in_a_torn_answer_is_not_quoted():
    class Torn(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(200, b'{"choices": [{"message": {"content": "you are sk-plant')
    with serving(lambda messages: "", handler=Torn) as url:
        with pytest.raises(RetriesExhausted, match="54 bytes that are no JSON") as problem:
            talk(client_of(url, key="sk-planted"))
    assert "plant" not in str(problem.value)


def test_netrc_does_not_take_the_keys_place(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("default login me password sk-other")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session = open_session("https://somewhere.example/v1", "sk-planted")
    request = session.prepare_request(requests.Request("POST", "https://somewhere.example/v1"))
    assert request.headers["Authorization"] == "Bearer sk-planted"


@pytest.mark.parametrize("key", ["sk-plan\nted", "sk-plänted", "sk-plan ted"])
def test_a_key_that_no_header_can_hold_is_not_repeated(key):
    with pytest.raises(UserError) as problem:
        talk(Client("http://127.0.0.1:9/v1", key))
    assert "sk-plan" not in str(problem.value) and "sk-pl" not in str(problem.value)


def test_a_password_in_an_address_is_refused_unseen():
    with pytest.raises(UserError) as problem:
        open_session("https://me:sk-planted@host/v1")
    assert "sk-planted" not in str(problem.value)


def test_a_redirect_takes_the_key_nowhere():
    class Elsewhere(Chaos):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(302, {}, Location="http://127.0.0.1:9/")
    with serving(lambda messages: "", handler=Elsewhere) as url:
        with pytest.raises(UserError, match="refuses: HTTP 302"):
            talk(client_of(url, key="sk-planted"))


def test_no_proxy_and_no_netrc_stand_between_us_and_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda messages: "well") as url:
        assert Teacher(client_of(url), "m")([{"from": "human", "value": "hi"}]) == "well"


def test_the_teacher_hears_the_dialogue_in_openais_words():
    heard = []
    with serving(lambda messages: heard.append(messages) or "b") as url:
        Teacher(client_of(url), "m", system="be brief")(
            [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}])
    assert [(m["role"], m["content"]) for m in heard[0]] == [
        ("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]
