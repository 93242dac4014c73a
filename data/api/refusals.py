"""
What a server means by an error: one table, in the words of many servers.

    kind = kind_of_error(HTTP status, JSON of the reply)

The codes decide first, at whatever depth of the JSON they stand (proxies wrap the errors of other
servers, also as text), and then the messages. The client (simulate.py) does what the kind asks for:

    credit       no money, or a cap of the account: stop the run
    too_long     the model's context is full: end this dialogue
    filtered     a content filter: end this dialogue
    key          a key that is not taken: stop the run
    model        no such model: stop the run
    rate         too many requests: wait, and send fewer
    transient    it may go away: try again
    unknown      any other
"""

import json
import re

from data.api.budget import LIMIT_KEYS
from data.api.protocol import (RateLimited, Refused, RetryableError, one_line, retry_after)
from data.program import UserError

# the first row with a code, and else the first with a message, that the reply holds. Codes stand
# without capitals and signs: "InvalidApiKey" and "invalid_api_key" are invalidapikey
TABLE = {
    "credit": (
        # OpenAI, Anthropic, DeepSeek, OpenRouter, Moonshot, Qwen, Zhipu, Doubao, litellm, FastChat
        "insufficientquota billinghardlimitreached billingnotactive creditbalanceexhausted "
        "organizationspendlimitexceeded projectspendlimitexceeded organizationusagelimitexceeded "
        "billingerror insufficientbalance insufficientcredits insufficientuserquota "
        "insufficientfunds exceededcurrentquotaerror quotaexceeded arrearage 1113 "
        "accountoverdueerror accountoverdue allocationquotafreetieronly budgetexceeded "
        "budgetexceedederror paymentrequired 42902",
        r"insufficient.{0,10}(balance|credit|quota|fund)"
        r"|(balance|credits?).{0,30}(too low|insufficient|exhausted|exceeded|depleted|not enough)"
        r"|(no|out of|more|any|all|enough|remaining|available|monthly|included|prepaid) credits"
        r"|credit limit|exceeded your (current|monthly)|arrear|overdue"
        r"|good standing|(spend|spending|budget|usage|key) limits?|budget.{0,20}exceeded"
        r"|exceeded.{0,10}budget|payment required|余额不足|欠费"),
    "too_long": (
        # OpenAI, llama.cpp, GitHub, FastChat, Anthropic, Zhipu
        "contextlengthexceeded exceedcontextsizeerror stringabovemaxlength tokenslimitreached "
        "contextwindowexceedederror contextwindowexceeded 40303 requesttoolarge 1261",
        # vLLM, SGLang, TGI, Anthropic, Gemini, Groq, Qwen, Mistral, Bedrock, Ollama
        r"context.{0,30}(length|window|size|limit)|maximum (model|prompt|input) length"
        r"|(prompt|input|request|body|messages?|conversation|string|text)\W+(is |are )?(too (long|"
        r"large|big))|too many (input |prompt )?tokens|too large (for|to process)"
        r"|\b(input|token|prompt)s?\b(?! valid).{0,80}(exceed|longer than|must (have less|be <=))"
        r"|exceed.{0,60}token|range of input length|reduce the length|max_tokens must be at least 1"
        r"|tokens must be reduced|prompt 超长"),
    "filtered": (
        # OpenAI, Azure, litellm, Qwen, Gemini, Zhipu, MiniMax, Doubao, Bedrock
        "contentfilter contentpolicyviolation contentpolicyviolationerror invalidprompt "
        "responsibleaipolicyviolation datainspectionfailed moderationblocked contentfiltered "
        "safety prohibitedcontent blocklist recitation spii sensitive 1301 1026 1027 "
        "sensitivecontentdetected inputtextsensitivecontentdetected guardrailintervened",
        # DeepSeek, OpenRouter, Anthropic, Moonshot, xAI
        r"content.{0,3}(filter|polic|management|moderation|exists risk|violat)|moderation"
        r"|\bflagged|data.?inspection|inappropriate content|high risk|safety (system|check|filter)"
        r"|safety reasons|(?<!case.)sensitive|usage (polic|guideline)|prohibited (content|use)"
        r"|responsible.?ai|guardrail|unsafe|blocked (due|by|for|because)|敏感|违规|不安全"),
    "key": (
        # (Gemini, Qwen and FastChat have 400 for it)
        "invalidapikey apikeyinvalid authenticationerror unauthenticated invalidauthentication "
        "incorrectapikey invalidtoken autherror unauthorized accountdeactivated 40101 40102",
        r"(invalid|incorrect|wrong|missing|expired|revoked|no|valid).{0,20}(api.?key|credential)"
        r"|api.?key.{0,30}(invalid|incorrect|expired|not (valid|found))|authentication"
        r"|unauthori[sz]ed"),
    "model": (
        "modelnotfound invalidmodel modelnotexist modelnotsupported deploymentnotfound 40301 1211",
        r"model.{0,80}(not (be )?(found|exist|available|supported)|n't exist)"
        r"|(no such|unknown|invalid) model|not a valid model|no endpoints found|no model named"),
}
TABLE = {kind: (set(codes.split()), re.compile(pattern, re.I | re.S))
         for kind, (codes, pattern) in TABLE.items()}

# codes of a rate limit. A message about money that also speaks of minutes is one, too (Gemini)
RATE = set("ratelimitexceeded ratelimiterror ratelimitreached slowdown toomanyrequests "
           "resourceexhausted throttling throttlingratequota throttlingallocationquota 42901 1302 "
           "1303 1305".split())
PER_MINUTE = re.compile(r"per.?(second|minute|hour|day)|retry.?(in|delay)|rate-limits", re.I)
# the kinds whose messages count: an error that may go away is never about the key or the model, and
# a rate limit speaks of tokens, keys and plans, too
MESSAGES_OF = {"rate": ("credit",), "transient": ("credit", "too_long", "filtered"),
               "unknown": tuple(TABLE)}
TOO_LARGE_FOR_A_MINUTE = re.compile("request too large|must be reduced", re.I)
STATUSES = {401: "key", 402: "credit", 413: "too_long", 429: "rate"}

CODE_KEYS = ("code", "type", "status", "reason", "error_type", "error_code", "status_code",
             "blockReason", "finishReason")


# exercise 21: which errors go away
def is_transient(status):
    """
    Whether the same request may succeed later: True or False, by the HTTP status of its reply.

    408 (it took too long), 409 (a conflict with another), 425 (too early), 429 (too many requests)
    and all errors of the server, from 500 on, may go away. Nothing else does: a wrong key or an
    unknown model gets the same reply again.
    """
    if status in (408, 409, 425, 429):
        return True
    # some servers have numbers of their own, such as 529
    return status >= 500


def embedded_json(text):
    """Return the JSON object that stands somewhere in a text; None if there is none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        return json.loads(text[start:end + 1])
    except (ValueError, RecursionError):
        return None


def codes_and_messages(payload):
    """
    Collect from the JSON of a reply, at any depth, the set of its codes and all of its texts.

    A code is the value of a key like "code", as text without capitals and signs.
    """
    codes, texts = set(), []
    # a stack: no depth of nesting is too deep
    rest = [("", payload)]
    while rest:
        key, value = rest.pop()
        if isinstance(value, dict):
            rest += value.items()
            # OpenRouter says so by a key
            if value.get("flagged_input"):
                codes.add("contentfilter")
        elif isinstance(value, list):
            rest += [(key, item) for item in value]
        elif key in CODE_KEYS and type(value) in (str, int):
            codes.add(re.sub(r"[^a-z0-9]", "", str(value).lower()))
        elif isinstance(value, str):
            texts.append(value)
            inner = embedded_json(value)
            if inner is not None:
                rest.append((key, inner))
    return codes, "\n".join(texts)


def inner_status(codes):
    """Return the HTTP status among some codes, for errors that came with status 200; else None."""
    for code in sorted(codes):
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
    return None


def kind_of_error(status, payload):
    """
    Say what an error reply means: a kind of TABLE, "rate", "transient" or "unknown".

    status: of HTTP, 200 for an error inside a reply that looks like a success; payload: its JSON,
    or None.
    """
    codes, message = codes_and_messages(payload)
    if status == 200:
        status = inner_status(codes) or (429 if codes & RATE else 500)
    for kind in TABLE:
        if codes & TABLE[kind][0]:
            return kind
    if TOO_LARGE_FOR_A_MINUTE.search(message):
        return "too_long"
    by_status = "transient" if is_transient(status) else "unknown"
    by_status = STATUSES.get(status, by_status)
    for kind in MESSAGES_OF.get(by_status, TABLE):
        # "check your plan and billing" may be about the requests of a minute
        by_the_minute = kind == "credit" and PER_MINUTE.search(message)
        if TABLE[kind][1].search(message) and not by_the_minute:
            return kind
    return by_status


# ------------------------------------------------------------------------------------------------
# a parameter that a server does not take

NOT_TAKEN = re.compile(r"unsupported|not support|n't support|unrecogni|unexpected|unknown|extra|"
                       r"not permitted|not allowed|deprecated|cannot both|not (accepted|available)"
                       r"|\bonly\b", re.I)


def refused_parameter(payload, body):
    """
    Name the parameter of a request that an error (JSON) is about; None if it is about none.

    Either the error's "param" names it, or its text does where it says that something is not taken.
    """
    text = json.dumps(payload, ensure_ascii=False)
    error = payload.get("error") if isinstance(payload, dict) else None
    named = error.get("param") if isinstance(error, dict) else None
    for name in body:
        if name in ("model", "messages", "prompt", "input"):
            continue
        in_text = re.search(rf"\b{name}\b", text) and NOT_TAKEN.search(text)
        if named == name or in_text:
            return name
    return None


# ------------------------------------------------------------------------------------------------
# from an error to what the client does

# a key that is shorter is a placeholder of a server that needs none, and no secret
SECRET = 8


class ErrorReplies:
    """
    The errors of one address: the exception that each becomes, and what they have told.

    key: ours, which is never quoted; patience: the longest wait in seconds; notices: where things
    are said; answered: whether the server has answered before. A refusal before the first answer is
    about the command, a later one about its request.
    """

    def __init__(self, url, key, patience, notices, answered=False):
        self.url, self.key = url, (key or "").strip()
        self.patience, self.notices, self.answered = patience, notices, answered
        # {parameter that the server does not take: the name that it takes instead, or None}
        self.renamed = {}

    def as_taken(self, body):
        """Return a request without the parameters that the server does not take."""
        names = {key: self.renamed.get(key, key) for key in body}
        return {names[key]: value for key, value in body.items() if names[key]}

    def redact(self, text):
        """Replace our key in a text from outside that we quote, if it is long enough for one."""
        return text.replace(self.key, "(key)") if len(self.key) >= SECRET else text

    def quote(self, status, error, data):
        """Quote a reply that is an error, without our key: in one line, as "HTTP 429: ..."."""
        if error is None:
            # it may hold a piece of our key, so it is not quoted
            return f"HTTP {status}: ({len(data)} bytes that are no JSON)"
        # written anew, JSON has no escapes under which a key could hide
        return f"HTTP {status}: {one_line(self.redact(json.dumps(error, ensure_ascii=False)))}"

    def raise_for(self, status, headers, error, data, sending):
        """
        Always raise: a RetryableError, a Refused for this dialogue or a UserError for the run.

        error: the JSON of an error reply, or the error in a reply with status 200; data: the
        reply's bytes; sending: the request.
        """
        message = self.quote(status, error, data)
        if status == 200 and isinstance(error, str) and not self.answered:
            raise UserError(f"{self.url} answers with an error: does the address end in /v1? "
                            f"{message}")
        kind = kind_of_error(status, error)
        if kind == "credit":
            raise UserError(f"no money left at {self.url}; what was said is kept, start again when "
                            f"there is: {message}")
        if kind in ("too_long", "filtered"):
            end = "context_full" if kind == "too_long" else "content_filter"
            self.refuse(end, message)
        if kind in ("rate", "transient"):
            wait = retry_after(headers)
            if wait and wait > self.patience:
                raise UserError(f"{self.url} asks to wait {wait:,.0f} s; start again then, what "
                                f"was said is kept: {message}")
            raise (RateLimited if kind == "rate" else RetryableError)(message, wait)
        if kind == "key":
            raise UserError(f"{self.url} wants another key (read from OPENAI_API_KEY; of a user at "
                            f"an address of its own from USER_API_KEY): {message}")
        if status in (400, 422):
            self.drop_parameter(error, sending, message)
        if kind == "unknown" and self.answered and 400 <= status < 500:
            self.refuse("refused", message)
        hint = " (does the address end in /v1?)" if status in (301, 302, 307, 404, 405) else ""
        raise UserError(f"{self.url} refuses: {message}{hint}")

    def raise_for_page(self, data):
        """Always raise, for a reply with status 200 whose bytes are no JSON."""
        message = f"it does not speak the OpenAI protocol ({len(data)} bytes that are no JSON)"
        # JSON that is torn was an answer; a page is none, and may be all that there is
        if not self.answered and not data.lstrip().startswith((b"{", b"[")):
            raise UserError(f"{self.url}: {message}; does the address end in /v1?")
        raise RetryableError(message)

    def refuse(self, end, message):
        """Say once for each kind of end that a request was refused, and raise Refused."""
        self.notices.say(end, f"{self.url} refused a request; it is counted as {end}, and "
                                f"the others go on: {message}")
        raise Refused(end, message)

    def drop_parameter(self, error, sending, message):
        """
        Raise RetryableError if an error is about a parameter of the request: it is left out from
        now on, and said. The longest answer is only ever renamed.
        """
        name = refused_parameter(error, sending)
        if not name:
            return
        other = None
        if name in LIMIT_KEYS:
            other = LIMIT_KEYS[1 - LIMIT_KEYS.index(name)]
            if other not in json.dumps(error):
                return
        if name not in self.renamed:
            change = f"it is sent as {other}" if other else "it is not sent any more"
            self.notices.say(f"{name} {self.url}", f"{self.url} does not take {name}: "
                                    f"{change} ({message})")
        self.renamed[name] = other
        raise RetryableError(message)
