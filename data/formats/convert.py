"""
Checkpoints as others write them, made ours, and ours made others'.

    python -m data.formats.convert llama-meta/7B llama-7b      Meta's files
    python -m data.formats.convert old-directory llama-7b      pytorch_model.bin, in parts or not
    python -m data.formats.convert adapter merged --base BASE  a PEFT adapter, merged into its base
    python -m data.formats.convert socratic adapter --to peft  what `train.py --lora` learnt, alone

What is written is a Hugging Face directory: transformers, vLLM and llama.cpp's converter take it
from there. Nothing that comes in a file is executed: a pickle that holds more than tensors is
refused. Not here: safetensors and config.json (model.py), downloads (fetch.py).
"""

import argparse
import json
import math
import re
import warnings
import zipfile
from pathlib import Path

import torch

from model import (Config, Llama, LoRALinear, add_lora, built, checked, merge_lora, read_config,
                   read_safetensors, sensible, shards, weight_file, write_safetensors)
from platolm import Problem, Tokenizer, read_json, run

# ------------------------------------------------------------------------------------------------
# pickled tensors


def read_pickle(path):
    """{name: tensor} of a .bin or .pth file, without running any code that it may hold."""
    try:
        # mapped, not read: of a large file only what is used comes into memory (before torch 1.6
        # they were no zip files, and cannot be mapped)
        with warnings.catch_warnings():
            # of pickles that are refused anyway
            warnings.simplefilter("ignore")
            tensors = torch.load(path, map_location="cpu", weights_only=True,
                                 mmap=zipfile.is_zipfile(path))
    except Exception as error:
        why = str(error).strip().splitlines()[0][:80] if str(error).strip() else "it is empty"
        raise Problem(f"{path} is cut off, or holds more than tensors, and is not opened "
                      f"({why})") from None
    if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and torch.is_tensor(part) for name, part in tensors.items()):
        raise Problem(f"{path} holds something else than tensors by name")
    return tensors


def bin_weights(directory):
    """{name: tensor} of an old Hugging Face directory: pytorch_model.bin, or its shards."""
    index = directory / "pytorch_model.bin.index.json"
    files = shards(index) if index.exists() else ["pytorch_model.bin"]
    return {name: tensor for file in files
            for name, tensor in read_pickle(directory / file).items()}


# ------------------------------------------------------------------------------------------------
# Meta's own layout: consolidated.00.pth, consolidated.01.pth, ... and params.json

# their name of a matrix, ours, and along which side it is divided among several files
META = {"tok_embeddings": ("embed_tokens", 1), "output": ("lm_head", 0), "norm": ("norm", None),
        "attention.wq": ("self_attn.q_proj", 0), "attention.wk": ("self_attn.k_proj", 0),
        "attention.wv": ("self_attn.v_proj", 0), "attention.wo": ("self_attn.o_proj", 1),
        "feed_forward.w1": ("mlp.gate_proj", 0), "feed_forward.w2": ("mlp.down_proj", 1),
        "feed_forward.w3": ("mlp.up_proj", 0), "attention_norm": ("input_layernorm", None),
        "ffn_norm": ("post_attention_layernorm", None)}


def half_split(weight, heads):
    """
    Rows of a q or k matrix from Meta's order, in which the two of a rotated pair are neighbours,
    to ours, in which they are half a head apart: (heads * E, D) -> (heads * E, D).
    """
    rows, D = weight.shape
    return weight.view(heads, rows // heads // 2, 2, D).transpose(1, 2).reshape(rows, D)


def meta_tensors(directory):
    """{our name: tensor} of Meta's files, each matrix whole, rotary rows still in Meta's order."""
    parts = [read_pickle(path) for path in sorted(directory.glob("consolidated.*.pth"))]
    if not parts:
        raise Problem(f"{directory} has a params.json, but no consolidated.00.pth")
    found = {}
    for name in parts[0]:
        layer, _, rest = re.fullmatch(r"((layers\.\d+\.)?)(.*)", name).groups()
        ours, side = META.get(rest.removesuffix(".weight"), (rest, None))
        try:
            pieces = [part[name] for part in parts]
            found[f"{layer}{ours}.weight"] = pieces[0] if side is None else torch.cat(pieces, side)
        except (KeyError, RuntimeError):
            raise Problem(f"{directory}: {name} does not fit together in {len(parts)} "
                          "files") from None
    # the rotary speeds follow from the config
    found.pop("rope.freqs.weight", None)
    return found


def meta_config(directory, tensors):
    """Our Config from params.json and from the shapes that it leaves out."""
    path = directory / "params.json"
    page = read_json(path)
    for key in ("use_scaled_rope", "quantization_args", "lora_args", "moe"):
        if page.get(key):
            raise Problem(f"{path} asks for {key}, which is not supported")
    try:
        vocab, hidden = (tensors[f"{name}.weight"].shape[0]
                         for name in ("embed_tokens", "layers.0.mlp.gate_proj"))
        config = Config(vocab=vocab, dim=page["dim"], layers=page["n_layers"],
                        heads=page["n_heads"], hidden=hidden, tied="lm_head.weight" not in tensors,
                        kv_heads=page.get("n_kv_heads") or page["n_heads"],
                        theta=page.get("rope_theta", 10000.0), eps=page["norm_eps"],
                        context=page.get("max_seq_len", 2048))
    except KeyError as error:
        raise Problem(f"{directory}: neither params.json nor the weights have {error}") from None
    return checked(config, path)


def from_meta(directory):
    """A model from Meta's files."""
    tensors = meta_tensors(directory)
    config = meta_config(directory, tensors)
    for name in tensors:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.heads if "q_proj" in name else config.kv_heads
            tensors[name] = half_split(tensors[name], heads)
    return built(Llama, config, tensors, directory)


# ------------------------------------------------------------------------------------------------
# PEFT's adapters

# keys of adapter_config.json that ask for something else than plain LoRA
BEYOND = ("use_dora", "modules_to_save", "fan_in_fan_out", "rank_pattern", "alpha_pattern",
          "lora_bias", "target_parameters", "trainable_token_indices", "layer_replication")


def adapter_name(name, part):
    """PEFT's name of A or B of one of our matrices."""
    inside = name if name.startswith("lm_head") else f"model.{name}"
    return f"base_model.model.{inside}.lora_{part}.weight"


def wrapped_in(model):
    """{name: matrix} of those that LoRA changes."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRALinear)}


def write_adapter(model, directory, base=""):
    """What LoRA learnt in a model, not merged yet, as a PEFT adapter of the checkpoint `base`."""
    wrapped = wrapped_in(model)
    one = next(iter(wrapped.values()))
    page = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
            "r": one.A.shape[0], "lora_alpha": one.scale * one.A.shape[0], "lora_dropout": 0.0,
            "target_modules": sorted({name.split(".")[-1] for name in wrapped}), "bias": "none",
            "fan_in_fan_out": False, "inference_mode": True, "modules_to_save": None,
            "use_rslora": False, "use_dora": False}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(page, indent=2) + "\n")
    write_safetensors(directory / "adapter_model.safetensors", {
        adapter_name(name, part): getattr(linear, part)
        for name, linear in wrapped.items() for part in "AB"})


def adapter_page(directory):
    """adapter_config.json, if it is one of plain LoRA."""
    path = directory / "adapter_config.json"
    page = read_json(path)
    strange = [key for key in BEYOND if page.get(key)]
    if page.get("peft_type") != "LORA" or page.get("bias", "none") != "none":
        strange = ["a peft_type other than LORA, or biases", *strange]
    if strange:
        raise Problem(f"{path} asks for {strange[0]}, which is not supported")
    if not all(sensible(page.get(key), kind) for key, kind in (("r", int), ("lora_alpha", float))):
        raise Problem(f"{path} does not tell r and lora_alpha")
    return page


def read_adapter(model, directory):
    """Put a PEFT adapter onto the model of its base, as LoRA; in place."""
    page, safe = adapter_page(directory), directory / "adapter_model.safetensors"
    tensors = read_safetensors(safe) if safe.exists() else read_pickle(safe.with_suffix(".bin"))
    # PEFT divides by the rank, or with rslora by its root
    alpha = page["lora_alpha"] * (math.sqrt(page["r"]) if page.get("use_rslora") else 1)
    leaves = {name.split(".")[-3] for name in tensors if name.count(".") > 2}
    add_lora(model, leaves, page["r"], alpha)
    for name, linear in wrapped_in(model).items():
        for part in "AB":
            there, own = tensors.pop(adapter_name(name, part), None), getattr(linear, part)
            if there is None or there.shape != own.shape:
                raise Problem(f"{directory} has no {adapter_name(name, part)} of shape "
                              f"{tuple(own.shape)}")
            own.data.copy_(there)
    if tensors:
        raise Problem(f"{directory} holds {next(iter(tensors))}, which no part of its base is for")


def base_of(directory, given):
    """The directory of an adapter's base: as given, or as the adapter calls it."""
    named = given or adapter_page(directory).get("base_model_name_or_path") or ""
    if not (Path(named) / "config.json").exists() or Path(named).resolve() == directory.resolve():
        raise Problem(f"{directory} is an adapter of {named or 'nobody knows what'!r}: say where "
                      "that checkpoint lies, --base DIR")
    return Path(named)


# ------------------------------------------------------------------------------------------------
# the command


def adapter_in(directory):
    """Where an adapter lies: in the directory itself or, as train.py leaves it, in adapter/."""
    for place in (directory, directory / "adapter"):
        if (place / "adapter_config.json").exists():
            return place
    return None


def open_any(directory, base=None):
    """The model of a checkpoint directory of any kind that is known here."""
    if (directory / "params.json").exists():
        return from_meta(directory)
    if (directory / "adapter_config.json").exists():
        model = open_any(base_of(directory, base))
        read_adapter(model, directory)
        return merge_lora(model)
    if not (directory / "config.json").exists():
        raise Problem(f"{directory} is no checkpoint that is known here: it has neither "
                      "config.json nor params.json nor adapter_config.json")
    if not weight_file(directory).exists() and list(directory.glob("pytorch_model*.bin")):
        return built(Llama, read_config(directory), bin_weights(directory), directory)
    return Llama.load(directory)


def tokenizer_of(directory, base=None):
    """The tokenizer of a checkpoint: Meta has it one folder up, an adapter perhaps in its base."""
    homes = [directory]
    if (directory / "params.json").exists():
        homes.append(directory.parent)
    if (directory / "adapter_config.json").exists():
        homes.append(base_of(directory, base))
    found = [home for home in homes if (home / "tokenizer.model").exists()]
    return Tokenizer.load(found[0] if found else directory)


def to_peft(source, out, base):
    """Write the adapter of `source` alone, with its tokenizer and chat template."""
    place = adapter_in(source)
    if place is None:
        raise Problem(f"{source} has no adapter: it was not trained with train.py --lora")
    base = base_of(place, base)
    model = open_any(base)
    read_adapter(model, place)
    write_adapter(model, out, base)
    tokenizer_of(place, base).save(out)
    print(f"{out}: an adapter of {base}, {len(wrapped_in(model))} matrices")


def to_hf(source, out, base):
    """Write the whole model, with its tokenizer and chat template."""
    model, tokenizer = open_any(source, base), tokenizer_of(source, base)
    if tokenizer.vocab > model.config.vocab:
        raise Problem(f"{source}: the tokenizer has {tokenizer.vocab:,} pieces, the model only "
                      f"{model.config.vocab:,}: they are not of one checkpoint")
    model.save(out)
    tokenizer.save(out)
    total = sum(p.numel() for p in model.parameters())
    if (source / "params.json").exists() and "max_seq_len" not in read_json(source / "params.json"):
        print("params.json does not tell the context: 2,048 is assumed, as in LLaMA; LLaMA-2's is "
              "4,096 (max_position_embeddings in config.json)")
    print(f"{out}: {total:,} weights in {str(model.embed_tokens.weight.dtype).split('.')[-1]}, "
          f"{model.config.context:,} tokens of context, {tokenizer.vocab:,} pieces")


def main():
    """Convert one directory into another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("source", type=Path, help="directory of a checkpoint or an adapter")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--to", choices=("hf", "peft"), default="hf",
                        help="a whole Hugging Face directory (default), or a PEFT adapter alone")
    parser.add_argument("--base", help="where an adapter's base lies, if not where it says")
    args = parser.parse_args()
    if not args.source.is_dir():
        raise Problem(f"{args.source} is no directory; single files (GGUF and such) are not read")
    if args.out.resolve() == args.source.resolve():
        raise Problem(f"{args.out} is what is read; write somewhere else")
    other = {"hf": "adapter_config.json", "peft": "config.json"}[args.to]
    if (args.out / other).exists():
        raise Problem(f"{args.out} holds {other}, so another kind of checkpoint; write somewhere "
                      "else")
    (to_hf if args.to == "hf" else to_peft)(args.source, args.out, args.base)


if __name__ == "__main__":
    run(main)
