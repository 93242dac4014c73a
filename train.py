"""
One training loop for every model of the project; only the data and the mask differ.

    python train.py --learn all   --data corpus.jsonl  --out base                   a base model
    python train.py --learn human --data human.jsonl   --out socratic  --base base  who asks
    python train.py --learn gpt   --data chat.jsonl    --out assistant --base base  who answers

With --resume a killed run continues where it was. `ranks` is for several processes under torchrun
(data/distributed.py); a single process has nothing to share or to sum.
Read before: platolm.py, model.py. Read next: simulate.py.
"""

import argparse
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn

from data.checkpoint import (load_model, read_config, require_fit, require_weights, validate_config,
                             weight_file)
from data.distributed import SingleProcess, start_ranks
from data.machine import machine_settings
from data.muon import Muon
from data.program import (UserError, format_seconds, fraction, natural_int, nonnegative, positive,
                          positive_int, read_text, require_apart, run)
from data.training_run import (is_finished, load_state, require_finite, run_settings, save_result,
                               save_state)
from model import ATTENTION, Config, Llama, add_lora, nll
from platolm import (IGNORE, LABEL, Tokenizer, blanked, encode, is_target, read_records, shift,
                     turns)

ALONE = SingleProcess()
DTYPE = {"float32": torch.float32, "bf16": torch.bfloat16}
# flags for the shape of a new model, and what they mean
SHAPE = {"vocab": "most pieces of the tokenizer", "dim": "width of a token's vector",
         "layers": "layers", "heads": "attention heads", "hidden": "width inside the feed-forward",
         "context": "longest text, in tokens"}


@dataclass(frozen=True)
class Hyperparameters:
    """What decides the updates of a run, apart from model and data."""
    steps: int = 500             # updates
    tokens: int = 2048           # size of a micro-batch, padding included
    accumulate: int = 1          # micro-batches in an update
    samples: int | None = None   # samples in an update, instead of accumulate (the paper's way)
    optimizer: str = "adamw"     # or "muon"
    lr: float = 1e-3             # peak of the learning rate
    warmup: float = 0.03         # share of the steps that climb to the peak
    weight_decay: float = 0.05
    clip: float = 1.0            # largest norm of the gradient
    seed: int = 0


class LoRASettings(NamedTuple):
    """Which matrices get low-rank changes, and of what size."""
    rank: int
    alpha: float
    names: list


# ------------------------------------------------------------------------------------------------
# from records to batches


def to_sample(record, tokenizer, learn, context, compat=False):
    """
    Encode a record as (inputs, targets, shortened), at most `context` tokens long.

    A dialogue that is too long loses whole rounds from its end; never the system line, never part
    of a turn. A plain text is cut. Nothing after the last target is kept: in a causal model it
    cannot matter.
    """
    if "conversations" not in record:
        ids = [tokenizer.bos] + tokenizer.encode(record["text"]) + [tokenizer.eos]
        inputs, targets = shift(ids, [False] + [True] * (len(ids) - 1))
        return inputs[:context], targets[:context], len(inputs) > context
    ids, mask = encode(turns(record), tokenizer, learn, record.get("intent", ""), compat)
    inputs, targets = shift(ids, mask)
    # so many targets come up to the </s> of each turn
    ends = [index for index, token in enumerate(ids) if token == tokenizer.eos]
    # two turns fewer each time, so that it still ends with the same speaker
    for dropped, end in enumerate(ends[::-2]):
        while end and targets[end - 1] == IGNORE:
            end -= 1
        if end <= context:
            return inputs[:end], targets[:end], dropped > 0
    return [], [], True


def count_unused(record, unused):
    """Count, in a Counter, what a record holds that is not learnt."""
    marked = sum(not is_target(turn) for turn in turns(record)) if "conversations" in record else 0
    unused["turns are read but not learnt, as their file marks them"] += marked
    unused["dialogues have a system line of their own, which is not read"] += bool(
        record.get("system"))


def load_samples(paths, tokenizer, learn, context, blind=False, compat=False):
    """
    Read files of records as a list of (inputs, targets); print what was cut and left out.

    blind: empty the answers first, for a user who cannot see them.
    """
    samples, cut, without_target = [], 0, 0
    unused = Counter()
    for path in paths:
        for record in read_records(path):
            is_dialogue = "conversations" in record
            if not is_dialogue and learn != "all":
                raise UserError(f"{path} holds plain text; that is for --learn all")
            if blind and is_dialogue:
                record["conversations"] = blanked(record["conversations"])
            count_unused(record, unused)
            inputs, targets, shortened = to_sample(record, tokenizer, learn, context, compat)
            cut += shortened
            if any(target != IGNORE for target in targets):
                samples.append((inputs, targets))
            else:
                without_target += 1
    names = ", ".join(map(str, paths))
    if not samples:
        raise UserError(f"nothing to learn for {learn!r} in {names} within {context} tokens")
    print(f"{len(samples):,} samples from {names}; {cut:,} cut to {context} tokens, "
          f"{without_target:,} left out with nothing to learn", flush=True)
    for part, number in unused.items():
        if number:
            print(f"{number:,} {part}", flush=True)
    return samples


def batches(lengths, budget, rng):
    """
    Divide one epoch into micro-batches, lists of sample numbers: each, padded to its longest, has
    `budget` tokens on average. What a batch leaves unused, less than a sample, is added to the next
    one's budget. (A sample above the budget is a batch by itself.)

    Sorted by length inside a shuffled pool of about 64 batches: neighbours have similar lengths, so
    that there is little padding where samples are many, yet every epoch's batches differ.
    """
    order = rng.permutation(len(lengths))
    pool = max(1, 64 * budget // max(1, int(np.mean(lengths))))
    epoch = []
    for start in range(0, len(order), pool):
        batch, carried = [], 0
        for i in sorted(order[start:start + pool], key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[i] > budget + carried:
                carried = max(0, budget + carried - len(batch) * lengths[batch[-1]])
                epoch.append(batch)
                batch = []
            batch.append(i)
        epoch.append(batch)
    return [epoch[i] for i in rng.permutation(len(epoch))]


def endless_batches(lengths, budget, seed):
    """Yield epoch after epoch of micro-batches; only the seed decides, so a resumed run agrees."""
    for epoch in count():
        yield from batches(lengths, budget, np.random.default_rng([seed, epoch]))


def update_batches(lengths, hp):
    """
    Yield update after update, each a list of micro-batches: hp.accumulate of them or, with
    hp.samples, as many as it takes to hold that many samples (the paper's way).
    """
    if not hp.samples:
        stream = endless_batches(lengths, hp.tokens, hp.seed)
        while True:
            yield list(islice(stream, hp.accumulate))
    for epoch in count():
        rng = np.random.default_rng([hp.seed, epoch])
        order = rng.permutation(len(lengths)).tolist()
        # the rest of an epoch that is too small for an update is skipped
        for start in range(0, len(order) - hp.samples + 1, hp.samples):
            chosen = order[start:start + hp.samples]
            micro_batches = batches([lengths[i] for i in chosen], hp.tokens, rng)
            yield [[chosen[i] for i in batch] for batch in micro_batches]


def count_steps(epochs, lengths, hp):
    """Return how many updates `epochs` come to; without hp.samples, about as many."""
    if hp.samples:
        return epochs * (len(lengths) // hp.samples)
    epoch = batches(lengths, hp.tokens, np.random.default_rng([hp.seed, 0]))
    return epochs * len(epoch) // hp.accumulate


def pad(samples, device="cpu"):
    """Pad samples on the right to tensors ids and targets (B, T); padding has target IGNORE."""
    # no samples become one token of padding
    samples = samples or [([0], [IGNORE])]
    T = max(len(inputs) for inputs, _ in samples)
    ids = [inputs + [0] * (T - len(inputs)) for inputs, _ in samples]
    targets = [targets + [IGNORE] * (T - len(targets)) for _, targets in samples]
    return torch.tensor(ids).to(device), torch.tensor(targets).to(device)


# ------------------------------------------------------------------------------------------------
# one update


def autocast(device, precision):
    """Return the context in which matrices are multiplied in bf16, or in their own dtype."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


# exercise 7: one update from micro-batches
def update(model, optimizers, micro_batches, precision="float32", clip=1.0, ranks=ALONE):
    """
    Make one update from micro-batches of (ids, targets), equal to that of one big batch.

    nll(model, ids, targets) gives the nats of each target that is not IGNORE, and is to be called
    within autocast(device type, precision). The loss is their mean over the whole update, however
    many each micro-batch has. The norm of its gradient is clipped to `clip`; then every optimizer
    takes a step, and the gradients are cleared (None), as they were before.

    Other processes may have micro-batches of the same update: ranks.sum_over(number) sums a number
    over all of them, ranks.sum_gradients(model) the gradients. If ranks.sharded, the norm that
    torch computes is spread over them as well: norm.full_tensor() is all of it.

    Returns the loss, and the gradient's norm before clipping, as floats.
    """
    # divide by the targets of the whole update: micro-batches differ in how many they have
    own_targets = sum((targets != IGNORE).sum().item() for _, targets in micro_batches)
    target_count = ranks.sum_over(own_targets)
    total = 0.0
    for ids, targets in micro_batches:
        with autocast(ids.device.type, precision):
            loss = nll(model, ids, targets).sum() / target_count
        loss.backward()
        total += loss.item()
    ranks.sum_gradients(model)
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    if ranks.sharded:
        norm = norm.full_tensor()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return ranks.sum_over(total), norm.item()


@torch.no_grad()
def held_out_loss(model, samples, budget, precision="float32", ranks=ALONE):
    """Return the mean loss per target token over all samples, in nats."""
    device = model.embed_tokens.weight.device
    total, target_count = 0.0, 0
    lengths = [len(inputs) for inputs, _ in samples]
    for batch in ranks.my_share(batches(lengths, budget, np.random.default_rng(0))):
        with autocast(device.type, precision):
            losses = nll(model, *pad([samples[i] for i in batch], device))
        total += losses.double().sum().item()
        target_count += len(losses)
    return ranks.sum_over(total) / ranks.sum_over(target_count)


# exercise 32: warm-up, then half a cosine
def learning_rate(step, steps, peak, warmup_steps):
    """
    Return the learning rate of a step, 0 to steps - 1: straight up to `peak`, half a cosine to 0.

    Steps 0, 1, 2, ... below warmup_steps have 1, 2, 3, ... times peak / warmup_steps, and never
    more than `peak`. The others lie on half a cosine that is `peak` at warmup_steps and 0 at
    `steps`, one after the last. warmup_steps may be 0, or a fraction.
    """
    if step < warmup_steps:
        # min: if warmup_steps is not a whole number, its last step would pass the peak
        return peak * min(1, (step + 1) / warmup_steps)
    angle = math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (1 + math.cos(angle)) / 2


def make_optimizers(model, name, lr, decay):
    """List AdamW for all trained weights; or Muon for the layers' matrices, AdamW for the rest."""
    layer_matrices, other_matrices, vectors = [], [], []
    for parameter_name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if p.dim() < 2:
            vectors.append(p)
        elif parameter_name.startswith("layers."):
            layer_matrices.append(p)
        else:
            other_matrices.append(p)
    matrices = other_matrices if name == "muon" else layer_matrices + other_matrices
    # the norms' vectors do not decay
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    optimizers = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True))
    if name == "muon":
        optimizers.append(Muon(layer_matrices, lr, decay))
    return optimizers


# ------------------------------------------------------------------------------------------------
# the loop


def train(model, samples, held_out, hp, out, settings, resume=False, precision="float32",
          ranks=ALONE):
    """
    Train for hp.steps updates; on the way save into the directory `out` what is needed to resume.

    held_out: samples to measure the loss on, or None. settings: what a run and its continuation
    must agree on. Returns a row per update: loss per target token in nats, tokens computed, ...
    """
    device = model.embed_tokens.weight.device
    optimizers = make_optimizers(model, hp.optimizer, hp.lr, hp.weight_decay)
    state_path = out / "train_state.pt"
    log = []
    if resume and state_path.exists():
        log = load_state(state_path, settings, model, optimizers, ranks)
    first = len(log)
    lengths = [len(inputs) for inputs, _ in samples]
    target_counts = [sum(target != IGNORE for target in targets) for _, targets in samples]
    seconds = 0.0
    every = max(1, hp.steps // 10)

    # a resumed run skips the batches it has used
    remaining = islice(update_batches(lengths, hp), first, hp.steps)
    for step, chosen in enumerate(remaining, first + 1):
        started = time.time()
        lr = learning_rate(step - 1, hp.steps, hp.lr, hp.warmup * hp.steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        micro_batches = []
        for batch in ranks.my_share(chosen):
            micro_batches.append(pad([samples[i] for i in batch], device))
        loss, norm = update(model, optimizers, micro_batches, precision, hp.clip, ranks)
        seconds += time.time() - started
        require_finite(step, loss, norm)

        used = [i for batch in chosen for i in batch]
        tokens = sum(len(batch) * max(lengths[i] for i in batch) for batch in chosen)
        log.append({"step": step, "loss": loss, "norm": norm, "lr": lr, "tokens": tokens,
                    "padding": tokens - sum(lengths[i] for i in used),
                    "learnt": sum(target_counts[i] for i in used), "samples": len(used)})
        last = step == hp.steps
        if step % every == 0 or last:
            print_progress(out.name, log, first, hp.steps, seconds)
        if held_out and (step % (2 * every) == 0 or last):
            log[-1]["held_out"] = held_out_loss(model, held_out, hp.tokens, precision, ranks)
            print(f"{out.name:<10} held-out loss {log[-1]['held_out']:.4f}", flush=True)
        if step % every == 0 and not last:
            save_state(state_path, settings, model, optimizers, log, ranks)
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


# ------------------------------------------------------------------------------------------------
# before and after the loop


def initial_model(base, shape, data, attention):
    """
    Return the model and tokenizer to start from: those of the checkpoint directory `base` or, for
    None, random weights of `shape` {"vocab", "dim", ...} and a tokenizer learnt from the files.
    """
    if base:
        model, tokenizer = load_model(base, attention), Tokenizer.load(base)
        require_fit(tokenizer, model.config, base)
        return model, tokenizer
    shape = shape | {"kv_heads": shape["heads"]}
    validate_config(Config(**shape), "a new model")
    texts = []
    for path in data:
        for record in read_records(path):
            if "conversations" in record:
                texts += [turn["value"] for turn in record["conversations"]]
            else:
                texts.append(record["text"])
    tokenizer = Tokenizer.learn(texts, shape["vocab"])
    return Llama(Config(**shape | {"vocab": tokenizer.vocab}), attention), tokenizer


def system_line(path, template):
    """Return a file's text with the template's whitespace; None: keep the tokenizer's line."""
    if not path:
        if template == "phoenix":
            raise UserError("--template phoenix needs --system FILE, its authors' system line")
        return None
    line = read_text(path).strip() + "\n\n"
    # ours ends in a space, for the sake of the first label (see platolm.SYSTEM)
    return line if template == "phoenix" else line + " "


def prepare_model(model, dtype, device, lora, recompute, compile_layers):
    """Move the model to its device in the dtype of its weights, unless device is None; add LoRA."""
    if device:
        model.to(dtype).to(device)
    if lora:
        wrapped = add_lora(model, lora.names, lora.rank, lora.alpha)
        print(f"LoRA of rank {lora.rank} on {wrapped} matrices")
    model.recompute = recompute
    if compile_layers:
        for layer in model.layers:
            layer.compile(dynamic=True)


# ------------------------------------------------------------------------------------------------
# the command


def arguments(argv=None):
    """Parse the command line, or a list of its words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("--learn", required=True, choices=("all", "human", "gpt"), help="whose turns are learnt: "
        "human gives Socratic, gpt an assistant, all a base model")
    add("--data", required=True, nargs="+", help="JSONL files of dialogues (or texts)")
    add("--out", required=True, help="checkpoint directory to write")
    add("--base", help="checkpoint directory to start from; without it, from random weights")
    add("--held-out", help="dialogues to measure the loss on, never to learn from")
    add("--blind", action="store_true", help="empty the answers: a user who cannot see them")
    add("--resume", action="store_true", help="continue a killed run, if there is one "
        "(a tenth of the steps is lost at most)")
    # how much and how fast
    default = Hyperparameters()
    either = parser.add_mutually_exclusive_group().add_argument
    either("--steps", type=positive_int, default=default.steps, help="updates (default: 500)")
    either("--epochs", type=positive_int, help="passes over all samples (replaces --steps)")
    add("--tokens", type=positive_int, default=default.tokens,
        help="tokens of a micro-batch, padding included (%(default)s)")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--accumulate", type=positive_int, default=1, help="micro-batches in an update")
    either("--samples", type=positive_int, help="samples in an update (replaces --accumulate)")
    add("--optimizer", choices=("adamw", "muon"), default=default.optimizer,
        help="adamw as in the paper; muon learns from less text")
    add("--lr", type=positive, default=default.lr, help="peak of the learning rate (default: 1e-3)")
    add("--warmup", type=fraction, default=default.warmup,
        help="share of the steps that climb to the peak (%(default)s)")
    add("--weight-decay", type=nonnegative, default=default.weight_decay, help="(%(default)s)")
    add("--clip", type=positive, default=default.clip, help="largest norm of the gradient (1)")
    add("--seed", type=natural_int, default=0, help="of weights, batches and their order (0)")
    # LoRA instead of all weights
    add("--lora", type=positive_int, metavar="RANK", help="train adapters of this rank; "
        "OUT/adapter holds them in PEFT's format")
    add("--lora-alpha", type=positive, default=16, help="scales them by alpha / rank (16)")
    add("--lora-names", nargs="+", default=["q_proj", "k_proj", "v_proj", "o_proj"],
        help="matrices that get adapters (those of attention)")
    shape = parser.add_argument_group("shape of a new model (without --base)").add_argument
    for name, meaning in SHAPE.items():
        shape(f"--{name}", type=positive_int, default=getattr(Config, name),
              help=f"{meaning} (%(default)s)")
    add_authors_arguments(parser.add_argument_group("as the paper's authors").add_argument)
    add_machine_arguments(parser.add_argument_group("the machine").add_argument)
    return parser.parse_args(argv)


def add_authors_arguments(add):
    """Add the flags for what the paper's authors do differently from `make all`."""
    add("--mask", choices=("platolm", "compat"), default="platolm",
        help="compat: the <s> of a learnt turn is learnt, too, as in the authors' LLaMA-2 "
        "environment (the tokenizer of their LLaMA-1 one strips the spaces around <s> and </s>)")
    add("--template", choices=("platolm", "phoenix"), default="platolm",
        help="phoenix: the authors' template, without our space before the first label")
    add("--system", metavar="FILE", help="the words of the system line")


def add_machine_arguments(add):
    """Add the flags for where and in what precision to compute."""
    add("--precision", choices=("float32", "bf16"), help="of matrix products; default: bf16 on a "
        "GPU and with --weights bf16; on a CPU float32, unless bf16 is 20 %% faster")
    add("--attention", choices=tuple(ATTENTION), help="default: fused on a GPU, on a CPU measured")
    add("--weights", choices=("float32", "bf16"), default="float32", help="bf16: half the memory "
        "for weights and AdamW's averages; at small rates some steps are lost to rounding")
    add("--activation-checkpointing", action="store_true",
        help="compute activations again in the backward pass: less memory, more time")
    add("--compile", action="store_true", help="compile each layer (torch.compile)")
    add("--shard", action="store_true", help="with torchrun: each process holds a "
        "part of the weights, gradients and optimizer state")


def validate_arguments(args):
    """Raise UserError for paths and flags that do not go together; nothing was touched yet."""
    require_apart([args.out], [args.data, args.base, args.held_out, args.system], directory=True)
    if args.shard and (args.lora or args.optimizer == "muon"):
        raise UserError("--shard is for AdamW on all weights: LoRA's are few, and Muon needs whole "
                        "matrices")
    if args.lora and not args.base:
        raise UserError("--lora changes a base: which? --base DIR")
    if args.weights == "bf16" and args.precision == "float32":
        raise UserError("--weights bf16 are multiplied in bf16: --precision float32 needs float32 "
                        "weights")
    if args.base:
        require_weights(args.base)
        read_config(Path(args.base))


def main():
    args = arguments()
    out = Path(args.out)
    validate_arguments(args)
    input_files = [Path(path) for path in args.data]
    if args.base:
        input_files.append(weight_file(args.base))
    if args.system:
        input_files.append(Path(args.system))
    settings = run_settings(args, input_files)
    if args.resume and is_finished(out, input_files, settings):
        return print(f"{out} is finished; nothing to do")
    ranks = start_ranks(args.shard)
    if ranks.size > args.accumulate and not args.samples:
        raise UserError(f"an update of {args.accumulate} micro-batches leaves some of {ranks.size} "
                        "processes without work: --accumulate more, or --samples")
    if args.weights == "bf16":
        args.precision = "bf16"
    machine = ranks.first_then_rest(lambda: machine_settings(args.precision, args.attention))
    args.precision, args.attention = machine["precision"], machine["attention"]
    torch.manual_seed(args.seed)

    shape = {name: getattr(args, name) for name in SHAPE}
    model, tokenizer = initial_model(args.base, shape, args.data, args.attention)
    tokenizer.system = system_line(args.system, args.template) or tokenizer.system
    tokenizer.speaker = args.learn if args.learn in LABEL else ""
    stored_dtype = model.embed_tokens.weight.dtype
    lora = LoRASettings(args.lora, args.lora_alpha, args.lora_names) if args.lora else None
    # sharded parts are moved one by one
    device = None if args.shard else machine["device"]
    prepare_model(model, DTYPE[args.weights], device, lora, args.activation_checkpointing,
                  args.compile)
    if args.shard:
        ranks.shard_model(model, DTYPE[args.weights], args.precision)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{out}: {trained:,} weights to train (--learn {args.learn}), kept in {args.weights}, "
          f"multiplied in {args.precision}, {args.attention} attention", flush=True)

    read_samples = partial(load_samples, tokenizer=tokenizer, learn=args.learn, blind=args.blind,
                           context=model.config.context, compat=args.mask == "compat")
    samples = read_samples(args.data)
    held_out = read_samples([args.held_out]) if args.held_out else None
    hp = Hyperparameters(**{name: getattr(args, name) for name in vars(Hyperparameters())})
    if args.epochs:
        args.steps = count_steps(args.epochs, [len(inputs) for inputs, _ in samples], hp)
        hp = replace(hp, steps=args.steps)
    if hp.steps < 1 or len(samples) < (hp.samples or 0):
        raise UserError(f"{len(samples)} samples are too few for an update")

    resolved = run_settings(args, input_files)
    log = train(model, samples, held_out, hp, out, resolved, args.resume, args.precision, ranks)
    save_result(model, tokenizer, log, stored_dtype, out, args.base, lora, settings, ranks)
    ranks.close()


if __name__ == "__main__":
    run(main)
