"""The plan's arithmetic against models that are counted, and commands that are read as they are run."""

import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from data.experiment import cost_plan as e
from model import Config, Llama, add_lora
from tests.programs.bench_train import NAMES


def counted(config, *names, rank=0):
    with torch.device("meta"):
        model = Llama(config)
        if rank:
            add_lora(model, names, rank, 1)
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p.dim() == 2)


@pytest.mark.parametrize("config", [*e.SHAPES.values(), Config(kv_heads=2), Config(tied=False)])
def test_weights_are_counted_right(config):
    assert e.weights_of(config)[1] == counted(config)


@pytest.mark.parametrize("config", e.SHAPES.values())
@pytest.mark.parametrize("names", [NAMES, ["q_proj", "lm_head"]])
def test_loras_weights_are_counted_right(config, names):
    args = Namespace(lora=16, lora_names=names)
    assert e.lora_of(config, args) == counted(config, *names, rank=16)


def planned(commands, *words):
    done = subprocess.run([sys.executable, "-m", "data.experiment.cost_plan", *words], input=commands, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plan_by_hand():
    """LLaMA-7B has 6.74 billion weights, and the authors' segments make 807 updates, as they had."""
    way = "--learn human --data x --base nowhere --out y --epochs 3 --samples 128 --precision bf16 --tokens 2048 "
    said = planned(f"python train.py {way} --weights bf16\n", "7b")
    assert "6.74 billion weights" in said and "807 updates" in said
    # weights, gradients and two averages of 2 bytes each
    assert "53.9 GB of weights" in said and "fits in 80 GB" in said
    lora = f"python train.py {way} --weights bf16 --lora 16 --activation-checkpointing\n"
    assert "fits in 24 GB" in planned(lora, "7b", "--gpu", "4090")
    assert "DOES NOT FIT in 24 GB" in planned(lora.replace("--activation-checkpointing", ""), "7b", "--gpu", "4090")
    four = f"python -m torch.distributed.run --nproc_per_node 4 train.py {way} --shard --activation-checkpointing\n"
    assert "on each of 4 a100: fits" in planned(four, "7b")


def test_a_simulation_and_a_judge_cost_what_is_said_elsewhere(tmp_path):
    asked = (f"--user x --teacher https://api.openai.com/v1 --model gpt-3.5-turbo --out {tmp_path}/c --dialogues 100 "
             "--max-question 512")
    dry = subprocess.run([sys.executable, "simulate.py", *asked.split(), "--dry-run"], capture_output=True, text=True)
    said = planned(f"python simulate.py {asked} --max-dollars DOLLARS\n", "7b")
    assert dry.returncode == 0 and all(line in said for line in dry.stdout.splitlines()[:3])
    said = planned("python evaluate.py judge a b --mode pairwise-all --judge x --judge-model gpt-4\n", "7b")
    assert "320 requests" in said and "in all, as estimated: 0.0 hours" in said


def test_the_bench_runs_without_a_gpu():
    """At a small size, which says nothing about speed; transformers need not be there."""
    done = subprocess.run([sys.executable, "-m", "tests.programs.bench_train"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row.split(",")[0] for row in done.stdout.splitlines()[1:]] == [
        "ours", "transformers + peft", "ours", "transformers"]
    assert sum("of the product's rate" in row for row in done.stdout.splitlines()) >= 2
