"""The page: nothing that was said in a dialogue becomes part of it; nothing comes from outside."""

import json
import re
from html.parser import HTMLParser

import pytest

from data.experiment import report
from data.experiment.svg import TOLD_LEVELS, town_map
from data.experiment.talks import draw_guide
from data.program import UserError, to_jsonl

EVIL = '<script>alert("&")</script> <img src=x onerror=alert(1)> é ☃'
SHARE = {"right": 0.5, "low": 0.4, "high": 0.6}
LEAVES = {"f1": 0.5, "best": [0.5, 0.6], "brier": 0.1, "reliability": [[0.1, 0.2, 9], [0.7, 0.6, 9]],
          "curve": [[0.1, 0.3], [0.5, 0.5]], "hazard": [[1, 0.1], [2, 0.4]], "people": [[1, 0.2], [2, 0.3]]}
GAP = {"mean": 0.1, "low": 0.0, "high": 0.2}
USER = {"turns": 9, "words a turn": 5.5, "topic": {"own answer": 0.2, "another's": None, "first": [0.1, 0.2],
                                                   "answer": [0.1, 0.3]}, "lengths": {"x": 0.1},
        "detector": {"auc": 0.6, "low": 0.5, "high": 0.7, "matched": None, "telltales": [EVIL]}, "steering": None,
        "leaving": LEAVES, "failed": {"token_limit": 2},
        "surprise": {"bits": GAP, "blanked": GAP, "exchanged": GAP, "kinds": {
            EVIL: {"turns": 12, "bits": 0.5, "blanked": GAP, "exchanged": GAP}}}}
CARD = {"people": {"dialogues": 20, "places": 90}, "reference": {"words a turn": 5.0}, "who": {"user": EVIL},
        "notes": [EVIL], "users": {"user": USER, "human": USER | {"leaving": None}, "number": {"leaving": LEAVES}}}
TALK = [{"from": who, "value": EVIL} for who in ("human", "gpt") * 3]
FACTS = {"once": 0.5, "twice": 0.2, "times": 1.5}
REACH = {"dialogues": 1, "turns": 3.0, "kinds": {"unknown": 0.1}, "asides": 0.2, "told": {"proud otter": 3},
         "facts": {"houses": FACTS, "stalls": FACTS}, "copied": 0.4, "lucky": 1}
DUEL = {"model_1": EVIL, "model_2": "b", "wins": 1, "ties": 2, "losses": 3, "adjusted": 0.4, "low": 0.3,
        "high": 0.5, "p": 0.2, "controlled": {"rate": 0.4, "low": 0.3, "high": 0.5}, "flips": 0.1, "first": None}


def contrast(b, low, high, role="further"):
    return {"a": "socratic", "b": b, "difference": (low + high) / 2, "low": low, "high": high, "role": role,
            "p": None if role == "described" else 0.02}


class Tags(HTMLParser):
    """Collects the elements and attributes of a page, and checks that they close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path, tokenizer):
    """What a run leaves behind, made up, with rubbish in every text."""
    directory = tmp_path / "tiny"
    knows = dict.fromkeys(("houses", "asides", "stalls", "headline", "gold"), SHARE) | {"script": 0.5}
    nobody = dict.fromkeys(SHARE)
    scores = {"overall": 0.5, "low": 0.4, "high": 0.6, "turn1": 0.5, "turn2": None, "vicuna": 0.3,
              "groups": {"houses": 0.5}, "categories": {EVIL: 0.5}, "kinds": {"doubt": 0.5}}
    files = {"contrasts.json": {"arms": {"socratic": knows, "self-chat": knows, EVIL: knows | {"gold": nobody}},
                                "contrasts": [contrast("self-chat", 0.1, 0.3, "primary"),
                                              contrast("heard-replay", -0.1, 0.1),
                                              contrast("human", 0.5, 0.7, "described")],
                                "gap": None},
             "gates.json": [{"gate": f"{EVIL} (at least .9)", "value": 0.5, "passed": False}],
             "reach.json": {"socratic": REACH},
             "results.json": {"arms": {"socratic": scores, EVIL: scores},
                              "paired": {EVIL: contrast("floor", 0.1, 0.2)},
                              "duels": [DUEL, DUEL | {"controlled": None}]},
             "questions.json": [{"turns": TALK, "person": EVIL, "socratic": EVIL, "script": EVIL}],
             "card.json": CARD, "stats.json": {EVIL: {"sessions": 3, "MTLD of a human turn": None, "AUC": 0.5}}}
    step = {"step": 1, "loss": 2.0, "tokens": 9, "learnt": 3, "samples": 2, "held_out": 1.0}
    logs = {"seconds.jsonl": [{"stage": f"{EVIL}{i}", "seconds": 90.0, "ended": 1e9 + 60 * i} for i in range(3)]}
    logs |= {f"{name}/log.jsonl": [step, step | {"step": 2, "loss": 1.0}]
            for name in ("socratic", "blind", "assistant/socratic")}
    chats = {name: [{"id": "1", "conversations": TALK}] for name in ("chat/socratic.jsonl",)}
    for name, rows in (logs | chats).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("".join(map(to_jsonl, rows)), encoding="utf-8")
    for name, found in files.items():
        (directory / name).write_text(json.dumps(found), encoding="utf-8")
    tokenizer.save(directory / "base")
    return directory


def test_the_page_stands_alone_and_nothing_said_becomes_part_of_it(run):
    page = report.page(run, draw_guide(0))
    tags = Tags()
    tags.feed(page)
    assert not tags.open and page.count("☃") > 20
    assert "`make all` writes it" not in page, "a section did not find what it is made from"
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.seen}
    for _, attributes in tags.seen:
        assert not {"src", "href", "onerror", "onload"} & set(attributes)
    assert not re.search(r"url\(|@import|https?:", page)
    assert page == report.page(run, draw_guide(0))


def test_a_missing_file_is_one_sentence_and_a_variant_finds_what_it_shares_with_its_run(run):
    (run / "card.json").unlink()
    variant = run.with_name("tiny-growth0")
    variant.mkdir()
    page = report.page(variant, draw_guide(0))
    assert page.count("`make all` writes it") == 1 and "tiny-growth0/card.json" in page
    (run / "contrasts.json").unlink()
    with pytest.raises(UserError, match="contrasts.json; `make all` writes it"):
        report.page(variant, draw_guide(0))


def test_every_house_and_stall_is_on_the_map_and_hollow_if_not_told_of():
    lanes = {"eel lane": [("dusty camel", False), *((f"stall {i}", True) for i in range(12))], "tar lane": []}
    told = dict(zip((f"stall {i}" for i in range(12)), TOLD_LEVELS))
    drawn = town_map(lanes, told, EVIL)
    assert drawn.count('class="told0"') == 13 - len(TOLD_LEVELS)
    for level, least in enumerate(TOLD_LEVELS, 1):
        assert drawn.count(f'class="told{level}"') == 1 and f"told of {least} times" in drawn
    assert all(float(x) < 64 for x in re.findall(r'cx="([\d.]+)"', drawn)), "many stalls stay on their lane"


def test_the_result_in_a_few_lines_says_what_was_sure_and_what_cannot_be_relied_on(run):
    stalls, primary, rule, lost, gates = report.result(run)
    assert "socratic 50%" in stalls and "self-chat +0.200 [+0.100, +0.300]: socratic knows more" in primary
    assert "heard-replay +0.000" in rule and "no difference" in rule
    assert "human" in lost and "+0.6" not in lost
    assert "NOT PASSED" in gates and "at least" not in gates
