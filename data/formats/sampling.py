"""
Samples of equal size of the data that the paper compares with, and of its seeds.

    python -m data.formats.sampling --like ultrachat sector1.json sector2.json --out x.jsonl

    vicuna      ShareGPT's dialogues, of those that were split the first segments
    baize       from each file in proportion to its size
    ultrachat   the same
    wizard      seeds: a question and its answer, but none that is from Alpaca
    dolly       seeds: questions, from each category in proportion; some come with a text

The files are read twice, first to count and then to draw, so that they may be larger than the
memory. Not here: the formats (dialogues.py), the use of seeds (simulate.py --seeds).
"""

import argparse
import random
import re
from collections import Counter
from pathlib import Path

from data.formats.files import read_dialogues, read_items, save, print_skipped
from data.program import UserError, require_keys, positive_int, run

# what is asked about a text, and the name of such a task
ABOUT = {"closed_qa": "answering a question from a text", "summarization": "summing up a text",
         "information_extraction": "finding facts in a text"}


def later(record):
    """Whether it is a segment of a dialogue, and not its first, "abc_0"."""
    return "segment_of" in record and not re.fullmatch(r".*_0", record.get("id", "_0"))


def from_alpaca(record):
    """Whether one of WizardLM's dialogues is an old one of Alpaca's."""
    return record.get("id", "").startswith("alpaca_")


def asked(row, number):
    """One of Dolly's rows as the question alone; if it is about a text, with its task and that."""
    words = row["instruction"]
    if row["category"] in ABOUT:
        words = f"The task is {ABOUT[row['category']]}.\n\n{words}\n\n{row.get('context') or ''}"
    return {"id": f"dolly_{number}", "category": row["category"],
            "conversations": [{"from": "human", "value": words.strip()}]}


def pairs(path, like, bad):
    """The records of a file that may be drawn, each with the stratum that it belongs to."""
    if like == "dolly":
        for number, row in enumerate(read_items(path, require_keys("instruction", "category"))):
            yield row["category"], asked(row, number)
        return
    for record in read_dialogues(path, bad):
        if like == "vicuna" and later(record):
            bad["a later segment"] += 1
        elif like == "wizard" and from_alpaca(record):
            bad["from Alpaca"] += 1
        elif like == "wizard" and len(record["conversations"]) != 2:
            bad["more or less than a question and its answer"] += 1
        else:
            yield path, record


def quotas(sizes, number):
    """
    So many in proportion to some sizes {name: size}; the largest remainders are rounded up.

    quotas({"a": 5, "b": 3, "c": 2}, 4)  ->  {"a": 2, "b": 1, "c": 1}
    """
    total = sum(sizes.values())
    found = {name: number * size // total for name, size in sizes.items()}
    rest = sorted(sizes, key=lambda name: -(number * sizes[name] % total))
    for name in rest[:number - sum(found.values())]:
        found[name] += 1
    return found


def sample(files, like, drawn):
    """The records at these places {stratum: numbers} of the files, in the order of the files."""
    seen = Counter()
    for path in files:
        for stratum, record in pairs(path, like, Counter()):
            if seen[stratum] in drawn[stratum]:
                yield record
            seen[stratum] += 1


def main():
    """Draw a sample, and say what it is of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("files", nargs="+", help="dialogues in any format of dialogues.py; Dolly's own lines")
    add("--like", required=True, choices=("vicuna", "baize", "ultrachat", "wizard", "dolly"))
    add("--out", required=True, help="JSONL file to write")
    add("--number", type=positive_int, default=10_000)
    add("--seed", type=int, default=125)
    args = parser.parse_args()
    if Path(args.out).resolve() in [Path(file).resolve() for file in args.files]:
        raise UserError(f"{args.out} is read; write the sample somewhere else")
    bad = Counter()
    sizes = Counter(stratum for path in args.files for stratum, _ in pairs(path, args.like, bad))
    print_skipped(bad)
    if not sizes:
        raise UserError(f"{', '.join(args.files)}: nothing to draw from")
    most, rng = min(args.number, sizes.total()), random.Random(args.seed)
    parts = quotas(sizes, most)
    drawn = {name: set(rng.sample(range(sizes[name]), part)) for name, part in parts.items()}
    save(args.out, sample(args.files, args.like, drawn))
    for name, part in parts.items():
        print(f"{part:>9,} of {sizes[name]:>9,}  {name}")
    fewer = f", all there are; {args.number:,} were asked for" * (most < args.number)
    print(f"{args.out}: {most:,} dialogues{fewer}")


if __name__ == "__main__":
    run(main)
