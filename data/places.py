"""
Places in people's dialogues where a person spoke, or left; and what a user says there instead.

Not here: what is measured of it (card.py), the users (simulate.py, users.py).
"""

import argparse
from collections import Counter
from functools import partial
from itertools import islice
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from data.errands import errands, kept, nothing_missing
from data.formats import items
from data.journal import Journal
from data.mtbench import name_of
from data.texts import act
from model import Llama
from platolm import Problem, Tokenizer, encode, read_text, turns
from simulate import Progress, user_of


class Place(NamedTuple):
    """A place in a dialogue where a human spoke, or left (said is None)."""
    dialogue: int
    number: int                                     # of human turns before it
    before: list                                    # what was read: all earlier turns
    said: str
    kind: str
    intent: str = ""


def places_of(records):
    """All places of some dialogues. A turn's kind is the record's own, or else by its words."""
    found = []
    for i, record in enumerate(records):
        said, number, kinds = record["conversations"], 0, record.get("kinds", ())
        for j, turn in enumerate(said):
            if turn["from"] == "human":
                kind = kinds[number] if number < len(kinds) else act(turn["value"])
                found.append(Place(i, number, said[:j], turn["value"], kind,
                                   record.get("intent", "")))
                number += 1
        if record.get("end") == "left" and said[-1]["from"] == "gpt":
            found.append(Place(i, number, said, None, "leaves", record.get("intent", "")))
    return found


def halves(records, seed=0):
    """Two halves of some dialogues, at random: the reference, and whose places are taken."""
    order = np.random.default_rng(seed).permutation(len(records))
    middle = len(records) // 2
    return tuple([records[i] for i in sorted(half)] for half in (order[:middle], order[middle:]))


def exchanged(records):
    """The same dialogues, but each answer is one that was given as late in the next dialogue."""
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


def people_of(path, most, directories):
    """The first dialogues of a file that these users can read to the end; others are counted."""
    records = list(islice(items(path), most))
    rooms = [(Tokenizer.load(word), Llama.load(word).config.context)
             for word in directories]
    fits = [record for record in records if all(
        len(encode(turns(record), tokenizer, "human", record.get("intent", ""))[0]) <= context
        for tokenizer, context in rooms)]
    if len(fits) < len(records):
        print(f"{path}: {len(records) - len(fits)} of {len(records)} dialogues are longer than "
              "what these users can read, and left out")
    if len(fits) < 20:
        raise Problem(f"{path} holds {len(fits)} dialogues that can be read; a card needs 20")
    return fits


def say_at(user, number, place):
    """What a user says at a place; "" where he leaves."""
    ask = user.join(number, place.intent)
    try:
        return ask(place.before) or ""
    finally:
        ask.leave()


def ask_at(word, places, args, reach, journal, stop):
    """
    What the user `word` says at each place: a text, "" for leaving, None where nothing came of it;
    and how often that was, by why.
    """
    asking = argparse.Namespace(**{**vars(args), "user": word, "blind": args.blind
                                   and word == args.user, "seeds": None})
    kind, _, file = word.partition(":")
    if kind == "whole":
        raise Problem("whole:FILE writes both sides; it has nothing to say in another's dialogue")
    user, how = user_of(asking, reach), read_text(file) if kind == "prompt" else word
    who = [how, str(args.user_model or args.model), str(args.temperature), str(args.seed)]
    names = [name_of(*who, place.intent, *(turn["value"] for turn in place.before), str(i))
             for i, place in enumerate(places)]
    with TemporaryDirectory() as folder:
        # what is paid for is remembered; what is drawn here is drawn again
        paid = kind in ("prompt", "http", "https")
        said = journal if paid else Journal(f"{folder}/said", {})
        tasks = {name: partial(say_at, user, i, place)
                 for i, (name, place) in enumerate(zip(names, places)) if not said.turns(name)}
        told = Progress(word[-20:], len(tasks), of="turns")
        failed = errands(said, tasks, args.in_flight, stop, told)
        texts = [next(iter(kept(said, name)), None) for name in names]
        if not paid:
            said.close()
    if hasattr(user, "close"):
        user.close()
    nothing_missing(failed.values(), "turns")
    return texts, dict(Counter(failed.values()))
