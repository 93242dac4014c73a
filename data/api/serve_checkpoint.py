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

from data.api.server import run_with
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
    Return reply(messages) -> text, by the assistant of a checkpoint directory; limit: its longest
    answer in tokens. The same messages get the same first answer, the same second one, and so on.
    """
    model, tokenizer = load_checkpoint(directory)
    lock = threading.Lock()
    # how often a prompt was answered before
    times = Counter()

    def reply(messages):
        ids = prompt(messages_to_turns(messages), tokenizer, "gpt")
        # of a prompt that is too long, the system line and the end are kept
        head = len(prompt([], tokenizer, "gpt"))
        room = model.config.context - limit
        if len(ids) > room:
            ids = ids[:head] + ids[head - room:]
        with lock:
            seed = [zlib.crc32(repr(ids).encode()), times[tuple(ids)]]
            times[tuple(ids)] += 1
            uniform = np.random.default_rng(seed).random
            row, = generate_batch(model, [ids], [tokenizer.eos], limit, 1, [uniform],
                                  temperature=temperature)
        # clients take an empty answer for an error
        return tokenizer.decode(row.output).strip() or "..."
    return reply


def main():
    """Serve a checkpoint to a command, or at a port."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise UserError("which checkpoint? python -m data.api.serve_checkpoint DIR -- COMMAND ... "
                        "URL ...")
    reply = load_assistant(sys.argv[1])
    raise SystemExit(run_with(reply, name="model", argv=sys.argv[2:]))


if __name__ == "__main__":
    run(main)
