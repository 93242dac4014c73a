"""
The gates: could the experiment answer at all? They look at no comparison of arms, and not at
Socratic: how he copies and what he reaches are results.

    python -m data.experiment.gates --base DIR --today DIR --human held-out.jsonl --logs FILE ... \\
                                    --out gates.json

1. The base copies names it has never read: shown a list of this season's stalls, and the list again
   in another order, it knows the last word of a name from the first.
2. The arm `today`, the ceiling, answers each class of turns.
3. Of today's people's turns enough are about stalls, and not nearly all.
4. The training loss of every arm is flat at its end: facts are learnt late and all at once, and
   arms on two sides of that moment should not be compared.
"""

import argparse
import random

import numpy as np

from data.experiment.contrasts import CLASSES
from data.experiment.probes import human_cases, right_answers
from data.experiment.talks import draw_guide
from data.machine import load_checkpoint
from data.program import read_jsonl, require_apart, run, write_json
from model import generate_batch
from platolm import read_records

# what has to be reached
COPIES = 0.9
KNOWS = 0.95
STALLS = (0.2, 0.5)
# of the loss before: how much the last tenth of a training may still gain on the tenth before it
STILL_FALLING = 0.1


def copies(model, tokenizer, names, count=200):
    """Return how often a model completes a name from a list that it has just read."""
    rng = random.Random(0)
    prompts, wanted = [], []
    for _ in range(count):
        listed = rng.sample(names, 4)
        again = rng.sample(listed, 3)
        first, last = again[2].split()
        text = ", ".join(listed) + ". " + ", ".join([*again[:2], first])
        prompts.append([tokenizer.bos] + tokenizer.encode(text))
        wanted.append(last)
    rows = generate_batch(model, prompts, [tokenizer.eos], 8, 64, temperature=0)
    return float(np.mean([tokenizer.decode(row.output).strip().startswith(last)
                          for row, last in zip(rows, wanted)]))


def still_falling(path):
    """Return what part of its loss a training gained in the last tenth of its updates."""
    losses = [row["loss"] for row in read_jsonl(path)]
    tenth = max(1, len(losses) // 10)
    last, before = np.mean(losses[-tenth:]), np.mean(losses[-2 * tenth:-tenth] or losses)
    return float((before - last) / before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--base", required=True, metavar="DIR")
    add("--today", required=True, metavar="DIR", help="the assistant of the arm `today`")
    add("--human", required=True, help="held-out dialogues of today's people")
    add("--logs", nargs="+", default=[], metavar="FILE", help="training logs of all arms")
    add("--out", required=True, help="JSON file to write")
    add("--seed", type=int, default=0, help="of the world")
    add("--growth", type=float, default=1.0, help="share of stalls that are new each season")
    args = parser.parse_args()
    require_apart([args.out], [args.base, args.today, args.human, args.logs])
    guide = draw_guide(args.seed, args.growth)
    rows = []

    def gate(name, value, passed):
        rows.append({"gate": name, "value": value, "passed": bool(passed)})
        print(f"{'passed' if passed else 'NOT PASSED':<11} {value:>7.3f}  {name}", flush=True)

    share = copies(*load_checkpoint(args.base), guide.world.stalls)
    gate(f"the base copies names that it never read (at least {COPIES})", share, share >= COPIES)
    cases = human_cases(read_records(args.human), guide)
    right = np.array(right_answers(*load_checkpoint(args.today), [case["turns"] for case in cases],
                                   guide))
    kinds = np.array([case["class"] for case in cases])
    for kind in CLASSES:
        if (kinds == kind).any():
            known = right[kinds == kind].mean()
            gate(f"the ceiling knows {kind}, in people's words (at least {KNOWS})", float(known),
                 known >= KNOWS)
    stalls = float((kinds == "stalls").mean())
    gate(f"share of stalls among today's turns ({STALLS[0]} to {STALLS[1]})", stalls,
         STALLS[0] <= stalls <= STALLS[1])
    falls = max(still_falling(path) for path in args.logs)
    gate(f"the loss that falls most in its last tenth (at most {STILL_FALLING} of it)", falls,
         falls <= STILL_FALLING)
    write_json(args.out, rows)
    if not all(row["passed"] for row in rows):
        print("a gate is not passed: what follows compares nothing that can be relied on")


if __name__ == "__main__":
    run(main)
