"""
How often a 95 % interval covers the true mean, on benches made up for the purpose: make coverage

Each question of such a bench has a win, with probability 0.7, or a score from 0 to 1, with mean
0.7. Printed is the share of benches whose bootstrap interval covers 0.7. With few questions it is
too low for scores, which are skewed; for wins, which are counted, it moves in steps.
"""

import numpy as np

from data.measure.intervals import bootstrap

KINDS = {"wins": lambda rng, n: rng.random(n) < 0.7, "scores": lambda rng, n: rng.beta(1.4, 0.6, n)}


def coverage(kind, questions=(160, 40, 10), benches=2000, draws=2000):
    """Yield (number of questions, share of intervals that cover 0.7); kind: a key of KINDS."""
    rng = np.random.default_rng(0)
    for n in questions:
        covered = 0
        for bench in range(benches):
            _, low, high = bootstrap(KINDS[kind](rng, n), draws=draws, seed=bench)
            covered += low <= 0.7 <= high
        yield n, covered / benches


if __name__ == "__main__":
    print("share of intervals that cover the true mean, of 2,000 benches; 0.950 is promised\nquestions")
    for kind in KINDS:
        for n, share in coverage(kind):
            print(f"{n:>9}  {kind:<8}{share:.3f}  {share - 0.95:+.3f}", flush=True)
