"""
What can be counted in texts: words, their variety, what they are about, and who may have said them.

Each measure is one short function of texts, word lists or their vectors, in numpy. Not here: which
of them make up a simulator's card (card.py) or the statistics of a data set (dataset_stats.py).
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
    """The words of a text, in lower case; where there are no spaces, its characters."""
    return WORD.findall(text.lower())


def factors(words, threshold):
    """How often the share of different words falls to the threshold; the rest counts in part."""
    found, seen, count = 0.0, set(), 0
    for word in words:
        seen.add(word)
        count += 1
        if len(seen) / count <= threshold:
            found, seen, count = found + 1, set(), 0
    return found + (1 - len(seen) / count) / (1 - threshold) if count else found


def mtld(words, threshold=0.72):
    """
    Lexical diversity that does not hang on length (McCarthy & Jarvis 2010): the mean length of
    stretches over which the share of different words stays above the threshold, from both ends.
    None where no word comes twice: then it would be infinite.
    """
    both = factors(words, threshold), factors(words[::-1], threshold)
    return sum(len(words) / n for n in both) / 2 if all(both) else None


def distinct(lists, n=2, most=2000):
    """The share of different runs of n words, of the first `most` (Li et al. 2016)."""
    runs = [tuple(words[i:i + n]) for words in lists for i in range(len(words) - n + 1)][:most]
    return len(set(runs)) / len(runs) if runs else None


def jaccard_diversity(texts):
    """1 minus the mean share of words that two of these texts have in common, over all pairs."""
    sets = [set(words_of(text)) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*sets)))}
    if len(sets) < 2 or not vocabulary:
        return None
    has = np.zeros((len(sets), len(vocabulary)), dtype=np.float32)
    for row, found in zip(has, sets):
        row[[vocabulary[word] for word in found]] = 1
    both, sizes = has @ has.T, has.sum(axis=1)                       # (N, N), (N,)
    either = np.maximum(sizes[:, None] + sizes - both, 1)
    pairs = np.triu_indices(len(sets), 1)
    return float(1 - (both / either)[pairs].mean())


# ------------------------------------------------------------------------------------------------
# vectors: hashed character n-grams, the embedding that needs no model

SIZE, GRAMS = 1 << 12, (3, 4)


def buckets(text, n):
    """The hash of each run of n characters of a text, with a space before and after it."""
    codes = np.frombuffer(f" {text.lower()} ".encode("utf-32-le", "replace"), dtype=np.uint32)
    if len(codes) < n:
        return np.zeros(0, dtype=np.int64)
    found = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for i in range(n):
        found = found * np.uint64(1_000_003) + codes[i:len(codes) - n + 1 + i]
    # multiply and shift (Dietzfelbinger 1996): the upper 12 bits are a number below SIZE
    return ((found * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - 12)).astype(np.int64)


def vectors(texts):
    """Texts (N) as unit vectors (N, 4096): the root of how often each hashed n-gram occurs."""
    found = np.zeros((len(texts), SIZE), dtype=np.float32)
    for row, text in zip(found, texts):
        for n in GRAMS:
            row += np.bincount(buckets(text, n), minlength=SIZE)
    return unit(np.sqrt(found))


def unit(rows):
    """Rows (N, D) scaled to length 1; of nothing, nothing."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def mean_cosine(total, n):
    """
    The mean cosine of all pairs of n unit vectors, from their sum: with each paired with itself,
    as the paper's notebook has it, and without. O(n d) instead of O(n^2 d).
    """
    square = float(total @ total)
    return square / n ** 2, (square - n) / (n * (n - 1)) if n > 1 else None


def grams_in(texts, wanted):
    """For each wanted bucket, the run of characters that falls into it most often."""
    counts = {bucket: Counter() for bucket in wanted}
    for text in texts:
        padded = f" {text.lower()} "
        for n in GRAMS:
            for i, bucket in enumerate(buckets(text, n).tolist()):
                if bucket in counts:
                    counts[bucket][padded[i:i + n]] += 1
    return {bucket: found.most_common(1)[0][0] for bucket, found in counts.items() if found}


# ------------------------------------------------------------------------------------------------
# who said it? a classifier


def logistic(x, y, ridge=1e-4, steps=150):
    """
    Logistic regression by Nesterov's gradient steps: x (N, D) with rows of length 1, y (N) of 0
    and 1  ->  weights (D), bias. Both classes count the same, however many there are of each.
    """
    weight = np.where(y == 1, 0.5 / max(1, (y == 1).sum()), 0.5 / max(1, (y == 0).sum()))
    w = previous = np.zeros(x.shape[1] + 1, dtype=np.float32)
    x = np.hstack([x, np.ones((len(x), 1), dtype=np.float32)])
    for step in range(steps):
        ahead = w + step / (step + 3) * (w - previous)
        p = 1 / (1 + np.exp(-(x @ ahead)))
        slope = x.T @ (weight * (p - y)).astype(np.float32) + ridge * ahead
        # with the bias |x|^2 = 2: the curvature is at most 2 / 4, and a step of 2 is safe
        previous, w = w, ahead - 2 * slope
    return w[:-1], w[-1]


def out_of_fold(x, y, groups, folds=5, seed=0):
    """
    A score for each row by a classifier that has not seen its group (a dialogue): (N,), above 0
    where it takes it for a 1.
    """
    names, group = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % folds)[group]
    scores = np.zeros(len(y))
    for k in range(folds):
        train, test = fold != k, fold == k
        if test.any() and len(set(y[train])) == 2:
            w, bias = logistic(x[train], y[train])
            scores[test] = x[test] @ w + bias
    return scores


def auc(scores, y):
    """The chance that a 1 scores above a 0, a tie being half (Mann & Whitney 1947); or None."""
    ones = int((y == 1).sum())
    zeros = len(y) - ones
    if not ones or not zeros:
        return None
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][y == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


# ------------------------------------------------------------------------------------------------
# two samples of numbers


def wasserstein(a, b):
    """The mean way from one sample to another: the area between their distribution functions."""
    points = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(sample), points[:-1], side="right") / len(sample)
             for sample in (a, b)]
    return float((np.abs(below[0] - below[1]) * np.diff(points)).sum())


def kolmogorov(a, b):
    """The largest gap between their distribution functions (Kolmogorov & Smirnov)."""
    points = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample)
             for sample in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


# ------------------------------------------------------------------------------------------------
# what a turn is like, and what it does; the words are English, and see little of other languages

ANAPHORA = re.compile(r"(it|its|that|this|these|those|they|them|he|she|his|her|and|but|so|then|or"
                      r"|the (first|second|third|last|other)( one)?|what about|how about)\b", re.I)
LEAKS = re.compile(r"</?s>|<\|?(im_start|im_end|endoftext)|\[/?INST\]|^\W*(human|user|assistant"
                   r"|system)\s*:", re.I | re.M)
SERVES = re.compile(r"\b(as an ai|how (can|may) i (help|assist)|i('d| would) be happy to"
                    r"|feel free to|(is|let me know if) there('s| is)? anything else)\b"
                    r"|^(sure|certainly|of course|absolutely)[!,.]", re.I)

SHAPE = {
    "starts in lower case": lambda text: text[:1].islower(),
    "ends without a mark": lambda text: text.rstrip()[-1:].isalnum(),
    "has a question mark": lambda text: "?" in text,
    "starts by pointing back": lambda text: bool(ANAPHORA.match(text.strip())),
}

ACTS = (
    ("thanks or praise", r"^\W*(thanks|thank you|thx|cheers|bye|goodbye|great|perfect)\b"),
    ("correction", r"^\W*(no|nope|wrong|actually|not)\b|\b(i (meant|said)|that's not|isn't|wasn't|"
                   r"wasnt|are you sure|really)\b"),
    ("points back", ANAPHORA.pattern),
    ("question", r"\?|^\W*(who|what|when|where|why|which|how|is|are|can|could|do|does|did)\b"),
)


def act(text):
    """What a turn does, by its words: the first that fits."""
    for name, pattern in ACTS:
        if re.search(pattern if pattern != ANAPHORA.pattern else "^" + pattern, text, re.I):
            return name
    return "other"


STOP = set(
    "a about an and are as at be but by can could do does for from had has have he her his how i "
    "if in is it its me my no not of on or our please she should so some tell that the their them "
    "then there these they this to was we were what when where which who why will with would you "
    "your".split())


def content(text):
    """The words of a text that carry what it is about."""
    return {word for word in words_of(text) if word not in STOP and len(word) > 1}
