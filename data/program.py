"""
What every command needs: errors, JSONL in and out, argument types, progress.
"""

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user can fix. Its text is one sentence, printed without a traceback."""


def run(main):
    """Run a program: what the user can fix becomes one sentence on stderr and exit status 1."""
    began = time.time()
    try:
        main()
        log_stage_seconds(time.time() - began)
    except BrokenPipeError:
        # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as problem:
        # of several processes one says it
        alone = os.environ.get("RANK", "0") == "0"
        sys.exit(f"{Path(sys.argv[0]).name}: {problem}" if alone else 1)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(130)


def log_stage_seconds(seconds):
    """Where $STAGE_SECONDS names a file, append to it how long this program took."""
    if path := os.environ.get("STAGE_SECONDS"):
        words, program = sys.argv[1:], Path(sys.argv[0]).stem
        made = Path(words[words.index("--out") + 1]) if "--out" in words else Path(*words[:1])
        made = "/".join(made.with_suffix("").parts[-2:])
        with open(path, "a", encoding="utf-8") as file:
            file.write(to_jsonl({"stage": f"{program} {made}", "seconds": round(seconds, 1)}))


def validate(record, check=None):
    """A record that came from outside, or a ValueError with what `check` finds wrong with it."""
    # "\\ud800" alone is JSON but no text; encoding it raises a ValueError, too
    json.dumps(record, ensure_ascii=False).encode()
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if check and (trouble := check(record)):
        raise ValueError(trouble)
    return record


def parse_line(text, check=None):
    """One line of JSON as a record; ValueError says what `check` finds wrong with it."""
    try:
        return validate(json.loads(text), check)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError("not JSON anybody would write: too deep") from None


def read_jsonl(path, check=None):
    """The records of a JSONL file, one at a time; a bad line is a Problem with its number."""
    try:
        with open(path, encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                if number == 1 and text.lstrip().startswith("["):
                    raise UserError(f"{path} is a JSON array; python -m data.formats.files {path} "
                                  "--out FILE makes records of it, one a line")
                try:
                    yield parse_line(text, check)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: {error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a UTF-8 text file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def read_json(path):
    """A JSON object from a file of a checkpoint."""
    path = Path(path)
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is {path.parent} a checkpoint?") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(page, dict):
        raise UserError(f"{path} holds no JSON object")
    return page


def read_text(path):
    """A whole text file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a UTF-8 text file") from None


def to_jsonl(record):
    """A record as one line of JSONL, its newline included."""
    return json.dumps(record, ensure_ascii=False) + "\n"


@contextmanager
def atomic_files(*paths):
    """Text files to write at once: all of them whole or, if anything goes wrong, none."""
    parts = [Path(f"{path}.tmp") for path in paths]
    for part in parts:
        part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(open(part, "w", encoding="utf-8")) for part in parts]
        for part, path in zip(parts, paths):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def write_text(path, texts):
    """Write texts as one file: the whole of it or, if anything goes wrong, none."""
    with atomic_files(path) as [file]:
        file.writelines(texts)


def write_jsonl(path, records):
    """Write records as JSONL, in one move."""
    write_text(path, map(to_jsonl, records))


def write_json(path, found):
    """Write what was found as JSON that people can read too, in one move."""
    write_text(path, [json.dumps(found, indent=2) + "\n"])


def require_keys(*keys, also=lambda row: None):
    """A check for platolm.read: which of some keys a row does not have; else what `also` finds."""
    def check(row):
        missing = [key for key in keys if row.get(key) in (None, "", [])]
        return f"no {' and no '.join(missing)}" if missing else also(row)
    return check


# ---- files


def file_stamp(path):
    """What tells whether a file is still the one it was: its name, size and time of change."""
    status = os.stat(path)
    return f"{path} ({status.st_size} bytes, changed at {status.st_mtime_ns})"


def file_hash(path):
    """What tells a file from another, wherever it lies and however old: its size, and a hash."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return f"{path.stat().st_size} bytes, sha256 {found.hexdigest()[:16]}"


def require_same_settings(path, before, now, remedy="delete it to start again"):
    """A Problem unless the settings `before`, found in the file `path`, are those of `now`."""
    other = [f"{name} ({str(before.get(name))[:80]} there, {str(now[name])[:80]} here)"
             for name in now if before.get(name) != now[name]]
    if other:
        raise UserError(f"{path} is of a run with other {', '.join(other)}; {remedy}")


# ---- argument types


def positive_int(text):
    """For argparse: a whole number above 0."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def argument_type(words, parse):
    """For argparse: a type that says what it expects, where parse(text) fails or gives None."""
    def parsed(text):
        try:
            found = parse(text)
        except ValueError:
            found = None
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is no {words}")
        return found
    return parsed


def in_range(low, high, kind=float):
    """A parser of numbers from low to high; None for others."""
    return lambda text: kind(text) if low <= kind(text) <= high else None


def parse_shard(text):
    """i/n as (i, n), if the i-th of n can be."""
    i, n = map(int, text.split("/"))
    return (i, n) if 1 <= i <= n else None


nonnegative = argument_type("number from 0 up", in_range(0, 1e15))
natural_int = argument_type("whole number from 0 up", in_range(0, 2 ** 62, int))
fraction = argument_type("number from 0 to 1", in_range(0, 1))
shard = argument_type("share i/n with i from 1 to n", parse_shard)
name_and_value = argument_type("NAME=WORD", lambda text: tuple(text.split("=", 1))
                   if all(text.partition("=")) else None)
url = argument_type("address (http://... or https://...)",
                    lambda text: text if text.startswith(("http://", "https://")) else None)


# ---- progress


def format_seconds(seconds):
    """75 -> '1m15s'"""
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


def format_dollars(amount):
    """$12.30, or below a dollar $0.0123"""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


class Progress:
    """A line now and then: how far it is, how fast, for how much, and how long it will take."""

    def __init__(self, name, total, ledger=None, clock=time.monotonic, every=15, of="dialogues"):
        self.name, self.total, self.ledger, self.clock, self.of = name, total, ledger, clock, of
        self.began, self.told, self.every = clock(), clock(), every
        self.done = self.turns = 0
        self.before = ledger.spent if ledger else 0
        self.lock = threading.Lock()

    def said(self, who):
        """A turn was said."""
        with self.lock:
            self.turns += who == "gpt"

    def ended(self):
        """A dialogue is over."""
        with self.lock:
            self.done += 1
            last = self.done == self.total
            if last or self.clock() - self.told >= self.every:
                self.told = self.clock()
                print(self.line(), flush=True)

    def line(self):
        """chat dialogues  400/4000   310 turns/s   $0.42 spent, $4.20 in all   0m45s left"""
        seconds = max(1e-9, self.clock() - self.began)
        money = ""
        if self.ledger and (self.ledger.spent or self.ledger.open):
            spent = self.ledger.spent
            total = self.before + (spent - self.before) * self.total / self.done
            money = f"   {format_dollars(spent)} spent, {format_dollars(total)} in all"
        left = format_seconds((self.total - self.done) * seconds / self.done)
        # of single questions there are no turns to count
        rate, unit = (self.turns, "turns") if self.turns else (self.done, self.of)
        return (f"{self.name:<10} {self.of} {self.done:>6}/{self.total}   "
                f"{rate / seconds:>6,.1f} {unit}/s{money}   {left:>6} left")
