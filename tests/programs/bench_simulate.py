"""
How fast does the loop run, against what bounds it? What `make bench-simulate` prints.

    python -m tests.programs.bench_simulate runs/tiny

64 dialogues at a time, a teacher that takes a second and one that takes 20 ms, in a process of its
own, over HTTP. Measured is the time between the start of the 192nd dialogue (a client begins with few
requests at a time) and that of the 64th from the end: turns per second against the smaller of two
bounds, both taken in that window,

    N / (L + S)     L seconds for an answer, S for a question (its wait for the others included)
    engine rate     turns for a second in which the engine had something to do

and against the serial loop: one dialogue at a time, all of it read again at every turn.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

from data.api.journal import Journal, journal_records
from data.api.server import serving
from data.checkpoint import load_model
from data.machine import machine_settings
from data.openings import Opening
from platolm import Tokenizer, read_records
from simulate import Client, Simulation, Socratic, Teacher, converse

N = 64


def serve(directory, seconds):
    """Serve a teacher that takes so many seconds and picks its answers from human dialogues."""
    answers = [turn["value"] for record in islice(read_records(Path(directory) / "human.jsonl"), 300)
               for turn in record["conversations"] if turn["from"] == "gpt"]

    def reply(messages):
        time.sleep(seconds)
        return answers[sum(map(ord, "".join(m["content"] for m in messages))) % len(answers)]
    with serving(reply) as url:
        print(url, flush=True)
        sys.stdin.read()


class Watch:
    """
    Measures a user and a teacher: when dialogues started, and the (began, ended) of each question,
    each answer and each step of the engine.
    """

    def __init__(self, user, teacher):
        self.user, self.teacher = user, teacher
        self.starts, self.questions, self.answers, self.steps = [], [], [], []
        # tokens that have to be read once; megabytes in use after so many dialogues
        self.tokens, self.memory = 0, {}
        step = user.engine.step
        user.engine.step = lambda: timed(self.steps, step)

    def start_dialogue(self, number, intent="", rows=()):
        """Return the user's ask, measured."""
        self.starts.append(time.perf_counter())
        if number % 100 == 0:
            self.memory[number] = resident()
        ask, watch = self.user.start_dialogue(number), self

        class Watched:
            def __call__(self, turns):
                return timed(watch.questions, ask, turns)

            def close(self):
                watch.tokens += len(ask.row.cached)
                ask.close()
        return Watched()

    def answer(self, turns):
        """Return the teacher's answer, measured."""
        return timed(self.answers, self.teacher, turns)


def timed(times, function, *arguments):
    """Call a function, and append its (began, ended) to a list."""
    began = time.perf_counter()
    try:
        return function(*arguments)
    finally:
        times.append((began, time.perf_counter()))


def resident():
    """Return the megabytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def inside(times, a, b):
    """Select the (began, ended) pairs that ended between a and b."""
    return [(began, ended) for began, ended in times if a <= ended < b]


def total(times):
    """Add up the seconds of (began, ended) pairs."""
    return sum(ended - began for began, ended in times)


def socratic(directory, slots):
    """Load the trained user, as simulate.py does."""
    fast = machine_settings()
    model = load_model(Path(directory) / "socratic", fast["attention"])
    return Socratic(model, Tokenizer.load(Path(directory) / "socratic"), slots)


def together(directory, url, count, path, in_flight=N):
    """Simulate `count` dialogues, in_flight at a time; returns the Watch and the records."""
    client, user = Client(url), socratic(directory, in_flight)
    watch = Watch(user, Teacher(client, "m"))
    journal = Journal(path, {})
    plan = [Opening(n, f"d{n:06d}") for n in range(count)]
    Simulation(watch, watch.answer, journal, 12).run(plan, in_flight)
    records = list(journal_records(journal, plan))
    journal.close(), client.close(), user.close()
    user.writer.thread.join()
    return watch, records


def serially(directory, url, turns):
    """Return the turns per second of the obvious loop: one dialogue at a time, no cache."""
    client, user = Client(url), socratic(directory, 1)
    teacher = Teacher(client, "m")
    began = time.perf_counter()
    done = number = 0
    while done < turns:
        ask = user.start_dialogue(number)

        def forgetful(turns):
            ask.row.cached = []
            return ask(turns)
        done += len(converse(forgetful, teacher, 12)[0]) // 2
        ask.close()
        number += 1
    client.close(), user.close()
    return done / (time.perf_counter() - began)


def measure(directory, seconds, count, folder):
    """Measure one teacher and print a row; returns the Watch and the records."""
    server = subprocess.Popen([sys.executable, "-m", "tests.programs.bench_simulate", "serve", directory, str(seconds)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    alone = serially(directory, url, 40)
    watch, records = together(directory, url, count, Path(folder) / f"{seconds}.journal")
    server.stdin.close()
    server.wait()
    a, b = watch.starts[3 * N - 1], watch.starts[count - N]
    questions, answers = inside(watch.questions, a, b), inside(watch.answers, a, b)
    rate = len(answers) / (b - a)
    L, S = total(answers) / len(answers), total(questions) / len(questions)
    engine = len(answers) / total(inside(watch.steps, a, b))
    bound = min(N / (L + S), engine)
    reads = watch.user.engine.tokens_read / watch.tokens
    print(f"{seconds:>7.2f}{len(answers):>8}{rate:>9.1f}{N / (L + S):>11.1f}{engine:>9.1f}{rate / bound:>10.2f}"
          f"{alone:>9.2f}{rate / alone:>8.1f}{reads:>8.3f}     (L {L:.3f} s, S {S:.3f} s)", flush=True)
    return watch, records


def main():
    if sys.argv[1] == "serve":
        return serve(sys.argv[2], float(sys.argv[3]))
    directory = sys.argv[1]
    print(f"{N} in flight; turns per second\n")
    print(f"{'teacher':>7}{'turns':>8}{'rate':>9}{'N/(L+S)':>11}{'engine':>9}{'of bound':>10}{'serial':>9}"
          f"{'times':>8}{'read':>8}")
    before = threading.active_count(), sockets()
    with tempfile.TemporaryDirectory() as folder:
        measure(directory, 1.0, 1000, folder)
        watch, records = measure(directory, 0.02, 2000, folder)
        first, last = watch.memory[200], resident()
        print(f"\nmemory: {first:.0f} MB after 200 dialogues, {last:.0f} MB after 2,000 ({last - first:+.0f})")
        after = threading.active_count(), sockets()
        print(f"threads and sockets: {before[0]} and {before[1]} before, {after[0]} and {after[1]} after")
        same_alone(directory, records, folder)


def sockets():
    """Count the sockets that this process has open."""
    return sum(os.readlink(entry).startswith("socket") for entry in Path("/proc/self/fd").iterdir()
               if entry.is_symlink())


def same_alone(directory, records, folder, count=200):
    """Simulate the first dialogues again, one at a time, and print how many are the same."""
    server = subprocess.Popen([sys.executable, "-m", "tests.programs.bench_simulate", "serve", directory, "0"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _, alone = together(directory, server.stdout.readline().strip(), count, Path(folder) / "alone", 1)
    server.stdin.close()
    server.wait()
    same = sum(json.dumps(x) == json.dumps(y) for x, y in zip(alone, records))
    print(f"one at a time: {same} of {count} dialogues are those of {N} at a time")


if __name__ == "__main__":
    main()
