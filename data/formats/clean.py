"""
Clean dialogues and join the shards of a simulation; what is dropped is counted and kept aside.

    python -m data.formats.clean shard1.jsonl shard2.jsonl --out chat.jsonl --bench question.jsonl
    python -m data.formats.clean sharegpt.json --out human.jsonl --paper --tokenizer llama-7b

The steps, in this order; --skip NAME leaves one out:

    cut         mark answers that were cut at their limit: they are read, and not learnt
    length      drop: fewer rounds than --min-rounds, or a turn longer than --max-characters
    language    drop: letters that are not Latin, unless the human asks for a translation
    refusals    drop: an answer that declines, or that calls itself an AI
    bench       drop: --words words in a row that also stand in a question of a bench
    exact       drop: the same text as an earlier dialogue
    near        drop: nearly the same text: shared runs of five words, by MinHash (Broder 1997)
    openings    drop: nearly the same first question as --per-opening earlier dialogues
    split       divide dialogues longer than --limit tokens into segments (needs --tokenizer)
    alone       drop: a segment of a single turn

With --paper, the paper's steps for ShareGPT's pages instead:

    html        convert the HTML of answers to Markdown
    short       drop: a single turn
    blocked     drop: a word of --block
    ascii       drop: a character from U+0080 to U+FFFF, unless the human asks for a translation
    split, alone, exact     as above

Dropped dialogues go to OUT.dropped, each with the step ("why") and the evidence; items that are no
dialogues are only counted. Dialogues are read and written one at a time. Only ids and hashes of
earlier ones stay in memory; for `near` and `openings` these take about as much as the text.
"""

import argparse
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from heapq import merge

import numpy as np

from data.formats import segments
from data.formats.files import read_dialogues
from data.formats.markdown import to_markdown, without_page_marks
from data.program import (UserError, atomic_files, fraction, positive_int, read_jsonl,
                          require_apart, run, to_jsonl)
from data.text_metrics import words_of
from platolm import Tokenizer


@dataclass(frozen=True)
class CleaningSettings:
    """The thresholds and files that the steps use; each step takes its own from here."""
    min_rounds: int = 1
    max_characters: int = 20000
    bench: tuple = ()               # paths of question.jsonl files
    overlap: int = 8                # so many words in a row are an overlap with a bench
    similarity: float = 0.8         # the Jaccard index of two texts that are nearly the same
    per_opening: int = 3            # dialogues that may begin alike
    block: tuple = ("openai", "chatgpt")
    tokenizer: str | None = None    # a checkpoint directory
    split: str = "authors"          # a rule of segments.py
    limit: int = 2048               # tokens of a segment


# ------------------------------------------------------------------------------------------------
# rules about one dialogue: rule(record) gives the evidence for dropping it, or None


def texts_of(record, roles=("human", "gpt")):
    """List the texts of a dialogue's turns, of both roles or of one."""
    return [turn["value"] for turn in record["conversations"] if turn["from"] in roles]


def length_rule(min_rounds, max_characters):
    """Make the rule that drops a dialogue of too few rounds or with too long a turn."""
    def rule(record):
        """Return the number that is out of bounds, or None."""
        rounds = len(record["conversations"]) // 2
        longest = max(map(len, texts_of(record)))
        if rounds < min_rounds:
            return f"{rounds} rounds"
        if longest > max_characters:
            return f"{longest} characters in a turn"
        return None
    return rule


def human_turn_matches(record, pattern):
    """Tell whether a human turn matches a compiled pattern."""
    return any(pattern.search(text) for text in texts_of(record, ("human",)))


def non_latin(record):
    """
    Return evidence if more than a tenth of the letters are not Latin, else None.

    A dialogue in which the human asks for a translation is exempt.
    """
    letters = [letter for letter in " ".join(texts_of(record)) if letter.isalpha()]
    foreign = [letter for letter in letters if ord(letter) > 0x24F]
    if len(foreign) * 10 <= len(letters):
        return None
    if human_turn_matches(record, re.compile(r"\btranslat", re.I)):
        return None
    return f"{len(foreign)} of {len(letters)} letters, as in {''.join(foreign[:20])!r}"


REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b"
    r"|\bi(’|'| a)?m (sorry|afraid),? (but )?i (can(no|’|')?t|am (not able|unable))"
    r"|\bi (can(no|’|')t|am unable to|am not able to) (assist|help|comply|fulfil|provide)", re.I)


def refusal(record):
    """Return the words by which an answer declines at its start, as assistants do, or None."""
    for text in texts_of(record, ("gpt",)):
        # a refusal stands at the start of an answer
        match = REFUSAL.search(text[:200])
        if match:
            return match[0]
    return None


def ngrams(words, n):
    """Return the set of all runs of n words."""
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


def bench_rule(paths, overlap):
    """
    Make the rule that drops a dialogue sharing `overlap` words in a row with a question of a bench.

    paths: question.jsonl files. A question of four words up to `overlap` counts where it is a
    turn's whole text; shorter ones are too common to count.
    """
    questions = set()
    for path in paths:
        for question in read_jsonl(path, lambda row: None if row.get("turns") else "no turns"):
            for text in question["turns"]:
                words = words_of(text)
                questions |= ngrams(words, min(overlap, len(words)))
    sizes = sorted({len(gram) for gram in questions if len(gram) > 3})

    def rule(record):
        """Return words that a turn shares with a question, or None."""
        for text in texts_of(record):
            words = words_of(text)
            for n in sizes:
                shared = ngrams(words, n) & questions
                if shared and (n == overlap or len(words) == n):
                    return " ".join(min(shared))
        return None
    return rule


def single_turn(record):
    """Return "1 turn" if the dialogue has no second turn, else None."""
    return "1 turn" if len(record["conversations"]) < 2 else None


def blocked_rule(block):
    """Make the rule that drops a dialogue with one of these words, in upper or lower case."""
    pattern = re.compile("|".join(map(re.escape, block)), re.I)

    def rule(record):
        """Return a blocked word with the text around it, or None."""
        for text in texts_of(record):
            match = pattern.search(text)
            if match:
                return text[max(0, match.start() - 20):match.end() + 20]
        return None
    return rule


def non_ascii(record):
    """
    Return evidence if there are characters from U+0080 to U+FFFF, else None.

    This is the authors' test for other languages: dashes and curly quotes count, most emoji do
    not. "Translate" in a human turn exempts the dialogue.
    """
    characters = re.findall("[\u0080-\uffff]", " ".join(texts_of(record)))
    if not characters or human_turn_matches(record, re.compile(r"\b[Tt]ranslat\w+")):
        return None
    return f"{len(characters)} characters, as in {''.join(characters[:20])!r}"


# ------------------------------------------------------------------------------------------------
# rules about a dialogue and the ones before it


def exact_rule():
    """Make the rule that drops a dialogue with the same text as an earlier one."""
    ids = {}

    def rule(record):
        """Return the id of the earlier dialogue with the same text, or None."""
        # 16 bytes of hash stand for the text: a collision is practically impossible
        digest = blake2b("".join(texts_of(record)).encode(), digest_size=16).digest()
        if digest in ids:
            return f"as {ids[digest]}"
        ids[digest] = record["id"]
        return None
    return rule


def hash_set(items):
    """Return a set of items as a sorted array of distinct 32-bit hashes."""
    return np.unique(np.array([zlib.crc32(repr(item).encode()) for item in items], dtype=np.uint64))


def jaccard(a, b):
    """Return the Jaccard index |a ∩ b| / |a ∪ b| of two sets, given as sorted arrays."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


class MinHashIndex:
    """
    Finds, among the sets added so far, those with a Jaccard index of at least `threshold` to a set.

    A signature holds, for each of 128 hash functions, the smallest hash over the set; two
    signatures agree at each position with a probability equal to the Jaccard index. It is divided
    into 32 bands of four; only sets that share a whole band are compared exactly.
    """

    def __init__(self, threshold):
        # multiply-shift hashing (Dietzfelbinger 1996): odd factors, the upper half of the product
        rng = np.random.default_rng(0)
        self.factors = rng.integers(1 << 63, size=(128, 1), dtype=np.uint64) | np.uint64(1)
        self.threshold = threshold
        self.sets = []
        self.bands = {}

    def signature(self, hashes):
        """Return the MinHash signature (128,) of a set of hashes (n,)."""
        return ((self.factors * hashes) >> np.uint64(32)).min(axis=1)

    def band_keys(self, hashes):
        """List the keys of a set's 32 bands: (number of the band, its four values as bytes)."""
        bands = self.signature(hashes).reshape(32, 4)
        return [(i, band.tobytes()) for i, band in enumerate(bands)]

    # exercise 27: finding near-duplicates
    def similar(self, hashes):
        """
        List the numbers of the earlier sets that are similar to this one, in order.

        hashes (n,): a set as a sorted array without repetitions, which may be empty. self.sets
        holds the earlier ones, number 0 first; self.bands has {key: [numbers of the sets with this
        key]} for each key that band_keys(set) gave, and is not changed. Similar is a set that has
        a key in common with this one and, compared exactly by jaccard(), an index of at least
        self.threshold. Nothing is similar to an empty set, and band_keys takes none.
        """
        if not len(hashes):
            return []
        candidates = set()
        for key in self.band_keys(hashes):
            candidates.update(self.bands.get(key, ()))
        return [i for i in sorted(candidates) if jaccard(self.sets[i], hashes) >= self.threshold]

    def add(self, hashes):
        """Add a set to the index."""
        if len(hashes):
            for key in self.band_keys(hashes):
                self.bands.setdefault(key, []).append(len(self.sets))
        self.sets.append(hashes.astype(np.uint32))


def similarity_rule(hashes_of, threshold, times):
    """
    Make the rule that drops a dialogue similar to at least `times` earlier ones.

    hashes_of(record): the set that is compared; threshold: the least Jaccard index that counts.
    Dropped dialogues are not compared with later ones.
    """
    index = MinHashIndex(threshold)
    ids = []

    def rule(record):
        """Return the similarity to, and the id of, the first similar dialogue, or None."""
        hashes = hashes_of(record)
        similar = index.similar(hashes)
        if len(similar) >= times:
            first = similar[0]
            return f"{jaccard(index.sets[first], hashes):.2f} as {ids[first]}"
        index.add(hashes)
        ids.append(record["id"])
        return None
    return rule


def five_grams(record):
    """Return the hashes of all runs of five words in a dialogue."""
    return hash_set(ngrams(words_of("\n".join(texts_of(record))), 5))


def opening_characters(record):
    """Return the hashes of all runs of four characters in a first question, which may be short."""
    text = " ".join(words_of(texts_of(record)[0]))
    return hash_set({text[i:i + 4] for i in range(max(1, len(text) - 3))})


# the name of a step -> the rule, made from the settings
RULES = {
    "length": lambda settings: length_rule(settings.min_rounds, settings.max_characters),
    "language": lambda settings: non_latin,
    "refusals": lambda settings: refusal,
    "bench": lambda settings: bench_rule(settings.bench, settings.overlap),
    "short": lambda settings: single_turn,
    "blocked": lambda settings: blocked_rule(settings.block),
    "ascii": lambda settings: non_ascii,
    "alone": lambda settings: single_turn,
    "exact": lambda settings: exact_rule(),
    "near": lambda settings: similarity_rule(five_grams, settings.similarity, 1),
    "openings": lambda settings: similarity_rule(opening_characters, settings.similarity,
                                                 settings.per_opening),
}

# ------------------------------------------------------------------------------------------------
# changes: change(record) gives the records that a dialogue becomes and evidence of the change


def html_change(record):
    """
    Return [the dialogue with Markdown instead of HTML] and its first changed turn, or None.

    Returns [] and the reason if a turn holds nothing but markup.
    """
    old = record["conversations"]
    new = []
    for turn in old:
        # HTML that a human wrote is what they asked about
        convert = to_markdown if turn["from"] == "gpt" else without_page_marks
        new.append(turn | {"value": convert(turn["value"])})
    for number, turn in enumerate(new, 1):
        if not turn["value"]:
            return [], f"turn {number} is nothing but markup"
    changed = [before["value"] for before, after in zip(old, new) if before != after]
    return [record | {"conversations": new}], changed[0] if changed else None


def split_change(directory, split, limit):
    """
    Make the change that divides a dialogue into segments of at most `limit` tokens.

    directory: the checkpoint whose tokenizer counts; split: the name of a rule of segments.py.
    """
    tokenizer = Tokenizer.load(directory)

    def change(record):
        """Return the segments of a dialogue and, if there are several, their turns in words."""
        spans = segments.spans_of(record, split, tokenizer, limit)
        n = len(record["conversations"])
        evidence = None
        if spans != [(0, n)]:
            numbers = ", ".join(f"{start + 1}-{end}" for start, end in spans) or "none"
            evidence = f"{record['id']}: of {n} turns {numbers}"
        return segments.split(record, spans), evidence
    return change


def cut_change(record):
    """Return [the dialogue, answers that were cut at their limit with a weight of 0], and which."""
    turns, cut = [], []
    for number, turn in enumerate(record["conversations"], 1):
        if turn.get("finish") == "length":
            turn = turn | {"weight": 0}
            cut.append(str(number))
        turns.append(turn)
    evidence = f"{record['id']}: turn {', '.join(cut)}" if cut else None
    return [record | {"conversations": turns}], evidence


CHANGES = {
    "cut": lambda settings: cut_change,
    "html": lambda settings: html_change,
    "split": lambda settings: split_change(settings.tokenizer, settings.split, settings.limit),
}

OURS = ("cut", "length", "language", "refusals", "bench", "exact", "near", "openings", "split",
        "alone")
PAPER = ("html", "short", "blocked", "ascii", "split", "alone", "exact")

# ------------------------------------------------------------------------------------------------


class Step:
    """One step of the cleaning, with counts of what it dropped, changed and added."""

    def __init__(self, name, settings):
        self.name = name
        self.change = CHANGES[name](settings) if name in CHANGES else None
        self.rule = RULES[name](settings) if name in RULES else None
        # the first evidence, an example for the table
        self.example = ""
        self.dropped = 0
        self.changed = 0
        self.added = 0
        self.written = 0

    def apply(self, records, drop):
        """Yield what this step makes of the records; call drop(record) for each it drops."""
        for record in records:
            if self.change:
                results, evidence = self.change(record)
            else:
                evidence = self.rule(record)
                results = [] if evidence else [record]
            if evidence and not self.example:
                self.example = " ".join(evidence.split())
            self.written += len(results)
            if results:
                self.changed += bool(evidence)
                self.added += len(results) - 1
            else:
                self.dropped += 1
                drop(record | {"why": self.name, "evidence": evidence})
            yield from results

    def table_row(self):
        """Format the step's counts: in, dropped, changed, added, out; then the example."""
        read = self.written - self.added + self.dropped
        counts = (read, -self.dropped, self.changed, self.added, self.written)
        columns = "".join(f"{count:>10,}" for count in counts)
        return f"{self.name:<10}{columns}   {self.example[:70]}".rstrip()


def clean(records, steps, drop):
    """
    Yield the dialogues that are left of `records` after all steps, one at a time.

    drop(record) is called with each dropped one, which then has the keys "why" and "evidence".
    """
    for step in steps:
        records = step.apply(records, drop)
    return records


def read_with_ids(path, prefix, counts, unusable, rename=False):
    """
    Yield the dialogues of a file; those without an id get one, from `prefix` and their number.

    counts[path] counts them, the Counter `unusable` the items that are no dialogues, by reason.
    rename: put the path before each id.
    """
    counts[path] = 0
    for number, record in enumerate(read_dialogues(path, unusable)):
        counts[path] += 1
        name = f"{prefix}{number}"
        if rename and "id" in record:
            name = f"{path}:{record['id']}"
        record = {"id": name, **record}
        if rename:
            record["id"] = name
        yield record


def read_merged(paths, counts, unusable, rename=False):
    """
    Yield the dialogues of one file, or those of several merged by their ids, which must differ.

    Each of several files should be sorted by id, as simulations are; with others nothing is lost
    but the order. Raises UserError at the end if an id came twice. See `read_with_ids`.
    """
    several = len(paths) > 1
    files = [read_with_ids(path, f"{path}:" if several else "", counts, unusable, rename)
             for path in paths]
    seen = set()
    repeated = set()
    for record in merge(*files, key=lambda record: str(record["id"])):
        name = str(record["id"])
        if name in seen:
            repeated.add(name)
        seen.add(name)
        yield record
    if several and repeated:
        raise UserError(f"{len(repeated)} ids are in these files twice, first {min(repeated)}: is "
                        "one a copy of another? If they only count alike, --rename tells them "
                        "apart")


def arguments():
    """Parse the command line, and refuse flags that would have no effect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("files", nargs="+", help="files of dialogues, in any format that data.formats.files reads")
    add("--out", required=True, help="JSONL file to write; OUT.dropped is written beside it")
    add("--paper", action="store_true", help="the paper's steps instead of ours")
    add("--skip", nargs="*", choices=[*RULES, *CHANGES], default=[], help="steps to leave out")
    # ours
    add("--bench", nargs="*", default=[], metavar="FILE", help="question.jsonl of a bench")
    add("--words", type=positive_int, default=8,
        help="so many words in a row are an overlap with a bench")
    add("--min-rounds", type=positive_int, default=1)
    add("--max-characters", type=positive_int, default=20000)
    add("--alike", type=fraction, default=0.8,
        help="the Jaccard index of two texts that are nearly the same")
    add("--per-opening", type=positive_int, default=3, help="dialogues that may begin alike")
    # the paper's
    add("--block", nargs="+", metavar="WORD",
        help="words that no dialogue may have, in upper or lower case (openai chatgpt)")
    # both
    add("--tokenizer", metavar="DIR", help="a checkpoint directory: long dialogues are split")
    add("--split", choices=segments.RULES, help="by whose rule (authors)")
    add("--limit", type=positive_int, help="tokens of a segment (2048)")
    add("--rename", action="store_true", help="put the file's name before each id: for files that "
        "each count from 0")
    args = parser.parse_args()
    require_apart([args.out, f"{args.out}.dropped"], [args.files, args.bench, args.tokenizer])
    if (args.split or args.limit) and not args.tokenizer:
        raise UserError("--split and --limit count tokens: say whose, with --tokenizer DIR")
    if args.block and not args.paper:
        raise UserError("--block is a step of --paper")
    if args.paper and not args.tokenizer and "split" not in args.skip:
        raise UserError("--paper divides long dialogues, by tokens: say whose, with --tokenizer "
                        "DIR, or --skip split")
    return args


def format_table(counts, unusable, steps):
    """List the lines of the report: what was read of each file, then a row for each step."""
    lines = [f"read      {number:>10,}   {path}" for path, number in counts.items()]
    lines += [f"unusable  {number:>10,}   {reason}" for reason, number in unusable.items()]
    columns = "".join(f"{name:>10}" for name in ("in", "dropped", "changed", "added", "out"))
    lines.append(" " * 10 + columns)
    return lines + [step.table_row() for step in steps]


def main():
    """Clean the files and print what each step did."""
    args = arguments()
    default = CleaningSettings()
    settings = CleaningSettings(
        min_rounds=args.min_rounds, max_characters=args.max_characters, bench=tuple(args.bench),
        overlap=args.words, similarity=args.alike, per_opening=args.per_opening,
        block=tuple(args.block or default.block), tokenizer=args.tokenizer,
        split=args.split or default.split, limit=args.limit or default.limit)
    skipped = set(args.skip)
    if not args.tokenizer:
        skipped |= {"split", "alone"}
    steps = [Step(name, settings) for name in (PAPER if args.paper else OURS)
             if name not in skipped]
    counts = {}
    unusable = Counter()
    with atomic_files(args.out, f"{args.out}.dropped") as (out, dropped):
        def drop(record):
            """Write a dropped dialogue."""
            dropped.write(to_jsonl(record))

        records = read_merged(args.files, counts, unusable, args.rename)
        out.writelines(map(to_jsonl, clean(records, steps, drop)))
        if not any(counts.values()):
            reasons = f" ({', '.join(unusable)})" if unusable else ""
            raise UserError(f"{', '.join(args.files)}: no dialogue that can be used{reasons}")
    print("\n".join(format_table(counts, unusable, steps)))
    left = steps[-1].written if steps else sum(counts.values())
    total = sum(step.dropped for step in steps)
    print(f"{args.out}: {left:,} dialogues; {args.out}.dropped: {total:,}")


if __name__ == "__main__":
    run(main)
