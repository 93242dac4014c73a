"""What servers say, in many dialects: errors, counts of tokens, waits, ends, reasoning."""

import time

import pytest
from requests.structures import CaseInsensitiveDict

from data.api.protocol import (Refused, RetryableError, chat_text, error_inside, how_it_ended, retry_after,
                               token_usage, without_reasoning)
from data.api.refusals import ErrorReplies, is_transient, kind_of_error, refused_parameter
from data.program import Notices, UserError
from platolm import DialogueEnd


def error(message, **more):
    return {"error": {"message": message, **more}}


RAW = '{"error": {"message": "no", "code": "context_length_exceeded"}}'
KINDS = [
    # a content filter: OpenAI, Azure, litellm, OpenRouter, DeepSeek, Qwen, Anthropic, Gemini, xAI
    ("filtered", 400, error("Invalid prompt", code="invalid_prompt")),
    ("filtered", 400, error("no", code=None, innererror={"code": "ResponsibleAIPolicyViolation"})),
    ("filtered", 400, error("litellm.ContentPolicyViolationError: AzureException - no", code="400")),
    ("filtered", 403, error("your input was flagged", code=403, metadata={"flagged_input": "x"})),
    ("filtered", 400, error("Content Exists Risk", type="invalid_request_error")),
    ("filtered", 400, {"code": "DataInspectionFailed", "message": "no"}),
    ("filtered", 400, error("Output blocked by content filtering policy")),
    ("filtered", 200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    ("filtered", 403, error("Content violates usage guidelines.")),
    # a context that is full: OpenAI, vLLM, llama.cpp, SGLang, TGI, Anthropic, Gemini, Groq, Qwen, proxies
    ("too_long", 400, error("This model's maximum context length is 9 tokens")),
    ("too_long", 400, {"object": "error", "message": "The decoder prompt (length 50) is longer than the maximum "
                       "model length of 40.", "code": 400}),
    ("too_long", 400, {"object": "error", "message": "max_tokens must be at least 1, got -50.", "code": 400}),
    ("too_long", 500, error("the request exceeds the available context size", type="server_error")),
    ("too_long", 400, {"message": "The input (50 tokens) is longer than the model's context length (40 tokens)."}),
    ("too_long", 422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500"}),
    ("too_long", 400, {"type": "error", "error": {"message": "prompt is too long: 21 tokens > 20 maximum"}}),
    ("too_long", 400, [error("The input token count (12) exceeds the maximum number of tokens allowed (10).")]),
    ("too_long", 413, error("Request too large: tokens per minute (TPM): Limit 6, Requested 9",
                            code="rate_limit_exceeded")),
    ("too_long", 400, error("Range of input length should be [1, 6000]", code="invalid_parameter_error")),
    ("too_long", 400, error("Provider returned error", metadata={"raw": RAW})),
    ("too_long", 400, error(f"litellm.BadRequestError: OpenAIException - {RAW}", code="400")),
    # no money
    ("credit", 429, error("no", code="insufficient_quota")), ("credit", 402, error("Insufficient Balance")),
    ("credit", 400, error("Your credit balance is too low to access the API. Go to Plans & Billing")),
    ("credit", 429, error("litellm.RateLimitError: You exceeded your current quota, please check your plan")),
    ("credit", 403, error("Key limit exceeded (total limit)", code=403)), ("credit", 402, None),
    ("credit", 400, error("Access denied", code="Arrearage")), ("credit", 200, error("no", code=402)),
    ("credit", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    # too fast; that it speaks of money, keys and tokens changes nothing
    ("rate", 429, error("You exceeded your current quota, please check your plan and billing details. "
                        "Please retry in 34.07s.", status="RESOURCE_EXHAUSTED")),
    ("rate", 429, error("tokens per min: Limit 9. Try again in 6s, or add a payment method: .../billing")),
    ("rate", 429, error("This would exceed your rate limit of 30,000 input tokens per minute")),
    ("rate", 429, error("Rate limit exceeded for this api key")), ("rate", 429, None),
    ("rate", 200, error("slow down", code="rate_limit_exceeded")), ("rate", 200, error("slow down", code=429)),
    # a key, a model
    ("key", 401, None), ("key", 400, error("API key not valid. Please pass a valid API key.")),
    ("key", 403, error("no", type="authentication_error")),
    ("model", 404, error("The model `x` does not exist", code="model_not_found")),
    ("model", 400, error("x is not a valid model ID")),
    ("transient", 529, error("Overloaded", type="overloaded_error")), ("transient", 200, error("boom")),
    ("transient", 503, error("The model is overloaded", code=503)), ("transient", 504, "Request took too long"),
    ("unknown", 400, error("no")), ("unknown", 403, None), ("unknown", 404, [1]), ("unknown", 400, "x"),
    ("unknown", 422, {"error": "Input validation error: `max_new_tokens` must be <= 512. Given: 1000"}),
]


@pytest.mark.parametrize("kind, status, payload", KINDS, ids=str)
def test_one_table_knows_the_errors_of_many_servers(kind, status, payload):
    assert kind_of_error(status, payload) == kind


@pytest.mark.exercise(21)
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 501, 502, 503, 504, 507, 520, 524, 529, 599])
def test_what_may_go_away(status):
    assert is_transient(status) is True, f"{status} may go away"


@pytest.mark.exercise(21)
@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413,
                                    414, 415, 416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499])
def test_what_does_not_go_away(status):
    assert is_transient(status) is False, f"the same request would get {status} again"


def test_no_depth_of_an_error_is_too_deep():
    payload = {"code": "content_filter"}
    for _ in range(5000):
        payload = [{"error": payload}]
    assert kind_of_error(400, payload) == "filtered"


@pytest.mark.parametrize("name, payload", [
    ("temperature", error("'temperature' does not support 0 with this model", code="unsupported_value")),
    ("temperature", error("no", param="temperature")), ("temperature", error("invalid temperature: only 1 is allowed")),
    ("seed", {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
    ("max_tokens", error("'max_tokens' is not supported. Use 'max_completion_tokens'", param="max_tokens")),
    (None, error("no")), (None, None), (None, "x"), (None, error("the model is not supported", param="model")),
])
def test_the_parameter_that_an_error_is_about(name, payload):
    body = {"model": "m", "messages": [], "max_tokens": 5, "temperature": 0, "seed": 1}
    assert refused_parameter(payload, body) == name


@pytest.mark.parametrize("key, quoted", [
    ("sk-planted-key", "(key) is no key"), ("none", "none"), ("0", "10"), ("EMPTY", "EMPTY"), ("ollama", "ollama")])
def test_only_a_key_long_enough_to_be_secret_is_redacted_and_only_where_it_is_quoted(key, quoted):
    errors = ErrorReplies("http://x/v1", key, 60, Notices())
    text = quoted.replace("(key)", key)
    with pytest.raises(UserError) as caught:
        errors.raise_for(400, {}, error(text), b"", {})
    assert quoted in str(caught.value)


# ------------------------------------------------------------------------------------------------
# tokens: (read, written) of reports about a request whose worst case is (13, 64)


@pytest.mark.parametrize("usage, counts", [
    ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, (10, 5)),
    # reasoning that stands in the total alone, or beside the answer
    ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 11015}, (10, 11005)),
    ({"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 900}}, (10, 905)),
    ({"prompt_tokens": 10, "completion_tokens": 905, "completion_tokens_details": {"reasoning_tokens": 900}},
     (10, 905)),
    # beyond the worst case, it is what it is
    ({"prompt_tokens": 5000, "completion_tokens": 900}, (5000, 900)),
    ({"input_tokens": 10, "output_tokens": 5}, (10, 5)), ({"prompt_tokens": "10", "completion_tokens": 5.0}, (10, 5)),
    # what cannot be right counts as the worst case, and as more where more is reported
    ({"prompt_tokens": -5, "completion_tokens": 5}, (13, 64)), ({"prompt_tokens": 10}, (13, 64)),
    ({"prompt_tokens": 10, "completion_tokens": "many"}, (13, 64)), ({"total_tokens": 9000}, (13, 8987)),
    ({"prompt_tokens": 0, "completion_tokens": 0}, None), ({}, None), ([], None), (None, None), ("x", None),
    ({"prompt_tokens": float("nan"), "completion_tokens": True}, None),
])
def test_the_servers_count_is_never_made_smaller(usage, counts):
    assert token_usage({"usage": usage}, (13, 64)) == counts


def test_embeddings_write_nothing():
    assert token_usage({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, (13, 0)) == (7, 0)
    assert token_usage([], (1, 1)) is None


# ------------------------------------------------------------------------------------------------
# waits


@pytest.mark.parametrize("headers, seconds", [
    ({"retry-after": "2"}, 2), ({"retry-after": "1.5"}, 1.5), ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({"retry-after": "-3"}, 0),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:05 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 5),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:05 GMT"}, 0), ({}, None), ({"retry-after": "soon"}, None),
    ({"retry-after": "Wed, 99 Oct 2015 07:28:05 GMT"}, None), ({"retry-after-ms": "x"}, None),
    # no time at all, and a time since 1970
    *(({"retry-after": word}, None) for word in ("inf", "-inf", "nan", "1e400", "Infinity")),
    ({"retry-after": "1445412485", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 5),
    ({"retry-after": "1445412485000", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 5), ({"retry-after": "1445412485"}, 0),
])
def test_every_form_of_a_wait(headers, seconds):
    assert retry_after(CaseInsensitiveDict(headers)) == seconds


def test_a_time_since_1970_counts_by_our_clock_without_the_servers():
    assert 50 < retry_after({"retry-after": str(int(time.time()) + 60)}) <= 60


# ------------------------------------------------------------------------------------------------
# the text, and how it ended


@pytest.mark.parametrize("end, words", [
    ("stop", ["stop", "eos", "end_turn", "STOP", "stop_sequence", None, "", "eos_token", "tool_calls", "COMPLETE", 7]),
    ("length", ["length", "MAX_TOKENS", "max_tokens", "model_length", "max_output_tokens", "token_limit"]),
    ("filtered", ["content_filter", "SAFETY", "sensitive", "refusal", "RECITATION", "PROHIBITED_CONTENT"]),
    ("failed", ["error", "network_error", "abort", "insufficient_system_resource", "OTHER", "cancelled", "timeout"])])
def test_how_an_answer_ended_whatever_its_spelling(end, words):
    assert {how_it_ended(word) for word in words} == {end}


def page(finish="stop", **message):
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}]}


def test_a_failed_answer_is_asked_for_again_and_a_filtered_one_ends_the_dialogue():
    with pytest.raises(RetryableError, match="broke off .finish_reason abort"):
        chat_text(page("abort", content="half an ans"))
    for filtered in (page("SAFETY", content="half"), page("stop", content=None, refusal="I cannot"),
                     page("stop", content=[{"type": "refusal", "refusal": "I cannot"}])):
        with pytest.raises(Refused, match="content_filter"):
            chat_text(filtered)
    assert chat_text(page("model_length", content="cut", refusal=None)) == ("cut", {"finish": "length"})


@pytest.mark.parametrize("content, text", [
    ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), (["a", "b"], "ab"),
    ([{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "b"}], "b")])
def test_content_in_parts_is_joined(content, text):
    assert chat_text(page(content=content))[0] == text


@pytest.mark.parametrize("answer", [
    page("length", content=""), page("length", content=None), page("stop", content="", reasoning_content="so"),
    page("length", content="<think>so I"), page("stop", content="<think>so</think>\n"),
    page("stop", content=None, reasoning="so")])
def test_a_limit_before_the_first_word_is_the_limit(answer):
    with pytest.raises(DialogueEnd, match="token_limit"):
        chat_text(answer)


@pytest.mark.parametrize("text, rest", [
    ("<think>so</think>\n\nyes", "yes"), ("so</think>\n\nyes", "yes"), ("\n<thinking>\nso</thinking>yes", "yes"),
    ("<think>a</think><think>b</think>yes", "yes"), ("<think>so", ""), ("[THINK]so[/THINK]yes", "yes"),
    # marks inside an answer are a part of it
    ("write <think>x</think> now", "write <think>x</think> now"), ("yes", "yes"), ("a < b", "a < b")])
def test_reasoning_is_taken_out(text, rest):
    assert without_reasoning(text) == (rest, len(text) - len(rest))


@pytest.mark.parametrize("payload, found", [
    (page(content="x"), None), ({"data": [{"embedding": [1]}]}, None), (None, None), ("x", None),
    (error("no"), error("no")["error"]), ({"error": "no"}, "no"), ({"object": "error", "code": 1}, {"object": "error",
                                                                                                  "code": 1}),
    ({"choices": [{"error": {"code": 502}, "finish_reason": "error"}]}, {"code": 502}), ({"choices": []}, None),
    ({"base_resp": {"status_code": 0}, **page(content="x")}, None), ({"code": "1", "message": "no"},
                                                                     {"code": "1", "message": "no"}),
    ({"error": None, **page(content="x")}, None)])
def test_an_error_behind_status_200(payload, found):
    assert error_inside(payload) == found
