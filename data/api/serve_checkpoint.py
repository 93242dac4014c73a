"""
A checkpoint of ours behind the OpenAI wire, as an assistant.

    python -m data.api.serve_checkpoint DIR -- COMMAND ... URL ...    with URL its address
    python -m data.api.serve_checkpoint DIR --port 8000

One answer at a time: for classrooms and tests. Not here: the wire (server.py), many texts at once
(model.Engine; for load, any server of Llama directories will do).
"""

import sys
import threading
import zlib
from collections import Counter

import numpy as np

from data.machine import load_checkpoint
from data.program import UserError, run
from model import generate_batch
from platolm import prompt

WHO = {"user": "human", "assistant": "gpt"}


def turns_of(messages):
    """Messages as turns: a system message opens the first turn, and who speaks twice speaks on."""
    turns = []
    for message in messages:
        who = WHO.get(message.get("role"), "human")
        if turns and turns[-1]["from"] == who:
            turns[-1]["value"] += "\n" + message["content"]
        else:
            turns.append({"from": who, "value": message["content"]})
    return turns


def assistant(directory, limit=64, temperature=0.7):
    """
    reply(messages) -> text, by the assistant of a checkpoint directory. The same messages get the
    same first answer, the same second one, and so on.
    """
    lock, times = threading.Lock(), Counter()
    model, tokenizer = load_checkpoint(directory)

    def reply(messages):
        ids = prompt(turns_of(messages), tokenizer, "gpt")
        # the system line stays, and as much of the end as there is room for
        head, room = len(prompt([], tokenizer, "gpt")), model.config.context - limit
        ids = ids if len(ids) <= room else ids[:head] + ids[head - room:]
        with lock:
            seed = [zlib.crc32(repr(ids).encode()), times[tuple(ids)]]
            times[tuple(ids)] += 1
            draw = np.random.default_rng(seed).random
            row, = generate_batch(model, [ids], [tokenizer.eos], limit, 1, [draw],
                            temperature=temperature)
        # on this wire silence would count as a fault
        return tokenizer.decode(row.output).strip() or "..."
    return reply


def main():
    """Serve a checkpoint to a command, or at a port."""
    from data.api.server import run_with
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise UserError("which checkpoint? python -m data.api.serve_checkpoint DIR -- COMMAND ... "
                      "URL ...")
    raise SystemExit(run_with(assistant(sys.argv[1]), name="model", argv=sys.argv[2:]))


if __name__ == "__main__":
    run(main)
