"""
How this machine computes fastest: precision and attention, timed once and remembered.
"""

import json
import time
from pathlib import Path

import torch

from data.checkpoint import load_model
from data.program import read_json, run
from model import ATTENTION, Config, Llama, nll
from platolm import IGNORE, Tokenizer


def step_time(device, precision, attention):
    """
    Seconds of one training step of the default model on about 1,024 tokens, the median of many.

    Every step has another shape, as in training: some kernels pay for each shape they first meet.
    """
    model, times = Llama(Config(), attention).to(device), []
    for length in range(64, 192, 8):
        ids = torch.arange(1024 // length * length, device=device).view(-1, length) % Config.vocab
        # as in a dialogue, a third of the tokens is learnt
        targets = ids.masked_fill(ids % 3 > 0, IGNORE)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = nll(model, ids, targets).mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def machine_settings(precision=None, attention=None, path=Path("runs/machine.json")):
    """
    Where and how to compute: {"device", "precision", "attention"}; arguments override.

    Of a CPU it is measured once, by a few training steps of the default model in each form, and
    remembered in `path` for every later stage.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = {"device": "cuda", "precision": "bf16", "attention": "fused"}
    if device == "cpu" and not path.exists():
        print("once for this machine: timing a training step in four forms", flush=True)
        times = {(p, a): step_time(device, p, a) for p in ("float32", "bf16") for a in ATTENTION}
        # half the digits have to be worth it
        best = min(times, key=lambda form: times[form] * (1.2 if form[0] == "bf16" else 1))
        print("  " + ", ".join(f"{t * 1000:.0f} ms in {p} with {a} attention"
                               for (p, a), t in times.items()) + f": {' and '.join(best)} it is")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"device": device, "precision": best[0], "attention": best[1]}))
    if device == "cpu":
        fast = read_json(path)
    return fast | {name: value for name, value in
                   (("precision", precision), ("attention", attention)) if value}


def load_checkpoint(directory):
    """A checkpoint directory as (model, tokenizer)."""
    fast = machine_settings()
    model = load_model(directory, fast["attention"]).to(fast["device"])
    return model, Tokenizer.load(directory)


def named_checkpoint(word):
    """NAME=DIR, or a directory that is its own name, as (name, model, tokenizer)."""
    name, _, directory = word.rpartition("=")
    return name or Path(directory).name, *load_checkpoint(directory)


def main():
    print("this machine computes fastest in:", ", ".join(machine_settings().values()))


if __name__ == "__main__":
    run(main)
