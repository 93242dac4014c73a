"""What is counted in texts, against brute force or by hand."""

import itertools
import json

import numpy as np
import pytest

from data.measure import dataset_stats as sets

from data import text_metrics as texts
from data.formats.files import read_items
from data.text_metrics import (act, auc, buckets, content, distinct, jaccard_diversity, kolmogorov,
                               logistic, mean_cosine, mtld, out_of_fold, vectors, wasserstein,
                               words_of)
from data.program import UserError


def test_words_are_those_of_any_language_without_signs():
    assert words_of("Don't go, Zoë – it's 7 o’clock_now!") == ["don't", "go", "zoë", "it's", "7", "o’clock", "now"]
    assert words_of("東京へgo") == ["東", "京", "へ", "go"]


@pytest.mark.exercise(26)
@pytest.mark.parametrize("words, threshold, expected", [
    # a b a | b a b | a: 2 of 3 differ, which is below; the last word of none
    ("a b a b a b a", 0.72, 2), ("a b a c d", 0.72, 1), ("a b c d", 0.72, 0), ("", 0.72, 0),
    # a fifth of 0.28 on the way; after one stretch, a quarter
    ("a b c d a", 0.72, 0.2 / 0.28), ("a b a a b c a", 0.72, 1 + 0.25 / 0.28),
    # at the threshold is enough: one of two, two of four
    ("a a a a", 0.5, 2), ("a b a b", 0.5, 1), ("a a b b b", 0.5, 2)])
def test_factors_by_hand(words, threshold, expected):
    got = texts.factors(words.split(), threshold)
    assert got == pytest.approx(expected), f"{words!r} at {threshold}: expected {expected:.3f} factors, got {got:.3f}"


@pytest.mark.exercise(26)
def test_mtld_by_hand():
    # forward: a b a | b a b | a: two full factors (2/3 <= 0.72), the last word of none
    words = "a b a b a b a".split()
    assert mtld(words) == pytest.approx(7 / 2)
    # a b c d a: four of five differ, a fifth of 0.28 short of one: (1 - 0.8) / (1 - 0.72) factors
    assert mtld("a b c d a".split()) == pytest.approx(5 / (0.2 / 0.28))
    # from the front a b b is a factor, and c none; from the back c b b is one, and a none
    assert mtld("a b b c".split()) == 4
    assert mtld("all of these differ".split()) is None and mtld([]) is None


def test_the_mean_cosine_is_that_of_all_pairs():
    rows = texts.unit(np.random.default_rng(0).normal(size=(30, 8)))
    every = [float(a @ b) for a in rows for b in rows]
    others = [float(a @ b) for a, b in itertools.permutations(rows, 2)]
    whole, pairs = mean_cosine(rows.sum(axis=0), 30)
    assert whole == pytest.approx(np.mean(every)) and pairs == pytest.approx(np.mean(others))
    assert pairs == pytest.approx((whole - 1 / 30) * 30 / 29), "as the paper's can be put right"
    assert mean_cosine(rows[0], 1)[1] is None


def test_vectors_are_hashed_runs_of_characters():
    a, b, c = vectors(["who mends clocks?", "Who mends clocks?", "the fare of the tulip"])
    assert a @ b == pytest.approx(1) and a @ c < 0.2 and a.shape == (4096,)
    assert vectors([""]).tolist() == [[0] * 4096], "too short for a run"
    assert len(buckets("ab", 3)) == 2 and (buckets(" naïve ☃ \ud800", 4) < 4096).all()
    assert texts.grams_in(["who mends"], set(buckets("who mends", 4)[:1].tolist())) == {
        int(buckets("who mends", 4)[0]): " who"}


def test_diversity_is_one_minus_the_mean_jaccard_of_all_pairs():
    said = ["who mends clocks", "who mends boats", "hi", "hi"]
    sets_ = [set(words_of(text)) for text in said]
    shares = [len(a & b) / len(a | b) for a, b in itertools.combinations(sets_, 2)]
    assert jaccard_diversity(said) == pytest.approx(1 - np.mean(shares))
    assert jaccard_diversity(["a", "a"]) == 0 and jaccard_diversity(["a"]) is None


@pytest.mark.exercise(28)
@pytest.mark.parametrize("scores, y, expected", [
    ([1, 2, 3], [0, 0, 1], 1), ([3, 1, 2], [0, 1, 1], 0), ([-1.5, 0.2, 0], [0, 1, 1], 1),
    # of four pairs three are won and one is a tie
    ([1, 2, 2, 3], [0, 1, 0, 1], 3.5 / 4), ([3, 2, 1, 2], [1, 0, 0, 1], 3.5 / 4),
    # nothing but ties
    ([5, 5, 5, 5, 5], [0, 1, 0, 1, 1], 0.5), ([1, 2], [1, 1], None), ([1, 2], [0, 0], None)])
def test_auc_by_hand(scores, y, expected):
    got = auc(np.array(scores), np.array(y))
    assert (got is None) == (expected is None) and (got is None or got == pytest.approx(expected)), \
        f"scores {scores} of classes {y}: expected {expected}, got {got}"


@pytest.mark.exercise(28)
def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    scores, y = rng.integers(6, size=60), rng.integers(2, size=60)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[y == 1] for b in scores[y == 0]]
    assert auc(scores, y) == pytest.approx(np.mean(pairs))
    assert auc(np.array([1, 2]), np.array([1, 1])) is None


def test_the_classifier_finds_what_can_be_found_and_nothing_else():
    rng = np.random.default_rng(0)
    x = texts.unit(rng.normal(size=(300, 40)).astype(np.float32))
    y = (x[:, 3] > 0).astype(float)
    groups = np.arange(300) // 3
    assert auc(out_of_fold(x, y, groups), y) > 0.95
    assert 0.4 < auc(out_of_fold(x, rng.permutation(y), groups), y) < 0.6
    w, bias = logistic(x, y)
    assert np.argmax(np.abs(w)) == 3 and abs(bias) < 1
    # at the optimum the slope is nothing: residuals, weighted by class, cancel out
    p = 1 / (1 + np.exp(-(x @ w + bias)))
    weight = np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum())
    assert abs((weight * (p - y)).sum() + 1e-4 * bias) < 0.02


def test_no_turn_is_judged_by_a_classifier_that_saw_its_dialogue():
    """All that tells the sides apart is the dialogue: who has not seen it cannot know."""
    rng = np.random.default_rng(0)
    x = np.repeat(texts.unit(rng.normal(size=(40, 200)).astype(np.float32)), 5, axis=0)
    y = np.repeat(np.arange(40) % 2, 5).astype(float)
    by_dialogue = auc(out_of_fold(x, y, np.repeat(np.arange(40), 5)), y)
    by_turn = auc(out_of_fold(x, y, np.arange(200)), y)
    assert by_turn > 0.95 and by_dialogue < 0.75


def test_distances_of_samples_by_hand():
    assert wasserstein([0, 0, 1], [1, 1, 2]) == pytest.approx(1) and wasserstein([3], [3]) == 0
    assert wasserstein([0, 4], [1]) == pytest.approx(2), "half goes one up, half three down"
    assert kolmogorov([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5 and kolmogorov([1], [2]) == 1


def test_what_a_turn_does():
    assert [act(text) for text in ("thanks a lot!", "are you sure?", "and the second", "how far is it",
                                   "a trip to hask")] == [
        "thanks or praise", "correction", "points back", "question", "other"]
    assert content("what is the fare of the tulip") == {"fare", "tulip"}
    assert distinct([["a", "b", "a", "b"]]) == pytest.approx(2 / 3) and distinct([["a"]]) is None


def test_roles_that_leak_and_words_of_assistants_are_seen():
    assert all(texts.LEAKS.search(text) for text in ("</s>", "well\nAssistant: yes", "[INST] hi", "<|im_end|>"))
    assert not any(texts.LEAKS.search(text) for text in ("a human: who?", "use < or >", "my assistant is late"))
    assert all(texts.SERVES.search(text) for text in (
        "Certainly! Here", "as an AI language model", "How can I help you"))
    assert not any(texts.SERVES.search(text) for text in ("i'm sure", "sure it is?", "can you help me"))


# ------------------------------------------------------------------------------------------------
# files and sets


def talk(*said):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]


@pytest.mark.parametrize("piece", [5, 1 << 20])
def test_an_array_and_lines_are_told_apart_by_what_is_in_them(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("data.formats.files.PIECE", piece)
    records = [{"id": str(i), "conversations": talk("hi ☃ [{", 'a "}" b')} for i in range(9)]
    for form in (json.dumps(records), json.dumps(records, indent=2), "\n\n" + json.dumps(records, ensure_ascii=False),
                 "\n".join(map(json.dumps, records))):
        (tmp_path / "x").write_text(form, encoding="utf-8")
        assert list(read_items(tmp_path / "x")) == records
    (tmp_path / "x").write_text("\ufeff[]", encoding="utf-8")
    assert list(read_items(tmp_path / "x")) == []


@pytest.mark.parametrize("text, said", [
    ("[1]", "an array of things other than objects"), ('[{"a": 1}', "item 1: an empty dialogue"),
    ("[{", "after item 0: not JSON"),
    ('{"conversations": [{"from": "gpt", "value": "x"}]}\nnope', "after item 1: not JSON"),
    ('{"conversations": []}', "item 1: an empty dialogue"),
    ('[{"conversations": [{"from": "human", "value": "\\ud800"}]}]', "item 1"), ("[" * 99999, "other than objects")])
def test_a_bad_file_is_one_sentence(tmp_path, text, said):
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match=said):
        list(read_items(tmp_path / "x"))


def test_statistics_by_hand():
    records = [{"id": "1", "conversations": talk("one two", "three")},
               {"id": "2", "conversations": talk("a b a b a b a", "d", "a, b", "e f g")}]
    found = sets.statistics(lambda: records)
    assert (found["sessions"], found["utterances"], found["rounds"]) == (2, 6, 1.5)
    assert found["tokens a human turn"] == 4 and found["tokens an answer"] == pytest.approx(5 / 3)
    assert found["tokens an utterance"] == 17 / 6 and found["tokens a session"] == 8.5
    assert found["MTLD of a human turn"] == 3.5 and found["share of turns with an MTLD"] == pytest.approx(1 / 3)
    whole = vectors(["one two", "a b a b a b a", "a, b"])
    assert found["mean cosine of human turns"] == pytest.approx(
        np.mean([a @ b for a, b in itertools.permutations(whole, 2)]), abs=1e-6)


def test_statistics_do_not_hang_on_the_pieces_a_file_is_read_in(monkeypatch):
    records = [{"id": str(i), "conversations": talk(f"word{i} and more", "yes", f"what of word{i}", "no")}
               for i in range(40)]
    whole = sets.statistics(lambda: records)
    monkeypatch.setattr("data.measure.dataset_stats.PIECE", 7)
    monkeypatch.setattr(sets.pieces, "__defaults__", (7,))
    parts = sets.statistics(lambda: records)
    for name in ("sessions", "tokens a session", "mean cosine of human turns"):
        assert parts[name] == pytest.approx(whole[name])


def test_a_topic_is_maintained_drifts_or_shifts():
    east, north, both = np.eye(2)[0], np.eye(2)[1], np.array([1, 1]) / 2 ** 0.5
    assert sets.topic_moves(np.array([east, both, north, east, north]), 0.7).tolist() == [
        "maintained", "drifted", "maintained", "shifted"]
    rows, owner = np.vstack([np.eye(3)] * 20), np.arange(60)
    assert 0 <= sets.related_threshold(rows, owner) <= 1
    assert sets.related_threshold(rows[:2], np.zeros(2)) == 1, "one dialogue alone says nothing of others"


def test_people_are_taken_for_people_and_a_script_is_not():
    rng = np.random.default_rng(0)
    assert sets.file_threshold(iter([])) == 1
    words = "boat fare hask tulip street door who what mends clock rope bell open".split()
    people = [{"id": str(i), "conversations": talk(" ".join(rng.choice(words, 4)), "yes")} for i in range(300)]
    script = [{"id": str(i), "conversations": talk(f"please state the {rng.choice(words)} of it", "yes")}
              for i in range(200)]
    human = sets.sample_turns(people, 0)
    assert abs(sets.statistics(lambda: people, human=human)["AUC against people"] - 0.5) < 0.1
    found = sets.statistics(lambda: script, human=human)
    assert found["AUC against people"] > 0.99 and found["taken for human"] < 0.05


def test_a_judges_four_numbers_are_read_in_any_order_or_not_at_all():
    judgment = "diversity: 1\nComplexity (1 to 10): 4.5\n**Relevancy**: 10\nlogicality: 7"
    assert sets.session_ratings(judgment) == [4.5, 10, 7, 1]
    assert sets.session_ratings("complexity: 4\nrelevancy: 10") is None
    assert sets.session_ratings("complexity: 40\nrelevancy: 1\nlogicality: 1\ndiversity: 1") is None
    assert sets.session_ratings('{"complexity": 4, "relevancy": 3, "logicality": 2, "diversity": 1}') == [4, 3, 2, 1]
