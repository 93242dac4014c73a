"""
The journal of a run: every turn as it was said, on disk before anybody goes on from it.

A file of JSON lines. The first holds the run's settings; then come, as they happen,

    {"id", "turn", "from", "value", ...}     a turn, and how it came about
    {"id", "end", ...}                       a dialogue that is over, and why
    {"call", "reserved"}, {"call", "cost"}   dollars set aside for a call, and what it did cost

After a kill at any moment the same command goes on from there: only what was in flight is lost.
Here, too: the records that a journal comes to. Not here: who says what (simulate.py), and the
money (budget.py).
"""

import json
import os
import threading
from pathlib import Path
from statistics import fmean

from data.program import UserError, to_jsonl, parse_line, require_same_settings
from platolm import LABEL

try:
    import fcntl
except ImportError:
    # Windows has no such lock: there, nobody stops a second process
    fcntl = None

# ends that a later start may mend: more money, or a better day at the server
RESUMABLE = ("budget", "error")


class Journal:
    """
    One writer, any number of threads. What was said stays on disk; kept here is where it is.

    `calls` holds the rows about money that were there at the start.
    """

    def __init__(self, path, settings):
        self.path, self.lock = Path(path), threading.Lock()
        self.offsets, self.ends, self.calls = {}, {}, []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "a+b")
        try:
            self.claim()
            self.load(settings)
        except BaseException:
            self.file.close()
            raise

    def claim(self):
        """Keep every other process off, until this one is gone, however it goes."""
        try:
            if fcntl:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing {self.path}") from None

    def load(self, settings):
        """Find what is there. A torn last line is set aside, a run of other settings refused."""
        self.file.seek(0)
        place = 0
        for number, text in enumerate(self.file, 1):
            if not text.endswith(b"\n"):
                self.set_aside(text, place)
                break
            try:
                row = parse_line(text.decode(), None)
                self.index(row, place)
            except ValueError as error:
                raise UserError(f"{self.path}, line {number}: {error}") from None
            except KeyError as error:
                raise UserError(f"{self.path}, line {number}: no {error} in it") from None
            if number == 1:
                require_same_settings(self.path, row.get("settings") or {}, settings, "take another --out, or "
                         "delete it, and with it what was paid for")
            if "call" in row:
                self.calls.append(row)
            place += len(text)
        # a run that comes to nothing leaves no settings behind
        self.head = to_jsonl({"settings": settings}) if place == 0 else ""

    def set_aside(self, text, place):
        """Move what a kill left of the last line, from this place on, into a file of its own."""
        print(f"{self.path}: a torn last line is set aside")
        with open(f"{self.path}.torn", "ab") as file:
            file.write(text + b"\n")
        self.file.truncate(place)

    def index(self, row, place):
        """Remember where a turn is, and how a dialogue ended."""
        if "turn" in row:
            self.offsets.setdefault(row["id"], []).append(place)
        elif "end" in row:
            self.ends[row["id"]] = row["end"]

    def write(self, row, paid=False):
        """Append a row. After that no kill can take it and, if it is paid for, no power cut."""
        with self.lock:
            place = self.file.seek(0, os.SEEK_END)
            if self.head:
                place += self.file.write(self.head.encode())
                self.head = ""
            self.file.write(to_jsonl(row).encode())
            self.file.flush()
            if paid:
                os.fsync(self.file.fileno())
            self.index(row, place)

    def turns(self, name):
        """What was said in a dialogue so far: its rows, in order."""
        with self.lock:
            found = []
            for place in self.offsets.get(name, ()):
                self.file.seek(place)
                found.append(json.loads(self.file.readline()))
        return found

    def is_over(self, name):
        """Whether a dialogue has come to an end that no later start could mend."""
        return self.ends.get(name, "error") not in RESUMABLE

    def close(self):
        """Let others write."""
        self.file.close()


def journal_record(opening, rows, end):
    """A dialogue of the journal as a record, without a last question that has no answer."""
    turns = [{"from": row["from"], "value": row["value"],
              **({"finish": row["finish"]} if row.get("finish", "stop") != "stop" else {})}
             for row in rows[:len(rows) // 2 * 2]]
    more = {"seed": opening.seed, "given": len(opening.turns)} if opening.turns else {}
    more |= {"intent": opening.intent} if opening.intent else {}
    return {"id": opening.name, "conversations": turns, "end": end, **more}


def finished_openings(journal, openings):
    """
    The openings whose dialogues came to an end, as two lists: in which something was said beyond
    what was given, and in which nothing was.
    """
    said, silent = [], []
    for opening in openings:
        if opening.name in journal.ends:
            # a last question without its answer does not count
            turns = len(journal.offsets.get(opening.name, ())) // 2 * 2
            (said if turns > len(opening.turns) else silent).append(opening)
    return said, silent


def journal_records(journal, openings):
    """The dialogues of a journal that say something, in the order of their openings, one by one."""
    for opening in finished_openings(journal, openings)[0]:
        yield journal_record(opening, journal.turns(opening.name), journal.ends[opening.name])


def mean_sizes(journal):
    """What its dialogues are like: (rounds, tokens of a question, tokens of an answer), or None."""
    over = [name for name in journal.ends if journal.is_over(name)][:1000]
    rows = [row for name in over for row in journal.turns(name)]
    # about four bytes make a token
    sizes = [[len(row["value"].encode()) / 4 for row in rows if row["from"] == who]
             for who in LABEL]
    return (len(sizes[1]) / len(over), *map(fmean, sizes)) if all(sizes) else None
