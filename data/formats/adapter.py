"""
LoRA adapters in PEFT's format, read and written: OUT/adapter of `train.py --lora`.
"""

import json
import math

from data.checkpoint import is_valid_setting, read_pickle, read_safetensors, write_safetensors
from data.program import UserError, read_json
from model import LoRALinear, add_lora, find_modules

# keys of adapter_config.json: those that are read here, and those that change nothing for a trained
# adapter (target_modules follow from the names of its matrices)
READ = ("peft_type", "r", "lora_alpha", "use_rslora", "bias", "layers_to_transform",
        "layers_pattern", "init_lora_weights", "base_model_name_or_path")
WITHOUT_EFFECT = ("task_type", "auto_mapping", "peft_version", "revision", "inference_mode",
                  "target_modules", "lora_dropout", "megatron_core", "qalora_group_size",
                  "eva_config")
# ways to begin that leave the base's weights alone; with others (pissa, olora, ...) the adapter is
# the difference to a base that was changed
PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


def peft_name(name, part):
    """Return PEFT's name for A or B of the matrix that we call `name`."""
    prefix = "base_model.model." if name.startswith("lm_head") else "base_model.model.model."
    return f"{prefix}{name}.lora_{part}.weight"


def lora_modules(model):
    """Return {name: LoRALinear} for the matrices that LoRA changes."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, LoRALinear)}


def write_adapter(model, directory, base=""):
    """Write a model's LoRA matrices, not merged yet, as a PEFT adapter of the checkpoint `base`."""
    modules = lora_modules(model)
    linear = next(iter(modules.values()))
    rank = linear.A.shape[0]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
              "r": rank, "lora_alpha": linear.scale * rank, "lora_dropout": 0.0,
              "target_modules": sorted({name.split(".")[-1] for name in modules}), "bias": "none",
              "fan_in_fan_out": False, "inference_mode": True, "modules_to_save": None,
              "use_rslora": False, "use_dora": False}
    tensors = {}
    for name, linear in modules.items():
        tensors[peft_name(name, "A")] = linear.A
        tensors[peft_name(name, "B")] = linear.B
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_safetensors(directory / "adapter_model.safetensors", tensors)


def read_adapter_config(directory):
    """Read adapter_config.json; UserError unless it describes plain LoRA."""
    path = directory / "adapter_config.json"
    config = read_json(path)
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise UserError(f"{path} asks for a peft_type other than LORA, or biases, which is not "
                        "supported")
    for key, value in config.items():
        if value and key not in READ + WITHOUT_EFFECT:
            raise UserError(f"{path} asks for {key}, which is not supported")
    if config.get("init_lora_weights") not in PLAIN_BEGINNINGS:
        raise UserError(f"{path}: init_lora_weights {config['init_lora_weights']!r} changes the "
                        "base, which is not supported (PEFT's path_initial_model_for_weight_"
                        "conversion writes a plain adapter)")
    layers = config.get("layers_to_transform")
    if not isinstance(layers, (int, list, type(None))):
        raise UserError(f"{path}: layers_to_transform {layers!r} is not supported")
    if config.get("layers_pattern") not in (None, "", "layers", ["layers"]):
        raise UserError(f"{path}: layers_pattern {config['layers_pattern']!r} is not supported")
    for key, expected in (("r", int), ("lora_alpha", float)):
        if not is_valid_setting(config.get(key), expected):
            raise UserError(f"{path} does not tell r and lora_alpha")
    return config


def keep_layers(model, numbers):
    """Take LoRA away again from all layers but those with these numbers: an int, a list or None."""
    if numbers is None:
        return
    numbers = [numbers] if isinstance(numbers, int) else numbers
    for number, layer in enumerate(model.layers):
        if number not in numbers:
            for parent, name, wrapped in find_modules(layer, LoRALinear):
                setattr(parent, name, wrapped.linear)


def read_adapter(model, directory):
    """Add a PEFT adapter to the model of its base, in place, as LoRA that is not merged."""
    config = read_adapter_config(directory)
    file = directory / "adapter_model.safetensors"
    if file.exists():
        tensors = read_safetensors(file)
    else:
        tensors = read_pickle(file.with_suffix(".bin"))
    # PEFT scales by alpha / rank, with rslora by alpha / sqrt(rank); add_lora divides by the rank
    rank = config["r"]
    alpha = config["lora_alpha"] * (math.sqrt(rank) if config.get("use_rslora") else 1)
    # "...self_attn.q_proj.lora_A.weight" is of a q_proj
    targets = {name.split(".")[-3] for name in tensors if name.count(".") > 2}
    add_lora(model, targets, rank, alpha)
    keep_layers(model, config.get("layers_to_transform"))
    for name, linear in lora_modules(model).items():
        for part, weight in (("A", linear.A), ("B", linear.B)):
            tensor = tensors.pop(peft_name(name, part), None)
            if tensor is None or tensor.shape != weight.shape:
                raise UserError(f"{directory} has no {peft_name(name, part)} of shape "
                                f"{tuple(weight.shape)}")
            weight.data.copy_(tensor)
    if tensors:
        raise UserError(f"{directory} holds {next(iter(tensors))}, which fits no part of its base")
