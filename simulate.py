"""
Let Socratic talk to a teacher, and write the dialogues down: the SocraticChat data.

    python simulate.py --user socratic --teacher https://api.openai.com/v1 --model gpt-3.5-turbo \\
                       --out chat.jsonl --dialogues 1000 --max-dollars 20

`converse` is the whole idea. After it come Socratic as a user, many dialogues at once, the client
for any OpenAI-compatible server, and the command.
Read before: platolm.py, model.py. Read next: evaluate.py.
"""

import argparse
import math
import os
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from data.api.budget import (Endpoint, Ledger, client_settings, cost_of_report, forecast,
                             is_loopback, maybe_made, money_flags, price_of, teacher_tokens,
                             transcript_tokens, user_tokens, worst_case)
from data.api.journal import Journal, finished_openings, journal_records, mean_sizes
from data.api.limiter import Limiter, RunStopped
from data.api.protocol import (GIVE_UP_AFTER, RateLimited, Refused, Reply, RetriesExhausted,
                               RetryableError, chat_text, error_inside, one_line, parse_json,
                               token_usage)
from data.api.refusals import ErrorReplies
from data.api.session import check_server, join_path, open_session, post
from data.engine_thread import EngineThread
from data.openings import openings, simulation_settings
from data.program import (Progress, UserError, natural_int, positive_int, read_text, require_apart,
                          run, shard, url, write_jsonl)
from data.users import UserSettings, make_other_user, user_endpoint, user_flags, user_settings
from platolm import END_REASONS, LABEL, DialogueEnd, blanked, prompt, to_messages

# model.py is imported where a local model writes: torch takes seconds, and other users need none


# exercise 6: two speakers in turn
def converse(ask, answer, rounds):
    """
    Let a user and an assistant take turns. Returns the turns, and why there are no more (a
    str of platolm.END_REASONS).

    ask(turns) returns the next question, or None to leave; answer(turns) the reply to the last of
    turns, which is that question. Both may be anything: a model, a server, a script. Either may
    raise DialogueEnd: its text is then the reason. Any other error is not caught. The other
    reasons: "left"; what reason_to_stop(question, turns) says of the question and the turns before
    it, and then nobody answers; after so many rounds "turn_limit", and then nobody asks.

    Turns are a list of {"from": "human" | "gpt", "value": text}. Those that are returned are whole
    rounds: a question without its answer is dropped.
    """
    turns = []
    try:
        for _ in range(rounds):
            question = ask(turns)
            if question is None:
                return turns, "left"
            if reason := reason_to_stop(question, turns):
                return turns, reason
            with_question = turns + [{"from": "human", "value": question}]
            # a question without its answer is never kept
            turns = with_question + [{"from": "gpt", "value": answer(with_question)}]
    except DialogueEnd as end:
        return turns, str(end)
    return turns, "turn_limit"


# exercise 5: when a dialogue has to stop
def reason_to_stop(question, turns):
    """
    Say why a dialogue has to end before this question (of END_REASONS); None if it need not.

    turns: what was said before, in whole rounds. Of these, the first that is true:
    "left"       the question is empty or blank
    "role_leak"  it contains "</s>" or a label of LABEL, be it without the space at its end
    "repeats"    the human has asked the very same before; or both this question and the human's
                 last one are nothing but thanks or a good-bye (is_courtesy)
    """
    if not question.strip():
        return "left"
    labels = [label.strip() for label in LABEL.values()]
    if any(mark in question for mark in ("</s>", *labels)):
        return "role_leak"
    earlier = [turn["value"] for turn in turns[::2]]
    if question in earlier:
        return "repeats"
    # two models can thank each other for ever
    if earlier and is_courtesy(earlier[-1]) and is_courtesy(question):
        return "repeats"
    return None


THANKS = {"thanks", "thank", "cheers", "bye", "goodbye", "welcome"}
COURTESY = THANKS | set("you so very much again good great ok okay a lot for your the help and "
                        "have nice day you're too".split())


def is_courtesy(text):
    """Whether a text holds nothing but thanks or a good-bye."""
    words = set(re.findall(r"[a-z']+", text.lower()))
    return bool(words & THANKS) and words <= COURTESY


# ------------------------------------------------------------------------------------------------
# the user: Socratic, who asks in many dialogues at once


class Socratic:
    """
    A trained user. Each dialogue runs in a thread of its own; one more owns the engine, and writes
    for all of them together, so that every step has as many rows as possible.

    slots: most dialogues at a time; settings: UserSettings.
    """

    def __init__(self, model, tokenizer, slots, settings=UserSettings()):
        from model import Engine
        self.engine = Engine(model, slots, temperature=settings.temperature,
                             top_k=settings.top_k, top_p=settings.top_p)
        self.tokenizer, self.settings = tokenizer, settings
        self.writer = EngineThread(self.engine)

    def close(self):
        """End the engine's thread."""
        self.writer.close()

    def start_dialogue(self, number, intent="", rows=()):
        """Return ask(turns) for dialogue `number`, with an engine row that ask.close() frees."""
        return Asker(self, number, intent, self.writer.request(self.engine.add_row))


class Asker:
    """Socratic in one dialogue: asker(turns) -> question; row: what the engine has read of it."""

    def __init__(self, socratic, number, intent, row):
        self.socratic, self.row = socratic, row
        self.number, self.intent = number, intent

    def __call__(self, turns):
        """Return the next question; None to leave, which Socratic does by writing nothing."""
        socratic, settings = self.socratic, self.socratic.settings
        # one stream of random numbers per turn: other rows of the batch change none of them
        uniform = np.random.default_rng([settings.seed, self.number, len(turns)]).random
        history = blanked(turns) if settings.blind else turns
        ids = prompt(history, socratic.tokenizer, "human", self.intent)
        if len(ids) >= settings.context:
            raise DialogueEnd("context_full")
        eos_bias = math.log(settings.leave) if settings.leave else -math.inf
        row = socratic.writer.request(socratic.engine.start, self.row, ids,
                                      [socratic.tokenizer.eos], settings.max_question, uniform,
                                      eos_bias)
        if row.finish_reason == "length":
            raise DialogueEnd("token_limit")
        if row.finish_reason == "context":
            raise DialogueEnd("context_full")
        text = socratic.tokenizer.decode(row.output)
        return text if text.strip() else None

    def close(self):
        """Free the row for another dialogue."""
        self.socratic.writer.request(self.socratic.engine.remove_row, self.row)


# ------------------------------------------------------------------------------------------------
# many dialogues at once


# exercise 25: replaying what the journal holds
def replay_then(history, speak):
    """
    Return a speaker, called with the turns so far, that repeats `history` before it uses `speak`.

    history: the first turns of the dialogue, both sides', as {"value": text, ...}. Where it holds
    the next turn, the speaker returns that turn's text, and does not call speak; beyond it, the
    speaker returns what speak(turns) does. It is called when it is its side's turn, no other time.
    """
    def replay(turns):
        if len(turns) < len(history):
            return history[len(turns)]["value"]
        return speak(turns)
    return replay


class Simulation:
    """
    Many dialogues at once, each in a thread. Every new turn is written to the journal before the
    dialogue goes on from it; turns that the journal holds already are taken from there.

    minutes: longest time for a dialogue; stop: an event that ends the run.
    """

    def __init__(self, user, teacher, journal, rounds, minutes=60, stop=None, clock=time.monotonic):
        self.user, self.teacher = user, teacher
        self.journal = journal
        self.rounds, self.minutes = rounds, minutes
        self.stop, self.clock = stop or threading.Event(), clock
        self.lock = threading.Lock()
        # dialogues in a row, without an answer in between, that failed or were refused
        self.unanswered = 0

    def run(self, openings, in_flight, progress=None):
        """Hold the dialogues of these openings that are not over yet, in_flight at a time."""
        self.todo = iter([o for o in openings if not self.journal.is_over(o.name)])
        self.progress = progress or Progress("", 0, every=math.inf)
        with ThreadPoolExecutor(in_flight) as pool:
            workers = [pool.submit(self.worker_loop) for _ in range(in_flight)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            except KeyboardInterrupt:
                print("stopping as soon as the answers under way have arrived", flush=True)
                raise
            finally:
                # after an error no worker asks for another answer
                self.stop.set()

    def worker_loop(self):
        """Hold one dialogue after another until none is left; runs in each worker's thread."""
        try:
            while not self.stop.is_set():
                with self.lock:
                    opening = next(self.todo, None)
                if opening is None:
                    return
                end = self.hold_dialogue(opening)
                self.progress.count_done()
                if end == "budget":
                    # no other dialogue begins
                    self.todo = iter(())
        except RunStopped:
            pass
        except BaseException:
            self.stop.set()
            raise

    def hold_dialogue(self, opening):
        """Hold one dialogue to its end; write the end to the journal, and return it."""
        rows = self.journal.turns(opening.name)
        started = self.clock()
        ask = self.user.start_dialogue(opening.number, opening.intent, rows)
        # some users write both sides
        answer = getattr(ask, "answer", self.teacher)

        reason = {}

        def speaker(role, speak):
            # first what the journal holds, then what the opening gives, then what is new
            new = replay_then(opening.turns, speak)
            return replay_then(rows, self.journalled(opening.name, started, role, new, reason))
        try:
            _, end = converse(speaker("human", ask), speaker("gpt", answer), self.rounds)
        except RetriesExhausted as error:
            end = "error"
            reason["why"] = str(error)
        finally:
            ask.close()
        self.journal.write({"id": opening.name, "end": end, **reason})
        # a dialogue that has filled the teacher's context is no bad sign
        rounds = len(self.journal.turns(opening.name)) // 2
        if reason and not (end == "context_full" and rounds):
            self.unanswered += 1
            if self.unanswered >= GIVE_UP_AFTER:
                raise UserError(f"{GIVE_UP_AFTER} dialogues in a row got no answer; what was said "
                                f"is kept, start again to go on: {reason['why']}")
        return end

    def journalled(self, name, started, role, speak, reason):
        """
        Wrap speak(turns): each text is in the journal before it is returned.

        The wrapped function raises RunStopped after self.stop, RetriesExhausted after so many
        minutes, and DialogueEnd("error") for an empty answer. A server's words of refusal become
        reason["why"].
        """
        queued = 0

        def speak_and_write(turns):
            nonlocal queued
            if self.stop.is_set():
                raise RunStopped
            # the time in our own queue is nobody's delay
            if self.clock() - started - queued > 60 * self.minutes:
                raise RetriesExhausted(f"{name} takes longer than {self.minutes} minutes")
            try:
                text = speak(turns)
            except Refused as refusal:
                reason["why"] = refusal.why
                raise
            if text is None or not text.strip():
                if role == "gpt":
                    raise DialogueEnd("error")
                return None
            # of a server's reply: its model, usage, cost
            meta = getattr(text, "meta", {})
            row = {"id": name, "turn": len(turns), "from": role, "value": text, **meta}
            self.journal.write(row, paid=meta.get("cost", 0) > 0)
            queued += meta.get("queued", 0)
            if meta:
                self.unanswered = 0
            if role == "gpt":
                self.progress.count_turn()
            return text
        return speak_and_write


# ------------------------------------------------------------------------------------------------
# the client: one address that speaks the OpenAI protocol, in plain requests

# most tries at one request, and most that were paid for and gave nothing
TRIES, WASTED = 10, 3


class Client:
    """
    A client of one address: requests are paced, paid for, and retried after transient errors.

    price: dollars per million tokens (read, written); timeout: seconds to connect, and between two
    bytes; patience: seconds for one text, all tries together; limit_key: the server's name for the
    longest answer; answered: whether it has answered in an earlier run.
    """

    def __init__(self, url, key=None, price=(0, 0), limiter=None, ledger=None,
                 limit_key="max_tokens", timeout=(5, 120), patience=600, answered=False,
                 clock=time.monotonic, sleep=time.sleep):
        self.url = url.rstrip("/")
        self.session = open_session(url, key)
        self.price, self.limit_key = price, limit_key
        self.limiter, self.ledger = limiter or Limiter(), ledger or Ledger()
        self.timeout, self.patience = timeout, patience
        self.clock, self.sleep = clock, sleep
        self.errors = ErrorReplies(self.url, key, patience, self.ledger.notices, answered)
        # tries of this run that were paid for and gave nothing; None after the first answer
        self.wasted = 0

    def close(self):
        """Close all connections."""
        self.session.close()

    def chat(self, model, messages, max_tokens, parse=chat_text, **options):
        """
        Get the answer to [{"role", "content"}, ...] as a Reply; options are keys of the request,
        left out where their value is None.

        A transient error is retried, and in the end a RetriesExhausted. Any other is a UserError
        (for the run) or a DialogueEnd (for this dialogue).
        """
        body = {"model": model, "messages": messages, self.limit_key: max_tokens}
        body |= {key: value for key, value in options.items() if value is not None}
        worst_tokens = worst_case([message["content"] for message in messages], max_tokens)
        return self.post("/chat/completions", body, worst_tokens, parse)

    def post(self, path, body, worst_tokens, parse):
        """
        Send a request until parse(JSON of the reply) -> (text, {"finish", ...}) accepts what comes
        back; return that text as a Reply.

        worst_tokens: the most tokens (read, written) that one try should cost. A try that came too
        fast (RateLimited) is none, as long as others are served.
        """
        started = self.clock()
        queued = attempts = failures = wasted = 0
        while True:
            began = self.clock()
            # about four bytes make a token
            with self.limiter.slot(worst_tokens[0] // 4 + worst_tokens[1]):
                call = self.ledger.reserve(self.price, worst_tokens, body["model"])
                # patience is for the server: time in our own queue does not count
                queued += self.clock() - began
                sent = self.limiter.clock()
                attempts += 1
                try:
                    reply = self.try_once(call, path, body, worst_tokens, parse)
                    self.limiter.served(sent)
                    reply.meta.update(attempts=attempts, queued=round(queued, 3),
                                      seconds=round(self.clock() - started - queued, 3))
                    return reply
                except RateLimited as error:
                    self.limiter.refused(sent, error.wait)
                    self.note_rate_limit(error)
                    continue
                except RetryableError as error:
                    failures += 1
                    wasted += error.wasted
                    failure = error
            # all workers honour a wait that the server asks for
            self.limiter.pause(failure.wait or 0)
            elapsed = self.clock() - started - queued
            self.sleep(self.wait_after(failure, failures, wasted, elapsed))

    # exercise 22: waiting before the next try
    def wait_after(self, failure, failures, wasted, elapsed):
        """
        Return for how many seconds to wait before the next try; RetriesExhausted if there is none.

        failure: the last RetryableError; failures: how many tries have failed, wasted: how many of
        them were paid for; elapsed: seconds since the first.

        A wait that the server asks for is kept to: failure.wait, or None or 0 if it asks for none.
        Any other is random, each length from 0 to a bound equally likely, so that not all come back
        at once (full jitter). The bound is 0.5 s after the first failure, doubles with each further
        one, and is 60 s at most.

        No try follows after TRIES failures, nor after WASTED wasted ones, nor if it would begin
        later than self.patience seconds after the first. The error's text names self.url, the
        failures, elapsed and a wait that was asked for, and holds the words of the last failure.
        """
        wait = failure.wait or random.uniform(0, min(60, 2 ** (failures - 2)))
        if failures == TRIES or wasted == WASTED or elapsed + wait > self.patience:
            more = f"; it asks to wait {failure.wait:.0f} s more" if failure.wait else ""
            raise RetriesExhausted(f"no answer from {self.url} after {failures} tries in "
                                   f"{elapsed:.0f} s{more}: {failure}")
        return wait

    def note_rate_limit(self, error):
        """Say once that requests come too fast; RetriesExhausted if nobody is served any more."""
        flag = "--requests-per-minute keeps to a limit that you know"
        seconds = self.limiter.seconds_without_answer()
        if seconds > self.patience:
            raise RetriesExhausted(f"{self.url} has served nobody for {seconds:,.0f} s, however "
                                   f"slowly it was asked ({flag}): {error}")
        self.ledger.notices.say(f"rate {self.url}", f"{self.url} takes no more requests for now; "
                                f"they go slower ({flag}): {error}")

    def try_once(self, call, path, body, worst_tokens, parse):
        """
        Send a request once, and settle what was reserved for the call. Returns a Reply with
        {"parameters", "model", "finish", "usage", "cost", "request"}.
        """
        # a reply that was made and then lost has to be paid for
        cost, usage = self.ledger.reserved(call), None
        sending = self.errors.as_taken(body)
        try:
            status, headers, data = post(self.session, join_path(self.url, path), sending,
                                         self.timeout, self.clock() + self.patience, self.clock)
            payload = parse_json(data)
            usage = token_usage(payload, worst_tokens)
            error = error_inside(payload) if status == 200 else payload
            failed = status != 200 or error is not None
            if usage:
                cost = cost_of_report(self.price, usage, payload)
            elif failed and not maybe_made(status):
                cost = 0.0
        except RetryableError as error:
            if error.unsent:
                cost = 0.0
            error.wasted = cost > 0
            raise
        finally:
            self.ledger.settle(call, cost, usage)
        if failed:
            self.errors.raise_for(status, headers, error, data, sending)
        try:
            if payload is None:
                self.errors.raise_for_page(data)
            text, meta = parse(payload)
        except (RetryableError, DialogueEnd) as error:
            self.count_wasted(error, cost)
            raise
        self.errors.answered, self.wasted = True, None
        request = headers.get("x-request-id") or str(payload.get("id"))
        parameters = {key: sending[key] for key in sending if key not in ("messages", "prompt")}
        if "reasoning" in meta:
            self.ledger.notices.say("reasoning", f"{self.url} sends its reasoning in the text; it "
                                    "is taken out")
        # a lone surrogate is JSON but no text
        return Reply(text.encode(errors="replace").decode(), {
            "parameters": parameters, "model": self.errors.redact(one_line(payload.get("model"))),
            **meta, "usage": usage, "cost": cost, "request": self.errors.redact(one_line(request))})

    def count_wasted(self, error, cost):
        """Count an answer that gives nothing, if it cost something; UserError if none ever gave."""
        error.wasted = cost > 0
        if not cost or self.wasted is None:
            return
        self.wasted += 1
        if self.wasted == WASTED:
            reason = END_REASONS.get(str(error), error)
            raise UserError(f"{self.url} was paid for {WASTED} answers, and none holds a text: "
                            f"{reason} (a model that reasons may need more --max-tokens, a slow "
                            "one more --timeout)") from None


class Teacher:
    """The assistant behind an address, as `converse` wants it: answer(turns) -> text."""

    def __init__(self, client, model, system=None, max_tokens=512):
        self.client, self.model, self.max_tokens = client, model, max_tokens
        self.system = [{"role": "system", "content": system}] if system else []

    def __call__(self, turns):
        """Return the answer to the last turn as a Reply."""
        return self.client.chat(self.model, self.system + to_messages(turns), self.max_tokens)


def client_factory(settings, home, journal, stop, priced=False):
    """
    Return client_for(endpoint) -> Client, for any number of addresses, and the Ledger they share.

    settings: ClientSettings; home: the URL that gets OPENAI_API_KEY and the pace of the settings;
    journal: where calls are remembered; stop: an event after which nothing sleeps or pays; priced:
    whether the caller named a price.
    """
    if settings.max_dollars is not None and not priced and is_loopback(home):
        raise UserError("an address of this machine costs nothing, and --max-dollars would never "
                        "hold; if it forwards to a paid server, say --price READ WRITTEN")

    def sleep(seconds):
        if stop.wait(seconds):
            raise RunStopped

    def note(row):
        # a power cut must not forget what was reserved
        journal.write(row, paid="reserved" in row)

    ledger = Ledger(settings.max_dollars, note, journal.calls, stop)
    pace = Limiter(settings.requests_per_minute, settings.tokens_per_minute, sleep=sleep)

    def client_for(endpoint):
        at_home = endpoint.url == home
        key = os.environ.get("OPENAI_API_KEY" if at_home else "USER_API_KEY")
        limiter = pace if at_home else Limiter(sleep=sleep)
        return Client(endpoint.url, key, price_of(*endpoint), limiter, ledger, settings.limit_key,
                      (5, settings.timeout), settings.patience, journal.answered, sleep=sleep)
    return client_for, ledger


# ------------------------------------------------------------------------------------------------
# the command

OPENAI = "https://api.openai.com/v1"


def arguments(words=None):
    """Parse the command line, or a list of words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument_group("the two sides").add_argument
    add("--user", required=True, help="a checkpoint directory; the address of a server of "
        "completions; prompt:FILE or whole:FILE, a chat model that is told to be the user turn by "
        "turn, or to write whole dialogues; script:follow-up, a rule")
    add("--teacher", type=url, default=os.environ.get("OPENAI_BASE_URL", OPENAI), metavar="URL",
        help="OpenAI-compatible address (%(default)s); its key is read from OPENAI_API_KEY")
    add("--model", default="gpt-3.5-turbo", help="the teacher's name there")
    add("--system", metavar="FILE", help="a system message for the teacher")
    add("--max-tokens", type=positive_int, default=512, help="longest answer (%(default)s)")
    add = parser.add_argument_group("the dialogues").add_argument
    add("--out", required=True, help="JSONL file of dialogues to write; OUT.journal is beside it")
    add("--dialogues", type=positive_int, help="how many (default: 1000 "
        "or, with --seeds, all that they give, which is also the most)")
    add("--rounds", type=positive_int, default=12, help="most questions in one (%(default)s)")
    add("--seeds", metavar="FILE", help="dialogues or questions that give the beginning")
    add("--seed-rounds", type=natural_int, default=0,
        help="whole rounds given; 0: the first question")
    add("--times", type=positive_int, default=1, help="how often each seed is used")
    add("--intents", metavar="FILE", help="a line for each dialogue, in turn: who "
        "the user is, or what they want")
    add("--shard", type=shard, default=(1, 1), metavar="i/n", help="the i-th of n machines")
    add("--in-flight", type=positive_int, default=64, help="dialogues at a time (%(default)s)")
    add("--minutes", type=positive_int, default=60,
        help="longest time for one dialogue (%(default)s)")
    add("--dry-run", action="store_true", help="print what it would cost; send nothing")
    user_flags(parser)
    money_flags(parser)
    return parser.parse_args(words)


def make_user(user, settings, client_for, endpoint, slots, tokenizer=None, seeded=False):
    """
    Make the user that the word of --user names: start_dialogue(number, intent, rows) -> ask.

    settings: UserSettings; client_for(endpoint) gives a Client; endpoint: of a prompted user, or
    of one behind an address; slots: most dialogues at a time; tokenizer: the directory of
    --tokenizer; seeded: whether the first questions are given.
    """
    if Path(user).is_dir():
        if settings.temperature is None:
            raise UserError("--temperature none is for chat models: a checkpoint needs a number")
        from data.machine import load_checkpoint
        model, own_tokenizer = load_checkpoint(user)
        try:
            return Socratic(model, own_tokenizer, slots, settings)
        except RuntimeError as error:
            raise UserError(f"no memory for {slots} dialogues at a time: fewer --in-flight "
                            f"({one_line(error)})") from None
    other = make_other_user(user, settings, client_for, endpoint, tokenizer, seeded)
    if hasattr(other, "client"):
        check_server(other.client, "user" if user.startswith("http") else "teacher")
    return other


def dry_run(user, teacher, endpoint, dialogues, limits, system, means=None):
    """
    Print what so many dialogues would ask for and cost; nothing is sent.

    teacher, endpoint: the Endpoints of the teacher and of a prompted user; limits: most rounds,
    tokens of a question, tokens of an answer; means: the same of the dialogues so far, if any.
    """
    kind, _, file = user.partition(":")
    # about four bytes make a token
    sides = []
    if kind != "whole":
        count = partial(teacher_tokens, system=len(system.encode()) // 4)
        sides.append((price_of(*teacher), count))
    if kind in ("prompt", "whole"):
        count = user_tokens if kind == "prompt" else transcript_tokens
        count = partial(count, instruction=os.path.getsize(file) // 4)
        sides.append((price_of(*endpoint), count))
    print("\n".join(forecast(dialogues, limits, sides, means)))


def write_dialogues(out, journal, planned, ledger):
    """
    Write the journal's dialogues as one file; print how many there are, and how they ended.

    Returns how many got no answer, and how many are not at their end for want of money.
    """
    grown, dropped = finished_openings(journal, planned)
    ends = Counter(journal.ends[opening.name] for opening in grown + dropped)
    write_jsonl(out, journal_records(journal, planned))
    print(f"{out}: {len(grown):,} dialogues; {len(dropped)} in which nothing new was said were "
          f"dropped{ledger.summary()}")
    shares = [f"{end} {count / ends.total():.1%} ({END_REASONS[end]})"
              for end, count in ends.most_common()]
    print("why they ended: " + ", ".join(shares), flush=True)
    if reasoned := ledger.notices.counts["reasoning"]:
        print(f"reasoning was taken out of {reasoned:,} answers")
    return ends["error"], len(planned) - ends.total() + ends["budget"]


def raise_if_unfinished(failed, unpaid):
    """Raise UserError for dialogues that got no answer, or that the money did not reach."""
    if unpaid:
        raise UserError(f"the money was spent before {unpaid} dialogues were at their end; the "
                        "same command with more --max-dollars goes on with them")
    if failed:
        raise UserError(f"{failed} dialogues got no answer; the same command tries them again")


def simulate(args, planned, system, teacher, endpoint, journal):
    """Hold the planned dialogues, and write them to args.out; see dry_run for the Endpoints."""
    stop = threading.Event()
    priced = bool(args.price or args.user_price)
    client_for, ledger = client_factory(client_settings(args), teacher.url, journal, stop, priced)
    client = client_for(teacher)
    check_server(client, "teacher")
    user = make_user(args.user, user_settings(args), client_for, endpoint, args.in_flight,
                     args.tokenizer, bool(args.seeds))
    if isinstance(user, Socratic) and user.tokenizer.speaker != "human":
        print(f"note: {args.user} was not trained on what humans say (--learn human)", flush=True)
    missing = sum(not journal.is_over(opening.name) for opening in planned)
    if missing < len(planned):
        print(f"going on: {len(planned) - missing:,} of {len(planned):,} dialogues are there")
    answer = Teacher(client, teacher.model, system, args.max_tokens)
    simulation = Simulation(user, answer, journal, args.rounds, args.minutes, stop)
    try:
        simulation.run(planned, args.in_flight, Progress(Path(args.out).stem, missing, ledger))
    except BaseException:
        # what is whole is written also when the run stops
        if journal.ends:
            write_dialogues(args.out, journal, planned, ledger)
        raise
    raise_if_unfinished(*write_dialogues(args.out, journal, planned, ledger))


def main():
    args = arguments()
    system = read_text(args.system) if args.system else ""
    planned = list(openings(args.dialogues, args.seeds, args.seed_rounds, args.times, args.intents,
                            args.shard))
    teacher = Endpoint(args.teacher, args.model, args.price)
    endpoint = user_endpoint(args.user, teacher, args.user_model, args.user_price)
    journal_path = Path(f"{args.out}.journal")
    require_apart([args.out, journal_path],
                  [args.user, args.system, args.seeds, args.intents, args.tokenizer])
    if args.dry_run:
        means = None
        # of a run that has begun, only the rest
        if journal_path.exists():
            with closing(Journal(journal_path, simulation_settings(vars(args)))) as journal:
                means = mean_sizes(journal)
                planned = [opening for opening in planned if not journal.is_over(opening.name)]
        limits = (args.rounds, args.max_question, args.max_tokens)
        return dry_run(args.user, teacher, endpoint, len(planned), limits, system, means)
    with closing(Journal(journal_path, simulation_settings(vars(args)))) as journal:
        simulate(args, planned, system, teacher, endpoint, journal)


if __name__ == "__main__":
    run(main)
