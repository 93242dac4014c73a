"""
Replies of servers that speak the OpenAI protocol, read without trusting any of them.

Error codes, requested waits, token counts and the text of a completion. Every function takes
whatever arrived, of any type and shape; only the exceptions of this module (and DialogueEnd) leave
them.
"""

import time
from email.utils import parsedate_to_datetime

from data.program import UserError
from platolm import DialogueEnd

# error codes for an account without money
BILLING = {"insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted",
           "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
           "organization_usage_limit_exceeded", "billing_not_active"}
# for a request that is too long for the model (OpenAI, llama.cpp)
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
# for a request that a content filter refused
FILTERED = {"content_filter", "content_policy_violation"}
# tokens that a server may put before what we send, and bill
SERVER_OVERHEAD = 1000
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

    wait: seconds that the server asks for, or None; unsent: the request never left this machine.
    """

    def __init__(self, text, wait=None, unsent=False):
        super().__init__(text)
        self.wait = wait
        self.unsent = unsent


class RetriesExhausted(UserError):
    """A dialogue or question is given up for this run; the next start tries it again."""


def is_transient(status):
    """Whether an HTTP status may go away: timeouts, conflicts, rate limits, server errors."""
    return status in (408, 409, 429) or status >= 500


def retry_after(headers):
    """
    Read the wait that a reply asks for, in seconds: from retry-after-ms (milliseconds) or else
    retry-after (seconds, or a date). None if there is none that can be read.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        value = headers.get(name, "")
        try:
            if not value.endswith("GMT"):
                return max(0.0, float(value) * unit)
            # a date counts by the server's own clock, where it tells the time
            date = headers.get("date")
            now = parsedate_to_datetime(date).timestamp() if date else time.time()
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def one_line(value):
    """Turn any value from outside into one line of at most 300 characters, in valid Unicode."""
    return " ".join(str(value).encode(errors="replace").decode().split())[:300]


def error_codes(payload):
    """Collect the codes and types of an error reply (JSON, or None), whatever its shape."""
    error = payload.get("error", payload) if isinstance(payload, dict) else payload
    if not isinstance(error, dict):
        return set()
    codes = {str(error[key]) for key in ("code", "type") if error.get(key)}
    # vLLM has no code for a request that is too long
    if "maximum context length" in str(error.get("message")):
        codes |= TOO_LONG
    return codes


def token_usage(payload, worst_tokens):
    """
    Read the server's count of tokens from a reply (JSON): (read, written).

    worst_tokens: the most (read, written) that the request can cost, see budget.worst_case. A
    count beyond that (with some room for the server's own template), or below 1, cannot be right:
    None.
    """
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    read = usage.get("prompt_tokens")
    # embeddings write nothing
    written = usage.get("completion_tokens") if worst_tokens[1] else 0
    for count, limit in ((read, worst_tokens[0] + SERVER_OVERHEAD), (written, worst_tokens[1])):
        if type(count) is not int:
            return None
        if not (0 < count <= limit or count == limit == 0):
            return None
    return read, written


def first_choice(payload):
    """Get a reply's first choice and its finish_reason; RetryableError if there is none."""
    try:
        choice = payload["choices"][0]
        return choice, one_line(choice.get("finish_reason") or "stop")
    except (LookupError, TypeError, AttributeError):
        text = one_line(payload)
        raise RetryableError(f"it does not speak the OpenAI protocol: {text}") from None


def chat_text(payload):
    """
    Get (text, finish_reason) of a chat completion (JSON).

    An empty text is a RetryableError; a refusal by a content filter is DialogueEnd.
    """
    choice, finish = first_choice(payload)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    blank = not isinstance(text, str) or not text.strip()
    if finish == "content_filter":
        raise DialogueEnd("content_filter")
    if finish == "length" and blank:
        # reasoning used up all tokens that were allowed; another try would do the same
        raise DialogueEnd("token_limit")
    if blank:
        raise RetryableError("an answer without a word")
    return text, finish
