"""
The drill: 200 dialogues through a server full of faults, killed with -9 at five random moments.

    python -m tests.programs.drill            what `make chaos` runs; status 1 if a promise was broken

Each time the same command is started again. At the end the file has to be the one of a calm run,
nearly nothing may have been bought twice, and the cap has to hold by the server's count.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from itertools import chain, islice
from pathlib import Path

from tests.chaos import FAULTS, PRICE, Chaos, Tally, at_random
from data.checkpoint import save_model
from data.api.server import serving
from tests.conftest import learn_to_talk, learn_tokenizer

DIALOGUES, AT_ONCE, KILLS, KEY = 200, 16, 5, "sk-planted-key"


def reply(messages):
    """A deterministic teacher, a little slow, so that there is always something under way."""
    threading.Event().wait(0.02)
    return f"das wäre die {len(messages)}., für {sum(len(m['content']) for m in messages) % 97} münzen."


def start(folder, url, name, *more):
    """The command of a user, in a process of its own."""
    command = [sys.executable, "simulate.py", "--user", folder / "user", "--teacher", url, "--out",
               folder / f"{name}.jsonl", "--dialogues", DIALOGUES, "--in-flight", AT_ONCE, "--temperature", 1.2,
               "--max-question", 20, "--rounds", 8, "--leave", 0.02,
               "--max-tokens", 40, "--price", *PRICE, "--patience", 60, *more]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env={**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}, text=True)


def answers_in(journal):
    """How many answers a journal holds."""
    return journal.read_bytes().count(b'"from": "gpt"') if journal.exists() else 0


def killed_at(process, tally, count):
    """Kill it once so many answers were delivered; whether it lived as long."""
    tick = threading.Event()
    while process.poll() is None:
        if tally.delivered >= count:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        tick.wait(0.002)
    return False


def faults(rng, answers):
    """Faults in a fifth of the requests, and once, on the way, no credit."""
    rough = at_random(0.2, rng.random(), but=("billing",))
    return chain(islice(rough, rng.randrange(answers // 4, answers)), ["billing"], rough)


def drill(folder, seed):
    """Run it all; yields (promise, figure, kept?)."""
    rng, said = random.Random(seed), ""
    tokenizer = learn_tokenizer()
    save_model(learn_to_talk(tokenizer), folder / "user")
    tokenizer.save(folder / "user")
    calm = Tally([])
    with serving(reply, handler=Chaos, tally=calm) as url:
        process = start(folder, url, "calm")
        said += process.communicate()[0]
        assert process.returncode == 0, said
    print(f"calm: {calm.delivered} answers, ${calm.dollars:.4f}", flush=True)

    # enough for a part of it, for more (lost answers are paid for, too), and for all
    tally, caps = Tally(faults(rng, calm.made), 0.2, 0.01), [calm.dollars * x for x in (0.5, 1, 10)]
    kills = sorted(rng.sample(range(20, int(calm.made * 0.9)), KILLS))
    starts, deaths, lost, broke = 0, 0, 0, 0
    with serving(reply, handler=Chaos, tally=tally) as url:
        while starts < 40:
            process = start(folder, url, "rough", "--max-dollars", caps[0])
            starts += 1
            if kills and killed_at(process, tally, kills[0]):
                kills.pop(0)
                deaths += 1
                gone = tally.delivered - answers_in(folder / "rough.jsonl.journal") - lost
                lost += gone
                said += process.stdout.read()
                print(f"killed after {tally.delivered} answers: {gone} were under way and are lost", flush=True)
                continue
            text = process.communicate()[0]
            said += text
            print(f"  {text.strip().splitlines()[-1][:150]}", flush=True)
            if "money was spent" in text:
                broke += 1
                yield f"cap {broke} holds, by the server's bill", f"${tally.dollars:.5f} of ${caps[0]:.5f}", \
                    tally.dollars <= caps[0]
                caps = caps[1:] or caps
            elif process.returncode == 0 and "got no answer" not in text:
                break
    bought = tally.delivered - answers_in(folder / "rough.jsonl.journal")
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()) + said.encode()
    same = (folder / "rough.jsonl").read_bytes() == (folder / "calm.jsonl").read_bytes()
    count = len((folder / "rough.jsonl").read_text().splitlines())
    yield "dialogues as in the calm run", f"{count} of {DIALOGUES}", same
    yield "killed with -9", f"{deaths} times, {starts} starts", deaths == KILLS
    yield "requests with a fault", f"{tally.requests - tally.faults[None]} of {tally.requests}, {len(FAULTS)} kinds", \
        len(tally.faults) > 20
    yield "answers delivered whole and not in the journal", f"{bought} (at most {KILLS} x {AT_ONCE})", \
        0 <= bought <= KILLS * AT_ONCE
    yield "stopped for lack of credit, and at a cap", f"{tally.faults['billing']} and {broke} times", broke == 2
    yield "the key in a file or on the screen", str(written.count(KEY.encode())), KEY.encode() not in written


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10 ** 6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(drill(Path(folder), seed))
    print()
    for promise, figure, kept in rows:
        print(f"{'kept  ' if kept else 'BROKEN'}  {promise + ':':<52}{figure}")
    sys.exit(not all(kept for _, _, kept in rows))


if __name__ == "__main__":
    main()
