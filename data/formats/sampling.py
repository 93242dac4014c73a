"""
Samples of equal size of the data sets that the paper compares with, and of its seeds.

    python -m data.formats.sampling --like ultrachat sector1.json sector2.json --out x.jsonl

    vicuna      ShareGPT's dialogues; of those in segments the first segment
    baize       dialogues of each file in proportion to its size
    ultrachat   the same
    wizard      seeds: a question and its answer, but none that is from Alpaca
    dolly       seeds: questions, of each category in proportion to its size; some with a context

The files are read twice, to count and to draw, so that they may be larger than the memory.
"""

import argparse
import random
import re
from collections import Counter

from data.formats.files import print_skipped, read_dialogues, read_items, save
from data.program import (UserError, natural_int, positive_int, require_apart, require_keys,
                          run)

# Dolly's categories of questions about a given text, and how the question then begins
CONTEXT_TASKS = {"closed_qa": "answering a question from a text",
                 "summarization": "summing up a text",
                 "information_extraction": "finding facts in a text"}


def is_later_segment(record):
    """Tell whether a record is a segment of a dialogue but not its first, which ends in "_0"."""
    return "segment_of" in record and not re.fullmatch(r".*_0", record.get("id", "_0"))


def is_from_alpaca(record):
    """Tell whether a dialogue of WizardLM's was taken over from Alpaca."""
    return record.get("id", "").startswith("alpaca_")


def dolly_seed(row, number):
    """Make a seed of a row of Dolly's: the instruction, with task and context if it has them."""
    text = row["instruction"]
    if row["category"] in CONTEXT_TASKS:
        task = CONTEXT_TASKS[row["category"]]
        text = f"The task is {task}.\n\n{text}\n\n{row.get('context') or ''}"
    return {"id": f"dolly_{number}", "category": row["category"],
            "conversations": [{"from": "human", "value": text.strip()}]}


def candidates(path, like, skipped):
    """
    Yield (stratum, record) for the records of a file that may be drawn.

    The stratum is the path or, for Dolly, the category; the Counter `skipped` counts the records
    that are left out, by reason.
    """
    if like == "dolly":
        rows = read_items(path, require_keys("instruction", "category"))
        for number, row in enumerate(rows):
            yield row["category"], dolly_seed(row, number)
        return
    for record in read_dialogues(path, skipped):
        if like == "vicuna" and is_later_segment(record):
            skipped["a later segment"] += 1
        elif like == "wizard" and is_from_alpaca(record):
            skipped["from Alpaca"] += 1
        elif like == "wizard" and len(record["conversations"]) != 2:
            skipped["more or less than a question and its answer"] += 1
        else:
            yield path, record


def quotas(sizes, number):
    """
    Divide `number` in proportion to sizes {name: size}; the largest remainders are rounded up.

    quotas({"a": 5, "b": 3, "c": 2}, 4)  ->  {"a": 2, "b": 1, "c": 1}
    """
    total = sum(sizes.values())
    shares = {name: number * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(number * sizes[name] % total))
    missing = number - sum(shares.values())
    for name in by_remainder[:missing]:
        shares[name] += 1
    return shares


def draw(files, like, indices):
    """Yield the records with these indices {stratum: set of ints}, in the order of the files."""
    seen = Counter()
    for path in files:
        for stratum, record in candidates(path, like, Counter()):
            if seen[stratum] in indices[stratum]:
                yield record
            seen[stratum] += 1


def main():
    """Draw a sample, and print how much of each stratum it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("files", nargs="+", help="dialogues in any format of dialogues.py; Dolly's own lines")
    add("--like", required=True, choices=("vicuna", "baize", "ultrachat", "wizard", "dolly"))
    add("--out", required=True, help="JSONL file to write")
    add("--number", type=positive_int, default=10_000)
    add("--seed", type=natural_int, default=125)
    args = parser.parse_args()
    require_apart([args.out], args.files)
    skipped = Counter()
    sizes = Counter()
    for path in args.files:
        sizes.update(stratum for stratum, _ in candidates(path, args.like, skipped))
    print_skipped(skipped)
    if not sizes:
        raise UserError(f"{', '.join(args.files)}: nothing to draw from")
    number = min(args.number, sizes.total())
    rng = random.Random(args.seed)
    shares = quotas(sizes, number)
    indices = {name: set(rng.sample(range(sizes[name]), share)) for name, share in shares.items()}
    save(args.out, draw(args.files, args.like, indices))
    for name, share in shares.items():
        print(f"{share:>9,} of {sizes[name]:>9,}  {name}")
    fewer = f", all there are; {args.number:,} were asked for" if number < args.number else ""
    print(f"{args.out}: {number:,} dialogues{fewer}")


if __name__ == "__main__":
    run(main)
