"""Cleaning: each rule by hand, MinHash against the obvious comparison, shards against one run."""

import json
import random
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest

from data import clean as c
from data.journal import Journal
from data.plan import openings
from platolm import Problem, line, read, write
from simulate import Simulation, records


def talk(*texts, id="a"):
    return {"id": id, "conversations": [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)]}


FLAGS = Namespace(min_rounds=1, max_characters=50, bench=[], words=8, alike=0.8, per_opening=2)


@pytest.mark.parametrize("rule, record, evidence", [
    ("length", talk("hi", "ho"), None), ("length", talk("hi"), "0 rounds"),
    ("length", talk("hi", "x" * 51), "51 characters in a turn"),
    ("language", talk("naïve café, “really”", "oui"), None), ("language", talk("привет", "hi"), "6 of 8 letters"),
    ("language", talk("please translate this", "привет и пока"), None), ("language", talk("12?", "!"), None),
    ("refusals", talk("can you", "As an AI language model, I"), "As an AI"),
    ("refusals", talk("can you", "I'm sorry, but I can't do that"), "I'm sorry, but I can't"),
    ("refusals", talk("can you", "i cannot assist with it"), "i cannot assist"),
    ("refusals", talk("as an AI, can you?", "sure. I'm sorry to hear that"), None),
    ("refusals", talk("say it", "x" * 300 + " I can't help"), None),
])
def test_rules_by_hand(rule, record, evidence):
    found = c.RULES[rule](FLAGS)(record)
    assert found is None if evidence is None else found.startswith(evidence)


def test_what_a_bench_asks_is_shown(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text(line({"turns": ["Describe, in the voice of a sailor, a storm at sea at night.", "Why is it so?"]}))
    rule = c.bench(Namespace(bench=[path], words=8))
    assert rule(talk("ok", "in THE voice of a sailor - a storm, yes")) == "in the voice of a sailor a storm"
    assert rule(talk("in the voice of a sailor a sea", "no")) is None
    # a short question counts where it is all that is said
    assert rule(talk("why is it so", "because")) == "why is it so"
    assert rule(talk("tell me why is it so", "because")) is None


def test_exact_and_near_and_openings_keep_the_first():
    rng = random.Random(0)
    words = [f"w{n}" for n in range(400)]
    base = [rng.choice(words) for _ in range(120)]
    near = base[:60] + ["changed"] + base[61:]
    other = [rng.choice(words) for _ in range(120)]
    said = [talk(" ".join(text), "ok", id=name) for text, name in
            ((base, "a"), (base, "b"), (near, "c"), (other, "d"))]
    kept, dropped = c.clean(said, {name: c.RULES[name](FLAGS) for name in ("exact", "near", "openings")})
    assert [r["id"] for r in kept] == ["a", "d"]
    assert [(r["id"], r["why"]) for r in dropped] == [("b", "exact"), ("c", "near")]
    assert dropped[0]["evidence"] == "as a" and dropped[1]["evidence"].endswith("as a")
    alike = [talk("Where is the green door?", text, id=text) for text in "pqrs"] + [talk("where is the red boat", "t")]
    kept, dropped = c.clean(alike, {"openings": c.openings(FLAGS)})
    assert [r["id"] for r in dropped] == ["r", "s"] and "1.00 as p" == dropped[0]["evidence"]


def test_minhash_finds_what_the_obvious_comparison_finds():
    """Two hundred sets, each a noisy copy of an earlier one or new."""
    rng = np.random.default_rng(0)
    sets, alike, found = [], c.Alike(0.8), []
    for n in range(200):
        if n % 2 and rng.random() < 0.8:
            old = sets[rng.integers(len(sets))]
            new = np.unique(np.concatenate([rng.permutation(old)[:int(len(old) * rng.uniform(0.6, 1))],
                                            rng.integers(2 ** 32, size=10, dtype=np.uint64)]))
        else:
            new = np.unique(rng.integers(2 ** 32, size=rng.integers(50, 400), dtype=np.uint64))
        slowly = [i for i, old in enumerate(sets) if len(set(old.tolist()) & set(new.tolist()))
                  / len(set(old.tolist()) | set(new.tolist())) >= 0.8]
        found.append((slowly, alike.before(new)))
        sets.append(new), alike.add(new)
    assert sum(bool(slowly) for slowly, _ in found) > 20
    assert all(slowly == fast for slowly, fast in found)


def test_a_signature_estimates_the_jaccard():
    rng = np.random.default_rng(1)
    a = np.unique(rng.integers(2 ** 32, size=600, dtype=np.uint64))
    b = np.unique(np.concatenate([a[:300], rng.integers(2 ** 32, size=300, dtype=np.uint64)]))
    alike = c.Alike(0.8)
    agree = (alike.signature(a) == alike.signature(b)).mean()
    assert agree == pytest.approx(c.jaccard(a, b), abs=0.12) and c.jaccard(a, a) == 1


class Counting:
    def join(self, number, intent="", held=()):
        user = lambda turns: f"{number} {len(turns)}"
        user.leave = lambda: None
        return user


def test_shards_joined_are_the_whole_run(tmp_path):
    def held(shard, name):
        args = Namespace(seeds=None, intents=None, dialogues=10, times=1, seed_rounds=0, shard=shard)
        plan, journal = list(openings(args)), Journal(tmp_path / f"{name}.journal", {})
        Simulation(Counting(), lambda turns: "well", journal, 2).run(plan, 3)
        write(tmp_path / name, records(journal, plan))
        journal.close()
        return str(tmp_path / name)
    whole, parts = held((1, 1), "whole"), [held((i, 3), f"part{i}") for i in (2, 1, 3)]
    assert c.joined(parts) == list(read(whole))
    with pytest.raises(Problem, match="10 ids are in these files twice, first socratic-000000"):
        c.joined([whole, *parts])


def test_as_a_command(tmp_path):
    path = tmp_path / "talks.jsonl"
    write(path, [talk("hi there you", "hello", id="a"), talk("hi there you", "hello", id="b"), talk("alone", id="c")])
    run = [sys.executable, "-m", "data.clean", path, "--out", tmp_path / "out.jsonl"]
    said = subprocess.run(run, capture_output=True, text=True)
    assert said.returncode == 0 and [r["id"] for r in read(tmp_path / "out.jsonl")] == ["a"]
    dropped = [json.loads(text) for text in (tmp_path / "out.jsonl.dropped").read_text().splitlines()]
    assert [(r["id"], r["why"]) for r in dropped] == [("b", "exact"), ("c", "length")]
    assert "exact           -1        1   as a" in said.stdout
    subprocess.run([*run, "--skip", "exact", "near", "length"], check=True, capture_output=True)
    assert len(list(read(tmp_path / "out.jsonl"))) == 3
