"""
Convert checkpoints of other formats to ours, and ours to PEFT's.

    python -m data.formats.convert llama-meta/7B llama-7b      Meta's files
    python -m data.formats.convert old-directory llama-7b      pytorch_model.bin, in parts or not
    python -m data.formats.convert adapter merged --base BASE  a PEFT adapter, merged into its base
    python -m data.formats.convert socratic adapter --to peft  only what `train.py --lora` learnt

The output is a Hugging Face directory, which transformers, vLLM and llama.cpp's converter read.
No code in an input file is run: a pickle that holds more than tensors is refused.
"""

import argparse
import re
from pathlib import Path

import torch

from data.checkpoint import (build_model, load_model, read_config, read_pickle, require_fit,
                             save_model, shard_files, validate_config, weight_file)
from data.formats.adapter import lora_modules, read_adapter, read_adapter_config, write_adapter
from data.program import UserError, read_json, require_apart, run, staged
from model import Config, merge_lora
from platolm import Tokenizer

# ------------------------------------------------------------------------------------------------
# pickled tensors


def read_bins(directory):
    """Read {name: tensor} of an old Hugging Face directory: pytorch_model.bin, or its shards."""
    index = directory / "pytorch_model.bin.index.json"
    files = shard_files(index) if index.exists() else ["pytorch_model.bin"]
    tensors = {}
    for file in files:
        tensors.update(read_pickle(directory / file))
    return tensors


# ------------------------------------------------------------------------------------------------
# Meta's own format: consolidated.00.pth, consolidated.01.pth, ... and params.json

# Meta's name of a matrix, ours, and the dimension along which it is split among the files
META = {"tok_embeddings": ("embed_tokens", 1), "output": ("lm_head", 0), "norm": ("norm", None),
        "attention.wq": ("self_attn.q_proj", 0), "attention.wk": ("self_attn.k_proj", 0),
        "attention.wv": ("self_attn.v_proj", 0), "attention.wo": ("self_attn.o_proj", 1),
        "feed_forward.w1": ("mlp.gate_proj", 0), "feed_forward.w2": ("mlp.down_proj", 1),
        "feed_forward.w3": ("mlp.up_proj", 0), "attention_norm": ("input_layernorm", None),
        "ffn_norm": ("post_attention_layernorm", None)}


def half_split(weight, heads):
    """
    Reorder the rows of a q or k matrix from Meta's order to ours: (heads * E, D) -> the same shape.

    In a head of Meta's the two rows of a rotated pair are neighbours; in ours they are E / 2 apart.
    """
    rows, D = weight.shape
    return weight.view(heads, rows // heads // 2, 2, D).transpose(1, 2).reshape(rows, D)


def meta_tensors(directory):
    """Read {our name: tensor} of Meta's files, joined; rows of q and k stay in Meta's order."""
    parts = [read_pickle(path) for path in sorted(directory.glob("consolidated.*.pth"))]
    if not parts:
        raise UserError(f"{directory} has a params.json, but no consolidated.00.pth")
    tensors = {}
    for name in parts[0]:
        # "layers.0.attention.wq.weight": a prefix, and a key of META with a suffix
        layer, _, rest = re.fullmatch(r"((layers\.\d+\.)?)(.*)", name).groups()
        ours, dim = META.get(rest.removesuffix(".weight"), (rest, None))
        try:
            pieces = [part[name] for part in parts]
            joined = pieces[0] if dim is None else torch.cat(pieces, dim)
        except (KeyError, RuntimeError):
            raise UserError(f"{directory}: {name} does not fit together in {len(parts)} "
                            "files") from None
        tensors[f"{layer}{ours}.weight"] = joined
    # the rotary frequencies follow from the config
    tensors.pop("rope.freqs.weight", None)
    return tensors


def meta_config(directory, tensors):
    """Build our Config from params.json and from the shapes of the tensors, which it leaves out."""
    path = directory / "params.json"
    params = read_json(path)
    for key in ("use_scaled_rope", "quantization_args", "lora_args", "moe"):
        if params.get(key):
            raise UserError(f"{path} asks for {key}, which is not supported")
    try:
        config = Config(vocab=tensors["embed_tokens.weight"].shape[0],
                        hidden=tensors["layers.0.mlp.gate_proj.weight"].shape[0],
                        dim=params["dim"], layers=params["n_layers"], heads=params["n_heads"],
                        kv_heads=params.get("n_kv_heads") or params["n_heads"],
                        context=params.get("max_seq_len", 2048),
                        theta=params.get("rope_theta", 10000.0), eps=params["norm_eps"],
                        tied="lm_head.weight" not in tensors)
    except KeyError as error:
        raise UserError(f"{directory}: neither params.json nor the weights have {error}") from None
    return validate_config(config, path)


def load_meta(directory):
    """Load a model from Meta's files."""
    tensors = meta_tensors(directory)
    config = meta_config(directory, tensors)
    for name in tensors:
        if name.endswith("q_proj.weight"):
            tensors[name] = half_split(tensors[name], config.heads)
        elif name.endswith("k_proj.weight"):
            tensors[name] = half_split(tensors[name], config.kv_heads)
    return build_model(config, tensors, directory)


# ------------------------------------------------------------------------------------------------
# any format


def find_base(adapter, given):
    """Return the directory of an adapter's base: as given, or as the adapter names it."""
    named = given or read_adapter_config(adapter).get("base_model_name_or_path") or ""
    base = Path(named)
    if not (base / "config.json").exists() or base.resolve() == adapter.resolve():
        raise UserError(f"{adapter} is an adapter of {named or 'an unnamed base'!r}: say where "
                        "that checkpoint is, --base DIR")
    return base


def find_adapter(directory):
    """Return where an adapter is: in the directory or in its adapter/, as train.py leaves it."""
    for candidate in (directory, directory / "adapter"):
        if (candidate / "adapter_config.json").exists():
            return candidate
    return None


def load_any(directory, base=None):
    """Load the model of a checkpoint directory of any known format; an adapter is merged."""
    if (directory / "params.json").exists():
        return load_meta(directory)
    if (directory / "adapter_config.json").exists():
        model = load_any(find_base(directory, base))
        read_adapter(model, directory)
        return merge_lora(model)
    if not (directory / "config.json").exists():
        raise UserError(f"{directory} is no checkpoint that is known here: it has neither "
                        "config.json nor params.json nor adapter_config.json")
    if not weight_file(directory).exists() and list(directory.glob("pytorch_model*.bin")):
        return build_model(read_config(directory), read_bins(directory), directory)
    return load_model(directory)


def load_tokenizer(directory, base=None):
    """Load a checkpoint's tokenizer: Meta's is one folder up, an adapter's may be in its base."""
    candidates = [directory]
    if (directory / "params.json").exists():
        candidates.append(directory.parent)
    if (directory / "adapter_config.json").exists():
        candidates.append(find_base(directory, base))
    for candidate in candidates:
        if (candidate / "tokenizer.model").exists():
            return Tokenizer.load(candidate)
    # reports what is missing
    return Tokenizer.load(directory)


# ------------------------------------------------------------------------------------------------
# the command


def write_peft(source, out, base):
    """Write only the adapter of `source`, with its tokenizer and chat template."""
    adapter = find_adapter(source)
    if adapter is None:
        raise UserError(f"{source} has no adapter: it was not trained with train.py --lora")
    base = find_base(adapter, base)
    require_apart([out], [base], directory=True)
    model = load_any(base)
    read_adapter(model, adapter)
    tokenizer = load_tokenizer(adapter, base)
    with staged(out) as new:
        write_adapter(model, new, base)
        tokenizer.save(new)
    print(f"{out}: an adapter of {base}, {len(lora_modules(model))} matrices")


def write_hf(source, out, base):
    """Write the complete model of `source`, with its tokenizer and chat template."""
    if (source / "adapter_config.json").exists():
        base = find_base(source, base)
        require_apart([out], [base], directory=True)
    model = load_any(source, base)
    tokenizer = load_tokenizer(source, base)
    config = model.config
    require_fit(tokenizer, config, source)
    with staged(out) as new:
        save_model(model, new, tokenizer)
        tokenizer.save(new)
    (out / "model.safetensors.index.json").unlink(missing_ok=True)
    params = source / "params.json"
    if params.exists() and "max_seq_len" not in read_json(params):
        print("params.json does not tell the context: 2,048 is assumed, as in LLaMA; LLaMA-2's is "
              "4,096 (max_position_embeddings in config.json)")
    total = sum(weight.numel() for weight in model.parameters())
    dtype = str(model.embed_tokens.weight.dtype).removeprefix("torch.")
    print(f"{out}: {total:,} weights in {dtype}, {config.context:,} tokens of context, "
          f"{tokenizer.vocab:,} pieces")


def main():
    """Convert one directory into another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("source", type=Path, help="directory of a checkpoint or an adapter")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--to", choices=("hf", "peft"), default="hf",
                        help="a complete Hugging Face directory (default), or only a PEFT adapter")
    parser.add_argument("--base", help="an adapter's base, if it is not where the adapter says")
    args = parser.parse_args()
    if not args.source.is_dir():
        raise UserError(f"{args.source} is no directory; single files (GGUF and such) are not read")
    require_apart([args.out], [args.source, args.base], directory=True)
    write = {"hf": write_hf, "peft": write_peft}[args.to]
    other = {"hf": "adapter_config.json", "peft": "config.json"}[args.to]
    if (args.out / other).exists():
        raise UserError(f"{args.out} holds {other}, so another kind of checkpoint; write somewhere "
                        "else")
    write(args.source, args.out, args.base)


if __name__ == "__main__":
    run(main)
