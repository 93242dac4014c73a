"""
When the next request may be sent: a pace that is given, and one that is learnt from refusals.

One Limiter is shared by all workers that send to an address. The first request goes alone; after
its answer the number of requests in flight grows with every further one. A server that refuses
because requests come too fast (HTTP 429) stops them all for a while. Then they go one by one again,
and at the pace at which it did serve them, which rises as long as little is refused.
"""

import math
import threading
import time
from contextlib import contextmanager

from data.api.protocol import RetriesExhausted
from data.program import UserError

# requests in flight after the first answer, and answers after which it is one more
SECOND_WINDOW, ANSWERS_FOR_ONE_MORE = 6, 8
# the pace goes down where more than this share of the last requests, about so many, was refused
MANY, MEMORY = 1 / 12, 50
# pauses after refusals in a row, where the server names none: seconds of the first and the longest
FIRST_PAUSE, LONGEST_PAUSE = 2, 60


class RunStopped(Exception):
    """Raised in workers that wait when the run is over."""


class Limiter:
    """
    Decides when the next request may be sent: at most `requests` and `tokens` a minute (None: no
    limit), nothing during a pause that the server asked for, and no faster than it serves.
    """

    def __init__(self, requests=None, tokens=None, clock=time.monotonic, sleep=time.sleep):
        self.requests = requests or math.inf
        self.tokens = tokens or math.inf
        self.clock = clock
        self.sleep = sleep
        # held while a field is read or changed; notified when a request may be sent
        self.changed = threading.Condition()
        # when the next request may leave by the pace, and when the last pause ends
        self.free = -math.inf
        self.until = -math.inf
        # most requests in flight, and those in flight
        self.window = 1
        self.in_flight = 0
        # requests a second that the server can serve, as far as refusals have told
        self.pace = math.inf
        # since that was learnt: from when on, and how many requests were not refused
        self.opened = None
        self.accepted = 0
        # which share of the last requests was refused
        self.share_refused = 0.0
        # after a refusal: when it came, and how long the pause is, until a request is served again
        self.blocked = False
        self.refused_at = -math.inf
        self.pause_length = FIRST_PAUSE
        self.last_served = None
        # set by an error that ends the run
        self.stopped = False

    def pause(self, seconds):
        """Hold all requests back for so many seconds from now."""
        with self.changed:
            self.until = max(self.until, self.clock() + seconds)

    @contextmanager
    def slot(self, tokens):
        """
        Wait until a request of so many tokens may be sent, and count it as in flight meanwhile.

        A UserError inside the `with` ends the run: whoever waits for a slot gets RunStopped.
        """
        with self.changed:
            while self.in_flight >= int(self.window) and not self.stopped:
                self.changed.wait()
            if self.stopped:
                raise RunStopped
            self.in_flight += 1
        try:
            self.wait(tokens)
            with self.changed:
                self.accepted += 1
            yield
        except UserError as error:
            # one text that is given up does not end the run
            self.stopped = not isinstance(error, RetriesExhausted)
            raise
        finally:
            with self.changed:
                self.in_flight -= 1
                self.changed.notify_all()

    def wait(self, tokens):
        """Queue for a request of so many tokens, and sleep until it may be sent."""
        leaves = -math.inf
        while True:
            with self.changed:
                now = self.clock()
                if self.opened is None:
                    self.opened = self.last_served = now
                # a turn that falls into a pause, also one that began meanwhile, queues again
                if leaves < self.until or leaves == -math.inf:
                    leaves = max(now, self.free, self.until)
                    self.free = leaves + max(60 / self.requests, 60 * tokens / self.tokens,
                                             1 / self.learnt_pace(now))
                gap = leaves - now
            if gap <= 0:
                return
            self.sleep(gap)

    def learnt_pace(self, now):
        """
        Return how many requests a second the server should bear.

        After a refusal it is somewhat below what was served; it rises slowly at first, by a tenth
        in a minute and a half, and then ever faster, in case that the server can do far more.
        """
        minutes = (now - self.opened) / 60
        return self.pace * 2 ** min(30, (minutes / 4) ** 2)

    def served(self, sent):
        """Enter an answer; sent: when its request was sent."""
        with self.changed:
            self.last_served = self.clock()
            self.share_refused -= self.share_refused / MEMORY
            if self.blocked and sent > self.refused_at:
                self.blocked = False
                # a refusal now and then tells nothing about the pace
                if self.share_refused > MANY and self.accepted > 1:
                    self.pace = 0.9 * (self.accepted - 1) / (sent - self.opened)
                    self.opened, self.accepted, self.share_refused = sent, 1, 0.0
            if self.pace == math.inf:
                self.window = max(SECOND_WINDOW, self.window + 1 / ANSWERS_FOR_ONE_MORE)
            else:
                self.window += 1
            self.changed.notify_all()

    def refused(self, sent, wait=None):
        """
        Enter a refusal (HTTP 429): all pause, and go on one by one.

        sent: when its request was sent; wait: seconds that the server asks for, or None.
        """
        with self.changed:
            now = self.clock()
            self.accepted -= 1
            self.share_refused += (1 - self.share_refused) / MEMORY
            # those that were under way when the pause began tell nothing new
            if sent > self.refused_at:
                longer = 2 * self.pause_length if self.blocked else self.pause_length / 2
                self.pause_length = min(LONGEST_PAUSE, max(FIRST_PAUSE, longer))
                self.refused_at, self.blocked, self.window = now, True, 1
                wait = wait or self.pause_length
            self.until = max(self.until, now + (wait or 0))

    def seconds_without_answer(self):
        """Return for how long nobody has been served."""
        with self.changed:
            return self.clock() - self.last_served
