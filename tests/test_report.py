"""The page: nothing that was said in a dialogue becomes part of it; nothing comes from outside."""

import json
import re
from html.parser import HTMLParser

import pytest

from data.experiment import report
from data.program import to_jsonl

EVIL = '<script>alert("&")</script> <img src=x onerror=alert(1)> é ☃'


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


class Tags(HTMLParser):
    """Collects the elements and attributes of a page, and checks that they close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path, tokenizer):
    """What a run leaves behind, made up, with rubbish in every text."""
    arm = {"overall": 0.5, "low": 0.4, "high": 0.6, "asked": 0.5, "never_asked": None, "turn1": 0.5,
           "turn2": 0.5, "formal": 0.4, "vicuna": 0.3, "gold": 0.2, "gold_low": 0.1,
           "gold_high": 0.3, "completed": 0.9, "categories": {"math": 0.5}, "kinds": {"doubt": 0.5}}
    grounded = {"doubts": {"share": 0.5, "n": 3}, "picks": {"share": None, "n": 0}}
    user = {"turns": 5.0, "leaning": 0.4, "lost": 0.1, "never_asked": 0.2, "grounded": grounded}
    row = {"leaning": True, "asked": False, "tokens": 9, "listener": 1.0, "blind": 1.5,
           "difference": 0.5, "low": 0.4, "high": 0.6}
    talk = [{"from": who, "value": EVIL} for who in ("human", "gpt") * 3]
    pair = {"difference": 0.1, "low": -0.1, "high": 0.3}
    pairwise = {"model_1": EVIL, "model_2": "b", "wins": 1, "ties": 2, "losses": 3, "adjusted": 0.4,
                "low": 0.3, "high": 0.5, "p": 0.2, "controlled": {"rate": 0.4, "low": 0.3, "high": 0.5},
                "flips": 0.1, "first": None}
    files = {"results.json": {"arms": {"socratic": arm, "floor": arm, EVIL: arm},
                              "paired": {"socratic-floor": pair},
                              "duels": [pairwise, pairwise | {"controlled": None}],
                              "seconds": {"train base": 3.2}},
             "questions.json": [{"turns": talk, "person": EVIL, "socratic": EVIL, "script": EVIL}],
             "card.json": CARD, "stats.json": {EVIL: {"sessions": 3, "MTLD of a human turn": None, "AUC": 0.5}},
             "behaviour.json": {"socratic": user}, "listening.json": {"dialogues": 2, "rows": [row]}}
    step = {"step": 1, "loss": 2.0, "tokens": 9, "learnt": 3, "samples": 2, "held_out": 1.0}
    logs = {f"{name}/log.jsonl": [step, step | {"step": 2, "loss": 1.0}]
            for name in ("socratic", "blind", "assistant/socratic")}
    chats = {name: [{"id": "1", "conversations": talk}] for name in (
        "held-out.jsonl", "chat/socratic.jsonl", "chat/self-chat.jsonl", "chat/role-play.jsonl")}
    for name, rows in (logs | chats).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(map(to_jsonl, rows)), encoding="utf-8")
    for name, found in files.items():
        (tmp_path / name).write_text(json.dumps(found), encoding="utf-8")
    tokenizer.save(tmp_path / "base")
    return tmp_path


def test_the_page_stands_alone_and_nothing_said_becomes_part_of_it(run):
    page = report.page(run)
    tags = Tags()
    tags.feed(page)
    assert not tags.open and page.count("☃") > 10
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.seen}
    for _, attributes in tags.seen:
        assert not {"src", "href", "onerror", "onload"} & set(attributes)
    assert not re.search(r"url\(|@import|https?:", page)
    assert page == report.page(run)


@pytest.mark.parametrize("low, high, words", [
    (0.1, 0.3, "higher"), (-0.3, -0.1, "lower"), (-0.1, 0.1, "No difference")])
def test_a_difference_is_put_in_words_as_its_interval_allows(low, high, words):
    pair = {"difference": (low + high) / 2, "low": low, "high": high}
    assert words in report.verdict("socratic", "self-chat", pair)
