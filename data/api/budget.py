"""
What may be sent to a server, and when: its pace, its price, and a cap on what is spent.

Here: Limiter (requests and tokens a minute, pauses that the server asks for), the price table,
Ledger (dollars reserved before a call is sent, settled after it), forecast (what a run would cost).
All of them are shared by all workers.
Not here: the sending (simulate.py), the file in which calls are remembered (journal.py).
"""

import math
import threading
import time
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from data.program import UserError
from platolm import DialogueEnd


class Endpoint(NamedTuple):
    """A model at an address; price: dollars per million tokens (read, written), None: look it up."""
    url: str
    model: str
    price: tuple | None = None


class RunStopped(Exception):
    """The run is over: whoever waits need not."""


def is_loopback(url):
    """Whether an address is this machine."""
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        raise UserError(f"{url} is no address") from None


class Limiter:
    """
    When the next request may leave: `requests` and `tokens` a minute at most, and never while the
    server has asked for a pause.
    """

    def __init__(self, requests=None, tokens=None, clock=time.monotonic, sleep=time.sleep):
        self.requests, self.tokens = requests or math.inf, tokens or math.inf
        self.clock, self.sleep = clock, sleep
        self.lock, self.free, self.until = threading.Lock(), -math.inf, -math.inf

    def pause(self, seconds):
        """Nobody sends anything for so long."""
        with self.lock:
            self.until = max(self.until, self.clock() + seconds)

    def wait(self, tokens):
        """Queue for a request of so many tokens, and sleep until it may leave."""
        leaves = -math.inf
        while True:
            with self.lock:
                # whose turn falls into a pause, also one that began meanwhile, queues after it
                if leaves < self.until or leaves == -math.inf:
                    leaves = max(self.clock(), self.free, self.until)
                    self.free = leaves + 60 * max(1 / self.requests, tokens / self.tokens)
                gap = leaves - self.clock()
            if gap <= 0:
                return
            self.sleep(gap)


# dollars for a million tokens, read and written: OpenAI's list as we knew it in 2025. Prices
# change: compare with your provider's page, and override by --price
PRICES = {
    "gpt-3.5-turbo": (0.50, 1.50), "gpt-3.5-turbo-0125": (0.50, 1.50),
    "gpt-3.5-turbo-1106": (1.00, 2.00), "gpt-4": (30.00, 60.00), "gpt-4-turbo": (10.00, 30.00),
    "gpt-4o": (2.50, 10.00), "gpt-4o-mini": (0.15, 0.60), "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60), "gpt-4.1-nano": (0.10, 0.40),
    "text-embedding-ada-002": (0.10, 0.0), "text-embedding-3-small": (0.02, 0.0),
}


def price_of(url, model, override=None):
    """Dollars for a million tokens (read, written) at an address; what nobody knows is refused."""
    if override:
        return tuple(override)
    if is_loopback(url):
        return 0.0, 0.0
    if model not in PRICES:
        raise UserError(f"nobody told what {model!r} costs: --price READ WRITTEN, in dollars for a "
                      "million tokens (--price 0 0 where it is free)")
    return PRICES[model]


def cost_in_dollars(price, read, written):
    """What so many tokens cost."""
    return (price[0] * read + price[1] * written) / 1e6


def worst_case(texts, limit):
    """
    The most tokens that a request can cost: (read, written). No tokenizer makes more tokens than
    there are bytes; 8 more per message are for what a server puts around it.
    """
    return sum(len(text.encode()) + 8 for text in texts), limit


class Ledger:
    """
    The money. The worst case of a call is reserved before it is sent, so that what is spent never
    passes `cap`, however many calls are in flight; afterwards it is settled at what it did cost.

    note(row) writes down both, in that order around the call: what a kill leaves reserved counts
    as spent, since nobody knows whether it was served. `rows` are those of earlier runs; `stop` is
    an event after which nobody gets anything.
    """

    def __init__(self, cap=None, note=lambda row: None, rows=(), stop=None):
        self.cap, self.note = math.inf if cap is None else cap, note
        self.stop = stop or threading.Event()
        before = {}
        for row in rows:
            before[row["call"]] = row["cost"] if "cost" in row else row["reserved"]
        self.spent, self.numbers = math.fsum(before.values()), count(len(before))
        self.open, self.changed = {}, threading.Condition()

    def reserve(self, worst):
        """Set aside so many dollars; gives the number of the call. No room is End("budget")."""
        if worst == 0:
            return None
        with self.changed:
            # what the calls in flight have set aside too much comes back when they are settled
            while self.spent + sum(self.open.values()) + worst > self.cap:
                if not self.open:
                    raise DialogueEnd("budget")
                self.changed.wait()
            if self.stop.is_set():
                raise RunStopped
            call = next(self.numbers)
            self.note({"call": call, "reserved": worst})
            self.open[call] = worst
        return call

    def settle(self, call, cost):
        """A call is over, and did cost so much."""
        if call is None:
            return
        with self.changed:
            try:
                self.note({"call": call, "cost": cost})
            finally:
                self.spent += cost
                del self.open[call]
                self.changed.notify_all()


# ------------------------------------------------------------------------------------------------
# before anything is bought

# of the 20,039 dialogues that the authors counted: PAPER.md, "Simulation"
PAPER_MEANS = {"rounds": 5.37, "tokens": 203}


def teacher_tokens(rounds, question, answer, system):
    """
    Requests, tokens read and tokens written by the teacher in a dialogue: each answer is written
    after all before it was read, with 8 tokens a message for what a server puts around it.

    `rounds` may be a mean, like 5.37; `system` is the size of the system message.
    """
    before = rounds * (rounds - 1) / 2
    read = rounds * (system + 8 + question + 8) + before * (question + answer + 16)
    return rounds, read, rounds * answer


def user_tokens(rounds, question, answer, told):
    """The same for a user who is told by a prompt of `told` tokens to go on, turn by turn."""
    before = rounds * (rounds - 1) / 2
    return rounds, rounds * (told + 8) + before * (question + answer + 16), rounds * question


def transcript_tokens(rounds, question, answer, told):
    """The same for a model that writes the whole dialogue in one call."""
    return 1, told + 8, rounds * (question + answer)


def forecast(dialogues, limits, sides, seen=None):
    """
    What a run asks for, as lines of text: at most, and as it would go if dialogues are like those
    in `seen` (means), or else like the paper's.

    limits and seen: (rounds, tokens of a question, tokens of an answer); sides: for each who is
    paid, the price and its function from those three to (requests, read, written).
    """
    like = seen or (PAPER_MEANS["rounds"], PAPER_MEANS["tokens"], PAPER_MEANS["tokens"])
    likely = [min(pair) for pair in zip(limits, like)]
    lines = [f"{'':<10}{'requests':>12}{'tokens read':>16}{'written':>16}{'dollars':>12}"]
    for name, sizes in (("at most", limits), ("estimate", likely)):
        counts = [(price, *(dialogues * n for n in side(*sizes))) for price, side in sides]
        requests, read, written = (sum(column) for column in list(zip(*counts))[1:])
        cost = sum(cost_in_dollars(price, read, written) for price, _, read, written in counts)
        lines.append(f"{name:<10}{requests:>12,.0f}{read:>16,.0f}{written:>16,.0f}{cost:>12,.2f}")
    rounds, question, answer = likely
    return lines + [
        f"at most: {limits[0]} rounds, all texts as long as allowed, all tokens of one size;",
        f"estimate: {rounds:.1f} rounds, {question:.0f} tokens a question, {answer:.0f} an answer, "
        f"as in {'this journal' if seen else 'the SocraticChat of the paper'};",
        "a million tokens read and written: "
        + ", ".join("${:g} and ${:g}".format(*price) for price, _ in sides),
        "failed tries come on top; --max-dollars holds for them, too"]
