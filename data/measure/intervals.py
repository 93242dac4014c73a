"""
How sure one may be of a mean or a difference: intervals, p-values, agreement beyond chance.
"""

from collections import Counter
from itertools import product

import numpy as np


def bootstrap(sums, counts=None, draws=2000, seed=0):
    """
    A mean and its 95 % interval (Efron 1979): (mean, low, high).

    sums: one value a question or, with `counts`, the sum of so many values; the mean is over all
    of them. Questions (or dialogues) are drawn again with replacement, as wholes.
    """
    sums = np.asarray(sums, dtype=float)
    counts = np.ones(len(sums)) if counts is None else np.asarray(counts, dtype=float)
    if not counts.sum():
        return None, None, None
    if (counts > 0).sum() == 1:
        # one question says nothing of others
        return sums.sum() / counts.sum(), None, None
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    drawn = counts[picks].sum(axis=1)
    low, high = np.percentile(sums[picks].sum(axis=1)[drawn > 0] / drawn[drawn > 0], [2.5, 97.5])
    return sums.sum() / counts.sum(), low, high


def permutation(differences, draws=10000, seed=0):
    """
    The p-value of a mean difference over questions, two-sided (Fisher 1935): how often it is as
    large when each difference might as well have had the other sign. Exact for up to 12 of them.
    """
    differences = np.asarray(differences, dtype=float)
    n = len(differences)
    if n <= 12:
        signs = np.array(list(product((-1, 1), repeat=n)))
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), size=(draws, n))
    # rounding must not tell apart what is equal
    as_large = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return as_large.mean() if n <= 12 else (as_large.sum() + 1) / (draws + 1)


def paired(a, b):
    """
    Mean difference a - b of scores (questions, turns), over the turns that both were rated for:
    {"difference", "low", "high", "p"}; None if there are none.
    """
    gaps = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    counts = (~np.isnan(gaps)).sum(axis=1)
    sums, counts = np.nansum(gaps, axis=1)[counts > 0], counts[counts > 0]
    if not len(sums):
        return None
    found = dict(zip(("difference", "low", "high"), bootstrap(sums, counts)))
    return found | {"p": permutation(sums / counts)}


def bounded(values, worst, best):
    """What a mean would be if all that failed (NaN) had turned out as the worst, as the best."""
    values = np.asarray(values, dtype=float)
    return [float(np.where(np.isnan(values), fill, values).mean()) for fill in (worst, best)]


def kappa(a, b):
    """
    Agreement of two lists of labels beyond chance (Cohen 1960): 1 for perfect, 0 for what the
    frequencies of the labels alone would give, None where that is perfect already.
    """
    agreed = np.mean([x == y for x, y in zip(a, b)])
    first, second = Counter(a), Counter(b)
    chance = sum(first[label] * second[label] for label in first) / len(a) ** 2
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def mean_of(values):
    """The mean of what was rated, or None of nothing."""
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else None
