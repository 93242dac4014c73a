"""
Probes of assistants that need no judge: answers with known words, and sentences with a known end.

    python -m data.experiment.probes NAME=DIR ... --gold FILE --sentences FILE --out probes.json

The gold dialogues were written one by one, from the fact sheet; the sentences are the base's own
encyclopaedia.
"""

import argparse
import re

import numpy as np

from data.machine import named_checkpoint
from data.measure.intervals import bootstrap, mean_of
from data.program import read_jsonl, require_apart, require_keys, run, write_json
from model import generate_batch
from platolm import prompt, record_error


def has_words(answer, words):
    """Whether an answer has all words of a list, each as a whole word, in any case."""
    return all(re.search(rf"\b{re.escape(word)}\b", answer.lower()) for word in words)


def gold_hits(model, tokenizer, records, limit=48):
    """
    Test which answers of some dialogues a model gets right, given all turns before them.

    A record has "keys": for each answer the words that a right one has; an answer without any is
    skipped. limit: tokens of an answer. Returns a list of True and False for each record.
    """
    cases = []
    for i, record in enumerate(records):
        for j, words in enumerate(record["keys"]):
            if words:
                # answer j is turn 2 j + 1
                cases.append((i, record["conversations"][:2 * j + 1], words))
    prompts = [prompt(history, tokenizer, "gpt") for _, history, _ in cases]
    rows = generate_batch(model, prompts, [tokenizer.eos], limit, 64, temperature=0)
    hits = [[] for _ in records]
    for (i, _, words), row in zip(cases, rows):
        hits[i].append(has_words(tokenizer.decode(row.output), words))
    return hits


def completed(model, tokenizer, sentences):
    """
    Test which sentences {"text", "value"} a model ends rightly, as a plain language model.

    It continues "text" without a dialogue's template. Returns [True or False, ...].
    """
    prompts = [[tokenizer.bos] + tokenizer.encode(row["text"]) for row in sentences]
    outputs = generate_batch(model, prompts, [tokenizer.eos], 12, 64, temperature=0)
    return [tokenizer.decode(output.output).strip().startswith(row["value"])
            for output, row in zip(outputs, sentences)]


def main():
    """Probe some checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories")
    parser.add_argument("--gold", required=True, help='dialogues with "keys": what answers need')
    parser.add_argument("--sentences", required=True, help='JSONL of {"text", "value"}')
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    require_apart([args.out], [args.models, args.gold, args.sentences])
    records = list(read_jsonl(args.gold, require_keys("keys", also=record_error)))
    sentences = list(read_jsonl(args.sentences, require_keys("text", "value")))
    asked = np.array([row.get("asked", True) for row in sentences])
    results = {}
    for word in args.models:
        name, model, tokenizer = named_checkpoint(word)
        hits = gold_hits(model, tokenizer, records)
        counts = [len(hit) for hit in hits]
        gold, low, high = bootstrap([sum(hit) for hit in hits], counts)
        ended = np.array(completed(model, tokenizer, sentences), dtype=float)
        results[name] = {"gold": gold, "gold_low": low, "gold_high": high,
                         "completed": ended.mean(),
                         "completed_never_asked": mean_of(ended[~asked])}
        print(f"{name}: {gold:.0%} of {sum(counts)} answers in {len(hits)} dialogues by hand, "
              f"{ended.mean():.0%} of {len(sentences)} sentences completed", flush=True)
    write_json(args.out, results)


if __name__ == "__main__":
    run(main)
