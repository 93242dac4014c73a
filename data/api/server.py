"""
A function served over the OpenAI protocol: messages in, text out, over HTTP.

    run_with(reply)     the command line of a server: `-- COMMAND ... URL ...` or `--port 8000`

`reply(messages) -> text` gets what the client sent as [{"role", "content"}, ...]. Served are chat
completions (whole or streamed), the list of models, and errors in OpenAI's shape; where a function
for them is given, also completions of token ids, and embeddings. Nothing of the project is
imported here.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RequestError(Exception):
    """Raised to answer a request with an error object: HTTP status, type and message."""

    def __init__(self, status, kind, message):
        super().__init__(message)
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        self.status = status


def parse_request(body):
    """Parse a chat request's body (bytes) as (request, messages); RequestError if it is wrong."""
    try:
        request = json.loads(body)
    except ValueError:
        raise RequestError(400, "invalid_request_error", "the body is not JSON") from None
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "invalid_request_error", "messages must be a list, and not empty")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise RequestError(400, "invalid_request_error",
                               "every message needs a role and a content")
    return request, messages


def truncate(text, request):
    """
    Cut a text to the request's max_tokens, a token being a word here: (text, finish_reason).
    """
    limit = request.get("max_tokens") or request.get("max_completion_tokens")
    words = list(re.finditer(r"\S+", text))
    if isinstance(limit, int) and len(words) > limit:
        return text[:words[limit - 1].end()], "length"
    return text, "stop"


def count_usage(messages, text):
    """Count the tokens of a request and its answer, a token being a word here."""
    read = sum(len(message["content"].split()) for message in messages)
    return usage(read, len(text.split()))


def usage(read, written):
    """Make the protocol's object of so many tokens read and written."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def completion(kind, model, choice, **more):
    """Make the envelope that a whole answer and each chunk of a stream share."""
    choices = [] if choice is None else [{"index": 0, **choice}]
    return {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "object": kind, "created": int(time.time()),
            "model": model, "choices": choices, **more}


class Handler(BaseHTTPRequestHandler):
    """
    One connection. `serving` sets, on a subclass, `name` (of the model) and the functions `reply`,
    `complete` and `embed` (None: not served).
    """

    complete = embed = None
    protocol_version = "HTTP/1.1"
    # one write per answer: small ones would wait for delayed acknowledgements
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Print nothing: the client reports what matters."""

    def send(self, status, body, kind="application/json", **headers):
        """Send a reply; body: bytes, or what becomes JSON; headers: Retry_After=2, ..."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        """Send the list of models, which holds one; other paths get status 404."""
        if self.path.rstrip("/") != "/v1/models":
            error = RequestError(404, "not_found_error", f"no {self.path} here")
            return self.send(error.status, error.body)
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "platolm"}
        self.send(200, {"object": "list", "data": [model]})

    def do_POST(self):
        """Read a request's body, and send the answer to it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send(*self.answer(body))

    def answer(self, body):
        """Answer a request's body (bytes): the arguments of `send`."""
        try:
            path = self.path.rstrip("/")
            if path == "/v1/completions" and self.complete:
                return 200, self.answer_completion(body)
            if path == "/v1/embeddings" and self.embed:
                return 200, self.answer_embeddings(body)
            if path != "/v1/chat/completions":
                raise RequestError(404, "not_found_error", f"no {self.path} here")
            request, messages = parse_request(body)
            text, reason = truncate(self.reply(messages), request)
        except RequestError as error:
            return error.status, error.body
        except Exception as error:
            message = f"the server failed: {type(error).__name__}: {error}"
            return 500, RequestError(500, "server_error", message).body
        if request.get("stream"):
            return 200, self.stream_events(request, messages, text, reason), "text/event-stream"
        message = {"role": "assistant", "content": text}
        choice = {"message": message, "logprobs": None, "finish_reason": reason}
        return 200, completion("chat.completion", self.name, choice,
                               usage=count_usage(messages, text))

    def answer_completion(self, body):
        """Answer by complete(request) -> (text, tokens written, finish_reason, logprobs)."""
        request = json.loads(body)
        text, written, reason, logprobs = self.complete(request)
        choice = {"text": text, "logprobs": logprobs, "finish_reason": reason}
        return completion("text_completion", self.name, choice,
                          usage=usage(len(request["prompt"]), written))

    def answer_embeddings(self, body):
        """Answer by embed(texts), which returns a list of numbers for each text."""
        texts = json.loads(body)["input"]
        rows = [{"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(self.embed(texts))]
        read = sum(len(text.split()) for text in texts)
        return {"object": "list", "model": self.name, "data": rows,
                "usage": {"prompt_tokens": read, "total_tokens": read}}

    def stream_events(self, request, messages, text, reason):
        """
        Make the server-sent events (bytes) of an answer: the role, the words one by one, the
        finish_reason; then the usage, if the request asks for it.
        """
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
        choices = [{"delta": delta, "finish_reason": None} for delta in deltas]
        choices[-1]["finish_reason"] = reason
        chunks = [completion("chat.completion.chunk", self.name, choice) for choice in choices]
        if (request.get("stream_options") or {}).get("include_usage"):
            chunks.append(completion("chat.completion.chunk", self.name, None,
                                     usage=count_usage(messages, text)))
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
        return "".join(events).encode()


class Server(ThreadingHTTPServer):
    """One thread a connection; as many connections may wait as a big simulation opens at once."""
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        """Ignore a client that hangs up; report any other error as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(reply, name="local", port=0, handler=Handler, **more):
    """
    Serve on the loopback address while the `with` lasts; gives the URL. Port 0: a free one.

    handler: the class of a connection; more: attributes of its objects, like `complete`.
    """
    attributes = {"reply": reply, "name": name, **more}
    for key, value in attributes.items():
        if callable(value):
            attributes[key] = staticmethod(value)
    handler = type("Bound", (handler,), attributes)
    with Server(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


def run_with(reply, name="local", argv=None):
    """
    Serve `reply` while a command runs, the word URL in it replaced by the address; or for ever.

        python -m data.harbour.teacher -- python simulate.py --teacher URL ...
        python -m data.harbour.teacher --port 8000

    Returns the command's exit status.
    """
    parser = argparse.ArgumentParser(description=f"the {name} over the OpenAI protocol")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("command", nargs="*", help="after --: what to run; URL is the address")
    args = parser.parse_args(argv)
    try:
        with serving(reply, name, args.port) as url:
            if args.command:
                command = [url if word == "URL" else word for word in args.command]
                return subprocess.run(command).returncode
            print(f"the {name} answers at {url}", flush=True)
            threading.Event().wait()
    except OSError as error:
        sys.exit(f"the {name} cannot serve: {error.strerror}")
    except KeyboardInterrupt:
        return 130
