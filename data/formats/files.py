"""
Files as others write them: JSON lines or one JSON array, told apart by what is in them.

They are read and written piece by piece, so that they may be larger than the memory: a file gives
`objects`, those are `numbered`, `each` of them is judged (`items`, `dialogues`; segments are told
so), and `records` have an end.

    python -m data.formats.files FILE --out human.jsonl
    python -m data.formats.files FILE --out human.jsonl --held-out held.jsonl --where source=hh
    python -m data.formats.files FILE --out human.json --as sharegpt

What cannot be used is passed over, and counted. Not here: what one dialogue looks like in each of
the formats (dialogues.py) and in ours (platolm.wrong), the files of benches (mtbench.py).
"""

import argparse
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections import Counter
from itertools import chain, count
from pathlib import Path

from data.formats.dialogues import to_record
from data.program import UserError, to_jsonl, positive_int, write_text, run, validate
from platolm import to_messages, record_error

PIECE = 1 << 20

# how files begin that are no text; gzip is read as it is
GZIP = b"\x1f\x8b"
PACKED = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstandard", b"PAR1": "parquet"}

# ------------------------------------------------------------------------------------------------
# reading


def json_objects(file):
    """The JSON objects of a file, in arrays or one after another, however many there are."""
    decode, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,]*")
    text, place, inside = "", 0, False
    while True:
        place = gap.match(text, place).end()
        sign = text[place:place + 1]
        if sign == "{":
            try:
                item, place = decode(text, place)
                yield item
                continue
            except json.JSONDecodeError as error:
                # a piece of the file may end within an object; what is wrong earlier stays wrong
                if error.pos < len(text) - 16 and not error.msg.startswith("Unterminated string"):
                    raise
        elif sign and sign == ("]" if inside else "["):
            inside, place = not inside, place + 1
            continue
        elif sign:
            raise ValueError(f"{'an array of ' * inside}things other than objects")
        # at least as much again: an object of any length is decoded a few times only
        more = file.read(max(PIECE, len(text) - place))
        if not more and (sign or inside):
            raise ValueError("it ends too early")
        if not more:
            return
        text, place = text[place:] + more, 0


def numbered_objects(path):
    """The JSON objects of a file with their numbers, from 1 up."""
    number = 0
    with open(path, "rb") as file:
        # a pipe can be read but once: what it begins with is only looked at
        start = file.peek(4)
        for sign, name in PACKED.items():
            if start.startswith(sign):
                raise UserError(f"{path} is a {name} file; make JSON lines of it first")
        data = gzip.open(file) if start.startswith(GZIP) else file
        try:
            for number, item in enumerate(json_objects(io.TextIOWrapper(data, "utf-8-sig")), 1):
                yield number, item
        except UnicodeDecodeError:
            raise UserError(f"{path} is not a UTF-8 text file") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, after item {number}: not JSON ({error})") from None
        except (EOFError, zlib.error):
            raise UserError(f"{path}, after item {number}: the gzip file is cut off") from None


def kind(error):
    """What an error says but for the numbers in it, so that its like can be counted."""
    return re.sub(r"\d+", "#", getattr(error, "reason", str(error)))


def convert_each(path, made, bad=None):
    """
    What is made of the items of a file, one by one. An item that made(item) refuses is a Problem;
    where `bad` is a Counter, it is counted there by what is wrong with it.
    """
    for number, item in numbered_objects(path):
        try:
            found = made(item)
        except (ValueError, RecursionError) as error:
            if bad is None:
                raise UserError(f"{path}, item {number}: {error}") from None
            bad[kind(error)] += 1
        else:
            yield found


def print_skipped(bad):
    """Print what was passed over, and why."""
    for why, number in bad.most_common():
        print(f"{number:>9,} passed over: {why}", flush=True)


def read_items(path, check=record_error):
    """The JSON objects of a file, one by one; one that `check` finds wrong is a Problem."""
    return convert_each(path, lambda item: validate(item, check))


def read_dialogues(path, bad=None):
    """
    The dialogues of a file in any format, as records; what is none is a Problem, or counted in
    `bad`. Other records, like a base model's texts, are passed over. Segments are told so.
    """
    found = convert_each(path, lambda item: to_record(validate(item, None)), bad)
    return mark_segments(record for record in found if "conversations" in record)


def goes_on(record, after):
    """Whether a dialogue that others have split goes on in the record after it: a_0, a_4, ..."""
    names = [re.fullmatch(r"(.+)_(\d+)", found.get("id", "")) for found in (record, after)]
    if not all(names) or names[0][1] != names[1][1]:
        return False
    said, step = record["conversations"], int(names[1][2]) - int(names[0][2])
    # where segments overlap, the next begins with the same answer
    return step == len(said) or step == len(said) - 1 and after["conversations"][0] == said[-1]


def mark_segments(found):
    """Records as they come; those that are segments are told so, and all but the last are cut."""
    before, first = None, None
    for record in chain(found, [None]):
        if before and record and goes_on(before, record):
            first = first or before["id"].rpartition("_")[0]
            yield {"segment_of": first, **before, "end": "cut"}
        elif before:
            yield {**({"segment_of": first} if first else {}), **before}
            first = None
        before = record


def as_word(value):
    """A value of a record as --where knows it: a text as it is, else as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def select_records(path, where=(), bad=None):
    """
    The dialogues of a file that have one of these words under each of these keys [(key, words)],
    with ids. Where nothing else is told, one that ends with an answer counts as left, one that
    ends with a question as cut.
    """
    number = count()
    for item in read_dialogues(path, bad):
        if all(as_word(item.get(key)) in words for key, words in where):
            end = "left" if item["conversations"][-1]["from"] == "gpt" else "cut"
            yield {"id": f"{Path(path).stem}:{next(number)}", "end": end, **item}


def held_out_split(records, share, held):
    """
    Those held out, about one in `share`, or else the others. A hash decides, so that it is always
    the same; segments of one dialogue go together, and so do dialogues that begin alike.
    """
    for record in records:
        first = record["conversations"][0]["value"]
        if (zlib.crc32(str(record.get("segment_of", first)).encode()) % share == 0) == held:
            yield record


# ------------------------------------------------------------------------------------------------
# writing: records -> the texts of a file


def array(records):
    """One JSON array: ShareGPT's, as FastChat's trainer reads it."""
    sign = "["
    for record in records:
        yield sign + to_jsonl(record)
        sign = ","
    yield "]\n"


def messages(records):
    """OpenAI's lines, the system first."""
    for record in records:
        told = [{"role": "system", "content": record["system"]}] if record.get("system") else []
        yield to_jsonl({"messages": told + to_messages(record["conversations"])})


FORMS = {"records": lambda records: map(to_jsonl, records), "sharegpt": array, "messages": messages}


def save(path, records, form="records"):
    """Write records in one of these forms; returns how many. None at all are a Problem."""
    written = Counter()

    def counted():
        for record in records:
            written[path] += 1
            yield record
        if not written:
            raise UserError(f"there are no dialogues for {path}; is it the right file (and --where)?")
    write_text(path, FORMS[form](counted()))
    return written[path]


# ------------------------------------------------------------------------------------------------


def condition(text):
    """KEY=WORD1,WORD2 as (key, words)."""
    key, words = text.split("=", 1)
    return key, words.split(",")


def main():
    """Write the dialogues of a file in another form, some of them held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("file", help="dialogues in any format of dialogues.py, as an array or lines")
    add("--out", required=True, help="file to write")
    add("--held-out", help="file of those held out")
    add("--share", type=positive_int, default=10, help="one in so many held out (10)")
    add("--where", type=condition, action="append", default=[], metavar="KEY=WORD[,WORD...]",
        help="only those that have one of these words under this key; may be said again")
    add("--as", dest="form", choices=FORMS, default="records",
        help="our records, ShareGPT's array, or OpenAI's messages")
    args = parser.parse_args()
    paths = [path for path in (args.file, args.held_out, args.out) if path]
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError(f"{', '.join(paths)}: what is read and what is written must differ")
    if args.held_out and not stat.S_ISREG(os.stat(args.file).st_mode):
        raise UserError(f"{args.file} is no file that can be read twice, as --held-out needs")
    bad = Counter()
    # each file written takes a reading of its own, so that nothing is kept in memory
    if args.held_out:
        held = held_out_split(select_records(args.file, args.where, Counter()), args.share, True)
        print(f"{args.held_out}: {save(args.held_out, held, args.form):,} dialogues")
    found = select_records(args.file, args.where, bad)
    try:
        number = save(args.out, held_out_split(found, args.share, False) if args.held_out else found,
                      args.form)
    finally:
        print_skipped(bad)
    print(f"{args.out}: {number:,} dialogues")


if __name__ == "__main__":
    run(main)
