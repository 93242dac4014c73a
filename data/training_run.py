"""
A training run on disk: what is needed to resume it, whether it is finished, and its result.

An earlier model in the same directory stays until the new one is whole.
"""

import math

import torch

from data.checkpoint import build_model, load_model, save_model
from data.distributed import SingleProcess
from data.formats.adapter import read_adapter, write_adapter
from data.program import (UserError, atomic_files, file_stamp, read_json, require_same_settings,
                          staged, write_json, write_jsonl)
from model import merge_lora

ALONE = SingleProcess()


def run_settings(args, input_files):
    """
    Return what a run and its continuation must agree on: the flags, and the input files by name,
    size and time of change.
    """
    # where it is written may change: a folder can be moved
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "resume")}
    return settings | {"data": [file_stamp(path) for path in input_files]}


def save_result(model, tokenizer, log, dtype, out, base, lora, settings, ranks):
    """
    Write checkpoint, log and settings; the weights in the dtype that the base was stored in. An
    earlier model stays until all is written.
    """
    total = sum(row["tokens"] for row in log)
    padding = sum(row["padding"] for row in log) / total
    print(f"{total:,} tokens computed, {padding:.1%} of them padding, "
          f"{sum(row['learnt'] for row in log):,} learnt")
    require_finite_weights(len(log), model, ranks)
    # gathering the parts of a sharded model takes all processes, writing one
    gathered = ranks.state(model, [])[0] if ranks.sharded else None
    if ranks.rank != 0:
        return
    if gathered:
        tensors = {name: tensor.to(dtype) for name, tensor in gathered.items()}
        model = build_model(model.config, tensors, out)
    with staged(out) as new:
        write_jsonl(new / "log.jsonl", log)
        write_json(new / "run.json", settings)
        tokenizer.save(new)
        if lora:
            write_adapter(model, new / "adapter", base)
            tokenizer.save(new / "adapter")
            # merged into the base as it is on file, so that no rounding of ours comes between
            model = load_model(base)
            read_adapter(model, new / "adapter")
            merge_lora(model)
        save_model(model.to("cpu", dtype), new, tokenizer)
    # what only an earlier run had, and the state of this one
    leftovers = ["train_state.pt", "model.safetensors.index.json"]
    if not lora:
        leftovers += ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
    for name in leftovers:
        (out / name).unlink(missing_ok=True)


def is_finished(out, input_files, settings):
    """
    Whether the directory holds a model that is younger than all of its input files. If that is one
    of other settings, it is a UserError.
    """
    model = out / "model.safetensors"
    if not model.exists() or (out / "train_state.pt").exists():
        return False
    made = model.stat().st_mtime
    if not all(path.stat().st_mtime <= made for path in input_files):
        return False
    if (out / "run.json").exists():
        require_same_settings(out, read_json(out / "run.json"), settings,
                              "it is finished, and without --resume it is trained anew")
    return True


def require_finite(step, *numbers):
    """Raise UserError if one of the numbers of a step is infinite or not a number."""
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"step {step}: loss or weights are no longer finite numbers, so the run "
                        "stops; what was saved before is unchanged (a lower --lr may help)")


def require_finite_weights(step, model, ranks=ALONE):
    """Raise UserError in every process if a weight in one of them is not a finite number."""
    finite = True
    for p in model.parameters():
        # of a weight in parts, the part that this process holds
        own = p.to_local() if hasattr(p, "to_local") else p
        finite &= own.isfinite().all().item()
    require_finite(step, ranks.sum_over(0.0 if finite else math.nan))


def save_state(path, settings, model, optimizers, log, ranks=ALONE):
    """Save what is needed to resume, atomically: a kill at any moment leaves a complete file."""
    require_finite_weights(len(log), model, ranks)
    state = ranks.state(model, optimizers)
    if ranks.rank == 0:
        with atomic_files(path, mode="wb") as [file]:
            torch.save({"state": state, "log": log, "run": settings}, file)


def load_state(path, settings, model, optimizers, ranks=ALONE):
    """Load what save_state wrote to `path` into model and optimizers; return the log so far."""
    try:
        # mapped: a large model is not copied into memory twice, nor onto the GPU
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to start again") from None
    require_same_settings(path, saved["run"], settings)
    ranks.load(model, optimizers, saved["state"])
    print(f"going on after step {len(saved['log'])}", flush=True)
    return saved["log"]
