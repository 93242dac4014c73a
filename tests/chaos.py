"""
A server that misbehaves: what paid generation has to survive, on top of server.py.

    with serving(reply, handler=Chaos, tally=Tally(script)) as url: ...

`script` names a fault for each request in turn, or None for none. The tally counts, as a provider
would, what was made, what was delivered whole, and what it bills. Not here: the client
(simulate.py), the drill that uses all of it (tests/programs/drill.py).
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
    """What the server counts, in the words of its bill; `script` gives the next fault's name."""

    def __init__(self, script, wait=2.0, drip=0.0):
        self.script, self.lock = iter(script), threading.Lock()
        # seconds that are asked for, and between two pieces of a slow answer
        self.wait, self.drip = wait, drip
        self.requests = self.made = self.delivered = 0
        self.dollars, self.faults = 0.0, {}

    def next_fault(self):
        """The fault of the next request."""
        with self.lock:
            self.requests += 1
            name = next(self.script, None)
            self.faults[name] = self.faults.get(name, 0) + 1
            return name

    def bill(self, page):
        """An answer was made: it is paid for, whether it arrives or not, by our own arithmetic."""
        used = page["usage"]
        with self.lock:
            self.made += 1
            self.dollars += (PRICE[0] * used["prompt_tokens"]
                             + PRICE[1] * used["completion_tokens"]) / 1e6

    def whole(self):
        """An answer went out complete and right."""
        with self.lock:
            self.delivered += 1


def at_random(rate, seed, but=()):
    """An endless script: a fault in `rate` of the requests, none of those in `but`."""
    rng = random.Random(seed)
    names = [name for name in FAULTS if name not in but]
    while True:
        yield rng.choice(names) if rng.random() < rate else None


# ------------------------------------------------------------------------------------------------
# faults that come before an answer is made: functions of the connection and the wait to ask for


def rate_limit(form):
    """429 with a wait in one of the forms: none, seconds, float, date, ms."""
    def fault(handler, wait):
        date = formatdate(time.time() + wait + 1, usegmt=True)
        headers = {"none": {}, "seconds": {"Retry_After": f"{max(1, wait):.0f}"},
                   "float": {"Retry_After": f"{wait:.3f}"}, "date": {"Retry_After": date},
                   "ms": {"retry_after_ms": f"{1000 * wait:.0f}"}}[form]
        body = RequestError(429, "rate_limit_exceeded", "slow down").body
        handler.send(429, body, **headers)
    return fault


def status(number, body=None):
    """An error with a body in one of the shapes that servers send."""
    def fault(handler, wait):
        page = RequestError(number, "server_error", "trouble").body if body is None else body
        handler.send(number, page)
    return fault


BILLING = {"error": {"message": "you have no credit left", "type": "insufficient_quota",
                     "param": None, "code": "insufficient_quota"}}
HTML = b"<html><h1>502 Bad Gateway</h1>\xc3\xbc</html>"

BEFORE = {
    "rate limit": rate_limit("none"), "rate limit, seconds": rate_limit("seconds"),
    "rate limit, float": rate_limit("float"), "rate limit, date": rate_limit("date"),
    "rate limit, ms": rate_limit("ms"), "billing": status(429, BILLING), "500": status(500),
    "502 in HTML": status(502, HTML), "503 as a word": status(503, b"overloaded"),
}

# ------------------------------------------------------------------------------------------------
# faults of an answer that was made: functions of the connection and the answer (JSON)


def head(handler, data):
    """The head of an answer of these bytes."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()


def reset(handler, page):
    """The connection is reset instead of an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def cut(handler, page, inside=False):
    """A part of the body, and the end; `inside` a character of more than one byte."""
    data = json.dumps(page, ensure_ascii=False).encode()
    end = data.find("ü".encode()) + 1 if inside else len(data) // 2
    head(handler, data)
    handler.wfile.write(data[:end])
    handler.close_connection = True


def torn(handler, page):
    """Half of the JSON, as if that were all."""
    data = json.dumps(page).encode()
    handler.send(200, data[:len(data) // 2])


def changed(change):
    """The answer after change(page)."""
    def fault(handler, page):
        page = json.loads(json.dumps(page))
        change(page)
        handler.send(200, page)
    return fault


def drip(handler, page):
    """A few bytes at a time, until all is there."""
    data = json.dumps(page).encode()
    head(handler, data)
    for place in range(0, len(data), 40):
        handler.wfile.write(data[place:place + 40])
        handler.wfile.flush()
        time.sleep(handler.tally.drip)


def no_usage(page):
    """As if nobody counted."""
    del page["usage"]


def says(**counts):
    """A count that cannot be right."""
    return lambda page: page["usage"].update(counts)


def content(text):
    """Another text in place of the answer."""
    return lambda page: page["choices"][0]["message"].update(content=text)


AFTER = {
    "reset": reset, "cut": cut, "cut inside a character": lambda h, page: cut(h, page, True),
    "torn JSON": torn, "HTML": lambda handler, page: handler.send(200, HTML, "text/html"),
    "null": changed(content(None)), "empty": changed(content(" ")),
}
# after these the answer is there, though
WHOLE = {
    "slow bytes": drip, "no usage": changed(no_usage),
    "usage below 0": changed(says(prompt_tokens=-5)),
    "usage in words": changed(says(completion_tokens="many")),
    "usage beyond belief": changed(says(prompt_tokens=10 ** 12)),
    "usage of nothing": changed(says(prompt_tokens=0, completion_tokens=0)),
}
FAULTS = {**BEFORE, **AFTER, **WHOLE}


class Chaos(Handler):
    """A connection with faults; `tally` is set by `serving`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.tally.next_fault()
        if fault in BEFORE:
            return BEFORE[fault](self, self.tally.wait)
        status, page, *kind = self.answer(body)
        if status == 200:
            self.tally.bill(page)
        if fault in AFTER or fault in WHOLE:
            FAULTS[fault](self, page)
        else:
            self.send(status, page, *kind)
        if fault not in AFTER and status == 200:
            self.wfile.flush()
            self.tally.whole()
