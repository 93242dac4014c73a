"""
What a call to a server costs, and a cap on what is spent.

Ledger reserves dollars before a call is sent and settles them after it; `forecast` says what a run
would cost. One Ledger is shared by all workers of a run.
"""

import math
import threading
from collections import Counter
from dataclasses import dataclass, fields
from itertools import count
from typing import NamedTuple
from urllib.parse import urlsplit

from data.api.limiter import RunStopped
from data.program import Notices, UserError, format_dollars, nonnegative, positive_int
from platolm import DialogueEnd


class Endpoint(NamedTuple):
    """
    A model at an address. price: dollars per million tokens (read, written); None: see price_of.
    """
    url: str
    model: str
    price: tuple | None = None


def is_loopback(url):
    """Whether an address is this machine."""
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        raise UserError(f"{url} is no address") from None


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


def cost_of_report(price, usage, payload):
    """
    Compute the dollars of a reply (JSON) that reports its tokens (read, written): what they come to
    at a price, or what the server says that it bills, if that is more.
    """
    billed = payload["usage"].get("cost")
    billed = billed if type(billed) in (int, float) and any(price) else 0.0
    return max(billed, cost_in_dollars(price, *usage))


def maybe_made(status):
    """Whether behind an error with this HTTP status, of a gateway, an answer may have been made."""
    return status == 408 or status > 500 and status not in (503, 529)


def worst_case(texts, limit):
    """
    Bound the tokens that a request can cost: (read, written).

    No tokenizer makes more tokens than there are bytes; 8 more per message are for what a server
    puts around it. limit: the longest answer in tokens.
    """
    return sum(len(text.encode()) + 8 for text in texts), limit


class Reservation(NamedTuple):
    """What a call in flight may cost: dollars, and tokens (read, written) of a model."""
    dollars: float
    tokens: tuple
    model: str


class Ledger:
    """
    Keeps what is spent below `cap` dollars (None: no cap), however many calls are in flight: the
    worst case of a call is reserved before it is sent, and settled at its real cost afterwards.

    A model may write more than it was allowed to, and report it. That is booked as reported, and
    from then on reserved in addition: so only the calls already sent can pass the cap, and nothing
    is sent after them. Until a model's first report one call at a time is in flight.

    note(row) writes down both, in that order around the call. What a kill left reserved counts as
    spent, since nothing tells whether it was served. rows: those of earlier runs; stop: an event
    after which nothing more is reserved.
    """
    # a model that reports nothing after so many calls is taken never to do so
    SILENT = 3

    def __init__(self, cap=None, note=lambda row: None, rows=(), stop=None):
        self.cap = math.inf if cap is None else cap
        self.note = note
        self.stop = stop or threading.Event()
        self.notices = Notices()
        # {model: tokens (read, written) to reserve beyond the worst case}
        self.beyond = {}
        # {model: calls settled without a report, or SILENT after the first report}
        self.silent = Counter()
        earlier = {}
        for row in rows:
            earlier[row["call"]] = row["cost"] if "cost" in row else row["reserved"]
            self.beyond |= row.get("beyond", {})
        self.spent = math.fsum(earlier.values())
        self.numbers = count(len(earlier))
        # {call: Reservation} of the calls in flight
        self.open = {}
        self.changed = threading.Condition()

    def reservation(self, price, tokens, model):
        """Make the Reservation of a call whose worst case is `tokens` (read, written)."""
        beyond = self.beyond.get(model, (0, 0))
        tokens = tokens[0] + beyond[0], tokens[1] + beyond[1]
        return Reservation(cost_in_dollars(price, *tokens), tokens, model)

    def has_to_wait(self, reservation):
        """Whether a call has to wait for one in flight: for its report, or for what it frees."""
        calls = self.open.values()
        if self.silent[reservation.model] < self.SILENT:
            if any(call.model == reservation.model for call in calls):
                return True
        # when the calls in flight are settled, what they reserved in excess is free again
        reserved = sum(call.dollars for call in calls)
        return self.spent + reserved + reservation.dollars > self.cap

    # exercise 23: reserving the worst case
    def reserve(self, price, tokens, model=""):
        """
        Reserve the worst case of a call, tokens (read, written), at a price in dollars per million.

        Returns the call's number, the next of self.numbers; None, and nothing is reserved, where
        both prices are 0. The Reservation is self.reservation(price, tokens, model); a report that
        comes in may change it, so what counts is what it is after the last wait.

        While self.has_to_wait(reservation), waits for self.changed, the Condition that is held all
        the time; DialogueEnd("budget") if no call is in flight to wait for (self.open is empty).
        After self.stop is set nobody gets a number, but RunStopped. The row {"call": number,
        "reserved": dollars} is noted, by self.note, before the Reservation stands in self.open
        under the number: where the note fails, nothing is reserved.
        """
        if not any(price):
            return None
        with self.changed:
            while self.has_to_wait(self.reservation(price, tokens, model)):
                if not self.open:
                    raise DialogueEnd("budget")
                self.changed.wait()
            if self.stop.is_set():
                raise RunStopped
            reservation = self.reservation(price, tokens, model)
            call = next(self.numbers)
            self.note({"call": call, "reserved": reservation.dollars})
            self.open[call] = reservation
        return call

    def reserved(self, call):
        """Return the dollars that are reserved for a call in flight."""
        return 0.0 if call is None else self.open[call].dollars

    # exercise 24: settling at the real cost
    def settle(self, call, cost, usage=None):
        """
        Replace what a call reserved (its Reservation in self.open) by what it cost, in dollars.

        call: its number, or None for one that is free: there is nothing to settle. usage: tokens
        (read, written) that the server reported; None if it reported nothing.

        The row {"call": call, "cost": cost} is noted, by self.note, together with what the report
        has taught: the dict that self.learn_from(usage, reservation, cost) returns. Without a
        report, a call that cost something counts as one in self.silent[reservation.model].
        Even if that fails, self.spent then holds the cost, self.open no longer the call, and all
        who wait are woken; self.changed, the Condition that they wait for, is held all the time.
        If more than self.cap is spent, self.notices.say("cap", text) says by how much
        (self.excess()), and that nothing more is sent.
        """
        if call is None:
            return
        with self.changed:
            reservation = self.open[call]
            row = {"call": call, "cost": cost}
            try:
                if usage:
                    row |= self.learn_from(usage, reservation, cost)
                elif cost:
                    self.silent[reservation.model] += 1
                self.note(row)
            finally:
                self.spent += cost
                del self.open[call]
                self.changed.notify_all()
            if self.spent > self.cap:
                self.notices.say("cap", f"{self.excess()}; nothing more is sent")

    def learn_from(self, usage, reservation, cost):
        """
        Enter a report of tokens (read, written): what it exceeds is reserved from now on.

        Returns what the journal has to remember of it: {} or {"beyond": {model: tokens}}.
        """
        model = reservation.model
        self.silent[model] = self.SILENT
        beyond = self.beyond.get(model, (0, 0))
        # twice as much, since the next one may be longer still
        more = [2 * max(0, used - most) for used, most in zip(usage, reservation.tokens)]
        if not any(more):
            return {}
        self.beyond[model] = beyond[0] + more[0], beyond[1] + more[1]
        most = reservation.tokens
        self.notices.say(f"beyond {model}", f"{model} reports {usage[0]:,} tokens read and "
                         f"{usage[1]:,} written, where {most[0]:,} and {most[1]:,} were the most. "
                         f"It is booked as reported ({format_dollars(cost)}), and later calls "
                         "reserve more")
        return {"beyond": {model: self.beyond[model]}}

    def excess(self):
        """Say by how much the cap is passed; "" if it is not."""
        if self.spent <= self.cap:
            return ""
        return (f"{format_dollars(self.spent - self.cap)} more than --max-dollars, since a model "
                "wrote more than it was allowed to")

    def summary(self):
        """Say what is spent, as "; $1.20 spent"; "" if nothing is."""
        if not self.spent:
            return ""
        excess = self.excess()
        return f"; {format_dollars(self.spent)} spent" + (f", {excess}" if excess else "")


# ------------------------------------------------------------------------------------------------
# the flags of every command that asks a server


# what servers call the longest answer
LIMIT_KEYS = ("max_tokens", "max_completion_tokens")


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
    add("--requests-per-minute", type=positive_int, metavar="N",
        help="a limit that is known; one that is not is found out")
    add("--tokens-per-minute", type=positive_int, metavar="N",
        help="of prompts and of answers as long as allowed")
    add("--timeout", type=positive_int, default=default.timeout,
        help="longest silence, in seconds (%(default)s)")
    add("--patience", type=positive_int, default=default.patience,
        help="seconds for all tries at an answer (%(default)s)")
    add("--max-dollars", type=nonnegative, metavar="D", help="spend no more, restarts included")
    add("--price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"),
        help="dollars for a million tokens, where the table does not know or is out of date")
    add("--limit-key", choices=LIMIT_KEYS, default=default.limit_key,
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
