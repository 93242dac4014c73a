"""One run on several processes is the run of one: each way, with work that does not divide evenly."""

import os
import subprocess
import sys

import pytest
import torch

import train
from conftest import record
from data.checkpoint import save_model, load_model
from data.program import to_jsonl

# the cards' own FSDP2 is older than the one for CPUs
parts = pytest.mark.skipif(torch.__version__ < "2.7", reason="FSDP2 on a CPU needs torch 2.7")

# trains a small model as train.py does; killed, if told so, after the update of that number
CHILD = """
import sys
from pathlib import Path
import torch
import train
from data.distributed import start_ranks
from model import Config, Llama
from platolm import Tokenizer

data, tokenizer, out, shard, dies = sys.argv[1:]
hp = train.Hyperparameters(steps=8, tokens=120, accumulate=5, lr=1e-2, weight_decay=0.1, warmup=0.1, seed=3)
torch.manual_seed(0)
torch.set_num_threads(1)
tokenizer = Tokenizer.load(tokenizer)
model = Llama(Config(vocab=tokenizer.vocab, dim=32, layers=2, heads=4, kv_heads=2, hidden=48, context=160))
ranks = start_ranks(shard == "shard")
if ranks.sharded:
    ranks.shard_model(model, torch.float32, "float32")
samples = train.load_samples([data], tokenizer, "human", 160)
real, done = train.update, []
def update(*what):
    if len(done) == int(dies):
        raise SystemExit(9)
    done.append(1)
    return real(*what)
train.update = update
log = train.train(model, samples, samples[:4], hp, Path(out), {}, resume=True, ranks=ranks)
state = ranks.state(model, [])[0]
if ranks.rank == 0:
    torch.save({"state": {name: tensor.clone() for name, tensor in state.items()}, "log": log}, out + "/end.pt")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tokenizer):
    """trained(processes, shard, dies) -> what a run came to; processes 0: without torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "child.py").write_text(CHILD)
    tokenizer.save(folder)
    # humans who say little and humans who say a lot: what is learnt differs from batch to batch
    talks = [[("human", "hi " * (1 + 9 * (n % 3))), ("gpt", "hello"), ("human", "bye"), ("gpt", "well" * (n % 5 + 1))]
             for n in range(23)]
    (folder / "talks.jsonl").write_text("".join(to_jsonl(record(talk, end="left")) for talk in talks))

    def train(processes, shard="", dies=99, name=None):
        out = folder / (name or f"{processes}{shard}")
        out.mkdir(exist_ok=True)
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes else []
        done = subprocess.run([sys.executable, *start, folder / "child.py", folder / "talks.jsonl", folder, out,
                               shard, str(dies)], capture_output=True, text=True, timeout=300,
                              env=os.environ | {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"})
        assert (done.returncode == 0) == (dies == 99), done.stderr[-3000:]
        return torch.load(out / "end.pt", weights_only=True) if dies == 99 else None
    return train


@pytest.fixture(scope="module")
def alone(trained):
    return trained(0)


def same(found, alone):
    """Weights and losses within 1e-5, and the very same batches."""
    # parts name a tied matrix twice
    state = {name: found["state"][name] for name in alone["state"]}
    torch.testing.assert_close(state, alone["state"], rtol=0, atol=1e-5)
    for here, there in zip(found["log"], alone["log"], strict=True):
        assert set(here) == set(there)
        for key in here:
            assert abs(here[key] - there[key]) <= (1e-4 if key in ("loss", "norm", "held_out") else 0), key


def test_work_does_not_divide_evenly(alone):
    """Or the tests below would show little."""
    assert len({row["learnt"] for row in alone["log"]}) > 4


@pytest.mark.parametrize("shard", ["", pytest.param("shard", marks=parts)])
def test_two_processes_are_one(trained, alone, shard):
    """Five micro-batches an update: one process has three, the other two and an empty one."""
    same(trained(2, shard), alone)


@parts
def test_a_killed_run_of_parts_goes_on_to_the_same_end(trained, alone):
    trained(2, "shard", dies=5, name="killed")
    same(trained(2, "shard", name="killed"), alone)


def test_a_killed_run_of_two_processes_may_go_on_in_one(trained, alone):
    trained(2, "", dies=5, name="fewer")
    same(trained(0, "", name="fewer"), alone)


@parts
@pytest.mark.parametrize("words", [["--shard", "--weights", "float32"], ["--lora", "2", "--weights", "bf16"]])
def test_the_large_presets_way_from_base_to_checkpoint(make_model, tokenizer, files, tmp_path, words):
    """What data/large.mk starts on several cards: nothing here is measured, it has to come through."""
    save_model(make_model(tied=False).half(), tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py", "--learn",
         "human", "--data", files, "--held-out", files, "--base", tmp_path / "base", "--out", tmp_path / "out",
         "--epochs", "2", "--samples", "3", "--tokens", "100", "--precision", "bf16", "--attention", "fused",
         "--activation-checkpointing", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "step      2/2" in done.stdout, done.stderr[-3000:]
    before, after = load_model(tmp_path / "base").state_dict(), load_model(tmp_path / "out").state_dict()
    assert all(tensor.dtype == torch.float16 for tensor in after.values())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and ("--shard" in words or all("self_attn" in name for name in changed))


def test_who_would_have_no_work_is_told(files, tmp_path):
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           "train.py", "--learn", "all", "--data", files, "--out", tmp_path / "out"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode and "leaves some of 2 processes without work" in done.stderr


def test_parts_need_torchrun(run_command, files):
    done = run_command(train.main, "--learn", "all", "--data", files, "--out", "y", "--shard")
    assert done.returncode == 1 and "torchrun --nproc_per_node N" in done.stderr
