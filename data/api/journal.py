"""
The journal of a run: every turn is on disk before the run goes on from it.

A file of JSON lines. The first holds the run's settings; then come, as they happen,

    {"id", "turn", "from", "value", ...}     a turn, and how it was made
    {"id", "end", ...}                       a dialogue that is over, and why
    {"call", "reserved"}, {"call", "cost"}   dollars reserved for a call, and what it did cost

After a kill at any moment the same command goes on from there: only what was in flight is lost. The
settings bind once an answer stands in the file: before, a command with others begins anew, with a
row of its own settings, and remembers the dollars alone.

`journal_records` turns a journal into the records of a data file.
"""

import json
import os
import threading
from pathlib import Path
from statistics import fmean

from data.api.protocol import how_it_ended
from data.program import UserError, name_full_disk, parse_line, require_same_settings, to_jsonl
from platolm import LABEL

try:
    import fcntl
except ImportError:
    # Windows has no such lock: there, nothing stops a second process
    fcntl = None

# ends after which a later start tries again: more money, or a server that works
MENDABLE = ("budget", "error")
# or that takes what it refused, which costs nothing to find out
RESUMABLE = (*MENDABLE, "refused")


class Journal:
    """
    A journal file, opened by one process, for any number of threads. The texts stay on disk; in
    memory are the byte offsets of each dialogue's turns, and how dialogues ended.

    offsets: {id: [byte offset of each turn's row]}; ends: {id: end}; answered: whether there is an
    answer of a server; calls: the rows about money that the file held when it was opened.
    """

    def __init__(self, path, settings):
        self.path = Path(path)
        self.lock = threading.Lock()
        self.offsets = {}
        self.ends = {}
        self.answered = False
        self.calls = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+b")
        try:
            self.claim()
            self.load(settings)
        except BaseException:
            self.file.close()
            raise

    def claim(self):
        """Lock the file against all other processes, until this one ends, however it ends."""
        try:
            if fcntl:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing {self.path}") from None

    def load(self, settings):
        """
        Index the rows of the file. A torn last line is set aside; a line that is no row, or the
        settings of another run, are a UserError.
        """
        self.file.seek(0)
        offset = 0
        before = None
        for number, line in enumerate(self.file, 1):
            if not line.endswith(b"\n"):
                self.set_aside(line, offset)
                break
            try:
                row = parse_line(line.decode(), None)
                self.index(row, offset)
            except ValueError as error:
                raise UserError(f"{self.path}, line {number}: {error}") from None
            except KeyError as error:
                raise UserError(f"{self.path}, line {number}: no {error} in it") from None
            if number == 1 or "settings" in row:
                before = row.get("settings") or {}
            if "call" in row:
                self.calls.append(row)
            offset += len(line)
        if self.answered:
            require_same_settings(self.path, before, settings, "take another --out, or delete it, "
                                  "and with it what was paid for")
        # written with the first row: a run that comes to nothing leaves no settings behind
        self.head = ""
        if before != settings:
            self.head = to_jsonl({"settings": settings})
            self.offsets, self.ends = {}, {}

    def set_aside(self, line, offset):
        """Move the incomplete last line, which begins at this offset, into the file PATH.torn."""
        print(f"{self.path}: a torn last line is set aside")
        with open(f"{self.path}.torn", "ab") as file:
            file.write(line + b"\n")
        self.file.truncate(offset)

    def index(self, row, offset):
        """Remember the offset of a turn's row, how a dialogue ended, or that all begins anew."""
        if "turn" in row:
            self.offsets.setdefault(row["id"], []).append(offset)
            self.answered |= row.get("from") in ("gpt", "server")
        elif "settings" in row:
            self.offsets, self.ends = {}, {}
        elif "end" in row:
            self.ends[row["id"]] = row["end"]

    def write(self, row, paid=False):
        """Append a row. It then survives a kill and, with paid=True, a power cut (fsync)."""
        with self.lock, name_full_disk(self.path):
            offset = self.file.seek(0, os.SEEK_END)
            if self.head:
                offset += self.file.write(self.head.encode())
                self.head = ""
            self.file.write(to_jsonl(row).encode())
            self.file.flush()
            if paid:
                os.fsync(self.file.fileno())
            self.index(row, offset)

    def turns(self, name):
        """Read the rows of a dialogue's turns, in order; [] for one that has not begun."""
        rows = []
        with self.lock:
            for offset in self.offsets.get(name, ()):
                self.file.seek(offset)
                rows.append(json.loads(self.file.readline()))
        return rows

    def is_over(self, name):
        """Whether a dialogue has ended for good: no later start would go on with it."""
        end = self.ends.get(name)
        return end is not None and end not in RESUMABLE

    def close(self):
        """Close the file, and with it release the lock."""
        with name_full_disk(self.path):
            self.file.close()


def journal_record(opening, rows, end):
    """Make the record of a dialogue from its rows, without a last question that has no answer."""
    turns = []
    for row in rows[:len(rows) // 2 * 2]:
        turn = {"from": row["from"], "value": row["value"]}
        # "length": the answer was cut at its limit
        if how_it_ended(row.get("finish")) == "length":
            turn["finish"] = "length"
        turns.append(turn)
    record = {"id": opening.name, "conversations": turns, "end": end}
    if opening.turns:
        record |= {"seed": opening.seed, "given": len(opening.turns)}
    if opening.intent:
        record["intent"] = opening.intent
    return record


def finished_openings(journal, openings):
    """
    Split the openings whose dialogues have ended into two lists: those with at least one round
    beyond what was given, and those without.
    """
    grown, unchanged = [], []
    for opening in openings:
        if opening.name in journal.ends:
            # a last question without its answer does not count
            turns = len(journal.offsets.get(opening.name, ())) // 2 * 2
            (grown if turns > len(opening.turns) else unchanged).append(opening)
    return grown, unchanged


def journal_records(journal, openings):
    """Yield the records of all ended dialogues that got a new round, in the order of openings."""
    grown, _ = finished_openings(journal, openings)
    for opening in grown:
        yield journal_record(opening, journal.turns(opening.name), journal.ends[opening.name])


def mean_sizes(journal):
    """
    Average the dialogues of a journal that are over, at most 1,000 of them: (rounds, tokens of a
    question, tokens of an answer); None if there are none.
    """
    over = [name for name in journal.ends if journal.is_over(name)][:1000]
    sizes = {role: [] for role in LABEL}
    for name in over:
        for row in journal.turns(name):
            # about four bytes make a token
            sizes[row["from"]].append(len(row["value"].encode()) / 4)
    if not all(sizes.values()):
        return None
    return len(sizes["gpt"]) / len(over), fmean(sizes["human"]), fmean(sizes["gpt"])
