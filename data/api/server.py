"""
A function served over the OpenAI protocol: messages in, text out, over HTTP.

    run_with(reply)     the command line of a server: `-- COMMAND ... URL ...` or `--port 8000`

`reply(messages) -> text` gets what the client sent as [{"role", "content": text}, ...]. Served are
chat completions (whole or streamed), the list of models, and errors in OpenAI's shape; where a
function for them is given, also completions of token ids, and embeddings. What a request asks for
is done or refused, never ignored. Nothing of the project is imported here.
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
from urllib.parse import unquote


class RequestError(Exception):
    """Raised to answer a request with an error object: HTTP status, type and message."""

    def __init__(self, status, kind, message):
        super().__init__(message)
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        self.status = status


def bad_request(message):
    """Make the error for a request that cannot be served."""
    return RequestError(400, "invalid_request_error", message)


ROLES = ("system", "developer", "user", "assistant", "tool")
# (parameter, its type, the least and the most that it may be), and those that are not served
NUMBERS = (("n", int, 1, 128), ("temperature", (int, float), 0, 2), ("top_p", (int, float), 0, 1),
           ("seed", int, -2 ** 63, 2 ** 63), ("max_tokens", int, -1, 2 ** 31),
           ("max_completion_tokens", int, -1, 2 ** 31))
NOT_SERVED = ("tools", "functions", "response_format", "logit_bias", "logprobs", "top_logprobs",
              "presence_penalty", "frequency_penalty", "audio", "prediction")


def joined_content(content):
    """Return a message's content as a text; it may be a list of parts of text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise bad_request("every message needs a content: a text, or a list of parts of text")
    return "".join(texts)


def parse_messages(request):
    """Return the messages of a request with texts as contents; RequestError if they are wrong."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a list, and not empty")
    parsed = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise bad_request(f"every message needs a role, one of {', '.join(ROLES)}")
        parsed.append({**message, "content": joined_content(message.get("content"))})
    return parsed


def parse_json_object(body):
    """Parse a request's body (bytes) as a JSON object."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("the body is not JSON") from None
    if not isinstance(request, dict):
        raise bad_request("the body is no JSON object")
    return request


def check_parameters(request):
    """Raise RequestError for a parameter that has no such value, or that is not served."""
    for name, kind, least, most in NUMBERS:
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
            raise bad_request(f"{name} must be a number from {least} to {most}")
    # -1 is how many servers spell "no limit"
    if 0 in (request.get("max_tokens"), request.get("max_completion_tokens")):
        raise bad_request("an answer has at least one token: max_tokens 0 makes none")
    if request.get("stream") and (request.get("n") or 1) > 1:
        raise bad_request("n above 1 is not served as a stream")
    for name in NOT_SERVED:
        if request.get(name):
            raise bad_request(f"{name} is not served here")
    stop_texts(request)


def stop_texts(request):
    """List the texts at which an answer ends."""
    stop = request.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise bad_request("stop must be a text, or a list of texts")
    return stops


def token_limit(request):
    """Return the most tokens of an answer that a request allows, or None."""
    limits = [request.get(name) for name in ("max_tokens", "max_completion_tokens")]
    limits = [limit for limit in limits if limit and limit > 0]
    return min(limits) if limits else None


def truncate(text, request):
    """
    Cut a text at the request's stop texts, and to its limit, a token being a word here: (text,
    finish_reason).
    """
    for stop in stop_texts(request):
        text = text.partition(stop)[0]
    limit = token_limit(request)
    words = list(re.finditer(r"\S+", text))
    if limit and len(words) > limit:
        return text[:words[limit - 1].end()], "length"
    return text, "stop"


def count_usage(messages, texts):
    """Count the tokens of a request and its answers, a token being a word here."""
    read = sum(len(message["content"].split()) for message in messages)
    return usage(read, sum(len(text.split()) for text in texts))


def usage(read, written):
    """Make the protocol's object of so many tokens read and written."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def completion(kind, model, choices, **more):
    """Make the envelope that whole answers and each chunk of a stream share."""
    choices = [{"index": index, **choice} for index, choice in enumerate(choices)]
    return {"id": f"chatcmpl-{uuid.uuid4().hex[:24]}", "object": kind, "created": int(time.time()),
            "model": model, "choices": choices, **more}


class Handler(BaseHTTPRequestHandler):
    """
    One connection. `serving` sets, on a subclass, `name` (of the model) and the functions `reply`,
    `complete` and `embed` (None: not served), and `generate`, in place of `reply` for a server that
    heeds more than the messages: generate(messages, request) -> (text, finish_reason).
    """

    complete = embed = generate = None
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
        headers = {"Content-Type": kind, "Content-Length": str(len(data)),
                   # pages of other servers may ask, too
                   "Access-Control-Allow-Origin": "*", **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        """Send the list of models, which holds one, or that model; other paths get status 404."""
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "platolm"}
        path = unquote(self.path.partition("?")[0].rstrip("/"))
        if path == "/v1/models":
            return self.send(200, {"object": "list", "data": [model]})
        if path == f"/v1/models/{self.name}":
            return self.send(200, model)
        error = RequestError(404, "not_found_error", f"no {self.path} here")
        self.send(error.status, error.body)

    def do_OPTIONS(self):
        """Tell a browser that it may ask."""
        self.send(204, b"", Allow="GET, POST, OPTIONS", Access_Control_Allow_Headers="*",
                  Access_Control_Allow_Methods="GET, POST, OPTIONS")

    def do_POST(self):
        """Read a request's body, and send the answer to it."""
        self.send(*self.answer(self.read_body()))

    def read_body(self):
        """Read the body of a request, which may come in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        # a size in hexadecimal, a line; so many bytes, and a line's end; the last size is 0
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def answer(self, body):
        """Answer a request's body (bytes): the arguments of `send`."""
        try:
            path = self.path.partition("?")[0].rstrip("/")
            if path == "/v1/completions" and self.complete:
                return 200, self.answer_completion(body)
            if path == "/v1/embeddings" and self.embed:
                return 200, self.answer_embeddings(body)
            if path != "/v1/chat/completions":
                raise RequestError(404, "not_found_error", f"no {self.path} here")
            request = parse_json_object(body)
            messages = parse_messages(request)
            check_parameters(request)
            answers = [self.one_answer(messages, request) for _ in range(request.get("n") or 1)]
        except RequestError as error:
            return error.status, error.body
        except Exception as error:
            message = f"the server failed: {type(error).__name__}: {error}"
            return 500, RequestError(500, "server_error", message).body
        used = count_usage(messages, [text for text, _ in answers])
        if request.get("stream"):
            return 200, self.stream_events(request, *answers[0], used), "text/event-stream"
        choices = [{"message": {"role": "assistant", "content": text}, "logprobs": None,
                    "finish_reason": reason} for text, reason in answers]
        return 200, completion("chat.completion", self.name, choices, usage=used)

    def one_answer(self, messages, request):
        """Make one answer to some messages: (text, finish_reason)."""
        if self.generate:
            return self.generate(messages, request)
        return truncate(self.reply(messages), request)

    def answer_completion(self, body):
        """Answer by complete(request) -> (text, tokens written, finish_reason, logprobs)."""
        request = parse_json_object(body)
        text, written, reason, logprobs = self.complete(request)
        choice = {"text": text, "logprobs": logprobs, "finish_reason": reason}
        return completion("text_completion", self.name, [choice],
                          usage=usage(len(request["prompt"]), written))

    def answer_embeddings(self, body):
        """Answer by embed(texts), which returns a list of numbers for each text."""
        texts = parse_json_object(body)["input"]
        rows = [{"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(self.embed(texts))]
        read = sum(len(text.split()) for text in texts)
        return {"object": "list", "model": self.name, "data": rows,
                "usage": {"prompt_tokens": read, "total_tokens": read}}

    def stream_events(self, request, text, reason, used):
        """
        Make the server-sent events (bytes) of an answer: the role, the words one by one, the
        finish_reason; then the usage, if the request asks for it.
        """
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
        choices = [{"delta": delta, "finish_reason": None} for delta in deltas]
        choices[-1]["finish_reason"] = reason
        chunks = [completion("chat.completion.chunk", self.name, [choice]) for choice in choices]
        if (request.get("stream_options") or {}).get("include_usage"):
            chunks.append(completion("chat.completion.chunk", self.name, [], usage=used))
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


def run_with(reply, name="local", argv=None, **more):
    """
    Serve `reply` while a command runs, the word URL in it replaced by the address; or for ever.

        python -m data.harbour.teacher -- python simulate.py --teacher URL ...
        python -m data.harbour.teacher --port 8000

    more: as for `serving`. Returns the command's exit status.
    """
    parser = argparse.ArgumentParser(description=f"the {name} over the OpenAI protocol")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("command", nargs="*", help="after --: what to run; URL is the address")
    args = parser.parse_args(argv)
    try:
        with serving(reply, name, args.port, **more) as url:
            if args.command:
                command = [url if word == "URL" else word for word in args.command]
                return subprocess.run(command).returncode
            print(f"the {name} answers at {url}", flush=True)
            threading.Event().wait()
    except OSError as error:
        sys.exit(f"the {name} cannot serve: {error.strerror}")
    except KeyboardInterrupt:
        return 130
