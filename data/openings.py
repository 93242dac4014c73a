"""
What is given before a simulation starts: how each dialogue begins, and the settings it depends on.

`openings` lists the dialogues of a run (from seeds, intents and shards); `simulation_settings` is
the first line of its journal.
"""

import math
from pathlib import Path
from typing import NamedTuple

from data.program import UserError, file_hash, read_jsonl, read_text
from platolm import record_error


class Opening(NamedTuple):
    """What is given of a dialogue before it begins."""
    number: int
    name: str
    turns: tuple = ()                               # given: a first question, or whole rounds
    seed: str = None                                # the id of the record that gave the turns
    intent: str = ""                                # who the human is, or what is wanted


def read_seeds(path, rounds):
    """
    Yield (id, turns) for each dialogue or question of a file: the turns that it gives as a start.

    rounds 0: the first question alone; more: so many whole first rounds. A dialogue that is
    shorter is left out, and counted.
    """
    length = max(1, 2 * rounds)
    short = 0
    for number, record in enumerate(read_jsonl(path, seed_error), 1):
        turns = record.get("conversations") or [{"from": "human", "value": record["turns"][0]}]
        # other keys of a turn tell how to train on it
        turns = [{"from": turn["from"], "value": turn["value"]} for turn in turns]
        if turns[0]["from"] != "human":
            turns = turns[1:]
        if len(turns) >= length:
            yield str(record.get("id", record.get("question_id", number))), turns[:length]
        else:
            short += 1
    if short:
        print(f"{path}: {short:,} of {number:,} begin with fewer than {rounds} whole rounds and "
              "are left out")


def seed_error(record):
    """Say in a few words why a record cannot be a seed; None if it can."""
    if "conversations" in record:
        return record_error(record)
    questions = record.get("turns")
    if isinstance(questions, list) and questions and isinstance(questions[0], str):
        if questions[0].strip():
            return None
    return 'neither "conversations" nor "turns"'


def read_intents(path):
    """Read the lines of a file of intents, without the blank ones."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    return [line for line in lines if line]


def openings(dialogues=None, seeds=None, seed_rounds=0, times=1, intents=None, shard=(1, 1)):
    """
    Yield the Opening of each dialogue of a run, in order.

    dialogues: how many (None: 1,000, or all that the seeds give); seeds: a file, each dialogue of
    it used `times` times with `seed_rounds` rounds of it given; intents: a file of lines, used in
    turn; shard (i, n): only the i-th of every n dialogues.
    """
    given = list(read_seeds(seeds, seed_rounds)) if seeds else []
    lines = read_intents(intents) if intents else []
    for file, content in ((seeds, given), (intents, lines)):
        if file and not content:
            raise UserError(f"{file} holds nothing to begin with")
    if not given and (seed_rounds or times > 1):
        raise UserError("--seed-rounds and --times say what to do with --seeds FILE")
    count = dialogues or 1000
    if given:
        count = min(dialogues or math.inf, len(given) * times)
    first, step = shard
    for number in range(first - 1, count, step):
        seed, turns = given[number // times] if given else (None, ())
        intent = lines[number % len(lines)] if lines else ""
        yield Opening(number, f"socratic-{number:06d}", turns, seed, intent)


# flags that change nothing in the texts: where and how fast a run happens, and what it may cost
UNRECORDED = ("teacher", "out", "dialogues", "in_flight", "requests_per_minute", "minutes",
              "tokens_per_minute", "timeout", "patience", "max_dollars", "price", "user_price",
              "dry_run")


def simulation_settings(flags):
    """
    Reduce the flags of simulate.py {name: value} to those on which the texts depend.

    Files, and a checkpoint as --user, stand as their size and hash, wherever they lie; --tokenizer
    stands as its path. A journal with other settings belongs to another run.
    """
    settings = {name: value for name, value in flags.items() if name not in UNRECORDED}
    for name in ("system", "seeds", "intents"):
        settings[name] = flags[name] and file_hash(Path(flags[name]))
    settings["shard"] = "{}/{}".format(*flags["shard"])
    user = flags["user"]
    kind, _, file = user.partition(":")
    if kind in ("http", "https"):
        # like a teacher's, the address of a user may change
        settings["user"] = "a server"
    elif kind in ("prompt", "whole"):
        settings["user"] = f"{kind}:{file_hash(Path(file))}"
    elif Path(user).is_dir():
        # of a checkpoint in several files, their index
        # here, as it imports torch, which takes seconds
        from data.checkpoint import weight_file
        path = weight_file(user)
        if not path.exists():
            raise UserError(f"{user} is no checkpoint directory: it has no {path.name}")
        settings["user"] = file_hash(path)
    return settings
