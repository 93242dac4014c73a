"""
Time and memory of the importer for a file larger than one wants in memory.

    python -m tests.programs.big [MEGABYTES]

Writes a JSON array of dialogues of random words in ShareGPT's format, 1,000 MB by default; measures how long
`python -m data.formats.files` takes and how much memory it uses at most. `make big` runs it. Whether its output is
right is tested in tests/test_formats.py.
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

# different dialogues, which are repeated
DISTINCT = 4000
# megabytes of memory that the importer may take
MEMORY_LIMIT = 300


def random_conversations():
    """List DISTINCT conversations of one to ten rounds as JSON; half of them escape what is not ASCII."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzéя", k=rng.randint(2, 9)))
                  for _ in range(3000)] + ["☃", "🙂", '"so"', "C:\\x", "\n"]

    def turn(n):
        words = rng.choices(vocabulary, k=rng.randint(3, 50 + n % 2 * 150))
        return {"from": ("human", "gpt")[n % 2], "value": " ".join(words)}
    conversations = []
    for _ in range(DISTINCT):
        turns = [turn(n) for n in range(2 * rng.randint(1, 10))]
        conversations.append(json.dumps(turns, ensure_ascii=rng.random() < 0.5))
    return conversations


def write_file(path, size):
    """Write an array of dialogues of at least `size` bytes; return how many dialogues it holds."""
    conversations = random_conversations()
    number = 0
    separator = "["
    with open(path, "w", encoding="utf-8") as file:
        while file.buffer.tell() < size:
            turns = conversations[number % DISTINCT]
            file.write(f'{separator}{{"id": "made_{number}", "conversations": {turns}}}')
            number += 1
            separator = ",\n"
        file.write("]")
    return number


def main():
    """Write the file, read it in a process of its own, and print time and memory."""
    size = int(sys.argv[1]) if sys.argv[1:] else 1000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "big.json"
        out = Path(folder) / "out.jsonl"
        number = write_file(file, size * 1_000_000)
        print(f"{size:,} MB of {number:,} dialogues", flush=True)
        began = time.time()
        subprocess.run([sys.executable, "-m", "data.formats.files", file, "--out", out], check=True)
        seconds = time.time() - began
        with open(out, "rb") as lines:
            assert sum(1 for _ in lines) == number
    # ru_maxrss is in kilobytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{seconds:.0f} s, {size / seconds:.0f} MB/s, {peak:.0f} MB of memory at most")
    if peak >= MEMORY_LIMIT:
        raise UserError(f"the importer took {peak:.0f} MB of memory, {MEMORY_LIMIT} or more")


if __name__ == "__main__":
    run(main)
