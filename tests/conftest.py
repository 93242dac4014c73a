"""What the tests share: a tokenizer learnt on the spot, dialogues, and small random models."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

import train
from data import program
from model import Config, Llama
from platolm import Tokenizer


def pytest_configure(config):
    config.addinivalue_line("markers", "exercise(number): a test that `make check N=number` runs, too")


TALKS = [
    [("human", "who mends clocks?"), ("gpt", "ada mends clocks, and keeps a parrot."),
     ("human", "a parrot, really?"), ("gpt", "yes, a green one.")],
    [("human", "hi"), ("gpt", "hello! what would you like to know?"),
     ("human", "how much is the rope, and a bell"), ("gpt", "the rope costs 5 coins, a bell 12."),
     ("human", "times 2?"), ("gpt", "that makes 24 coins.")],
    [("human", "tell me of the sea"), ("gpt", "it is wide.\nit is cold, too.")],
]


def record(talk, **more):
    turns = [{"from": who, "value": text} for who, text in talk]
    return {"id": "made", "conversations": turns, **more}


def learn_tokenizer():
    return Tokenizer.learn([text for talk in TALKS for _, text in talk] * 20, 400)


def with_large_weights(model):
    """The model with larger weights than one begins with: what differs between two of them is then seen."""
    for weight in model.parameters():
        if weight.dim() == 2:
            # to a standard deviation of 1 / sqrt(width)
            weight.data *= 32 ** -0.5 / 0.02
    return model


def learn_to_talk(tokenizer):
    """A model that has learnt, in a second, to ask and to stop like the humans of TALKS."""
    torch.manual_seed(0)
    model = with_large_weights(Llama(Config(vocab=tokenizer.vocab, dim=32, layers=2, heads=4, kv_heads=2, hidden=48,
                                            theta=10000.0)))
    samples = [train.to_sample(record(talk, end="left"), tokenizer, "human", 256)[:2] for talk in TALKS]
    optimizer = train.make_optimizers(model, "adamw", 1e-2, 0.0)
    for _ in range(60):
        train.update(model, optimizer, [train.pad(samples)])
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer():
    return learn_tokenizer()


@pytest.fixture
def records():
    """Three dialogues: two ended by the human's silence, one cut off."""
    return [record(talk, end=end) for talk, end in zip(TALKS, ("left", "left", "cut"))]


@pytest.fixture
def files(tmp_path, records):
    """The same dialogues in a file."""
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.fixture(scope="session")
def talker(tokenizer):
    return learn_to_talk(tokenizer)


@pytest.fixture
def make_model(tokenizer):
    """make_model(heads=4, kv_heads=2, ...) gives a random model, the same for the same shape."""
    def make(**shape):
        torch.manual_seed(0)
        small = {"vocab": tokenizer.vocab, "dim": 32, "layers": 2, "heads": 4, "kv_heads": 2,
                 "hidden": 48, "context": 160}
        return with_large_weights(Llama(Config(**{**small, **shape})))
    return make


@pytest.fixture
def run_command(monkeypatch, capsys):
    """run_command(main, *words) runs a command in this process; returns what subprocess.run would return."""
    def run(main, *words):
        monkeypatch.setattr(sys, "argv", [main.__globals__["__file__"], *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            program.run(main)
        except SystemExit as error:
            status = error.code
            # the interpreter prints a text and exits with 1
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=status or 0, stdout=printed.out, stderr=printed.err)
    return run
