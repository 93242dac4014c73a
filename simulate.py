"""
Let Socratic talk to a teacher, and write down what they say: SocraticChat.

    python simulate.py --user socratic --teacher https://api.openai.com/v1 --model gpt-3.5-turbo \\
                       --out chat.jsonl --dialogues 1000

`converse` is the whole idea. Below it: the raw client for any OpenAI-compatible server, Socratic
as a user, and many dialogues at once. Not here: how he was trained (train.py).
Read before: platolm.py, model.py. Read next: evaluate.py.
"""

import argparse
import os
import queue
import random
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
from requests.exceptions import ChunkedEncodingError

from model import Engine, Llama, machine
from platolm import (ENDS, LABEL, Problem, Tokenizer, blanked, clock, line, positive, prompt, read,
                     run, same_run, stamp, to_messages, write)


class End(Exception):
    """Raised by either side to end a dialogue; its text is one of platolm.ENDS."""


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
            if any(question == turn["value"] for turn in turns[::2]):
                return turns, "repeats"
            asked = turns + [{"from": "human", "value": question}]
            # a question without its answer is never kept
            turns = asked + [{"from": "gpt", "value": answer(asked)}]
    except End as end:
        return turns, str(end)
    return turns, "turn_limit"


# ------------------------------------------------------------------------------------------------
# the teacher: a client in plain requests


def connect(url, key=None):
    """A session that keeps its connections; the key goes into its header, and nowhere else."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        raise Problem(f"{url} is no address") from None
    if not (key or "").isascii():
        raise Problem("OPENAI_API_KEY is no key: it holds letters that no header can")
    session = requests.Session()
    # proxies and netrc of the environment have no business between us and this machine
    session.trust_env = host not in ("127.0.0.1", "localhost", "::1")
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=1024))
    if key:
        session.headers["Authorization"] = f"Bearer {key.strip()}"
    return session


def heals(status):
    """Whether time may heal it: time-outs, conflicts, rate limits, and trouble at the server."""
    return status in (408, 409, 429) or status >= 500


def hide(text, session):
    """A text from outside on one line, no longer than needed, and without our key."""
    key = session.headers.get("Authorization", "").removeprefix("Bearer ")
    text = " ".join(str(text).split())
    return (text.replace(key, "(key)") if key else text)[:300]


def chat(session, url, model, messages, tries=6, timeout=(5, 120), sleep=time.sleep, **options):
    """
    One reply of an OpenAI-compatible server: (text, finish_reason).

    messages [{"role", "content"}]; options are keys of the request, like temperature. What time
    heals is tried again, later and later (after 1/2 to 16 s, at random); all else is a Problem.
    """
    body = {"model": model, "messages": messages, **options}
    for attempt in range(tries):
        wait = random.uniform(0.5, 1) * 2 ** attempt
        try:
            reply = session.post(f"{url}/chat/completions", json=body, timeout=timeout)
        except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
            trouble = f"no answer ({type(error).__name__})"
        except requests.RequestException as error:
            # its name alone: its text may quote a header
            raise Problem(f"{url} cannot be asked ({type(error).__name__})") from None
        else:
            if reply.ok:
                return content(reply, session)
            trouble = f"HTTP {reply.status_code}: {hide(reply.text, session)}"
            if not heals(reply.status_code) or "insufficient_quota" in trouble:
                break
            if reply.headers.get("Retry-After", "").isdigit():
                wait = int(reply.headers["Retry-After"])
        if attempt + 1 < tries:
            sleep(wait)
    raise Problem(f"no reply from {url}, try {attempt + 1} of {tries}: {trouble}")


def content(reply, session):
    """Text and finish_reason of a successful reply."""
    try:
        choice = reply.json()["choices"][0]
        text = choice["message"]["content"] or ""
        # a text, and one that can be written down
        text.encode()
        return text, choice.get("finish_reason") or "stop"
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Problem(f"{reply.url} does not speak the OpenAI protocol: "
                      f"{hide(reply.text, session)!r}") from None


class Teacher:
    """
    The assistant behind an address, as converse wants it: answer(turns) -> text.

    An answer that was cut by max_tokens is kept as it is.
    """

    def __init__(self, url, model, system=None, key=None, **options):
        self.url, self.model, self.options = url.rstrip("/"), model, options
        self.system = [{"role": "system", "content": system}] if system else []
        self.session = connect(url, key)

    def __call__(self, turns):
        heard = self.system + to_messages(turns)
        try:
            text, why = chat(self.session, self.url, self.model, heard, **self.options)
        except Problem as problem:
            if "context_length_exceeded" in str(problem):
                raise End("context_full") from None
            raise
        if why == "content_filter" or not text.strip():
            raise End("content_filter" if why == "content_filter" else "error")
        return text


# ------------------------------------------------------------------------------------------------
# the user: Socratic, who asks in many dialogues at once


class Socratic:
    """
    A trained user. Dialogues wait in threads of their own; one thread owns the model and writes
    for all of them together, so that a batch is always as full as it can be.
    """

    def __init__(self, model, tokenizer, slots, seed=0, limit=64, blind=False, **how):
        self.engine, self.tokenizer = Engine(model, slots, **how), tokenizer
        self.seed, self.limit, self.blind = seed, limit, blind
        self.inbox, self.waiting = queue.Queue(), {}
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        """The thread that owns the engine: do what is asked, write a token for all, repeat."""
        try:
            while True:
                # block while idle; with texts to write, take only what is there already
                while not self.waiting or not self.inbox.empty():
                    function, args, future = self.inbox.get()
                    row = function(*args)
                    if row and row.why == "busy":
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

    def join(self, number):
        """ask(turns) for dialogue `number`, with a memory of its own; leave() gives it back."""
        return Asker(self, number, self.request(self.engine.join))


class Asker:
    """Socratic in one dialogue."""

    def __init__(self, socratic, number, row):
        self.socratic, self.number, self.row = socratic, number, row

    def __call__(self, turns):
        """The next question; None to leave, which he does by saying nothing."""
        s = self.socratic
        # one stream of random numbers per turn: who else is in the batch changes none of them
        draw = np.random.default_rng([s.seed, self.number, len(turns)]).random
        ids = prompt(blanked(turns) if s.blind else turns, s.tokenizer, "human")
        row = s.request(s.engine.write, self.row, ids, [s.tokenizer.eos], s.limit, draw)
        if row.why != "stop":
            raise End({"length": "token_limit", "context": "context_full"}[row.why])
        text = s.tokenizer.decode(row.wrote)
        if any(label.strip() in text for label in LABEL.values()):
            raise End("role_leak")
        return text if text.strip() else None

    def leave(self):
        """The dialogue is over: somebody else may have its slot."""
        self.socratic.request(self.socratic.engine.leave, self.row)


# ------------------------------------------------------------------------------------------------
# many dialogues


def dialogue(number, name, user, teacher, rounds, stop):
    """One dialogue from hello to end, as a record; cut short when the event `stop` is set."""
    def answer(turns):
        if stop.is_set():
            raise End("cut")
        return teacher(turns)

    ask = user.join(number)
    try:
        turns, end = converse(ask, answer, rounds)
    finally:
        ask.leave()
    return {"id": name, "conversations": turns, "end": end}


def finished(part, settings):
    """
    The records of an unfinished run; a last line that was torn by a kill is set aside.

    The first line of `part` holds the run's settings: another run's records are a Problem.
    """
    data = part.read_bytes() if part.exists() else b""
    whole = data[:data.rfind(b"\n") + 1]
    if whole != data:
        print(f"{part}: a torn last line is set aside; its dialogue is run again")
        part.with_suffix(".torn").write_bytes(data[len(whole):])
        os.truncate(part, len(whole))
    if not whole:
        part.write_text(line({"settings": settings}), encoding="utf-8")
    first, *records = read(part, None)
    same_run(part, first.get("settings", {}), settings)
    return records


def simulate(user, teacher, count, rounds, in_flight, part, settings=None):
    """
    Run dialogues 0 .. count - 1, `in_flight` at a time. Each is appended to `part` as a whole line
    when it ends; those that are there already are not run again. Returns all records, in order.
    """
    names = [f"socratic-{number:06d}" for number in range(count)]
    held = {record["id"]: record for record in finished(part, settings or {})}
    missing = [number for number, name in enumerate(names) if name not in held]
    if len(missing) < count:
        print(f"going on: {count - len(missing):,} of {count:,} dialogues are there")
    pool, stop, new, began = ThreadPoolExecutor(in_flight), threading.Event(), [], time.time()
    talks = [pool.submit(dialogue, n, names[n], user, teacher, rounds, stop) for n in missing]
    try:
        with open(part, "a", encoding="utf-8") as file:
            for talk in as_completed(talks):
                new.append(talk.result())
                file.write(line(new[-1]))
                file.flush()
                if len(new) % max(1, len(missing) // 10) == 0 or len(new) == len(missing):
                    report(part.stem, new, len(missing), time.time() - began)
    finally:
        # after trouble nobody asks for another answer
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    held |= {record["id"]: record for record in new}
    return [held[name] for name in names]


def report(name, records, total, seconds):
    """Print a line: chat.jsonl dialogues  400/4000   4.6 rounds each   310 rounds/s   0m45s left"""
    done, rounds = len(records), sum(len(r["conversations"]) // 2 for r in records)
    left = clock((total - done) * seconds / done)
    print(f"{name:<10} dialogues {done:>6}/{total}   {rounds / done:.1f} rounds each   "
          f"{rounds / seconds:>5,.0f} rounds/s   {left:>6} left", flush=True)


def greet(teacher):
    """Find out before anything else whether somebody is there."""
    try:
        teacher.session.get(f"{teacher.url}/models", timeout=(5, 30))
    except requests.RequestException as error:
        raise Problem(f"no teacher answers at {teacher.url} ({type(error).__name__}); start one, "
                      "or give another address with --teacher") from None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--user", required=True, metavar="DIR", help="checkpoint of a trained user")
    add("--teacher", default=os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        metavar="URL", help="OpenAI-compatible address; the key is read from OPENAI_API_KEY")
    add("--model", default="gpt-3.5-turbo", help="the teacher's name there")
    add("--system", metavar="FILE", help="a system message for the teacher")
    add("--max-tokens", type=positive, default=512, help="longest answer")
    add("--out", required=True, help="JSONL file of dialogues to write")
    add("--dialogues", type=positive, default=1000)
    add("--rounds", type=positive, default=12, help="most questions in one dialogue")
    add("--in-flight", type=positive, default=64, help="dialogues at a time")
    # how Socratic writes; the paper's values
    add("--temperature", type=float, default=0.7)
    add("--top-k", type=int, default=0, help="0 for all")
    add("--top-p", type=float, default=1.0)
    add("--max-question", type=positive, default=64, help="longest question, in tokens")
    add("--blind", action="store_true", help="the user was trained with --blind")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    args = arguments()
    system = Path(args.system).read_text(encoding="utf-8") if args.system else None
    teacher = Teacher(args.teacher, args.model, system, os.environ.get("OPENAI_API_KEY"),
                      max_tokens=args.max_tokens)
    fast = machine()
    model = Llama.load(args.user, fast["attention"]).to(fast["device"])
    tokenizer = Tokenizer.load(args.user)
    greet(teacher)
    user = Socratic(model, tokenizer, args.in_flight, args.seed, args.max_question, args.blind,
                    temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)

    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(f"{out}.part")
    # the address may change between the parts of a run, what is said there may not
    settings = {name: value for name, value in vars(args).items()
                if name not in ("teacher", "out", "dialogues", "in_flight")}
    settings |= {"user": stamp(f"{args.user}/model.safetensors"),
                 "system": args.system and stamp(args.system)}
    records = simulate(user, teacher, args.dialogues, args.rounds, args.in_flight, part, settings)
    ends = Counter(record["end"] for record in records)
    said = [record for record in records if record["conversations"]]
    write(out, said)
    part.unlink()
    print(f"{out}: {len(said):,} dialogues; {len(records) - len(said)} without a word were dropped")
    print("why they ended: " + ", ".join(f"{end} {n / len(records):.1%} ({ENDS[end]})"
                                         for end, n in ends.most_common()))


if __name__ == "__main__":
    run(main)
