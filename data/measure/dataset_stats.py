"""
What the dialogues of a file are like, in numbers: the paper's statistics (PAPER.md, "Statistics").

`statistics` reads a file in pieces, so that it may be larger than the memory. Embeddings may come
from a server, and sessions may be rated by a judge; both are kept in a journal, asked for once.
"""

import re
from base64 import b64decode, b64encode
from functools import partial
from itertools import islice
from pathlib import Path
from time import time

import numpy as np

from data.api.budget import money_flags, worst_case
from data.api.protocol import RetryableError
from data.api.request_pool import ask_all, journalled_texts, raise_if_incomplete, tally
from data.api.session import check_server
from data.formats.clean import bench_rule
from data.formats.files import read_dialogues
from data.measure.intervals import ratio
from data.measure.mtbench import text_hash
from data.program import Progress, UserError, nonnegative, positive_int, url
from data.text_metrics import auc, mean_cosine, mtld, out_of_fold, unit, vectors, words_of
from platolm import Tokenizer

# dialogues at a time
PIECE = 256
# turns of each side that a classifier learns from, and is tested on
SAMPLE = 1500


def pieces(records, size=PIECE):
    """Cut an iterable of records into lists of `size`, one after another."""
    records = iter(records)
    while piece := list(islice(records, size)):
        yield piece


def human_texts(record):
    """The texts of a record's human turns."""
    return [turn["value"] for turn in record["conversations"] if turn["from"] == "human"]


def count_words(text):
    """The tokens of a text where no tokenizer is given: its words and its punctuation marks."""
    return len(words_of(text)) + len(re.findall(r"[^\w\s]", text))


def token_counter(directory):
    """Make count(text), the number of tokens by the tokenizer of a checkpoint directory."""
    tokenizer = Tokenizer.load(directory)

    def count(text):
        return len(tokenizer.encode(text))
    return count


# ------------------------------------------------------------------------------------------------
# counts


class Counts:
    """Sessions, turns, tokens and lexical diversity; count_tokens(text) gives a text's tokens."""

    def __init__(self, count_tokens):
        self.count_tokens = count_tokens
        self.sessions = 0
        self.turns = {"human": 0, "gpt": 0}
        self.tokens = {"human": 0, "gpt": 0}
        self.mtld = []

    def add(self, record):
        """Count one more dialogue."""
        self.sessions += 1
        for turn in record["conversations"]:
            self.turns[turn["from"]] += 1
            self.tokens[turn["from"]] += self.count_tokens(turn["value"])
        for text in human_texts(record):
            value = mtld(words_of(text))
            if value is not None:
                self.mtld.append(value)

    def numbers(self):
        """Compute totals and means: {name: number}, None for a mean of nothing."""
        utterances = sum(self.turns.values())
        tokens = sum(self.tokens.values())
        return {"sessions": self.sessions, "utterances": utterances,
                "rounds": ratio(utterances / 2, self.sessions),
                "tokens an utterance": ratio(tokens, utterances),
                "tokens a human turn": ratio(self.tokens["human"], self.turns["human"]),
                "tokens an answer": ratio(self.tokens["gpt"], self.turns["gpt"]),
                "tokens a session": ratio(tokens, self.sessions),
                "MTLD of a human turn": ratio(sum(self.mtld), len(self.mtld)),
                "share of turns with an MTLD": ratio(len(self.mtld), self.turns["human"])}


# ------------------------------------------------------------------------------------------------
# topics


def related_threshold(rows, owner, share=0.95):
    """
    Estimate the cosine that 95 % of random pairs of turns from different dialogues stay below.

    Two turns with a larger cosine count as related. rows (N, D): vectors of length 1; owner (N):
    the dialogue of each. 1 if all are of one dialogue.
    """
    other = np.random.default_rng(0).permutation(len(rows))
    is_apart = owner != owner[other]
    cosines = (rows * rows[other]).sum(axis=1)[is_apart]
    return float(np.quantile(cosines, share)) if len(cosines) else 1.0


def embed_humans(piece, embed):
    """The human turns of some dialogues as unit vectors (N, D), and the dialogue of each (N,)."""
    texts, owner = [], []
    for i, record in enumerate(piece):
        for text in human_texts(record):
            texts.append(text)
            owner.append(i)
    rows = unit(embed(texts)) if texts else np.zeros((0, 1))
    return rows, np.array(owner)


def file_threshold(records, embed=vectors):
    """The related_threshold of the first dialogues of a file; 1 without any human turn."""
    rows, owner = embed_humans(next(pieces(records), []), embed)
    return related_threshold(rows, owner) if len(rows) else 1.0


def topic_moves(rows, threshold):
    """
    Classify what each later human turn of a dialogue does to its topic.

    rows (T, D): unit vectors of the turns. Returns (T - 1,): "maintained" (related to the first
    turn), "drifted" (related to the turn before it alone) or "shifted".
    """
    to_first = rows[1:] @ rows[0]
    to_previous = (rows[1:] * rows[:-1]).sum(axis=1)
    otherwise = np.where(to_previous >= threshold, "drifted", "shifted")
    return np.where(to_first >= threshold, "maintained", otherwise)


class Topics:
    """
    How alike human turns are, and how dialogues move from topic to topic.

    embed(texts) -> (N, D); threshold: the cosine from which on two turns are related, the same for
    all files that are compared.
    """

    def __init__(self, embed, threshold):
        self.embed, self.threshold = embed, threshold
        self.total, self.n = 0.0, 0
        self.moves = []

    def add(self, piece):
        """Add some dialogues."""
        rows, owner = embed_humans(piece, self.embed)
        if not len(rows):
            return
        self.total = self.total + rows.sum(axis=0, dtype=float)
        self.n += len(rows)
        for i in range(len(piece)):
            own = rows[owner == i]
            if len(own) > 1:
                self.moves += topic_moves(own, self.threshold).tolist()

    def numbers(self):
        """Mean cosines (the lower, the more different the turns) and shares of topic moves."""
        if not self.n:
            return {}
        with_itself, of_pairs = mean_cosine(self.total, self.n)
        numbers = {"mean cosine of human turns": of_pairs,
                   "the same, each with itself, too": with_itself}
        for move in ("maintained", "drifted", "shifted"):
            numbers[f"topic {move}"] = ratio(self.moves.count(move), len(self.moves))
        return numbers


# ------------------------------------------------------------------------------------------------
# statistics of a file


def sample_turns(records, part, most=SAMPLE):
    """
    Sample human turns for a classifier: the first `most`, and the dialogue of each.

    Every second dialogue counts, the even ones (part 0) or the odd ones (part 1): a file that is
    compared with itself is split in two by that.
    """
    texts, owners = [], []
    for i, record in enumerate(records):
        if i % 2 == part:
            own = human_texts(record)
            texts += own
            owners += [i] * len(own)
        if len(texts) >= most:
            break
    return texts[:most], owners[:most]


def human_share(texts, owners, human, human_owners):
    """
    Train a classifier to tell turns from people's turns.

    owners, human_owners: the dialogue of each turn; it is cross-validated over dialogues. Returns
    the share of the texts that it takes for people's, and its AUC; 0.5 and 0.5 if it cannot tell.
    """
    x = vectors([*human, *texts])
    y = np.r_[np.ones(len(human)), np.zeros(len(texts))]
    groups = [f"h{owner}" for owner in human_owners] + [f"s{owner}" for owner in owners]
    scores = out_of_fold(x, y, groups)
    return float((scores[y == 0] > 0).mean()), auc(scores, y)


def statistics(read, threshold=1.0, count_tokens=count_words, embed=vectors, human=None,
               overlap=None):
    """
    Compute the statistics of some dialogues: {name: number}.

    read(): the records, anew with each call; threshold: as of Topics; human: sample_turns of people
    to tell the turns from; overlap(record): whether it shares eight words in a row with a bench.
    """
    counts, topics = Counts(count_tokens), Topics(embed, threshold)
    overlapping = 0
    for piece in pieces(read()):
        for record in piece:
            counts.add(record)
            if overlap and overlap(record):
                overlapping += 1
        topics.add(piece)
    numbers = counts.numbers() | topics.numbers()
    if human:
        texts, owners = sample_turns(read(), 1)
        if texts:
            taken, value = human_share(texts, owners, *human)
            numbers["taken for human"] = taken
            numbers["AUC against people"] = value
    if overlap:
        numbers["sessions that share words with a bench"] = overlapping
    return numbers


def compare_files(files, human=None, tokenizer=None, benches=None, embed=vectors, judge=None):
    """
    Compute the statistics of several files: ({name of the file: numbers}, related_threshold).

    human: a file of people's dialogues to compare with; tokenizer: a checkpoint directory; benches:
    question.jsonl files whose words are looked for; judge(path): further numbers of a file.
    """
    count_tokens = token_counter(tokenizer) if tokenizer else count_words
    human_turns = overlap = None
    if human:
        human_turns = sample_turns(read_dialogues(human), 0)
        if not human_turns[0]:
            raise UserError(f"in {human} nobody says anything")
    if benches:
        overlap = bench_rule(benches, 8)
    # one threshold for all: that of the first file with several dialogues
    threshold = 1.0
    for path in [human, *files] if human else files:
        threshold = min(1.0, file_threshold(read_dialogues(path), embed))
        if threshold < 1:
            break
    numbers_of = {}
    for path in files:
        began = time()
        numbers = statistics(partial(read_dialogues, path), threshold, count_tokens, embed,
                             human_turns, overlap)
        if judge:
            numbers |= judge(path)
        # two files in different directories may have one name
        name = Path(path).stem if Path(path).stem not in numbers_of else str(path)
        numbers_of[name] = numbers
        print(f"{path}: {numbers['sessions']:,} sessions in {time() - began:.0f} s", flush=True)
    return numbers_of, threshold


# ------------------------------------------------------------------------------------------------
# with a server: embeddings

BATCH = 16


def pack_embeddings(page, n):
    """
    Read the n vectors of a reply of /v1/embeddings: (text that a journal can hold, {"finish"}).

    A RetryableError if it has not n vectors of one length.
    """
    try:
        items = sorted(page["data"], key=lambda item: item["index"])
        rows = np.array([item["embedding"] for item in items], dtype=np.float32)
        if rows.ndim != 2 or len(rows) != n or not np.isfinite(rows).all():
            raise ValueError
    except (LookupError, TypeError, ValueError):
        raise RetryableError(f"a reply without an embedding for each of {n} texts") from None
    # what Client.post wants
    return f"{len(rows)} {b64encode(rows.tobytes()).decode()}", {"finish": "stop"}


def unpack_embeddings(text):
    """The vectors (n, D) that pack_embeddings wrote."""
    n, data = text.split()
    return np.frombuffer(b64decode(data), dtype=np.float32).reshape(int(n), -1)


def remote_embedder(client, model, journal, in_flight, stop):
    """Make embed(texts) -> (N, D), by a model on a server; batches in the journal are not sent."""
    def embed(texts):
        # servers refuse texts that are empty or too long
        texts = [text[:8000] or " " for text in texts]
        batches = [texts[i:i + BATCH] for i in range(0, len(texts), BATCH)]
        keys = [text_hash(*batch) for batch in batches]
        tasks = {}
        for key, batch in zip(keys, batches):
            if not journal.turns(key):
                tasks[key] = partial(client.post, "/embeddings", {"model": model, "input": batch},
                                     worst_case(batch, 0), partial(pack_embeddings, n=len(batch)))
        if tasks:
            check_server(client, "embedder")
        failures = ask_all(journal, tasks, in_flight, stop)
        if failures:
            raise UserError(f"{len(failures)} batches of turns have no embedding "
                            f"({tally(failures.values())}); what was embedded is kept")
        return np.vstack([unpack_embeddings(journalled_texts(journal, key)[0]) for key in keys])
    return embed


# ------------------------------------------------------------------------------------------------
# with a server: a judge of sessions

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


def session_prompts(records, most, longest=20000):
    """
    Make prompts for a judge about the first `most` dialogues: (prompts, number left out).

    Dialogues of more than `longest` characters are left out.
    """
    labels = {"human": "user", "gpt": "assistant"}
    prompts = []
    too_long = 0
    for record in islice(records, most):
        talk = "\n".join(f"{labels[turn['from']]}: {turn['value']}"
                         for turn in record["conversations"])
        if len(talk) <= longest:
            prompts.append(QUESTION.format(talk=talk))
        else:
            too_long += 1
    return prompts, too_long


def session_ratings(text):
    """Read four numbers from 1 to 10 from a judgment, in the order of JUDGED; else None."""
    ratings = []
    for name in JUDGED:
        match = re.search(rf"\b{name}\b[^:\n]*:\W*(\d+(?:\.\d+)?)", text, re.I)
        if not match or not 1 <= float(match[1]) <= 10:
            return None
        ratings.append(float(match[1]))
    return ratings


def journalled_ratings(journal, key):
    """The first ratings that can be read in the journalled judgments of a prompt; None without."""
    for text in journalled_texts(journal, key):
        ratings = session_ratings(text)
        if ratings:
            return ratings
    return None


def judge_sessions(path, most, client, model, journal, in_flight, stop):
    """
    Have a judge rate the users of the first `most` dialogues of a file.

    Returns the mean of each rating in JUDGED, and how many sessions were judged, failed, or were
    too long. Sessions with a judgment in the journal are not sent again.
    """
    prompts, too_long = session_prompts(read_dialogues(path), most)
    keys = [text_hash(prompt) for prompt in prompts]
    tasks = {}
    for key, prompt in zip(keys, prompts):
        if not journal.turns(key):
            messages = [{"role": "user", "content": prompt}]
            tasks[key] = partial(client.chat, model, messages, 100, temperature=0)
    if tasks:
        check_server(client, "judge")
    progress = Progress(Path(path).stem, len(tasks), client.ledger, unit="judgments")
    failures = ask_all(journal, tasks, in_flight, stop, progress)
    raise_if_incomplete(failures.values(), "judgments")
    rated = [ratings for ratings in (journalled_ratings(journal, key) for key in keys) if ratings]
    numbers = dict.fromkeys(JUDGED)
    if rated:
        for name, column in zip(JUDGED, np.array(rated).T):
            numbers[name] = float(column.mean())
    return numbers | {"sessions judged": len(rated), "failed": len(keys) - len(rated),
                      "too long to be judged": too_long}


# ------------------------------------------------------------------------------------------------
# the command line of evaluate.py stats


def add_stats_arguments(parser):
    """Add the flags of evaluate.py stats to a parser."""
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
