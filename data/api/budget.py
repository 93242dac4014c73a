"""
What may be sent to a server, and when: the pace, the price, and a cap on what is spent.

Limiter keeps requests and tokens a minute, and the pauses that a server asks for; Ledger reserves
dollars before a call is sent and settles them after it; `forecast` says what a run would cost. One
Limiter and one Ledger are shared by all workers of a run.
"""

import math
import threading
import time
from dataclasses import dataclass, fields
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from data.program import UserError, nonnegative, positive_int
from platolm import DialogueEnd


class Endpoint(NamedTuple):
    """
    A model at an address. price: dollars per million tokens (read, written); None: see price_of.
    """
    url: str
    model: str
    price: tuple | None = None


class RunStopped(Exception):
    """Raised in workers that wait when the run is over."""


def is_loopback(url):
    """Whether an address is this machine."""
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        raise UserError(f"{url} is no address") from None


class Limiter:
    """
    Decides when the next request may be sent: at most `requests` and `tokens` a minute (None: no
    limit), and nothing during a pause that the server asked for.
    """

    def __init__(self, requests=None, tokens=None, clock=time.monotonic, sleep=time.sleep):
        self.requests = requests or math.inf
        self.tokens = tokens or math.inf
        self.clock = clock
        self.sleep = sleep
        self.lock = threading.Lock()
        # when the next request may leave by the pace, and when the last pause ends
        self.free = -math.inf
        self.until = -math.inf

    def pause(self, seconds):
        """Hold all requests back for so many seconds from now."""
        with self.lock:
            self.until = max(self.until, self.clock() + seconds)

    def wait(self, tokens):
        """Queue for a request of so many tokens, and sleep until it may be sent."""
        leaves = -math.inf
        while True:
            with self.lock:
                # a turn that falls into a pause, also one that began meanwhile, queues again
                if leaves < self.until or leaves == -math.inf:
                    leaves = max(self.clock(), self.free, self.until)
                    self.free = leaves + 60 * max(1 / self.requests, tokens / self.tokens)
                gap = leaves - self.clock()
            if gap <= 0:
                return
            self.sleep(gap)


# dollars for a million tokens (read, written): OpenAI's list as we knew it in 2025. Prices change:
# compare with your provider's page, and override with --price
PRICES = {
    "gpt-3.5-turbo": (0.50, 1.50), "gpt-3.5-turbo-0125": (0.50, 1.50),
    "gpt-3.5-turbo-1106": (1.00, 2.00), "gpt-4": (30.00, 60.00), "gpt-4-turbo": (10.00, 30.00),
    "gpt-4o": (2.50, 10.00), "gpt-4o-mini": (0.15, 0.60), "gpt-4.1": (2.00, 8.00),
    "gpt-4.1-mini": (0.40, 1.60), "gpt-4.1-nano": (0.10, 0.40),
    "text-embedding-ada-002": (0.10, 0.0), "text-embedding-3-small": (0.02, 0.0),
}


def price_of(url, model, price=None):
    """
    Find the price of a model at an address, in dollars per million tokens (read, written): the
    given one, 0 on this machine, or the table's. UserError for a model that the table lacks.
    """
    if price:
        return tuple(price)
    if is_loopback(url):
        return 0.0, 0.0
    if model not in PRICES:
        raise UserError(f"the price of {model!r} is unknown: --price READ WRITTEN, in dollars for "
                        "a million tokens (--price 0 0 where it is free)")
    return PRICES[model]


def cost_in_dollars(price, read, written):
    """Multiply tokens by a price in dollars per million (read, written)."""
    return (price[0] * read + price[1] * written) / 1e6


def worst_case(texts, limit):
    """
    Bound the tokens that a request can cost: (read, written).

    No tokenizer makes more tokens than there are bytes; 8 more per message are for what a server
    puts around it. limit: the longest answer in tokens.
    """
    return sum(len(text.encode()) + 8 for text in texts), limit


class Ledger:
    """
    Keeps what is spent below `cap` dollars (None: no cap), however many calls are in flight: the
    worst case of a call is reserved before it is sent, and settled at its real cost afterwards.

    note(row) writes down both, in that order around the call. What a kill left reserved counts as
    spent, since nothing tells whether it was served. rows: those of earlier runs; stop: an event
    after which nothing more is reserved.
    """

    def __init__(self, cap=None, note=lambda row: None, rows=(), stop=None):
        self.cap = math.inf if cap is None else cap
        self.note = note
        self.stop = stop or threading.Event()
        earlier = {}
        for row in rows:
            earlier[row["call"]] = row["cost"] if "cost" in row else row["reserved"]
        self.spent = math.fsum(earlier.values())
        self.numbers = count(len(earlier))
        # {call: dollars reserved} of the calls in flight
        self.open = {}
        self.changed = threading.Condition()

    def reserve(self, dollars):
        """
        Reserve the worst case of a call and return the call's number; None if it costs nothing.

        Waits for the calls in flight while there is no room; DialogueEnd("budget") if there are
        none to wait for.
        """
        if dollars == 0:
            return None
        with self.changed:
            # when the calls in flight are settled, what they reserved in excess is free again
            while self.spent + sum(self.open.values()) + dollars > self.cap:
                if not self.open:
                    raise DialogueEnd("budget")
                self.changed.wait()
            if self.stop.is_set():
                raise RunStopped
            call = next(self.numbers)
            self.note({"call": call, "reserved": dollars})
            self.open[call] = dollars
        return call

    def settle(self, call, cost):
        """Replace what a call reserved by what it cost."""
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
# the flags of every command that asks a server


@dataclass(frozen=True)
class ClientSettings:
    """How servers are asked: their pace, our patience in seconds, and the cap on what is spent."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float = 120
    patience: float = 600
    max_dollars: float | None = None
    limit_key: str = "max_tokens"


def money_flags(parser):
    """Add the flags of ClientSettings, and --price, to a parser."""
    default = ClientSettings()
    add = parser.add_argument_group("pace and money").add_argument
    add("--requests-per-minute", type=positive_int, metavar="N")
    add("--tokens-per-minute", type=positive_int, metavar="N",
        help="of prompts and of answers as long as allowed")
    add("--timeout", type=positive_int, default=default.timeout,
        help="longest silence, in seconds (%(default)s)")
    add("--patience", type=positive_int, default=default.patience,
        help="seconds for all tries at an answer (%(default)s)")
    add("--max-dollars", type=nonnegative, metavar="D", help="never spend more, restarts included")
    add("--price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"),
        help="dollars for a million tokens, where the table does not know or is out of date")
    add("--limit-key", choices=["max_tokens", "max_completion_tokens"], default=default.limit_key,
        help="the server's name for the longest answer")


def client_settings(args):
    """Collect the ClientSettings from the flags that money_flags added."""
    return ClientSettings(**{field.name: getattr(args, field.name)
                             for field in fields(ClientSettings)})


# ------------------------------------------------------------------------------------------------
# what a run would cost

# means of the 20,039 dialogues that the authors counted: PAPER.md, "Simulation"
PAPER_MEANS = {"rounds": 5.37, "tokens": 203}


def teacher_tokens(rounds, question, answer, system):
    """
    Count a teacher's (requests, tokens read, tokens written) in a dialogue of so many rounds.

    Each answer is written after reading everything before it, with 8 tokens a message for what a
    server puts around it. question, answer, system: their lengths in tokens; `rounds` may be a
    mean, like 5.37.
    """
    # pairs of a round and an earlier one: how often a finished round is read again
    earlier = rounds * (rounds - 1) / 2
    read = rounds * (system + 8 + question + 8) + earlier * (question + answer + 16)
    return rounds, read, rounds * answer


def user_tokens(rounds, question, answer, instruction):
    """Count the same for a prompted user that reads its instruction (tokens) for every turn."""
    earlier = rounds * (rounds - 1) / 2
    read = rounds * (instruction + 8) + earlier * (question + answer + 16)
    return rounds, read, rounds * question


def transcript_tokens(rounds, question, answer, instruction):
    """Count the same for a model that writes the whole dialogue in one call."""
    return 1, instruction + 8, rounds * (question + answer)


def forecast(dialogues, limits, sides, means=None):
    """
    Return lines of text about what a run asks for: at most, and as an estimate.

    limits: the most (rounds, tokens of a question, tokens of an answer); means: the same three of
    the run's own journal, or None for the paper's, on which the estimate rests; sides: for each
    model that is paid, its price and a function of those three like teacher_tokens.
    """
    typical = means or (PAPER_MEANS["rounds"], PAPER_MEANS["tokens"], PAPER_MEANS["tokens"])
    # no mean is beyond what this run allows
    estimate = [min(pair) for pair in zip(limits, typical)]
    lines = [f"{'':<10}{'requests':>12}{'tokens read':>16}{'written':>16}{'dollars':>12}"]
    for name, sizes in (("at most", limits), ("estimate", estimate)):
        requests = read = written = cost = 0
        for price, count_tokens in sides:
            side = [dialogues * number for number in count_tokens(*sizes)]
            requests += side[0]
            read += side[1]
            written += side[2]
            cost += cost_in_dollars(price, side[1], side[2])
        lines.append(f"{name:<10}{requests:>12,.0f}{read:>16,.0f}{written:>16,.0f}{cost:>12,.2f}")
    rounds, question, answer = estimate
    source = "this journal" if means else "the SocraticChat of the paper, but within the limits"
    prices = ["${:g} and ${:g}".format(*price) for price, _ in sides]
    return lines + [
        f"at most: {limits[0]} rounds, all texts as long as allowed;",
        f"estimate: {rounds:.1f} rounds, {question:.0f} tokens a question, {answer:.0f} an answer, "
        f"as in {source};",
        "a million tokens read and written: " + ", ".join(prices),
        "failed tries come on top; --max-dollars holds for them, too"]
