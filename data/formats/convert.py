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
import re
from pathlib import Path

import torch

from data.checkpoint import (build_model, validate_config, load_model, read_config, read_pickle,
                             save_model, shard_files, weight_file)
from data.formats.adapter import adapter_page, read_adapter, wrapped_in, write_adapter
from data.program import UserError, read_json, run
from model import Config, merge_lora
from platolm import Tokenizer

# ------------------------------------------------------------------------------------------------
# pickled tensors


def bin_weights(directory):
    """{name: tensor} of an old Hugging Face directory: pytorch_model.bin, or its shards."""
    index = directory / "pytorch_model.bin.index.json"
    files = shard_files(index) if index.exists() else ["pytorch_model.bin"]
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
        raise UserError(f"{directory} has a params.json, but no consolidated.00.pth")
    found = {}
    for name in parts[0]:
        layer, _, rest = re.fullmatch(r"((layers\.\d+\.)?)(.*)", name).groups()
        ours, side = META.get(rest.removesuffix(".weight"), (rest, None))
        try:
            pieces = [part[name] for part in parts]
            found[f"{layer}{ours}.weight"] = pieces[0] if side is None else torch.cat(pieces, side)
        except (KeyError, RuntimeError):
            raise UserError(f"{directory}: {name} does not fit together in {len(parts)} "
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
            raise UserError(f"{path} asks for {key}, which is not supported")
    try:
        vocab, hidden = (tensors[f"{name}.weight"].shape[0]
                         for name in ("embed_tokens", "layers.0.mlp.gate_proj"))
        config = Config(vocab=vocab, dim=page["dim"], layers=page["n_layers"],
                        heads=page["n_heads"], hidden=hidden, tied="lm_head.weight" not in tensors,
                        kv_heads=page.get("n_kv_heads") or page["n_heads"],
                        theta=page.get("rope_theta", 10000.0), eps=page["norm_eps"],
                        context=page.get("max_seq_len", 2048))
    except KeyError as error:
        raise UserError(f"{directory}: neither params.json nor the weights have {error}") from None
    return validate_config(config, path)


def from_meta(directory):
    """A model from Meta's files."""
    tensors = meta_tensors(directory)
    config = meta_config(directory, tensors)
    for name in tensors:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.heads if "q_proj" in name else config.kv_heads
            tensors[name] = half_split(tensors[name], heads)
    return build_model(config, tensors, directory)


# ------------------------------------------------------------------------------------------------
# PEFT's adapters


def base_of(directory, given):
    """The directory of an adapter's base: as given, or as the adapter calls it."""
    named = given or adapter_page(directory).get("base_model_name_or_path") or ""
    if not (Path(named) / "config.json").exists() or Path(named).resolve() == directory.resolve():
        raise UserError(f"{directory} is an adapter of {named or 'nobody knows what'!r}: say where "
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
        raise UserError(f"{directory} is no checkpoint that is known here: it has neither "
                      "config.json nor params.json nor adapter_config.json")
    if not weight_file(directory).exists() and list(directory.glob("pytorch_model*.bin")):
        return build_model(read_config(directory), bin_weights(directory), directory)
    return load_model(directory)


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
        raise UserError(f"{source} has no adapter: it was not trained with train.py --lora")
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
        raise UserError(f"{source}: the tokenizer has {tokenizer.vocab:,} pieces, the model only "
                      f"{model.config.vocab:,}: they are not of one checkpoint")
    save_model(model, out)
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
        raise UserError(f"{args.source} is no directory; single files (GGUF and such) are not read")
    if args.out.resolve() == args.source.resolve():
        raise UserError(f"{args.out} is what is read; write somewhere else")
    other = {"hf": "adapter_config.json", "peft": "config.json"}[args.to]
    if (args.out / other).exists():
        raise UserError(f"{args.out} holds {other}, so another kind of checkpoint; write somewhere "
                      "else")
    (to_hf if args.to == "hf" else to_peft)(args.source, args.out, args.base)


if __name__ == "__main__":
    run(main)
