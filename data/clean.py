"""
Clean dialogues, and join the shards of a simulation: what is dropped is counted and kept aside.

    python -m data.clean shard1.jsonl shard2.jsonl --out chat.jsonl --bench question.jsonl

Rules, in this order, each switched off by --skip NAME:

    length      fewer rounds than --min-rounds, or a turn of more than --max-characters
    language    letters that are not Latin, unless the human asks for a translation
    refusals    an answer that declines, or speaks of itself as an AI
    bench       words in a row (--words) that a question of a bench has, too
    exact       the same dialogue as an earlier one
    near        nearly the same: shared runs of five words, by MinHash (Broder 1997)
    openings    nearly the same first question as --per-opening earlier ones

The dropped are in OUT.dropped, each with the rule and the evidence. Not here: reading the formats
of others.
"""

import argparse
import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from data.texts import words_of
from platolm import Problem, line, positive, put, read, run, write

# ------------------------------------------------------------------------------------------------
# rules about one dialogue: each gives the evidence, or None


def texts(record, who=("human", "gpt")):
    """What was said in a dialogue, or by one side of it."""
    return [turn["value"] for turn in record["conversations"] if turn["from"] in who]


def length(args):
    """Too few rounds, or a turn too long."""
    def evidence(record):
        rounds, longest = len(record["conversations"]) // 2, max(map(len, texts(record)))
        if rounds < args.min_rounds:
            return f"{rounds} rounds"
        return f"{longest} characters in a turn" if longest > args.max_characters else None
    return evidence


def language(args):
    """Letters beyond Latin in more than one of ten; who asks for a translation may have them."""
    def evidence(record):
        letters = [letter for letter in " ".join(texts(record)) if letter.isalpha()]
        foreign = [letter for letter in letters if ord(letter) > 0x24F]
        asked = any(re.search(r"\btranslat", text, re.I) for text in texts(record, ("human",)))
        if len(foreign) * 10 > len(letters) and not asked:
            return f"{len(foreign)} of {len(letters)} letters, as in {''.join(foreign[:20])!r}"
    return evidence


REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b"
    r"|\bi(’|'| a)?m (sorry|afraid),? (but )?i (can(no|’|')?t|am (not able|unable))"
    r"|\bi (can(no|’|')t|am unable to|am not able to) (assist|help|comply|fulfil|provide)", re.I)


def refusals(args):
    """The words by which an assistant declines."""
    def evidence(record):
        for text in texts(record, ("gpt",)):
            # who declines does so at the start
            if found := REFUSAL.search(text[:200]):
                return found[0]
    return evidence


def grams(words, n):
    """All runs of n words."""
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


def bench(args):
    """Words in a row that stand in a bench's question; of a shorter question, all of it."""
    found = set()
    for path in args.bench:
        for question in read(path, lambda row: None if row.get("turns") else "no turns"):
            for text in question["turns"]:
                words = words_of(text)
                found |= grams(words, min(args.words, len(words)))
    sizes = sorted({len(gram) for gram in found if len(gram) > 3})

    def evidence(record):
        for text in texts(record):
            words = words_of(text)
            for n in sizes:
                if shared := grams(words, n) & found:
                    # a short question counts only where it is all that is said
                    if n == args.words or len(words) == n:
                        return " ".join(min(shared))
    return evidence


# ------------------------------------------------------------------------------------------------
# rules about a dialogue and those before it


def exact(args):
    """The id of the dialogue that says the same."""
    seen = {}

    def evidence(record):
        said = tuple(texts(record))
        if said in seen:
            return f"as {seen[said]}"
        seen[said] = record["id"]
    return evidence


def shingles(items):
    """A set of things as sorted 32-bit numbers."""
    return np.unique(np.array([zlib.crc32(repr(item).encode()) for item in items], dtype=np.uint64))


def jaccard(a, b):
    """Of two sets (sorted arrays): what they share of all that they hold."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / max(1, len(a) + len(b) - both)


class Alike:
    """
    The sets seen before that are like a new one: Jaccard at least `least`.

    A signature keeps, for each of 128 hash functions, the smallest value over a set; two sets
    agree in each place with a probability of their Jaccard. Sets that agree in all four places of
    any of 32 bands are compared in full.
    """

    def __init__(self, least):
        # multiply and shift (Dietzfelbinger 1996): odd factors, the upper half of the product
        rng = np.random.default_rng(0)
        self.factors = rng.integers(1 << 63, size=(128, 1), dtype=np.uint64) | np.uint64(1)
        self.least, self.sets, self.bands = least, [], {}

    def signature(self, found):
        """(128,) the smallest hashes of a set."""
        return ((self.factors * found) >> np.uint64(32)).min(axis=1)

    def keys(self, found):
        """The 32 bands of a set's signature."""
        return [(i, band.tobytes()) for i, band in enumerate(self.signature(found).reshape(32, 4))]

    def before(self, found):
        """The numbers of the earlier sets that are like this one, the first first."""
        if not len(found):
            return []
        near = {n for key in self.keys(found) for n in self.bands.get(key, ())}
        return [n for n in sorted(near) if jaccard(self.sets[n], found) >= self.least]

    def add(self, found):
        """Remember a set."""
        if len(found):
            for key in self.keys(found):
                self.bands.setdefault(key, []).append(len(self.sets))
        self.sets.append(found)


def repeated(shingles_of, least, times):
    """A rule: no dialogue like `times` earlier ones, by their sets of shingles."""
    alike, ids = Alike(least), []

    def evidence(record):
        found = shingles_of(record)
        before = alike.before(found)
        if len(before) >= times:
            first = before[0]
            return f"{jaccard(alike.sets[first], found):.2f} as {ids[first]}"
        alike.add(found)
        ids.append(record["id"])
    return evidence


def near(args):
    """Five words in a row are a shingle of a dialogue."""
    return repeated(lambda record: shingles(grams(words_of("\n".join(texts(record))), 5)),
                    args.alike, 1)


def openings(args):
    """Four characters in a row are a shingle of a first question: those are short."""
    def first(record):
        text = " ".join(words_of(texts(record)[0]))
        return shingles({text[i:i + 4] for i in range(max(1, len(text) - 3))})
    return repeated(first, args.alike, args.per_opening)


RULES = {rule.__name__: rule for rule in (length, language, refusals, bench, exact, near, openings)}

# ------------------------------------------------------------------------------------------------


def clean(records, rules):
    """
    Apply rules {name: record -> evidence or None} in order: (kept, dropped).

    A dropped record has two keys more, "why" and "evidence".
    """
    kept, dropped = [], []
    for record in records:
        for name, rule in rules.items():
            if evidence := rule(record):
                dropped.append(record | {"why": name, "evidence": evidence})
                break
        else:
            kept.append(record)
    return kept, dropped


def joined(paths):
    """The dialogues of some files; of several, in the order of their ids, which must differ."""
    records = [record for path in paths for record in read(path) if "conversations" in record]
    if len(paths) > 1:
        twice = [name for name, n in Counter(str(r.get("id")) for r in records).items() if n > 1]
        if twice:
            raise Problem(f"{len(twice)} ids are in these files twice, first {twice[0]}")
        records.sort(key=lambda record: str(record.get("id")))
    return [{"id": str(number), **record} for number, record in enumerate(records)]


def main():
    """Clean, and say what was dropped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("files", nargs="+", help="JSONL files of dialogues")
    add("--out", required=True, help="JSONL file to write; OUT.dropped is beside it")
    add("--skip", nargs="*", choices=RULES, default=[], help="rules not to apply")
    add("--bench", nargs="*", default=[], metavar="FILE", help="question.jsonl of a bench")
    add("--words", type=positive, default=8, help="as many in a row are an overlap with a bench")
    add("--min-rounds", type=positive, default=1)
    add("--max-characters", type=positive, default=20000)
    add("--alike", type=float, default=0.8, help="the Jaccard of two that are nearly the same")
    add("--per-opening", type=positive, default=3, help="dialogues that may begin alike")
    args = parser.parse_args()
    if any(Path(args.out).resolve() == Path(file).resolve() for file in args.files):
        raise Problem(f"{args.out} is read; write what is left of it somewhere else")
    records = joined(args.files)
    rules = {name: rule(args) for name, rule in RULES.items() if name not in args.skip}
    kept, dropped = clean(records, rules)
    write(args.out, kept)
    put(f"{args.out}.dropped", map(line, dropped))
    counts, left = Counter(record["why"] for record in dropped), len(records)
    print(f"{'read':<10}{'':>8}{left:>9,}")
    for name in rules:
        left -= counts[name]
        example = next((r["evidence"] for r in dropped if r["why"] == name), "")
        print(f"{name:<10}{-counts[name]:>8,}{left:>9,}   {example[:70]}")
    print(f"{args.out}: {len(kept):,} dialogues; {args.out}.dropped: {len(dropped):,}")


if __name__ == "__main__":
    run(main)
