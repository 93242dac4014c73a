"""The tiny world: what makes it a fair and teachable place, held as properties."""

import json
import random
import re

import pytest

from data.harbour import bench

from data.harbour import corpus

from data.harbour import grader

from data.experiment import listening

from data.harbour import people

from data.harbour import scripts

from data.experiment import talks

from data.harbour import teacher

from data.harbour import world
from platolm import to_messages, read_records
from data.harbour.teacher import answer, claims, grounded, listed, truths, understand
from data.harbour.world import FACTS, KIND, asked, fact_key, never_asked

LEANING = ("pick", "number", "doubt", "name", "reshape")


def converse(ask, reply, rounds):
    """The loop without the models around it."""
    turns = []
    for _ in range(rounds):
        text = ask(turns)
        if text is None:
            return turns, "left"
        turns.append({"from": "human", "value": text})
        turns.append({"from": "gpt", "value": reply(turns)})
    return turns, "turn_limit"


@pytest.fixture(scope="module")
def dialogues():
    """Four hundred people."""
    made = []
    for i in range(400):
        person = people.Person(random.Random(f"test {i}"), asked())
        turns, end = converse(person.ask, lambda turns: answer(to_messages(turns)), 16)
        made.append(talks.labelled_record(turns, end, str(i)))
    return made


def turns_of(dialogues):
    """(messages up to a human turn, its kind, its place), for every human turn."""
    for record in dialogues:
        messages = to_messages(record["conversations"])
        for i, kind in enumerate(record["kinds"]):
            yield messages[:2 * i + 1], kind, i


def user(*texts):
    """Texts as messages, the user's first."""
    return bench.talk(*texts)


# -- the world --------------------------------------------------------------------------------


def test_a_third_of_the_facts_and_twenty_things_are_never_asked():
    things = world.UNKNOWN_THINGS
    assert 18 <= len(things) <= 24
    assert not asked() & never_asked() and asked() | never_asked() == set(FACTS)
    assert all(fact in never_asked() for thing in things for fact in world.about(thing))
    others = [fact for fact in FACTS if fact[0] not in things]
    assert 0.3 < sum(fact in never_asked() for fact in others) / len(others) < 0.42


def test_both_readings_of_a_statement_are_asked_or_neither():
    for fact in FACTS:
        turned = world.statement_of(fact)
        assert (fact in asked()) == (turned in asked()), (fact, turned)


def test_no_name_is_a_word_of_the_phrasings():
    templates = " ".join(t for table in (people.ASK, people.MORE, people.CHOICE, people.WANT)
                         for texts in table.values()
                         for t in ([texts] if isinstance(texts, str) else texts))
    assert not set(re.findall(r"[a-z]+", templates)) & set(teacher.NAMES)


def test_the_sheet_names_every_thing():
    assert all(re.search(rf"\b{name}\b", world.sheet()) for name in teacher.NAMES)


# -- the teacher ------------------------------------------------------------------------------


def test_the_teacher_repeats_itself_and_says_only_truths(dialogues):
    for messages, _, _ in turns_of(dialogues[:150]):
        said = answer(messages)
        assert said == answer(json.loads(json.dumps(messages)))
        assert said in truths(messages), (messages[-1], said)


def test_every_phrasing_is_understood_as_its_fact():
    for fact in FACTS:
        for text in [scripts.formal(fact)] + [t.format(x=fact[0]) for t in people.ASK[fact[1]]]:
            assert understand(user(text)).fact == fact, text


def test_a_pick_is_resolved_from_the_list_that_is_there():
    for order in (["cups", "plates", "bowls"], ["bowls", "cups", "plates"]):
        said = f"the quiet table sells {teacher.join(order)}."
        messages = user("what does the quiet table sell?", said, "price of the second one?")
        assert understand(messages).fact == (order[1], "price")
    # also from a list that is not true
    messages = user("what does the quiet table sell?", "plums and hats.", "the second one?")
    assert understand(messages).fact == ("hats", "price")


def test_a_sum_uses_the_number_that_is_there():
    for price in (3, 6):
        messages = user("price of plums?", f"plums cost {price} coins.", "times 3?")
        assert truths(messages) == {f"3 times {price} makes {3 * price} coins."}


def test_a_number_once_named_holds():
    messages = user("price of plums?", "plums cost 6 coins.", "how much are plums?")
    assert all("6 coins" in truth for truth in truths(messages))
    assert len(truths(user("price of plums?"))) > 5


def test_a_doubt_is_answered_by_the_world_not_by_the_answer():
    keeper, = FACTS["blue anchor", "keeper"]
    asks = "who runs the blue anchor?"
    for said, reply in [(keeper, "yes, i am sure."), ("tilda", f"no, it is {keeper}.")]:
        messages = user(asks, f"{said} runs the blue anchor.", "really?")
        assert truths(messages) == {reply}
    messages = user(asks, f"{keeper} runs the blue anchor.", "comet? really?")
    assert truths(messages) == {"i did not say comet."}


def test_no_message_breaks_the_teacher():
    rng, words = random.Random(0), sorted(teacher.VOCABULARY) + list(KIND) + ["3", "?", ",", ""]
    for _ in range(500):
        messages = user(*(" ".join(rng.choices(words, k=rng.randint(0, 6))) for _ in range(3)))
        assert answer(messages) in truths(messages)
    assert answer([]) in teacher.LOST


# -- people -----------------------------------------------------------------------------------


def test_people_never_touch_what_is_never_asked(dialogues):
    unasked = {fact_key(fact) for fact in never_asked()}
    for record in dialogues:
        assert not unasked & set(record["about"])
        for turn in record["conversations"][1::2]:
            assert not never_asked() & {fact for fact, _ in claims(turn["value"])}, turn


def test_people_lean_on_the_answers_and_are_understood(dialogues):
    kinds = [kind for _, kind, i in turns_of(dialogues)]
    later = [kind for _, kind, i in turns_of(dialogues) if i]
    assert sum(kind in LEANING for kind in later) / len(later) >= 0.4
    assert {*LEANING, "question", "ellipsis", "meta", "smalltalk"} <= set(kinds)
    assert kinds.count("none") / len(kinds) < 0.01
    assert 5 <= len(kinds) / len(dialogues) <= 6


def test_what_people_lean_on_is_there(dialogues):
    leaning = [(messages, kind) for messages, kind, _ in turns_of(dialogues) if kind in LEANING]
    assert sum(grounded(messages) for messages, _ in leaning) / len(leaning) > 0.98
    picks = [messages for messages, kind in leaning if kind == "pick"]
    assert all(understand(m).fact[0] in listed(m[-2]["content"]) for m in picks)


def test_people_leave_by_themselves_and_say_nothing_twice(dialogues):
    assert sum(record["end"] == "left" for record in dialogues) / len(dialogues) > 0.99
    for record in dialogues:
        said = [turn["value"] for turn in record["conversations"][::2]]
        assert len(set(said)) == len(said) and len(record["kinds"]) == len(said)


# -- corpus, scripts, bench, grader -------------------------------------------------------------


def test_every_fact_has_five_wordings_in_the_corpus():
    lines = {line for record in corpus.corpus(0, passes=60, stories=0)
             for line in record["text"].rstrip(".").split(". ")}
    for fact in FACTS:
        if fact[1] not in world.DAY and len(FACTS[fact]) == 1:
            assert len(lines & set(corpus.sentences(fact))) >= 5, fact


def test_a_corpus_without_the_never_asked_facts_states_none_of_them():
    unasked = {line for fact in never_asked() if fact[1] not in world.DAY
               for line in corpus.sentences(fact)}
    texts = [record["text"] for record in corpus.corpus(0, never_asked(), passes=5, stories=500)]
    assert not any(line in unasked for text in texts for line in text.rstrip(".").split(". "))
    assert len({row["about"] for row in corpus.completions()}) > 250


def test_self_chat_asks_about_what_the_answer_named():
    user_script = scripts.SelfChat(random.Random(0), "who runs the blue anchor?")
    turns, _ = converse(user_script.ask, lambda turns: answer(to_messages(turns)), 9)
    for i in range(2, len(turns), 2):
        fact = understand(to_messages(turns[:i + 1])).fact
        assert re.search(rf"\b{fact[0]}\b", turns[i - 1]["value"])


def test_the_bench_is_half_never_asked_and_its_second_turns_lean():
    rows = bench.questions(6, 0)
    assert len(rows) == 48 and rows == bench.questions(6, 0)
    for row in rows:
        touched = {tuple(name.split("/")) for name in row["about"]}
        assert touched <= (asked() if row["asked"] else never_asked())
    assert sum(row["asked"] for row in rows) == 24
    assert sum(row["kinds"][1] in LEANING for row in rows) / len(rows) > 0.6


def test_the_one_turn_bench_has_nine_categories():
    rows = bench.questions(4, 0, bench.VICUNA, bench.attempt_one)
    assert len(rows) == 36 and all(len(row["turns"]) == 1 for row in rows)
    assert all(understand(user(*row["formal"])).fact == understand(user(*row["turns"])).fact
               for row in rows)


def test_the_gold_dialogues_are_true_to_the_world():
    records = list(read_records("data/harbour/gold.jsonl"))
    assert len(records) == 60
    for record in records:
        answers = [turn["value"].lower() for turn in record["conversations"][1::2]]
        assert len(answers) == len(record["keys"]) == len(record["about"])
        for said, words, about in zip(answers, record["keys"], record["about"]):
            assert all(re.search(rf"\b{re.escape(word)}\b", said) for word in words), record["id"]
            values = FACTS[tuple(about.split("/"))] if about else ()
            assert not values or any(value in said for value in values), (record["id"], about)


# -- what users did ----------------------------------------------------------------------------


def test_people_find_what_they_lean_on_and_who_does_not_listen_does_not(dialogues):
    found = listening.behaviour(dialogues)
    assert found["leaning"] > 0.4 and found["never_asked"] == 0
    assert all(hit["share"] > 0.9 and hit["n"] > 30 for hit in found["grounded"].values())
    # the same questions, with the answers of somebody else's talk
    crossed = [record | {"conversations": [
        turn if turn["from"] == "human" else other for turn, other
        in zip(record["conversations"], after["conversations"])]}
        for record, after in zip(dialogues, dialogues[1:])]
    deaf = listening.behaviour([record for record in crossed if len(record["conversations"]) > 3])
    for word, hit in deaf["grounded"].items():
        assert hit["share"] < found["grounded"][word]["share"] - 0.3, word


@pytest.mark.parametrize("said, turn, grounded", [
    ("bram runs the blue anchor.", "bram? really?", True),
    ("bram runs the blue anchor.", "tilda? really?", False),
    ("bram runs the blue anchor.", "wasnt it tilda?", True),
    ("plums cost 4 coins.", "wasnt it tilda?", False), ("plums cost 4 coins.", "not 5?", True)])
def test_a_doubt_by_hand(said, turn, grounded):
    h = teacher.hear(teacher.as_talk(user("hello?", said, turn)))
    assert listening.doubt(h, set()) is grounded


@pytest.mark.parametrize("said, turn, grounded", [
    ("the clover and the cinder go to tamsey.", "the last one?", True),
    ("the clover and the cinder go to tamsey.", "the third?", False),
    ("agnes sails the clover.", "first one please", False), ("plums cost 4 coins.", "ok", None)])
def test_a_pick_by_hand(said, turn, grounded):
    h = teacher.hear(teacher.as_talk(user("hello?", said, turn)))
    assert listening.pick(h, set()) is grounded


def test_a_new_name_by_hand():
    h = teacher.hear(teacher.as_talk(user("who runs the blue anchor?", "bram does.", "who is bram?")))
    assert listening.name(h, {"blue anchor"}) is True
    h = teacher.hear(teacher.as_talk(user("who runs the blue anchor?", "bram does.", "who is vera?")))
    assert listening.name(h, {"blue anchor"}) is False and listening.name(h, {"vera"}) is None


# -- bench and grader ---------------------------------------------------------------------------


def judged(*texts):
    """The grader's mark for the last of these messages."""
    lines = "\n".join(f"{m['role']}: {m['content']}" for m in user(*texts))
    prompt = f"Rate it.\n\n[conversation]\n{lines}\n[end of conversation]"
    mark = re.search(r"\[\[(\d+)\]\]", grader.reply([{"role": "user", "content": prompt}]))
    return int(mark[1])


def test_the_grader_likes_the_teacher_and_nobody_wrong(dialogues):
    for messages, _, _ in turns_of(dialogues[:60]):
        texts = [message["content"] for message in messages]
        assert judged(*texts, " " + answer(messages).upper().rstrip(".")) == 10
    keeper, = FACTS["blue anchor", "keeper"]
    asks = "who runs the blue anchor?"
    assert judged(asks, "tilda runs the blue anchor.") <= 2
    assert judged(asks, "sorry, i did not get that.") <= 2
    assert 4 <= judged(asks, f"{keeper} runs the blue anchor. {keeper} lives on tamsey.") <= 6
    assert 4 <= judged(asks, f"{keeper}, i believe") <= 9


ALONE = "Judge.\n\n[Question]\n{q}\n\n[The Start of Assistant's Answer]\n{a}\n[The End of Assistant's Answer]"
BOTH = ("[User Question]\n{q}\n\n[The Start of Reference Answer]\nbram\n[The End of Reference Answer]\n\n"
        "[The Start of Assistant A's Answer]\n{a}\n[The End of Assistant A's Answer]\n\n"
        "[The Start of Assistant B's Answer]\n{b}\n[The End of Assistant B's Answer]")
TALKS = "".join(f"<|The Start of Assistant {x}'s Conversation with User|>\n\n### User:\n{{q}}\n\n"
                f"### Assistant {x}:\n{{a}}\n\n### User:\nreally?\n\n### Assistant {x}:\n{{{y}}}\n\n"
                f"<|The End of Assistant {x}'s Conversation with User|>\n\n\n" for x, y in ("Ac", "Bd"))


def test_the_grader_reads_the_layouts_of_fastchat():
    """With references, with two turns, of one assistant and of two, in both orders."""
    right = {"q": "who runs the blue anchor?", "a": "bram runs the blue anchor.",
             "b": "tilda runs the blue anchor.", "c": "yes, i am sure.", "d": "no, it is tilda."}
    swapped = right | {"a": right["b"], "b": right["a"]}
    say = lambda text, **bias: grader.reply([{"role": "user", "content": text}], **bias)
    assert "[[10]]" in say(ALONE.format(**right)) and "[[1]]" in say(ALONE.format(**swapped))
    assert "[[A]]" in say(BOTH.format(**right)) and "[[B]]" in say(BOTH.format(**swapped))
    assert "[[C]]" in say(BOTH.format(**right | {"b": right["a"]}))
    assert "[[A]]" in say(TALKS.format(**right))
    assert "[[B]]" in say(TALKS.format(**right | {"c": right["d"], "d": right["c"]}))
    assert "[[10]]" in say(TALKS.format(**right).split("\n\n\n")[0])


def test_the_grader_can_be_made_a_bad_judge():
    say = lambda a, b, **bias: grader.reply([{"role": "user", "content": BOTH.format(
        q="who runs the blue anchor?", a=a, b=b)}], **bias)[-5:]
    right, wrong = "bram runs the blue anchor.", "tilda runs the blue anchor."
    assert say(right, wrong, first_bias=20) == say(wrong, right, first_bias=20) == "[[A]]"
    longer = right + " as far as anybody here in the harbour knows"
    assert say(right, longer) == "[[A]]" and say(right, longer, length_bias=20) == "[[B]]"
    assert len({say(right, right, noise=3) for _ in range(3)}) == 1
    assert len({say(right, right + "!" * i, noise=3) for i in range(20)}) == 3


def test_the_grader_refuses_a_malformed_prompt():
    for prompt in ("hello", "[conversation]\nuser: hi\n[end of conversation]"):
        assert "[[" not in grader.reply([{"role": "user", "content": prompt}])


def test_this_or_that_is_asked_of_the_thing_named_first():
    rng = random.Random(0)
    for fact in FACTS:
        if fact[1] in people.CHOICE and FACTS[fact] != ("painter",):
            text = people.choice(rng, fact)
            assert understand(user(text)).fact == fact, text
            assert FACTS[fact][0] in answer(user(text)), text
