"""
How often a 95 % interval covers the true mean, on benches made up for the purpose: make coverage

Each question of such a bench has a win, with probability 0.7, or a score from 0 to 1, with mean
0.7. Printed is the share of benches whose bootstrap interval covers 0.7. With few questions it is
too low for scores, which are skewed; for wins, which are counted, it moves in steps.

Then turns of dialogues about things: a thing may be known or not as a whole, and a dialogue may go
well or badly. An interval that takes the turns for independent is too narrow.
"""

import numpy as np

from data.measure.intervals import bootstrap, drawn_interval, two_way_draws

KINDS = {"wins": lambda rng, n: rng.random(n) < 0.7, "scores": lambda rng, n: rng.beta(1.4, 0.6, n)}
# of a turn: who decides whether it is right; its thing, its dialogue, or chance
DECIDES = [0.6, 0.2, 0.2]


def coverage(kind, questions=(160, 40, 10), benches=2000, draws=2000):
    """Yield (number of questions, share of intervals that cover 0.7); kind: a key of KINDS."""
    rng = np.random.default_rng(0)
    for n in questions:
        covered = 0
        for bench in range(benches):
            _, low, high = bootstrap(KINDS[kind](rng, n), draws=draws, seed=bench)
            covered += low <= 0.7 <= high
        yield n, covered / benches


def clustered_turns(rng, dialogues=80, turns=3, things=36):
    """Make up turns: (whether each is right, with mean 0.7; its dialogue; its thing)."""
    dialogue = np.repeat(np.arange(dialogues), turns)
    thing = rng.integers(things, size=len(dialogue))
    luck = [(rng.random(things) < 0.7)[thing], (rng.random(dialogues) < 0.7)[dialogue],
            rng.random(len(dialogue)) < 0.7]
    return np.choose(rng.choice(3, size=len(dialogue), p=DECIDES), luck), dialogue, thing


def clustered_coverage(benches=600, draws=500):
    """Return the shares of intervals that cover 0.7: over turns, and over things and dialogues."""
    rng = np.random.default_rng(0)
    over_turns = over_both = 0
    for bench in range(benches):
        right, dialogue, thing = clustered_turns(rng)
        _, low, high = bootstrap(right, draws=draws, seed=bench)
        over_turns += low <= 0.7 <= high
        low, high = drawn_interval(two_way_draws(right[:, None], dialogue, thing, draws, seed=bench)[:, 0])
        over_both += low <= 0.7 <= high
    return over_turns / benches, over_both / benches


if __name__ == "__main__":
    print("share of intervals that cover the true mean, of 2,000 benches; 0.950 is promised\nquestions")
    for kind in KINDS:
        for n, share in coverage(kind, draws=1000):
            print(f"{n:>9}  {kind:<8}{share:.3f}  {share - 0.95:+.3f}", flush=True)
    print("\n240 turns of 80 dialogues about 36 things, 600 times; the interval is drawn over")
    for name, share in zip(("turns alone", "things and dialogues"), clustered_coverage()):
        print(f"{name:<21}{share:.3f}  {share - 0.95:+.3f}")
