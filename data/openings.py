"""
What a simulation is to be, before anything is said: its dialogues, and the settings they hang on.

Here: what is given of each dialogue (seeds, intents, shards), what a flag may be, settings_of. Not
here: the dialogues themselves (simulate.py), what they would cost (budget.py).
"""

import math
from pathlib import Path
from typing import NamedTuple

from data.checkpoint import weight_file
from data.program import UserError, file_hash, read_jsonl, read_text
from platolm import record_error


class Opening(NamedTuple):
    """What is given of a dialogue before it begins."""
    number: int
    name: str
    turns: tuple = ()                               # said already: a question, or whole rounds
    seed: str = None                                # the id of the record they are from
    intent: str = ""                                # who the human is, or what is wanted


def read_seeds(path, rounds):
    """
    What the dialogues or questions of a file give as a start: (id, turns).

    rounds 0: the first question alone; more: so many whole first rounds. What is shorter is left
    out, and counted.
    """
    short = 0
    for number, record in enumerate(read_jsonl(path, seed_error), 1):
        said = record.get("conversations") or [{"from": "human", "value": record["turns"][0]}]
        # who they are and what they said; not how it was learnt
        said = [{"from": turn["from"], "value": turn["value"]} for turn in said]
        said = said[said[0]["from"] != "human":][:max(1, 2 * rounds)]
        if len(said) == max(1, 2 * rounds):
            yield str(record.get("id", record.get("question_id", number))), said
        else:
            short += 1
    if short:
        print(f"{path}: {short:,} of {number:,} begin with fewer than {rounds} whole rounds and "
              "are left out")


def seed_error(record):
    """What is wrong with a record as a seed, in a few words; None if nothing is."""
    if "conversations" in record:
        blank = "a turn says nothing"
        return record_error(record) or (blank if any(not turn["value"].strip() for turn in
                                              record["conversations"]) else None)
    questions = record.get("turns")
    fine = isinstance(questions, list) and questions and isinstance(questions[0], str)
    return None if fine and questions[0].strip() else 'neither "conversations" nor "turns"'


def openings(args):
    """The dialogues of this run, in order; with --shard i/n, one in n of them."""
    given = list(read_seeds(args.seeds, args.seed_rounds)) if args.seeds else []
    intents = read_text(args.intents).splitlines() if args.intents else []
    intents = [line.strip() for line in intents if line.strip()]
    for file, found in ((args.seeds, given), (args.intents, intents)):
        if file and not found:
            raise UserError(f"{file} holds nothing to begin with")
    intents = intents or [""]
    if not given and (args.seed_rounds or args.times > 1):
        raise UserError("--seed-rounds and --times say what to do with --seeds FILE")
    most = len(given) * args.times if given else 1000
    count = min(args.dialogues or most, most if given else math.inf)
    shard, shards = args.shard
    for n in range(shard - 1, count, shards):
        seed, turns = given[n // args.times] if given else (None, ())
        yield Opening(n, f"socratic-{n:06d}", turns, seed, intents[n % len(intents)])


# how it is run and where it is written changes nothing that is said
ELSEWHERE = ("teacher", "out", "dialogues", "in_flight", "requests_per_minute", "minutes",
             "tokens_per_minute", "timeout", "patience", "max_dollars", "price", "user_price",
             "dry_run")


def simulation_settings(args):
    """What decides what is said: a journal of other settings is of another run."""
    found = {name: value for name, value in vars(args).items() if name not in ELSEWHERE}
    for name in ("system", "seeds", "intents"):
        found[name] = getattr(args, name) and file_hash(Path(getattr(args, name)))
    found["shard"] = "{}/{}".format(*args.shard)
    kind, _, file = args.user.partition(":")
    if kind in ("http", "https"):
        # as a teacher's, its address may change
        found["user"] = "a server"
    elif kind in ("prompt", "whole"):
        found["user"] = f"{kind}:{file_hash(Path(file))}"
    elif Path(args.user).is_dir():
        # of a checkpoint in pieces, their index
        path = weight_file(args.user)
        if not path.exists():
            raise UserError(f"{args.user} is no checkpoint directory: it has no {path.name}")
        found["user"] = file_hash(path)
    return found
