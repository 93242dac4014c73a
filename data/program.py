"""
What every command needs: errors, JSONL in and out, files, argument types, progress.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path


# ------------------------------------------------------------------------------------------------
# running a command


class UserError(Exception):
    """Something the user can fix. Its text is one sentence, printed without a traceback."""


# the system's codes for no room on the disk, a quota that is used up, a file larger than allowed
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main):
    """Run main(); a UserError or OSError becomes one sentence on stderr and exit status 1."""
    began = time.time()
    try:
        main()
        # a full disk behind stdout shows only now
        sys.stdout.flush()
        log_stage_seconds(time.time() - began)
    except BrokenPipeError:
        # the reader of our output (head, say) closed the pipe: no error
        discard_stdout()
    except (UserError, OSError) as error:
        if getattr(error, "errno", None) in DISK_FULL:
            discard_stdout()
        # under torchrun only the first process prints it
        is_first = os.environ.get("RANK", "0") == "0"
        sys.exit(f"{Path(sys.argv[0]).name}: {error}" if is_first else 1)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(130)


def discard_stdout():
    """Send what is still to be printed nowhere, where stdout itself no longer works."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log_stage_seconds(seconds):
    """Append to the file that $STAGE_SECONDS names, if any, how long this command took, and now."""
    log = os.environ.get("STAGE_SECONDS")
    if not log:
        return
    arguments = sys.argv[1:]
    output = arguments[:1]
    if "--out" in arguments:
        output = arguments[arguments.index("--out") + 1:][:1]
    # data.harbour.corpus --out runs/tiny/corpus.jsonl  ->  "corpus tiny/corpus"
    names = [Path(sys.argv[0]).stem]
    for path in map(Path, output):
        names.append("/".join([*path.parts[-2:-1], path.stem]))
    with open(log, "a", encoding="utf-8") as file:
        file.write(to_jsonl({"stage": " ".join(names), "seconds": round(seconds, 1),
                             "ended": round(time.time(), 1)}))


# ------------------------------------------------------------------------------------------------
# JSONL and other text files


def validate(record, check=None):
    """
    Return a record from outside if it is an object of valid text that passes check(record), which
    gives an error text or None; otherwise raise ValueError.
    """
    # "\\ud800" alone is JSON but no text; encoding it raises a ValueError, too
    json.dumps(record, ensure_ascii=False).encode()
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    error = check(record) if check else None
    if error:
        raise ValueError(error)
    return record


def parse_line(text, check=None):
    """Parse one line of JSON as a record and `validate` it; ValueError says what is wrong."""
    try:
        return validate(json.loads(text), check)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None


def read_jsonl(path, check=None):
    """Yield the records of a JSONL file; UserError tells the number of a bad line."""
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
    """Read a JSON object from a file."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is {path.parent} a checkpoint?") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


def read_text(path):
    """Read a UTF-8 text file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a UTF-8 text file") from None


def to_jsonl(record):
    """Format a record as one line of JSONL, its newline included."""
    return json.dumps(record, ensure_ascii=False) + "\n"


@contextmanager
def name_full_disk(path):
    """Turn an error about a full disk, which names no file, into a UserError about `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save raises an error of its own on top of the system's
        cause = error if isinstance(error, OSError) else error.__context__
        if getattr(cause, "errno", None) not in DISK_FULL:
            raise
        raise UserError(f"{path}: {cause.strerror}; what was there before is unchanged") from None


def open_for_writing(path, mode):
    """Open a file in mode "w", for UTF-8 text, or "wb"."""
    if str(path) == "/dev/stdout":
        # opened by its name, a file behind it would be written from its beginning again
        sys.stdout.flush()
        path = os.dup(sys.stdout.fileno())
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


@contextmanager
def atomic_files(*paths, mode="w"):
    """
    Open files for writing; after an error inside the `with`, all are as they were before.

    Each is written as NAME.tmp, which then takes the place of the old file. A link is followed;
    what is no file (a device, a pipe) is written to directly.
    """
    replacements = []
    for path in map(Path, paths):
        direct = path.exists() and not path.is_file() or path.parent == Path("/dev")
        target = path if direct else Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        replacements.append((path if direct else Path(f"{target}.tmp"), target))
    try:
        with name_full_disk(paths[0]):
            with ExitStack() as stack:
                yield [stack.enter_context(open_for_writing(file, mode))
                       for file, _ in replacements]
            for file, target in replacements:
                if file != target:
                    file.replace(target)
    finally:
        for file, target in replacements:
            if file != target:
                file.unlink(missing_ok=True)


@contextmanager
def staged(directory):
    """
    Yield an empty directory to write files to. When all are written they move to `directory`, over
    older ones of the same names; after an error all are there as before.
    """
    directory = Path(directory)
    staging = directory / ".incomplete"
    # of a run that was killed here
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with name_full_disk(directory):
            yield staging
        files = [path for path in staging.rglob("*") if path.is_file()]
        # the weights come last: where they are new, all is new
        for file in sorted(files, key=lambda file: file.name == "model.safetensors"):
            target = directory / file.relative_to(staging)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not any(directory.iterdir()):
            directory.rmdir()


def write_text(path, texts):
    """Write texts, one after another, as one file, atomically."""
    with atomic_files(path) as [file]:
        file.writelines(texts)


def write_jsonl(path, records):
    """Write records as JSONL, atomically."""
    write_text(path, map(to_jsonl, records))


def write_json(path, content):
    """Write indented JSON, atomically."""
    write_text(path, [json.dumps(content, indent=2) + "\n"])


def require_keys(*keys, also=lambda row: None):
    """Return a check for read_jsonl: the keys that a row lacks; if none, what also(row) says."""
    def check(row):
        missing = [key for key in keys if row.get(key) in (None, "", [])]
        return f"no {' and no '.join(missing)}" if missing else also(row)
    return check


# ------------------------------------------------------------------------------------------------
# is it the same file, the same run?


# what is read from a directory: the files of a checkpoint, and of a bench
READ_FROM_DIRECTORIES = ("*.safetensors*", "*tokenizer*", "*config.json", "*.bin*", "*.pth", "*.pt",
                         "params.json", "question.jsonl", "model_*", "reference_answer*")


def existing_paths(words):
    """List the paths that exist among FILE, NAME=FILE and KIND:FILE, in lists of any depth."""
    if isinstance(words, (list, tuple)):
        return [path for word in words for path in existing_paths(word)]
    text = "" if words is None else str(words)
    names = (text, text.partition("=")[2], text.partition(":")[2])
    return [Path(name) for name in names if name and os.path.exists(name)]


def is_read_from(directory, path):
    """Whether a path in a directory has the name of what is read from checkpoints and benches."""
    name = str(path.relative_to(directory))
    return any(fnmatchcase(name, pattern) for pattern in READ_FROM_DIRECTORIES)


def overlap(output, given, directory):
    """
    Whether writing the output could destroy what is given: it is the same file or directory, or
    one lies in the other. A file may be written into a directory, beside what is read from there.
    """
    if output.exists() and not output.is_file() and not output.is_dir():
        # a device or a pipe replaces nothing
        return False
    if output.exists() and given.exists() and output.samefile(given):
        return True
    output, given = output.resolve(), given.resolve()
    if given in output.parents:
        return directory or is_read_from(given, output)
    return output == given or output in given.parents


def require_apart(outputs, inputs, directory=False):
    """
    Raise UserError if writing an output could destroy an input or another output, also by links.

    outputs: paths, None for one that is not asked for; inputs: see `existing_paths`; directory:
    whether the outputs are directories.
    """
    given = existing_paths(inputs)
    for output in map(Path, filter(None, outputs)):
        if output.is_dir() and not directory:
            raise UserError(f"{output} is a directory; it has to be a file")
        if directory and output.exists() and not output.is_dir():
            raise UserError(f"{output} is no directory; it has to be one")
        # a file is first written beside its place
        for path in (output, Path(f"{output}.tmp")):
            for other in given:
                if overlap(path, other, directory):
                    raise UserError(f"{path} would be written, but {other} is the same, or one of "
                                    "them lies in the other; write somewhere else")
        given.append(output)


def file_stamp(path):
    """Identify a file by its name, size and time of change."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return f"{path} ({status.st_size} bytes, changed at {status.st_mtime_ns})"


def file_hash(path):
    """Identify a file by its content: its size and a hash."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{path.stat().st_size} bytes, sha256 {digest.hexdigest()[:16]}"


def require_same_settings(path, before, now, remedy="delete it to start again"):
    """Raise UserError unless the settings `before`, read from the file `path`, equal `now`."""
    differences = [f"{name} ({str(before.get(name))[:80]} there, {str(now[name])[:80]} here)"
                   for name in now if before.get(name) != now[name]]
    if differences:
        raise UserError(f"{path} is of a run with other {', '.join(differences)}; {remedy}")


# ------------------------------------------------------------------------------------------------
# argument types: functions for argparse's `type=`


def argument_type(description, parse):
    """Return an argparse type that names what it expects where parse(text) raises or gives None."""
    def parse_argument(text):
        try:
            value = parse(text)
        except ValueError:
            value = None
        if value is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value
    return parse_argument


def in_range(low, high, kind=float):
    """Return a parser of numbers from low to high; it gives None for others."""
    return lambda text: kind(text) if low <= kind(text) <= high else None


def parse_shard(text):
    """Parse i/n as (i, n), the i-th of n; None unless 1 <= i <= n."""
    i, n = map(int, text.split("/"))
    return (i, n) if 1 <= i <= n else None


def parse_name_and_value(text):
    """Parse NAME=VALUE as (name, value); None if either is empty."""
    name, _, value = text.partition("=")
    return (name, value) if name and value else None


def parse_url(text):
    """Return an http(s) address; None for anything else."""
    return text if text.startswith(("http://", "https://")) else None


positive_int = argument_type("a whole number above 0", in_range(1, 2 ** 62, int))
natural_int = argument_type("a whole number from 0 up", in_range(0, 2 ** 62, int))
positive = argument_type("a number above 0", in_range(5e-324, 1e15))
nonnegative = argument_type("a number from 0 up", in_range(0, 1e15))
fraction = argument_type("a number from 0 to 1", in_range(0, 1))
shard = argument_type("a share i/n with i from 1 to n", parse_shard)
name_and_value = argument_type("NAME=VALUE", parse_name_and_value)
url = argument_type("an address (http://... or https://...)", parse_url)


def temperature_or_none(text):
    """An argparse type: a number from 0 up, or "none" as None: the model's own, nothing is sent."""
    return None if text == "none" else nonnegative(text)


# ------------------------------------------------------------------------------------------------
# progress


def format_seconds(seconds):
    """75 -> '1m15s'"""
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


def format_dollars(amount):
    """12.3 -> '$12.30'; below a dollar 0.0123 -> '$0.0123'"""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


class Progress:
    """
    A line every few seconds: how many of `total` are done, how fast, at what cost, the time left.

    unit: what is counted; ledger: whose spending is shown; every: seconds between two lines.
    """

    def __init__(self, name, total, ledger=None, clock=time.monotonic, every=15, unit="dialogues"):
        self.name = name
        self.total = total
        self.unit = unit
        self.ledger = ledger
        self.clock = clock
        self.every = every
        self.started = self.last_print = clock()
        self.done = 0
        self.turns = 0
        self.spent_before = ledger.spent if ledger else 0
        self.lock = threading.Lock()

    def count_turn(self):
        """One more turn of a dialogue was written."""
        with self.lock:
            self.turns += 1

    def count_done(self):
        """One more of `total` is done; print a line if the last one is `every` seconds old."""
        with self.lock:
            self.done += 1
            due = self.clock() - self.last_print >= self.every
            if due or self.done == self.total:
                self.last_print = self.clock()
                print(self.line(), flush=True)

    def line(self):
        """chat dialogues  400/4000   310 turns/s   $0.42 spent, $4.20 in all   0m45s left"""
        seconds = max(1e-9, self.clock() - self.started)
        money = ""
        if self.ledger and (self.ledger.spent or self.ledger.open):
            spent = self.ledger.spent
            here = spent - self.spent_before
            estimate = self.spent_before + here * self.total / self.done
            money = f"   {format_dollars(spent)} spent, {format_dollars(estimate)} in all"
        left = format_seconds((self.total - self.done) * seconds / self.done)
        # single questions have no turns to count
        if self.turns:
            speed = f"{self.turns / seconds:>6,.1f} turns/s"
        else:
            speed = f"{self.done / seconds:>6,.1f} {self.unit}/s"
        return (f"{self.name:<10} {self.unit} {self.done:>6}/{self.total}   {speed}{money}"
                f"   {left:>6} left")


class Notices:
    """Things that are said once and counted every time, by any number of threads."""

    def __init__(self):
        self.counts = Counter()
        self.lock = threading.Lock()

    def say(self, kind, text):
        """Count a notice of a kind; print the first one."""
        with self.lock:
            self.counts[kind] += 1
            if self.counts[kind] == 1:
                print(f"note: {text}", flush=True)
