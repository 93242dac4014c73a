"""
What the commands of a run would take: memory, hours, requests, tokens and dollars; runs nothing.

    make -n all PRESET=7b | python -m data.experiment.cost_plan 7b --gpu a100

The commands' own flags are read; the sizes of the data are the authors'. The figures follow from
these, from the model's shape and from the GPU's data sheet; the assumptions are printed below them.
"""

import argparse
import re
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import simulate
import train
from data.api.budget import PAPER_MEANS, cost_in_dollars, forecast, price_of, teacher_tokens
from data.checkpoint import read_config
from data.program import UserError, run
from model import Config


class GPU(NamedTuple):
    """A GPU by its maker's data sheet, without sparsity."""
    tflops: int         # 10^12 operations a second in bf16
    memory: int         # GB
    bandwidth: int      # GB a second


GPUS = {"4090": GPU(165, 24, 1008), "a100": GPU(312, 80, 2039), "h100": GPU(989, 80, 3350),
        "h200": GPU(989, 141, 4800)}
# TinyLlama-1.1B and LLaMA-7B, used where the base's config.json is not on this machine
SHAPES = {"1b": Config(vocab=32000, dim=2048, layers=22, heads=32, kv_heads=4, hidden=5632,
                       context=2048, tied=False),
          "7b": Config(vocab=32000, dim=4096, layers=32, heads=32, kv_heads=32, hidden=11008,
                       context=2048, tied=False)}
DEFAULT_GPU = {"1b": "4090", "7b": "a100"}

# the fraction of a GPU's operations that training reaches, and of its bandwidth in generation
TRAINING_UTILISATION = 0.4
BANDWIDTH_UTILISATION = 0.5
# the authors' counts (PAPER.md, "Data"): segments of ShareGPT, mean tokens of a segment, mean
# tokens of a simulated dialogue
SEGMENTS = 34_435
SEGMENT_TOKENS = 1137
SIMULATED_TOKENS = 2184
# bytes that a token of a sample takes in Python's lists of inputs and targets (measured)
SAMPLE_BYTES = 47
# seconds in which a teacher answers
ANSWER_SECONDS = 5
# MT-Bench has 80 questions of two turns
BENCH_TURNS = 160
# tokens of a judgment, read and written
JUDGMENT_READ = 1500
JUDGMENT_WRITTEN = 300


@dataclass(frozen=True)
class TrainingSetup:
    """How a model is trained, as far as memory and time depend on it."""
    tokens: int             # of a micro-batch
    weight_bytes: int       # 4 in float32, 2 in bf16
    mixed: bool             # float32 weights, matrix products in bf16
    added: float            # weights that LoRA adds; 0: all weights are trained
    processes: int          # one on each GPU
    sharded: bool           # each process holds a part of the weights
    checkpointing: bool     # activations are computed again in the backward pass


@dataclass
class Plan:
    """What the commands so far take in sum, and what later commands have to know of them."""
    shape: Config           # of a base that is not on this machine
    gpu: str                # a key of GPUS
    dialogues: int = 10_000     # of the last simulation: an assistant is trained on them
    hours: float = 0
    dollars: float = 0
    too_large: int = 0      # commands that do not fit on the GPU


# ------------------------------------------------------------------------------------------------
# arithmetic: c is a model's Config


def weights_of(c):
    """Count the weights of a model: (in the layers' matrices, in all of its matrices)."""
    head = c.dim // c.heads
    layer = 2 * c.dim * head * (c.heads + c.kv_heads) + 3 * c.dim * c.hidden
    embeddings = c.vocab * c.dim if c.tied else 2 * c.vocab * c.dim
    return c.layers * layer, c.layers * layer + embeddings


def lora_weights(c, rank, names):
    """Count the weights that LoRA of this rank adds to the named matrices."""
    kv = c.kv_heads * c.dim // c.heads
    # inputs + outputs of each matrix; there is one lm_head for all layers
    sides = {"q_proj": 2 * c.dim, "o_proj": 2 * c.dim, "k_proj": c.dim + kv, "v_proj": c.dim + kv,
             "gate_proj": c.dim + c.hidden, "up_proj": c.dim + c.hidden,
             "down_proj": c.dim + c.hidden, "lm_head": (c.dim + c.vocab) / c.layers}
    unknown = [name for name in names if name not in sides]
    if unknown:
        raise UserError(f"no matrix of the model is called {' or '.join(unknown)}")
    return rank * c.layers * sum(sides[name] for name in names)


def training_memory(c, setup):
    """Estimate the bytes on each GPU in training: (weights and optimizer state, activations)."""
    total = weights_of(c)[1]
    if setup.added:
        # frozen weights; each added weight, its gradient and AdamW's two averages in float32
        state = setup.weight_bytes * total + 16 * setup.added
    else:
        # weight, gradient, AdamW's two averages
        parts = setup.processes if setup.sharded else 1
        state = 4 * setup.weight_bytes * total / parts
    if setup.mixed:
        # a bf16 copy of the weights in each forward pass; of sharded ones a layer at a time
        state += 2 * total / (c.layers if setup.sharded else 1)
    # a layer keeps about 17 bf16 vectors of width dim for each token; with checkpointing one
    # layer does at a time, and each keeps its input
    vectors = 17 + c.layers if setup.checkpointing else 17 * c.layers
    tokens = max(setup.tokens, c.context)
    activations = 2 * tokens * c.dim * vectors
    # if every token is a target, its logits: in bf16 and float32, and their gradients in both
    logits = 12 * tokens * c.vocab
    return state, activations + logits


def training_seconds(c, setup, tokens, flops):
    """Estimate the seconds to train on so many tokens at so many FLOPs a second."""
    body = weights_of(c)[0]
    # FLOPs for each weight and token: 2 forward, 2 for the gradient of the activations, 2 for the
    # gradient of the weights (not of frozen ones), 2 for a second forward pass
    repeated = 2 if setup.checkpointing else 0
    each = (4 if setup.added else 6) + repeated
    # attention scores involve no weights, so that LoRA saves nothing there
    attention = (6 + repeated) * c.layers * c.dim * min(c.context, SEGMENT_TOKENS)
    return tokens * (each * (body + c.vocab * c.dim) + attention) / flops


def machine_memory(c, setup, sample_tokens):
    """
    Return in words how much RAM and disk a training needs beside its GPUs; sample_tokens: of all
    its samples together.
    """
    total = weights_of(c)[1]
    trained = setup.added or total
    trained_bytes = 4 if setup.added else setup.weight_bytes
    ram = 2 * total * setup.processes
    # the trained weights and AdamW's two averages
    state = 3 * trained_bytes * trained
    samples = SAMPLE_BYTES * sample_tokens * setup.processes
    return (f"{ram / 1e9:,.0f} GB of RAM to begin with (each process reads the base), "
            f"{samples / 1e9:,.1f} GB for the samples, "
            f"{state / 1e9:,.1f} GB on disk to resume after a kill, "
            f"{2 * total / 1e9:,.1f} GB for the model")


def generation_seconds(c, in_flight, bandwidth):
    """Estimate the seconds to generate one token in each dialogue, at so many bytes a second."""
    # each step reads all weights, and the cache, which is half full on average
    return (2 * weights_of(c)[1] + cache_bytes(c, in_flight) / 2) / bandwidth


def cache_bytes(c, in_flight):
    """Count the bytes of a bf16 key/value cache for so many dialogues of full length."""
    return in_flight * c.context * 4 * c.layers * c.kv_heads * c.dim // c.heads


# ------------------------------------------------------------------------------------------------
# commands: each function adds to the plan, and returns lines of text


def memory_verdict(needed, plan):
    """Return in words whether so many bytes fit on the GPU, with 5 % to spare; count if not."""
    memory = GPUS[plan.gpu].memory
    if needed / 1e9 < 0.95 * memory:
        return f"fits in {memory} GB"
    plan.too_large += 1
    return f"DOES NOT FIT in {memory} GB"


def plan_training(words, processes, plan):
    """Plan a command of train.py, given its words and the number of its processes."""
    args = train.arguments(words)
    c = plan.shape
    if args.base and Path(args.base, "config.json").exists():
        c = read_config(Path(args.base))
    added = lora_weights(c, args.lora, args.lora_names) if args.lora else 0
    setup = TrainingSetup(
        tokens=args.tokens, weight_bytes=2 if args.weights == "bf16" else 4,
        mixed=args.precision == "bf16" and args.weights == "float32", added=added,
        processes=processes, sharded=args.shard, checkpointing=args.activation_checkpointing)

    dialogues = plan.dialogues if args.learn == "gpt" else SEGMENTS
    # simulated dialogues are known by the name of their file
    simulated = any("socratic" in Path(path).name for path in args.data)
    length = min(c.context, SIMULATED_TOKENS if simulated else SEGMENT_TOKENS)
    if args.epochs:
        steps = args.epochs * (dialogues // (args.samples or dialogues))
        tokens = args.epochs * dialogues * length
    else:
        steps = args.steps
        tokens = args.steps * args.tokens * args.accumulate
    flops = processes * GPUS[plan.gpu].tflops * 1e12 * TRAINING_UTILISATION
    hours = training_seconds(c, setup, tokens, flops) / 3600
    plan.hours += hours

    name = {"human": "Socratic", "gpt": "an assistant", "all": "a base"}[args.learn]
    lora = f", {added / 1e6:.0f} million of LoRA's" if added else ""
    state, activations = training_memory(c, setup)
    return [f"{name}: {weights_of(c)[1] / 1e9:.2f} billion weights{lora}; {dialogues:,} dialogues, "
            f"{steps:,} updates, {tokens / 1e6:,.0f} million tokens",
            f"{state / 1e9:.1f} GB of weights and optimizer state, {activations / 1e9:.1f} GB of "
            f"activations on each of {processes} {plan.gpu}: "
            f"{memory_verdict(state + activations, plan)}",
            f"{machine_memory(c, setup, dialogues * length)}; {hours:,.1f} hours"]


def without_cap(words):
    """Return a command's words without --max-dollars, whose value in a plan may be no number."""
    if "--max-dollars" not in words:
        return words
    index = words.index("--max-dollars")
    return words[:index] + words[index + 2:]


def plan_simulation(words, plan):
    """Plan a command of simulate.py, given its words."""
    args = simulate.arguments(without_cap(words))
    plan.dialogues = args.dialogues
    c = plan.shape
    # dialogues like the authors', as far as the flags allow
    rounds = min(PAPER_MEANS["rounds"], args.rounds)
    question = min(PAPER_MEANS["tokens"], args.max_question)
    answer = min(PAPER_MEANS["tokens"], args.max_tokens)

    bandwidth = GPUS[plan.gpu].bandwidth * 1e9 * BANDWIDTH_UTILISATION
    step = generation_seconds(c, args.in_flight, bandwidth)
    questions = args.dialogues * rounds
    writing = questions * question * step / args.in_flight / 3600
    waiting = questions * ANSWER_SECONDS / args.in_flight / 3600
    hours = max(writing, waiting)
    plan.hours += hours

    price = price_of(args.teacher, args.model, args.price)
    _, read, written = teacher_tokens(rounds, question, answer, 0)
    plan.dollars += cost_in_dollars(price, args.dialogues * read, args.dialogues * written)
    limits = (args.rounds, args.max_question, args.max_tokens)
    lines = forecast(args.dialogues, limits, [(price, partial(teacher_tokens, system=0))])
    weights = 2 * weights_of(c)[1]
    cache = cache_bytes(c, args.in_flight)
    verdict = memory_verdict(weights + cache, plan)
    return [*lines, f"{weights / 1e9:.1f} GB of weights, {cache / 1e9:.1f} GB for "
            f"{args.in_flight} dialogues on one {plan.gpu}: {verdict}",
            f"{hours:,.1f} hours (Socratic writes for {writing:,.1f}, the teacher for "
            f"{waiting:,.1f})"]


def plan_judging(words, plan):
    """Plan a command `evaluate.py judge`, given its words after "judge"."""
    names = list(takewhile(lambda word: not word.startswith("--"), words))
    pairwise = "pairwise" in " ".join(words)
    # each pair of models is judged in both orders
    comparisons = len(names) * (len(names) - 1) if pairwise else len(names)
    calls = BENCH_TURNS * comparisons
    # a comparison has two answers to read
    read = calls * JUDGMENT_READ * (2 if pairwise else 1)
    written = calls * JUDGMENT_WRITTEN
    judge = words[words.index("--judge-model") + 1]
    # at any address but this machine's, where a judge costs nothing
    cost = cost_in_dollars(price_of("https://judge", judge), read, written)
    plan.dollars += cost
    return [f"{calls:,} requests, {read:,} tokens read, {written:,} written, {cost:,.2f} dollars"]


def plan_command(command, plan):
    """Plan one command line of the Makefile; return no lines for commands that take little."""
    words = shlex.split(command)
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    if not scripts:
        return []
    script = words[scripts[0]]
    rest = words[scripts[0] + 1:]
    processes = 1
    if "--nproc_per_node" in words:
        processes = int(words[words.index("--nproc_per_node") + 1])
    if script == "train.py":
        return plan_training(rest, processes, plan)
    if script == "simulate.py":
        return plan_simulation(rest, plan)
    if rest[:1] == ["judge"]:
        return plan_judging(rest[1:], plan)
    return []


def main():
    """Read commands from stdin, and print what each would take, and all together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("shape", choices=SHAPES, help="of a base that is not on this machine")
    parser.add_argument("--gpu", type=str.lower, choices=GPUS, help="its kind (1b: 4090, 7b: a100)")
    args = parser.parse_args()
    plan = Plan(SHAPES[args.shape], args.gpu or DEFAULT_GPU[args.shape])
    # a command may go on over several lines
    for command in re.sub(r"\s*\\\n\s*", " ", sys.stdin.read()).splitlines():
        # the shell's own lines are no stages
        if command.startswith(("for ", "echo", "test ", "case ")):
            continue
        print(f"$ {command}")
        for line in plan_command(command, plan):
            print(f"      {line}")
    too_large = f"; {plan.too_large} stages DO NOT FIT on this GPU" if plan.too_large else ""
    print(f"\nin all, as estimated: {plan.hours:,.1f} hours of computing, {plan.dollars:,.0f} "
          f"dollars{too_large}")
    gpu = GPUS[plan.gpu]
    print(f"assumed, not measured: {plan.gpu} with {gpu.tflops} TFLOP/s in bf16, {gpu.memory} GB, "
          f"{gpu.bandwidth:,} GB/s;\n"
          f"{TRAINING_UTILISATION:.0%} of the first reached in training, "
          f"{BANDWIDTH_UTILISATION:.0%} of the last in generation;\n"
          f"{SEGMENTS:,} segments of {SEGMENT_TOKENS:,} tokens from people, {SIMULATED_TOKENS:,} "
          "tokens in a simulated\n"
          f"dialogue, as the authors counted (DATA is not read); {ANSWER_SECONDS} s for an answer; "
          "prices of\n"
          "data/api/budget.py, unverified. Answering a bench and the card are not counted.")


if __name__ == "__main__":
    run(main)
