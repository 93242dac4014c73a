"""
Places in people's dialogues where a person spoke, or left; and what a user says there instead.

Not here: what is measured of it (card.py), the users (simulate.py, users.py).
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from data.api.budget import Endpoint, is_loopback
from data.api.journal import Journal
from data.api.request_pool import ask_all, journalled_texts, raise_if_incomplete
from data.checkpoint import read_config
from data.formats.files import read_dialogues
from data.measure.mtbench import text_hash
from data.program import UserError, Progress, read_text
from data.text_metrics import act
from data.users import user_endpoint
from platolm import Tokenizer, encode, turns
from simulate import make_user, user_settings


class HumanTurn(NamedTuple):
    """A place in a dialogue where a human spoke, or left."""
    dialogue: int                                   # its index
    number: int                                     # of human turns before it
    before: list                                    # what was read: all earlier turns
    said: str | None                                # None: the human left
    kind: str                                       # of turn
    intent: str = ""


def human_turns(records):
    """All places of some dialogues. A turn's kind is the record's own, or else by its words."""
    found = []
    for i, record in enumerate(records):
        said, number, kinds = record["conversations"], 0, record.get("kinds", ())
        for j, turn in enumerate(said):
            if turn["from"] == "human":
                kind = kinds[number] if number < len(kinds) else act(turn["value"])
                found.append(HumanTurn(i, number, said[:j], turn["value"], kind,
                                   record.get("intent", "")))
                number += 1
        if record.get("end") == "left" and said[-1]["from"] == "gpt":
            found.append(HumanTurn(i, number, said, None, "leaves", record.get("intent", "")))
    return found


def split_halves(records, seed=0):
    """Two halves of some dialogues, at random: the reference, and whose places are taken."""
    order = np.random.default_rng(seed).permutation(len(records))
    middle = len(records) // 2
    return tuple([records[i] for i in sorted(half)] for half in (order[:middle], order[middle:]))


def swap_answers(records):
    """
    The same dialogues, but each answer is the one of the same number in the next dialogue; where
    that has fewer, they come round again.
    """
    answers = [[turn["value"] for turn in record["conversations"] if turn["from"] == "gpt"]
               for record in records]
    found = []
    for i, record in enumerate(records):
        others, said = answers[(i + 1) % len(records)] or [""], record["conversations"]
        numbers = np.cumsum([turn["from"] == "gpt" for turn in said]) - 1
        found.append(record | {"conversations": [
            turn if turn["from"] == "human" else turn | {"value": others[n % len(others)]}
            for turn, n in zip(said, numbers)]})
    return found


def readable_dialogues(path, most, directories):
    """The first dialogues of a file that these users can read to the end; others are counted."""
    records = list(islice(read_dialogues(path), most))
    rooms = [(Tokenizer.load(word), read_config(Path(word)).context) for word in directories]
    fits = [record for record in records if all(
        len(encode(turns(record), tokenizer, "human", record.get("intent", ""))[0]) <= context
        for tokenizer, context in rooms)]
    if len(fits) < len(records):
        print(f"{path}: {len(records) - len(fits)} of {len(records)} dialogues are longer than "
              "what these users can read, and left out")
    if len(fits) < 20:
        raise UserError(f"{path} holds {len(fits)} dialogues that can be read; a card needs 20")
    return fits


def ask_user_at(user, number, place):
    """What a user says at a place; "" where he leaves."""
    ask = user.start_dialogue(number, place.intent)
    try:
        return ask(place.before) or ""
    finally:
        ask.close()


# what decides what a user says at a place, besides the place
SETTINGS = ("temperature", "top_k", "top_p", "leave", "seed", "max_question", "model",
            "user_model", "blind")


def is_paid(word, args):
    """Whether a user is behind an address that may want money: then nothing is asked twice."""
    kind = word.partition(":")[0]
    if kind == "prompt" and not args.teacher:
        raise UserError("a prompted user needs --teacher URL: the chat model that is told to be one")
    address = {"prompt": args.teacher, "http": word, "https": word}.get(kind)
    return bool(address) and (bool(args.price or args.user_price) or not is_loopback(address))


def request_keys(word, places, args):
    """What each place is called in a journal; the same words, asked for again, have a number."""
    kind, _, file = word.partition(":")
    how = read_text(file) if kind == "prompt" else word
    who, times = [how, *(str(getattr(args, name)) for name in SETTINGS)], Counter()
    for place in places:
        read = repr((place.intent, [turn["value"] for turn in place.before]))
        yield text_hash(*who, read, str(times[read]))
        times[read] += 1


def ask_at_turns(word, places, args, client_for, journal, stop):
    """
    What the user `word` says at each place: a text, "" for leaving, None where nothing came of it;
    and how often that was, {why: count}.
    """
    if word.startswith("whole:"):
        raise UserError("whole:FILE writes both sides; it has nothing to say in another's dialogue")
    paid, names = is_paid(word, args), list(request_keys(word, places, args))
    settings = replace(user_settings(args), blind=args.blind and word == args.user)
    endpoint = user_endpoint(word, Endpoint(args.teacher, args.model, args.price), args.user_model,
                             args.user_price)
    user = make_user(word, settings, client_for, endpoint, args.in_flight, args.tokenizer)
    with TemporaryDirectory() as folder:
        # what was paid for is kept; what is free is asked for anew
        said = journal if paid else Journal(f"{folder}/said", {})
        tasks = {name: partial(ask_user_at, user, i, place)
                 for i, (name, place) in enumerate(zip(names, places)) if not said.turns(name)}
        told = Progress(word[-20:], len(tasks), unit="turns")
        failed = ask_all(said, tasks, args.in_flight, stop, told)
        texts = [next(iter(journalled_texts(said, name)), None) for name in names]
        if not paid:
            said.close()
    if hasattr(user, "close"):
        user.close()
    raise_if_incomplete(failed.values(), "turns")
    return texts, dict(Counter(failed.values()))
