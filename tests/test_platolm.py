"""The record, the template and the mask."""

import json
import re
import subprocess
import sys

import pytest

import platolm
from conftest import TALKS, record
from data.program import UserError, to_jsonl, parse_line, write_jsonl
from platolm import IGNORE, LABEL, SYSTEM, Tokenizer, encode, prompt, shift, turns, read_records

NASTY = ["▁", " ▁▁ a▁b", "a\u2581 \U0010ffff", "", " ", "  two  spaces ", "tab\tand\nnewline\r\n",
         "emoji 🦜 and ümläut", "</s> is text",
         "<s>Human: <unk> [INST]", "0123 12.5", "日本語と한국어", "\x00\x01", "<0x0A>", "e\u0301", "\ufeff"]


def texts(ids, mask, tokenizer):
    """The stretches where the mask is on, each decoded, its end mark spelled out."""
    spans, span = [], []
    for token, counts in zip(ids, mask):
        if counts:
            span.append(token)
        if span and (not counts or token == tokenizer.eos):
            assert span[-1] == tokenizer.eos, "a learnt stretch does not end its turn"
            spans.append(tokenizer.decode(span[:-1]))
            span = []
    return spans


BRIEF = [("human", "hi"), ("gpt", "hello"), ("human", "bye")]


def as_text(ids, mask, tokenizer):
    """Tokens as one line of text, in brackets what the loss counts."""
    return platolm.highlight(platolm.token_texts(ids, tokenizer), mask, 0, colour=False)


def check_by_hand(tokenizer, conversation, learn, more, text):
    """Compare what encode gives, after the system line "So. ", with a line of text that has its mask in brackets."""
    options = ", ".join(f"{key}={value!r}" for key, value in ({"learn": learn} | more).items())
    call = f"encode(turns, tokenizer, {options})"
    ids, mask = encode(conversation, Tokenizer(tokenizer.model, "So. "), learn, **more)
    assert len(ids) == len(mask), f"{call} gives {len(ids)} tokens, but a mask for {len(mask)}"
    # how many spaces stand around a special token is no matter here
    got, expected = (re.sub(" +", " ", line) for line in (as_text(ids, mask, tokenizer), text))
    assert got == expected, f"{call}, turns {conversation}\nexpected {expected}\ngot      {got}"


@pytest.mark.exercise(1)
@pytest.mark.parametrize("learn, more, text", [
    ("human", {}, "<s> So. Human: <s>[ hi</s>] Assistant: <s> hello</s> Human: <s>[ bye</s>]"),
    ("gpt", {}, "<s> So. Human: <s> hi</s> Assistant: <s>[ hello</s>] Human: <s> bye</s>"),
    ("all", {}, "<s>[ So. Human: <s> hi</s> Assistant: <s> hello</s> Human: <s> bye</s>]"),
    ("gpt", {"compat": True}, "<s> So. Human: <s> hi</s> Assistant: [<s> hello</s>] Human: <s> bye</s>"),
    ("human", {"intent": "is shy"},
     "<s> So. is shy⏎⏎ Human: <s>[ hi</s>] Assistant: <s> hello</s> Human: <s>[ bye</s>]"),
    ("gpt", {"intent": "is shy"}, "<s> So. Human: <s> hi</s> Assistant: <s>[ hello</s>] Human: <s> bye</s>"),
])
def test_a_dialogue_and_its_mask_by_hand(tokenizer, learn, more, text):
    check_by_hand(tokenizer, record(BRIEF)["conversations"], learn, more, text)


@pytest.mark.exercise(1)
@pytest.mark.parametrize("learn, text", [
    ("human", "<s> So. Assistant: <s> hello</s> Human: <s>[ bye</s>]"),
    ("gpt", "<s> So. Assistant: <s>[ hello</s>] Human: <s> bye</s>")])
def test_the_assistant_may_speak_first(tokenizer, learn, text):
    check_by_hand(tokenizer, record(BRIEF[1:])["conversations"], learn, {}, text)


@pytest.mark.exercise(1)
@pytest.mark.parametrize("compat", [False, True])
def test_of_a_turn_that_is_not_to_be_learnt_nothing_counts(tokenizer, compat):
    conversation = record(BRIEF[:2])["conversations"]
    conversation[1]["weight"] = 0
    check_by_hand(tokenizer, conversation, "gpt", {"compat": compat},
                  "<s> So. Human: <s> hi</s> Assistant: <s> hello</s>")


@pytest.mark.exercise(1)
@pytest.mark.parametrize("role", ["human", "gpt"])
@pytest.mark.parametrize("talk", TALKS)
def test_learnt_is_exactly_what_the_role_said_and_the_end_of_its_turns(tokenizer, talk, role):
    conversation = record(talk)["conversations"]
    ids, mask = encode(conversation, tokenizer, role)
    got, expected = texts(ids, mask, tokenizer), [text for who, text in talk if who == role]
    assert got == expected, (f"encode(turns, tokenizer, learn={role!r}): learnt should be {expected}, but is {got}:\n"
                             f"{as_text(ids, mask, tokenizer)}")


@pytest.mark.exercise(1)
def test_the_two_masks_are_disjoint_and_leave_only_the_template(tokenizer, records):
    for made in records:
        ids, human = encode(made["conversations"], tokenizer, "human")
        same, gpt = encode(made["conversations"], tokenizer, "gpt")
        read, read_by_gpt = as_text(ids, human, tokenizer), as_text(same, gpt, tokenizer)
        both = f'encode(turns, tokenizer, learn="human") and learn="gpt":\n{read}\n{read_by_gpt}\n'
        assert same == ids, f"{both}both should give the same tokens"
        assert not any(h and g for h, g in zip(human, gpt)), f"{both}no token should be learnt by both"
        rest = [token for token, h, g in zip(ids, human, gpt) if not h and not g]
        labels = [tokenizer.encode(LABEL[t["from"]]) + [1] for t in made["conversations"]]
        # with a space between them, the system line and the first label are what they are alone
        expected = [1] + tokenizer.encode(SYSTEM[:-1]) + sum(labels, [])
        rest, template = (as_text(tokens, [False] * len(tokens), tokenizer) for tokens in (rest, expected))
        assert rest == template, f"{both}learnt by neither should be the template\n{template}\nbut is\n{rest}"


def test_silence_is_learnt_after_a_human_left_and_only_then(tokenizer, records):
    left, _, cut = records
    ids, mask = encode(turns(left), tokenizer, "human")
    assert texts(ids, mask, tokenizer)[-1:] == [""] and ids[-2:] == [tokenizer.bos, tokenizer.eos], (
        "a human who left wrote an empty turn, <s>[</s>], which is learnt:\n" + as_text(ids, mask, tokenizer))
    assert turns(cut) == cut["conversations"]
    assert left["conversations"][-1]["value"] != "", "the silence must not get into the record"


@pytest.mark.exercise(2)
def test_shift_by_hand():
    inputs, targets = shift([5, 6, 7, 8], [False, False, True, False])
    assert inputs == [5, 6, 7], "nothing follows the last token, so it is no input"
    assert targets == [IGNORE, 7, IGNORE], "7 counts, and is what follows 6"


@pytest.mark.parametrize("talk", TALKS)
def test_a_prompt_is_a_prefix_of_what_is_trained_on(tokenizer, talk):
    conversation = record(talk)["conversations"]
    ids, _ = encode(conversation, tokenizer, "gpt")
    for n, turn in enumerate(conversation):
        before = prompt(conversation[:n], tokenizer, turn["from"])
        assert ids[:len(before)] == before
        said = tokenizer.encode(turn["value"]) + [tokenizer.eos]
        assert ids[len(before):][:len(said)] == said


@pytest.mark.parametrize("text", NASTY)
def test_text_survives_the_tokenizer_and_never_becomes_a_special_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.bos, tokenizer.eos} & set(ids)


def other_tokenizer(**more):
    """A sentencepiece model with other ids and names than LLaMA's, or without some."""
    import io
    from sentencepiece import SentencePieceTrainer
    model = io.BytesIO()
    names = {"bos_id": 0, "eos_id": 1, "unk_id": 2, "bos_piece": "[BEGIN]", "eos_piece": "[END]"}
    SentencePieceTrainer.train(
        sentence_iterator=iter([text for talk in TALKS for _, text in talk] * 20), model_writer=model, vocab_size=400,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2, **{**names, **more})
    return Tokenizer(model.getvalue(), speaker="gpt")


def test_ids_and_names_are_those_of_the_sentencepiece_model(tmp_path):
    tokenizer = other_tokenizer()
    ids, _ = encode(record(TALKS[0])["conversations"], tokenizer, "gpt")
    assert (tokenizer.bos, tokenizer.eos) == (0, 1) and ids[0] == 0 and ids[-1] == 1
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("[BEGIN]", "[END]", "<unk>")
    assert "Human: [BEGIN]" in config["chat_template"] and "<s>" not in config["chat_template"]
    (tmp_path / "tokenizer.model").write_bytes(other_tokenizer(bos_id=-1).model)
    with pytest.raises(UserError, match="no piece for the begin"):
        Tokenizer.load(tmp_path)


CHINESE = [("human", "".join(map(chr, range(0x4e00, 0x4e00 + 900)))), ("gpt", "你好,世界")]


def test_a_text_of_more_characters_than_pieces_is_carried_by_bytes(tmp_path, run_command):
    tokenizer = Tokenizer.learn([text for _, text in CHINESE], 512)
    for _, text in CHINESE:
        assert tokenizer.vocab <= 512 and tokenizer.decode(tokenizer.encode(text)) == text
    write_jsonl(tmp_path / "x", [record(CHINESE)])
    done = run_command(platolm.main, "show", tmp_path / "x")
    assert done.returncode == 0 and "[ 你好,世界</s>]" in done.stdout, done.stderr


@pytest.mark.exercise(1)
@pytest.mark.parametrize("flag", [{"weight": 0}, {"loss": False}, {"train": False}, {"loss_mask": 0}])
@pytest.mark.parametrize("learn", ["gpt", "all"])
def test_a_turn_that_is_marked_is_read_and_not_learnt(tokenizer, flag, learn):
    made = record(TALKS[0])
    ids, mask = encode(made["conversations"], tokenizer, learn)
    marked = [made["conversations"][0], made["conversations"][1] | flag, *made["conversations"][2:]]
    same, fewer = encode(marked, tokenizer, learn)
    lost = [token for token, here, there in zip(ids, mask, fewer) if here != there]
    shown = f"encode(turns, tokenizer, learn={learn!r}), turn 2 with {flag}:\n{as_text(same, fewer, tokenizer)}"
    assert same == ids, f"a marked turn is read like any other; {shown}"
    assert tokenizer.decode(lost[:-1]) == TALKS[0][1][1] and lost[-1:] == [tokenizer.eos], (
        f"{TALKS[0][1][1]!r} and its end, and nothing else, should not count; {shown}")
    listed = turns(made | {"loss_mask": [1, 0, 1, 1]})
    assert encode(listed, tokenizer, learn) == (same, fewer)


HEARD = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"},
         {"from": "human", "value": "bye"}, {"from": "gpt", "value": "see you", "weight": 0}]


@pytest.mark.exercise(10)
def test_blanked_by_hand():
    conversation = [dict(turn) for turn in HEARD]
    got = platolm.blanked(conversation)
    expected = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": ""},
                {"from": "human", "value": "bye"}, {"from": "gpt", "value": "", "weight": 0}]
    assert got == expected, f"\nexpected {expected}\ngot      {got}"
    assert conversation == HEARD, "the dialogue itself has lost its answers, also for those who may hear them"
    assert platolm.blanked([]) == []


@pytest.mark.exercise(10)
def test_the_blind_read_the_template_of_an_answer_and_not_a_word_of_it(tokenizer):
    blind, sees = (tokenizer.decode(encode(turns, tokenizer, "human")[0]) for turns in (platolm.blanked(HEARD), HEARD))
    assert blind.count(LABEL["gpt"].strip()) == sees.count(LABEL["gpt"].strip()) == 2, blind
    assert "hello" in sees and "hello" not in blind and "bye" in blind, blind


def test_tokenizer_ids_and_saving(tokenizer, tmp_path):
    assert (tokenizer.bos, tokenizer.eos) == (1, 2) and tokenizer.pieces.unk_id() == 0
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("a parrot") == tokenizer.encode("a parrot")


@pytest.mark.parametrize("bad, what", [
    ('{"id": 1, "conversations": [', "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ('{"id": 1}', "an empty dialogue"),
    ('{"conversations": []}', "an empty dialogue"),
    ('{"conversations": [{"from": "bing", "value": "x"}]}', "not from"),
    ('{"conversations": [{"from": ["human"], "value": "x"}]}', "not from"),
    ('{"conversations": [7]}', "not from"),
    ('{"text": null}', "an empty text"),
    ("[" * 100000, "too deep"),
    ('{"conversations": [{"from": "human", "value": ""}]}', "says nothing"),
    ('{"conversations": [{"from": "human", "value": 7}]}', "says nothing"),
    ('{"conversations": [{"from": "gpt", "value": "a"}, {"from": "gpt", "value": "b"}]}',
     "do not alternate"),
    ('{"conversations": [{"from": "human", "value": "a"}], "end": "bored"}', "an unknown end"),
    ('{"conversations": [{"from": "human", "value": "a"}], "loss_mask": [0, 1]}', "one number for each turn"),
    ('{"conversations": [{"from": "human", "value": "\\ud800"}]}', "surrogates"),
])
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path, bad, what):
    path = tmp_path / "bad.jsonl"
    path.write_text(to_jsonl(record(TALKS[0])) + bad + "\n")
    with pytest.raises(UserError, match=f"bad.jsonl, line 2: .*{what}"):
        list(read_records(path))


def test_too_few_pieces_for_the_letters_is_a_problem():
    with pytest.raises(UserError, match="no tokenizer of 50 pieces"):
        Tokenizer.learn(["some words"], 50)


def test_records_come_back_as_written_with_keys_we_do_not_know(tmp_path):
    made = [record(TALKS[0], source="somewhere", end="left"), record([("gpt", "so"), ("human", "é\n")])]
    write_jsonl(tmp_path / "new" / "x.jsonl", made)
    assert list(read_records(tmp_path / "new" / "x.jsonl")) == made
    assert parse_line(to_jsonl(made[0])) == made[0]


def test_show_brackets_what_each_model_learns(files):
    shown = subprocess.run([sys.executable, "platolm.py", "show", files, "--ids"],
                           capture_output=True, text=True, check=True, env={"COLUMNS": "160"}).stdout
    assert "[ who mends clocks?</s>]" in shown and "[ yes, a green one.</s>]" in shown
    assert "leaves by saying nothing" in shown


def test_show_needs_no_torch(files):
    code = ("import sys; sys.argv[1:] = ['show', sys.argv[1]]; import platolm; platolm.main(); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, files], check=True, capture_output=True)


def as_transformers(text, tokenizer):
    """Ids as in the authors' LLaMA-2 environment, which keeps spaces: a <s>, then what is between special tokens."""
    ids = [tokenizer.bos]
    for part in re.split("(<s>|</s>)", text):
        ids += {"<s>": [1], "</s>": [2], "": []}.get(part, tokenizer.encode(part))
    return ids


def authors_labels(conversation, tokenizer, role, system):
    """The authors' labels in their own slow way: every prefix is tokenised anew."""
    text, spans = system, []
    for turn in conversation:
        opened = text + LABEL[turn["from"]] + "<s>"
        text = opened + turn["value"] + "</s>"
        if turn["from"] == role:
            spans.append((len(as_transformers(opened, tokenizer)) - 1, len(as_transformers(text, tokenizer))))
    ids = as_transformers(text, tokenizer)
    return [token if any(start <= i < end for start, end in spans) else IGNORE for i, token in enumerate(ids)]


@pytest.mark.exercise(1)
@pytest.mark.parametrize("role", ["human", "gpt"])
@pytest.mark.parametrize("talk", TALKS)
def test_phoenix_and_compat_are_the_authors_labels_token_for_token(tokenizer, talk, role):
    system = "Two sides talk. One of them asks.\n\n"
    conversation = record(talk)["conversations"]
    ids, mask = encode(conversation, Tokenizer(tokenizer.model, system), role, compat=True)
    labels = authors_labels(conversation, tokenizer, role, system)
    got, expected = (as_text(ids, counts, tokenizer) for counts in (mask, [label != IGNORE for label in labels]))
    assert [token if counts else IGNORE for token, counts in zip(ids, mask)] == labels, (
        f"encode(turns, tokenizer, learn={role!r}, compat=True):\nexpected {expected}\ngot      {got}")
    # all that differs from ours is the <s> of each learnt turn
    same, ours = encode(conversation, Tokenizer(tokenizer.model, system), role)
    more = [token for token, here, there in zip(ids, mask, ours) if here != there]
    assert same == ids and more == [tokenizer.bos] * sum(turn["from"] == role for turn in conversation), (
        "compat should add just the <s> of each learnt turn; with and without it:\n"
        f"{got}\n{as_text(same, ours, tokenizer)}")
