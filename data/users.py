"""
Users other than a trained Socratic on this machine, for `simulate.py --user`.

    https://HOST/v1     Socratic behind a server of completions (vLLM, llama.cpp): token ids only
    prompt:FILE         a chat model told by FILE to play the user, turn by turn (UltraChat's way)
    whole:FILE          a chat model told by FILE to write whole dialogues at once (Baize's way)
    script:follow-up    a rule: more about the last answer's longest new word

Every user has start_dialogue(number, intent, rows) -> ask, where ask(turns) returns a question, or
None to leave; `rows` are the journal's, if the dialogue was begun before. {intent} in a FILE stands
for the dialogue's line of --intents.
"""

import math
import random
import re
from dataclasses import dataclass, fields

import numpy as np

from data.api.budget import Endpoint
from data.api.protocol import Reply, RetryableError, chat_text, first_choice
from data.program import (UserError, fraction, natural_int, nonnegative, positive_int,
                          read_text, temperature_or_none)
from platolm import LABEL, DialogueEnd, Tokenizer, blanked, prompt, to_messages

# what a prompted user writes to leave
LEAVES = "(leaves)"


@dataclass(frozen=True)
class UserSettings:
    """
    How a simulated user writes.

    max_question: most tokens of a question; context: most tokens of a dialogue; leave: factor on
    the odds of leaving at each turn; blind: the user does not see the answers.
    """
    temperature: float | None = 0.7
    top_k: int = 0
    top_p: float = 1.0
    max_question: int = 64
    context: int = 2048
    leave: float = 1.0
    blind: bool = False
    seed: int = 0


def user_flags(parser):
    """Add the flags of UserSettings, and of a user behind an address, to a parser."""
    default = UserSettings()
    add = parser.add_argument_group("how a user writes").add_argument
    add("--temperature", type=temperature_or_none, default=default.temperature,
        help="(%(default)s, as in the paper); none: a chat model's own")
    add("--top-k", type=natural_int, default=default.top_k, help="0 for all")
    add("--top-p", type=fraction, default=default.top_p)
    add("--max-question", type=positive_int, default=default.max_question,
        help="longest question, in tokens (%(default)s; the paper: 512)")
    add("--context", type=positive_int, default=default.context,
        help="most tokens in a dialogue (%(default)s; and what the user's model can hold)")
    add("--leave", type=nonnegative, default=default.leave,
        help="multiplies the odds of leaving at each turn")
    add("--blind", action="store_true", help="the user was trained with --blind")
    add("--seed", type=natural_int, default=default.seed)
    add = parser.add_argument_group("a user behind an address, or told by a prompt").add_argument
    add("--user-model", help="its name there (default: user, or the teacher's); "
        "at another address than the teacher's its key is USER_API_KEY")
    add("--user-price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"), help="as --price")
    add("--tokenizer", metavar="DIR", help="of a user behind an address: its checkpoint directory")


def user_settings(args):
    """Collect the UserSettings from the flags that user_flags added."""
    return UserSettings(**{field.name: getattr(args, field.name) for field in fields(UserSettings)})


class Ask:
    """The ask(turns) of one dialogue, as an object; there is nothing to release at its end."""

    def __init__(self, ask):
        self.ask = ask

    def __call__(self, turns):
        """Return the next question; None to leave."""
        return self.ask(turns)

    def close(self):
        """Do nothing."""


# ------------------------------------------------------------------------------------------------
# Socratic behind an address


def completion_text(payload):
    """Get (text, {"finish"}) of a completion (JSON); with an empty text the user leaves."""
    choice, finish = first_choice(payload)
    if not isinstance(choice.get("text"), str):
        raise RetryableError("a completion without a text")
    return choice["text"], {"finish": finish}


def leave_probability(payload):
    """Read the probability of an empty completion from its logprobs; UserError without them."""
    try:
        logprobs = payload["choices"][0]["logprobs"]["top_logprobs"][0]
        return math.exp(min(0.0, float(logprobs.get("</s>", -math.inf))))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UserError("--leave needs a server that sends logprobs, and this one sends "
                        "none") from None


def scale_odds(p, odds):
    """Multiply the odds of a probability: p/(1 - p) becomes odds * p/(1 - p)."""
    return odds * p / (1 - p + odds * p) if odds else 0.0


def overrides(left, p, odds, u):
    """
    Decide whether --leave reverses what the server drew: a user that left stays, or the other way.

    The server lets a user leave with probability p; `left` is what it drew. u, uniform in [0, 1),
    decides such that this draw leaves with probability scale_odds(p, odds). (A user that is made to
    stay is drawn anew, and may leave then: odds below 1 keep somewhat fewer than that.)
    """
    target = scale_odds(p, odds)
    if left:
        return u < (p - target) / max(p, 1e-9)
    return u < (target - p) / max(1 - p, 1e-9)


class Remote:
    """Socratic on a server of completions: like simulate.Socratic, but the server samples."""
    # most draws at one turn, where --leave makes users stay; after them the user leaves
    DRAWS = 20

    def __init__(self, client, settings, model, tokenizer):
        self.client = client
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer

    def start_dialogue(self, number, intent="", rows=()):
        """Return the ask(turns) of one dialogue."""
        return Ask(lambda turns: self.ask(turns, number, intent))

    def ask(self, turns, number, intent):
        """Return the next question; None to leave."""
        settings = self.settings
        history = blanked(turns) if settings.blind else turns
        ids = prompt(history, self.tokenizer, "human", intent)
        if len(ids) >= settings.context:
            raise DialogueEnd("context_full")
        rng = np.random.default_rng([settings.seed, number, len(turns)])
        for _ in range(self.DRAWS):
            text, p = self.draw(ids, int(rng.integers(2 ** 31)))
            if text.meta["finish"] == "length":
                raise DialogueEnd("token_limit")
            left = not text.strip()
            overridden = overrides(left, p, settings.leave, rng.random())
            if left and overridden:
                # the user has to stay: draw again
                continue
            return None if left or overridden else text
        return None

    def draw(self, ids, seed):
        """Sample a completion of token ids: its text, and the probability that it is empty."""
        settings = self.settings
        limit = settings.max_question
        body = {"model": self.model, "prompt": ids, "max_tokens": limit, "seed": seed,
                "temperature": settings.temperature, "top_p": settings.top_p}
        if settings.temperature is None:
            del body["temperature"]
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.leave == 1:
            # unchanged odds need no probability: overrides() is False for any
            return self.client.post("/completions", body, (len(ids), limit), completion_text), 0.5
        body["logprobs"] = 5
        probability = None

        def parse(payload):
            nonlocal probability
            probability = leave_probability(payload)
            return completion_text(payload)
        text = self.client.post("/completions", body, (len(ids), limit), parse)
        return text, probability


# ------------------------------------------------------------------------------------------------
# chat models that are told to be a user


class Instructed:
    """A chat model behind a client, with an instruction; settings: UserSettings."""

    def __init__(self, client, settings, model, instruction):
        self.client = client
        self.settings = settings
        self.model = model
        self.instruction = instruction


class Prompted(Instructed):
    """UltraChat's way: a chat model reads the dialogue and is told to go on as the user."""

    def start_dialogue(self, number, intent="", rows=()):
        """Return the ask(turns) of one dialogue."""
        return Ask(lambda turns: self.ask(turns, intent))

    def ask(self, turns, intent):
        """Return the next question; None to leave."""
        # the instruction comes last: before a dialogue, models lose it
        instruction = self.instruction.replace("{intent}", intent)
        messages = to_messages(turns) + [{"role": "user", "content": instruction}]
        text = self.client.chat(self.model, messages, self.settings.max_question,
                                temperature=self.settings.temperature)
        if text.meta["finish"] == "length":
            raise DialogueEnd("token_limit")
        if LEAVES in text:
            return None
        return Reply(text.strip().removeprefix(LABEL["human"]), text.meta)


def parse_transcript(text):
    """
    Parse a dialogue with the labels "Human:" and "Assistant:" into turns.

    Whole rounds only, up to the first turn that is empty or breaks the alternation. Text before the
    first label is skipped; if the assistant speaks first, the result is [].
    """
    parts = re.split(r"^\s*(Human|Assistant):", text, flags=re.M)
    turns = []
    for label, value in zip(parts[1::2], parts[2::2]):
        role = "human" if label == "Human" else "gpt"
        expected = "human" if len(turns) % 2 == 0 else "gpt"
        if value.strip() and role == expected:
            turns.append({"from": role, "value": value.strip()})
        elif turns or value.strip():
            break
    return turns[:len(turns) // 2 * 2]


def whole_rounds(text, finish):
    """Parse a dialogue, without its last round if that was cut off (finish: "length")."""
    turns = parse_transcript(text)
    return turns[:-2] if finish == "length" else turns


def transcript_text(payload):
    """Get (text, {"finish", ...}) of a chat completion; RetryableError if it is no dialogue."""
    text, meta = chat_text(payload)
    if not whole_rounds(text, meta["finish"]):
        raise RetryableError('what was written is no dialogue of "Human:" and "Assistant:"')
    return text, meta


class Whole(Instructed):
    """Baize's way: one call writes both sides, which the dialogue then takes turn by turn."""

    def start_dialogue(self, number, intent="", rows=()):
        """Return the ask(turns) of one dialogue; its .answer(turns) replaces the teacher."""
        return TranscriptAsk(self, intent, rows[0]["transcript"] if rows else None)

    def write(self, intent):
        """Have a new dialogue written: its turns, and the meta of the reply."""
        instruction = self.instruction.replace("{intent}", intent)
        messages = [{"role": "user", "content": instruction}]
        text = self.client.chat(self.model, messages, self.settings.context, transcript_text,
                                temperature=self.settings.temperature)
        return whole_rounds(text, text.meta["finish"]), text.meta


class TranscriptAsk(Ask):
    """
    A dialogue that is written whole at its first question. It is paid for at once, so all of it
    stands in the journal, in the row of that question.
    """

    def __init__(self, writer, intent, turns):
        super().__init__(self.question)
        self.writer = writer
        self.intent = intent
        self.turns = turns

    def question(self, turns):
        """Return the transcript's next question; None after the last."""
        if self.turns is None:
            self.turns, meta = self.writer.write(self.intent)
            meta = {**meta, "finish": "stop", "transcript": self.turns}
            return Reply(self.turns[0]["value"], meta)
        return self.next_turn(turns) if len(turns) < len(self.turns) else None

    def next_turn(self, turns):
        """Return the transcript's own next turn."""
        return self.turns[len(turns)]["value"]

    # the transcript writes the assistant's turns, too
    answer = next_turn


# ------------------------------------------------------------------------------------------------
# scripts, and the choice by --user


class Scripted:
    """A rule of data/harbour/scripts.py that needs no world."""

    def __init__(self, name, seed):
        from data.harbour.scripts import SCRIPTS
        if name not in SCRIPTS:
            raise UserError(f"there is no script {name!r}; there is {', '.join(SCRIPTS)}")
        self.name = name
        self.seed = seed
        self.script = SCRIPTS[name]

    def start_dialogue(self, number, intent="", rows=()):
        """Return the ask(turns) of one dialogue."""
        def ask(turns):
            # replayed from the start each time: earlier questions move the random state, too
            script = self.script(random.Random(f"{self.name} {self.seed} {number}"))
            for length in range(0, len(turns), 2):
                script.ask(turns[:length])
            return script.ask(turns)
        return Ask(ask)


def user_endpoint(user, teacher, name=None, price=None):
    """
    Return the Endpoint of a user behind an address, or of the chat model of a prompted user.

    user: the word of --user; teacher: an Endpoint; name, price: those of --user-model and
    --user-price. A prompted user is at the teacher's address and, if not named, the same model.
    """
    if user.partition(":")[0] in ("http", "https"):
        return Endpoint(user, name or "user", price)
    model = name or teacher.model
    if model == teacher.model:
        price = price or teacher.price
    return Endpoint(teacher.url, model, price)


def make_other_user(user, settings, client_for, endpoint, tokenizer=None, seeded=False):
    """
    Make the user that the word of --user names, unless it is a checkpoint directory.

    settings: UserSettings; client_for(endpoint) gives a Client; endpoint: of a user behind an
    address or a prompted one; tokenizer: the directory of --tokenizer; seeded: whether the first
    questions are given. UserError for a word that names no user.
    """
    kind, _, rest = user.partition(":")
    if kind == "script":
        return Scripted(rest, settings.seed)
    if kind == "whole" and seeded:
        raise UserError("whole:FILE writes dialogues from their first word: it takes no --seeds")
    if kind in ("prompt", "whole"):
        instruction = read_text(rest)
        make = Prompted if kind == "prompt" else Whole
        return make(client_for(endpoint), settings, endpoint.model, instruction)
    if kind in ("http", "https"):
        if not tokenizer:
            raise UserError("a user behind an address reads token ids: --tokenizer DIR names the "
                            "checkpoint directory that is served there")
        return Remote(client_for(endpoint), settings, endpoint.model, Tokenizer.load(tokenizer))
    raise UserError(f"--user {user} is no checkpoint directory and no address, and does not "
                    "begin with prompt:, whole: or script:")
