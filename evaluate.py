"""
Ask assistants the questions of a bench, have a judge rate what they say, and compare.

    python evaluate.py answer NAME=DIR ... --bench bench            answers of checkpoints
    python evaluate.py judge NAME ... --bench bench --judge URL     ratings, over HTTP
    python evaluate.py probe NAME=DIR ... --gold FILE --sentences FILE    what needs no judge
    python evaluate.py listen DIR --blind DIR --human FILE          does a user listen?
    python evaluate.py score NAME ... --bench bench                 the tables, and results.json

A bench is a directory in MT-Bench's layout (Zheng et al. 2023, arXiv 2306.05685): question.jsonl,
model_answer/NAME.jsonl, model_judgment/JUDGE_single.jsonl. Not here: a judge (data/grader.py).
Read before: platolm.py, model.py, simulate.py.
"""

import argparse
import os
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from model import Llama, generate, machine, nll, read_json
from platolm import (IGNORE, Problem, Tokenizer, blanked, encode, positive, prompt, read, run,
                     shift, turns, write, write_json, wrong)
from simulate import Client
from train import batches, pad

# ------------------------------------------------------------------------------------------------
# answer


def answer(model, tokenizer, questions, limit, slots=64):
    """
    An assistant's answers, turn by turn, by greedy decoding, at most `limit` tokens each.

    questions: [{"turns": [text, ...]}]  ->  for each, the list of its answers.
    """
    talks = [[] for _ in questions]
    for turn in range(max(len(question["turns"]) for question in questions)):
        asked = [i for i, question in enumerate(questions) if turn < len(question["turns"])]
        for i in asked:
            talks[i].append({"from": "human", "value": questions[i]["turns"][turn]})
        prompts = [prompt(talks[i], tokenizer, "gpt") for i in asked]
        rows = generate(model, prompts, [tokenizer.eos], limit, slots, temperature=0)
        for i, row in zip(asked, rows):
            talks[i].append({"from": "gpt", "value": tokenizer.decode(row.wrote)})
    return [[said["value"] for said in talk if said["from"] == "gpt"] for talk in talks]


# ------------------------------------------------------------------------------------------------
# judge

JUDGE = """\
Below is a talk between a user and an assistant. Judge the last answer of the assistant alone: is \
it right, does it say what was asked for, does it fit what was said before? Give one sentence of \
reason. Then rate it from 1 (useless or wrong) to 10 (could not be better), written as [[7]].

[conversation]
{talk}
[end of conversation]"""


def judge_prompt(questions, answers):
    """The judge's instruction about the last of some answers, what came before as context."""
    talk = "\n".join(f"user: {q}\nassistant: {a}" for q, a in zip(questions, answers))
    return JUDGE.format(talk=talk)


def rating(judgment):
    """The number in [[7]] or [[7.5]], otherwise the one in [7]; None if there is neither."""
    for pattern in (r"\[\[(\d+\.?\d*)\]\]", r"\[(\d+\.?\d*)\]"):
        if found := re.search(pattern, judgment):
            number = float(found[1])
            return number if 1 <= number <= 10 else None
    return None


# ------------------------------------------------------------------------------------------------
# score


def scale(ratings):
    """Ratings of 1 to 10 as scores of 0 to 1."""
    return (np.asarray(ratings, dtype=float) - 1) / 9


def bootstrap(values, draws=2000, seed=0):
    """
    The mean of one value per question, and its 95 % interval (Efron 1979): (mean, low, high).

    Questions are drawn again with replacement; the spread of the means is the uncertainty.
    """
    values = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return values.mean(), low, high


def paired(a, b):
    """Mean difference a - b over the same questions, with its interval."""
    return bootstrap(np.asarray(a) - np.asarray(b))


def summary(scores, questions):
    """
    One assistant in numbers. scores (questions, turns), in 0..1  ->  {"overall", "low", "high",
    "asked", ...}. A question's "asked" tells whether the humans of the training data ever ask
    about what it is about; without the key it counts as asked.
    """
    per_question = scores.mean(axis=1)
    mean, low, high = bootstrap(per_question)
    asked = np.array([question.get("asked", True) for question in questions])
    categories = np.array([question["category"] for question in questions])
    return {"overall": mean, "low": low, "high": high,
            "asked": mean_of(per_question[asked]), "never_asked": mean_of(per_question[~asked]),
            **{f"turn{i + 1}": scores[:, i].mean() for i in range(scores.shape[1])},
            "categories": {name: mean_of(per_question[categories == name])
                           for name in dict.fromkeys(categories.tolist())},
            "kinds": by_kind(scores, questions)}


def by_kind(scores, questions):
    """Mean score of each kind of turn, for questions that name them: {"doubt": 0.93, ...}."""
    found = {}
    for row, question in zip(scores, questions):
        for score, kind in zip(row, question.get("kinds", ())):
            found.setdefault(kind, []).append(score)
    return {kind: float(np.mean(found[kind])) for kind in sorted(found)}


def mean_of(values):
    """The mean, or None of nothing."""
    return values.mean() if len(values) else None


# ------------------------------------------------------------------------------------------------
# what needs no judge: answers with known words in them, sentences with a known end


def held(reply, words):
    """Whether all the words that a right answer needs stand in a reply."""
    return all(re.search(rf"\b{re.escape(word)}\b", reply.lower()) for word in words)


def gold_hits(model, tokenizer, records, limit=48):
    """
    For each dialogue, which of its answers the model gets right, given all that was said before.

    A record has "keys": for each answer the words it needs; an answer that needs none is skipped.
    """
    places = [(i, 2 * j + 1, words) for i, record in enumerate(records)
              for j, words in enumerate(record["keys"]) if words]
    prompts = [prompt(records[i]["conversations"][:t], tokenizer, "gpt") for i, t, _ in places]
    rows = generate(model, prompts, [tokenizer.eos], limit, 64, temperature=0)
    hits = [[] for _ in records]
    for (i, _, words), row in zip(places, rows):
        hits[i].append(held(tokenizer.decode(row.wrote), words))
    return hits


def completed(model, tokenizer, rows):
    """Which sentences {"text", "value"} the model, as a plain language model, ends as they end."""
    prompts = [[tokenizer.bos] + tokenizer.encode(row["text"]) for row in rows]
    wrote = generate(model, prompts, [tokenizer.eos], 12, 64, temperature=0)
    return [tokenizer.decode(found.wrote).strip().startswith(row["value"])
            for found, row in zip(wrote, rows)]


def ratio(sums, counts, draws=2000, seed=0):
    """sum(sums) / sum(counts) and its 95 % interval; dialogues are drawn again as wholes."""
    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    drawn = counts[picks].sum(axis=1)
    low, high = np.percentile(sums[picks].sum(axis=1)[drawn > 0] / drawn[drawn > 0], [2.5, 97.5])
    return sums.sum() / counts.sum(), low, high


# ------------------------------------------------------------------------------------------------
# does a user listen? what humans say next surprises a listener less than a user trained blind

@torch.no_grad()
def turn_losses(model, tokenizer, records, blind=False, budget=8192):
    """
    How surprised a user is by what humans say: per record, per human turn, the nats of each token.

    A turn's end counts as a token of it; who left said one turn more, of nothing but its end.
    """
    talks = [blanked(turns(record)) if blind else turns(record) for record in records]
    samples = [shift(*encode(talk, tokenizer, "human", record.get("intent", "")))
               for talk, record in zip(talks, records)]
    found = [None] * len(samples)
    for batch in batches([len(ids) for ids, _ in samples], budget, np.random.default_rng(0)):
        inputs = pad([samples[i] for i in batch], model.embed_tokens.weight.device)
        losses = iter(nll(model, *inputs).tolist())
        for i in batch:
            # what one human turn says is one unbroken run of learnt tokens
            runs = groupby(samples[i][1], key=lambda target: target != IGNORE)
            found[i] = [[next(losses) for _ in run] for learnt, run in runs if learnt]
    return found


def heard(record):
    """
    What each later human turn follows on: [(turn, leans on the answer?, answer on an asked fact?)].

    A record tells for each human turn whether it "leans" so, and is about something "asked".
    """
    return [(t, record["leans"][t], record["asked"][t - 1]) for t in range(1, len(record["leans"]))]


def listening(records, listener, deaf):
    """
    Nats per token of human turns, for a listener and for a user trained blind, by what the turns
    follow on; the difference blind - listener, with its interval, is what listening is worth.
    """
    rows = []
    for about in (None, True, False):
        for leans in (None, True, False):
            sums = np.zeros((len(records), 3))
            for i, record in enumerate(records):
                for t, leaning, asked in heard(record):
                    if leans in (None, leaning) and about in (None, asked):
                        sums[i] += sum(listener[i][t]), sum(deaf[i][t]), len(listener[i][t])
            if not sums.any():
                continue
            worth, low, high = ratio(sums[:, 1] - sums[:, 0], sums[:, 2])
            rows.append({"leaning": leans, "asked": about, "tokens": int(sums[:, 2].sum()),
                         "listener": sums[:, 0].sum() / sums[:, 2].sum(),
                         "blind": sums[:, 1].sum() / sums[:, 2].sum(),
                         "difference": worth, "low": low, "high": high})
    return rows


# ------------------------------------------------------------------------------------------------
# files and commands


def lacks(*keys, also=lambda row: None):
    """A check for platolm.read: which of some keys a row does not have; else what `also` finds."""
    def check(row):
        missing = [key for key in keys if row.get(key) in (None, "", [])]
        return f"no {' and no '.join(missing)}" if missing else also(row)
    return check


def questions_of(bench):
    """The questions of a bench; each has an id, a category and turns."""
    path = bench / "question.jsonl"
    questions = list(read(path, lacks("question_id", "category", "turns")))
    if len({len(question["turns"]) for question in questions}) != 1:
        raise Problem(f"{path} holds no questions, or some with more turns than others")
    return questions


def answers_of(bench, name, questions):
    """The answers of one assistant, in the order of the questions."""
    path = bench / "model_answer" / f"{name}.jsonl"
    rows = read(path, lacks("question_id", "choices"))
    found = {row["question_id"]: row["choices"][0]["turns"] for row in rows}
    missing = [q["question_id"] for q in questions if q["question_id"] not in found]
    if missing:
        raise Problem(f"{path} has no answer to {len(missing)} questions, first {missing[0]}")
    return [found[question["question_id"]] for question in questions]


def checkpoint(word):
    """NAME=DIR, or a directory that is its own name, as (name, model, tokenizer)."""
    (name, _, directory), fast = word.rpartition("="), machine()
    model = Llama.load(directory, fast["attention"]).to(fast["device"])
    return name or Path(directory).name, model, Tokenizer.load(directory)


def command_answer(args):
    benches = {bench: questions_of(bench) for bench in args.bench}
    for word in args.models:
        began = time.time()
        name, model, tokenizer = checkpoint(word)
        for bench, questions in benches.items():
            found = answer(model, tokenizer, questions, args.limit)
            write(bench / "model_answer" / f"{name}.jsonl", answer_rows(name, questions, found))
        print(f"{name}: answers to {sum(map(len, benches.values()))} questions "
              f"in {time.time() - began:.0f} s", flush=True)


def answer_rows(name, questions, found):
    """Answers as rows of model_answer/."""
    return [{"question_id": question["question_id"], "answer_id": uuid.uuid4().hex,
             "model_id": name, "choices": [{"index": 0, "turns": texts}], "tstamp": time.time()}
            for question, texts in zip(questions, found)]


def judge_one(client, args, name, question, answers, turn):
    """One judgment as a row of model_judgment/; a score of -1 means that none was given."""
    asked = judge_prompt(question["turns"][:turn], answers[:turn])
    text = client.chat(args.judge_model, [{"role": "user", "content": asked}], 512, temperature=0)
    score = rating(text)
    return {"question_id": question["question_id"], "model": name, "turn": turn,
            "judge": [args.judge_model, "single"], "user_prompt": asked, "judgment": text,
            "score": -1 if score is None else score, "tstamp": time.time()}


def command_judge(args):
    client = Client(args.judge, os.environ.get("OPENAI_API_KEY"))
    # the first comes last: where its judgments are, all are
    for bench in reversed(args.bench):
        questions = questions_of(bench)
        tasks = [(name, question, answers, turn) for name in args.names
                 for question, answers in zip(questions, answers_of(bench, name, questions))
                 for turn in range(1, len(answers) + 1)]
        with ThreadPoolExecutor(args.in_flight) as pool:
            rows = list(pool.map(lambda task: judge_one(client, args, *task), tasks))
        path = bench / "model_judgment" / f"{args.judge_model}_single.jsonl"
        # what was judged before stays, but for the same assistants
        before = read(path, lacks("model", "score")) if path.exists() else []
        write(path, [row for row in before if row["model"] not in args.names] + rows)
        failed = sum(row["score"] == -1 for row in rows)
        print(f"{bench}: {len(rows):,} judgments of {len(args.names)} assistants, "
              f"{failed} without a rating", flush=True)


def scores_of(bench, judge_model, names, questions):
    """{name: scores (questions, turns) in 0..1}; an answer without a rating is a Problem."""
    rows = read(bench / "model_judgment" / f"{judge_model}_single.jsonl", lacks("model", "score"))
    found = {(row["model"], row["question_id"], row["turn"]): row["score"] for row in rows}
    keys = [[(q["question_id"], turn + 1) for turn in range(len(q["turns"]))] for q in questions]
    rated = {name: [[found.get((name, *key), -1) for key in row] for row in keys] for name in names}
    for name, ratings in rated.items():
        if missing := sum(row.count(-1) for row in ratings):
            raise Problem(f"{missing} answers of {name} have no rating; judge them (again)")
    return {name: scale(ratings) for name, ratings in rated.items()}


def command_probe(args):
    records = list(read(args.gold, lacks("keys", also=wrong)))
    rows = list(read(args.sentences, lacks("text", "value")))
    asked = np.array([row.get("asked", True) for row in rows])
    found = {}
    for word in args.models:
        name, model, tokenizer = checkpoint(word)
        hits = gold_hits(model, tokenizer, records)
        gold, low, high = ratio([sum(hit) for hit in hits], [len(hit) for hit in hits])
        ended = np.array(completed(model, tokenizer, rows))
        found[name] = {"gold": gold, "gold_low": low, "gold_high": high,
                       "completed": ended.mean(), "completed_never_asked": mean_of(ended[~asked])}
        print(f"{name}: {gold:.0%} of {sum(map(len, hits))} answers in {len(hits)} dialogues by "
              f"hand, {ended.mean():.0%} of {len(rows)} sentences completed", flush=True)
    write_json(args.out, found)


def command_listen(args):
    records = list(read(args.human, lacks("leans", "asked", also=wrong)))
    losses = []
    for directory, blind in ((args.listener, False), (args.blind, True)):
        _, model, tokenizer = checkpoint(directory)
        losses.append(turn_losses(model, tokenizer, records, blind))
    rows = listening(records, *losses)
    write_json(args.out, {"dialogues": len(records), "rows": rows})
    print(f"nats per token of {len(records)} held-out humans' later turns\n{'':<44}"
          f"{'listens':>8}{'blind':>8}  {'what listening is worth':>24}")
    for row in rows:
        print(f"{listening_row(row):<44}{row['listener']:>8.3f}{row['blind']:>8.3f}  "
              f"{row['difference']:>+8.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")


def listening_row(row):
    """What the turns of a row have in common, in words."""
    which = {None: "all turns", True: "leaning on the answer", False: "others"}[row["leaning"]]
    return which + {None: "", True: ", asked facts", False: ", never-asked facts"}[row["asked"]]


def command_score(args):
    questions = questions_of(args.bench)
    scores = scores_of(args.bench, args.judge_model, args.names, questions)
    arms = {name: summary(scores[name], questions) for name in args.names}
    for word in args.beside:
        column, _, bench = word.partition("=")
        found = scores_of(Path(bench), args.judge_model, args.names, questions_of(Path(bench)))
        for name in args.names:
            arms[name][column] = found[name].mean()
    if args.probes:
        if not Path(args.probes).exists():
            raise Problem(f"no {args.probes}; `evaluate.py probe` writes it")
        probes = read_json(Path(args.probes))
        if missing := [name for name in arms if name not in probes]:
            raise Problem(f"{args.probes} says nothing about {', '.join(missing)}")
        arms = {name: arm | probes[name] for name, arm in arms.items()}
    pairs = {f"{args.against}-{name}": paired(scores[args.against].mean(axis=1),
                                              scores[name].mean(axis=1))
             for name in args.names if args.against in args.names and name != args.against}
    results = {"arms": arms, "paired": {name: dict(zip(("difference", "low", "high"), found))
                                        for name, found in pairs.items()}}
    if args.seconds:
        results["seconds"] = {row["stage"]: row["seconds"] for row in read(args.seconds, None)}
    write_json(args.out, results)
    print(table(results, len(questions)))
    print(f"\nall numbers: {args.out}")


# the columns of the table: what each is called there, and in results.json
COLUMNS = {"asked": "asked", "never": "never_asked", "turn 1": "turn1", "turn 2": "turn2",
           "formal": "formal", "vicuna": "vicuna", "gold": "gold", "ends": "completed"}


def number(x):
    """A score in a table, or a dash."""
    return "-" if x is None else f"{x:.3f}"


def table(results, n):
    """The results as text: an arm per line, best first; kinds of turn; the differences."""
    arms = dict(sorted(results["arms"].items(), key=lambda item: -item[1]["overall"]))
    held = [word for word, key in COLUMNS.items() if any(key in arm for arm in arms.values())]
    lines = [f"{n} questions; scores from 0 to 1; 95 % intervals over questions",
             "asked: about what the people in the data ask; never: about what they never ask", "",
             f"{'arm':<11}{'overall':>7}  {'interval':^14}" + "".join(f"{w:>8}" for w in held)]
    for name, arm in arms.items():
        lines.append(f"{name:<11}{arm['overall']:>7.3f}  {arm['low']:.3f} to {arm['high']:.3f}"
                     + "".join(f"{number(arm.get(COLUMNS[word])):>8}" for word in held))
    for what in ("categories", "kinds"):
        names = list(next(iter(arms.values()))[what])
        lines += ["", f"{what:<11}" + "".join(f"{name[:9]:>10}" for name in names)] if names else []
        lines += [f"{name:<11}" + "".join(f"{number(arm[what][key]):>10}" for key in names)
                  for name, arm in arms.items()] if names else []
    lines.append("")
    for name, pair in results["paired"].items():
        interval = f"[{pair['low']:+.3f}, {pair['high']:+.3f}]"
        lines.append(f"{name:<24} {pair['difference']:+.3f}  {interval}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("answer", help="let assistants answer a bench")
    one.add_argument("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories; "
                     "without NAME= the directory's own name is taken")
    one.add_argument("--limit", type=positive, default=48, help="longest answer, in tokens")
    two = commands.add_parser("judge", help="let a judge rate answers")
    two.add_argument("--judge", required=True, metavar="URL", help="OpenAI-compatible address")
    two.add_argument("--in-flight", type=positive, default=16, help="questions at a time")
    three = commands.add_parser("score", help="compare what was judged")
    three.add_argument("--against", default="socratic", help="the arm that others are held against")
    three.add_argument("--beside", nargs="+", default=[], metavar="COLUMN=BENCH",
                       help="further benches, one column each")
    three.add_argument("--probes", help="what `probe` wrote: further columns")
    three.add_argument("--seconds", help="JSONL of stages and how long they took, to be kept too")
    three.add_argument("--out", default="results.json")
    four = commands.add_parser("probe", help="answers and sentences with a known end: no judge")
    four.add_argument("models", nargs="+", metavar="NAME=DIR", help="as for answer")
    four.add_argument("--gold", required=True, help='dialogues with "keys": what answers need')
    four.add_argument("--sentences", required=True, help='JSONL of {"text", "value"}')
    four.add_argument("--out", default="probes.json")
    five = commands.add_parser("listen", help="what listening is worth to a user")
    five.add_argument("listener", metavar="DIR", help="checkpoint of a trained user")
    five.add_argument("--blind", required=True, metavar="DIR", help="one trained with --blind")
    five.add_argument("--human", required=True, help='held-out dialogues with "leans" and "asked"')
    five.add_argument("--out", default="listening.json")
    for command in (two, three):
        command.add_argument("names", nargs="+", help="assistants, as in model_answer/")
        command.add_argument("--judge-model", default="grader", help="the judge's name there")
    for command in (one, two):
        command.add_argument("--bench", type=Path, nargs="+", required=True, help="directories")
    three.add_argument("--bench", type=Path, required=True, help="directory of the bench")
    args = parser.parse_args()
    {"answer": command_answer, "judge": command_judge, "score": command_score,
     "probe": command_probe, "listen": command_listen}[args.command](args)


if __name__ == "__main__":
    run(main)
