"""
Other formats of dialogues: each by hand, as an array and as lines; converted and back; errors; large files. Tests
data/formats/dialogues.py, files.py and sampling.py.
"""

import gzip
import io
import json
import random
import subprocess
import sys
import tracemalloc
from collections import Counter

import pytest

from data.formats import clean, files, sampling, segments
from data.formats.dialogues import to_record
from data.formats.files import read_dialogues, read_items, select_records
from data.program import UserError, to_jsonl, write_jsonl
from platolm import is_target, read_records

TEXTS = ["who mends clocks?", "ada does.", "and bells?"]


def turns(*texts, first=0):
    return [{"from": ("human", "gpt")[(i + first) % 2], "value": text} for i, text in enumerate(texts)]


def talk(*texts, first=0, **more):
    return {"conversations": turns(*texts, first=first), **more}


def messages(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def node(role, text, *replies, **more):
    return {"message_id": text, "role": role, "text": text, "replies": list(replies), **more}


TREE = node("prompter", "q", node("assistant", "a, but worse", rank=1),
            node("assistant", "gone", rank=-1, deleted=True), node("assistant", "no rank"),
            node("assistant", "a", node("prompter", "p", node("assistant", "end")),
                 node("prompter", "not first"), rank=0), lang="de")

# name: (item, record)
ITEMS = {
    "ours": (talk(*TEXTS, id="7", end="cut", kinds=["x"]), talk(*TEXTS, id="7", end="cut", kinds=["x"])),
    "ours, how a turn ended": (
        {"id": "a", "conversations": turns("q") + [{"from": "gpt", "value": "a", "finish": "length"}]},) * 2,
    "ShareGPT": ({"id": 7, "model": "m", "conversations": [
        {"from": "System", "value": "be brief"}, {"from": "user", "value": "q"}, {"from": "ChatGPT", "value": "a"},
        {"from": "HUMAN", "value": "r"}, {"from": "bing", "value": "b"}, {"from": "human", "value": "s"},
        {"from": "bard", "value": "c"}]}, talk(*"qarbsc", id="7", model="m", system="be brief")),
    "ShareGPT, a later segment": (talk("a", "q", "b", first=1, id="x_4"), talk("a", "q", "b", first=1, id="x_4")),
    "FastChat, a key system": (talk(*TEXTS, id="1", system="be"), talk(*TEXTS, id="1", system="be")),
    "SocraticChat": (talk(*TEXTS, session_id=3, num_of_rounds=1),
                     talk(*TEXTS, id="3", session_id=3, num_of_rounds=1)),
    "WizardLM": (talk("q", "a", idx="w1"), talk("q", "a", id="w1", idx="w1")),
    "OpenAI": ({"messages": messages(("developer", "be"), ("user", "q"), ("assistant", "a"), ("system", "brief"))},
               talk("q", "a", system="be\n\nbrief")),
    "OpenAI, parts": ({"messages": messages(("user", [{"type": "text", "text": "q"}, {"type": "text", "text": "r"}]),
                                        ("assistant", ["a"]))}, talk("q\nr", "a")),
    "UltraChat-200k": ({"prompt": "q", "prompt_id": "9f", "messages": messages(("user", "q"), ("assistant", "a"))},
                       talk("q", "a", id="9f", prompt_id="9f")),
    "UltraChat": ({"id": "0", "data": TEXTS}, talk(*TEXTS, id="0")),
    "Baize": ({"topic": "clocks", "input": "A talk.\n[|Human|] q\n[|AI|] a\nb\n[|Human|] r\n[|AI|] c\n[|Human|] "},
              talk("q", "a\nb", "r", "c", topic="clocks")),
    "Baize, the human last": ({"topic": "t", "input": "A.\n[|Human|]q[|AI|]a[|Human|]r"},
                              talk("q", "a", "r", topic="t")),
    "WildChat": ({"conversation_id": "c", "toxic": False, "conversation": [
        {"role": "user", "content": "q", "language": "English"},
        {"role": "assistant", "content": "a", "toxic": False}]},
        talk("q", "a", id="c", conversation_id="c", toxic=False)),
    "WildChat, hashed": ({"conversation_hash": "h", "conversation": messages(("user", "q"))},
                         talk("q", id="h", conversation_hash="h")),
    "OASST": ({"message_tree_id": "t", "tree_state": "ready", "prompt": TREE},
              talk("q", "a", "p", "end", id="t", lang="de", message_tree_id="t", tree_state="ready")),
    "OASST, no ranks": ({"prompt": node("prompter", "q", node("assistant", "1st"), node("assistant", "2nd"),
                                        lang="en")}, talk("q", "1st", lang="en")),
}


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_of_each_format_is_our_record(name):
    item, record = ITEMS[name]
    before = json.dumps(item)
    assert to_record(item) == record and json.dumps(item) == before
    # a record of ours stays what it is
    assert to_record(record) == record


def test_an_array_and_lines_of_all_formats_give_the_same(tmp_path):
    given, expected = [item for item, _ in ITEMS.values()], [record for _, record in ITEMS.values()]
    text = [json.dumps(item) for item in given]
    middle = len(text) // 2
    for form in (json.dumps(given), json.dumps(given, indent=2, ensure_ascii=False), "".join(map(to_jsonl, given)),
                 # as `cat` leaves two arrays, and one object over many lines
                 f"[{','.join(text[:middle])}]\n[{','.join(text[middle:])}]\n",
                 "\n".join(json.dumps(item, indent=2) for item in given)):
        (tmp_path / "x").write_text(form, encoding="utf-8")
        assert list(read_dialogues(tmp_path / "x")) == expected
    (tmp_path / "x").write_text(to_jsonl({"id": "a", "text": "once"}) + text[0])
    assert list(read_dialogues(tmp_path / "x")) == expected[:1]
    assert to_record({"id": 1, "text": "a"}) == {"id": 1, "text": "a"}


WRONG = [
    (talk("", "a", "r"), "turn 1 says nothing"), (talk(), "an empty dialogue"),
    ({"messages": messages(("user", "q"), ("user", "r"))}, "roles do not alternate: turns 1 and 2"),
    ({"messages": messages(("user", "q"), ("tool", "r"))}, "an unknown role 'tool'"),
    (talk("q", "a") | {"loss_mask": [0]}, "one number for each turn"),
    ({"messages": messages(("user", [{"type": "image_url"}]))}, 'something in "messages" is no turn'),
    ({"conversations": ["q", "a"]}, 'something in "conversations" is no turn'), ({"conversations": [5]}, "is no turn"),
    ({"data": ["q", 5]}, "turn 2 says nothing"), ({"data": ["q", {}]}, "turn 2 says nothing"),
    ({"instruction": "q", "input": "", "output": "a"}, "no format known here .its keys: input, instruction, output"),
    ({"topic": "q", "input": "[|Robot|] hi"}, r'no \[\|Human\|\] in "input"'),
    ({"prompt": node("prompter", "q", deleted=True)}, "an empty dialogue"),
    ({"prompt": node("prompter", "q", "reply")}, 'something in "prompt" is no turn'),
    ({"message_tree_id": "t", "parent_id": None, "text": "q", "role": "prompter"}, "one message of a tree"),
    ({"instruction": "q"}, "in no format known"), ({"conversations": "q"}, "in no format known"),
    ({"text": ""}, "an empty text"), ({}, "in no format known"),
]


@pytest.mark.parametrize("item, error", WRONG)
def test_what_cannot_be_used_is_a_sentence(tmp_path, item, error):
    with pytest.raises(ValueError, match=error):
        to_record(item)
    (tmp_path / "x").write_text(to_jsonl(talk("q")) + to_jsonl(item))
    with pytest.raises(UserError, match=f"item 2: .*{error}"):
        list(read_dialogues(tmp_path / "x"))


def test_what_cannot_be_used_is_counted_by_what_is_wrong(tmp_path):
    given = [talk("q", id="a"), talk("", "r"), talk(" ", "a", "b"), {"conversations": turns("\ud800")},
             talk("q", id="b"), {"conversations": turns("x", "\udfff")}, {"conversations": turns("q") * 2}]
    (tmp_path / "x").write_text(json.dumps(given))
    bad = Counter()
    assert [record["id"] for record in read_dialogues(tmp_path / "x", bad)] == ["a", "b"]
    assert bad == {"turn # says nothing": 2, "surrogates not allowed": 2,
                   'roles do not alternate: turns # and # are "human"': 1}


FLAGGED = [
    {"conversations": [turn | ({"weight": 0} if turn["value"] == "a" else {}) for turn in turns(*"qarb")]},
    {"conversations": [turn | ({"loss": False} if turn["value"] == "a" else {}) for turn in turns(*"qarb")]},
    talk(*"qarb", loss_mask=[1, 0, 1, 1]), {"data": list("qarb"), "loss_mask": [1, 0, 1, 1]},
    {"messages": [message | ({"train": False} if message["content"] == "a" else {}) for message in messages(
        ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))]},
    {"messages": messages(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")),
     "loss_mask": [0, 1, 0, 1, 1]},
    {"conversation": [message | ({"weight": 0.0} if message["content"] == "a" else {}) for message in messages(
        ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"))]}]


@pytest.mark.parametrize("item", FLAGGED)
def test_what_is_marked_as_not_to_be_learnt_stays_so_in_every_format(item):
    record = to_record(item)
    assert [turn["value"] for turn in record["conversations"]] == list("qarb")
    assert [is_target(turn) for turn in record["conversations"]] == [True, False, True, True]
    # also in a segment of it
    (row,) = files.openai_lines([record])
    assert [message.get("weight") for message in json.loads(row)["messages"][-4:]] == [None, 0, None, None]
    first, second = segments.split({"id": "x", **record}, [(0, 2), (1, 4)])
    assert [[is_target(turn) for turn in part["conversations"]] for part in (first, second)] == [
        [True, False], [False, True, True]]


def test_what_no_model_reads_is_counted(tmp_path):
    call = {"role": "assistant", "content": "let me look", "tool_calls": [{"id": "1"}]}
    given = [talk("q", "a", "", "b", id="empty"), talk("q", "a", "r", "", id="last", end="left"),
             {"messages": messages(("system", "be"), ("user", "q")) + [call]},
             {"messages": messages(("user", "q")) + [call | {"content": None}]}, {"text": "### Human: hi"}]
    (tmp_path / "x").write_text(json.dumps(given))
    counts = Counter()
    records = list(read_dialogues(tmp_path / "x", counts))
    assert [(len(record["conversations"]), record.get("end")) for record in records] == [
        (2, "cut"), (3, "left"), (2, None), (1, "cut")]
    assert {reason.split(" (")[0]: number for reason, number in counts.items()} == {
        "turns from an empty one on": 4, "system lines": 1, "calls of tools": 2, "texts without turns": 1}


def test_ids_that_count_up_make_no_segments(tmp_path):
    """Not with one turn each: a dialogue does not go on with the one who spoke last."""
    (tmp_path / "x").write_text("".join(to_jsonl(talk(f"question {n}", id=f"seed_{n}")) for n in range(5)))
    assert not any("segment_of" in record or "end" in record for record in read_dialogues(tmp_path / "x"))


def test_an_array_may_be_wrapped(tmp_path):
    (tmp_path / "x").write_text(json.dumps({"version": 1, "data": [talk("q", "a"), talk("r", "b")]}))
    assert list(read_dialogues(tmp_path / "x")) == [talk("q", "a"), talk("r", "b")]


def test_an_error_names_the_line_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 50)
    lines = [to_jsonl(talk("q", "a", id=str(n))) for n in range(40)]
    (tmp_path / "x").write_text("".join(lines[:30]) + '{"id": 7, nothing}\n' + "".join(lines[30:]))
    with pytest.raises(UserError, match="after item 30: .* line 31 column"):
        list(read_dialogues(tmp_path / "x"))


@pytest.mark.parametrize("data, error", [
    (b"\x1f\x8b\x08\x00", "gzip file is cut off"), (b"PAR1\x15", "is a parquet file"), (b"PK\x03\x04", "is a zip file"),
    (b"\xff\xfe{\x00", "not a UTF-8 text file"), (b"\x00\x01", "after item 0: not JSON"), (b"a,b\n1,2", "not JSON"),
    (b'[{"text": "a"}', "after item 1: not JSON .it ends too early"), (b'{"text": "a', "item 0: .* too early"),
    (b'{"text": "a"\n{"text": "b"}' + b" " * 20, "after item 0: not JSON .Expecting ','"),
    (b'{"text": "a"}\n5', "things other than objects"), (b'{"text": "a"}]', "after item 1: .* other than objects")])
def test_a_file_that_is_no_json_is_a_sentence(tmp_path, data, error):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError, match=error):
        list(read_dialogues(tmp_path / "x", Counter()))


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(files, "PIECE", piece)
    given = [{"text": 'é🙂 "\\ \n', "n": [1.5e-7, -12, True, None, float("inf")], "more": {"a": {}}}] * 3
    for form in (json.dumps(given), json.dumps(given, ensure_ascii=False, indent=1),
                 "\n \n".join(map(json.dumps, given))):
        (tmp_path / "x").write_text(form, encoding="utf-8")
        assert list(read_items(tmp_path / "x", None)) == given


def test_a_long_array_takes_little_memory(tmp_path):
    rng = random.Random(0)
    with open(tmp_path / "x", "w") as file:
        for n in range(20):
            file.write("[," [n > 0] + json.dumps(talk("q", f"{rng.random()} " * 50_000)))
        file.write("]")
    assert (tmp_path / "x").stat().st_size > 15e6
    tracemalloc.start()
    try:
        assert sum(1 for _ in select_records(tmp_path / "x")) == 20
        assert tracemalloc.get_traced_memory()[1] < 12e6
    finally:
        tracemalloc.stop()


class Counting(io.StringIO):
    reads = 0

    def read(self, size):
        self.reads += 1
        return super().read(size)


def test_an_item_much_longer_than_a_piece_is_read_in_few_steps(monkeypatch):
    monkeypatch.setattr(files, "PIECE", 100)
    file = Counting(json.dumps([talk("q" * 1_000_000), talk("r")]))
    assert len(list(files.json_objects(file))) == 2 and file.reads < 20


def test_what_is_broken_early_is_not_read_to_the_end(monkeypatch):
    monkeypatch.setattr(files, "PIECE", 100)
    file = Counting('[{"text": nil}' + ', {"text": "a"}' * 10_000)
    with pytest.raises(ValueError):
        list(files.json_objects(file))
    assert file.reads < 3


# ------------------------------------------------------------------------------------------------
# as a command


@pytest.fixture
def importer(run_command):
    """importer(*words) runs data.formats.files on a command line."""
    return lambda *words: run_command(files.main, *words)


@pytest.fixture
def folder(tmp_path):
    """Two hundred dialogues in five languages, and three that are none."""
    given = [talk(f"q {n}", f"a {n}", id=f"t{n}", lang=("en", "de", "fr", "es", "it")[n % 5]) for n in range(200)]
    given[50:50] = [talk("", "r"), talk(" ", "a", " ", "b"), {"id": "x"}]
    given[3]["system"] = "be brief"
    (tmp_path / "x.json").write_text(json.dumps(given))
    return tmp_path


def test_one_file_or_two(folder, importer):
    done = importer(folder / "x.json", "--out", folder / "all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == [
        "        2 passed over: turn # says nothing",
        "        1 passed over: system lines (kept in the record, no model reads them)",
        "        1 passed over: a dialogue in no format known here (its keys: id)",
        f"{folder}/all: 200 dialogues"]
    whole = list(read_records(folder / "all"))
    assert [record["id"] for record in whole] == [f"t{n}" for n in range(200)] and whole[0]["end"] == "left"
    importer(folder / "x.json", "--out", folder / "a", "--held-out", folder / "b", "--share", 4)
    rest, held_out = list(read_records(folder / "a")), list(read_records(folder / "b"))
    assert 25 < len(held_out) < 75 and len(rest) + len(held_out) == 200
    assert sorted(map(to_jsonl, rest + held_out)) == sorted(map(to_jsonl, whole))
    importer(folder / "x.json", "--out", folder / "c", "--where", "lang=en,de", "--where", "id=t3,t5,t6")
    assert [record["id"] for record in read_records(folder / "c")] == ["t5", "t6"]


def test_there_and_back(folder, importer):
    importer(folder / "x.json", "--out", folder / "all")
    whole = list(read_records(folder / "all"))
    importer(folder / "all", "--out", folder / "s", "--as", "sharegpt")
    assert json.loads((folder / "s").read_text()) == whole
    importer(folder / "s", "--out", folder / "m", "--as", "messages")
    rows = [json.loads(text) for text in (folder / "m").read_text().splitlines()]
    assert rows[0] == {"messages": messages(("user", "q 0"), ("assistant", "a 0"))}
    assert rows[3]["messages"][0] == {"role": "system", "content": "be brief"}
    importer(folder / "m", "--out", folder / "back")
    before = [(record["conversations"], record.get("system"), record["end"]) for record in whole]
    after = [(record["conversations"], record.get("system"), record["end"])
             for record in read_records(folder / "back")]
    assert after == before


@pytest.mark.parametrize("words, error", [
    ("--out {}/OUT --where lang=xx", "there are no dialogues for"), ("--out {}/OUT --where lang", "invalid condition"),
    ("--out {}/OUT --held-out {}/HELD --share 1", "there are no dialogues for"),
    ("--out {}/OUT --held-out {}/OUT", "is the same"), ("--out {0}/../{0.name}/x.json", "is the same")])
def test_what_a_user_may_do_wrong(folder, importer, words, error):
    words = words.replace("{}", "{0}").format(folder).split()
    done = importer(folder / "x.json", *words)
    assert done.returncode and error in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "OUT").exists()


# ------------------------------------------------------------------------------------------------
# samples


def test_quotas_are_those_of_the_paper():
    sectors, topics = (577_819, 562_943, 327_590), (46_867, 54_456, 57_046)
    assert list(sampling.quotas(dict(enumerate(sectors)), 10_000).values()) == [3935, 3834, 2231]
    assert list(sampling.quotas(dict(enumerate(topics)), 10_000).values()) == [2959, 3439, 3602]
    assert sampling.quotas({"a": 5, "b": 3, "c": 2}, 4) == {"a": 2, "b": 1, "c": 1}


@pytest.fixture
def sample(folder, run_command):
    """sample(like, *files, number=...) draws a sample; gives its records and what is printed."""
    def draw(like, *paths, number=10_000):
        done = run_command(sampling.main, "--like", like, *paths, "--out", folder / "out", "--number", number)
        assert done.returncode == 0, done.stderr
        return list(read_records(folder / "out")), done.stdout
    return draw


def test_first_segments_and_seeds(folder, sample):
    ids = ["a_0", "a_2", "b_0", "b_10", "c", "alpaca_1"]
    # b_10 is a name as any: b_0 has two turns and would go on at b_2
    talks = [talk("q", "a", id=name) for name in ids] + [talk("q", "a", "r", id="long")]
    (folder / "v").write_text("".join(map(to_jsonl, talks)))
    records, printed = sample("vicuna", folder / "v")
    assert [record["id"] for record in records] == ["a_0", "b_0", "b_10", "c", "alpaca_1", "long"]
    assert "1 passed over: a later segment" in printed and "6 of         6" in printed
    assert "6 dialogues, all there are; 10,000 were asked for" in printed
    records, _ = sample("wizard", folder / "v", number=3)
    assert len(records) == 3 and {record["id"] for record in records} < set(ids[:5])


def test_files_in_proportion(folder, sample):
    for name, number in (("p", 60), ("q", 30), ("r", 10)):
        (folder / name).write_text("".join(to_jsonl({"id": f"{name}{n}", "data": TEXTS}) for n in range(number)))
    records, printed = sample("ultrachat", folder / "p", folder / "q", folder / "r", number=20)
    assert Counter(record["id"][0] for record in records) == {"p": 12, "q": 6, "r": 2}
    assert len({record["id"] for record in records}) == 20 and "20 dialogues\n" in printed
    assert sample("baize", folder / "p", folder / "q", folder / "r", number=20)[0] == records


def test_dolly_by_category(folder, sample):
    rows = [{"instruction": f"i{n}", "context": "c", "response": "a", "category": kind}
            for kind, number in (("open_qa", 30), ("closed_qa", 10)) for n in range(number)]
    (folder / "d").write_text("".join(map(to_jsonl, rows)))
    records, printed = sample("dolly", folder / "d", number=8)
    assert Counter(record["category"] for record in records) == {"open_qa": 6, "closed_qa": 2}
    assert "6 of        30  open_qa" in printed
    for record in records:
        (turn,) = record["conversations"]
        number = int(record["id"].removeprefix("dolly_"))
        question = rows[number]["instruction"]
        about = f"The task is answering a question from a text.\n\n{question}\n\nc"
        assert turn == {"from": "human", "value": question if number < 30 else about}


def test_segments_of_one_dialogue_are_held_out_together():
    """Or who learns from one has read the beginning of the other."""
    pieces = [talk(f"{n} {start}") | {"id": f"{n}_{start}", "segment_of": str(n)} for n in range(300)
              for start in (0, 3, 6)]
    held_out = {piece["segment_of"] for piece in files.held_out_split(pieces, 4, True)}
    rest = {piece["segment_of"] for piece in files.held_out_split(pieces, 4, False)}
    assert not held_out & rest and len(held_out) + len(rest) == 300 and 40 < len(held_out) < 110


def test_segments_that_others_made_are_known(tmp_path):
    """FastChat's go on where the last one ended, the authors' with its last answer; other numbers are names."""
    long = talk("q", "a", "r", "b", "s", "c")["conversations"]
    pieces = [("x_0", long[:2]), ("x_2", long[2:6]), ("y_0", long[:4]), ("y_3", long[3:]), ("z_0", long[:2]),
              ("z_1", long[:2]), ("z", long)]
    (tmp_path / "x").write_text("".join(to_jsonl({"id": name, "conversations": turns}) for name, turns in pieces))
    records = list(select_records(tmp_path / "x"))
    assert [record["id"] for record in records] == [name for name, _ in pieces]
    assert [record["end"] for record in records] == ["cut", "left", "cut", "left", "left", "left", "left"]
    assert [record.get("segment_of") for record in records] == ["x", "x", "y", "y", None, None, None]


def test_an_empty_last_turn_is_dropped():
    record = to_record(talk("q", "a", " \n", end="bored"))
    assert [turn["value"] for turn in record["conversations"]] == ["q", "a"] and record["end"] == "cut"


def test_gzip_is_read_and_pipes_lose_nothing(folder):
    whole = (folder / "x.json").read_bytes()
    (folder / "x.json.gz").write_bytes(gzip.compress(whole))
    assert list(read_dialogues(folder / "x.json.gz", Counter())) == list(read_dialogues(folder / "x.json", Counter()))
    (folder / "cut.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(UserError, match="cut off|too early"):
        list(read_dialogues(folder / "cut.gz", Counter()))
    packed = bytearray(gzip.compress(whole))
    packed[-6] ^= 255
    (folder / "bad.gz").write_bytes(packed)
    with pytest.raises(UserError, match="bad.gz.* damaged"):
        list(read_dialogues(folder / "bad.gz", Counter()))
    words = [sys.executable, "-m", "data.formats.files", "/dev/stdin", "--out", str(folder / "piped")]
    done = subprocess.run(words, input=whole, capture_output=True)
    assert done.returncode == 0 and len(list(read_records(folder / "piped"))) == 200
    done = subprocess.run([*words, "--held-out", str(folder / "h")], input=whole, capture_output=True)
    assert done.returncode == 1 and b"read twice" in done.stderr


def test_where_compares_other_values_as_json(folder, importer):
    (folder / "w").write_text("".join(to_jsonl(talk("q", toxic=toxic)) for toxic in (True, False, None)))
    importer(folder / "w", "--out", folder / "o", "--where", "toxic=false,null")
    assert [record["toxic"] for record in read_records(folder / "o")] == [False, None]


def test_segments_of_others_stay_segments_when_they_are_cleaned(tmp_path, tokenizer, run_command):
    """Also where they are divided again: nobody has left inside of a dialogue."""
    conversation = talk(*"abcdef")["conversations"]
    write_jsonl(tmp_path / "x", [{"id": f"x_{n}", "conversations": conversation[n:n + 2]} for n in (0, 2, 4)])
    tokenizer.save(tmp_path)
    run_command(clean.main, tmp_path / "x", "--out", tmp_path / "y", "--paper", "--tokenizer", tmp_path)
    records = list(select_records(tmp_path / "y"))
    assert [(record["id"], record["segment_of"], record["end"]) for record in records] == [
        ("x_0_0", "x", "cut"), ("x_2_0", "x", "cut"), ("x_4_0", "x", "left")]
