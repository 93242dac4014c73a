"""
A function behind the OpenAI wire: messages in, text out, over HTTP.

    run_with(reply)     the command line of a server: `-- COMMAND ... URL ...` or `--port 8000`

`reply(messages) -> text` gets what the client sent as [{"role", "content"}, ...]. Served are
chat completions, whole or streamed, the list of models, and errors in OpenAI's shape; and, where
there is a function for them, completions of token ids and embeddings. Nothing here knows what the
functions say or who asks; nothing of the project is imported. Not here: a server that misbehaves
(chaos.py).
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


class Refused(Exception):
    """A request that gets an error object: HTTP status, type and message."""

    def __init__(self, status, kind, message):
        super().__init__(message)
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        self.status = status


def messages_of(body):
    """A request's body (bytes) as (request, messages), or Refused with what is wrong."""
    try:
        request = json.loads(body)
    except ValueError:
        raise Refused(400, "invalid_request_error", "the body is not JSON") from None
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "invalid_request_error", "messages must be a list with something in it")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise Refused(400, "invalid_request_error", "every message needs a role and a content")
    return request, messages


def shortened(text, request):
    """A text cut to the request's limit, in tokens as this server counts them; and why it ends."""
    limit = request.get("max_tokens") or request.get("max_completion_tokens")
    words = list(re.finditer(r"\S+", text))
    if isinstance(limit, int) and len(words) > limit:
        return text[:words[limit - 1].end()], "length"
    return text, "stop"


def usage(messages, text):
    """Tokens as this server counts them: words."""
    asked = sum(len(message["content"].split()) for message in messages)
    return {"prompt_tokens": asked, "completion_tokens": len(text.split()),
            "total_tokens": asked + len(text.split())}


def completion(kind, model, choice, **more):
    """The envelope that a whole answer and each chunk of a stream share."""
    return {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "object": kind, "created": int(time.time()),
            "model": model, "choices": [] if choice is None else [{"index": 0, **choice}], **more}


class Handler(BaseHTTPRequestHandler):
    """One connection; `serving` sets `reply`, `complete`, `embed`, `name` on a subclass."""

    complete = embed = None
    protocol_version = "HTTP/1.1"
    # one write per answer: small ones would wait for delayed acknowledgements
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Stay quiet: the client says what matters."""

    def send(self, status, body, kind="application/json", **headers):
        """A reply with its headers (Retry_After: 2); body: bytes, or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path.rstrip("/") != "/v1/models":
            return self.send(404, Refused(404, "not_found_error", f"no {self.path} here").body)
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "platolm"}
        self.send(200, {"object": "list", "data": [card]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send(*self.answer(body))

    def answer(self, body):
        """The reply to a request's body (bytes): the arguments of `send`."""
        try:
            path = self.path.rstrip("/")
            if path == "/v1/completions" and self.complete:
                return 200, self.completed(body)
            if path == "/v1/embeddings" and self.embed:
                return 200, self.embedded(body)
            if path != "/v1/chat/completions":
                raise Refused(404, "not_found_error", f"no {self.path} here")
            request, messages = messages_of(body)
            text, why = shortened(self.reply(messages), request)
        except Refused as refused:
            return refused.status, refused.body
        except Exception as error:
            trouble = f"the server failed: {type(error).__name__}: {error}"
            return 500, Refused(500, "server_error", trouble).body
        if request.get("stream"):
            return 200, self.stream(request, messages, text, why), "text/event-stream"
        message = {"role": "assistant", "content": text}
        choice = {"message": message, "logprobs": None, "finish_reason": why}
        counted = usage(messages, text)
        return 200, completion("chat.completion", self.name, choice, usage=counted)

    def completed(self, body):
        """A completion: complete(request) -> (text, tokens written, finish_reason, logprobs)."""
        request = json.loads(body)
        text, wrote, why, logprobs = self.complete(request)
        choice = {"text": text, "logprobs": logprobs, "finish_reason": why}
        read = len(request["prompt"])
        counted = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
        return completion("text_completion", self.name, choice, usage=counted)

    def embedded(self, body):
        """Embeddings: embed(texts) gives a list of numbers for each."""
        texts = json.loads(body)["input"]
        rows = [{"object": "embedding", "index": i, "embedding": row}
                for i, row in enumerate(self.embed(texts))]
        used = sum(len(text.split()) for text in texts)
        return {"object": "list", "model": self.name, "data": rows,
                "usage": {"prompt_tokens": used, "total_tokens": used}}

    def stream(self, request, messages, text, why):
        """Server-sent events: the role, the words one by one, the end; the usage if asked for."""
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
        choices = [{"delta": delta, "finish_reason": None} for delta in deltas]
        choices[-1]["finish_reason"] = why
        chunks = [completion("chat.completion.chunk", self.name, choice) for choice in choices]
        if (request.get("stream_options") or {}).get("include_usage"):
            counted = usage(messages, text)
            chunks.append(completion("chat.completion.chunk", self.name, None, usage=counted))
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
        return "".join(events).encode()


class Server(ThreadingHTTPServer):
    """One thread a connection; as many connections may wait as a big simulation opens at once."""
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        """A client that hangs up is no news; anything else is told as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(reply, name="local", port=0, handler=Handler, **more):
    """
    Serve on the loopback address while the `with` lasts; gives the URL. Port 0: a free one.

    handler: another kind of connection; more: what its objects shall have, like `complete`.
    """
    more = {key: staticmethod(value) if callable(value) else value for key, value in more.items()}
    handler = type("Bound", (handler,), {"reply": staticmethod(reply), "name": name, **more})
    with Server(("127.0.0.1", port), handler) as listening:
        threading.Thread(target=listening.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/v1"
        finally:
            listening.shutdown()


def run_with(reply, name="local", argv=None):
    """
    Serve `reply` while a command runs, the word URL in it replaced by the address; or for ever.

        python -m data.harbour.teacher -- python simulate.py --teacher URL ...
        python -m data.harbour.teacher --port 8000

    Returns the command's exit status.
    """
    parser = argparse.ArgumentParser(description=f"the {name} behind the OpenAI wire")
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
