"""What needs no judge, and what listening is worth, by hand."""

from argparse import Namespace

import pytest

from data.experiment import listening

from data.experiment import probes
from platolm import prompt


def test_a_gold_answer_needs_all_its_words_and_whole_ones():
    assert probes.has_words("The Red Hat, no. 14 coins!", ["red hat", "14"])
    assert not probes.has_words("114 coins", ["14"]) and not probes.has_words("hats", ["hat"])
    assert not probes.has_words("only red", ["red", "hat"]) and probes.has_words("anything", [])


def test_gold_answers_are_asked_for_with_all_that_was_said_before(make_model, tokenizer, monkeypatch):
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"},
            {"from": "human", "value": "who"}, {"from": "gpt", "value": "bram"}]
    seen = []

    def generate_batch(model, prompts, *rest, **how):
        seen.extend(prompts)
        return [Namespace(output=tokenizer.encode("it is bram"))] * len(prompts)
    monkeypatch.setattr(probes, "generate_batch", generate_batch)
    records = [{"conversations": said, "keys": [[], ["bram"]]},
               {"conversations": said[:2], "keys": [["who"]]}]
    assert probes.gold_hits(None, tokenizer, records) == [[True], [False]]
    assert seen == [prompt(said[:3], tokenizer, "gpt"), prompt(said[:1], tokenizer, "gpt")]


def test_what_listening_is_worth_by_hand():
    record = {"leans": [False, True, False], "asked": [False, True, True]}
    assert listening.turn_labels(record) == [(1, True, False), (2, False, True)]
    rows = listening.listening([record], [[[9], [1, 1], [3]]], [[[9], [2, 4], [3]]])
    found = {(row["leaning"], row["asked"]): row for row in rows}
    assert found[True, False]["difference"] == 2 and found[True, False]["tokens"] == 2
    assert found[False, True]["difference"] == 0
    assert found[None, None]["difference"] == pytest.approx(4 / 3)
