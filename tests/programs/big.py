"""
A file larger than is nice to have in memory, through the importer: python -m tests.programs.big [MEGABYTES]

ShareGPT's array of made-up words, 1,000 MB of it. Here: how long `python -m data.formats.files` takes,
and how much memory at most. Not here: whether what it writes is right (test_formats.py).
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data.program import UserError, run

DISTINCT, MOST = 4000, 300


def talks():
    """Some thousand dialogues as JSON, one to ten rounds, without their ids; not all is ASCII."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzéя", k=rng.randint(2, 9)))
             for _ in range(3000)] + ["☃", "🙂", '"so"', "C:\\x", "\n"]

    def turn(n):
        return {"from": ("human", "gpt")[n % 2],
                "value": " ".join(rng.choices(words, k=rng.randint(3, 50 + n % 2 * 150)))}
    return [json.dumps([turn(n) for n in range(2 * rng.randint(1, 10))],
                       ensure_ascii=rng.random() < 0.5) for _ in range(DISTINCT)]


def fill(path, size):
    """Write an array of `size` bytes; returns of how many dialogues."""
    said, number, sign = talks(), 0, "["
    with open(path, "w", encoding="utf-8") as file:
        while file.buffer.tell() < size:
            turns = said[number % DISTINCT]
            file.write(f'{sign}{{"id": "made_{number}", "conversations": {turns}}}')
            number, sign = number + 1, ",\n"
        file.write("]")
    return number


def main():
    """Make the file, read it in a process of its own, and say what that took."""
    size = int(sys.argv[1]) if sys.argv[1:] else 1000
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "big.json", Path(folder) / "out.jsonl"
        number = fill(file, size * 1_000_000)
        print(f"{size:,} MB of {number:,} dialogues", flush=True)
        began = time.time()
        subprocess.run([sys.executable, "-m", "data.formats.files", file, "--out", out], check=True)
        seconds = time.time() - began
        with open(out, "rb") as lines:
            assert sum(1 for _ in lines) == number
    # kilobytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{seconds:.0f} s, {size / seconds:.0f} MB/s, {peak:.0f} MB of memory at most")
    if peak >= MOST:
        raise UserError(f"the importer took {peak:.0f} MB of memory, {MOST} or more")


if __name__ == "__main__":
    run(main)
