"""
Let Socratic talk to a teacher, and write down what they say: SocraticChat.

    python simulate.py --user socratic --teacher https://api.openai.com/v1 --model gpt-3.5-turbo \\
                       --out chat.jsonl --dialogues 1000 --max-dollars 20

`converse` is the whole idea. Below it: the raw client for any OpenAI-compatible server, Socratic
as a user, and many dialogues at once. Not here: other users (data/users.py), what is remembered
and what may be spent (data/api/journal.py, data/api/budget.py), how he was trained (train.py).
Read before: platolm.py, model.py. Read next: evaluate.py.
"""

import argparse
import json
import math
import os
import queue
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
# what requests is made of
from urllib3.exceptions import HTTPError, NewConnectionError

from data.api.budget import (Endpoint, Ledger, Limiter, RunStopped, teacher_tokens, user_tokens,
                             cost_in_dollars, forecast, is_loopback, price_of, worst_case,
                             transcript_tokens)
from data.api.journal import Journal, finished_openings, mean_sizes, journal_records
from data.api.protocol import (BILLING, FILTERED, TOO_LONG, Reply, RetryableError, RetriesExhausted,
                               retry_after, error_codes, is_transient, one_line, chat_text,
                               token_usage)
from data.machine import load_checkpoint
from data.openings import openings, simulation_settings
from data.program import (UserError, Progress, url, nonnegative, format_dollars, natural_int,
                          fraction, positive_int, read_text, run, shard, write_jsonl)
from data.users import UserSettings, make_other_user, user_endpoint
from model import Engine
from platolm import END_REASONS, LABEL, DialogueEnd, blanked, prompt, to_messages


def converse(ask, answer, rounds):
    """
    A user asks and an assistant answers. Returns the turns, and why there are no more.

    ask(turns) gives the next question, or None to leave; answer(turns) the reply to the last one.
    Both may be anything: a model, a server, a script.
    """
    turns = []
    try:
        for _ in range(rounds):
            question = ask(turns)
            if question is None:
                return turns, "left"
            if end := reason_to_stop(question, turns):
                return turns, end
            asked = turns + [{"from": "human", "value": question}]
            # a question without its answer is never kept
            turns = asked + [{"from": "gpt", "value": answer(asked)}]
    except DialogueEnd as end:
        return turns, str(end)
    return turns, "turn_limit"


THANKS = {"thanks", "thank", "cheers", "bye", "goodbye", "welcome"}
COURTESY = THANKS | set("you so very much again good great ok okay a lot for your the help and "
                        "have nice day you're too".split())


def is_courtesy(text):
    """Whether it says nothing but thanks or good-bye."""
    words = set(re.findall(r"[a-z']+", text.lower()))
    return bool(words & THANKS) and words <= COURTESY


def reason_to_stop(question, turns):
    """Why a question must not be said, as one of platolm.ENDS; None if nothing is amiss."""
    if not question.strip():
        return "left"
    if any(mark in question for mark in ("</s>", *(label.strip() for label in LABEL.values()))):
        return "role_leak"
    earlier = [turn["value"] for turn in turns[::2]]
    # two models can thank each other for ever
    thanking = earlier and is_courtesy(earlier[-1]) and is_courtesy(question)
    return "repeats" if question in earlier or thanking else None


# ------------------------------------------------------------------------------------------------
# the client: one address that speaks the OpenAI protocol, in plain requests

TRIES = 10


def open_session(url, key=None):
    """A session that keeps its connections; the key goes into its header, and nowhere else."""
    local = is_loopback(url)
    if "@" in urlsplit(url).netloc:
        raise UserError("a key or password has no place in an address: put it in OPENAI_API_KEY")
    if not (key or "").isascii() or len((key or "").split()) > 1:
        raise UserError("OPENAI_API_KEY is no key: it holds spaces, or letters that no header can")
    session = requests.Session()
    # proxies of the environment have no business between us and this machine, and what netrc
    # says of a host would take our key's place
    session.trust_env, session.auth = not local, lambda request: request
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=1024))
    if key:
        session.headers["Authorization"] = f"Bearer {key.strip()}"
    try:
        session.prepare_request(requests.Request("POST", url))
    except requests.RequestException as error:
        # its name alone: its text may quote a header
        raise UserError(f"{url} cannot be asked ({type(error).__name__})") from None
    return session


class Client:
    """
    One address: what is sent there is paced, paid for, and tried again where time heals.

    price: dollars for a million tokens (read, written). timeout: seconds to connect, and between
    two bytes; patience: seconds for one text, all tries together.
    """

    def __init__(self, url, key=None, price=(0, 0), limiter=None, ledger=None,
                 limit_key="max_tokens", timeout=(5, 120), patience=600,
                 clock=time.monotonic, sleep=time.sleep):
        self.url, self.key, self.session = url.rstrip("/"), (key or "").strip(), open_session(url, key)
        self.price, self.limit_key = price, limit_key
        self.limiter, self.ledger = limiter or Limiter(), ledger or Ledger()
        self.timeout, self.patience, self.clock, self.sleep = timeout, patience, clock, sleep

    def redact(self, text):
        """A text from outside without our key."""
        return text.replace(self.key, "(key)") if self.key else text

    def parse_reply(self, data):
        """The bytes of a reply as (text, JSON or None), our key in neither, however it is spelt."""
        try:
            # written anew, it has no escapes under which a key could hide
            text = self.redact(json.dumps(json.loads(data), ensure_ascii=False))
            return text, json.loads(text)
        except (ValueError, RecursionError):
            # anything, a piece of our key among it: nobody quotes that
            return f"({len(data)} bytes that are no JSON)", None

    def close(self):
        """Let all connections go."""
        self.session.close()

    def chat(self, model, messages, max_tokens, **options):
        """
        The reply to [{"role", "content"}, ...] as a Said; options are keys of the request.

        What time heals is tried again; all else is a Problem, or the End of the dialogue.
        """
        body = {"model": model, "messages": messages, self.limit_key: max_tokens, **options}
        worst = worst_case([message["content"] for message in messages], max_tokens)
        return self.post("/chat/completions", body, worst, chat_text)

    def post(self, path, body, worst, understand):
        """
        Send until understand(page) -> (text, finish_reason) is content: that text, as a Said.

        worst: the tokens (read, written) that a try may cost at most.
        """
        how = {"parameters": {key: body[key] for key in body if key not in ("messages", "prompt")}}
        began = self.clock()
        for attempt in range(1, TRIES + 1):
            queued = self.clock()
            # about four bytes make a token
            self.limiter.wait(worst[0] // 4 + worst[1])
            # patience is for the server; our own queue does not wear it out
            began += self.clock() - queued
            try:
                text, found = self.try_once(path, body, worst, understand, began + self.patience)
                return Reply(text, how | found | {"attempts": attempt, "seconds":
                                                 round(self.clock() - began, 3)})
            except RetryableError as trouble:
                words, asked = str(trouble), trouble.wait
            # full jitter: anything between at once and twice as long as the last time
            wait = asked or random.uniform(0, min(60, 2 ** (attempt - 2)))
            if asked:
                self.limiter.pause(asked)
            if self.clock() + wait > began + self.patience:
                break
            if attempt < TRIES:
                self.sleep(wait)
        raise RetriesExhausted(f"no answer from {self.url} after {attempt} tries in "
                         f"{self.clock() - began:.0f} s" + (f"; it asks to wait {asked:.0f} s more"
                         if asked else "") + f": {words}")

    def try_once(self, path, body, worst, understand, until):
        """One try: (text, {"model", "finish", "usage", "cost", "request"})."""
        most = cost_in_dollars(self.price, *worst)
        call = self.ledger.reserve(most)
        # an answer that was served and lost has to be paid for
        cost = most
        try:
            status, headers, data = self.send(path, body, until)
            text, page = self.parse_reply(data)
            if status != 200:
                # behind a gateway that gave up, an answer may have been made
                gateway = status == 408 or status >= 500 and status not in (500, 503)
                cost = most if gateway else 0.0
                self.raise_for_reply(status, headers, text, page)
            if page is None:
                raise RetryableError(f"it does not speak the OpenAI protocol: {text}")
            usage = token_usage(page, worst)
            cost = cost_in_dollars(self.price, *usage) if usage else most
            text, finish = understand(page)
            # a lone surrogate is JSON but no text
            return text.encode(errors="replace").decode(), {
                "model": one_line(page.get("model")), "finish": finish, "usage": usage, "cost": cost,
                "request": one_line(self.redact(headers.get("x-request-id") or str(page.get("id"))))}
        except RetryableError as trouble:
            cost = 0.0 if trouble.unsent else cost
            raise
        finally:
            self.ledger.settle(call, cost)

    def send(self, path, body, until):
        """One request: (status, headers, the bytes of the reply), all of them, or a Trouble."""
        data = b""
        try:
            with self.session.post(self.url + path, json=body, timeout=self.timeout, stream=True,
                                   allow_redirects=False) as reply:
                # piece by piece, as they come: a server may drip for ever
                while piece := reply.raw.read1(1 << 16, decode_content=True):
                    data += piece
                    if self.clock() > until:
                        raise RetryableError("the answer takes too long")
                return reply.status_code, reply.headers, data
        except (requests.RequestException, HTTPError) as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            unsent = isinstance(error, requests.ConnectTimeout) or isinstance(
                reason, NewConnectionError)
            raise RetryableError(f"the connection failed ({type(error).__name__})",
                          unsent=unsent) from None

    def raise_for_reply(self, status, headers, text, page):
        """What a reply that is no success means: a Trouble, the End of a dialogue, or a Problem."""
        codes, words = error_codes(page), f"HTTP {status}: {one_line(text)}"
        if codes & TOO_LONG:
            raise DialogueEnd("context_full")
        if codes & FILTERED:
            raise DialogueEnd("content_filter")
        if codes & BILLING or status == 402:
            raise UserError(f"no money left at {self.url}; what was said is kept, start again when "
                          f"there is: {words}")
        if not is_transient(status):
            hint = " (does the address end in /v1?)" if status == 404 else ""
            raise UserError(f"{self.url} refuses: {words}{hint}")
        wait = retry_after(headers)
        if wait and not wait <= self.patience:
            raise UserError(f"{self.url} asks to wait {wait:,.0f} s; start again then, what was said "
                          f"is kept: {words}")
        raise RetryableError(words, wait)


class Teacher:
    """The assistant behind an address, as converse wants it: answer(turns) -> text."""

    def __init__(self, client, model, system=None, max_tokens=512):
        self.client, self.model, self.max_tokens = client, model, max_tokens
        self.system = [{"role": "system", "content": system}] if system else []

    def __call__(self, turns):
        return self.client.chat(self.model, self.system + to_messages(turns), self.max_tokens)


# ------------------------------------------------------------------------------------------------
# the user: Socratic, who asks in many dialogues at once


class Socratic:
    """
    A trained user. Dialogues wait in threads of their own; one thread owns the model and writes
    for all of them together, so that a batch is always as full as it can be.

    slots: dialogues at a time; settings: UserSettings.
    """

    def __init__(self, model, tokenizer, slots, settings=UserSettings()):
        self.engine = Engine(model, slots, temperature=settings.temperature,
                             top_k=settings.top_k, top_p=settings.top_p)
        self.tokenizer, self.settings = tokenizer, settings
        self.inbox, self.waiting = queue.Queue(), {}
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        """The thread that owns the engine: do what is asked, write a token for all, repeat."""
        try:
            while True:
                # block while idle; with texts to write, take only what is there already
                while not self.waiting or not self.inbox.empty():
                    function, args, future = self.inbox.get()
                    if function is None:
                        return
                    row = function(*args)
                    if row and row.busy:
                        self.waiting[row] = future
                    else:
                        future.set_result(row)
                for row in self.engine.step():
                    self.waiting.pop(row).set_result(row)
        except Exception as error:
            # whoever waits, now or later, learns of it instead of waiting for ever
            for waiting in {future, *self.waiting.values()}:
                if not waiting.done():
                    waiting.set_exception(error)
            while True:
                self.inbox.get()[-1].set_exception(error)

    def request(self, function, *args):
        """Let the engine's thread call function(*args), and wait until the row is written."""
        future = Future()
        self.inbox.put((function, args, future))
        return future.result()

    def close(self):
        """End the thread."""
        self.inbox.put((None, None, None))

    def start_dialogue(self, number, intent="", held=()):
        """ask(turns) for dialogue `number`, with a memory of its own; leave() gives it back."""
        return Asker(self, number, intent, self.request(self.engine.add_row))


class Asker:
    """Socratic in one dialogue."""

    def __init__(self, socratic, number, intent, row):
        self.socratic, self.number, self.intent, self.row = socratic, number, intent, row

    def __call__(self, turns):
        """The next question; None to leave, which he does by saying nothing."""
        socratic, settings = self.socratic, self.socratic.settings
        # one stream of random numbers per turn: who else is in the batch changes none of them
        draw = np.random.default_rng([settings.seed, self.number, len(turns)]).random
        history = blanked(turns) if settings.blind else turns
        ids = prompt(history, socratic.tokenizer, "human", self.intent)
        if len(ids) >= settings.context:
            raise DialogueEnd("context_full")
        eos_bias = math.log(settings.leave) if settings.leave else -math.inf
        row = socratic.request(socratic.engine.start, self.row, ids, [socratic.tokenizer.eos],
                               settings.max_question, draw, eos_bias)
        if row.finish_reason != "stop":
            raise DialogueEnd({"length": "token_limit", "context": "context_full"}[row.finish_reason])
        text = socratic.tokenizer.decode(row.output)
        return text if text.strip() else None

    def close(self):
        """The dialogue is over: somebody else may have its slot."""
        self.socratic.request(self.socratic.engine.remove_row, self.row)


# ------------------------------------------------------------------------------------------------
# many dialogues


def replay_then(given, speak):
    """A speaker who says what is `given`, as turns, while it lasts, and then speaks freely."""
    return lambda turns: given[len(turns)]["value"] if len(turns) < len(given) else speak(turns)


class Simulation:
    """
    Many dialogues at once. Each runs in a thread, says nothing before it stands in the journal,
    and takes up what stands there already.

    minutes: how long a dialogue may take; stop: an event that ends the run.
    """
    # so many dialogues in a row without an answer, and nobody is there any more
    HOPELESS = 5

    def __init__(self, user, teacher, journal, rounds, minutes=60, stop=None, clock=time.monotonic):
        self.user, self.teacher, self.journal, self.rounds = user, teacher, journal, rounds
        self.minutes, self.stop, self.clock = minutes, stop or threading.Event(), clock
        self.lock, self.unanswered = threading.Lock(), 0

    def run(self, openings, in_flight, progress=None):
        """Run these dialogues, but for those that are over, `in_flight` at a time."""
        self.todo = iter([o for o in openings if not self.journal.is_over(o.name)])
        self.progress = progress or Progress("", 0, every=math.inf)
        with ThreadPoolExecutor(in_flight) as pool:
            workers = [pool.submit(self.work) for _ in range(in_flight)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            except KeyboardInterrupt:
                print("stopping as soon as the answers under way are home", flush=True)
                raise
            finally:
                # after trouble nobody asks for another answer
                self.stop.set()

    def work(self):
        """One thread: a dialogue, and the next, until there are no more."""
        try:
            while not self.stop.is_set():
                with self.lock:
                    opening = next(self.todo, None)
                if opening is None:
                    return
                end = self.dialogue(opening)
                self.progress.count_done()
                if end == "budget":
                    # nobody else begins
                    self.todo = iter(())
        except RunStopped:
            pass
        except BaseException:
            self.stop.set()
            raise

    def dialogue(self, opening):
        """One dialogue from hello to end, and its end into the journal."""
        held, began, why = self.journal.turns(opening.name), self.clock(), {}
        ask = self.user.start_dialogue(opening.number, opening.intent, held)

        def voice(who, speak):
            # what is on disk is said again, then what is given, and then what is new
            new = self.journalled(opening.name, began, who, replay_then(opening.turns, speak))
            return replay_then(held, new)
        try:
            # some users write both sides
            turns, end = converse(voice("human", ask),
                                  voice("gpt", getattr(ask, "answer", self.teacher)), self.rounds)
        except RetriesExhausted as problem:
            end, why = "error", {"why": str(problem)}
            self.unanswered += 1
            if self.unanswered >= self.HOPELESS:
                raise UserError(f"{self.HOPELESS} dialogues in a row got no answer; what was said is "
                              f"kept, start again to go on: {problem}") from None
        finally:
            ask.close()
        self.journal.write({"id": opening.name, "end": end, **why})
        return end

    def journalled(self, name, began, who, speak):
        """speak, its texts written into the journal before anybody hears them."""
        def speaks(turns):
            if self.stop.is_set():
                raise RunStopped
            if self.clock() - began > 60 * self.minutes:
                raise RetriesExhausted(f"{name} takes longer than {self.minutes} minutes")
            text = speak(turns)
            if text is None or not text.strip():
                if who == "gpt":
                    raise DialogueEnd("error")
                return None
            how = getattr(text, "meta", {})
            self.journal.write({"id": name, "turn": len(turns), "from": who, "value": text, **how},
                               paid=how.get("cost", 0) > 0)
            if how:
                self.unanswered = 0
            if who == "gpt":
                self.progress.count_turn()
            return text
        return speaks


# ------------------------------------------------------------------------------------------------
# the command

OPENAI = "https://api.openai.com/v1"


def user_flags(parser):
    """What tells who asks, and how; for other commands, too."""
    add = parser.add_argument_group("how a user writes").add_argument
    add("--temperature", type=nonnegative, default=0.7, help="(%(default)s, as in the paper)")
    add("--top-k", type=natural_int, default=0, help="0 for all")
    add("--top-p", type=fraction, default=1.0)
    add("--max-question", type=positive_int, default=64, help="longest, in tokens (64; the paper: 512)")
    add("--context", type=positive_int, default=2048, help="most tokens in a dialogue (%(default)s; "
        "and what the user's model can hold)")
    add("--leave", type=nonnegative, default=1.0, help="multiplies the odds of leaving at each turn")
    add("--blind", action="store_true", help="the user was trained with --blind")
    add("--seed", type=natural_int, default=0)
    add = parser.add_argument_group("a user behind an address, or told by a prompt").add_argument
    add("--user-model", help="its name there (default: user, or the teacher's); "
        "at another address than the teacher's its key is USER_API_KEY")
    add("--user-price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"), help="as --price")
    add("--tokenizer", metavar="DIR", help="of a user behind an address: its checkpoint directory")


def money_flags(parser):
    """Pace, patience and price, wherever somebody at an address is asked."""
    add = parser.add_argument_group("pace and money").add_argument
    add("--requests-per-minute", type=positive_int, metavar="N")
    add("--tokens-per-minute", type=positive_int, metavar="N",
        help="of prompts and of answers as long as allowed")
    add("--timeout", type=positive_int, default=120, help="longest silence, in seconds (%(default)s)")
    add("--patience", type=positive_int, default=600, help="seconds for all tries at an answer (600)")
    add("--max-dollars", type=nonnegative, metavar="D", help="never spend more, restarts included")
    add("--price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"),
        help="dollars for a million tokens, where the table does not know or is out of date")
    add("--limit-key", choices=["max_tokens", "max_completion_tokens"], default="max_tokens",
        help="what the server calls the longest answer")


def arguments(words=None):
    """What the command line says, or a list of words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument_group("the two sides").add_argument
    add("--user", required=True, help="a checkpoint directory; the address of a server of "
        "completions; prompt:FILE or whole:FILE, a chat model that is told to be the user turn by "
        "turn, or to write whole dialogues; script:NAME, self-chat, role-play or oracle")
    add("--teacher", type=url, default=os.environ.get("OPENAI_BASE_URL", OPENAI), metavar="URL",
        help="OpenAI-compatible address (%(default)s); its key is read from OPENAI_API_KEY")
    add("--model", default="gpt-3.5-turbo", help="the teacher's name there")
    add("--system", metavar="FILE", help="a system message for the teacher")
    add("--max-tokens", type=positive_int, default=512, help="longest answer")
    add = parser.add_argument_group("the dialogues").add_argument
    add("--out", required=True, help="JSONL file of dialogues to write; OUT.journal is beside it")
    add("--dialogues", type=positive_int, help="how many (1000, or what seeds give; never more)")
    add("--rounds", type=positive_int, default=12, help="most questions in one (%(default)s)")
    add("--seeds", metavar="FILE", help="dialogues or questions that give the beginning")
    add("--seed-rounds", type=natural_int, default=0, help="whole rounds given; 0: the first question")
    add("--times", type=positive_int, default=1, help="how often each seed is used")
    add("--intents", metavar="FILE", help="lines that tell the user who he is or wants, in turn")
    add("--shard", type=shard, default=(1, 1), metavar="i/n", help="the i-th of n machines")
    add("--in-flight", type=positive_int, default=64, help="dialogues at a time (%(default)s)")
    add("--minutes", type=positive_int, default=60, help="longest time for one dialogue (%(default)s)")
    add("--dry-run", action="store_true", help="say what it would cost; send nothing")
    user_flags(parser)
    money_flags(parser)
    return parser.parse_args(words)


def check_server(client, who, variable="OPENAI_API_KEY"):
    """Find out before anything else whether somebody is there, and takes our key."""
    try:
        reply = client.session.get(f"{client.url}/models", timeout=(5, 30), allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(f"no {who} answers at {client.url} ({type(error).__name__}): is it running, "
                      f"and is that its address (--{who})?") from None
    if reply.status_code in (401, 403):
        raise UserError(f"{client.url} wants another key (HTTP {reply.status_code}); it is read from "
                      f"{variable}")


@dataclass(frozen=True)
class ClientSettings:
    """How servers are asked: their pace, our patience in seconds, and the cap on what is spent."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 120
    patience: float = 600
    max_dollars: float | None = None
    limit_key: str = "max_tokens"


def client_settings(args):
    """The ClientSettings of a command that has the flags of money_flags."""
    return ClientSettings(**{field.name: getattr(args, field.name)
                             for field in fields(ClientSettings)})


def user_settings(args):
    """The UserSettings of a command that has the flags of user_flags."""
    return UserSettings(**{field.name: getattr(args, field.name) for field in fields(UserSettings)})


def client_factory(settings, home, journal, stop, priced=False):
    """
    client_for(endpoint) -> Client, for any number of addresses, and the Ledger that they share.

    settings: ClientSettings; home: the URL that gets OPENAI_API_KEY and the pace of the settings;
    journal: where calls are remembered; stop: an event after which nothing sleeps or pays; priced:
    whether the caller named a price.
    """
    if settings.max_dollars is not None and not priced and is_loopback(home):
        raise UserError("an address of this machine costs nothing, and --max-dollars would never "
                      "hold; where it passes on to one that does, say --price READ WRITTEN")

    def sleep(seconds):
        if stop.wait(seconds):
            raise RunStopped

    ledger = Ledger(settings.max_dollars, lambda row: journal.write(row, paid="reserved" in row),
                    journal.calls, stop)
    pace = Limiter(settings.requests_per_minute, settings.tokens_per_minute, sleep=sleep)

    def client_for(endpoint):
        at_home = endpoint.url == home
        key = os.environ.get("OPENAI_API_KEY" if at_home else "USER_API_KEY")
        limiter = pace if at_home else Limiter(sleep=sleep)
        return Client(endpoint.url, key, price_of(*endpoint), limiter, ledger, settings.limit_key,
                      (5, settings.timeout), settings.patience, sleep=sleep)
    return client_for, ledger


def load_socratic(directory, settings, slots):
    """The trained user of a checkpoint directory; settings: UserSettings; slots: dialogues at once."""
    model, tokenizer = load_checkpoint(directory)
    try:
        return Socratic(model, tokenizer, slots, settings)
    except RuntimeError as error:
        raise UserError(f"no memory for {slots} dialogues at a time: fewer --in-flight "
                      f"({one_line(error)})") from None


def make_user(user, settings, client_for, endpoint, slots, tokenizer=None, seeded=False):
    """
    The user that the word of --user names: start_dialogue(number, intent, rows) gives its ask.

    settings: UserSettings; client_for(endpoint) gives a client; endpoint: where a prompted user or
    one behind an address is asked; slots: dialogues at a time; tokenizer: a checkpoint directory
    for a user behind an address; seeded: whether the first questions are given.
    """
    if Path(user).is_dir():
        return load_socratic(user, settings, slots)
    other = make_other_user(user, settings, client_for, endpoint, tokenizer, seeded)
    if user.startswith("http"):
        check_server(other.client, "user", "USER_API_KEY")
    return other


def write_dialogues(out, journal, planned, ledger):
    """Write the dialogues as one file, and say what they came to."""
    kept, dropped = finished_openings(journal, planned)
    write_jsonl(out, journal_records(journal, planned))
    ends = Counter(journal.ends[opening.name] for opening in kept + dropped)
    money = f"; {format_dollars(ledger.spent)} spent" if ledger.spent else ""
    print(f"{out}: {len(kept):,} dialogues; {len(dropped)} in which nothing new was said were "
          f"dropped{money}")
    print("why they ended: " + ", ".join(f"{end} {n / ends.total():.1%} ({END_REASONS[end]})"
                                         for end, n in ends.most_common()))
    if ends["error"]:
        print(f"{ends['error']} got no answer; the same command tries them again")
    if missing := len(planned) - sum(ends.values()) + ends["budget"]:
        raise UserError(f"the money was spent before {missing} dialogues were at their end; the same "
                      "command with more --max-dollars goes on with them")


def dry_run(args, planned, system):
    """Print what the run, or the rest of it, would ask for; nothing is sent."""
    (kind, _, file), path, sides, seen = args.user.partition(":"), journal_path(args), [], None
    teacher = Endpoint(args.teacher, args.model, args.price)
    if kind != "whole":
        sides = [(price_of(*teacher),
                  partial(teacher_tokens, system=len(system.encode()) // 4))]
    if kind in ("prompt", "whole"):
        endpoint = user_endpoint(args.user, teacher, args.user_model, args.user_price)
        sides.append((price_of(*endpoint), partial(
            user_tokens if kind == "prompt" else transcript_tokens, told=os.path.getsize(file) // 4)))
    if path.exists():
        journal = Journal(path, simulation_settings(args))
        seen = mean_sizes(journal)
        planned = [opening for opening in planned if not journal.is_over(opening.name)]
    limits = (args.rounds, args.max_question, args.max_tokens)
    print("\n".join(forecast(len(planned), limits, sides, seen)))


def journal_path(args):
    """Where the journal of an output lies."""
    return Path(f"{args.out}.journal")


def simulate(args, planned, system):
    """Let them talk, and write it down."""
    if Path(args.out).is_dir():
        raise UserError(f"--out {args.out} is a directory; it has to be a file")
    journal, stop = Journal(journal_path(args), simulation_settings(args)), threading.Event()
    teacher = Endpoint(args.teacher, args.model, args.price)
    client_for, ledger = client_factory(client_settings(args), args.teacher, journal, stop,
                                        bool(args.price or args.user_price))
    client = client_for(teacher)
    check_server(client, "teacher")
    user = make_user(args.user, user_settings(args), client_for,
                     user_endpoint(args.user, teacher, args.user_model, args.user_price),
                     args.in_flight, args.tokenizer, bool(args.seeds))
    if isinstance(user, Socratic) and user.tokenizer.speaker != "human":
        print(f"note: {args.user} was not trained on what humans say (--learn human)", flush=True)
    missing = sum(not journal.is_over(opening.name) for opening in planned)
    if missing < len(planned):
        print(f"going on: {len(planned) - missing:,} of {len(planned):,} dialogues are there")
    answer = Teacher(client, args.model, system, args.max_tokens)
    Simulation(user, answer, journal, args.rounds, args.minutes, stop).run(
        planned, args.in_flight, Progress(Path(args.out).stem, missing, ledger))
    write_dialogues(args.out, journal, planned, ledger)


def main():
    args = arguments()
    system = read_text(args.system) if args.system else ""
    (dry_run if args.dry_run else simulate)(args, list(openings(args)), system)


if __name__ == "__main__":
    run(main)
