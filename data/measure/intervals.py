"""
How sure one may be of a mean, a difference or a win rate: bootstrap intervals, permutation tests,
win rates at equal length, and agreement beyond chance (kappa).

Values that failed are NaN throughout. None stands for a number that cannot be computed.
"""

from collections import Counter
from itertools import product

import numpy as np


# ------------------------------------------------------------------------------------------------
# means and differences


def mean_of(values):
    """The mean of an array without its NaNs; None if nothing is left."""
    if np.isnan(values).all():
        return None
    return float(np.nanmean(values))


def ratio(part, total):
    """part / total as a float; None if total is 0."""
    return float(part / total) if total else None


# exercise 31: an interval over whole questions
def bootstrap(sums, counts=None, draws=2000, seed=0):
    """
    A mean and its 95 % bootstrap interval (Efron 1979): (mean, low, high).

    sums (N): one value for each question or, with counts (N), the sum of that many values; the mean
    is over all values. A draw takes N whole questions (or dialogues) at random, some more than
    once, since the values of one question are not independent; its mean is again over all values
    of those taken. low and high cut off 2.5 % of the draws at each end; draws without a value are
    left out. All three are None without any value, low and high are None if only one question has
    values.
    """
    sums = np.asarray(sums, dtype=float)
    counts = np.ones(len(sums)) if counts is None else np.asarray(counts, dtype=float)
    if counts.sum() == 0:
        return None, None, None
    mean = sums.sum() / counts.sum()
    if (counts > 0).sum() == 1:
        return mean, None, None

    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    drawn_sums = sums[picks].sum(axis=1)                             # (draws,)
    drawn_counts = counts[picks].sum(axis=1)                         # (draws,)
    # a draw may hold nothing but questions without values
    usable = drawn_counts > 0
    low, high = np.percentile(drawn_sums[usable] / drawn_counts[usable], [2.5, 97.5])
    return mean, low, high


# exercise 9: the bootstrap of clustered turns
def two_way_draws(values, rows, columns, draws=2000, seed=0):
    """
    Means of values that are clustered in two ways, over bootstrap draws (Owen 2007, the pigeonhole
    bootstrap): turns of some dialogues about some things, say.

    values (n, k): k values for each turn, no NaN, also as lists; rows, columns (n): its dialogue
    and its thing, numbers or texts. Draws and turns are thousands: a Python loop over turns is too
    slow. A draw takes as many dialogues as there are, at random, some more than
    once, and independently as many things; a turn counts as often as its dialogue was taken times
    as often as its thing was. Its k means are over all turns, each counted so often.

    Returns an array (draws, k), shorter by the draws that took no turn at all; the same for the
    same seed. Two dialogues with the values 1, 1, 1 and 5, of one thing: a quarter of the draws
    has the mean 1, half 2, a quarter 5.
    """
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    weights = np.ones((draws, len(values)))
    for labels in (rows, columns):
        _, cluster = np.unique(labels, return_inverse=True)
        count = cluster.max() + 1
        times_drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        weights *= times_drawn[:, cluster]                           # (draws, n)
    totals = weights.sum(axis=1)
    usable = totals > 0
    return weights[usable] @ values / totals[usable, None]


def drawn_interval(draws):
    """The 95 % interval of a statistic over bootstrap draws (draws,): (low, high)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def drawn_p(draws):
    """The two-sided p-value of no difference, from bootstrap draws of the difference (draws,)."""
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    # the observed difference counts as one more draw, so that p is never 0
    return float(min(1, 2 * (tail + 1) / (len(draws) + 1)))


def holm(p_values):
    """Adjust p-values of several comparisons so that all of them hold together (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted, largest = [None] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


# exercise 30: a permutation test
def permutation(differences, draws=10000, seed=0):
    """
    The two-sided p-value of a mean difference over questions (Fisher 1935), a float.

    If there were no difference, each question's could as well have the other sign. p is the share
    of sign patterns that give a mean at least as far from 0 as the observed one: of all 2 ** n
    patterns for up to n = 12 questions; for more, of `draws` random ones and the observed, which
    counts as one more, so that p is never 0. Sums that differ by 1e-9 or less are taken for equal.

    Of [1, 1, 1] the mean is 1, and of all 8 patterns two give 1 or -1: p = 0.25.
    """
    differences = np.asarray(differences, dtype=float)
    n = len(differences)
    exact = n <= 12
    if exact:
        signs = np.array(list(product((-1, 1), repeat=n)))
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), size=(draws, n))
    # the tolerance keeps rounding from telling equal sums apart
    as_large = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    if exact:
        return as_large.mean()
    # the observed signs count as one more draw, so that p is never 0
    return (as_large.sum() + 1) / (draws + 1)


def paired(a, b):
    """
    The mean difference a - b of scores (questions, turns), over the turns that both have.

    Returns {"difference", "low", "high", "p"}; None if no turn has both.
    """
    gaps = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    counts = (~np.isnan(gaps)).sum(axis=1)
    sums = np.nansum(gaps, axis=1)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(sums) == 0:
        return None
    difference, low, high = bootstrap(sums, counts)
    p = permutation(sums / counts)
    return {"difference": difference, "low": low, "high": high, "p": p}


def mean_bounds(values, worst, best):
    """What a mean would be if all failures (NaN) had been the worst value, or the best: [a, b]."""
    values = np.asarray(values, dtype=float)
    failed = np.isnan(values)
    return [float(np.where(failed, fill, values).mean()) for fill in (worst, best)]


# ------------------------------------------------------------------------------------------------
# win rates at equal length


def length_controlled(outcomes, longer, weights=None, ridge=0.01, steps=25):
    """
    The win rate at equal length (Dubois et al. 2024, arXiv 2404.04475, in its smallest form).

    Fits the logistic regression P(win) = sigmoid(a + b x), x = tanh(longer / its standard
    deviation), by Newton's method, and returns P at x = 0.

    outcomes (n): 1, 0.5 or 0; longer (n): by how many characters the answer was longer; weights
    (draws, n): how often each outcome counts; ridge: a penalty that keeps a and b finite, and draws
    P slightly towards 1/2. Returns (draws,), or (1,) without weights.
    """
    x = np.tanh(longer / (np.std(longer) or 1))
    if weights is None:
        weights = np.ones((1, len(outcomes)))
    a = np.zeros(len(weights))
    b = np.zeros(len(weights))
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))         # (draws, n)
        residual = weights * (outcomes - p)
        curvature = weights * p * (1 - p)
        # the gradient of the penalised log-likelihood ...
        gradient_a = residual.sum(1) - ridge * a
        gradient_b = (residual * x).sum(1) - ridge * b
        # ... and its negative second derivatives, a 2 x 2 matrix
        h_aa = curvature.sum(1) + ridge
        h_ab = (curvature * x).sum(1)
        h_bb = (curvature * x * x).sum(1) + ridge
        determinant = h_aa * h_bb - h_ab * h_ab
        # Newton's step: the inverse of that matrix times the gradient
        a = a + (h_bb * gradient_a - h_ab * gradient_b) / determinant
        b = b + (h_aa * gradient_b - h_ab * gradient_a) / determinant
    return 1 / (1 + np.exp(-a))


def length_controlled_interval(outcomes, longer, questions, draws=500, seed=0):
    """
    The win rate at equal length with its 95 % interval over questions: {"rate", "low", "high"}.

    outcomes, longer (n): as for length_controlled; questions (n): the number of each outcome's
    question. None if there is but one question, or if all lengths differ by the same amount.
    """
    _, questions = np.unique(questions, return_inverse=True)
    if len(set(questions)) < 2:
        return None
    if np.std(longer) == 0 and np.any(longer):
        return None
    n = questions.max() + 1
    picks = np.random.default_rng(seed).integers(n, size=(draws, n))
    # an outcome counts as often as its question was drawn
    weights = np.array([np.bincount(pick, minlength=n)[questions] for pick in picks])
    rate, = length_controlled(outcomes, longer)
    low, high = np.percentile(length_controlled(outcomes, longer, weights), [2.5, 97.5])
    return {"rate": rate, "low": low, "high": high}


# ------------------------------------------------------------------------------------------------
# agreement


# exercise 29: agreement beyond chance
def kappa(a, b):
    """
    Agreement of two lists of labels beyond chance (Cohen 1960), a float.

    a, b: what two raters said of the same things, not empty. Chance is the agreement to be expected
    of two raters who choose labels at random, each as often as here. Kappa is 1 for perfect
    agreement, 0 for that of chance, and in between (or below) on a straight line: 0.7 where chance
    gives 0.4 is halfway, 0.5. None if chance alone would give perfect agreement.
    """
    agreed = np.mean([x == y for x, y in zip(a, b)])
    frequencies_a, frequencies_b = Counter(a), Counter(b)
    products = [frequencies_a[label] * frequencies_b[label] for label in frequencies_a]
    chance = sum(products) / len(a) ** 2
    if chance == 1:
        return None
    return (agreed - chance) / (1 - chance)


def label_agreement(rows):
    """
    How often two labels of [(question, label, label), ...] are the same, with its interval.

    Returns {"n", "agreed", "low", "high", "kappa"}, the interval over questions; None for no rows.
    """
    if not rows:
        return None
    _, question = np.unique([str(row[0]) for row in rows], return_inverse=True)
    same = np.array([a == b for _, a, b in rows])
    share, low, high = bootstrap(np.bincount(question, same), np.bincount(question))
    return {"n": len(rows), "agreed": share, "low": low, "high": high,
            "kappa": kappa([a for _, a, _ in rows], [b for _, _, b in rows])}
