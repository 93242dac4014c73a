"""
One training loop for every model of the project; only the data and the mask differ.

    python train.py --learn all   --data corpus.jsonl  --out base                   a base model
    python train.py --learn human --data human.jsonl   --out socratic  --base base  who asks
    python train.py --learn gpt   --data chat.jsonl    --out assistant --base base  who answers

A killed run goes on where it was with --resume. Not here: the model (model.py), dialogues and
masks (platolm.py), several processes (data/distributed.py: where `ranks` is met below, think of one
process alone). Read next: simulate.py.
"""

import argparse
import math
import time
from itertools import chain, count, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

from data.checkpoint import build_model, weight_file, save_model, load_model
from data.distributed import SingleProcess, start_ranks as ranks_of
from data.formats.adapter import read_adapter, write_adapter
from data.machine import machine_settings
from data.muon import Muon
from data.program import (UserError, format_seconds, positive_int, read_text, run,
                          require_same_settings, file_stamp, write_jsonl)
from model import ATTENTION, Config, Llama, add_lora, merge_lora, nll
from platolm import IGNORE, LABEL, Tokenizer, blanked, encode, shift, turns, read_records

ALONE = SingleProcess()
DTYPE = {"float32": torch.float32, "bf16": torch.bfloat16}

# ------------------------------------------------------------------------------------------------
# from records to batches


def to_sample(record, tokenizer, learn, context, compat=False):
    """
    A record as (inputs, targets), cut to what is needed, and whether some of it did not fit.

    Of a dialogue whole rounds are cut, from the end; never the system line, never part of a turn.
    Nothing after the last learnt token is kept: in a causal model it cannot matter.
    """
    if "conversations" not in record:
        ids = [tokenizer.bos] + tokenizer.encode(record["text"]) + [tokenizer.eos]
        inputs, targets = shift(ids, [False] + [True] * (len(ids) - 1))
        return inputs[:context], targets[:context], len(inputs) > context
    conversation, intent = turns(record), record.get("intent", "")
    # two turns fewer each time, so that it still ends with the same speaker
    for kept in range(len(conversation), -1, -2):
        inputs, targets = shift(*encode(conversation[:kept], tokenizer, learn, intent, compat))
        end = max((i + 1 for i, target in enumerate(targets) if target != IGNORE), default=0)
        if end <= context:
            return inputs[:end], targets[:end], kept < len(conversation)
    return [], [], True


def load_samples(paths, tokenizer, learn, context, blind=False, compat=False):
    """All samples of some files; what was left out is counted and said."""
    samples, cut, nothing = [], 0, 0
    for path in paths:
        for record in read_records(path):
            if "conversations" not in record and learn != "all":
                raise UserError(f"{path} holds plain text; that is for --learn all")
            if blind and "conversations" in record:
                record["conversations"] = blanked(record["conversations"])
            inputs, targets, shortened = to_sample(record, tokenizer, learn, context, compat)
            cut += shortened
            if any(target != IGNORE for target in targets):
                samples.append((inputs, targets))
            else:
                nothing += 1
    names = ", ".join(map(str, paths))
    if not samples:
        raise UserError(f"nothing to learn for {learn!r} in {names} within {context} tokens")
    print(f"{len(samples):,} samples from {names}; {cut:,} cut to {context} tokens, "
          f"{nothing:,} left out with nothing to learn", flush=True)
    return samples


def batches(lengths, budget, rng):
    """
    One epoch as micro-batches, lists of sample numbers: each, padded to its longest, comes to
    `budget` tokens on average. Unused room, less than a sample, is carried over to the next: so
    updates cost the same whatever the data. (A sample longer than the budget is one by itself.)

    Sorted by length inside a shuffled pool of about 64 lists: neighbours are alike and padding
    stays below 5 %, yet every epoch's lists differ.
    """
    order = rng.permutation(len(lengths))
    pool = max(1, 64 * budget // max(1, int(np.mean(lengths))))
    found = []
    for start in range(0, len(order), pool):
        batch, over = [], 0
        for i in sorted(order[start:start + pool], key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[i] > budget + over:
                over = max(0, budget + over - len(batch) * lengths[batch[-1]])
                found.append(batch)
                batch = []
            batch.append(i)
        found.append(batch)
    return [found[i] for i in rng.permutation(len(found))]


def endless_batches(lengths, budget, seed):
    """Epoch after epoch of batches; nothing but the seed decides, so that a resumed run agrees."""
    epoch = 0
    while True:
        yield from batches(lengths, budget, np.random.default_rng([seed, epoch]))
        epoch += 1


def update_batches(lengths, args):
    """
    Update after update, each a list of micro-batches: `accumulate` of them or, with --samples, as
    many as it takes to hold that many samples (the paper's way).
    """
    if not args.samples:
        stream = endless_batches(lengths, args.tokens, args.seed)
        while True:
            yield list(islice(stream, args.accumulate))
    for epoch in count():
        rng = np.random.default_rng([args.seed, epoch])
        order = rng.permutation(len(lengths)).tolist()
        # what is left at the end of an epoch is too little for an update
        for start in range(0, len(order) - args.samples + 1, args.samples):
            some = order[start:start + args.samples]
            found = batches([lengths[i] for i in some], args.tokens, rng)
            yield [[some[i] for i in batch] for batch in found]


def count_steps(epochs, lengths, args):
    """How many updates an --epochs comes to; without --samples, about as many."""
    if args.samples:
        return epochs * (len(lengths) // args.samples)
    epoch = batches(lengths, args.tokens, np.random.default_rng([args.seed, 0]))
    return epochs * len(epoch) // args.accumulate


def pad(samples, device="cpu"):
    """Samples as tensors (B, T); padding, to the right of all else, is ignored by the loss."""
    # of no samples, one token of padding
    samples = samples or [([0], [IGNORE])]
    T = max(len(inputs) for inputs, _ in samples)
    ids = torch.tensor([inputs + [0] * (T - len(inputs)) for inputs, _ in samples])
    targets = torch.tensor([targets + [IGNORE] * (T - len(targets)) for _, targets in samples])
    return ids.to(device), targets.to(device)


# ------------------------------------------------------------------------------------------------
# one update


def autocast(device, precision):
    """The context in which matrices are multiplied: bf16 by autocast, or float32 as they are."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def update(model, optimizers, micro_batches, precision="float32", clip=1.0, ranks=ALONE):
    """
    One update from one or several micro-batches of (ids, targets), equal to that of one big batch.

    Returns the mean loss per learnt token in nats, and the gradient's norm before clipping.
    """
    # divide by what is learnt in the whole update: micro-batches differ in how much that is
    learnt = ranks.sum_over(sum((targets != IGNORE).sum().item() for _, targets in micro_batches))
    total = 0.0
    for ids, targets in micro_batches:
        with autocast(ids.device.type, precision):
            loss = nll(model, ids, targets).sum() / learnt
        loss.backward()
        total += loss.item()
    ranks.sum_gradients(model)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return ranks.sum_over(total), (norm.full_tensor() if ranks.sharded else norm).item()


@torch.no_grad()
def held_out_loss(model, samples, budget, precision="float32", ranks=ALONE):
    """Mean loss per learnt token over all samples, in nats."""
    device, total, learnt = model.embed_tokens.weight.device, 0.0, 0
    lengths = [len(inputs) for inputs, _ in samples]
    for batch in ranks.my_share(batches(lengths, budget, np.random.default_rng(0))):
        with autocast(device.type, precision):
            losses = nll(model, *pad([samples[i] for i in batch], device))
        total, learnt = total + losses.double().sum().item(), learnt + len(losses)
    return ranks.sum_over(total) / ranks.sum_over(learnt)


def learning_rate(step, steps, peak, warmup):
    """The learning rate of a step: `warmup` steps straight up to the peak, half a cosine to 0."""
    if step < warmup:
        # the last of them may go beyond, where warmup is no whole number
        return peak * min(1, (step + 1) / warmup)
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def make_optimizers(model, name, lr, decay):
    """AdamW for all that is trained; or Muon for the layers' matrices and AdamW for the rest."""
    trained = {where: p for where, p in model.named_parameters() if p.requires_grad}
    inner = [p for where, p in trained.items() if p.dim() == 2 and where.startswith("layers.")]
    outer = [p for where, p in trained.items() if p.dim() == 2 and not where.startswith("layers.")]
    matrices = outer if name == "muon" else inner + outer
    # the norms' vectors do not decay
    groups = [{"params": matrices, "weight_decay": decay},
              {"params": [p for p in trained.values() if p.dim() < 2], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    found = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)] if groups else []
    return found + [Muon(inner, lr, decay)] if name == "muon" else found


# ------------------------------------------------------------------------------------------------
# the run


def train(model, samples, held_out, args, ranks=ALONE):
    """
    Train for args.steps updates. What is needed to go on is saved into args.out on the way.

    Returns one row per update: loss per learnt token (nats), tokens computed, padded and learnt.
    """
    device = model.embed_tokens.weight.device
    both = make_optimizers(model, args.optimizer, args.lr, args.weight_decay)
    first, log = load_state(model, both, args, ranks)
    lengths = [len(inputs) for inputs, _ in samples]
    learnt = [sum(target != IGNORE for target in targets) for _, targets in samples]
    seconds, every, name = 0.0, max(1, args.steps // 10), Path(args.out).name

    # a run that goes on skips the batches it has used
    for step, picked in enumerate(islice(update_batches(lengths, args), first, args.steps), first):
        began = time.time()
        micro_batches = [pad([samples[i] for i in batch], device) for batch in ranks.my_share(picked)]
        lr = learning_rate(step, args.steps, args.lr, args.warmup * args.steps)
        for group in chain.from_iterable(optimizer.param_groups for optimizer in both):
            group["lr"] = lr
        loss, norm = update(model, both, micro_batches, args.precision, args.clip, ranks)

        tokens = sum(len(batch) * max(lengths[i] for i in batch) for batch in picked)
        used = [i for batch in picked for i in batch]
        log.append({"step": step + 1, "loss": loss, "norm": norm, "lr": lr, "tokens": tokens,
                    "padding": tokens - sum(lengths[i] for i in used),
                    "learnt": sum(learnt[i] for i in used), "samples": len(used)})
        seconds += time.time() - began
        if (step + 1) % every == 0 or step + 1 == args.steps:
            print_progress(name, log, first, args.steps, seconds)
        if held_out and ((step + 1) % (2 * every) == 0 or step + 1 == args.steps):
            log[-1]["held_out"] = held_out_loss(model, held_out, args.tokens, args.precision, ranks)
            print(f"{name:<10} held-out loss {log[-1]['held_out']:.4f}", flush=True)
        if (step + 1) % every == 0 and step + 1 < args.steps:
            save_state(model, both, log, args, ranks)
    return log


def print_progress(name, log, first, steps, seconds):
    """Print a line: socratic   step  120/1000   loss 2.314    14,201 tok/s   1m20s left"""
    done = len(log) - first
    speed = sum(row["tokens"] for row in log[first:]) / seconds
    left = format_seconds((steps - len(log)) * seconds / done)
    recent = log[-max(1, steps // 10):]
    loss = sum(row["loss"] for row in recent) / len(recent)
    print(f"{name:<10} step {len(log):>6}/{steps}   loss {loss:.3f}   "
          f"{speed:>9,.0f} tok/s   {left:>6} left", flush=True)


def run_settings(args):
    """What a run may not change between its parts."""
    same = {name: value for name, value in vars(args).items()
            if name not in ("out", "resume", "device")}
    return same | {"data": [file_stamp(path) for path in input_files(args)]}


def input_files(args):
    """The files that decide what a run comes to."""
    return [*args.data, *([weight_file(args.base)] if args.base else []),
            *([args.system] if args.system else [])]


def save_state(model, optimizers, log, args, ranks=ALONE):
    """Save what is needed to go on, in one move: a kill at any moment leaves a whole file."""
    state = ranks.state(model, optimizers)
    if ranks.rank == 0:
        part = Path(args.out) / "train_state.pt.tmp"
        torch.save({"state": state, "log": log, "run": run_settings(args)}, part)
        part.replace(Path(args.out) / "train_state.pt")


def load_state(model, optimizers, args, ranks=ALONE):
    """Load what `keep` saved, if --resume asks for it. Returns the first step, and the log."""
    path = Path(args.out) / "train_state.pt"
    if not args.resume or not path.exists():
        return 0, []
    try:
        # mapped: of a large model no second one in memory, and none on the card
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to start again") from None
    require_same_settings(path, found["run"], run_settings(args))
    ranks.load(model, optimizers, found["state"])
    print(f"going on after step {len(found['log'])}", flush=True)
    return len(found["log"]), found["log"]


def initial_model(args, attention):
    """The model and tokenizer to start from: a checkpoint, or random weights for args' shape."""
    if args.base:
        model, tokenizer = load_model(args.base, attention), Tokenizer.load(args.base)
    else:
        shape = {name: getattr(args, name) for name in ("dim", "layers", "heads", "hidden",
                                                         "context")}
        said = [text for path in args.data for record in read_records(path)
                for text in record_texts(record)]
        tokenizer = Tokenizer.learn(said, args.vocab)
        model = Llama(Config(vocab=tokenizer.vocab, kv_heads=args.heads, **shape), attention)
    tokenizer.system = system_line(args) or tokenizer.system
    tokenizer.speaker = args.learn if args.learn in LABEL else ""
    return model, tokenizer


def system_line(args):
    """What dialogues shall begin with: the file's words, with the template's whitespace."""
    if not args.system:
        if args.template == "phoenix":
            raise UserError("phoenix has a system line whose words are its authors': --system FILE")
        return ""
    # ours ends in a space, for the sake of the first label (see platolm.SYSTEM)
    return read_text(args.system).strip() + "\n\n" + " " * (args.template != "phoenix")


def record_texts(record):
    """Every text in a record."""
    said = record.get("conversations")
    return [turn["value"] for turn in said] if said else [record["text"]]


def is_finished(out, args):
    """Whether the model is there, and younger than what it was made from."""
    model, inputs = out / "model.safetensors", map(Path, input_files(args))
    return model.exists() and all(not path.exists() or path.stat().st_mtime <= model.stat().st_mtime
                                  for path in inputs)


def arguments(words=None):
    """What the command line says, or a list of words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--learn", required=True, choices=("all", "human", "gpt"), help="whose words are learnt: "
        "human gives Socratic, gpt an assistant, all a base model")
    add("--data", required=True, nargs="+", help="JSONL files of dialogues (or texts)")
    add("--out", required=True, help="checkpoint directory to write")
    add("--base", help="checkpoint directory to start from; without it, from random weights")
    add("--held-out", help="dialogues to measure the loss on, never to learn from")
    add("--blind", action="store_true", help="blank what gpt says: a user who does not listen")
    add("--resume", action="store_true", help="go on with a killed run, if there is one "
        "(a tenth of the steps is lost at most)")
    # how much and how fast
    either = parser.add_mutually_exclusive_group().add_argument
    either("--steps", type=positive_int, default=500, help="updates (default: 500)")
    either("--epochs", type=positive_int, help="how often all samples are seen, instead")
    add("--tokens", type=positive_int, default=2048, help="tokens of a micro-batch, padding included")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--accumulate", type=positive_int, default=1, help="micro-batches in an update")
    either("--samples", type=positive_int, help="samples in an update, instead")
    add("--optimizer", choices=("adamw", "muon"), default="adamw",
        help="adamw as in the paper; muon learns from less text")
    add("--lr", type=float, default=1e-3, help="peak of the learning rate (default: 1e-3)")
    add("--warmup", type=float, default=0.03, help="share of the steps that climb to the peak")
    add("--weight-decay", type=float, default=0.05)
    add("--clip", type=float, default=1.0, help="largest norm of the gradient")
    add("--seed", type=int, default=0)
    # LoRA instead of all weights
    add("--lora", type=positive_int, metavar="RANK", help="train low-rank changes only; they are "
        "written into OUT/adapter, too, as PEFT reads them")
    add("--lora-alpha", type=float, default=16, help="their weight is alpha / rank")
    add("--lora-names", nargs="+", default=["q_proj", "k_proj", "v_proj", "o_proj"])
    # a new model's shape
    for name in ("vocab", "dim", "layers", "heads", "hidden", "context"):
        add(f"--{name}", type=positive_int, default=getattr(Config, name), help="without --base")
    authors_arguments(parser.add_argument_group("as the paper's authors").add_argument)
    machine_arguments(parser.add_argument_group("the machine").add_argument)
    return parser.parse_args(words)


def authors_arguments(add):
    """What the authors do otherwise than `make all`."""
    add("--mask", choices=("platolm", "compat"), default="platolm",
        help="compat: the <s> of a learnt turn is learnt, too")
    add("--template", choices=("platolm", "phoenix"), default="platolm",
        help="phoenix: no space between the system line and the first label")
    add("--system", metavar="FILE", help="the words of the system line")


def machine_arguments(add):
    """Where and how it is computed."""
    add("--precision", choices=("float32", "bf16"), help="of products of matrices; default: on a "
        "GPU bf16, on a CPU the faster one, measured once")
    add("--attention", choices=tuple(ATTENTION), help="default: in the same way, fused on a GPU")
    add("--weights", choices=("float32", "bf16"), default="float32", help="bf16: half the memory "
        "for weights and AdamW's averages; at small rates some steps are lost to rounding")
    add("--activation-checkpointing", action="store_true",
        help="compute activations anew on the way back: less memory, more time")
    add("--compile", action="store_true", help="compile each layer (torch.compile)")
    add("--shard", action="store_true", help="with torchrun: each process holds a part of it all")


def prepare_model(model, args, ranks):
    """The model on its machine, as it is to be trained."""
    if not args.shard:
        model.to(DTYPE[args.weights]).to(args.device)
    if args.lora:
        n = add_lora(model, args.lora_names, args.lora, args.lora_alpha)
        print(f"LoRA of rank {args.lora} on {n} matrices")
    model.recompute = args.activation_checkpointing
    if args.compile:
        for layer in model.layers:
            layer.compile(dynamic=True)
    if args.shard:
        ranks.shard_model(model, DTYPE[args.weights], args.precision)
    return model


def save_result(model, tokenizer, log, stored, args, ranks):
    """Write the checkpoint, in the precision that the base was stored in."""
    out, total = Path(args.out), sum(row["tokens"] for row in log)
    print(f"{total:,} tokens computed, {sum(row['padding'] for row in log) / total:.1%} of them "
          f"padding, {sum(row['learnt'] for row in log):,} learnt")
    whole = ranks.state(model, [])[0] if ranks.sharded else None
    if ranks.rank:
        return
    write_jsonl(out / "log.jsonl", log)
    tokenizer.save(out)
    if args.lora:
        write_adapter(model, out / "adapter", args.base)
        tokenizer.save(out / "adapter")
        # into the base as it is on file: no rounding of ours comes between
        model = load_model(args.base)
        read_adapter(model, out / "adapter")
        merge_lora(model)
    if whole:
        model = build_model(model.config, {name: tensor.to(stored)
                                            for name, tensor in whole.items()}, out)
    save_model(model.to("cpu", stored), out)
    (out / "train_state.pt").unlink(missing_ok=True)


def remove_outputs(out):
    """From here on, what may lie in the directory is no longer the model of this run."""
    out.mkdir(parents=True, exist_ok=True)
    for old in ("model.safetensors", "adapter/adapter_model.safetensors",
                "adapter/adapter_config.json"):
        (out / old).unlink(missing_ok=True)


def main():
    args = arguments()
    out = Path(args.out)
    if args.resume and is_finished(out, args):
        return print(f"{out} is finished; nothing to do")
    if args.shard and (args.lora or args.optimizer == "muon"):
        raise UserError("--shard is for AdamW on all weights: LoRA's are few, and Muon needs whole "
                      "matrices")
    if args.lora and not args.base:
        raise UserError("--lora changes a base: which? --base DIR")
    ranks = ranks_of(args.shard)
    if ranks.size > args.accumulate and not args.samples:
        raise UserError(f"an update of {args.accumulate} micro-batches leaves some of {ranks.size} "
                      "processes without work: --accumulate more, or --samples")
    fast = ranks.first_then_rest(lambda: machine_settings(args.precision, args.attention))
    args.precision, args.attention, args.device = (fast[key] for key in
                                                   ("precision", "attention", "device"))
    torch.manual_seed(args.seed)
    model, tokenizer = initial_model(args, args.attention)
    stored = model.embed_tokens.weight.dtype
    model = prepare_model(model, args, ranks)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{out}: {trained:,} weights to train (--learn {args.learn}), kept in {args.weights}, "
          f"multiplied in {args.precision}, {args.attention} attention", flush=True)
    same = tokenizer, args.learn, model.config.context, args.blind, args.mask == "compat"
    samples = load_samples(args.data, *same)
    held_out = args.held_out and load_samples([args.held_out], *same)
    if args.epochs:
        args.steps = count_steps(args.epochs, [len(inputs) for inputs, _ in samples], args)
    if args.steps < 1 or len(samples) < (args.samples or 0):
        raise UserError(f"{len(samples)} samples are too few for an update")

    if ranks.rank == 0:
        remove_outputs(out)
    log = train(model, samples, held_out, args, ranks)
    save_result(model, tokenizer, log, stored, args, ranks)
    ranks.close()


if __name__ == "__main__":
    run(main)
