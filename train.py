"""
One training loop for every model of the project; only the data and the mask differ.

    python train.py --learn all   --data corpus.jsonl  --out base                   a base model
    python train.py --learn human --data human.jsonl   --out socratic  --base base  who asks
    python train.py --learn gpt   --data chat.jsonl    --out assistant --base base  who answers

A killed run goes on where it was with --resume. Not here: the model (model.py), dialogues and
masks (platolm.py). Read next: simulate.py.
"""

import argparse
import json
import math
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

from model import ATTENTION, Config, Llama, add_lora, machine, merge_lora, nll
from platolm import (IGNORE, Problem, Tokenizer, clock, encode, positive, read, run, same_run,
                     shift, stamp, turns)

# ------------------------------------------------------------------------------------------------
# from records to batches


def sample_of(record, tokenizer, learn, context):
    """
    A record as (inputs, targets), cut to what is needed, and whether some of it did not fit.

    Of a dialogue whole rounds are cut, from the end; never the system line, never part of a turn.
    Nothing after the last learnt token is kept: in a causal model it cannot matter.
    """
    if "conversations" not in record:
        ids = [tokenizer.bos] + tokenizer.encode(record["text"]) + [tokenizer.eos]
        inputs, targets = shift(ids, [False] + [True] * (len(ids) - 1))
        return inputs[:context], targets[:context], len(inputs) > context
    conversation = turns(record)
    # two turns fewer each time: a question goes together with its answer
    for kept in range(len(conversation), -1, -2):
        inputs, targets = shift(*encode(conversation[:kept], tokenizer, learn))
        end = max((i + 1 for i, target in enumerate(targets) if target != IGNORE), default=0)
        if end <= context:
            return inputs[:end], targets[:end], kept < len(conversation)
    return [], [], True


def load_samples(paths, tokenizer, learn, context):
    """All samples of some files; what was left out is counted and said."""
    samples, cut, nothing = [], 0, 0
    for path in paths:
        for record in read(path):
            if "conversations" not in record and learn != "all":
                raise Problem(f"{path} holds plain text; that is for --learn all")
            inputs, targets, shortened = sample_of(record, tokenizer, learn, context)
            cut += shortened
            if any(target != IGNORE for target in targets):
                samples.append((inputs, targets))
            else:
                nothing += 1
    names = ", ".join(map(str, paths))
    if not samples:
        raise Problem(f"nothing to learn for {learn!r} in {names} within {context} tokens")
    print(f"{len(samples):,} samples from {names}; {cut:,} cut to {context} tokens, "
          f"{nothing:,} left out with nothing to learn", flush=True)
    return samples


def batches(lengths, budget, rng):
    """
    One epoch as lists of sample numbers: every list, padded to its longest, within `budget` tokens
    (a sample that is longer than that alone gets a list of its own).

    Sorted by length inside a shuffled pool of about 64 lists: neighbours are alike and padding
    stays below 5 %, yet every epoch's lists differ.
    """
    order = rng.permutation(len(lengths))
    pool = max(1, 64 * budget // max(1, int(np.mean(lengths))))
    found = []
    for start in range(0, len(order), pool):
        batch = []
        for i in sorted(order[start:start + pool], key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[i] > budget:
                found.append(batch)
                batch = []
            batch.append(i)
        found.append(batch)
    return [found[i] for i in rng.permutation(len(found))]


def forever(lengths, budget, seed):
    """Epoch after epoch of batches; a function of the seed alone, so that a resumed run agrees."""
    epoch = 0
    while True:
        yield from batches(lengths, budget, np.random.default_rng([seed, epoch]))
        epoch += 1


def pad(samples, device="cpu"):
    """Samples as tensors (B, T); padding, to the right of all else, is ignored by the loss."""
    T = max(len(inputs) for inputs, _ in samples)
    ids = torch.tensor([inputs + [0] * (T - len(inputs)) for inputs, _ in samples])
    targets = torch.tensor([targets + [IGNORE] * (T - len(targets)) for _, targets in samples])
    return ids.to(device), targets.to(device)


# ------------------------------------------------------------------------------------------------
# one update


def precise(device, precision):
    """The context in which matrices are multiplied: bf16 by autocast, or float32 as they are."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def update(model, optimizer, micro_batches, precision="float32", clip=1.0):
    """
    One update from one or several micro-batches of (ids, targets), equal to that of one big batch.

    Returns the mean loss per learnt token in nats, and the gradient's norm before clipping.
    """
    # divide by what is learnt in the whole update: micro-batches differ in how much that is
    learnt = sum((targets != IGNORE).sum().item() for _, targets in micro_batches)
    total = 0.0
    for ids, targets in micro_batches:
        with precise(ids.device.type, precision):
            loss = nll(model, ids, targets).sum() / learnt
        loss.backward()
        total += loss.item()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm.item()


@torch.no_grad()
def held_out_loss(model, samples, budget, precision="float32"):
    """Mean loss per learnt token over all samples, in nats."""
    device, total, learnt = model.embed_tokens.weight.device, 0.0, 0
    lengths = [len(inputs) for inputs, _ in samples]
    for batch in batches(lengths, budget, np.random.default_rng(0)):
        with precise(device.type, precision):
            losses = nll(model, *pad([samples[i] for i in batch], device))
        total, learnt = total + losses.double().sum().item(), learnt + len(losses)
    return total / learnt


def rate(step, steps, peak, warmup):
    """The learning rate of a step: `warmup` steps straight up to the peak, half a cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def adamw(model, lr, decay):
    """AdamW over what is trained; the matrices decay, the norms' vectors do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() >= 2], "weight_decay": decay},
              {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


# ------------------------------------------------------------------------------------------------
# the run


def train(model, samples, held_out, args):
    """
    Train for args.steps updates. What is needed to go on is saved into args.out on the way.

    Returns one row per update: loss per learnt token (nats), tokens computed, padded and learnt.
    """
    device = model.embed_tokens.weight.device
    optimizer = adamw(model, args.lr, args.weight_decay)
    first, log = restore(model, optimizer, args)
    lengths = [len(inputs) for inputs, _ in samples]
    # a run that goes on skips the batches it has used
    stream = islice(forever(lengths, args.tokens, args.seed), first * args.accumulate, None)
    seconds, every = 0.0, max(1, args.steps // 10)

    for step in range(first, args.steps):
        began = time.time()
        picked = list(islice(stream, args.accumulate))
        micro_batches = [pad([samples[i] for i in batch], device) for batch in picked]
        lr = rate(step, args.steps, args.lr, args.warmup * args.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, norm = update(model, optimizer, micro_batches, args.precision, args.clip)

        tokens = sum(ids.numel() for ids, _ in micro_batches)
        log.append({"step": step + 1, "loss": loss, "norm": norm, "lr": lr, "tokens": tokens,
                    "padding": tokens - sum(lengths[i] for batch in picked for i in batch),
                    "learnt": sum((t != IGNORE).sum().item() for _, t in micro_batches)})
        seconds += time.time() - began
        if (step + 1) % every == 0 or step + 1 == args.steps:
            report(log, first, args.steps, seconds)
        if held_out and ((step + 1) % (2 * every) == 0 or step + 1 == args.steps):
            log[-1]["held_out"] = held_out_loss(model, held_out, args.tokens, args.precision)
            print(f"  held-out loss {log[-1]['held_out']:.4f}", flush=True)
        if (step + 1) % every == 0 and step + 1 < args.steps:
            keep(model, optimizer, log, args)
    return log


def report(log, first, steps, seconds):
    """Print a line: step   120/1000   loss 2.314   lr 3.0e-04    14,201 tok/s   1m20s left"""
    done = len(log) - first
    speed = sum(row["tokens"] for row in log[first:]) / seconds
    left = clock((steps - len(log)) * seconds / done)
    recent = log[-max(1, steps // 10):]
    loss = sum(row["loss"] for row in recent) / len(recent)
    print(f"step {len(log):>6}/{steps}   loss {loss:.3f}   lr {log[-1]['lr']:.1e}   "
          f"{speed:>9,.0f} tok/s   {left:>6} left", flush=True)


def identity(args):
    """What a run may not change between its parts."""
    same = {name: value for name, value in vars(args).items() if name not in ("out", "resume")}
    return same | {"data": [stamp(path) for path in args.data]}


def keep(model, optimizer, log, args):
    """Save what is needed to go on, in one move: a kill at any moment leaves a whole file."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": log,
             "run": identity(args)}
    part = Path(args.out) / "train_state.pt.tmp"
    torch.save(state, part)
    part.replace(Path(args.out) / "train_state.pt")


def restore(model, optimizer, args):
    """Load what `keep` saved, if --resume asks for it. Returns the first step, and the log."""
    path = Path(args.out) / "train_state.pt"
    if not args.resume or not path.exists():
        return 0, []
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise Problem(f"{path} cannot be read ({error}); delete it to start again") from None
    same_run(path, state["run"], identity(args))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on after step {len(state['log'])}", flush=True)
    return len(state["log"]), state["log"]


def begin(args, attention):
    """The model and tokenizer to start from: a checkpoint, or random weights for args' shape."""
    if args.base:
        # half-precision weights are too coarse to take small steps in
        return Llama.load(args.base, attention).float(), Tokenizer.load(args.base)
    shape = {name: getattr(args, name) for name in ("dim", "layers", "heads", "hidden", "context")}
    said = [text for path in args.data for record in read(path) for text in texts(record)]
    tokenizer = Tokenizer.learn(said, args.vocab)
    return Llama(Config(vocab=tokenizer.vocab, kv_heads=args.heads, **shape), attention), tokenizer


def texts(record):
    """Every text in a record."""
    said = record.get("conversations")
    return [turn["value"] for turn in said] if said else [record["text"]]


def finished(out, args):
    """Whether the model is there, and younger than what it was made from."""
    model, inputs = out / "model.safetensors", [Path(path) for path in args.data]
    if args.base:
        inputs.append(Path(args.base) / "model.safetensors")
    return model.exists() and all(not path.exists() or path.stat().st_mtime <= model.stat().st_mtime
                                  for path in inputs)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--learn", required=True, choices=("all", "human", "gpt"), help="whose words are learnt: "
        "human gives Socratic, gpt an assistant, all a base model")
    add("--data", required=True, nargs="+", help="JSONL files of dialogues (or texts)")
    add("--out", required=True, help="checkpoint directory to write")
    add("--base", help="checkpoint directory to start from; without it, from random weights")
    add("--held-out", help="dialogues to measure the loss on, never to learn from")
    add("--resume", action="store_true", help="go on with a killed run, if there is one "
        "(a tenth of the steps is lost at most)")
    # how much and how fast
    add("--steps", type=positive, default=500, help="updates (default: 500)")
    add("--tokens", type=positive, default=2048, help="tokens of a micro-batch, padding included")
    add("--accumulate", type=positive, default=1, help="micro-batches in an update")
    add("--lr", type=float, default=1e-3, help="peak of the learning rate (default: 1e-3)")
    add("--warmup", type=float, default=0.03, help="share of the steps that climb to the peak")
    add("--weight-decay", type=float, default=0.05)
    add("--clip", type=float, default=1.0, help="largest norm of the gradient")
    add("--seed", type=int, default=0)
    # LoRA instead of all weights
    add("--lora", type=positive, metavar="RANK", help="train low-rank changes only")
    add("--lora-alpha", type=float, default=16, help="their weight is alpha / rank")
    add("--lora-names", nargs="+", default=["q_proj", "k_proj", "v_proj", "o_proj"])
    # a new model's shape
    add("--vocab", type=int, default=Config.vocab)
    add("--dim", type=int, default=Config.dim)
    add("--layers", type=int, default=Config.layers)
    add("--heads", type=int, default=Config.heads)
    add("--hidden", type=int, default=Config.hidden)
    add("--context", type=int, default=Config.context)
    # the machine
    add("--precision", choices=("float32", "bf16"), help="default: the faster one, measured once")
    add("--attention", choices=tuple(ATTENTION), help="default: the faster one, measured once")
    return parser.parse_args()


def main():
    args = arguments()
    out = Path(args.out)
    if args.resume and finished(out, args):
        return print(f"{out} is finished; nothing to do")
    fast = machine(args.precision, args.attention)
    args.precision, args.attention = fast["precision"], fast["attention"]
    torch.manual_seed(args.seed)
    model, tokenizer = begin(args, args.attention)
    model.to(fast["device"])
    if args.lora:
        n = add_lora(model, args.lora_names, args.lora, args.lora_alpha)
        print(f"LoRA of rank {args.lora} on {n} matrices")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{out}: {trained:,} weights to train (--learn {args.learn}), "
          f"{args.precision}, {args.attention} attention", flush=True)
    context = model.config.context
    samples = load_samples(args.data, tokenizer, args.learn, context)
    held_out = args.held_out and load_samples([args.held_out], tokenizer, args.learn, context)

    out.mkdir(parents=True, exist_ok=True)
    # from here on, what may lie there is no longer the model of this run
    (out / "model.safetensors").unlink(missing_ok=True)
    log = train(model, samples, held_out, args)
    total = sum(row["tokens"] for row in log)
    print(f"{total:,} tokens computed, {sum(row['padding'] for row in log) / total:.1%} of them "
          f"padding, {sum(row['learnt'] for row in log):,} learnt")
    (out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    tokenizer.save(out)
    merge_lora(model).save(out)
    (out / "train_state.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
