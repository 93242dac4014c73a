"""The OpenAI wire, seen from a client that trusts nothing."""

import http.client
import json

import pytest

from data.api.server import RequestError, run_with, serving


@pytest.fixture
def address():
    def reply(messages):
        if messages[-1]["content"] == "refuse":
            raise RequestError(429, "rate_limit_error", "slow down")
        if messages[-1]["content"] == "break":
            raise ZeroDivisionError("one over nothing")
        return f"you said: {messages[-1]['content']}"
    with serving(reply, "echo") as url:
        yield url.removeprefix("http://").removesuffix("/v1")


def post(address, body, path="/v1/chat/completions"):
    connection = http.client.HTTPConnection(address, timeout=10)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read()


HELLO = {"model": "any", "messages": [{"role": "user", "content": "hello ümläut"}]}


def test_a_completion_has_all_its_parts(address):
    status, body = post(address, HELLO)
    reply = json.loads(body)
    assert status == 200 and reply["object"] == "chat.completion" and reply["model"] == "echo"
    assert reply["choices"] == [{"index": 0, "logprobs": None, "finish_reason": "stop", "message":
                                 {"role": "assistant", "content": "you said: hello ümläut"}}]
    assert reply["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_a_stream_adds_up_to_the_same_text(address):
    status, body = post(address, {**HELLO, "stream": True, "stream_options": {"include_usage": True}})
    events = body.decode().strip().split("\n\n")
    assert status == 200 and events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["delta"]["role"] == "assistant" and deltas[-1]["finish_reason"] == "stop"
    assert "".join(d["delta"].get("content", "") for d in deltas) == "you said: hello ümläut"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 6


@pytest.mark.parametrize("body, status", [
    (b"{", 400), (b"\xff\xfe", 400), ([], 400), ({}, 400), ({"messages": []}, 400),
    ({"messages": "hi"}, 400), ({"messages": [7]}, 400), ({"messages": [{"role": "user"}]}, 400),
    ({"messages": [{"content": "no role"}]}, 400), ({"messages": [{"role": "judge", "content": "x"}]}, 400),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    ({"messages": [{"role": "user", "content": "refuse"}]}, 429),
    ({"messages": [{"role": "user", "content": "break"}]}, 500),
])
def test_a_bad_request_gets_an_error_object_and_the_server_lives_on(address, body, status):
    got, text = post(address, body)
    assert got == status and set(json.loads(text)["error"]) == {"message", "type", "param", "code"}
    assert post(address, HELLO)[0] == 200


def test_other_paths(address):
    assert post(address, HELLO, "/v1/embeddings")[0] == 404
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/v1/models")
    listed = json.loads(connection.getresponse().read())
    assert listed["object"] == "list" and listed["data"][0]["id"] == "echo"
    for path, status in (("/v1/models/echo", 200), ("/v1/models/other", 404), ("/v1/models?limit=1", 200)):
        connection.request("GET", path)
        reply = connection.getresponse()
        assert reply.status == status and json.loads(reply.read())
    connection.request("OPTIONS", "/v1/chat/completions")
    reply = connection.getresponse()
    assert reply.status == 204 and "POST" in reply.headers["Access-Control-Allow-Methods"]
    reply.read()
    # a body in chunks
    data = json.dumps(HELLO).encode()
    connection.request("POST", "/v1/chat/completions", iter([data[:9], data[9:]]), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    assert json.loads(connection.getresponse().read())["choices"][0]["message"]["content"] == "you said: hello ümläut"


@pytest.mark.parametrize("more, texts, reason", [
    ({"max_tokens": 2}, ["you said:"], "length"), ({"max_tokens": -1}, ["you said: hello ümläut"], "stop"),
    ({"max_completion_tokens": 2}, ["you said:"], "length"), ({"n": 2}, ["you said: hello ümläut"] * 2, "stop"),
    ({"stop": "hello"}, ["you said: "], "stop"), ({"stop": ["x", "said"]}, ["you "], "stop"),
    ({"temperature": 0, "seed": 7, "top_p": 1, "tools": [], "stop": None}, ["you said: hello ümläut"], "stop"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}]},
     ["you said: in parts"], "stop")])
def test_what_is_asked_for_is_done(address, more, texts, reason):
    status, body = post(address, {**HELLO, **more})
    choices = json.loads(body)["choices"]
    assert status == 200 and [choice["message"]["content"] for choice in choices] == texts
    assert [choice["index"] for choice in choices] == list(range(len(texts)))
    assert {choice["finish_reason"] for choice in choices} == {reason}


@pytest.mark.parametrize("more", [
    {"max_tokens": 0}, {"max_tokens": -2}, {"max_tokens": "9"}, {"max_tokens": True}, {"n": 0},
    {"n": 2, "stream": True},
    {"stop": 7}, {"stop": [7]}, {"temperature": -1}, {"temperature": "hot"}, {"seed": 1.5}, {"tools": [{}]},
    {"response_format": {"type": "json_object"}}, {"logprobs": True}])
def test_or_it_is_refused(address, more):
    status, body = post(address, {**HELLO, **more})
    assert status == 400 and json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_command_is_given_the_address_and_its_status_is_returned(tmp_path):
    out = tmp_path / "out"
    code = (f"import sys, urllib.request as r; status = r.urlopen(sys.argv[1] + '/models').status; "
            f"open({str(out)!r}, 'w').write(str(status)); sys.exit(3)")
    assert run_with(lambda messages: "", argv=["--", "python3", "-c", code, "URL"]) == 3
    assert out.read_text() == "200"
