"""
Replies of servers that speak the OpenAI protocol, read without trusting any of them.

Requested waits, token counts, the text of a completion and how it ended. Every function takes
whatever arrived, of any type and shape; only the exceptions of this module (and DialogueEnd) leave
them. What an error means stands in refusals.py.
"""

import json
import math
import re
import time
from email.utils import parsedate_to_datetime

from data.program import UserError
from platolm import DialogueEnd

# after so many failures in a row the server is taken to be gone
GIVE_UP_AFTER = 5


class Reply(str):
    """A server's text; .meta says how it was made: {"model", "finish", "usage", "cost", ...}."""

    def __new__(cls, text, meta):
        reply = super().__new__(cls, text)
        reply.meta = meta
        return reply


class RetryableError(Exception):
    """
    A try that failed although another may succeed.

    wait: seconds that the server asks for, or None; unsent: the request never left this machine;
    wasted, set by the client: it had to be paid for.
    """

    def __init__(self, text, wait=None, unsent=False):
        super().__init__(text)
        self.wait = wait
        self.unsent = unsent
        self.wasted = False


class RateLimited(RetryableError):
    """A request came too fast: it was not served, and others are."""


class RetriesExhausted(UserError):
    """A dialogue or question is given up for this run; the next start tries it again."""


class Refused(DialogueEnd):
    """A server does not take this one request; .why quotes it. The text is one of END_REASONS."""

    def __init__(self, end, why):
        super().__init__(end)
        self.why = why


def one_line(value):
    """Turn any value from outside into one line of at most 300 characters, in valid Unicode."""
    return " ".join(str(value).encode(errors="replace").decode().split())[:300]


def parse_json(data):
    """Parse a reply's bytes as JSON; None if they are none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


# from here on a number is a time, not a wait: seconds since 1970, or milliseconds
EPOCH = 1e9


def retry_after(headers):
    """
    Read the wait that a reply asks for, in seconds: from retry-after-ms (milliseconds) or else
    retry-after (seconds, seconds since 1970, or a date). None if there is none that can be read.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        value = headers.get(name, "")
        try:
            date = headers.get("date")
            # a date counts by the server's own clock, where it tells the time
            now = parsedate_to_datetime(date).timestamp() if date else time.time()
            if value.endswith("GMT"):
                return max(0.0, parsedate_to_datetime(value).timestamp() - now)
            seconds = float(value)
            if not math.isfinite(seconds):
                continue
            if seconds >= EPOCH:
                seconds = seconds / (1000 if seconds >= 1000 * EPOCH else 1) - now
                unit = 1
            return max(0.0, seconds * unit)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


# ------------------------------------------------------------------------------------------------
# tokens


def token_count(value):
    """Read a count of tokens, also one written as 12.0 or "12"; None if it is none."""
    try:
        count = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(count) if math.isfinite(count) and count >= 0 and type(value) is not bool else None


def token_usage(payload, worst_tokens):
    """
    Read the server's count of tokens from a reply (JSON): (read, written).

    worst_tokens: the most (read, written) that the request should cost, see budget.worst_case. What
    was written is at least what the total leaves beside the prompt: some servers count reasoning
    there alone. A count below 1 cannot be right; where one of the two cannot, they are the worst
    case, or what was reported if that is more. None without any report.
    """
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    read = token_count(usage.get("prompt_tokens", usage.get("input_tokens")))
    written = token_count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    details = usage.get("completion_tokens_details")
    reasoning = token_count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    if (reasoning or 0) > written:
        written += reasoning
    total = token_count(usage.get("total_tokens")) or 0
    if not read and not written and not total:
        return None
    written = max(written, total - (read or worst_tokens[0]))
    # embeddings write nothing
    if not read or not written and worst_tokens[1]:
        return max(read or 0, worst_tokens[0]), max(written, worst_tokens[1])
    return read, written


# ------------------------------------------------------------------------------------------------
# the text, and how it ended

# how an answer ended, whatever a server calls it: the first row that its word matches; a word that
# matches none (stop, eos, end_turn, ...) says that the model ended it by itself
FINISHES = {
    "filtered": re.compile(r"filter|safety|sensitive|block|prohibit|refus|moderat|policy|toxic"
                           r"|guardrail|recitation|spii|unsafe", re.I),
    "length": re.compile(r"length|max|limit|truncat|context_window|incomplete", re.I),
    "failed": re.compile(r"error|abort|fail|cancel|time_?out|resource|malform|overload|unspecified"
                         r"|interrupt|^other$", re.I),
}


def how_it_ended(word):
    """Reduce a finish_reason of any server to "stop", "length", "filtered" or "failed"."""
    word = one_line(word or "stop")
    if re.search(r"rate.?limit", word, re.I):
        return "failed"
    for finish, pattern in FINISHES.items():
        if pattern.search(word):
            return finish
    return "stop"


# a text that begins with reasoning: up to its closing mark, with or without an opening one
REASONING = [(re.compile(rf"\s*{opening}", re.I), re.compile(rf"{closing}\s*", re.I))
             for opening, closing in ((r"<think(?:ing)?>", r"</think(?:ing)?>"),
                                      (r"<thought>", r"</thought>"),
                                      (r"<reasoning>", r"</reasoning>"),
                                      (r"<seed:think>", r"</seed:think>"),
                                      (r"\[THINK\]", r"\[/THINK\]"),
                                      (r"◁think▷", r"◁/think▷"))]


def without_reasoning(text):
    """
    Take out the reasoning that a text begins with: (the rest, number of characters taken out).

    "<think>so</think>yes", and "so</think>yes" (templates open it for the model), give "yes". What
    is never closed is all reasoning. Such marks inside an answer are a part of it.
    """
    for opening, closing in REASONING:
        before, rest = 0, text
        while opens := opening.match(rest):
            closes = closing.search(rest, opens.end())
            if not closes:
                return "", len(text)
            before, rest = before + closes.end(), rest[closes.end():]
        if before:
            return rest, before
        closes = closing.search(text)
        if closes and not re.search(opening.pattern.removeprefix(r"\s*"), text[:closes.start()]):
            return text[closes.end():], closes.end()
    return text, 0


def first_choice(payload):
    """Get a reply's first choice and how it ended; RetryableError if there is none."""
    try:
        choice = payload["choices"][0]
        finish = how_it_ended(choice.get("finish_reason"))
    except (LookupError, TypeError, AttributeError):
        text = one_line(payload)
        raise RetryableError(f"it does not speak the OpenAI protocol: {text}") from None
    if finish == "failed":
        word = one_line(choice["finish_reason"])
        raise RetryableError(f"the answer broke off (finish_reason {word})")
    if finish == "filtered":
        raise Refused("content_filter", f"finish_reason {one_line(choice['finish_reason'])}")
    return choice, finish


def content_text(content):
    """Return a message's content as text, joining a list of parts; None if it is neither."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def refusal_text(message):
    """Return the words by which a model declines in a field made for it; None without."""
    parts = message.get("content")
    fields = [message, *parts] if isinstance(parts, list) else [message]
    for field in fields:
        refusal = field.get("refusal") if isinstance(field, dict) else None
        if isinstance(refusal, str) and refusal.strip():
            return refusal
    return None


def chat_text(payload):
    """
    Get (text, {"finish": "stop" | "length", "reasoning"?: characters}) of a chat completion (JSON).

    An empty text is a RetryableError, a refusal Refused. DialogueEnd("token_limit") if the limit
    came before the first word: another try would do the same.
    """
    choice, finish = first_choice(payload)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise RetryableError("an answer without a word")
    if refusal := refusal_text(message):
        raise Refused("content_filter", f"the model declines: {one_line(refusal)}")
    text, reasoning = without_reasoning(content_text(message.get("content")) or "")
    thought = reasoning or message.get("reasoning_content") or message.get("reasoning")
    if not text.strip():
        if finish == "length" or thought:
            raise DialogueEnd("token_limit")
        raise RetryableError("an answer without a word")
    meta = {"finish": finish}
    if reasoning:
        meta["reasoning"] = reasoning
    return text, meta


def error_inside(payload):
    """Return the error in a reply (JSON) that came with HTTP status 200; None if there is none."""
    if not isinstance(payload, dict):
        return None
    choices = payload.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict) and first.get("error"):
        return first["error"]
    if first or payload.get("data"):
        return None
    if payload.get("error") or payload.get("object") == "error":
        return payload.get("error") or payload
    blocked = payload.get("promptFeedback")
    base = payload.get("base_resp")
    if blocked or isinstance(base, dict) and base.get("status_code"):
        return blocked or base
    # errors of other protocols: a code and a message, and nothing else
    told = payload.get("message") or payload.get("msg") or payload.get("detail")
    return payload if told and "choices" not in payload else None
