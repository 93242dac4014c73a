"""
The one checkpoint format: a Hugging Face Llama directory, config.json and model.safetensors.
"""

import json
import math
import mmap
import struct
import warnings
import zipfile
from pathlib import Path

import torch

from data.program import UserError, read_json
from model import Config, Llama


# our name for a size, and theirs
CONFIG_KEYS = {"vocab": "vocab_size", "dim": "hidden_size", "layers": "num_hidden_layers",
         "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
         "hidden": "intermediate_size", "context": "max_position_embeddings",
         "theta": "rope_theta", "eps": "rms_norm_eps", "tied": "tie_word_embeddings"}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool}
DTYPE_CODES = {dtype: code for code, dtype in DTYPES.items()}


def is_valid_setting(value, kind):
    """Whether a value of a config can be meant: a switch, or a number above 0."""
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else int) and value > 0


def validate_config(config, path):
    """A config whose numbers came from a file, if a model can be made of them."""
    for ours, theirs in CONFIG_KEYS.items():
        value = getattr(config, ours)
        if not is_valid_setting(value, Config.__annotations__[ours]):
            raise UserError(f"{path}: {theirs} is missing or makes no sense: {value!r}")
    if config.dim % (2 * config.heads) or config.heads % config.kv_heads:
        raise UserError(f"{path}: {config.dim} dimensions, {config.heads} heads and "
                      f"{config.kv_heads} key/value heads do not divide each other")
    return config


def read_config(directory):
    """Our Config from a directory's config.json."""
    path = directory / "config.json"
    page = read_json(path)
    if page.get("model_type") != "llama":
        raise UserError(f"{path} describes a {page.get('model_type')!r} model, not a 'llama'")
    if page.get("num_key_value_heads") is None:
        page["num_key_value_heads"] = page.get("num_attention_heads")
    page.setdefault("tie_word_embeddings", False)
    # transformers 5 keeps theta in the first of these
    ropes = [page.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
    if not all(isinstance(rope, dict) for rope in ropes):
        raise UserError(f"{path}: rope_parameters or rope_scaling makes no sense")
    page.setdefault("rope_theta", ropes[0].get("rope_theta", 10000.0))
    refuse_unsupported(path, page, [rope.get("rope_type", rope.get("type", "default")) for rope in ropes])
    config = validate_config(Config(**{ours: page.get(theirs) for ours, theirs in CONFIG_KEYS.items()}), path)
    if page.get("head_dim") not in (None, config.dim // config.heads):
        raise UserError(f"{path}: heads of another width (head_dim) are not supported")
    return config


def refuse_unsupported(path, page, kinds):
    """A Problem if a config asks for what this LLaMA has not; kinds: of rotary positions."""
    strange = {"rope scaling": any(kind != "default" for kind in kinds),
               "a quantised model": page.get("quantization_config") is not None,
               "biases (attention_bias)": page.get("attention_bias", False),
               "biases (mlp_bias)": page.get("mlp_bias", False),
               "an activation other than silu": page.get("hidden_act", "silu") != "silu"}
    for what, is_so in strange.items():
        if is_so:
            raise UserError(f"{path} asks for {what}, which is not supported")


def write_config(config, directory, dtype):
    """config.json in the words of transformers 4 and 5 and of llama.cpp."""
    page = {theirs: getattr(config, ours) for ours, theirs in CONFIG_KEYS.items()}
    page |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
             "head_dim": config.dim // config.heads, "attention_bias": False, "mlp_bias": False,
             "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
             "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": str(dtype).split(".")[-1]}
    (directory / "config.json").write_text(json.dumps(page, indent=2) + "\n")


def read_header(path, size, data):
    """
    The table of a safetensors file, {name: {"dtype", "shape", "data_offsets"}}, and where the
    tensors begin. Everything it claims is checked against the file's size first.
    """
    n = struct.unpack("<Q", data[:8])[0] if size >= 8 else size
    # no model has so many tensors that their table is larger than 100 MB
    if n > min(size - 8, 100 << 20):
        raise UserError(f"{path} is cut off or no safetensors file: its header would be {n:,} bytes "
                      f"long, the file is {size:,}")
    try:
        entries = json.loads(data[8:8 + n])
        entries.pop("__metadata__", None)
        spans, place = [], 0
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            numbers = [begin, end, *entry["shape"]]
            if not all(type(n) is int and 0 <= n <= size for n in numbers):
                raise ValueError(f"{name!r} has {numbers}")
            spans.append((begin, end, math.prod(entry["shape"]), entry["dtype"], name))
        for begin, end, count, dtype, name in sorted(spans):
            if begin != place or end - begin != count * DTYPES[dtype].itemsize:
                raise UserError(f"{path}: the header is wrong about {name!r}: {count} numbers of "
                              f"{dtype} do not fill bytes {begin} to {end}")
            place = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: the safetensors header makes no sense ({error!r})") from None
    if place != size - 8 - n:
        raise UserError(f"{path} is cut off: {place:,} bytes of tensors are promised, "
                      f"{size - 8 - n:,} are there")
    return entries, 8 + n


def read_safetensors(path):
    """{name: tensor} of a safetensors file; views of the file, nothing is copied yet."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is an empty file") from None
    entries, start = read_header(path, len(data), data)
    tensors = {}
    for name, entry in entries.items():
        dtype, count = DTYPES[entry["dtype"]], math.prod(entry["shape"])
        flat = torch.empty(0, dtype=dtype) if count == 0 else torch.frombuffer(
            data, dtype=dtype, count=count, offset=start + entry["data_offsets"][0])
        tensors[name] = flat.view(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor}: the whole file or, if anything goes wrong, none of it."""
    table, place = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        end = place + tensor.numel() * tensor.itemsize
        table[name] = {"dtype": DTYPE_CODES[tensor.dtype], "shape": list(tensor.shape),
                       "data_offsets": [place, end]}
        place = end
    head = json.dumps(table).encode()
    # spaces up to a multiple of 8, so that numbers begin where processors like to read them
    head += b" " * (-len(head) % 8)
    part = Path(f"{path}.tmp")
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    part.replace(path)


def weight_file(directory):
    """The file that holds a directory's weights or, where they are in parts, names those parts."""
    file = Path(directory) / "model.safetensors"
    index = Path(f"{file}.index.json")
    return file if file.exists() or not index.exists() else index


def shard_files(index):
    """The files that an index names, all of its own directory."""
    weight_map = read_json(index).get("weight_map")
    files = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise UserError(f"{index} does not name files of its own directory")
    return sorted(set(files))


def read_weights(directory):
    """{name: tensor} of a checkpoint, from one file or from the shards its index names."""
    file = weight_file(directory)
    files = shard_files(file) if file.suffix == ".json" else [file.name]
    return {name: tensor for part in files
            for name, tensor in read_safetensors(directory / part).items()}


def load_model(directory, attention="explicit"):
    """The model of a checkpoint directory, in the precision it was stored in."""
    directory = Path(directory)
    return build_model(read_config(directory), read_weights(directory), directory, attention)


def build_model(config, tensors, source, attention="explicit"):
    """A model of this shape with these tensors {name: tensor}, named as in a checkpoint."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    # a shape without storage: the tensors of the file move in
    with torch.device("meta"):
        model = Llama(config, attention)
    if config.tied:
        tensors["lm_head.weight"] = tensors.get("embed_tokens.weight")
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if tensors.get(name) is None:
            raise UserError(f"{source}: the weights lack {name}")
        if tensors[name].shape != shape:
            raise UserError(f"{source}: {name} has shape {tuple(tensors[name].shape)}, but its "
                          f"config asks for {tuple(shape)}")
        if not tensors[name].is_floating_point():
            raise UserError(f"{source}: {name} holds {tensors[name].dtype}, no weights")
    # old files hold the rotary speeds, too, which follow from the config
    if more := [name for name in tensors if name not in expected and "rotary" not in name]:
        raise UserError(f"{source}: the weights hold {more[0]}, which this LLaMA has not")
    model.load_state_dict({name: tensors[name].clone() for name in expected}, assign=True)
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def save_model(model, directory):
    """Write config.json and model.safetensors, the weights last and in one move."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_config(model.config, directory, model.embed_tokens.weight.dtype)
    tensors = {name if name.startswith("lm_head") else f"model.{name}": tensor
               for name, tensor in model.state_dict().items()}
    # a shared matrix is stored once
    if model.config.tied:
        del tensors["lm_head.weight"]
    write_safetensors(directory / "model.safetensors", tensors)
    # what was here in parts is another model now
    (directory / "model.safetensors.index.json").unlink(missing_ok=True)


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
        raise UserError(f"{path} is cut off, or holds more than tensors, and is not opened "
                      f"({why})") from None
    if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and torch.is_tensor(part) for name, part in tensors.items()):
        raise UserError(f"{path} holds something else than tensors by name")
    return tensors
