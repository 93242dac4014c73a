"""
What a server of the OpenAI protocol says, read without trusting any of it.

Here: errors in all their shapes, waits that are asked for, usage, the text of a completion. Each
function takes whatever came and gives what it means; nothing from outside makes them fail.
Not here: the sending (simulate.py), the other end of the wire (server.py).
"""

import time
from email.utils import parsedate_to_datetime

from data.program import UserError
from platolm import DialogueEnd

# error codes that say: no money
BILLING = {"insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted",
           "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
           "organization_usage_limit_exceeded", "billing_not_active"}
# and: too long for the model (OpenAI, llama.cpp), not to be talked about
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
FILTERED = {"content_filter", "content_policy_violation"}
# tokens that a server may put before what we send, and bill
SERVER_OVERHEAD = 1000


class RetryableError(Exception):
    """A try that failed, but another may not; `wait`: seconds that the server asks for."""

    def __init__(self, text, wait=None, unsent=False):
        super().__init__(text)
        self.wait, self.unsent = wait, unsent


class RetriesExhausted(UserError):
    """So many tries failed, for so long, that nobody tries again now."""


class Reply(str):
    """A server's text; .meta says how it was made: {"model", "finish", "usage", "cost", ...}."""

    def __new__(cls, text, meta):
        reply = super().__new__(cls, text)
        reply.meta = meta
        return reply


def is_transient(status):
    """Whether time may heal it: time-outs, conflicts, rate limits, and trouble at the server."""
    return status in (408, 409, 429) or status >= 500


def retry_after(headers):
    """Seconds that a reply asks to wait: in milliseconds, in seconds, or until a date; or None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        words = headers.get(name, "")
        try:
            if not words.endswith("GMT"):
                return max(0.0, float(words) * unit)
            # by the server's own clock, where it tells
            now = headers.get("date")
            now = parsedate_to_datetime(now).timestamp() if now else time.time()
            return max(0.0, parsedate_to_datetime(words).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def one_line(value):
    """Something from outside as one short line that can be written down."""
    return " ".join(str(value).encode(errors="replace").decode().split())[:300]


def error_codes(page):
    """The codes and types of an error object (JSON, or None), in any of the shapes servers send."""
    error = page.get("error", page) if isinstance(page, dict) else page
    if not isinstance(error, dict):
        return set()
    found = {str(error[key]) for key in ("code", "type") if error.get(key)}
    # vLLM has no code for it
    return found | (TOO_LONG if "maximum context length" in str(error.get("message")) else set())


def token_usage(page, worst):
    """
    (tokens read, tokens written) as the server counted, or None if that cannot be right: more than
    the worst case, with some room for what the server itself put before the messages.
    """
    usage = page.get("usage") if isinstance(page, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    # embeddings write nothing
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens") if worst[1] else 0
    most = worst[0] + SERVER_OVERHEAD, worst[1]
    right = all(type(n) is int and (0 < n <= limit or n == limit == 0)
                for n, limit in zip(counts, most))
    return counts if right else None


def first_choice(page):
    """The first choice of a reply and why it ended, or a Trouble."""
    try:
        choice = page["choices"][0]
        return choice, one_line(choice.get("finish_reason") or "stop")
    except (LookupError, TypeError, AttributeError):
        raise RetryableError(f"it does not speak the OpenAI protocol: {one_line(page)}") from None


def chat_text(page):
    """Text and finish_reason of a chat completion. Silence may heal; a refusal is an End."""
    choice, finish = first_choice(page)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if finish == "content_filter":
        raise DialogueEnd("content_filter")
    if finish == "length" and not (isinstance(text, str) and text.strip()):
        # all that was allowed went into thinking; it would again
        raise DialogueEnd("token_limit")
    if not isinstance(text, str) or not text.strip():
        raise RetryableError("an answer without a word")
    return text, finish
