"""The cost plan: its arithmetic against real models' weights, its reading of commands against their own parsers."""

import io

import pytest
import torch

import simulate
from data.experiment import cost_plan
from model import Config, Llama, add_lora
from tests.programs import bench_train
from tests.programs.bench_train import NAMES


def count_weights(config, *names, rank=0):
    """The weights of a real model's matrices, or those that LoRA of this rank adds to it."""
    with torch.device("meta"):
        model = Llama(config)
        if rank:
            add_lora(model, names, rank, 1)
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p.dim() == 2)


@pytest.mark.parametrize("config", [*cost_plan.SHAPES.values(), Config(kv_heads=2), Config(tied=False)])
def test_weights_are_counted_right(config):
    assert cost_plan.weights_of(config)[1] == count_weights(config)


@pytest.mark.parametrize("config", cost_plan.SHAPES.values())
@pytest.mark.parametrize("names", [NAMES, ["q_proj", "lm_head"]])
def test_loras_weights_are_counted_right(config, names):
    assert cost_plan.lora_weights(config, 16, names) == count_weights(config, *names, rank=16)


@pytest.fixture
def plan(run_command, monkeypatch):
    """plan(commands, *words) gives what the command prints when it reads these commands."""
    def run(commands, *words):
        monkeypatch.setattr("sys.stdin", io.StringIO(commands))
        done = run_command(cost_plan.main, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout
    return run


def test_a_plan_by_hand(plan):
    """LLaMA-7B has 6.74 billion weights, and the authors' segments make 807 updates, as they had."""
    flags = "--learn human --data x --base nowhere --out y --epochs 3 --samples 128 --precision bf16 --tokens 2048 "
    printed = plan(f"python train.py {flags} --weights bf16\n", "7b")
    assert "6.74 billion weights" in printed and "807 updates" in printed
    # weights, gradients and two averages of 2 bytes each
    assert "53.9 GB of weights" in printed and "fits in 80 GB" in printed
    # 34,435 segments of 1,137 tokens
    assert "1.8 GB for the samples" in printed
    lora = f"python train.py {flags} --weights bf16 --lora 16 --activation-checkpointing\n"
    assert "fits in 24 GB" in plan(lora, "7b", "--gpu", "4090")
    assert "DOES NOT FIT in 24 GB" in plan(lora.replace("--activation-checkpointing", ""), "7b", "--gpu", "4090")
    four = f"python -m torch.distributed.run --nproc_per_node 4 train.py {flags} --shard --activation-checkpointing\n"
    assert "on each of 4 a100: fits" in plan(four, "7b")


def test_a_simulation_and_a_judge_cost_what_is_printed_elsewhere(plan, run_command, tmp_path):
    flags = (f"--user x --teacher https://api.openai.com/v1 --model gpt-3.5-turbo --out {tmp_path}/c --dialogues 100 "
             "--max-question 512")
    dry = run_command(simulate.main, *flags.split(), "--dry-run")
    printed = plan(f"python simulate.py {flags} --max-dollars DOLLARS\n", "7b")
    assert dry.returncode == 0 and all(line in printed for line in dry.stdout.splitlines()[:3])
    printed = plan("python evaluate.py judge a b --mode pairwise-all --judge x --judge-model gpt-4\n", "7b")
    assert "320 requests" in printed and "in all, as estimated: 0.0 hours" in printed


def test_the_bench_runs_without_a_gpu(run_command, monkeypatch):
    """At a tiny size, which says nothing about speed; transformers need not be installed."""
    monkeypatch.setattr(bench_train, "TIMES", 1)
    monkeypatch.setattr(bench_train, "SMALL", Config(
        vocab=400, dim=32, layers=2, heads=4, kv_heads=4, hidden=64, context=64, tied=False))
    done = run_command(bench_train.main)
    assert done.returncode == 0, done.stderr
    assert [row.split(",")[0] for row in done.stdout.splitlines()[1:]] == [
        "ours", "transformers + peft", "ours", "transformers"]
    assert sum("of the product's rate" in row for row in done.stdout.splitlines()) >= 2
