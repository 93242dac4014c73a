"""
What share of the machine's matrix-product rate a training step reaches: ours, and transformers + peft.

    python -m tests.programs.bench_train [--compile]

`make bench-train` runs it, in an environment of its own. On a GPU: LLaMA-7B's shape with random weights and 2,048
tokens; LoRA r=16 with the allocator capped at 24 GB, then all weights (in bf16, as many layers as fit) without a cap.
On a CPU the same at a small size, only to see that it runs. A rate is the FLOPs of the model itself (activations
computed twice count once) a second, divided by the rate of one matrix product of the model's size in the same run.
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

# bytes that LoRA may allocate on a GPU
CAP = 24e9
# tokens of a step
TOKENS = 2048
# of LoRA
RANK = 16
# timed repetitions, after two that warm up
TIMES = 5
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
SMALL = Config(vocab=1000, dim=128, layers=4, heads=4, kv_heads=4, hidden=344, context=256, tied=False)


def median_seconds(step):
    """Return the median seconds of step(), after two calls that warm up."""
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
    """Measure the FLOPs a second of one matrix product of this model's size."""
    x = torch.randn(tokens, c.dim, device=DEVICE, dtype=DTYPE)
    w = torch.randn(c.dim, c.hidden, device=DEVICE, dtype=DTYPE)
    return 2 * tokens * c.dim * c.hidden * 20 / median_seconds(lambda: [x @ w for _ in range(20)])


def flops(c, tokens, lora):
    """Count the FLOPs of one step: 4 (LoRA) or 6 for each weight and token, and attention's."""
    each = 4 if lora else 6
    return tokens * (each * (weights_of(c)[0] + c.vocab * c.dim) + 6 * c.layers * c.dim * tokens)


def batch(c, tokens):
    """Make (ids, targets) of random ids, every second of which is a target."""
    ids = torch.randint(c.vocab, (1, tokens), device=DEVICE)
    return ids, ids.masked_fill(torch.arange(tokens, device=DEVICE) % 2 > 0, -100)


def our_step(c, lora, tokens, compiled):
    """Make a step of train.update on one batch; compiled: with torch.compile on each layer."""
    torch.set_default_dtype(DTYPE)
    with torch.device(DEVICE):
        model = Llama(c, "fused")
    torch.set_default_dtype(torch.float32)
    model.recompute = True
    if lora:
        add_lora(model, NAMES, RANK, 16)
    if compiled:
        for layer in model.layers:
            layer.compile(dynamic=True)
    optimizers = train.make_optimizers(model, "adamw", 1e-5, 0.0)
    micro_batches = [batch(c, tokens)]
    precision = "bf16" if DEVICE == "cuda" else "float32"
    return lambda: train.update(model, optimizers, micro_batches, precision)


def their_step(c, lora, tokens, compiled):
    """Make the same step in transformers, with peft for LoRA; `compiled` has no effect."""
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
    optimizer = torch.optim.AdamW(weights, 1e-5, fused=True)
    ids, labels = batch(c, tokens)

    def step():
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def measure(name, make_step, c, lora, tokens, compiled, rate):
    """Print one line: seconds, tokens a second, the fraction of the matrix product's rate, memory."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, CAP / torch.cuda.get_device_properties(0).total_memory) if lora else 1.0)
    try:
        seconds = median_seconds(make_step(c, lora, tokens, compiled))
        line = (f"{seconds * 1000:9,.1f} ms {tokens / seconds:10,.0f} tok/s "
                f"{flops(c, tokens, lora) / seconds / rate:7.1%} of the product's rate")
    except ImportError as error:
        line = f"   not installed ({error})"
    except torch.OutOfMemoryError:
        line = "   does not fit"
    gc.collect()
    if DEVICE == "cuda":
        line += f" {torch.cuda.max_memory_allocated() / 1e9:8.1f} GB at most"
        torch.cuda.empty_cache()
    print(f"{name:<30}{line}", flush=True)


def main():
    """Measure LoRA and all weights, ours and theirs, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    compiled = parser.parse_args().compile
    c = SHAPES["7b"] if DEVICE == "cuda" else SMALL
    tokens = min(TOKENS, c.context)
    rate = product_rate(c, tokens)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "a CPU: sizes are small, and say little"
    print(f"{device}; torch {torch.__version__}; one product of matrices: {rate / 1e12:.2f} TFLOP/s")
    for name, make_step in (("ours", our_step), ("transformers + peft", their_step)):
        measure(f"{name}, LoRA r={RANK}", make_step, c, True, tokens, compiled, rate)
    if DEVICE == "cuda":
        # 8 bytes a weight, and something to work with
        room = torch.cuda.get_device_properties(0).total_memory * 0.8 / 8 - 2 * c.vocab * c.dim
        layers = min(c.layers, math.floor(room / (weights_of(c)[0] / c.layers)))
        c = Config(**{**vars(c), "layers": layers})
    for name, make_step in (("ours", our_step), ("transformers", their_step)):
        measure(f"{name}, all weights, {c.layers} layers", make_step, c, False, tokens, compiled, rate)


if __name__ == "__main__":
    main()
