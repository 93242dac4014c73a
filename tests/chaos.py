"""
A server that misbehaves: what paid generation has to survive. Built on data/api/server.py.

    with serving(reply, handler=Chaos, tally=Tally(script)) as url: ...

`script` names a fault for each request in turn, or None for none. The tally counts, as a provider
would, what was made, what was delivered intact, and what it bills. tests/test_paid.py tries the
faults one by one, tests/programs/drill.py all of them.
"""

import json
import random
import socket
import struct
import threading
import time
from email.utils import formatdate

from data.api.server import Handler, RequestError

PRICE = (1.0, 2.0)


class Tally:
    """
    The server's counts. script: the name of each request's fault, or None, in turn; wait: seconds
    that a rate limit asks for; drip: seconds between two pieces of a slow answer.
    """

    def __init__(self, script, wait=2.0, drip=0.0):
        self.script = iter(script)
        self.lock = threading.Lock()
        self.wait, self.drip = wait, drip
        self.requests = self.made = self.delivered = 0
        self.dollars = 0.0
        self.faults = {}

    def next_fault(self):
        """Count a request, and take its fault from the script."""
        with self.lock:
            self.requests += 1
            name = next(self.script, None)
            self.faults[name] = self.faults.get(name, 0) + 1
            return name

    def bill(self, page):
        """Bill an answer that was made, whether it arrives or not."""
        used = page["usage"]
        read = used["prompt_tokens"]
        written = max(used["completion_tokens"], used["total_tokens"] - read)
        with self.lock:
            self.made += 1
            self.dollars += (PRICE[0] * read + PRICE[1] * written) / 1e6

    def count_delivered(self):
        """Count an answer that went out complete and right."""
        with self.lock:
            self.delivered += 1


def at_random(rate, seed, but=()):
    """Yield an endless script: a fault in `rate` of the requests, none LASTING or in `but`."""
    rng = random.Random(seed)
    names = [name for name in FAULTS if name not in (*LASTING, *but)]
    while True:
        yield rng.choice(names) if rng.random() < rate else None


# ------------------------------------------------------------------------------------------------
# faults that come before an answer is made: functions of the connection and the wait to ask for


def rate_limit(form):
    """Make the fault 429 with a wait in one of the forms: none, seconds, float, date, ms."""
    def fault(handler, wait):
        date = formatdate(time.time() + wait + 1, usegmt=True)
        headers = {"none": {}, "seconds": {"Retry_After": f"{max(1, wait):.0f}"},
                   "float": {"Retry_After": f"{wait:.3f}"}, "date": {"Retry_After": date},
                   "ms": {"retry_after_ms": f"{1000 * wait:.0f}"}}[form]
        body = RequestError(429, "rate_limit_exceeded", "slow down").body
        handler.send(429, body, **headers)
    return fault


def status(number, body=None, **headers):
    """Make the fault of an HTTP status, with a body in one of the shapes that servers send."""
    def fault(handler, wait):
        page = RequestError(number, "server_error", "trouble").body if body is None else body
        handler.send(number, page, **headers)
    return fault


def refusal(message, **more):
    """Make the body of an error."""
    return {"error": {"message": message, "param": None, **more}}


BILLING = refusal("you have no credit left", type="insufficient_quota", code="insufficient_quota")
HTML = b"<html><h1>502 Bad Gateway</h1>\xc3\xbc</html>"

BEFORE = {
    "rate limit": rate_limit("none"), "rate limit, seconds": rate_limit("seconds"),
    "rate limit, float": rate_limit("float"), "rate limit, date": rate_limit("date"),
    "rate limit, ms": rate_limit("ms"), "500": status(500),
    "502 in HTML": status(502, HTML), "503 as a word": status(503, b"overloaded"),
    "503, seconds": status(503, Retry_After="2"), "529": status(529, refusal("Overloaded")),
    # errors that look like a success
    "200, rate limit": status(200, refusal("slow down", code=429)),
    "200, overloaded": status(200, refusal("overloaded", type="server_error")),
    "200, as a word": status(200, {"error": "out of memory"}),
    "wait for infinity": status(429, Retry_After="inf"),
}
# these stop the run
STOPS = {
    "billing": status(429, BILLING), "200, no credit": status(200, refusal("Insufficient credits", code=402)),
    "wrong key": status(401, refusal("no such key")), "no model": status(404, refusal("not found")),
}
# these end the one dialogue: what is refused stays refused
REFUSALS = {
    "filter": status(400, refusal("no", code="content_filter")),
    "filter, wrapped": status(400, refusal('litellm: {"error": {"code": "DataInspectionFailed"}}')),
    "context": status(400, refusal("prompt is too long: 9 tokens > 8 maximum")),
    "unknown 4xx": status(418, refusal("I would rather not")),
}

# ------------------------------------------------------------------------------------------------
# faults of an answer that was made: functions of the connection and the answer (JSON)


def send_head(handler, data):
    """Send the status line and headers of an answer of these bytes."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()


def reset(handler, page):
    """Reset the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def cut(handler, page, inside=False):
    """Send a part of the body, and close; `inside` a character of more than one byte."""
    data = json.dumps(page, ensure_ascii=False).encode()
    end = data.find("ü".encode()) + 1 if inside else len(data) // 2
    send_head(handler, data)
    handler.wfile.write(data[:end])
    handler.close_connection = True


def torn(handler, page):
    """Send half of the JSON, as if that were all."""
    data = json.dumps(page).encode()
    handler.send(200, data[:len(data) // 2])


def changed(change):
    """Make the fault that sends the answer after change(page)."""
    def fault(handler, page):
        page = json.loads(json.dumps(page))
        change(page)
        handler.send(200, page)
    return fault


def drip(handler, page):
    """Send a few bytes at a time, until all are sent."""
    data = json.dumps(page).encode()
    send_head(handler, data)
    for offset in range(0, len(data), 40):
        handler.wfile.write(data[offset:offset + 40])
        handler.wfile.flush()
        time.sleep(handler.tally.drip)


def no_usage(page):
    """Remove the count of tokens."""
    del page["usage"]


def wrong_usage(**counts):
    """Make the change to counts that cannot be right."""
    return lambda page: page["usage"].update(counts)


def other_text(text):
    """Make the change of the answer's text."""
    return lambda page: page["choices"][0]["message"].update(content=text)


def in_parts(page):
    """Split the answer's text into two parts."""
    text = page["choices"][0]["message"]["content"]
    parts = [{"type": "text", "text": half} for half in (text[:3], text[3:])]
    page["choices"][0]["message"]["content"] = parts


def with_reasoning(page):
    """Put reasoning before the answer's text."""
    message = page["choices"][0]["message"]
    message["content"] = f"so I would say</think>\n\n{message['content']}"


AFTER = {
    "reset": reset, "cut": cut, "cut inside a character": lambda h, page: cut(h, page, True),
    "torn JSON": torn, "HTML": lambda handler, page: handler.send(200, HTML, "text/html"),
    "null": changed(other_text(None)), "empty": changed(other_text(" ")),
    "failed": changed(lambda page: page["choices"][0].update(finish_reason="network_error")),
}
# after these the client has the whole answer, though
INTACT = {
    "slow bytes": drip, "no usage": changed(no_usage),
    "usage below 0": changed(wrong_usage(prompt_tokens=-5)),
    "usage in words": changed(wrong_usage(completion_tokens="many")),
    "usage of nothing": changed(wrong_usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)),
    "content in parts": changed(in_parts), "reasoning in the text": changed(with_reasoning),
}
# answers that cost more than was allowed, as the server's bill says, too
DEAR = {
    "reasoning in the total": lambda page: page["usage"].update(total_tokens=5000),
    "more than the limit": lambda page: page["usage"].update(completion_tokens=900),
}
FAULTS = {**BEFORE, **STOPS, **REFUSALS, **AFTER, **INTACT, **DEAR}
# after these a run is not as without them
LASTING = (*STOPS, *REFUSALS)


# ------------------------------------------------------------------------------------------------
# a server that allows so many requests a minute


class SharedClock:
    """
    A clock for a client and a server: it goes on to the next time at which somebody wakes up, once
    everybody sleeps. busy() says whether a request is under way.
    """

    def __init__(self):
        self.now, self.wakes, self.changed = 0.0, [], threading.Condition()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        """Wait until the clock has gone on by so many seconds."""
        with self.changed:
            wake = self.now + seconds
            self.wakes.append(wake)
            while self.now < wake:
                self.changed.wait()
            self.wakes.remove(wake)

    def run(self, busy, ended):
        """Let the time go on until the event `ended` is set."""
        quiet = 0
        while not ended.wait(0.0005):
            with self.changed:
                late = any(wake <= self.now for wake in self.wakes)
                quiet = 0 if late or not self.wakes or busy(len(self.wakes)) else quiet + 1
                if quiet == 3:
                    self.now, quiet = min(self.wakes), 0
                    self.changed.notify_all()


class Allowance:
    """
    So many requests a minute, counted in one of three ways; `tells`: refusals have a Retry-After.

    "sliding": in any 60 seconds; "minutes": in each minute of the clock; "bucket": one a second,
    and `most` at once if none came for a minute.
    """

    def __init__(self, clock, most, kind="sliding", tells=True):
        self.clock, self.most, self.kind, self.tells = clock, most, kind, tells
        self.lock, self.times = threading.Lock(), []
        self.tokens, self.filled = most, 0.0
        self.served = self.refused = 0

    def wait(self):
        """Count a request; return 0 if it is served, or the seconds after which one would be."""
        with self.lock:
            now = self.clock()
            if self.kind == "bucket":
                self.tokens = min(self.most, self.tokens + (now - self.filled) * self.most / 60)
                self.filled = now
                wait = (1 - self.tokens) * 60 / self.most
                served = self.tokens >= 1
                self.tokens -= served
            else:
                first = now - 60 if self.kind == "sliding" else now // 60 * 60
                self.times = [when for when in self.times if when > first or when == first == now]
                wait = self.times[0] + 60 - now if self.kind == "sliding" and self.times else first + 60 - now
                served = len(self.times) < self.most
                if served:
                    self.times.append(now)
            self.served += served
            self.refused += not served
            return 0 if served else max(0.001, wait)


class Limited(Handler):
    """A connection to a server with an `allowance`, which `serving` sets."""

    def do_POST(self):
        body = self.read_body()
        wait = self.allowance.wait()
        if wait:
            headers = {"Retry_After": f"{wait:.3f}"} if self.allowance.tells else {}
            return self.send(429, refusal("slow down", code="rate_limit_exceeded"), **headers)
        self.send(*self.answer(body))


class Chaos(Handler):
    """A connection with faults; `serving` sets `tally`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.tally.next_fault()
        if fault in BEFORE or fault in STOPS or fault in REFUSALS:
            return FAULTS[fault](self, self.tally.wait)
        status, page, *kind = self.answer(body)
        if fault in DEAR:
            DEAR[fault](page)
        if status == 200:
            self.tally.bill(page)
        if fault in AFTER or fault in INTACT:
            FAULTS[fault](self, page)
        else:
            self.send(status, page, *kind)
        if fault not in AFTER and status == 200:
            self.wfile.flush()
            self.tally.count_delivered()
