"""No arm had more than another: read from the logs of runs, and of a small one made here."""

import json
import sys
from pathlib import Path

import pytest

import train
from data.experiment.talks import dialogues
from data.program import write_jsonl

RUNS = sorted(path.parent for path in Path("runs").glob("tiny*/results.json"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of four arms, with a base that has learnt nothing."""
    run = tmp_path_factory.mktemp("run")
    logs = list(dialogues("logs", 300, 0, "arms"))
    for arm in ("human", "replay-open", "self-chat", "oracle"):
        write_jsonl(run / f"chat/{arm}.jsonl",
                    logs if arm == "human" else dialogues(arm, 300, 0, "arms", logs=logs))
    shape = ["--dim", "16", "--layers", "1", "--heads", "1", "--hidden", "16",
             "--precision", "float32", "--attention", "explicit", "--tokens", "1024"]

    def run_training(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train.py", *shape, *map(str, words)])
            train.main()
    run_training("--learn", "all", "--data", run / "chat/human.jsonl", "--out", run / "base", "--steps", 1)
    for path in sorted(run.glob("chat/*")):
        run_training("--learn", "gpt", "--data", path, "--base", run / "base",
                     "--out", run / "assistant" / path.stem, "--steps", 40)
    return run


def effort(run, name):
    """(dialogues, updates, tokens computed) of an arm, from its files."""
    talks = len((run / "chat" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    lines = (run / "assistant" / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return talks, len(rows), sum(row["tokens"] for row in rows)


@pytest.mark.parametrize("run", [None, *RUNS], ids=str)
def test_no_arm_had_more_dialogues_updates_or_computed_tokens(run, small):
    run = run or small
    arms = {path.name: effort(run, path.name) for path in (run / "assistant").iterdir()}
    assert len(arms) >= 4
    dialogues, updates, tokens = zip(*arms.values())
    # a simulated dialogue without a word is dropped; an update's tokens differ by part of a sample
    assert max(dialogues) - min(dialogues) <= 0.01 * max(dialogues), arms
    assert len(set(updates)) == 1, arms
    assert max(tokens) / min(tokens) < 1.02, arms
