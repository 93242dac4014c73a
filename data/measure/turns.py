"""
Human turns: where a person spoke or left in a dialogue, and what a simulated user does there.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from data.api.budget import Endpoint, is_loopback
from data.api.journal import Journal
from data.api.request_pool import ask_all, journalled_texts, raise_if_incomplete
from data.formats.files import read_dialogues
from data.measure.mtbench import text_hash
from data.program import Progress, UserError, read_text
from data.text_metrics import act
from data.users import UserSettings, user_endpoint
from platolm import Tokenizer, encode, turns
from simulate import make_user


class HumanTurn(NamedTuple):
    """A point in a dialogue where the human spoke, or left."""
    dialogue: int                                   # its index
    number: int                                     # human turns before this one
    before: list                                    # all turns before it, of both sides
    text: str | None                                # None: the human left
    kind: str                                       # of turn
    intent: str = ""


def human_turns(records):
    """
    List the human turns of some dialogues, in order; a human who left has one turn more.

    A turn's kind is what the record's "kinds" say or, without them, what its words show (act).
    """
    rows = []
    for i, record in enumerate(records):
        conversation = record["conversations"]
        kinds = record.get("kinds", ())
        intent = record.get("intent", "")
        number = 0
        for j, turn in enumerate(conversation):
            if turn["from"] == "human":
                kind = kinds[number] if number < len(kinds) else act(turn["value"])
                rows.append(HumanTurn(i, number, conversation[:j], turn["value"], kind, intent))
                number += 1
        if record.get("end") == "left" and conversation[-1]["from"] == "gpt":
            rows.append(HumanTurn(i, number, conversation, None, "leaves", intent))
    return rows


def split_halves(records, seed=0):
    """Split some dialogues at random into two lists of the same size, each in its old order."""
    order = np.random.default_rng(seed).permutation(len(records))
    middle = len(records) // 2
    first, second = sorted(order[:middle]), sorted(order[middle:])
    return [records[i] for i in first], [records[i] for i in second]


def swap_answers(records):
    """
    Copy some dialogues with the answers of others: those of the same number in the next dialogue.

    A dialogue with fewer answers starts again with its first; the last dialogue gets the first's.
    """
    answers = []
    for record in records:
        answers.append([turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"])
    swapped = []
    for i, record in enumerate(records):
        others = answers[(i + 1) % len(records)] or [""]
        conversation = []
        number = 0
        for turn in record["conversations"]:
            if turn["from"] == "gpt":
                turn = turn | {"value": others[number % len(others)]}
                number += 1
            conversation.append(turn)
        swapped.append(record | {"conversations": conversation})
    return swapped


def fits_context(record, tokenizer, context):
    """Whether a dialogue, as a user reads it, has at most `context` tokens."""
    ids, _ = encode(turns(record), tokenizer, "human", record.get("intent", ""))
    return len(ids) <= context


def readable_dialogues(path, most, directories):
    """
    Read the first `most` dialogues of a file, without those too long for one of some checkpoints.

    directories: checkpoint directories. What is left out is counted and printed; a UserError if
    fewer than 20 are left.
    """
    from data.checkpoint import read_config
    records = list(islice(read_dialogues(path), most))
    readers = [(Tokenizer.load(directory), read_config(Path(directory)).context)
               for directory in directories]
    readable = []
    for record in records:
        if all(fits_context(record, tokenizer, context) for tokenizer, context in readers):
            readable.append(record)
    if len(readable) < len(records):
        print(f"{path}: {len(records) - len(readable)} of {len(records)} dialogues are longer than "
              "what these users can read, and left out")
    if len(readable) < 20:
        raise UserError(f"{path} holds {len(readable)} dialogues that can be read; a card needs 20")
    return readable


# ------------------------------------------------------------------------------------------------
# what a simulated user does at human turns


@dataclass(frozen=True)
class AskSettings:
    """
    How simulated users are asked at human turns.

    teacher: the Endpoint of a prompted user (its url None: there is none); user_model, user_price:
    another model's name and price, if the user is not the teacher's; tokenizer: the checkpoint
    directory of a user behind an address; in_flight: turns at a time.
    """
    user: UserSettings
    teacher: Endpoint
    user_model: str | None = None
    user_price: tuple | None = None
    tokenizer: str | None = None
    in_flight: int = 64

    def deciding(self):
        """The settings that decide what a user says, in the order that request keys have them."""
        user = self.user
        return {"temperature": user.temperature, "top_k": user.top_k, "top_p": user.top_p,
                "leave": user.leave, "seed": user.seed, "max_question": user.max_question,
                "model": self.teacher.model, "user_model": self.user_model, "blind": user.blind}


def is_paid(user, endpoint, priced):
    """
    Whether a user may cost money: it is on a server that has a price, or is not of this machine.

    user: the word of --user; priced: whether the caller named a price.
    """
    if user.partition(":")[0] not in ("prompt", "http", "https"):
        return False
    return priced or not is_loopback(endpoint.url)


def request_keys(user, human_turns, deciding):
    """
    Yield a key for each human turn, under which a user's text there is kept in a journal.

    user: the word of --user; deciding: AskSettings.deciding(). Turns with the same history have
    different keys: they are numbered.
    """
    kind, _, file = user.partition(":")
    speaker = read_text(file) if kind == "prompt" else user
    values = [str(value) for value in deciding.values()]
    counts = Counter()
    for turn in human_turns:
        history = repr((turn.intent, [earlier["value"] for earlier in turn.before]))
        yield text_hash(speaker, *values, history, str(counts[history]))
        counts[history] += 1


def ask_at_turn(user, number, turn):
    """A user's text at a HumanTurn, "" if it leaves; number: seeds its random stream."""
    ask = user.start_dialogue(number, turn.intent)
    try:
        return ask(turn.before) or ""
    finally:
        ask.close()


def ask_at_turns(user, human_turns, settings, blind, client_for, journal, stop):
    """
    Ask a simulated user at every human turn, with the history that the human had.

    user: the word of --user; settings: AskSettings; blind: whether this user sees no answers;
    client_for, journal, stop: as of judge.open_journal. Returns the texts, "" for leaving and None
    for a request that failed, and the reasons of failures, {reason: count}.
    """
    if user.startswith("whole:"):
        raise UserError("whole:FILE writes both sides; it has nothing to say in another's dialogue")
    if user.startswith("prompt:") and not settings.teacher.url:
        raise UserError("a prompted user needs --teacher URL: the chat model that is told to be "
                        "one")
    endpoint = user_endpoint(user, settings.teacher, settings.user_model, settings.user_price)
    paid = is_paid(user, endpoint, bool(settings.teacher.price or settings.user_price))
    keys = list(request_keys(user, human_turns, settings.deciding()))
    speaker = make_user(user, replace(settings.user, blind=blind), client_for, endpoint,
                        settings.in_flight, settings.tokenizer)
    with TemporaryDirectory() as folder:
        # what was paid for is not asked for twice; what is free leaves no trace
        answers = journal if paid else Journal(f"{folder}/journal", {})
        tasks = {}
        for i, (key, turn) in enumerate(zip(keys, human_turns)):
            if not answers.turns(key):
                tasks[key] = partial(ask_at_turn, speaker, i, turn)
        progress = Progress(user[-20:], len(tasks), unit="turns")
        failures = ask_all(answers, tasks, settings.in_flight, stop, progress)
        texts = []
        for key in keys:
            journalled = journalled_texts(answers, key)
            texts.append(journalled[0] if journalled else None)
        if not paid:
            answers.close()
    if hasattr(speaker, "close"):
        speaker.close()
    raise_if_incomplete(failures.values(), "turns")
    return texts, dict(Counter(failures.values()))
