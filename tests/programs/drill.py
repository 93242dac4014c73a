"""
The drill: 200 dialogues through a server full of faults, killed with -9 at five random moments.

    python -m tests.programs.drill            what `make chaos` runs; status 1 if a promise was broken

Each time the same command is started again. At the end the file has to be the one of a calm run,
nearly nothing may have been bought twice, and the cap has to hold by the server's count. Another run
meets a model that keeps no limit on its answers: nothing may be booked below what it is billed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from itertools import chain, cycle, islice
from pathlib import Path

from data.api.server import serving
from data.checkpoint import save_model
from tests.chaos import DEAR, PRICE, Chaos, Tally, at_random
from tests.conftest import learn_to_talk, learn_tokenizer

DIALOGUES = 200
IN_FLIGHT = 16
KILLS = 5
KEY = "sk-planted-key"


def reply(messages):
    """A deterministic teacher, a little slow, so that some answers are always under way."""
    threading.Event().wait(0.02)
    return f"das wäre die {len(messages)}., für {sum(len(m['content']) for m in messages) % 97} münzen."


def start(folder, url, name, *more):
    """Start simulate.py in a process of its own, writing folder/NAME.jsonl; more: further words."""
    command = [sys.executable, "simulate.py", "--user", folder / "user", "--teacher", url, "--out",
               folder / f"{name}.jsonl", "--dialogues", DIALOGUES, "--in-flight", IN_FLIGHT, "--temperature", 1.2,
               "--max-question", 20, "--rounds", 8, "--leave", 0.02,
               "--max-tokens", 40, "--price", *PRICE, "--patience", 60, *more]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env={**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}, text=True)


def answers_in(journal):
    """Count the answers in a journal file."""
    return journal.read_bytes().count(b'"from": "gpt"') if journal.exists() else 0


def killed_at(process, tally, count):
    """Kill a process once `count` answers were delivered. Returns False if it ends before that."""
    tick = threading.Event()
    while process.poll() is None:
        if tally.delivered >= count:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        tick.wait(0.002)
    return False


def faults(rng, answers):
    """Make a script of faults in a fifth of the requests and, once, of an account without money."""
    rough = at_random(0.2, rng.random(), but=DEAR)
    return chain(islice(rough, rng.randrange(answers // 4, answers)), ["billing"], rough)


def calm_run(folder):
    """Simulate without faults: the server's tally, and what the command printed."""
    tally = Tally([])
    with serving(reply, handler=Chaos, tally=tally) as url:
        process = start(folder, url, "calm")
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    print(f"calm: {tally.delivered} answers, ${tally.dollars:.4f}", flush=True)
    return tally, printed


def rough_run(folder, tally, caps, kills):
    """
    Simulate against faults, starting again after each kill and each cap, until the command succeeds.

    kills: the counts of delivered answers at which it is killed; caps: dollars, one after another.
    Returns (starts, kills that happened, [(dollars billed, cap) where a cap was met], printed text).
    """
    journal = folder / "rough.jsonl.journal"
    starts = deaths = lost = 0
    stops, printed = [], ""
    with serving(reply, handler=Chaos, tally=tally) as url:
        while starts < 40:
            cap = caps[min(len(stops), len(caps) - 1)]
            process = start(folder, url, "rough", "--max-dollars", cap)
            starts += 1
            if deaths < len(kills) and killed_at(process, tally, kills[deaths]):
                deaths += 1
                newly_lost = tally.delivered - answers_in(journal) - lost
                lost += newly_lost
                printed += process.stdout.read()
                print(f"killed after {tally.delivered} answers: {newly_lost} were under way and are lost", flush=True)
                continue
            text = process.communicate()[0]
            printed += text
            print(f"  {text.strip().splitlines()[-1][:150]}", flush=True)
            if "money was spent before" in text:
                stops.append((tally.dollars, cap))
            elif process.returncode == 0 and "got no answer" not in text:
                break
    return starts, deaths, stops, printed


def booked(journal):
    """Add up the dollars that a journal has booked or reserved, call by call."""
    calls = {}
    for row in map(json.loads, journal.read_text().splitlines()):
        if "call" in row:
            calls[row["call"]] = row.get("cost", row.get("reserved"))
    return sum(calls.values())


def dear_run(folder, cap):
    """Simulate with a model that writes more than it may, until the cap: (dollars billed, dollars booked)."""
    tally = Tally(cycle([None, None, *DEAR]))
    with serving(reply, handler=Chaos, tally=tally) as url:
        for _ in range(3):
            print(f"  {start(folder, url, 'dear', '--max-dollars', cap).communicate()[0].splitlines()[-1]}", flush=True)
    return tally.dollars, booked(folder / "dear.jsonl.journal")


def drill(folder, seed):
    """Run all of it; returns rows (promise, figure, whether it was kept)."""
    rng = random.Random(seed)
    tokenizer = learn_tokenizer()
    save_model(learn_to_talk(tokenizer), folder / "user")
    tokenizer.save(folder / "user")
    calm, calm_text = calm_run(folder)
    tally = Tally(faults(rng, calm.made), 0.2, 0.01)
    # enough for a part of it, for more (lost answers are paid for, too), and for all
    caps = [calm.dollars * share for share in (0.5, 1, 10)]
    kills = sorted(rng.sample(range(20, int(calm.made * 0.9)), KILLS))
    starts, deaths, stops, rough_text = rough_run(folder, tally, caps, kills)

    journal = folder / "rough.jsonl.journal"
    # an answer of this model costs at most a cent
    dear_cap, dearest = 0.05, 0.01
    dear_billed, dear_booked = dear_run(folder, dear_cap)
    bought = tally.delivered - answers_in(journal)
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    leaks = (files + (calm_text + rough_text).encode()).count(KEY.encode())
    same = (folder / "rough.jsonl").read_bytes() == (folder / "calm.jsonl").read_bytes()
    count = len((folder / "rough.jsonl").read_text().splitlines())
    faulty = tally.requests - tally.faults[None]
    rows = [(f"cap {number} holds, by the server's bill", f"${billed:.5f} of ${cap:.5f}", billed <= cap)
            for number, (billed, cap) in enumerate(stops, 1)]
    return rows + [
        ("nothing is booked below the server's bill", f"${tally.dollars:.5f}, booked ${booked(journal):.5f}",
         tally.dollars <= booked(journal) + 1e-9),
        ("nor of a model that keeps no limit", f"${dear_billed:.5f}, booked ${dear_booked:.5f}",
         dear_billed <= dear_booked + 1e-9),
        ("whose cap is passed by the calls under way at most", f"${dear_billed:.5f} of ${dear_cap:.5f}",
         dear_billed <= dear_cap + IN_FLIGHT * dearest),
        ("dialogues as in the calm run", f"{count} of {DIALOGUES}", same),
        ("killed with -9", f"{deaths} times, {starts} starts", deaths == KILLS),
        ("requests with a fault", f"{faulty} of {tally.requests}, {len(tally.faults) - 1} kinds",
         len(tally.faults) > 20),
        ("answers delivered whole and not in the journal", f"{bought} (at most {KILLS} x {IN_FLIGHT})",
         0 <= bought <= KILLS * IN_FLIGHT),
        ("stopped for lack of credit, and at a cap", f"{tally.faults['billing']} and {len(stops)} times",
         len(stops) == 2),
        ("the key in a file or on the screen", str(leaks), leaks == 0)]


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10 ** 6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = drill(Path(folder), seed)
    print()
    for promise, figure, kept in rows:
        print(f"{'kept  ' if kept else 'BROKEN'}  {promise + ':':<52}{figure}")
    sys.exit(not all(kept for _, _, kept in rows))


if __name__ == "__main__":
    main()
