"""
How often a 95 % interval holds the truth, on benches made up for the purpose: make coverage

Of each question there is a win, with probability 0.7, or a score from 0 to 1, with mean 0.7; of
many such benches, the share whose bootstrap interval holds 0.7. With few questions it falls short
where scores are smooth and lopsided; that of wins, which are counted, moves in steps.
"""

import numpy as np

from data.measure.intervals import bootstrap

KINDS = {"wins": lambda rng, n: rng.random(n) < 0.7, "scores": lambda rng, n: rng.beta(1.4, 0.6, n)}


def coverage(kind, questions=(160, 40, 10), benches=2000, draws=2000):
    """(number of questions, share of intervals that hold 0.7), one by one."""
    rng = np.random.default_rng(0)
    for n in questions:
        held = 0
        for bench in range(benches):
            _, low, high = bootstrap(KINDS[kind](rng, n), draws=draws, seed=bench)
            held += low <= 0.7 <= high
        yield n, held / benches


if __name__ == "__main__":
    print("intervals that hold the truth, of 2,000 benches; 0.950 is promised\nquestions")
    for kind in KINDS:
        for n, share in coverage(kind):
            print(f"{n:>9}  {kind:<8}{share:.3f}  {share - 0.95:+.3f}", flush=True)
