"""
Ask assistants the questions of a bench, have a judge rate what they say, and compare.

    python evaluate.py answer NAME=DIR ... --bench bench            answers of checkpoints
    python evaluate.py judge NAME ... --bench bench --judge URL     ratings, over HTTP
    python evaluate.py score NAME ... --bench bench                 the table, and results.json

A bench is a directory in MT-Bench's layout (Zheng et al. 2023, arXiv 2306.05685): question.jsonl,
model_answer/NAME.jsonl, model_judgment/JUDGE_single.jsonl. Not here: a judge (data/grader.py).
Read before: platolm.py, model.py, simulate.py.
"""

import argparse
import json
import os
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from model import Llama, generate, machine
from platolm import Problem, Tokenizer, positive, prompt, read, run, write
from simulate import chat, connect

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
                           for name in dict.fromkeys(categories.tolist())}}


def mean_of(values):
    """The mean, or None of nothing."""
    return values.mean() if len(values) else None


# ------------------------------------------------------------------------------------------------
# files and commands


def lacks(*keys):
    """A check for platolm.read: which of some keys a row does not have."""
    def check(row):
        missing = [key for key in keys if row.get(key) in (None, "", [])]
        return f"no {' and no '.join(missing)}" if missing else None
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


def command_answer(args):
    questions, fast = questions_of(args.bench), machine()
    for word in args.models:
        name, _, directory = word.rpartition("=")
        name, began = name or Path(directory).name, time.time()
        model = Llama.load(directory, fast["attention"]).to(fast["device"])
        found = answer(model, Tokenizer.load(directory), questions, args.limit)
        write(args.bench / "model_answer" / f"{name}.jsonl",
              [{"question_id": question["question_id"], "answer_id": uuid.uuid4().hex,
                "model_id": name, "choices": [{"index": 0, "turns": texts}], "tstamp": time.time()}
               for question, texts in zip(questions, found)])
        print(f"{name}: {sum(map(len, found))} answers to {len(questions)} questions "
              f"in {time.time() - began:.0f} s", flush=True)


def judge_one(session, args, name, question, answers, turn):
    """One judgment as a row of model_judgment/; a score of -1 means that none was given."""
    asked = judge_prompt(question["turns"][:turn], answers[:turn])
    text, _ = chat(session, args.judge, args.judge_model, [{"role": "user", "content": asked}],
                   temperature=0, max_tokens=512)
    score = rating(text)
    return {"question_id": question["question_id"], "model": name, "turn": turn,
            "judge": [args.judge_model, "single"], "user_prompt": asked, "judgment": text,
            "score": -1 if score is None else score, "tstamp": time.time()}


def command_judge(args):
    questions = questions_of(args.bench)
    tasks = [(name, question, answers, turn) for name in args.names
             for question, answers in zip(questions, answers_of(args.bench, name, questions))
             for turn in range(1, len(answers) + 1)]
    session = connect(args.judge, os.environ.get("OPENAI_API_KEY"))
    with ThreadPoolExecutor(args.in_flight) as pool:
        rows = list(pool.map(lambda task: judge_one(session, args, *task), tasks))
    path = args.bench / "model_judgment" / f"{args.judge_model}_single.jsonl"
    # what was judged before stays, but for the same assistants
    before = read(path, lacks("model", "score")) if path.exists() else []
    write(path, [row for row in before if row["model"] not in args.names] + rows)
    failed = sum(row["score"] == -1 for row in rows)
    print(f"{len(rows):,} judgments of {len(args.names)} assistants, {failed} without a rating")


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


def command_score(args):
    questions = questions_of(args.bench)
    scores = scores_of(args.bench, args.judge_model, args.names, questions)
    arms = {name: summary(scores[name], questions) for name in args.names}
    pairs = {f"{args.against}-{name}": paired(scores[args.against].mean(axis=1),
                                              scores[name].mean(axis=1))
             for name in args.names if args.against in args.names and name != args.against}
    results = {"arms": arms, "paired": {name: dict(zip(("difference", "low", "high"), found))
                                        for name, found in pairs.items()}}
    Path(args.out).write_text(json.dumps(results, indent=2) + "\n")
    print(table(results, len(questions)))
    print(f"\nall numbers: {args.out}")


def table(results, n):
    """The results as text: an arm per line, best first, then the differences."""
    number = lambda x: "     -" if x is None else f"{x:6.3f}"
    lines = [f"{n} questions; scores from 0 to 1; 95 % intervals over questions",
             "asked: about what the people in the data ask; never: about what they never ask", "",
             f"{'arm':<12}{'overall':>8}  {'interval':^15}{'asked':>8}{'never':>8}"
             f"{'turn 1':>8}{'turn 2':>8}"]
    for name, arm in sorted(results["arms"].items(), key=lambda item: -item[1]["overall"]):
        lines.append(f"{name:<12}  {number(arm['overall'])}  [{arm['low']:.3f}, {arm['high']:.3f}]"
                     + "".join(f"  {number(arm.get(key))}"
                               for key in ("asked", "never_asked", "turn1", "turn2")))
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
    one.add_argument("--limit", type=positive, default=64, help="longest answer, in tokens")
    two = commands.add_parser("judge", help="let a judge rate answers")
    two.add_argument("--judge", required=True, metavar="URL", help="OpenAI-compatible address")
    two.add_argument("--in-flight", type=positive, default=16, help="questions at a time")
    three = commands.add_parser("score", help="compare what was judged")
    three.add_argument("--against", default="socratic", help="the arm that others are held against")
    three.add_argument("--out", default="results.json")
    for command in (two, three):
        command.add_argument("names", nargs="+", help="assistants, as in model_answer/")
        command.add_argument("--judge-model", default="grader", help="the judge's name there")
    for command in (one, two, three):
        command.add_argument("--bench", type=Path, required=True, help="directory of the bench")
    args = parser.parse_args()
    {"answer": command_answer, "judge": command_judge, "score": command_score}[args.command](args)


if __name__ == "__main__":
    run(main)
