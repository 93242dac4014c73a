"""
How this machine computes fastest: precision and attention, timed once and remembered.

    python -m data.machine        writes runs/machine.json, unless it is there
"""

import time
from pathlib import Path

import torch

from data.checkpoint import load_model, require_fit
from data.program import read_json, run, write_json
from model import ATTENTION, Config, Llama, nll
from platolm import IGNORE, Tokenizer

MACHINE = Path("runs/machine.json")


def step_time(device, precision, attention):
    """
    Return the seconds of a training step of the default model on about 1,024 tokens: a median.

    Every step has another shape, as in training: some kernels are slow on each new shape.
    """
    model = Llama(Config(), attention).to(device)
    times = []
    for length in range(64, 192, 16):
        ids = torch.arange(1024 // length * length, device=device).view(-1, length) % Config.vocab
        # as in a dialogue, a third of the tokens are targets
        targets = ids.masked_fill(ids % 3 > 0, IGNORE)
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = nll(model, ids, targets).mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def time_this_machine(path):
    """Time a training step on the CPU in both kinds of attention and in bf16; write the best."""
    print("once for this machine: timing a training step in three forms", flush=True)
    times = {}
    for attention in ATTENTION:
        times["float32", attention] = step_time("cpu", "float32", attention)
    # near ties must not differ from day to day: fused, unless explicit is 20 % faster
    explicit, fused = times["float32", "explicit"], times["float32", "fused"]
    attention = "explicit" if 1.2 * explicit < fused else "fused"
    times["bf16", attention] = step_time("cpu", "bf16", attention)
    # bf16 rounds more: it must be 20 % faster, too
    faster = 1.2 * times["bf16", attention] < times["float32", attention]
    precision = "bf16" if faster else "float32"
    rows = [f"{seconds * 1000:.0f} ms in {form[0]} with {form[1]} attention"
            for form, seconds in times.items()]
    print(f"  {', '.join(rows)}: {precision} and {attention} it is")
    write_json(path, {"device": "cpu", "precision": precision, "attention": attention})


def machine_settings(precision=None, attention=None, path=MACHINE):
    """
    Return where and how to compute: {"device", "precision", "attention"}; arguments override.

    A CPU is timed once, unless both are given, and the result remembered in `path`.
    """
    if torch.cuda.is_available():
        settings = {"device": "cuda", "precision": "bf16", "attention": "fused"}
    elif precision and attention:
        settings = {"device": "cpu"}
    else:
        if not path.exists():
            time_this_machine(path)
        settings = read_json(path)
    if precision:
        settings["precision"] = precision
    if attention:
        settings["attention"] = attention
    return settings


def load_checkpoint(directory):
    """Load a checkpoint directory onto this machine: (model, tokenizer)."""
    settings = machine_settings()
    model = load_model(directory, settings["attention"])
    tokenizer = Tokenizer.load(directory)
    require_fit(tokenizer, model.config, directory)
    return model.to(settings["device"]), tokenizer


def named_checkpoint(argument):
    """Load NAME=DIR, or a directory that is its own name: (name, model, tokenizer)."""
    name, _, directory = argument.rpartition("=")
    model, tokenizer = load_checkpoint(directory)
    return name or Path(directory).name, model, tokenizer


def main():
    print("this machine computes fastest in:", ", ".join(machine_settings().values()))


if __name__ == "__main__":
    run(main)
