"""
Measures of texts: words and their variety, similarity, and classifiers of who wrote a text.

Each measure is one short function of texts, lists of words, or vectors, in numpy.
"""

import re
from collections import Counter

import numpy as np

# ------------------------------------------------------------------------------------------------
# words


# kana, Chinese characters, and Thai, Lao, Khmer: written without spaces
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*")


def words_of(text):
    """Split a text into words, in lower case; scripts without spaces into characters."""
    return WORD.findall(text.lower())


# exercise 26: lexical diversity: the factors of MTLD
def factors(words, threshold):
    """
    Count the stretches ("factors") of a list of words in which the share of different words falls
    from 1 to the threshold; a float.

    The first stretch begins with the first word. It is complete, and counts as 1, with the word
    that brings its share of different words down to the threshold or below it; the next begins
    with the next word, and knows nothing of earlier ones. A last, incomplete stretch counts as a
    fraction: how far its share has fallen from 1 towards the threshold.

    With 0.72, of a b a c d: "a b a" is one (2 of 3 differ), "c d" counts 0. Of a b c d a: 4 of 5
    differ, which is 0.2 of 0.28 on the way, 0.71 factors. No words: 0.
    """
    complete = 0.0
    seen, count = set(), 0
    for word in words:
        seen.add(word)
        count += 1
        if len(seen) / count <= threshold:
            complete += 1
            seen, count = set(), 0
    if count == 0:
        return complete
    return complete + (1 - len(seen) / count) / (1 - threshold)


def mtld(words, threshold=0.72):
    """
    Lexical diversity independent of length (McCarthy & Jarvis 2010), of a list of words.

    The mean length of stretches over which the share of different words stays above the threshold,
    read from both ends. None if no word occurs twice: it would be infinite.
    """
    forward = factors(words, threshold)
    backward = factors(words[::-1], threshold)
    if not forward or not backward:
        return None
    return sum(len(words) / n for n in (forward, backward)) / 2


def distinct(lists, n=2, most=2000):
    """
    The share of different n-grams among the first `most` (Li et al. 2016); None without any.

    lists: the words of each text.
    """
    ngrams = []
    for words in lists:
        for i in range(len(words) - n + 1):
            ngrams.append(tuple(words[i:i + n]))
    ngrams = ngrams[:most]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def jaccard_diversity(texts):
    """
    1 minus the mean Jaccard similarity of the words of two texts, over all pairs of texts.

    The Jaccard similarity is the number of words in both texts over that of words in either. None
    for fewer than two texts.
    """
    word_sets = [set(words_of(text)) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*word_sets)))}
    if len(word_sets) < 2 or not vocabulary:
        return None
    # a row for each text, 1 where it has a word of the vocabulary
    has = np.zeros((len(word_sets), len(vocabulary)), dtype=np.float32)
    for row, words in zip(has, word_sets):
        row[[vocabulary[word] for word in words]] = 1
    both = has @ has.T                                               # (N, N)
    sizes = has.sum(axis=1)                                          # (N,)
    either = np.maximum(sizes[:, None] + sizes - both, 1)
    pairs = np.triu_indices(len(word_sets), 1)
    return float(1 - (both / either)[pairs].mean())


# ------------------------------------------------------------------------------------------------
# vectors: hashed character n-grams, the embedding that needs no model

SIZE = 1 << 12
GRAMS = (3, 4)


def buckets(text, n):
    """
    Hash each run of n characters of a text to a number below SIZE: (number of runs,).

    A space is put before and after the text.
    """
    codes = np.frombuffer(f" {text.lower()} ".encode("utf-32-le", "replace"), dtype=np.uint32)
    if len(codes) < n:
        return np.zeros(0, dtype=np.int64)
    hashes = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for i in range(n):
        hashes = hashes * np.uint64(1_000_003) + codes[i:len(codes) - n + 1 + i]
    # multiply and shift (Dietzfelbinger 1996): the upper 12 bits are a number below SIZE
    return ((hashes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - 12)).astype(np.int64)


def vectors(texts):
    """Embed texts (N) as unit vectors (N, 4096): square roots of the counts of hashed n-grams."""
    counts = np.zeros((len(texts), SIZE), dtype=np.float32)
    for row, text in zip(counts, texts):
        for n in GRAMS:
            row += np.bincount(buckets(text, n), minlength=SIZE)
    return unit(np.sqrt(counts))


def unit(rows):
    """Scale rows (N, D) to length 1; rows of zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def mean_cosine(total, n):
    """
    The mean cosine of all pairs of n unit vectors, from their sum `total` (D,).

    The square of the sum is the sum of all products, so that no pair has to be visited. Returns the
    mean with each vector also paired with itself, as the paper's notebook has it, and without.
    """
    square = float(total @ total)
    with_itself = square / n ** 2
    of_pairs = (square - n) / (n * (n - 1)) if n > 1 else None
    return with_itself, of_pairs


def grams_in(texts, wanted):
    """Find, for each wanted bucket, the run of characters that falls into it most often."""
    counts = {bucket: Counter() for bucket in wanted}
    for text in texts:
        padded = f" {text.lower()} "
        for n in GRAMS:
            for i, bucket in enumerate(buckets(text, n).tolist()):
                if bucket in counts:
                    counts[bucket][padded[i:i + n]] += 1
    return {bucket: runs.most_common(1)[0][0] for bucket, runs in counts.items() if runs}


# ------------------------------------------------------------------------------------------------
# a classifier: who wrote a text?


def logistic(x, y, ridge=1e-4, steps=150):
    """
    Fit a logistic regression by Nesterov's accelerated gradient descent: (weights (D,), bias).

    x (N, D): rows of length 1; y (N): 0 or 1. Both classes have the same weight, however many rows
    each has; ridge: the penalty on the squared weights.
    """
    ones, zeros = (y == 1).sum(), (y == 0).sum()
    row_weights = np.where(y == 1, 0.5 / max(1, ones), 0.5 / max(1, zeros))
    # a column of ones, whose weight is the bias
    x = np.hstack([x, np.ones((len(x), 1), dtype=np.float32)])
    w = previous = np.zeros(x.shape[1], dtype=np.float32)
    for step in range(steps):
        # the gradient is taken a little ahead, where the momentum leads
        ahead = w + step / (step + 3) * (w - previous)
        p = 1 / (1 + np.exp(-(x @ ahead)))
        gradient = x.T @ (row_weights * (p - y)).astype(np.float32) + ridge * ahead
        # with the column of ones |x|^2 = 2: the curvature is at most 2 / 4, and a step of 2 is safe
        previous, w = w, ahead - 2 * gradient
    return w[:-1], w[-1]


def out_of_fold(x, y, groups, folds=5, seed=0):
    """
    Score each row by a logistic regression that has not seen its group (a dialogue): (N,).

    Cross-validation: the groups are dealt into folds at random. A score above 0 means class 1.
    """
    names, group = np.unique(groups, return_inverse=True)
    fold_of_group = np.random.default_rng(seed).permutation(len(names)) % folds
    fold = fold_of_group[group]                                      # (N,)
    scores = np.zeros(len(y))
    for k in range(folds):
        train = fold != k
        test = fold == k
        if test.any() and len(set(y[train])) == 2:
            w, bias = logistic(x[train], y[train])
            scores[test] = x[test] @ w + bias
    return scores


# exercise 28: the area under the ROC curve
def auc(scores, y):
    """
    The probability that a row of class 1 scores above one of class 0 (Mann & Whitney 1947).

    scores (n): a number for each row; y (n): its class, 1 or 0; both arrays, in any order. The
    share is of all pairs of a row of class 1 and one of class 0, of which a tie counts as half. A
    float; None if a class is empty.

    Scores 1, 2, 3, 4 of the classes 0, 1, 0, 1: of four pairs three are won, 0.75.
    """
    ones = int((y == 1).sum())
    zeros = len(y) - ones
    if not ones or not zeros:
        return None
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # the rank of each different score, counted from 1: the mean of the ranks that its rows share
    ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = ranks[index][y == 1].sum()
    return float((rank_sum - ones * (ones + 1) / 2) / (ones * zeros))


# ------------------------------------------------------------------------------------------------
# two samples of numbers


def distribution(sample, points):
    """The share of a sample's values up to each of some points: its distribution function."""
    return np.searchsorted(np.sort(sample), points, side="right") / len(sample)


def wasserstein(a, b):
    """The Wasserstein-1 distance of two samples: the area between their distribution functions."""
    points = np.sort(np.concatenate([a, b]))
    gaps = np.abs(distribution(a, points[:-1]) - distribution(b, points[:-1]))
    return float((gaps * np.diff(points)).sum())


def kolmogorov(a, b):
    """The Kolmogorov-Smirnov distance: the largest gap between two distribution functions."""
    points = np.concatenate([a, b])
    return float(np.abs(distribution(a, points) - distribution(b, points)).max())


# ------------------------------------------------------------------------------------------------
# what a turn is like, and what it does; the patterns are English

# how a turn begins that points back at something
POINTS_BACK = re.compile(
    r"(it|its|that|this|these|those|they|them|he|she|his|her|and|but|so|then|or"
    r"|the (first|second|third|last|other)( one)?|what about|how about)\b", re.I)
# a label or a special token inside a turn
LEAKS = re.compile(r"</?s>|<\|?(im_start|im_end|endoftext)|\[/?INST\]|^\W*(human|user|assistant"
                   r"|system)\s*:", re.I | re.M)
# phrases of an assistant
SERVES = re.compile(r"\b(as an ai|how (can|may) i (help|assist)|i('d| would) be happy to"
                    r"|feel free to|(is|let me know if) there('s| is)? anything else)\b"
                    r"|^(sure|certainly|of course|absolutely)[!,.]", re.I)

SHAPE = {
    "starts in lower case": lambda text: text[:1].islower(),
    "ends without a mark": lambda text: text.rstrip()[-1:].isalnum(),
    "has a question mark": lambda text: "?" in text,
    "starts by pointing back": lambda text: bool(POINTS_BACK.match(text.strip())),
}

ACTS = (
    ("thanks or praise", r"^\W*(thanks|thank you|thx|cheers|bye|goodbye|great|perfect)\b"),
    ("correction", r"^\W*(no|nope|wrong|actually|not)\b|\b(i (meant|said)|that's not|isn't|wasn't|"
                   r"wasnt|are you sure|really)\b"),
    ("points back", "^" + POINTS_BACK.pattern),
    ("question", r"\?|^\W*(who|what|when|where|why|which|how|is|are|can|could|do|does|did)\b"),
)


def act(text):
    """Name what a turn does, by its words: the first of ACTS that matches, or "other"."""
    for name, pattern in ACTS:
        if re.search(pattern, text, re.I):
            return name
    return "other"


STOP = set(
    "a about an and are as at be but by can could do does for from had has have he her his how i "
    "if in is it its me my no not of on or our please she should so some tell that the their them "
    "then there these they this to was we were what when where which who why will with would you "
    "your".split())


def content(text):
    """The content words of a text: all but stop words and single letters."""
    return {word for word in words_of(text) if word not in STOP and len(word) > 1}
