"""The simulator's card: human turns, probabilities, what is said there; people stand beside every user."""

import json
import threading
from functools import partial

import numpy as np
import pytest
import torch

import evaluate
from data.checkpoint import save_model
from data.measure import card
from data.api import serve_checkpoint as serve
from data.api.budget import ClientSettings, Endpoint
from data.api.journal import Journal
from data.measure.likelihood import leave_probabilities, bits_per_byte
from data.measure.turns import AskSettings, HumanTurn, ask_at_turns, swap_answers, split_halves, human_turns
from data.api.server import serving
from model import generate_batch
from data.program import to_jsonl
from platolm import prompt, read_records
from data.users import UserSettings
from simulate import client_factory
from data.experiment.talks import dialogues

TALK = [{"from": "human", "value": "who mends clocks?"}, {"from": "gpt", "value": "ada mends clocks."},
        {"from": "human", "value": "and boats?"}, {"from": "gpt", "value": "ben."}]


def record(turns, **more):
    return {"id": "1", "conversations": turns, **more}


def human_turn(number, before, said, **more):
    return HumanTurn(more.pop("dialogue", 0), number, before, said, "other", **more)


# ------------------------------------------------------------------------------------------------
# human turns


def test_human_turns_are_where_a_person_spoke_or_left():
    found = human_turns([record(TALK, end="left", intent="clocks"), record(TALK[1:], end="cut")])
    assert [(p.dialogue, p.number, len(p.before), p.text) for p in found] == [
        (0, 0, 0, "who mends clocks?"), (0, 1, 2, "and boats?"), (0, 2, 4, None), (1, 0, 1, "and boats?")]
    assert found[2].kind == "leaves" and found[1].kind == "points back" and found[0].intent == "clocks"
    assert human_turns([record(TALK, kinds=["a", "b"])])[1].kind == "b", "a record's own kinds come first"


def test_exchanged_answers_are_another_dialogues_and_nothing_else_changes():
    other = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "one"}]
    first, second = swap_answers([record(TALK, end="left"), record(other)])
    assert [turn["value"] for turn in first["conversations"]] == ["who mends clocks?", "one", "and boats?", "one"]
    assert [turn["value"] for turn in second["conversations"]] == ["x", "ada mends clocks."]
    assert first["end"] == "left" and TALK[1]["value"] == "ada mends clocks."


def test_halves_share_no_dialogue():
    one, two = split_halves(list(range(9)), seed=3)
    assert sorted(one + two) == list(range(9)) and len(one) == 4 and split_halves(list(range(9)), 4) != (one, two)


# ------------------------------------------------------------------------------------------------
# what a model expects


def test_surprise_is_counted_in_bits_per_byte(make_model, tokenizer):
    model, records = make_model(), [record(TALK, end="left"), record(TALK[:2], end="cut")]
    found = bits_per_byte(model, tokenizer, records)

    def bits(before, said):
        ids, total = prompt(before, tokenizer, "human"), 0
        for token in tokenizer.encode(said) + [tokenizer.eos]:
            total -= model(torch.tensor([ids]))[0, -1].log_softmax(-1)[token].item() / np.log(2)
            ids = ids + [token]
        return total
    spoken = [(TALK[:0], TALK[0]["value"]), (TALK[:2], TALK[2]["value"]), (TALK, ""), (TALK[:0], TALK[0]["value"])]
    total, size = sum(bits(*pair) for pair in spoken), sum(len(said) + 1 for _, said in spoken)
    assert found["bits"]["mean"] == pytest.approx(total / size, abs=1e-4)
    blank = [turn if turn["from"] == "human" else turn | {"value": ""} for turn in TALK]
    more = sum(bits(blank[:len(before)], said) - bits(before, said) for before, said in spoken[1:3])
    assert found["blanked"]["mean"] == pytest.approx(more / (len("and boats?") + 2), abs=1e-4)
    assert found["kinds"]["points back"]["turns"] == found["kinds"]["leaves"]["turns"] == 1
    assert found["by number"][2] == pytest.approx(bits(TALK, ""), abs=1e-4)


def test_the_chance_of_leaving_is_that_of_an_end_as_the_first_token(make_model, tokenizer):
    model, found = make_model(), human_turns([record(TALK, end="left")])
    chances = leave_probabilities(model, tokenizer, found)
    assert np.isnan(chances[0]), "nobody leaves before anything was said"
    for chance, at in zip(chances[1:], found[1:]):
        logits = model(torch.tensor([prompt(at.before, tokenizer, "human")]))[0, -1]
        assert chance == pytest.approx(logits.softmax(-1)[tokenizer.eos].item(), abs=1e-5)


# ------------------------------------------------------------------------------------------------
# measures


def test_leaving_by_hand():
    at = [human_turn(0, [], "x"), human_turn(1, TALK[:2], "y"), human_turn(2, TALK, None),
          human_turn(2, TALK, None, dialogue=1)]
    found = card.leave_scores([np.nan, 0.6, 0.9, 0.2], at)
    assert found["f1"] == 0.5 and found["brier"] == pytest.approx((0.36 + 0.01 + 0.64) / 3)
    assert found["best"] == (0.05, 0.8), "three are said to leave, and two did"
    assert [(round(p, 2), y, n) for p, y, n in found["reliability"]] == [(0.2, 1, 1), (0.6, 0, 1), (0.9, 1, 1)]
    assert card.leave_scores([0.5] * 2, at[:2]) is None, "nobody is known to have left"
    assert card.hazard(np.array([1] * 12 + [2] * 3), np.array([1.0] * 3 + [0.0] * 12)) == [(1, 0.25)]
    assert card.f1(np.array([False]), np.array([1.0])) == 0


def test_the_chance_by_number_alone_is_what_the_reference_did():
    learnt = [human_turn(1, TALK[:2], None), human_turn(1, TALK[:2], "x"), human_turn(2, TALK, None)]
    others = [human_turn(1, TALK[:2], "y"), human_turn(7, TALK, "z")]
    assert card.leave_rates_by_number(others, learnt).tolist() == [0.5, 2 / 3]


def test_measures_of_turns_by_hand():
    pairs = [(human_turn(0, [], ""), "who mends clocks?"), (human_turn(1, TALK[:2], ""), "who mends clocks?"),
             (human_turn(1, TALK[:2], "", dialogue=1), "it ticks")]
    f = card.MEASURES
    assert f["words a turn"](pairs) == pytest.approx(8 / 3) and f["has a question mark"](pairs) == pytest.approx(2 / 3)
    assert f["starts by pointing back"](pairs) == pytest.approx(1 / 3)
    assert f["says the same again"](pairs) == 0.5 and f["first turn's words in later ones"](pairs) == 0.5
    assert all(f[name]([]) is None for name in f)


def test_who_stays_near_his_own_answer_is_told_from_who_does_not():
    answers = [f"{word} costs five coins" for word in ("rope", "lantern", "barrel", "compass")]
    before = [[{"from": "human", "value": "hi"}, {"from": "gpt", "value": text}] for text in answers]
    listens = [(human_turn(1, before[i], "", dialogue=i), answers[i].split()[0]) for i in range(4)]
    found = card.topic_similarity(listens)
    assert found["own answer"] > found["another's"] + 0.1
    assert card.other_dialogue([at for at, _ in listens])[0].tolist() == [1, 2, 3, 0]
    assert card.other_dialogue([human_turn(1, TALK, "")])[1].tolist() == [False]


def test_turns_of_equal_lengths_are_as_many_on_both_sides():
    ours, theirs = card.match_lengths(["a", "b c", "d e", "f g h"], ["x y", "z", "u", "v", "w w w w"])
    assert sorted(ours)[0] == 0 and len(ours) == len(theirs) == 2 and 0 in theirs


def test_an_intent_steers_if_its_own_words_are_said():
    intents = ["clocks in venn", "boats to hask"]
    at = [human_turn(0, [], "", dialogue=i, intent=intent) for i, intent in enumerate(intents)]
    found = card.steering(["who mends clocks", "boats and clocks"], at)
    assert found == {"own": 0.5, "another's": 0.25, "copied": pytest.approx((1 / 2 + 1 / 2) / 2)}
    assert card.steering(["x"], [human_turn(0, [], "x")]) is None
    assert card.steering(["x", "y"], [human_turn(0, [], "", dialogue=i, intent="clocks") for i in (0, 1)]) is None


def test_dialogues_are_compared_by_their_turns():
    found = card.dialogue_lengths([record(TALK, end="left")] * 12 + [record(TALK, end="cut")] * 4, [record(TALK)] * 12)
    assert found["hazard"] == [(1, 0), (2, 0.75)], "who was cut off did not leave"
    found = card.dialogue_lengths([record(TALK)], [record(TALK), record(TALK[:2])])
    assert (found["turns"], found["people"], found["wasserstein"], found["kolmogorov"]) == (2, 1.5, 0.5, 0.5)


def test_a_note_says_where_people_were_not_the_nearest():
    user = lambda value, auc: {name: value for name in card.MEASURES} | {
        "lengths": dict.fromkeys(card.LENGTHS, 0.3), "detector": {"auc": auc, "low": 0.4, "high": 0.6}}
    users = {"human": user(0.5, 0.52), "user": user(0.6, 0.5) | {"leaving": {"f1": 1}}, "script": user(0.9, 1.0),
             "random": user(0.7, 0.1)}
    reference = {name: 0.7 for name in card.MEASURES}
    limits = {"words a turn": {"largest": 0.3}, "MTLD of all turns": {"largest": 0.1},
              "words a turn: Wasserstein": {"largest": 1}}
    tied, differ, leaving = card.card_notes(users, reference, limits)
    assert "words a turn (user)" in tied and "told from people (user)" in tied and "script" not in tied
    assert differ.startswith("MTLD of all turns: user") and "Wasserstein" not in tied + differ
    assert leaving.startswith("leaving: nobody can say")
    users["user"]["leaving"] = None
    assert "no dialogue of these people says" in card.card_notes(users, reference, limits)[-1]


# ------------------------------------------------------------------------------------------------
# the commands


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "human.jsonl"
    path.write_text("".join(map(to_jsonl, dialogues("today", 60, 0, "card"))), encoding="utf-8")
    return path


@pytest.fixture
def run(run_command):
    """run(*words) runs evaluate.py in this process."""
    return partial(run_command, evaluate.main)


def test_a_card_of_any_user_has_people_beside_it(people, talker, tokenizer, tmp_path, run):
    """A checkpoint, and a chat model that is told to be a user; a second run asks it for nothing."""
    save_model(talker, tmp_path / "socratic"), tokenizer.save(tmp_path / "socratic")
    seen = []

    def reply(messages):
        seen.append(messages)
        return "(leaves)" if len(messages) > 6 else "which boat goes there?"
    with serving(reply) as url:
        words = ["card", "--user", tmp_path / "socratic", "--human", people, "--teacher", url, "--model", "m",
                 "--price", 1, 1, "--max-question", 9, "--simulated", f"user={people}", "--out", tmp_path / "card.json",
                 "--twin", tmp_path / "socratic"]
        done = run(*words)
        assert done.returncode == 0, done.stderr
        found, asked_first = json.loads((tmp_path / "card.json").read_text()), len(seen)
        assert asked_first == found["people"]["places"]
        assert run(*words).returncode == 0 and len(seen) == asked_first, "what was paid for is not bought twice"
    again = json.loads((tmp_path / "card.json").read_text())
    assert again == found, "the same seed, the same card"
    assert found["version"] == card.VERSION and set(found["users"]) >= {
        "user", "human", "random", "script", "prompted", "twin", "number"}
    users = found["users"]
    assert users["prompted"]["detector"]["auc"] > 0.9 > users["human"]["detector"]["auc"]
    assert users["prompted"]["leaving"]["f1"] > 0 and users["user"]["surprise"]["bits"]["mean"] > 0
    assert users["user"]["surprise"]["bits"] == users["twin"]["surprise"]["bits"]
    assert users["twin"]["surprise"]["more"] == {"mean": 0, "low": 0, "high": 0}
    assert "more" not in users["user"]["surprise"]
    # shuffled among its own turns, what people said keeps its style
    assert users["random"]["words a turn"] == users["human"]["words a turn"]
    assert users["random"]["topic"]["own answer"] < users["human"]["topic"]["own answer"]
    assert "told from people: AUC" in done.stdout and found["ceiling"]["words a turn"]["largest"] > 0


def test_a_user_behind_an_address_says_at_every_turn_what_it_says_here(talker, tokenizer, tmp_path):
    save_model(talker, tmp_path / "user"), tokenizer.save(tmp_path / "user")
    settings = AskSettings(UserSettings(temperature=0.0, max_question=12), Endpoint(None, "m"),
                           tokenizer=tmp_path / "user", in_flight=4)
    at, stop = human_turns([record(TALK, end="left", intent="clocks")] * 3), threading.Event()
    journal = Journal(tmp_path / "journal", {})
    client_for, _ = client_factory(ClientSettings(timeout=5, patience=5), None, journal, stop)
    here = ask_at_turns(str(tmp_path / "user"), at, settings, False, client_for, journal, stop)

    def complete(request):
        row, = generate_batch(talker, [request["prompt"]], [tokenizer.eos], request["max_tokens"], temperature=0)
        return tokenizer.decode(row.output), len(row.output) + 1, row.finish_reason, None
    with serving(lambda messages: "", complete=complete) as url:
        there = ask_at_turns(url, at, settings, False, client_for, journal, stop)
    assert here == there and len(here[0]) == 9 and not journal.offsets, "what is free leaves no trace"


@pytest.mark.parametrize("words, said", [
    (["--user", "nowhere"], "--user nowhere is no checkpoint directory and no address"),
    (["--user", "whole:data/whole.txt"], "it has nothing to say in another's dialogue"),
    (["--user", "script:follow-up", "--human", "data/example.jsonl"], "a card needs 20"),
    (["--user", "script:follow-up", "--human", "nowhere.jsonl"], "nowhere.jsonl"),
    (["--user", "script:follow-up", "--twin", "nodir"], "--twin nodir is no checkpoint directory"),
    (["--user", "prompt:data/user.txt"], "a prompted user needs --teacher URL"),
    (["--user", "script:follow-up", "--beside", "human=script:follow-up"], "human is on the card already"),
    (["--user", "script:follow-up", "--simulated", "x=nowhere.jsonl"], "nowhere.jsonl"),
    (["--user", "script:follow-up", "--teacher", "http://127.0.0.1:9/v1"], "127.0.0.1:9"),
])
def test_trouble_is_one_sentence(people, tmp_path, words, said, run):
    more = [] if "--human" in words else ["--human", people]
    done = run("card", *words, *more, "--out", tmp_path / "card.json", "--patience", 1)
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "card.json").exists()


def test_statistics_with_an_embedder_and_a_judge_over_the_wire(people, tmp_path, run):
    seen = {"chat": 0, "texts": 0}

    def judge(messages):
        seen["chat"] += 1
        return "no idea" if seen["chat"] == 1 else "complexity: 4\nrelevancy: 10\nlogicality: 7\ndiversity: 1"

    def embed(texts):
        seen["texts"] += len(texts)
        return [[len(text), 1.0, text.count("e")] for text in texts]
    with serving(judge, embed=embed) as url:
        words = ["stats", people, "--judge", url, "--judged", 9, "--embedder", url, "--out", tmp_path / "s.json",
                 "--bench", tmp_path / "q.jsonl", "--tokenizer", "nowhere"]
        question = next(read_records(people))["conversations"][0]["value"]
        (tmp_path / "q.jsonl").write_text(to_jsonl({"turns": [question]}))
        done = run(*words)
        assert done.returncode == 1 and "nowhere" in done.stderr
        done = run(*words[:-2])
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "s.json").read_text())["human"]
        # the first judgment cannot be read: it was bought, and is not bought again
        assert (found["complexity"], found["diversity"], found["sessions judged"], found["failed"]) == (4, 1, 8, 1)
        assert found["sessions that share words with a bench"] >= 1 and seen["texts"] > 200
        before = dict(seen)
        assert run(*words[:-2]).returncode == 0
    assert seen == before and seen["chat"] == 9


def test_a_checkpoint_served_answers_like_the_assistant_it_is(talker, tokenizer, tmp_path):
    save_model(talker, tmp_path), tokenizer.save(tmp_path)
    reply = serve.load_assistant(tmp_path, limit=12)
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who mends clocks?"}]
    first, second = reply(said), reply(said)
    again = serve.load_assistant(tmp_path, limit=12)
    assert [again(said), again(said)] == [first, second] and first != second
    # what a request asks for is done, and how it ended is told truly
    seeded = {"seed": 7, "temperature": 1.0}
    assert reply(said, seeded) == reply(said, seeded)
    assert reply(said, {"temperature": 0}) == reply(said, {"temperature": 0})
    assert reply(said, {"temperature": 0, "max_tokens": 1})[1] == "length"
    text, _ = reply(said, {"temperature": 0})
    assert reply(said, {"temperature": 0, "stop": text[3:]}) == (text[:3], "stop")
    assert serve.messages_to_turns(said + [{"role": "assistant", "content": "ada"}]) == [
        {"from": "human", "value": "be brief\nwho mends clocks?"}, {"from": "gpt", "value": "ada"}]
    long, _ = reply([{"role": "user", "content": "who mends clocks? " * 400}])
    assert isinstance(long, str), "what does not fit is cut, the system line stays"
