"""
LoRA's matrices in PEFT's format: OUT/adapter of `train.py --lora`, in and out.
"""

import json
import math

from data.checkpoint import read_pickle, read_safetensors, is_valid_setting, write_safetensors
from data.program import UserError, read_json
from model import LoRALinear, add_lora

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
        raise UserError(f"{path} asks for {strange[0]}, which is not supported")
    if not all(is_valid_setting(page.get(key), kind) for key, kind in (("r", int), ("lora_alpha", float))):
        raise UserError(f"{path} does not tell r and lora_alpha")
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
                raise UserError(f"{directory} has no {adapter_name(name, part)} of shape "
                              f"{tuple(own.shape)}")
            own.data.copy_(there)
    if tensors:
        raise UserError(f"{directory} holds {next(iter(tensors))}, which no part of its base is for")
