"""The analysis, and what it reads: worked by hand on a few turns."""

import json
from argparse import Namespace
from collections import Counter
from importlib import import_module

import numpy as np
import pytest

from data.experiment import probes
from data.experiment.cells import t_interval
from data.experiment.contrasts import analyse
from data.experiment.gates import still_falling
from data.experiment.hearing import badly_heard
from data.experiment.reach import reach
from data.experiment.talks import draw_guide
from data.measure.intervals import bootstrap, drawn_interval, holm, two_way_draws
from platolm import prompt
from tests.programs.coverage import clustered_coverage

GUIDE = draw_guide(0)
NEAR, LUCKY = GUIDE.world.stalls[:2]


def turns(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


HEARD = turns("who runs the velvet pepper?", f"milo runs the velvet pepper. the {NEAR} is near.",
              f"where is the {NEAR}", GUIDE.statement((NEAR, "lane")), "really?", "yes.")
GUESSED = turns(f"how much is it at the {LUCKY}?", f"{GUIDE.statement((LUCKY, 'price'))} close by is the {NEAR}.",
                "where is the velvet pepper?", "the velvet pepper is on cork lane.")


# -- the analysis -------------------------------------------------------------------------------


def made_probes(**arms):
    """Four turns of two dialogues, two of them about stalls; arms: (people's turns, script's)."""
    return {"turns": {"dialogue": ["a", "a", "b", "b"], "thing": ["x", "y", "z", "y"],
                      "class": ["stalls", "houses", "stalls", "asides"]},
            "arms": {name.replace("_", "-"): {"people": people, "script": script, "gold": [[True, False], [True]]}
                     for name, (people, script) in arms.items()}}


def test_the_analysis_by_hand():
    found = analyse(made_probes(
        today=([1, 1, 1, 1], [1, 1]), socratic=([1, 1, 1, 0], [1, 0]), self_chat=([0, 1, 1, 1], [0, 1]),
        replay=([0, 0, 0, 1], [0, 0]), oracle=([1, 1, 1, 0], [1, 0])))
    arms = found["arms"]
    assert {name: arm["headline"]["right"] for name, arm in arms.items()} == {
        "today": 1, "socratic": 0.75, "self-chat": 0.5, "replay": 0, "oracle": 0.75}
    assert arms["socratic"]["script"] == 0.5 and arms["socratic"]["gold"]["right"] == pytest.approx(2 / 3)
    assert [arms["socratic"][kind]["right"] for kind in ("houses", "asides", "stalls")] == [1, 0, 1]
    assert "changed" not in arms["today"], "nobody asked for one"
    rows = {row["b"]: row for row in found["contrasts"]}
    assert [(row["b"], row["role"]) for row in found["contrasts"]] == [
        ("self-chat", "primary"), ("oracle", "further"), ("replay", "described")]
    # of two questions one is better by 1, the other worse by 0.5
    assert (rows["self-chat"]["difference"], rows["self-chat"]["low"], rows["self-chat"]["high"]) == (0.25, -0.5, 1)
    assert rows["oracle"]["difference"] == 0 and rows["oracle"]["p"] == 1 and rows["replay"]["p"] is None
    # (0.75 - 0) / (1 - 0); of single questions 1 and 0.5
    assert found["gap"] == {"share": 0.75, "low": 0.5, "high": 1}


def test_a_gap_that_is_none_has_no_share():
    arms = {"today": ([0] * 4, [0, 0]), "socratic": ([0] * 4, [0, 0]), "replay": ([0] * 4, [0, 0])}
    found = analyse(made_probes(**arms))
    assert found["gap"] is None and "NaN" not in json.dumps(found)


def test_holm_by_hand():
    """The smallest of three counts three times, the next twice; none falls below the one before it."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []


@pytest.mark.exercise(9)
@pytest.mark.parametrize("values, dialogues, things, means", [
    # a a, a b or b a, b b: all turns of a dialogue, or none
    ([1, 1, 1, 5], "aaab", "xxxx", {1: 1 / 4, 2: 1 / 2, 5: 1 / 4}),
    ([1, 1, 1, 5], "aaaa", "xxxy", {1: 1 / 4, 2: 1 / 2, 5: 1 / 4}),
    # dialogues taken twice or three times weigh more: 0 alone, or 3 once, twice, three times among three
    ([0, 0, 3], "abc", "xxx", {0: 8 / 27, 1: 12 / 27, 2: 6 / 27, 3: 1 / 27}),
    # each dialogue about each thing: 10, 5 or 0 by dialogue and, independently, 1, 0.5 or 0 by thing
    ([0, 1, 10, 11], "aabb", "xyxy", {0: 1 / 16, 0.5: 1 / 8, 1: 1 / 16, 5: 1 / 8, 5.5: 1 / 4, 6: 1 / 8,
                                      10: 1 / 16, 10.5: 1 / 8, 11: 1 / 16}),
    # two turns with nothing in common: 2 of 16 draws take a's dialogue and b's thing, or the reverse, and are left out
    ([0, 1], "ab", "xy", {0: 5 / 14, 0.5: 4 / 14, 1: 5 / 14})])
def test_clustered_draws_by_hand(values, dialogues, things, means):
    draws = two_way_draws([[value, 7] for value in values], list(dialogues), list(things), draws=4000, seed=1)
    # bools of Python's own: of others pytest shows where they come from, which tells nobody anything
    finite = bool(np.isfinite(draws).all())
    assert finite, "a draw without any turn has no mean, and is to be left out"
    seven = draws.shape[1:] == (2,) and np.allclose(draws[:, 1], 7)
    assert seven, f"two values a turn, the second is 7, so draws (draws, 2) should have 7 there: {draws[:3].tolist()}"
    found = Counter(draws[:, 0].round(6).tolist())
    got, expected = sorted(found), sorted(means)
    assert got == expected, f"turns {values} of {dialogues} about {things} can have the means {expected}, got {got}"
    for mean, share in means.items():
        got = found[mean] / len(draws)
        near = abs(got - share) < 0.05
        assert near, (f"turns {values} of {dialogues} about {things}: the mean {mean} should have a share of "
                      f"{share:.2f} of the draws, and has {got:.2f}")


@pytest.mark.exercise(9)
def test_a_seed_says_what_is_drawn():
    values, rows, columns = np.arange(12)[:, None], np.arange(12) // 3, np.arange(12) % 5
    one, again, other = (two_way_draws(values, rows, columns, 50, seed) for seed in (1, 1, 2))
    repeated, varied = np.array_equal(one, again), not np.array_equal(one, other)
    assert repeated, "the same seed, but other draws"
    assert varied, "another seed, but the same draws"


@pytest.mark.exercise(9)
def test_of_one_thing_alone_the_dialogues_are_drawn_as_ever():
    rng = np.random.default_rng(1)
    rows, values = np.repeat(np.arange(40), 3), rng.random(120)
    _, low, high = bootstrap(np.bincount(rows, values), np.bincount(rows), draws=4000)
    for one_way in ((rows, np.zeros(120)), (np.zeros(120), rows)):
        draws = two_way_draws(values[:, None], *one_way, draws=4000)
        got = drawn_interval(draws[:, 0])
        near = got == pytest.approx((low, high), abs=0.01)
        assert near, f"of one thing alone: the interval should be near {low:.3f} to {high:.3f}, and is {got}"


@pytest.mark.exercise(9)
def test_draws_of_nothing_are_left_out():
    """Two turns with nothing in common: in an eighth of the draws one's dialogue meets the other's thing alone."""
    draws = two_way_draws([[0.0, 5.0], [1.0, 5.0]], ["a", "b"], ["x", "y"], draws=400)
    left = len(draws)
    finite = bool(np.isfinite(draws).all())
    assert left < 400 and finite, f"of 400 draws some took no turn, and are to be left out; {left} are there"
    first, second = (sorted({*column}) for column in draws.T.tolist())
    assert (first, second) == ([0, 0.5, 1], [5])


def test_turns_that_hang_together_need_the_wider_interval():
    over_turns, over_both = clustered_coverage(benches=100, draws=200)
    assert over_turns < 0.8 and over_both > 0.87


def test_seeds_by_hand():
    """A mean of 2, a standard deviation of 1: 4.30 / sqrt(3) to each side."""
    assert t_interval([1, 2, 3]) == pytest.approx((2, 2 - 2.4826, 2 + 2.4826), abs=1e-3)
    assert t_interval([0.5]) == (0.5, None, None)


# -- gates, reach, hearing -----------------------------------------------------------------------


@pytest.mark.parametrize("losses, falls", [
    ([9] * 16 + [2, 2, 1, 1], 0.5), ([9] + [1] * 19, 0), ([1] * 18 + [2, 2], -1), ([3], 0)])
def test_a_loss_that_still_falls_by_hand(tmp_path, losses, falls):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
    assert still_falling(tmp_path / "log.jsonl") == falls


def test_reach_by_hand():
    """Two answers name something near, one is followed; one stall was asked for before it was named."""
    found = reach([{"conversations": HEARD, "end": "left"}, {"conversations": GUESSED, "end": "cut"}], GUIDE)
    stalls, houses = 4 * len(GUIDE.world.stalls), 4 * len(GUIDE.world.houses)
    assert found == {
        "dialogues": 2, "turns": 2.5, "kinds": {"question": 0.8, "doubt": 0.2}, "asides": 0.2,
        "ends": {"left": 1, "cut": 1}, "told": {"velvet pepper": 2, NEAR: 1, LUCKY: 1},
        "facts": {"houses": {"once": 2 / houses, "twice": 0, "times": 2 / houses},
                  "stalls": {"once": 2 / stalls, "twice": 0, "times": 2 / stalls}},
        "near": 2, "copied": 0.5, "lucky": 1}
    twice = reach([{"conversations": HEARD, "end": "left"}] * 2, GUIDE)["facts"]["stalls"]
    assert twice == {"once": 1 / stalls, "twice": 1 / stalls, "times": 2 / stalls}


def test_logs_of_another_season_tell_nothing_of_today():
    about = ["velvet pepper/keeper", "old stall/lane", "old stall/lane"]
    old = {"conversations": HEARD, "season": 3, "kinds": ["question", "question", "short"], "about": about}
    found = reach([old], GUIDE)
    # a house's fact that is still true counts
    assert found["told"] == {"velvet pepper": 1} and found["facts"]["stalls"]["once"] == 0
    assert found["kinds"] == {"question": 2 / 3, "short": 1 / 3} and found["copied"] == 1


def test_who_hears_badly_hears_nothing_or_another():
    answers = lambda heard: [turn["value"] for turn in heard[1::2]]
    assert badly_heard(HEARD, 0, 0, 1.0, []) == HEARD
    assert answers(badly_heard(HEARD, 0, 0, 0.0, [])) == ["", "", ""]
    others = [{"conversations": HEARD}, {"conversations": turns("a", "one", "b", "two")}]
    assert answers(badly_heard(HEARD, 0, 0, 1.0, others)) == ["one", "two", "one"]
    assert [turn["value"] for turn in badly_heard(HEARD, 0, 0, 0.5, [])[::2]] == [t["value"] for t in HEARD[::2]]
    half = [answers(badly_heard(HEARD, number, 0, 0.5, [])) for number in range(200)]
    assert 0.4 < np.mean([text == "" for heard in half for text in heard]) < 0.6


# -- what is asked of the assistants -------------------------------------------------------------


def test_the_turns_of_people_are_labelled_by_hand():
    cases = probes.human_cases([{"id": "d", "conversations": HEARD}], GUIDE)
    assert [(case["class"], case["thing"], len(case["turns"])) for case in cases] == [
        ("houses", "velvet pepper", 1), ("stalls", NEAR, 3), ("asides", NEAR, 5)]
    assert ["formal" in case for case in cases] == [False, True, False]
    *before, last = cases[1]["formal"]
    assert before == HEARD[:2] and last["value"] == f"please tell me on which lane one finds the {NEAR}."


def test_gold_answers_need_all_their_words_after_all_that_was_said(make_model, tokenizer, monkeypatch):
    said = turns("hi", "hello", "who", "bram")
    seen = []

    def generate_batch(model, prompts, *rest, **how):
        seen.extend(prompts)
        return [Namespace(output=tokenizer.encode("it is bram, 14 coins"))] * len(prompts)
    monkeypatch.setattr(probes, "generate_batch", generate_batch)
    records = [{"conversations": said, "keys": [[], ["bram", "14"]]},
               {"conversations": said, "keys": [["bra"], ["bram", "4"]]}]
    assert probes.gold_hits(None, tokenizer, records) == [[True], [False, False]]
    assert seen[:2] == [prompt(said[:3], tokenizer, "gpt"), prompt(said[:1], tokenizer, "gpt")]


@pytest.mark.parametrize("command, words", [
    ("talks", ["replay", "--logs", "FILE"]), ("probes", ["a=FILE", "--human", "FILE"]), ("contrasts", ["FILE"]),
    ("gates", ["--base", "x", "--today", "x", "--human", "FILE"]), ("reach", ["a=FILE"]),
    ("hearing", ["x", "--swap", "FILE"])])
def test_what_is_read_is_never_written_over(command, words, tmp_path, run_command):
    path = tmp_path / "old.jsonl"
    path.write_text("old")
    main = import_module(f"data.experiment.{command}").main
    done = run_command(main, *[word.replace("FILE", str(path)) for word in words], "--out", path)
    assert done.returncode == 1 and "write somewhere else" in done.stderr and path.read_text() == "old"
