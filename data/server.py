"""
A function behind the OpenAI wire: messages in, text out, over HTTP.

    run_with(reply)     the command line of a server: `-- COMMAND ... URL ...` or `--port 8000`

`reply(messages) -> text` gets what the client sent as [{"role", "content"}, ...]. Served are
chat completions, whole or streamed, the list of models, and errors in OpenAI's shape. Nothing
here knows what the function says or who asks; nothing of the project is imported.
"""

import argparse
import json
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
    """One connection; `reply` and `name` are set on a subclass by `serving`."""

    protocol_version = "HTTP/1.1"
    # one write per answer: small ones would wait for delayed acknowledgements
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Stay quiet: the client says what matters."""

    def send(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path.rstrip("/") != "/v1/models":
            return self.send(404, Refused(404, "not_found_error", f"no {self.path} here").body)
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "platolm"}
        self.send(200, {"object": "list", "data": [card]})

    def do_POST(self):
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.rstrip("/") != "/v1/chat/completions":
                raise Refused(404, "not_found_error", f"no {self.path} here")
            request, messages = messages_of(body)
            text = self.reply(messages)
        except Refused as refused:
            return self.send(refused.status, refused.body)
        except Exception as error:
            trouble = f"the server failed: {type(error).__name__}: {error}"
            return self.send(500, Refused(500, "server_error", trouble).body)
        if request.get("stream"):
            return self.stream(request, messages, text)
        message = {"role": "assistant", "content": text}
        choice = {"message": message, "logprobs": None, "finish_reason": "stop"}
        counted = usage(messages, text)
        self.send(200, completion("chat.completion", self.name, choice, usage=counted))

    def stream(self, request, messages, text):
        """Server-sent events: the role, the words one by one, the end; the usage if asked for."""
        words = [word + " " for word in text.split(" ")]
        words[-1] = words[-1][:-1]
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
        choices = [{"delta": delta, "finish_reason": None} for delta in deltas]
        choices[-1]["finish_reason"] = "stop"
        chunks = [completion("chat.completion.chunk", self.name, choice) for choice in choices]
        if (request.get("stream_options") or {}).get("include_usage"):
            counted = usage(messages, text)
            chunks.append(completion("chat.completion.chunk", self.name, None, usage=counted))
        events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
        self.send(200, "".join(events).encode(), "text/event-stream")


class Server(ThreadingHTTPServer):
    """One thread a connection; as many connections may wait as a big simulation opens at once."""
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        """A client that hangs up is no news; anything else is told as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(reply, name="local", port=0):
    """Serve on the loopback address while the `with` lasts; gives the URL. Port 0: a free one."""
    handler = type("Bound", (Handler,), {"reply": staticmethod(reply), "name": name})
    with Server(("127.0.0.1", port), handler) as listening:
        threading.Thread(target=listening.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/v1"
        finally:
            listening.shutdown()


def run_with(reply, name="local", argv=None):
    """
    Serve `reply` while a command runs, the word URL in it replaced by the address; or for ever.

        python -m data.teacher -- python simulate.py --teacher URL ...
        python -m data.teacher --port 8000

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
