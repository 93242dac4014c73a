"""
What the commands of a run would take: memory, hours, requests, tokens and dollars; runs nothing.

    make -n all PRESET=7b | python -m data.experiment.cost_plan 7b --gpu a100

It reads the flags of the commands themselves; the sizes of the data are the authors'. Figures are
arithmetic on these, the shape of the model and the GPU's data sheet; what is assumed is printed
below them. Not here: the price table and the forecast of a simulation (budget.py), which
`simulate.py --dry-run` prints, too.
"""

import argparse
import re
import shlex
import sys
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import simulate
import train
from data.api.budget import PAPER_MEANS, teacher_tokens, cost_in_dollars, forecast, price_of
from data.checkpoint import read_config
from data.program import run
from model import Config

# TinyLlama-1.1B and LLaMA-7B, where no config.json is at hand
SHAPES = {"1b": Config(vocab=32000, dim=2048, layers=22, heads=32, kv_heads=4, hidden=5632,
                       context=2048, tied=False),
          "7b": Config(vocab=32000, dim=4096, layers=32, heads=32, kv_heads=32, hidden=11008,
                       context=2048, tied=False)}
# bf16 TFLOP/s, GB, GB/s: of the makers' data sheets, without sparsity
GPUS = {"4090": (165, 24, 1008), "a100": (312, 80, 2039), "h100": (989, 80, 3350),
        "h200": (989, 141, 4800)}
# what is reached of a GPU's products of matrices in training, of its memory's speed in generation
REACHED, STREAMED = 0.4, 0.5
# the authors' counts (PAPER.md, "Data"): segments of ShareGPT; mean tokens of one; mean tokens of
# a simulated dialogue
SEGMENTS, SEGMENT, SIMULATED = 34_435, 1137, 2184
# seconds that a teacher takes to answer; tokens of a judgment, read and written
PATIENCE, JUDGMENT = 5, (1500, 300)


def weights_of(c):
    """The number of weights in the layers' matrices, and in all."""
    E = c.dim // c.heads
    layer = 2 * c.dim * E * (c.heads + c.kv_heads) + 3 * c.dim * c.hidden
    return c.layers * layer, c.layers * layer + (1 if c.tied else 2) * c.vocab * c.dim


def lora_of(c, args):
    """The number of weights that LoRA adds to a model of this shape."""
    kv = c.kv_heads * c.dim // c.heads
    sides = {"q_proj": 2 * c.dim, "o_proj": 2 * c.dim, "k_proj": c.dim + kv, "v_proj": c.dim + kv,
             "gate_proj": c.dim + c.hidden, "up_proj": c.dim + c.hidden,
             "down_proj": c.dim + c.hidden, "lm_head": (c.dim + c.vocab) / c.layers}
    return args.lora * c.layers * sum(sides[name] for name in args.lora_names)


def memory(c, args, processes):
    """Bytes on each GPU while training: of weights and their like, and of activations."""
    _, total = weights_of(c)
    held = 2 if args.weights == "bf16" else 4
    if args.lora:
        # the frozen weights, and each added one with its gradient and two averages
        state = held * total + 16 * lora_of(c, args)
    else:
        # weight, gradient, AdamW's two averages
        state = 4 * held * total / (processes if args.shard else 1)
    # float32 weights are rounded anew for each forward pass; where sharded, a layer at a time
    if args.precision == "bf16" and held == 4:
        state += 2 * total / (c.layers if args.shard else 1)
    # about 17 vectors as wide as the stream, in bf16, for each layer that is remembered in full
    full, kept = (1, c.layers) if args.activation_checkpointing else (c.layers, 0)
    tokens = max(args.tokens, c.context)
    activations = 2 * tokens * c.dim * (17 * full + kept)
    # scores of every token, if all are learnt: in bf16, in float32, and their gradients
    return state, activations + tokens * c.vocab * 12


def seconds(c, args, tokens, flops):
    """Seconds to train on so many tokens with so many FLOP a second."""
    body, total = weights_of(c)
    # forward 2 per weight and token, backward to the stream 2, to the weights 2
    again = 2 if args.activation_checkpointing else 0
    each = (4 if args.lora else 6) + again
    # attention scores involve no weights, so that LoRA saves nothing there
    attention = (6 + again) * c.layers * c.dim * min(c.context, SEGMENT)
    return tokens * (each * (body + c.vocab * c.dim) + attention) / flops


def fits(need, plan):
    """Whether so many bytes fit on a GPU, with a little to spare."""
    room = GPUS[plan.gpu][1]
    if need / 1e9 < 0.95 * room:
        return f"fits in {room} GB"
    plan.large += 1
    return f"DOES NOT FIT in {room} GB"


def simulated(paths):
    """Whether dialogues are simulated ones, by the name of their file."""
    return any("socratic" in Path(path).name for path in paths)


def training(words, plan):
    """Lines about a command of train.py."""
    args = train.arguments(words)
    gpus = plan.processes
    config = Path(args.base or "", "config.json")
    c = read_config(config.parent) if args.base and config.exists() else plan.shape
    n = plan.dialogues if args.learn == "gpt" else SEGMENTS
    tokens = n * min(c.context, SIMULATED if simulated(args.data) else SEGMENT)
    if args.epochs:
        steps, tokens = args.epochs * (n // (args.samples or n)), tokens * args.epochs
    else:
        steps, tokens = args.steps, args.steps * args.tokens * args.accumulate
    state, rest = memory(c, args, gpus)
    hours = seconds(c, args, tokens, gpus * GPUS[plan.gpu][0] * 1e12 * REACHED) / 3600
    who = {"human": "Socratic", "gpt": "an assistant", "all": "a base"}[args.learn]
    plan.hours += hours
    return [f"{who}: {weights_of(c)[1] / 1e9:.2f} billion weights"
            + (f", {lora_of(c, args) / 1e6:.0f} million of LoRA's" if args.lora else "")
            + f"; {n:,} dialogues, {steps:,} updates, {tokens / 1e6:,.0f} million tokens",
            f"{state / 1e9:.1f} GB of weights and their like, {rest / 1e9:.1f} GB of activations "
            f"on each of {gpus} {plan.gpu}: {fits(state + rest, plan)}",
            f"{memory_beside(c, args, gpus)}; {hours:,.1f} hours"]


def memory_beside(c, args, processes):
    """What the machine around the GPUs needs, in words."""
    _, total = weights_of(c)
    trained = lora_of(c, args) if args.lora else total
    held = 4 if args.lora or args.weights == "float32" else 2
    return (f"{2 * total * processes / 1e9:,.0f} GB of RAM to begin with (each process reads the "
            f"base), {3 * held * trained / 1e9:,.1f} GB on disk to go on after a kill, "
            f"{2 * total / 1e9:,.1f} GB for the model")


def simulating(words, plan):
    """Lines about a command of simulate.py."""
    args = simulate.arguments(unpriced(words))
    price = price_of(args.teacher, args.model, args.price)
    plan.dialogues, c = args.dialogues, plan.shape
    _, total = weights_of(c)
    rounds, question, _ = like = simulate_like(args)
    # there is room for every dialogue at its longest
    cache = args.in_flight * c.context * 4 * c.layers * c.kv_heads * c.dim // c.heads
    # each step reads all weights, and what was read before: of a dialogue half, on average
    step = (2 * total + cache / 2) / (GPUS[plan.gpu][2] * 1e9 * STREAMED)
    turns = args.dialogues * rounds
    writing = turns * question * step / args.in_flight / 3600
    waiting = turns * PATIENCE / args.in_flight / 3600
    plan.hours += max(writing, waiting)
    plan.dollars += cost_in_dollars(price, *(args.dialogues * n for n in teacher_tokens(*like, 0)[1:]))
    lines = forecast(args.dialogues, (args.rounds, args.max_question, args.max_tokens),
                     [(price, partial(teacher_tokens, system=0))])
    return [*lines, f"{2 * total / 1e9:.1f} GB of weights, {cache / 1e9:.1f} GB for "
            f"{args.in_flight} dialogues on one {plan.gpu}: {fits(2 * total + cache, plan)}",
            f"{max(writing, waiting):,.1f} hours (Socratic writes for {writing:,.1f}, the teacher "
            f"for {waiting:,.1f})"]


def simulate_like(args):
    """Rounds, tokens of a question and of an answer, as the authors counted them."""
    sizes = PAPER_MEANS["rounds"], PAPER_MEANS["tokens"], PAPER_MEANS["tokens"]
    return tuple(map(min, sizes, (args.rounds, args.max_question, args.max_tokens)))


def unpriced(words):
    """The words of a command without its cap, which in a plan may be a name and no number."""
    if "--max-dollars" not in words:
        return words
    place = words.index("--max-dollars")
    return words[:place] + words[place + 2:]


def judging(words, plan):
    """Lines about `evaluate.py judge`: MT-Bench's 80 questions of two turns."""
    names = list(takewhile(lambda word: not word.startswith("--"), words[1:]))
    pairs = "pairwise" in " ".join(words)
    calls = 160 * (len(names) * (len(names) - 1) if pairs else len(names))
    # a pair has two answers to read
    read, written = calls * JUDGMENT[0] * (1 + pairs), calls * JUDGMENT[1]
    judge = words[words.index("--judge-model") + 1]
    # at an address that is not this machine
    cost = cost_in_dollars(price_of("https://judge", judge), read, written)
    plan.dollars += cost
    return [f"{calls:,} requests, {read:,} tokens read, {written:,} written, {cost:,.2f} dollars"]


def explain(command, plan):
    """What there is to say about one command."""
    words = shlex.split(command)
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    if not scripts:
        return []
    script, rest = words[scripts[0]], words[scripts[0] + 1:]
    if "--nproc_per_node" in words:
        plan.processes = int(words[words.index("--nproc_per_node") + 1])
    if script == "train.py":
        return training(rest, plan)
    if script == "simulate.py":
        return simulating(rest, plan)
    return judging(rest, plan) if rest[:1] == ["judge"] else []


def main():
    """Read commands, and say what they would take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("shape", choices=SHAPES, help="of a base that is not at hand")
    parser.add_argument("--gpu", type=str.lower, choices=GPUS, help="its kind (1b: 4090, 7b: a100)")
    args = parser.parse_args()
    gpu = args.gpu or {"1b": "4090", "7b": "a100"}[args.shape]
    plan = SimpleNamespace(shape=SHAPES[args.shape], gpu=gpu, processes=1, dialogues=10_000,
                           hours=0, dollars=0, large=0)
    # a command may go on over several lines
    for command in re.sub(r"\s*\\\n\s*", " ", sys.stdin.read()).splitlines():
        # the shell's own lines are no stages
        if command.startswith(("for ", "echo", "test ", "case ")):
            continue
        print(f"$ {command}")
        for text in explain(command, plan):
            print(f"      {text}")
    large = f"; {plan.large} stages DO NOT FIT on this GPU" * (plan.large > 0)
    print(f"\nin all, as estimated: {plan.hours:,.1f} hours of computing, {plan.dollars:,.0f} "
          f"dollars{large}")
    tflops, room, speed = GPUS[gpu]
    print(f"""assumed, not measured: {gpu} with {tflops} TFLOP/s in bf16, {room} GB, {speed:,} GB/s;
{REACHED:.0%} of the first reached in training, {STREAMED:.0%} of the last in writing;
{SEGMENTS:,} segments of {SEGMENT:,} tokens from people, {SIMULATED:,} tokens in a simulated
dialogue, as the authors counted (DATA is not read); {PATIENCE} s for an answer; prices of
data/api/budget.py, unverified. Answering a bench and the card are not counted.""")


if __name__ == "__main__":
    run(main)
