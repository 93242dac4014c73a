"""
What the dialogues of a file are like, in numbers: the paper's statistics (PAPER.md, "Statistics").

`statistics` goes through a file once, in pieces, so that it may be larger than the memory.
Not here: the measures themselves (text_metrics.py), the table (tables.py).
"""

import argparse
import re
import threading
import time
from base64 import b64decode, b64encode
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from data.api.budget import Endpoint, worst_case
from data.api.protocol import RetryableError
from data.api.request_pool import tally, ask_all, journalled_texts, raise_if_incomplete
from data.formats import clean
from data.formats.files import read_dialogues
from data.measure.judge import open_journal
from data.measure.mtbench import text_hash
from data.measure.tables import column_lines
from data.program import UserError, Progress, url, nonnegative, positive_int, write_json
from data.text_metrics import auc, mean_cosine, mtld, out_of_fold, unit, vectors, words_of
from platolm import Tokenizer
from simulate import money_flags

# dialogues at a time
PIECE = 256
# turns of each side that a classifier learns from, and is tried on
SAMPLE = 1500

JUDGED = ("complexity", "relevancy", "logicality", "diversity")
QUESTION = """\
Below is a talk between a user and an assistant. Rate the user, not the assistant, from 1 (not at \
all) to 10 (as far as can be) on four things:

complexity: how much has to be understood, combined or worked out to answer the user
relevancy: how far what the user says has to do with what was said before
logicality: how far the user's turns follow from each other in a sensible order
diversity: how far the user's turns move on to new matters, instead of staying with one

Write four lines and nothing else, each with a name and its number, as in: complexity: 4

[conversation]
{talk}
[end of conversation]"""


def size_of(text):
    """Tokens of a text where no tokenizer is given: words, and signs one by one."""
    return len(words_of(text)) + len(re.findall(r"[^\w\s]", text))


def pieces(records, size=PIECE):
    """Lists of so many records."""
    records = iter(records)
    while piece := list(islice(records, size)):
        yield piece


def asked_in(record):
    """What the human said."""
    return [turn["value"] for turn in record["conversations"] if turn["from"] == "human"]


def unrelated(rows, owner, share=0.95):
    """
    The cosine that turns of different dialogues reach in one of twenty cases: rows (N, D) of unit
    length, owner (N): whose they are. Above it, two turns have something to do with each other.
    """
    other = np.random.default_rng(0).permutation(len(rows))
    apart = owner != owner[other]
    cosines = (rows * rows[other]).sum(axis=1)[apart]
    return float(np.quantile(cosines, share)) if len(cosines) else 1.0


def moves(rows, near):
    """
    What each later turn of a dialogue does to the topic, from the vectors of its turns (T, D):
    "maintained" (near the first turn), "drifted" (near the turn before it alone), "shifted".
    """
    first, before = rows[1:] @ rows[0], (rows[1:] * rows[:-1]).sum(axis=1)
    return np.where(first >= near, "maintained", np.where(before >= near, "drifted", "shifted"))


def human_share(turns, owners, human, human_owners):
    """
    A classifier trained on these turns against people's: (share of the turns that it takes for
    people's, AUC). Cross-validated over dialogues; 0.5 and 0.5 where nobody could tell.
    """
    x = vectors([*human, *turns])
    y = np.r_[np.ones(len(human)), np.zeros(len(turns))]
    groups = [f"h{owner}" for owner in human_owners] + [f"s{owner}" for owner in owners]
    scores = out_of_fold(x, y, groups)
    return float((scores[y == 0] > 0).mean()), auc(scores, y)


def sampled(records, part, most=SAMPLE):
    """
    Human turns of every second dialogue (part 0 or 1), and whose they are, up to so many. A file
    that is compared with itself is split in two by that.
    """
    turns, owners = [], []
    for i, record in enumerate(records):
        if i % 2 == part:
            turns += asked_in(record)
            owners += [i] * (len(turns) - len(owners))
        if len(turns) >= most:
            break
    return turns[:most], owners[:most]


class Sizes:
    """Counts and sums, one dialogue after another."""

    def __init__(self, count):
        self.count, self.sessions, self.utterances = count, 0, 0
        self.tokens, self.turns = {"human": 0, "gpt": 0}, {"human": 0, "gpt": 0}
        self.mtld = []

    def add(self, record):
        """One more dialogue."""
        self.sessions += 1
        for turn in record["conversations"]:
            self.utterances += 1
            self.turns[turn["from"]] += 1
            self.tokens[turn["from"]] += self.count(turn["value"])
        found = [mtld(words_of(text)) for text in asked_in(record)]
        self.mtld += [value for value in found if value is not None]

    def numbers(self):
        """What they come to."""
        total, per = sum(self.tokens.values()), lambda n, of: n / of if of else None
        return {"sessions": self.sessions, "utterances": self.utterances,
                "rounds": per(self.utterances / 2, self.sessions),
                "tokens an utterance": per(total, self.utterances),
                "tokens a human turn": per(self.tokens["human"], self.turns["human"]),
                "tokens an answer": per(self.tokens["gpt"], self.turns["gpt"]),
                "tokens a session": per(total, self.sessions),
                "MTLD of a human turn": per(sum(self.mtld), len(self.mtld)),
                "share of turns with an MTLD": per(len(self.mtld), self.turns["human"])}


class Topics:
    """
    What the human turns are about: how alike they are, and how a dialogue moves on. near: the
    cosine from which on two turns have something to do with each other, the same for all sets.
    """

    def __init__(self, embed, near):
        self.embed, self.total, self.n, self.near = embed, 0.0, 0, near
        self.moves = []

    def add(self, piece):
        """Some more dialogues."""
        owner = np.array([i for i, record in enumerate(piece) for _ in asked_in(record)])
        if not len(owner):
            return
        rows = unit(self.embed([text for record in piece for text in asked_in(record)]))
        self.total, self.n = self.total + rows.sum(axis=0, dtype=float), self.n + len(rows)
        for i in range(len(piece)):
            own = rows[owner == i]
            self.moves += moves(own, self.near).tolist() if len(own) > 1 else []

    def numbers(self):
        """What they come to; the lower a cosine, the more different the topics."""
        if not self.n:
            return {}
        whole, pairs = mean_cosine(self.total, self.n)
        shares = {f"topic {word}": self.moves.count(word) / len(self.moves) if self.moves else None
                  for word in ("maintained", "drifted", "shifted")}
        return {"mean cosine of human turns": pairs, "the same, each with itself, too": whole,
                **shares}


def nearness(records, embed=vectors):
    """What `unrelated` finds in the first dialogues of a file."""
    piece = next(pieces(records), [])
    owner = np.array([i for i, record in enumerate(piece) for _ in asked_in(record)])
    texts = [text for record in piece for text in asked_in(record)]
    return unrelated(unit(embed(texts)), owner) if texts else 1.0


def statistics(read, near=1.0, count=size_of, embed=vectors, human=None, overlap=None):
    """
    Numbers about dialogues: {name: number}. read() gives the records anew each time.

    near: the cosine of turns that have to do with each other (nearness); human: turns of people and
    whose they are, to be told from; overlap: a rule of clean.py that finds words of a bench.
    """
    sizes, topics, found = Sizes(count), Topics(embed, near), 0
    for piece in pieces(read()):
        for record in piece:
            sizes.add(record)
            found += bool(overlap and overlap(record))
        topics.add(piece)
    numbers = sizes.numbers() | topics.numbers()
    if human:
        turns, owners = sampled(read(), 1)
        if turns:
            numbers["taken for human"], numbers["AUC against people"] = human_share(
                turns, owners, *human)
    if overlap:
        numbers["sessions that share words with a bench"] = found
    return numbers


# ------------------------------------------------------------------------------------------------
# by others: an embedder, a judge

BATCH = 16


def embeddings(page, n):
    """The n vectors of a reply of /v1/embeddings, as a text that a journal can hold."""
    try:
        rows = [row["embedding"] for row in sorted(page["data"], key=lambda row: row["index"])]
        found = np.array(rows, dtype=np.float32)
        if found.ndim != 2 or len(found) != n or not np.isfinite(found).all():
            raise ValueError
    except (LookupError, TypeError, ValueError):
        raise RetryableError(f"a reply without an embedding for each of {n} texts") from None
    return f"{len(found)} {b64encode(found.tobytes()).decode()}", "stop"


def embed_over(client, model, journal, in_flight, stop):
    """embed(texts) -> (N, D) by a model behind an address, a batch at a time; no batch twice."""
    def embed(texts):
        # what is empty, or too long, no server takes
        texts = [text[:8000] or " " for text in texts]
        batches = [texts[i:i + BATCH] for i in range(0, len(texts), BATCH)]
        tasks = {text_hash(*batch): partial(
            client.post, "/embeddings", {"model": model, "input": batch},
            worst_case(batch, 0), partial(embeddings, n=len(batch))) for batch in batches}
        new = {name: task for name, task in tasks.items() if not journal.turns(name)}
        if failed := ask_all(journal, new, in_flight, stop):
            raise UserError(f"{len(failed)} batches of turns have no embedding "
                          f"({tally(failed.values())}); what was embedded is kept")
        found = [journalled_texts(journal, text_hash(*batch))[0].split() for batch in batches]
        return np.vstack([np.frombuffer(b64decode(data), dtype=np.float32).reshape(int(n), -1)
                          for n, data in found])
    return embed


def session_prompts(records, most, longest=20000):
    """
    What a judge is asked about the first dialogues: prompts, and how many of them were too long
    (in characters) to be shown.
    """
    talks = ["\n".join(("user: " if turn["from"] == "human" else "assistant: ") + turn["value"]
                       for turn in record["conversations"]) for record in islice(records, most)]
    asked = [QUESTION.format(talk=talk) for talk in talks if len(talk) <= longest]
    return asked, len(talks) - len(asked)


def session_ratings(text):
    """The four numbers of a judgment, in the order of JUDGED; None unless all are there."""
    found = [re.search(rf"\b{name}\b[^:\n]*:\W*(\d+(?:\.\d+)?)", text, re.I) for name in JUDGED]
    marks = [float(match[1]) for match in found if match]
    return marks if len(marks) == len(JUDGED) and all(1 <= mark <= 10 for mark in marks) else None


def judged_sessions(path, args, client, journal, stop):
    """Means of what a judge says of the first dialogues of a file, and how many he did not rate."""
    asked, long = session_prompts(read_dialogues(path), args.judged)
    names = [text_hash(text) for text in asked]
    tasks = {name: partial(client.chat, args.judge_model, [{"role": "user", "content": text}], 100,
                           temperature=0)
             for name, text in zip(names, asked) if not any(map(session_ratings, journalled_texts(journal, name)))}
    failed = ask_all(journal, tasks, args.in_flight, stop,
                     Progress(Path(path).stem, len(tasks), client.ledger, unit="judgments"))
    raise_if_incomplete(failed.values(), "judgments")
    marks = [next(filter(None, map(session_ratings, journalled_texts(journal, name))), None)
             for name in names]
    rated = np.array([mark for mark in marks if mark]).reshape(-1, len(JUDGED))
    found = {name: float(column.mean()) if len(rated) else None
             for name, column in zip(JUDGED, rated.T)}
    return found | {"sessions judged": len(rated), "failed": len(marks) - len(rated),
                    "too long to be judged": long}


# ------------------------------------------------------------------------------------------------
# the command: evaluate.py stats


def flags(parser):
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="dialogues: ShareGPT's array, or a record a line")
    add("--tokenizer", metavar="DIR", help="of a checkpoint directory; without it tokens are words "
        "and signs")
    add("--human", metavar="FILE", help="dialogues of people: how well can the files be told from "
        "them?")
    add("--bench", nargs="+", metavar="FILE", help="question.jsonl: are its words in the files?")
    add("--embedder", type=url, metavar="URL", help="address of /v1/embeddings; without it "
        "vectors are hashed runs of characters")
    add("--embed-model", default="text-embedding-3-small", help="its name there (%(default)s); at "
        "another address than the judge's its key is USER_API_KEY")
    add("--embed-price", type=nonnegative, nargs=2, metavar=("READ", "WRITTEN"), help="as --price")
    add("--judge", type=url, metavar="URL", help="have the first sessions rated")
    add("--judge-model", default="gpt-4o-mini", help="the judge's name there (%(default)s)")
    add("--judged", type=positive_int, default=100, help="how many sessions (%(default)s)")
    add("--in-flight", type=positive_int, default=16, help="requests at a time (%(default)s)")
    add("--out", default="stats.json", help="JSON file to write (%(default)s)")
    money_flags(parser)


def command(args):
    """Print the numbers of some files beside each other, and write them."""
    stop, others, found = threading.Event(), {}, {}
    if args.judge or args.embedder:
        journal, client_for = open_journal(args, stop, args.judge or args.embedder)
    if args.embedder:
        price = args.embed_price or (None if args.judge else args.price)
        client = client_for(Endpoint(args.embedder, args.embed_model, price))
        others["embed"] = embed_over(client, args.embed_model, journal, args.in_flight, stop)
    if args.tokenizer:
        tokenizer = Tokenizer.load(args.tokenizer)
        others["count"] = lambda text: len(tokenizer.encode(text))
    if args.human:
        others["human"] = sampled(read_dialogues(args.human), 0)
        if not others["human"][0]:
            raise UserError(f"in {args.human} nobody says anything")
    if args.bench:
        others["overlap"] = clean.bench_rule(args.bench, 8)
    found_near = (nearness(read_dialogues(path), others.get("embed", vectors))
                  for path in [*filter(None, [args.human]), *args.files])
    near = next((cosine for cosine in found_near if cosine < 1), 1.0)
    for path in args.files:
        began = time.time()
        numbers = statistics(partial(read_dialogues, path), near, **others)
        if args.judge:
            client = client_for(Endpoint(args.judge, args.judge_model, args.price))
            numbers |= judged_sessions(path, args, client, journal, stop)
        # two files may have one name
        found[Path(path).stem if Path(path).stem not in found else str(path)] = numbers
        print(f"{path}: {numbers['sessions']:,} sessions in {time.time() - began:.0f} s",
              flush=True)
    write_json(args.out, found)
    print("\n".join(["", *column_lines(found), "", f"turns have to do with each other from a cosine of "
                     f"{near:.3f} on", f"all numbers: {args.out}"]))
