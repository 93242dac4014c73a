"""
The one checkpoint format: a Hugging Face Llama directory, config.json and model.safetensors.

`load_model` and `save_model` are what others need; the rest serves these two, and data/formats.
Nothing in a file is executed, and everything that a header claims is checked against the file's
size first.
"""

import json
import math
import mmap
import struct
import warnings
import zipfile
from pathlib import Path

import torch

from data.program import UserError, atomic_files, read_json, write_json
from model import Config, Llama

# our name of a size, and Hugging Face's
CONFIG_KEYS = {"vocab": "vocab_size", "dim": "hidden_size", "layers": "num_hidden_layers",
               "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
               "hidden": "intermediate_size", "context": "max_position_embeddings",
               "theta": "rope_theta", "eps": "rms_norm_eps", "tied": "tie_word_embeddings"}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool}
DTYPE_CODES = {dtype: code for code, dtype in DTYPES.items()}
# files that data/formats/convert.py makes a checkpoint of
CONVERTIBLE = ("pytorch_model*.bin*", "params.json", "adapter_config.json")
# no model has so many tensors that the header of its file is larger
MAX_HEADER = 100 << 20


def load_model(directory, attention="explicit"):
    """Load the model of a checkpoint directory, in the precision it was stored in."""
    directory = Path(directory)
    require_weights(directory)
    return build_model(read_config(directory), read_weights(directory), directory, attention)


def require_weights(directory):
    """Raise UserError unless a directory holds weights that are read here; name the converter."""
    directory = Path(directory)
    if (directory / "config.json").exists() and weight_file(directory).exists():
        return
    for pattern in CONVERTIBLE:
        for file in directory.glob(pattern):
            raise UserError(f"{directory} holds {file.name}, which is not read here; python -m "
                            f"data.formats.convert {directory} NEW makes a checkpoint of it")


def require_fit(tokenizer, config, directory):
    """Raise UserError if a tokenizer has more pieces than the model has rows for."""
    if tokenizer.vocab > config.vocab:
        raise UserError(f"{directory}: the tokenizer has {tokenizer.vocab:,} pieces, the model "
                        f"only {config.vocab:,}: they are not of one checkpoint")


def save_model(model, directory, tokenizer=None):
    """
    Write config.json and model.safetensors, the weights last, each atomically.

    tokenizer: whose ids of <s> and </s> the config names (1 and 2, as LLaMA's, without one).
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    special_ids = (tokenizer.bos, tokenizer.eos) if tokenizer else (1, 2)
    write_config(model.config, directory, model.embed_tokens.weight.dtype, special_ids)
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors[name if name.startswith("lm_head") else f"model.{name}"] = tensor
    # a shared matrix is stored once
    if model.config.tied:
        del tensors["lm_head.weight"]
    write_safetensors(directory / "model.safetensors", tensors)
    # an index of an earlier model's shards
    (directory / "model.safetensors.index.json").unlink(missing_ok=True)


def build_model(config, tensors, source, attention="explicit"):
    """Build a model of this shape from {name: tensor}, named as in a checkpoint called `source`."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    # a shape without storage: the parameters come from the tensors below
    with torch.device("meta"):
        model = Llama(config, attention)
    if config.tied:
        tensors["lm_head.weight"] = tensors.get("embed_tokens.weight")
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise UserError(f"{source}: the weights lack {name}")
        if tensor.shape != shape:
            raise UserError(f"{source}: {name} has shape {tuple(tensor.shape)}, but its "
                            f"config asks for {tuple(shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"{source}: {name} holds {tensor.dtype}, not floating-point numbers")
    for name in tensors:
        # old files hold the rotary speeds as well, which follow from the config
        if name not in expected and "rotary" not in name:
            raise UserError(f"{source}: the weights hold {name}, which this model does not have")
    # cloned: they are views of a mapped file
    model.load_state_dict({name: tensors[name].clone() for name in expected}, assign=True)
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


# ------------------------------------------------------------------------------------------------
# config.json


def is_valid_setting(value, kind):
    """Whether a value of a config makes sense as `kind`: a bool, or a number above 0."""
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else int) and value > 0


def validate_config(config, path):
    """Return a Config that was read from `path` if a model can be made of it; else UserError."""
    for ours, theirs in CONFIG_KEYS.items():
        value = getattr(config, ours)
        if not is_valid_setting(value, Config.__annotations__[ours]):
            raise UserError(f"{path}: {theirs} is missing or makes no sense: {value!r}")
    if config.dim % (2 * config.heads):
        raise UserError(f"{path}: {config.dim} dimensions cannot be divided into {config.heads} "
                        "heads of an even width")
    if config.heads % config.kv_heads:
        raise UserError(f"{path}: {config.heads} query heads cannot share {config.kv_heads} "
                        "key/value heads equally")
    return config


def read_config(directory):
    """Read a directory's config.json as our Config; what this LLaMA cannot do is a UserError."""
    path = directory / "config.json"
    keys = read_json(path)
    if keys.get("model_type") != "llama":
        raise UserError(f"{path} describes a {keys.get('model_type')!r} model, not a 'llama'")
    if keys.get("num_key_value_heads") is None:
        keys["num_key_value_heads"] = keys.get("num_attention_heads")
    keys.setdefault("tie_word_embeddings", False)
    # transformers 5 keeps theta in rope_parameters
    parameters = keys.get("rope_parameters") or {}
    scaling = keys.get("rope_scaling") or {}
    if not isinstance(parameters, dict) or not isinstance(scaling, dict):
        raise UserError(f"{path}: rope_parameters or rope_scaling makes no sense")
    thetas = {keys.get("rope_theta"), parameters.get("rope_theta"), scaling.get("rope_theta")}
    thetas.discard(None)
    if len(thetas) > 1:
        raise UserError(f"{path} names several rope_theta: {', '.join(map(str, thetas))}; programs "
                        "differ in which they take")
    keys["rope_theta"] = thetas.pop() if thetas else 10000.0
    unsupported = {
        "rope scaling": rope_type(parameters) != "default" or rope_type(scaling) != "default",
        "a quantised model": keys.get("quantization_config") is not None,
        "biases (attention_bias)": keys.get("attention_bias", False),
        "biases (mlp_bias)": keys.get("mlp_bias", False),
        "an activation other than silu": keys.get("hidden_act", "silu") != "silu"}
    for feature, wanted in unsupported.items():
        if wanted:
            raise UserError(f"{path} asks for {feature}, which is not supported")
    sizes = {ours: keys.get(theirs) for ours, theirs in CONFIG_KEYS.items()}
    config = validate_config(Config(**sizes), path)
    if keys.get("head_dim") not in (None, config.dim // config.heads):
        raise UserError(f"{path}: heads of another width (head_dim) are not supported")
    return config


def rope_type(rope):
    """Return the kind of rotary positions that an object of config.json names, in either style."""
    return rope.get("rope_type", rope.get("type", "default"))


def write_config(config, directory, dtype, special_ids):
    """Write config.json with the keys of transformers 4 and 5 and of llama.cpp."""
    bos, eos = special_ids
    keys = {theirs: getattr(config, ours) for ours, theirs in CONFIG_KEYS.items()}
    keys |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
             "head_dim": config.dim // config.heads, "attention_bias": False, "mlp_bias": False,
             "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
             "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": str(dtype).split(".")[-1]}
    write_json(directory / "config.json", keys)


# ------------------------------------------------------------------------------------------------
# safetensors: 8 bytes with the header's length, a header in JSON, the numbers


def read_header(path, data):
    """
    Read and check the header of a safetensors file; data: all of its bytes.

    Returns {name: {"dtype", "shape", "data_offsets"}} and the offset at which the tensors begin.
    """
    size = len(data)
    length = struct.unpack("<Q", data[:8])[0] if size >= 8 else size
    if length > min(size - 8, MAX_HEADER):
        raise UserError(f"{path} is cut off or no safetensors file: its header would be {length:,} "
                        f"bytes long, the file is {size:,}")
    try:
        entries = json.loads(data[8:8 + length])
        entries.pop("__metadata__", None)
        spans = []
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise UserError(f"{path}: {name} is stored as {entry['dtype']!r}, which is not "
                                "supported")
            numbers = [begin, end, *entry["shape"]]
            if not all(type(n) is int and 0 <= n <= size for n in numbers):
                raise ValueError(f"{name!r} has {numbers}")
            spans.append((begin, end, math.prod(entry["shape"]), entry["dtype"], name))
        # without gaps and overlaps: each tensor begins where the one before it ends
        offset = 0
        for begin, end, count, dtype, name in sorted(spans):
            if begin != offset or end - begin != count * DTYPES[dtype].itemsize:
                raise UserError(f"{path}: the header is wrong about {name!r}: {count} numbers of "
                                f"{dtype} do not fill bytes {begin} to {end}")
            offset = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: the safetensors header makes no sense ({error!r})") from None
    if offset != size - 8 - length:
        raise UserError(f"{path} is cut off: {offset:,} bytes of tensors are promised, "
                        f"{size - 8 - length:,} are there")
    return entries, 8 + length


def read_safetensors(path):
    """Read {name: tensor} of a safetensors file; views of the file, nothing is copied yet."""
    try:
        with open(path, "rb") as file:
            # ACCESS_COPY: torch.frombuffer wants writable memory; the file is never written
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is an empty file") from None
    entries, start = read_header(path, data)
    tensors = {}
    for name, entry in entries.items():
        dtype = DTYPES[entry["dtype"]]
        count = math.prod(entry["shape"])
        if count == 0:
            flat = torch.empty(0, dtype=dtype)
        else:
            offset = start + entry["data_offsets"][0]
            flat = torch.frombuffer(data, dtype=dtype, count=count, offset=offset)
        tensors[name] = flat.view(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor} atomically."""
    entries = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.itemsize
        entries[name] = {"dtype": DTYPE_CODES[tensor.dtype], "shape": list(tensor.shape),
                         "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    # spaces up to a multiple of 8, so that the numbers are aligned
    header += b" " * (-len(header) % 8)
    with atomic_files(path, mode="wb") as [file]:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())


def weight_file(directory):
    """Return the file of a directory's weights or, where they are in shards, the shards' index."""
    file = Path(directory) / "model.safetensors"
    index = Path(f"{file}.index.json")
    return file if file.exists() or not index.exists() else index


def shard_files(index):
    """Return the names of the files that an index names, all of them in its own directory."""
    weight_map = read_json(index).get("weight_map")
    files = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise UserError(f"{index} does not name files of its own directory")
    return sorted(set(files))


def read_weights(directory):
    """Read {name: tensor} of a checkpoint, from one file or from the shards its index names."""
    file = weight_file(directory)
    files = shard_files(file) if file.suffix == ".json" else [file.name]
    tensors = {}
    for name in files:
        tensors.update(read_safetensors(directory / name))
    return tensors


def read_pickle(path):
    """Read {name: tensor} of a .bin or .pth file, without running any code that it may hold."""
    try:
        # mapped, not read: of a large file only what is used comes into memory (files from before
        # torch 1.6 are no zip files, and cannot be mapped)
        with warnings.catch_warnings():
            # torch warns about pickles that are refused anyway
            warnings.simplefilter("ignore")
            tensors = torch.load(path, map_location="cpu", weights_only=True,
                                 mmap=zipfile.is_zipfile(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:80] if str(error).strip() else "it is empty"
        raise UserError(f"{path} is cut off, or holds more than tensors, and is not opened "
                        f"({reason})") from None
    if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in tensors.items()):
        raise UserError(f"{path} holds something else than tensors by name")
    return tensors
