"""
Clean dialogues, and join the shards of a simulation: what is dropped is counted and kept aside.

    python -m data.formats.clean shard1.jsonl shard2.jsonl --out chat.jsonl --bench question.jsonl
    python -m data.formats.clean sharegpt.json --out human.jsonl --paper --tokenizer llama-7b

Steps, in this order, each switched off by --skip NAME:

    length      fewer rounds than --min-rounds, or a turn of more than --max-characters
    language    letters that are not Latin, unless the human asks for a translation
    refusals    an answer that declines, or speaks of itself as an AI
    bench       words in a row (--words) that a question of a bench has, too
    exact       the same words as in an earlier one
    near        nearly the same: shared runs of five words, by MinHash (Broder 1997)
    openings    nearly the same first question as --per-opening earlier ones
    split       what is longer than --limit tokens becomes segments; with --tokenizer only
    alone       a segment of a single turn

With --paper, the steps of the paper instead, for pages of ShareGPT:

    html        chat pages become Markdown
    short       a single turn
    blocked     a word of --block
    ascii       a character from U+0080 to U+FFFF, unless the human speaks of translating
    split, alone, exact     as above

The dropped are in OUT.dropped, each with the step and the evidence; items that are no dialogues
are counted only. Dialogues come and go one by one: of those before, their ids and hashes are
remembered, which for `near` and `openings` is about as much memory as the text takes. Not here:
the formats of others (files.py), HTML (markdown.py), where to split (segments.py).
"""

import argparse
import re
import zlib
from collections import Counter
from hashlib import blake2b
from heapq import merge
from pathlib import Path

import numpy as np

from data.formats import segments as splitting
from data.formats.files import read_dialogues
from data.formats.markdown import to_markdown
from data.program import UserError, to_jsonl, positive_int, read_jsonl, run, atomic_files
from data.text_metrics import words_of
from platolm import Tokenizer

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


def translates(record, word):
    """Whether the human asks for a translation, by a pattern of that word."""
    return any(word.search(text) for text in texts(record, ("human",)))


def language(args):
    """Letters beyond Latin in more than one of ten; who asks for a translation may have them."""
    def evidence(record):
        letters = [letter for letter in " ".join(texts(record)) if letter.isalpha()]
        foreign = [letter for letter in letters if ord(letter) > 0x24F]
        asked = translates(record, re.compile(r"\btranslat", re.I))
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
        for question in read_jsonl(path, lambda row: None if row.get("turns") else "no turns"):
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


def short(args):
    """Nobody answers."""
    def evidence(record):
        return "1 turn" if len(record["conversations"]) < 2 else None
    return evidence


def blocked(args):
    """A word that tells where the dialogue comes from, with what stands around it."""
    words = re.compile("|".join(map(re.escape, args.block)), re.I)

    def evidence(record):
        for text in texts(record):
            if found := words.search(text):
                return text[max(0, found.start() - 20):found.end() + 20]
    return evidence


def ascii_only(args):
    """The authors' sign of other languages; dashes and curly quotes count, most emoji not."""
    def evidence(record):
        found = re.findall("[\u0080-\uffff]", " ".join(texts(record)))
        if found and not translates(record, re.compile(r"\b[Tt]ranslat\w+")):
            return f"{len(found)} characters, as in {''.join(found[:20])!r}"
    return evidence


# ------------------------------------------------------------------------------------------------
# rules about a dialogue and those before it


def exact(args):
    """The id of the dialogue with the same words."""
    seen = {}

    def evidence(record):
        # 16 bytes stand for all of its turns: that two others share them is beyond all chance
        said = blake2b("".join(texts(record)).encode(), digest_size=16).digest()
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
        self.sets.append(found.astype(np.uint32))


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


RULES = {"length": length, "language": language, "refusals": refusals, "bench": bench,
         "short": short, "blocked": blocked, "ascii": ascii_only, "alone": short,
         "exact": exact, "near": near, "openings": openings}

# ------------------------------------------------------------------------------------------------
# changes of a dialogue: each gives what becomes of it, a list, and the evidence of a change


def html(args):
    """Markdown for HTML, turn by turn; a dialogue with a turn of which nothing is left is lost."""
    def change(record):
        said = record["conversations"]
        now = [turn | {"value": to_markdown(turn["value"])} for turn in said]
        for number, turn in enumerate(now, 1):
            if not turn["value"]:
                return [], f"turn {number} is nothing but markup"
        changed = [old["value"] for old, new in zip(said, now) if old != new]
        return [record | {"conversations": now}], changed[0] if changed else None
    return change


def split(args):
    """Segments; what overflows and belongs to none is lost."""
    tokenizer = Tokenizer.load(args.tokenizer)

    def change(record):
        spans = splitting.spans_of(record, args.split or "authors", tokenizer, args.limit)
        n = len(record["conversations"])
        turns = ", ".join(f"{start + 1}-{end}" for start, end in spans) or "none"
        evidence = None if spans == [(0, n)] else f"{record['id']}: of {n} turns {turns}"
        return splitting.split(record, spans), evidence
    return change


CHANGES = {"html": html, "split": split}

OURS = ("length", "language", "refusals", "bench", "exact", "near", "openings", "split", "alone")
PAPER = ("html", "short", "blocked", "ascii", "split", "alone", "exact")

# ------------------------------------------------------------------------------------------------


class Step:
    """A rule or a change, and what came of it: a line of the table."""

    def __init__(self, name, args):
        self.name, self.example = name, ""
        self.dropped = self.changed = self.added = self.out = 0
        self.act = CHANGES[name](args) if name in CHANGES else self.judge(RULES[name](args))

    @staticmethod
    def judge(rule):
        """A rule as a change: all of the dialogue is left, or nothing."""
        def act(record):
            evidence = rule(record)
            return [] if evidence else [record], evidence
        return act

    def through(self, records, drop):
        """What this step makes of some dialogues; `drop` takes those of which nothing is left."""
        for record in records:
            after, evidence = self.act(record)
            self.example = self.example or " ".join((evidence or "").split())
            self.out += len(after)
            if after:
                self.changed += bool(evidence)
                self.added += len(after) - 1
            else:
                self.dropped += 1
                drop(record | {"why": self.name, "evidence": evidence})
            yield from after

    def __str__(self):
        came = self.out - self.added + self.dropped
        counts = came, -self.dropped, self.changed, self.added, self.out
        return (f"{self.name:<10}" + "".join(f"{n:>10,}" for n in counts)
                + f"   {self.example[:70]}").rstrip()


def clean(records, steps, drop):
    """
    The dialogues that are left of some after all steps, one by one.

    drop(record) is called with each that is dropped; it has two keys more, "why" and "evidence".
    """
    for step in steps:
        records = step.through(records, drop)
    return records


def counted(path, prefix, found, bad, rename=False):
    """The dialogues of a file, with ids, counted by file; those nobody can use, by reason."""
    found[path] = 0
    for number, record in enumerate(read_dialogues(path, bad)):
        found[path] += 1
        name = f"{path}:{record['id']}" if rename and "id" in record else f"{prefix}{number}"
        yield {"id": name, **record} | ({"id": name} if rename else {})


def joined(paths, found, bad, rename=False):
    """
    The dialogues of some files; those of several in the order of their ids, which must differ.

    Each of several should be in that order already, as simulations are; of others nothing is
    lost but the order.
    """
    several, seen, twice = len(paths) > 1, set(), set()
    files = [counted(path, f"{path}:" * several, found, bad, rename) for path in paths]
    for record in merge(*files, key=lambda record: str(record["id"])):
        name = str(record["id"])
        (twice if name in seen else seen).add(name)
        yield record
    if several and twice:
        raise UserError(f"{len(twice)} ids are in these files twice, first {min(twice)}: is one a "
                      "copy of another? If they only count alike, --rename tells them apart")


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("files", nargs="+", help="files of dialogues, in any format that data.formats.files reads")
    add("--out", required=True, help="JSONL file to write; OUT.dropped is beside it")
    add("--paper", action="store_true", help="the paper's steps instead of ours")
    add("--skip", nargs="*", choices=[*RULES, *CHANGES], default=[], help="steps not to take")
    # ours
    add("--bench", nargs="*", default=[], metavar="FILE", help="question.jsonl of a bench")
    add("--words", type=positive_int, default=8, help="as many in a row are an overlap with a bench")
    add("--min-rounds", type=positive_int, default=1)
    add("--max-characters", type=positive_int, default=20000)
    add("--alike", type=float, default=0.8, help="the Jaccard of two that are nearly the same")
    add("--per-opening", type=positive_int, default=3, help="dialogues that may begin alike")
    # the paper's
    add("--block", nargs="+", metavar="WORD", help="words no dialogue may have, in large letters "
        "or small (openai chatgpt)")
    # both
    add("--tokenizer", metavar="DIR", help="a checkpoint directory: long dialogues are split")
    add("--split", choices=splitting.RULES, help="whose rule for it (authors)")
    add("--limit", type=positive_int, help="tokens of a segment (2048)")
    add("--rename", action="store_true", help="put the file's name before each id: for files that "
        "each count from 0")
    args = parser.parse_args()
    read = {Path(file).resolve() for file in args.files}
    for out in (args.out, f"{args.out}.dropped"):
        if Path(out).resolve() in read:
            raise UserError(f"{out} is read, and would be written; choose another --out")
    if (args.split or args.limit) and not args.tokenizer:
        raise UserError("--split and --limit count tokens: say whose, with --tokenizer DIR")
    if args.block and not args.paper:
        raise UserError("--block is a step of --paper")
    if args.paper and not args.tokenizer and "split" not in args.skip:
        raise UserError("--paper divides long dialogues, by tokens: say whose, with --tokenizer DIR, "
                      "or --skip split")
    args.limit, args.block = args.limit or 2048, args.block or ["openai", "chatgpt"]
    return args


def table(found, bad, steps):
    """What was read, file by file, and what each step did, as lines."""
    lines = [f"read      {number:>10,}   {path}" for path, number in found.items()]
    lines += [f"unusable  {number:>10,}   {reason}" for reason, number in bad.items()]
    heads = ("in", "dropped", "changed", "added", "out")
    return [*lines, " " * 10 + "".join(f"{head:>10}" for head in heads), *map(str, steps)]


def main():
    """Clean, and say what came of it."""
    args, found, bad = arguments(), {}, Counter()
    steps = [Step(name, args) for name in (PAPER if args.paper else OURS)
             if name not in args.skip and (args.tokenizer or name not in ("split", "alone"))]
    with atomic_files(args.out, f"{args.out}.dropped") as (kept, dropped):
        records = joined(args.files, found, bad, args.rename)
        kept.writelines(map(to_jsonl, clean(records, steps, lambda r: dropped.write(to_jsonl(r)))))
        if not any(found.values()):
            why = f" ({', '.join(bad)})" if bad else ""
            raise UserError(f"{', '.join(args.files)}: no dialogue that can be used{why}")
    print("\n".join(table(found, bad, steps)))
    left = steps[-1].out if steps else sum(found.values())
    print(f"{args.out}: {left:,} dialogues; "
          f"{args.out}.dropped: {sum(step.dropped for step in steps):,}")


if __name__ == "__main__":
    run(main)
