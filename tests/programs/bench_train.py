"""
How much of what the machine can multiply does a training step use? Ours, and transformers + peft.

    python -m tests.programs.bench_train [--compile]

Run by `make bench-train`, in an environment of its own. On a GPU: LLaMA-7B's shape with random
weights, 2,048 tokens, LoRA r=16 with the allocator capped at 24 GB, then all weights (in bf16, as
many layers as fit) without a cap. On a CPU the same at a small size, to see that it runs. Rates
are FLOPs of the model itself (what is computed twice counts once) over the rate of one product of
matrices of the model's own size, measured in the same run.
"""

import argparse
import gc
import math
import os
import time

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import torch

import train
from data.experiment.cost_plan import SHAPES, weights_of
from model import Config, Llama, add_lora

CAP, TOKENS, RANK, TIMES = 24e9, 2048, 16, 5
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
SMALL = Config(vocab=1000, dim=128, layers=4, heads=4, kv_heads=4, hidden=344, context=256, tied=False)


def median_seconds(step):
    """The median time of a step, after two that warm up."""
    times = []
    for i in range(TIMES + 2):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[2:])[TIMES // 2]


def product_rate(c, tokens):
    """FLOPs a second of one product of matrices of this model's size."""
    x = torch.randn(tokens, c.dim, device=DEVICE, dtype=DTYPE)
    w = torch.randn(c.dim, c.hidden, device=DEVICE, dtype=DTYPE)
    return 2 * tokens * c.dim * c.hidden * 20 / median_seconds(lambda: [x @ w for _ in range(20)])


def flops(c, tokens, lora):
    """FLOPs of one step: 4 (LoRA) or 6 for each weight and token, and attention's."""
    each = 4 if lora else 6
    return tokens * (each * (weights_of(c)[0] + c.vocab * c.dim) + 6 * c.layers * c.dim * tokens)


def batch(c, tokens):
    """Random ids, every second of which is learnt."""
    ids = torch.randint(c.vocab, (1, tokens), device=DEVICE)
    return ids, ids.masked_fill(torch.arange(tokens, device=DEVICE) % 2 > 0, -100)


def ours(c, lora, args):
    """A step of train.update."""
    torch.set_default_dtype(DTYPE)
    with torch.device(DEVICE):
        model = Llama(c, "fused")
    torch.set_default_dtype(torch.float32)
    model.recompute = True
    if lora:
        add_lora(model, NAMES, RANK, 16)
    if args.compile:
        for layer in model.layers:
            layer.compile(dynamic=True)
    optimizers, data = train.make_optimizers(model, "adamw", 1e-5, 0.0), [batch(c, args.tokens)]
    precision = "bf16" if DEVICE == "cuda" else "float32"
    return lambda: train.update(model, optimizers, data, precision)


def theirs(c, lora, args):
    """The same step in transformers, with peft for LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(vocab_size=c.vocab, hidden_size=c.dim, intermediate_size=c.hidden,
                         num_hidden_layers=c.layers, num_attention_heads=c.heads, num_key_value_heads=c.kv_heads,
                         attn_implementation="sdpa", use_cache=False)
    torch.set_default_dtype(DTYPE)
    with torch.device(DEVICE):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.train()
    # transformers 5.20 gave it a new name
    new = hasattr(model, "activation_checkpointing_enable")
    (model.activation_checkpointing_enable if new else model.gradient_checkpointing_enable)()
    if lora:
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules=NAMES))
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer, (ids, labels) = torch.optim.AdamW(weights, 1e-5, fused=True), batch(c, args.tokens)

    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def measure(name, make, c, lora, args, rate):
    """One line: seconds, tokens a second, the fraction of the product's rate, and memory."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, CAP / torch.cuda.get_device_properties(0).total_memory) if lora else 1.0)
    try:
        seconds = median_seconds(make(c, lora, args))
        line = (f"{seconds * 1000:9,.1f} ms {args.tokens / seconds:10,.0f} tok/s "
                f"{flops(c, args.tokens, lora) / seconds / rate:7.1%} of the product's rate")
    except ImportError as error:
        line = f"   not here ({error})"
    except torch.OutOfMemoryError:
        line = "   does not fit"
    gc.collect()
    if DEVICE == "cuda":
        line += f" {torch.cuda.max_memory_allocated() / 1e9:8.1f} GB at most"
        torch.cuda.empty_cache()
    print(f"{name:<30}{line}", flush=True)


def main():
    """Measure all, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    args = parser.parse_args()
    c = SHAPES["7b"] if DEVICE == "cuda" else SMALL
    args.tokens = min(TOKENS, c.context)
    rate = product_rate(c, args.tokens)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "a CPU: sizes are small, and say little"
    print(f"{name}; torch {torch.__version__}; one product of matrices: {rate / 1e12:.2f} TFLOP/s")
    for who, make in (("ours", ours), ("transformers + peft", theirs)):
        measure(f"{who}, LoRA r={RANK}", make, c, True, args, rate)
    if DEVICE == "cuda":
        # 8 bytes a weight, and something to work with
        room = torch.cuda.get_device_properties(0).total_memory * 0.8 / 8 - 2 * c.vocab * c.dim
        layers = min(c.layers, math.floor(room / (weights_of(c)[0] / c.layers)))
        c = Config(**{**vars(c), "layers": layers})
    for who, make in (("ours", ours), ("transformers", theirs)):
        measure(f"{who}, all weights, {c.layers} layers", make, c, False, args, rate)


if __name__ == "__main__":
    main()
