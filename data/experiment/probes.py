"""
What assistants answer to today's people, with the right turns before it; no judge is needed.

    python -m data.experiment.probes NAME=DIR ... --human held-out.jsonl --out probes.json

Every human turn of some held-out dialogues is answered, greedily; a question about a stall is put
once more as the script would put it. The dialogues written by hand (harbour/gold.jsonl) count in
the town that they were written about.
"""

import argparse
import re

import numpy as np

from data.experiment.talks import draw_guide, label
from data.harbour.scripts import formal
from data.harbour.world import sheet
from data.machine import named_checkpoint
from data.measure.mtbench import text_hash
from data.program import read_jsonl, require_apart, require_keys, run, write_json
from model import generate_batch
from platolm import prompt, read_records, record_error, to_messages


def complete(model, tokenizer, histories, limit=32):
    """Return a model's greedy answers, up to `limit` tokens, to dialogues that end with a human."""
    prompts = [prompt(history, tokenizer, "gpt") for history in histories]
    rows = generate_batch(model, prompts, [tokenizer.eos], limit, 64, temperature=0)
    return [tokenizer.decode(row.output) for row in rows]


def human_cases(records, guide):
    """
    List the human turns of some dialogues: {"dialogue", "thing", "class", "turns"} (talks.label).

    One about a stall has "formal" as well: the same turns, the last in the script's phrasing.
    """
    cases = []
    for record in records:
        for i in range(0, len(record["conversations"]), 2):
            turns = record["conversations"][:i + 1]
            _, about, name = label(guide, to_messages(turns))
            case = {"dialogue": record["id"], "thing": about.split("/")[0], "class": name,
                    "turns": turns}
            if name == "stalls":
                question = formal(tuple(about.split("/")))
                case["formal"] = turns[:-1] + [{"from": "human", "value": question}]
            cases.append(case)
    return cases


def right_answers(model, tokenizer, histories, guide):
    """Return for each history whether the model's answer is right: [True or False, ...]."""
    answers = complete(model, tokenizer, histories)
    return [guide.is_right(to_messages(history), answer)
            for history, answer in zip(histories, answers)]


def gold_hits(model, tokenizer, records):
    """
    Test which answers of dialogues written by hand a model gets right, given all turns before them.

    A record has "keys": for each answer the words that a right one has; an answer without any is
    skipped. Returns a list of True and False for each record.
    """
    cases = []
    for number, record in enumerate(records):
        for i, words in enumerate(record["keys"]):
            if words:
                cases.append((number, record["conversations"][:2 * i + 1], words))
    answers = complete(model, tokenizer, [history for _, history, _ in cases])
    hits = [[] for _ in records]
    for (number, _, words), answer in zip(cases, answers):
        hits[number].append(all(re.search(rf"\b{re.escape(word)}\b", answer.lower())
                                for word in words))
    return hits


def gold_records(path, world):
    """Return the dialogues written by hand about just this town; others were of other stalls."""
    records = read_jsonl(path, require_keys("keys", "sheet", also=record_error))
    return [record for record in records if record["sheet"] == text_hash(sheet(world))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories")
    add("--human", required=True, help="held-out dialogues of today's people")
    add("--out", required=True, help="JSON file to write")
    add("--seed", type=int, default=0, help="of the world")
    add("--growth", type=float, default=1.0, help="share of stalls that are new each season")
    add("--gold", default="data/harbour/gold.jsonl", help="dialogues written by hand")
    args = parser.parse_args()
    require_apart([args.out], [args.models, args.human, args.gold])
    guide = draw_guide(args.seed, args.growth)
    cases = human_cases(read_records(args.human), guide)
    gold = gold_records(args.gold, guide.world)
    histories = [case["turns"] for case in cases]
    formal_histories = [case["formal"] for case in cases if "formal" in case]
    arms = {}
    for word in args.models:
        name, model, tokenizer = named_checkpoint(word)
        people = right_answers(model, tokenizer, histories, guide)
        script = right_answers(model, tokenizer, formal_histories, guide)
        hits = gold_hits(model, tokenizer, gold)
        arms[name] = {"people": people, "script": script, "gold": hits}
        print(f"{name}: {np.mean(people):.1%} of {len(people):,} turns of people, "
              f"{np.mean(script):.1%} of {len(script):,} questions about stalls put formally, "
              f"{sum(map(sum, hits))} of {sum(map(len, hits))} by hand", flush=True)
    turns = {key: [case[key] for case in cases] for key in ("dialogue", "thing", "class")}
    write_json(args.out, {"turns": turns, "arms": arms})


if __name__ == "__main__":
    run(main)
