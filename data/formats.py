"""
Files as others write them: JSON lines or one JSON array, told apart by what is in them.

An array is read piece by piece, so that it may be larger than the memory.

    python -m data.formats FILE --out human.jsonl --held-out held-out.jsonl --where source=hh

turns it into our records, a line each, some of them held out. Not here: what a dialogue must look
like (platolm.wrong), the files of benches (mtbench.py).
"""

import argparse
import json
from itertools import count

import numpy as np

from platolm import Problem, positive, run, sound, write, wrong

PIECE = 1 << 20


def items(path, check=wrong):
    """The JSON objects of a file, one by one; one that `check` finds wrong is a Problem."""
    number = 0
    with open(path, encoding="utf-8-sig") as file:
        try:
            found = array if first(file) == "[" else lines
            for number, item in enumerate(found(file), 1):
                try:
                    yield sound(item, check)
                except ValueError as error:
                    raise Problem(f"{path}, item {number}: {error}") from None
        except UnicodeDecodeError:
            raise Problem(f"{path} is not a UTF-8 text file") from None
        except (ValueError, RecursionError) as error:
            raise Problem(f"{path}, after item {number}: not JSON ({error})") from None


def dialogues(path):
    """The dialogues of a file; other items, like a base model's texts, are passed over."""
    return (item for item in items(path) if "conversations" in item)


def first(file):
    """The first character of a file that is no space; the file is wound back."""
    character = " "
    while character.isspace():
        character = file.read(1)
    file.seek(0)
    return character


def lines(file):
    """The values of a file with one on each line."""
    return (json.loads(text) for text in file if text.strip())


def array(file):
    """The elements of a JSON array, however long it is; those must be objects."""
    decode, text = json.JSONDecoder().raw_decode, file.read(PIECE).lstrip()
    place = 1
    while True:
        while text[place:place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        if text[place:place + 1] == "]":
            return
        try:
            if text[place:place + 1] not in ("{", ""):
                raise ValueError("an array of something else than objects")
            item, place = decode(text, place)
            yield item
        except json.JSONDecodeError:
            # a piece of the file may end within an object
            text, place = text[place:], 0
            more = file.read(max(PIECE, len(text)))
            if not more:
                raise
            text += more


def records(path, where):
    """
    The dialogues of a file that have these words under these keys {key: word}, with ids. Who has
    the last answer and says no more has left, unless the record tells otherwise.
    """
    number = count()
    for item in dialogues(path):
        if all(str(item.get(key)) == word for key, word in where.items()):
            end = "left" if item["conversations"][-1]["from"] == "gpt" else "cut"
            yield {"id": str(next(number)), "end": end, **item}


def main():
    """Write the dialogues of a file as records, some of them held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("file", help="dialogues: ShareGPT's array, or a record a line")
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--held-out", required=True, help="JSONL file of those held out")
    parser.add_argument("--share", type=positive, default=10, help="one in so many held out (10)")
    parser.add_argument("--where", nargs="*", default=[], metavar="KEY=WORD", help="only these")
    args = parser.parse_args()
    found = list(records(args.file, dict(word.split("=", 1) for word in args.where)))
    if len(found) < args.share:
        raise Problem(f"{args.file} holds {len(found)} such dialogues: too few to hold some out")
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    held = set(order[:len(found) // args.share])
    write(args.held_out, (record for i, record in enumerate(found) if i in held))
    write(args.out, (record for i, record in enumerate(found) if i not in held))
    print(f"{args.out}: {len(found) - len(held):,} dialogues; {args.held_out}: {len(held):,}")


if __name__ == "__main__":
    run(main)
