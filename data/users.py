"""
Users other than a trained Socratic on this machine, for `simulate.py --user`.

    https://HOST/v1     Socratic behind a server of completions (vLLM, llama.cpp): token ids only
    prompt:FILE         a chat model told by FILE to play the user, turn by turn (UltraChat's way)
    whole:FILE          a chat model told by FILE to write whole dialogues at once (Baize's way)
    script:NAME         self-chat, role-play or oracle, of scripts.py

Each is joined for one dialogue, join(number, intent, held) -> ask, and ask(turns) gives a question
or None to leave; `held` are the rows of the journal, if the dialogue was begun before. {intent} in
a FILE stands for the dialogue's line of --intents.
Not here: Socratic himself (simulate.py), what scripts say (scripts.py).
"""

import math
import random
import re
from dataclasses import dataclass

import numpy as np

from data.api.budget import Endpoint
from data.api.protocol import Reply, RetriesExhausted, RetryableError, first_choice
from data.program import UserError, read_text
from platolm import LABEL, DialogueEnd, Tokenizer, blanked, prompt, to_messages

# what a prompted user writes to leave
LEAVES = "(leaves)"


@dataclass(frozen=True)
class UserSettings:
    """
    How a simulated user writes.

    max_question: tokens of a question; context: tokens of a dialogue; leave: factor on the odds of
    leaving at each turn; blind: the user does not see the answers.
    """
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    max_question: int = 64
    context: int = 2048
    leave: float = 1.0
    blind: bool = False
    seed: int = 0


class Ask:
    """One dialogue's ask(turns), with nothing to give back when it is over."""

    def __init__(self, ask):
        self.ask = ask

    def __call__(self, turns):
        return self.ask(turns)

    def close(self):
        """Nothing was taken."""


# ------------------------------------------------------------------------------------------------
# Socratic behind an address


def completion_text(page):
    """Text and finish_reason of a completion; nothing at all is a text, too: he leaves."""
    choice, finish = first_choice(page)
    if not isinstance(choice.get("text"), str):
        raise RetryableError("a completion without a text")
    return choice["text"], finish


def leave_probability(page):
    """The probability that nothing would be said, from a completion's logprobs; or a Problem."""
    try:
        likely = page["choices"][0]["logprobs"]["top_logprobs"][0]
        return math.exp(min(0.0, float(likely.get("</s>", -math.inf))))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UserError("--leave needs a server that sends logprobs, and this one does not") from None


def scale_odds(p, odds):
    """A probability whose odds are multiplied: p/(1 - p) becomes odds * p/(1 - p)."""
    return odds * p / (1 - p + odds * p) if odds else 0.0


def overrides(left, p, odds, u):
    """
    Whether the dial turns a decision round: who left is asked to stay, who spoke has to leave.

    They leave with probability p; u uniform in [0, 1) is drawn so that with the dial's help they
    leave with probability dialled(p, odds).
    """
    aim = scale_odds(p, odds)
    return u < ((p - aim) / max(p, 1e-9) if left else (aim - p) / max(1 - p, 1e-9))


class Remote:
    """Socratic on a server: as simulate.Socratic, but the tokens are drawn over there."""
    # so often is somebody asked to stay, at one turn, who wants to leave
    PLEAS = 20

    def __init__(self, client, settings, model, tokenizer):
        self.client, self.settings = client, settings
        self.model, self.tokenizer = model, tokenizer

    def start_dialogue(self, number, intent="", held=()):
        """ask(turns) for one dialogue."""
        return Ask(lambda turns: self.ask(turns, number, intent))

    def ask(self, turns, number, intent):
        """The next question, or None."""
        settings = self.settings
        history = blanked(turns) if settings.blind else turns
        ids = prompt(history, self.tokenizer, "human", intent)
        if len(ids) >= settings.context:
            raise DialogueEnd("context_full")
        stream = np.random.default_rng([settings.seed, number, len(turns)])
        for _ in range(self.PLEAS):
            text, p = self.draw(ids, int(stream.integers(2 ** 31)))
            if text.meta["finish"] == "length":
                raise DialogueEnd("token_limit")
            left = not text.strip()
            if not overrides(left, p, settings.leave, stream.random()):
                return None if left else text
            if not left:
                return None
        return None

    def draw(self, ids, seed):
        """A completion of ids, and how likely it was to be empty (where the dial needs that)."""
        settings, likely = self.settings, [0.5]
        limit = settings.max_question
        body = {"model": self.model, "prompt": ids, "max_tokens": limit, "seed": seed,
                "temperature": settings.temperature, "top_p": settings.top_p}
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.leave != 1:
            body["logprobs"] = 5

        def understand(page):
            if settings.leave != 1:
                likely[0] = leave_probability(page)
            return completion_text(page)
        worst = len(ids), limit
        return self.client.post("/completions", body, worst, understand), likely[0]


# ------------------------------------------------------------------------------------------------
# chat models that are told to be a user


class Prompted:
    """UltraChat's way: a chat model is shown the dialogue and told to go on as the user."""

    def __init__(self, client, settings, model, instruction):
        self.client, self.settings = client, settings
        self.model, self.instruction = model, instruction

    def start_dialogue(self, number, intent="", held=()):
        """ask(turns) for one dialogue."""
        return Ask(lambda turns: self.ask(turns, intent))

    def ask(self, turns, intent):
        """The next question, or None. The instruction comes last: before a dialogue it is lost."""
        told = {"role": "user", "content": self.instruction.replace("{intent}", intent)}
        text = self.client.chat(self.model, to_messages(turns) + [told],
                                self.settings.max_question,
                                temperature=self.settings.temperature)
        if text.meta["finish"] == "length":
            raise DialogueEnd("token_limit")
        if LEAVES in text:
            return None
        return Reply(text.strip().removeprefix(LABEL["human"]), text.meta)


def transcript(text):
    """A written-out dialogue as turns: whole rounds from the first that the human opens."""
    parts = re.split(r"^\s*(Human|Assistant):", text, flags=re.M)
    turns = []
    for label, said in zip(parts[1::2], parts[2::2]):
        who = "human" if label == "Human" else "gpt"
        if said.strip() and who == ("human", "gpt")[len(turns) % 2]:
            turns.append({"from": who, "value": said.strip()})
        elif turns or said.strip():
            break
    return turns[:len(turns) // 2 * 2]


class Whole:
    """Baize's way: one call writes both sides. Both are then said turn by turn, as all others."""

    def __init__(self, client, settings, model, instruction):
        self.client, self.settings = client, settings
        self.model, self.instruction = model, instruction

    def start_dialogue(self, number, intent="", held=()):
        """ask(turns) for one dialogue; its .answer takes the teacher's place."""
        return Transcript(self, intent, held[0]["transcript"] if held else None)

    def write(self, intent):
        """The turns of a new dialogue, and how they came about."""
        told = self.instruction.replace("{intent}", intent)
        text = self.client.chat(self.model, [{"role": "user", "content": told}],
                                self.settings.context, temperature=self.settings.temperature)
        turns = transcript(text)
        # what was cut off is no whole round
        return turns[:-2] if text.meta["finish"] == "length" else turns, text.meta


class Transcript(Ask):
    """
    A dialogue that is written at the first question. It is paid for as a whole, and so it stands
    as a whole in the journal, in the row of that question.
    """

    def __init__(self, whole, intent, turns):
        super().__init__(self.question)
        self.whole, self.intent, self.turns = whole, intent, turns

    def question(self, turns):
        """The next question of the transcript; None after the last."""
        if self.turns is None:
            self.turns, how = self.whole.write(self.intent)
            if not self.turns:
                raise RetriesExhausted('what was written is no dialogue of "Human:" and "Assistant:"')
            how = {**how, "finish": "stop", "transcript": self.turns}
            return Reply(self.turns[0]["value"], how)
        return self.answer(turns) if len(turns) < len(self.turns) else None

    def answer(self, turns):
        """The transcript's own next turn."""
        return self.turns[len(turns)]["value"]


# ------------------------------------------------------------------------------------------------
# scripts, and who is meant


class Scripted:
    """A script of scripts.py; self-chat goes on from a question that is given."""

    def __init__(self, name, seed, seeded):
        from data.harbour.scripts import SCRIPTS
        self.name, self.seed = name, seed
        if self.name not in SCRIPTS:
            raise UserError(f"there is no script {self.name!r}; there are {', '.join(SCRIPTS)}")
        if self.name == "self-chat" and not seeded:
            raise UserError("script:self-chat takes its first questions from --seeds FILE")
        self.script = SCRIPTS[self.name]

    def start_dialogue(self, number, intent="", held=()):
        """ask(turns) for one dialogue."""
        def ask(turns):
            # from the start each time: what was said before an interruption moves its chance, too
            script = self.script(random.Random(f"{self.name} {self.seed} {number}"))
            for said in range(0, len(turns), 2):
                script.ask(turns[:said])
            return script.ask(turns)
        return Ask(ask)


def user_endpoint(user, teacher, name=None, price=None):
    """
    The Endpoint of a user behind an address, or of the chat model of a prompted user.

    user: the word of --user; teacher: an Endpoint; name, price: what --user-model and --user-price
    say. A prompted user lives at the teacher's address and is, if not named, the teacher's model.
    """
    if user.partition(":")[0] in ("http", "https"):
        return Endpoint(user, name or "user", price)
    model = name or teacher.model
    if model == teacher.model:
        price = price or teacher.price
    return Endpoint(teacher.url, model, price)


def make_other_user(user, settings, client_for, endpoint, tokenizer=None, seeded=False):
    """
    The user that the word of --user names, unless it is a checkpoint directory.

    settings: UserSettings; client_for(endpoint) gives a client; endpoint: of a user behind an
    address or a prompted one; tokenizer: the directory of --tokenizer; seeded: whether the first
    questions are given.
    """
    kind, _, rest = user.partition(":")
    if kind == "script":
        return Scripted(rest, settings.seed, seeded)
    if kind == "whole" and seeded:
        raise UserError("whole:FILE writes dialogues from their first word: it takes no --seeds")
    if kind in ("prompt", "whole"):
        instruction = read_text(rest)
        make = Prompted if kind == "prompt" else Whole
        return make(client_for(endpoint), settings, endpoint.model, instruction)
    if kind in ("http", "https"):
        if not tokenizer:
            raise UserError("a user behind an address is asked in token ids: --tokenizer DIR names "
                          "the checkpoint directory that is served there")
        return Remote(client_for(endpoint), settings, endpoint.model, Tokenizer.load(tokenizer))
    raise UserError(f"--user {user} is no checkpoint directory and no address, and does not "
                  "begin with prompt:, whole: or script:")
