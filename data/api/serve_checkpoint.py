"""
An assistant's checkpoint, served over the OpenAI protocol.

    python -m data.api.serve_checkpoint DIR -- COMMAND ... URL ...    with URL its address
    python -m data.api.serve_checkpoint DIR --port 8000

It writes one answer at a time: for classrooms and tests. For many requests at once, any server of
Llama directories will do.
"""

import sys
import threading
import zlib
from collections import Counter

import numpy as np

from data.api.server import run_with, stop_texts, token_limit
from data.machine import load_checkpoint
from data.program import UserError, run
from model import generate_batch
from platolm import prompt


def messages_to_turns(messages):
    """
    Convert messages to turns: a system message counts as the human's, and messages of one side in
    a row are one turn.
    """
    turns = []
    for message in messages:
        role = "gpt" if message.get("role") == "assistant" else "human"
        if turns and turns[-1]["from"] == role:
            turns[-1]["value"] += "\n" + message["content"]
        else:
            turns.append({"from": role, "value": message["content"]})
    return turns


def load_assistant(directory, limit=64, temperature=0.7):
    """
    Return generate(messages, request=None) -> (text, finish_reason), by the assistant of a
    checkpoint directory. Its longest answer has `limit` tokens, and is sampled at this temperature,
    unless the request asks for less, or another. The same messages get the same first answer, the
    same second one, and so on; with a "seed" the same one always.
    """
    model, tokenizer = load_checkpoint(directory)
    lock = threading.Lock()
    # how often a prompt was answered before
    times = Counter()

    def generate(messages, request=None):
        request = request or {}
        ids = prompt(messages_to_turns(messages), tokenizer, "gpt")
        # of a prompt that is too long, the system line and the end are kept
        head = len(prompt([], tokenizer, "gpt"))
        room = model.config.context - limit
        if len(ids) > room:
            ids = ids[:head] + ids[head - room:]
        heat = request.get("temperature")
        with lock:
            number = request.get("seed")
            if number is None:
                number = times[tuple(ids)]
                times[tuple(ids)] += 1
            seed = [zlib.crc32(repr(ids).encode()), number % 2 ** 32]
            uniform = np.random.default_rng(seed).random
            row, = generate_batch(model, [ids], [tokenizer.eos],
                                  min(limit, token_limit(request) or limit), 1, [uniform],
                                  temperature=temperature if heat is None else heat,
                                  top_p=request.get("top_p") or 1.0)
        text = tokenizer.decode(row.output).strip()
        ended = "stop" if row.finish_reason == "stop" else "length"
        for stop in stop_texts(request):
            text, found, _ = text.partition(stop)
            ended = "stop" if found else ended
        # clients take an empty answer for an error
        return text or "...", ended
    return generate


def main():
    """Serve a checkpoint to a command, or at a port."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise UserError("which checkpoint? python -m data.api.serve_checkpoint DIR -- COMMAND ... "
                        "URL ...")
    generate = load_assistant(sys.argv[1])
    raise SystemExit(run_with(None, name="model", argv=sys.argv[2:], generate=generate))


if __name__ == "__main__":
    run(main)
