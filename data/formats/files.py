"""
Files of dialogues in any known format: read, selected, split, and written in another format.

    python -m data.formats.files FILE --out human.jsonl
    python -m data.formats.files FILE --out human.jsonl --held-out held.jsonl --where source=hh
    python -m data.formats.files FILE --out human.json --as sharegpt

A file holds JSON objects, one after another or in an array; gzip is unpacked. It is read and
written piece by piece, so that it may be larger than the memory. Items that cannot be used are
skipped and counted.
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
from itertools import chain
from pathlib import Path

from data.formats.dialogues import to_record
from data.program import (UserError, positive_int, require_apart, run, to_jsonl, validate,
                          write_text)
from platolm import is_target, record_error, to_messages

# characters to read at a time
PIECE = 1 << 20

# how files begin that are not text; gzip is unpacked while reading
GZIP = b"\x1f\x8b"
PACKED = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstandard", b"PAR1": "parquet"}

# ------------------------------------------------------------------------------------------------
# reading


def json_objects(file):
    """
    Yield the JSON objects of an open text file, in arrays or one after another, piece by piece.

    Raises ValueError where the text is not JSON, is no object, or ends too early.
    """
    decode = json.JSONDecoder().raw_decode
    gap = re.compile(r"[\s,]*")
    text = ""
    offset = 0
    in_array = False
    # of the file, before the text
    lines = 0
    while True:
        offset = gap.match(text, offset).end()
        first = text[offset:offset + 1]
        if first == "{":
            try:
                item, offset = decode(text, offset)
                yield item
                continue
            except json.JSONDecodeError as error:
                # at the end of the text the object may only be incomplete: more is read below;
                # an error before the end stays an error
                if error.pos < len(text) - 16 and not error.msg.startswith("Unterminated string"):
                    line = lines + error.lineno
                    raise ValueError(f"{error.msg}, line {line} column {error.colno}") from None
        elif first and first == ("]" if in_array else "["):
            in_array = not in_array
            offset += 1
            continue
        elif first:
            raise ValueError(f"{'an array of ' * in_array}things other than objects")
        # at least double what is left: even a very long object is decoded only a few times
        more = file.read(max(PIECE, len(text) - offset))
        if not more and (first or in_array):
            raise ValueError("it ends too early")
        if not more:
            return
        lines += text.count("\n", 0, offset)
        text = text[offset:] + more
        offset = 0


def unwrapped(objects):
    """Yield the objects; of {"data": [object, ...]}, as some files are wrapped, those inside."""
    for item in objects:
        inside = item.get("data")
        if isinstance(inside, list) and inside and isinstance(inside[0], dict):
            yield from inside
        else:
            yield item


def numbered_objects(path):
    """Yield (number, object) for the JSON objects of a file, from 1 up; UserError if not JSON."""
    number = 0
    with open(path, "rb") as file:
        # peek, since a pipe can be read only once
        start = file.peek(4)
        for signature, name in PACKED.items():
            if start.startswith(signature):
                raise UserError(f"{path} is a {name} file; make JSON lines of it first")
        data = gzip.open(file) if start.startswith(GZIP) else file
        try:
            objects = json_objects(io.TextIOWrapper(data, "utf-8-sig"))
            for number, item in enumerate(unwrapped(objects), 1):
                yield number, item
        except UnicodeDecodeError:
            raise UserError(f"{path} is not a UTF-8 text file") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, after item {number}: not JSON ({error})") from None
        except (EOFError, zlib.error):
            raise UserError(f"{path}, after item {number}: the gzip file is cut off") from None
        except gzip.BadGzipFile as error:
            raise UserError(f"{path}, after item {number}: the gzip file is damaged ({error})") \
                from None


def error_kind(error):
    """Return an error's text with # for all numbers, so that errors of one kind can be counted."""
    return re.sub(r"\d+", "#", getattr(error, "reason", str(error)))


def convert_each(path, convert, skipped=None):
    """
    Yield convert(item) for each item of a file.

    Where it raises ValueError, the item is counted in the Counter `skipped` by the kind of error;
    without a Counter it is a UserError.
    """
    for number, item in numbered_objects(path):
        try:
            result = convert(item)
        except (ValueError, RecursionError) as error:
            if skipped is None:
                raise UserError(f"{path}, item {number}: {error}") from None
            skipped[error_kind(error)] += 1
        else:
            yield result


def print_skipped(skipped):
    """Print how many items were skipped, for each reason."""
    for reason, number in skipped.most_common():
        print(f"{number:>9,} passed over: {reason}", flush=True)


def read_items(path, check=record_error):
    """Yield a file's JSON objects, in an array or lines; one that fails check(item): UserError."""
    return convert_each(path, lambda item: validate(item, check))


def read_dialogues(path, skipped=None):
    """
    Yield the dialogues of a file in any format as records; segments are marked as such.

    Items that are no dialogue are counted in the Counter `skipped`, or a UserError without one;
    so are parts of dialogues that no model reads. Texts without turns are left out, and counted.
    """
    unused = Counter() if skipped is None else skipped
    records = convert_each(path, lambda item: to_record(validate(item, None), unused), skipped)
    return mark_segments(dialogues_among(records, unused))


def dialogues_among(records, unused):
    """Yield the records that are dialogues; count the others."""
    for record in records:
        if "conversations" in record:
            yield record
        else:
            unused["texts without turns (for a base model: train.py --learn all)"] += 1


def is_continued(record, following):
    """
    Tell whether a record is a segment that goes on in the next record, by their ids and turns.

    A segment "a_4" starts at turn 4 of the dialogue "a". The next one starts where it ends, or
    one turn earlier with the same answer.
    """
    name, start = split_segment_id(record)
    next_name, next_start = split_segment_id(following)
    if name is None or name != next_name:
        return False
    turns = record["conversations"]
    length = next_start - start
    first = following["conversations"][0]
    if length == len(turns) - 1:
        return first == turns[-1]
    # ids that only count up are of dialogues that each begin anew
    return length == len(turns) and first["from"] != turns[-1]["from"]


def split_segment_id(record):
    """Split the id "a_4" of a segment into ("a", 4); (None, None) for other ids."""
    match = re.fullmatch(r"(.+)_(\d+)", record.get("id", ""))
    return (match[1], int(match[2])) if match else (None, None)


def mark_segments(records):
    """Yield the records; segments get "segment_of", and all but a dialogue's last end in "cut"."""
    previous = None
    dialogue = None
    for record in chain(records, [None]):
        if previous and record and is_continued(previous, record):
            dialogue = dialogue or split_segment_id(previous)[0]
            yield {"segment_of": dialogue, **previous, "end": "cut"}
        elif previous and dialogue:
            yield {"segment_of": dialogue, **previous}
            dialogue = None
        elif previous:
            yield previous
        previous = record


def as_text(value):
    """Return a value of a record as --where compares it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def select_records(path, conditions=(), skipped=None):
    """
    Yield the dialogues of a file that meet all conditions, each with an id and an end.

    conditions: pairs (key, values), of which one must be under the key; skipped: see
    `read_dialogues`. A dialogue without an end counts as "left" after an answer, else as "cut".
    """
    number = 0
    for record in read_dialogues(path, skipped):
        if all(as_text(record.get(key)) in values for key, values in conditions):
            end = "left" if record["conversations"][-1]["from"] == "gpt" else "cut"
            yield {"id": f"{Path(path).stem}:{number}", "end": end, **record}
            number += 1


def held_out_split(records, share, held_out):
    """
    Yield the held-out records, about one in `share`, or else (held_out=False) all others.

    A hash of the first question decides, so that every run decides alike. Segments of one dialogue
    stay together, and so do dialogues that begin with the same question.
    """
    for record in records:
        question = record["conversations"][0]["value"]
        key = str(record.get("segment_of", question))
        if (zlib.crc32(key.encode()) % share == 0) == held_out:
            yield record


# ------------------------------------------------------------------------------------------------
# writing: records -> the texts of a file


def record_lines(records):
    """Yield our own format: one record a line."""
    return map(to_jsonl, records)


def sharegpt_array(records):
    """Yield one JSON array of records: ShareGPT's format, as FastChat's trainer reads it."""
    separator = "["
    for record in records:
        yield separator + to_jsonl(record)
        separator = ","
    yield "]\n"


def openai_lines(records):
    """Yield OpenAI's format: one {"messages": [...]} a line, the system message first."""
    for record in records:
        messages = to_messages(record["conversations"])
        for message, turn in zip(messages, record["conversations"]):
            if not is_target(turn):
                message["weight"] = 0
        if record.get("system"):
            messages.insert(0, {"role": "system", "content": record["system"]})
        yield to_jsonl({"messages": messages})


# the words of --as
WRITERS = {"records": record_lines, "sharegpt": sharegpt_array, "messages": openai_lines}


def save(path, records, form="records"):
    """Write records in one of the formats WRITERS and return how many; UserError if none."""
    count = 0

    def counted():
        """Yield the records and count them."""
        nonlocal count
        for record in records:
            count += 1
            yield record
        if not count:
            raise UserError(f"there are no dialogues for {path}; is it the right file "
                            "(and --where)?")
    write_text(path, WRITERS[form](counted()))
    return count


# ------------------------------------------------------------------------------------------------


def condition(text):
    """Parse KEY=WORD1,WORD2 as (key, words)."""
    key, words = text.split("=", 1)
    return key, words.split(",")


def main():
    """Write the dialogues of a file in another format, some of them held out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("file", help="dialogues in any format of dialogues.py, as an array or lines")
    add("--out", required=True, help="file to write")
    add("--held-out", help="file to write the held-out dialogues to")
    add("--share", type=positive_int, default=10, help="hold out one in so many (10)")
    add("--where", type=condition, action="append", default=[], metavar="KEY=WORD[,WORD...]",
        help="only dialogues with one of these words under this key; may be given again")
    add("--as", dest="form", choices=WRITERS, default="records",
        help="our records, ShareGPT's array, or OpenAI's messages")
    args = parser.parse_args()
    require_apart([args.out, args.held_out], [args.file])
    if args.held_out and not stat.S_ISREG(os.stat(args.file).st_mode):
        raise UserError(f"{args.file} is no file that can be read twice, as --held-out needs")
    # the input is read once for each output, so that nothing is kept in memory
    if args.held_out:
        records = select_records(args.file, args.where, Counter())
        held_out = held_out_split(records, args.share, True)
        print(f"{args.held_out}: {save(args.held_out, held_out, args.form):,} dialogues")
    skipped = Counter()
    records = select_records(args.file, args.where, skipped)
    if args.held_out:
        records = held_out_split(records, args.share, False)
    try:
        number = save(args.out, records, args.form)
    finally:
        print_skipped(skipped)
    print(f"{args.out}: {number:,} dialogues")


if __name__ == "__main__":
    run(main)
