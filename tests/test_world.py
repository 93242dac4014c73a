"""The tiny world: what makes it a fair and teachable place, held as properties."""

import json
import random
import re

import pytest

from data import bench, corpus, grader, people, scripts, teacher, world
from platolm import to_messages
from data.teacher import answer, claims, grounded, listed, truths, understand
from data.world import FACTS, KIND, asked, fact_key, never_asked

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
        made.append(people.labelled(turns, end, str(i)))
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
    templates = " ".join(t for table in (people.ASK, people.MORE, people.CHECK, people.WANT)
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


def test_the_grader_refuses_a_malformed_prompt():
    for prompt in ("hello", "[conversation]\nuser: hi\n[end of conversation]"):
        assert "[[" not in grader.reply([{"role": "user", "content": prompt}])
