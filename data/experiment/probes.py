"""
What needs no judge: answers with known words in them, and sentences with a known end.

    python -m data.experiment.probes NAME=DIR ... --gold FILE --sentences FILE --out probes.json

The gold dialogues were written one by one, from the fact sheet; the sentences are the base's own
encyclopaedia. Not here: the bench and its judge (evaluate.py).
"""

import argparse
import re

import numpy as np

from data.measure.intervals import bootstrap, mean_of
from data.program import require_keys, read_jsonl, run, write_json
from data.machine import named_checkpoint
from model import generate_batch
from platolm import prompt, record_error


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
    rows = generate_batch(model, prompts, [tokenizer.eos], limit, 64, temperature=0)
    hits = [[] for _ in records]
    for (i, _, words), row in zip(places, rows):
        hits[i].append(held(tokenizer.decode(row.output), words))
    return hits


def completed(model, tokenizer, rows):
    """Which sentences {"text", "value"} the model, as a plain language model, ends as they end."""
    prompts = [[tokenizer.bos] + tokenizer.encode(row["text"]) for row in rows]
    wrote = generate_batch(model, prompts, [tokenizer.eos], 12, 64, temperature=0)
    return [tokenizer.decode(found.output).strip().startswith(row["value"])
            for found, row in zip(wrote, rows)]


def main():
    """Probe some checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories")
    parser.add_argument("--gold", required=True, help='dialogues with "keys": what answers need')
    parser.add_argument("--sentences", required=True, help='JSONL of {"text", "value"}')
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    records = list(read_jsonl(args.gold, require_keys("keys", also=record_error)))
    rows = list(read_jsonl(args.sentences, require_keys("text", "value")))
    asked, found = np.array([row.get("asked", True) for row in rows]), {}
    for word in args.models:
        name, model, tokenizer = named_checkpoint(word)
        hits = gold_hits(model, tokenizer, records)
        gold, low, high = bootstrap([sum(hit) for hit in hits], [len(hit) for hit in hits])
        ended = np.array(completed(model, tokenizer, rows), dtype=float)
        found[name] = {"gold": gold, "gold_low": low, "gold_high": high,
                       "completed": ended.mean(), "completed_never_asked": mean_of(ended[~asked])}
        print(f"{name}: {gold:.0%} of {sum(map(len, hits))} answers in {len(hits)} dialogues by "
              f"hand, {ended.mean():.0%} of {len(rows)} sentences completed", flush=True)
    write_json(args.out, found)


if __name__ == "__main__":
    run(main)
