"""The tiny world: what makes it a fair and teachable place, held as properties."""

import random
import re
from functools import partial

import pytest

from data.experiment import talks
from data.experiment.reach import reach
from data.harbour import bench, corpus, grader, people, scripts
from data.harbour.teacher import HELLO, LOST, NEARBY, SAY, WELCOME, Guide
from data.harbour.world import HOUSES, PAST_SEASONS, RELATIONS, TODAY, TRADES, World, fact_key, sheet
from data.measure.mtbench import text_hash
from data.program import UserError
from platolm import read_records, to_messages

GUIDE = talks.draw_guide(0)
WORLD = GUIDE.world
STALL = WORLD.stalls[0]
ROWS = HOUSES.strip().splitlines()
# a student's town: seven shops, seven inns, six workshops
TWENTY = "\n".join(ROWS[:7] + ROWS[20:27] + ROWS[36:42])


def user(*texts):
    """Texts as messages, the user's first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def visitors():
    """Three hundred of today's people."""
    return list(talks.dialogues("today", 300, 0, "test"))


@pytest.fixture(scope="module")
def logs():
    """People of past seasons, two of each."""
    return list(talks.dialogues("logs", 2 * PAST_SEASONS, 0, "test"))


def turns_of(records):
    """(messages up to a human turn, its kind, its class), for every human turn."""
    for record in records:
        messages = to_messages(record["conversations"])
        for i, kind in enumerate(record["kinds"]):
            yield messages[:2 * i + 1], kind, record["classes"][i]


# -- the town -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table, why", [
    ("", "nor none"), ("\n".join(ROWS[::3]), "too few"),
    ("\n".join(ROWS[:20]), "inn should not all have the same offer"),
    (HOUSES.replace("empty spoon ", "spoon "), "not a name of two words"),
    (HOUSES.replace("empty spoon ", "old empty spoon "), "not a name of two words"),
    (HOUSES.replace("empty spoon ", "st. spoon "), "in plain letters"),
    (HOUSES.replace("empty spoon ", "dusty spoon "), "dusty stands in two names"),
    (HOUSES.replace("empty spoon ", "dusty camel "), "camel, dusty stands in two names"),
    (HOUSES.replace("eel lane", "dusty lane"), "dusty stands in two names, or in a name and among the values"),
    (re.sub(r"(shop|inn|workshop) ( *)\| \w+", r"\1 \2| selma", HOUSES), "the same keeper"),
    (HOUSES.replace("| inn ", "| bank "), "needs a trade of shop, inn, workshop"),
    (HOUSES.replace("| 6", "| six"), "a price in whole coins"), (HOUSES.replace("| 6", ""), "| between")])
def test_a_bad_town_is_refused_in_one_sentence(table, why):
    with pytest.raises(UserError, match=re.escape(why)) as error:
        World(0, table=table)
    assert "\n" not in str(error.value)


def test_capitals_make_no_other_town():
    assert World(0, table=HOUSES.upper()).things == WORLD.things


def test_stalls_of_all_seasons_differ_or_with_nothing_new_are_the_same():
    seasons = [World(0, number) for number in range(1, TODAY + 1)]
    names = [name for world in seasons for name in world.stalls]
    assert len(set(names)) == len(names) == TODAY * len(WORLD.stalls) and not set(names) & set(WORLD.houses)
    assert all(world.things[house].kind == "house" for world in seasons for house in WORLD.houses)
    for growth in (0, 0.5):
        today = World(0, growth=growth)
        assert today.stalls == WORLD.stalls and today.near == WORLD.near
        assert all(today.things[name] == WORLD.things[name] for name in today.stalls)
    still = [World(0, number, growth=0) for number in range(1, TODAY + 1)]
    assert all(world.stalls == WORLD.stalls and world.things == still[-1].things for world in still)
    half = World(0, TODAY - 1, growth=0.5).stalls
    assert len(set(half) & set(WORLD.stalls)) == len(half) / 2
    assert World(1).stalls != WORLD.stalls


def test_only_today_facts_of_houses_change():
    before = World(0, TODAY - 1)
    assert not before.changed and not World(0, growth=0).changed
    for fact in [(house, relation) for house in WORLD.houses for relation in RELATIONS]:
        is_other = WORLD.value(fact) != before.value(fact)
        assert is_other == (fact in WORLD.changed) == (WORLD.kind(fact) == "changed")
    assert 0.05 < len(WORLD.changed) / (4 * len(WORLD.houses)) <= 0.1


def test_the_sheet_tells_every_fact():
    lines = sheet(WORLD).splitlines()
    for name, thing in WORLD.things.items():
        line, = [line for line in lines if line.startswith(f"the {name} ")]
        assert all(value in line for value in (*thing.facts.values(), *WORLD.near[name]))
        assert len(set(WORLD.near[name]) - {name}) == 3


def test_a_town_of_twenty_rows_works_from_end_to_end(monkeypatch):
    monkeypatch.setattr(talks, "draw_guide", lambda seed, growth=1.0, number=TODAY: Guide(
        World(seed, number, growth, TWENTY)))
    guide = talks.draw_guide(0)
    logs = list(talks.dialogues("logs", 24, 0, "small"))
    for kind in talks.USERS:
        made = list(talks.dialogues(kind, 24, 0, "small", logs=logs))
        assert len(made) == 24, kind
        assert set().union(*(record["classes"] for record in made)) >= {"houses"}, kind
    assert len(list(corpus.corpus(guide.world, 100))) == 100
    for categories, count in ((bench.MT_BENCH, 32), (bench.VICUNA, 36)):
        rows = bench.questions(guide.world, 4, 0, categories)
        assert len(rows) == count and all(guide.understand(user(row["turns"][0])).fact for row in rows)


# -- the guide ----------------------------------------------------------------------------------

KEEPER = ("who runs the velvet pepper?", "milo runs the velvet pepper.")
PRICE = ("what do i pay at the velvet pepper?", "you pay 5 coins at the velvet pepper.")


@pytest.mark.parametrize("texts, kind, fact, reply", [
    (("Who runs the Velvet Pepper?",), "question", "keeper", KEEPER[1]),
    (("the velvet pepper?",), "question", "offer", "the velvet pepper sells buttons."),
    (("hello, wehre is teh velvet pepper",), "question", "lane", "the velvet pepper is on cork lane."),
    (("i have 9 coins. who is the boss at the velvet pepper",), "question", "keeper", KEEPER[1]),
    (("with 3 coins. is the velvet pepper dear?",), "question", "price", PRICE[1]),
    (("please tell me what one could have at the velvet pepper.",), "question", "offer",
     "the velvet pepper sells buttons."),
    (("the velvet pepper, how much, in short?",), "short", "price", "5 coins."),
    ((*KEEPER, "and where is it?"), "further", "lane", "the velvet pepper is on cork lane."),
    ((*KEEPER, "thanks, and how much is it?"), "further", "price", PRICE[1]),
    ((*KEEPER, "really"), "doubt", "keeper", "yes, milo."),
    ((*KEEPER, "isn't it milo?"), "doubt", "keeper", "it is milo."),
    ((*KEEPER, "not tilda?"), "doubt", "keeper", "it is milo."),
    ((*PRICE, "isnt it 6?"), "doubt", "price", "it is 5 coins."),
    ((KEEPER[0], "tilda runs the velvet pepper.", "are you sure?"), "doubt", "keeper", "yes, milo."),
    ((*KEEPER, "tilda or milo?"), "choice", "keeper", "milo."),
    ((*PRICE, "is it 5 or 8"), "choice", "price", "5 coins."),
    ((*PRICE, "for two?"), "sum", "price", "two times 5 makes 10 coins."),
    # the number that is there, right or wrong
    ((PRICE[0], "you pay 7 coins at the velvet pepper.", "for three?"), "sum", "price",
     "three times 7 makes 21 coins."),
    ((*KEEPER, "for two?"), "sum", "keeper", "i named no price."),
    ((*KEEPER, "shorter please"), "reshape", "keeper", "milo."),
    ((*PRICE, "in one word?"), "reshape", "price", "5 coins."),
    ((*PRICE, "in short?", "5 coins.", "and for two then"), "sum", "price", "two times 5 makes 10 coins."),
    ((*KEEPER, "where is the velvet owl?"), "unknown", "keeper", "i know no velvet owl."),
    ((*KEEPER, "thank you for your help"), "thanks", "keeper", WELCOME), (("hi",), "hello", None, HELLO),
    ((*KEEPER, "good morning"), "hello", "keeper", HELLO), ((*KEEPER, "flurb"), "none", "keeper", LOST),
    (("really?",), "none", None, LOST), (("",), "none", None, LOST)])
def test_what_is_meant_and_what_is_right(texts, kind, fact, reply):
    meaning = GUIDE.understand(user(*texts))
    assert meaning.kind == kind and meaning.fact == (fact and ("velvet pepper", fact))
    assert GUIDE.truths(user(*texts))[0] == reply and GUIDE.is_right(user(*texts), reply.upper())
    assert GUIDE.split_reply(GUIDE.answer(user(*texts)))[0] == reply
    assert not GUIDE.is_right(user(*texts), "tilda runs the blue beetle.")


def test_the_same_messages_get_the_same_answer(visitors):
    other = Guide(World(0))
    for messages, _, _ in list(turns_of(visitors))[:200]:
        answer = GUIDE.answer(messages)
        assert other.answer([{"role": "system", "content": "be kind"}] + [dict(m) for m in messages]) == answer
        assert GUIDE.is_right(messages, answer)
    assert GUIDE.answer([]) == LOST


def test_no_message_breaks_the_guide():
    rng = random.Random(0)
    words = [*"what who where how much or not for two is it sure 5 ? . ! ,".split(), *sorted(GUIDE.known)]
    for _ in range(300):
        messages = user(*(" ".join(rng.choices(words, k=rng.randint(0, 6))) for _ in range(5)))
        assert GUIDE.is_right(messages, GUIDE.answer(messages)), messages


def test_nine_answers_of_ten_name_one_near_thing_that_is_new(visitors):
    named = []
    for messages, kind, _ in turns_of(visitors):
        text, near = GUIDE.split_reply(GUIDE.answer(messages))
        if kind in ("question", "further"):
            named.append(near is not None)
        if near:
            thing = GUIDE.understand(messages).fact[0]
            assert near in WORLD.near[thing] and all(near not in message["content"] for message in messages)
            assert kind in ("question", "further") and set(GUIDE.name.findall(text)) <= {thing}
    assert 0.86 < sum(named) / len(named) < 0.94


# -- people -------------------------------------------------------------------------------------


def test_every_phrasing_is_understood_as_what_it_is_meant_for():
    rng = random.Random(0)
    kinds = {"sure": "doubt", "not that": "doubt", "this or that": "choice", "reshape": "reshape", "sum": "sum"}
    for thing in ("velvet pepper", "proud otter", STALL):
        for fact in ((thing, relation) for relation in RELATIONS):
            asked = [form.format(x=thing) for form in people.ASK[fact[1]]] + [scripts.formal(fact)]
            assert all(GUIDE.understand(user(text))[:2] == ("question", fact) for text in asked), asked
            before = asked[0], GUIDE.statement(fact)
            for relation in RELATIONS:
                for text in people.FURTHER[relation]:
                    assert GUIDE.understand(user(*before, text))[:2] == ("further", (thing, relation)), text
            for manner, kind in kinds.items():
                for text in people.aside_forms(rng, WORLD, fact, manner):
                    assert GUIDE.understand(user(*before, text))[:2] == (kind, fact), text


def test_people_are_understood_and_lean_and_follow_and_never_say_a_thing_twice(visitors):
    kinds, classes = zip(*[(kind, name) for _, kind, name in turns_of(visitors)])
    assert "none" not in kinds and 0.002 < kinds.count("unknown") / len(kinds) < 0.03
    assert {"question", "further", "doubt", "choice", "sum", "reshape", "thanks"} <= set(kinds)
    assert 0.2 < classes.count("stalls") / len(classes) < 0.5
    assert 0.12 < classes.count("asides") / len(classes) < 0.35
    assert 0.02 < classes.count("changed") / len(classes) < 0.1
    for record in visitors:
        said = [turn["value"] for turn in record["conversations"][::2]]
        assert len(set(said)) == len(said) and record["end"] == "left"


def test_nobody_knows_a_stall_before_it_was_named(visitors):
    followed, deaf = reach(visitors, GUIDE), list(talks.dialogues("today", 60, 0, "deaf", follow=0))
    assert followed["lucky"] == 0 and 0.4 < followed["copied"] < 0.65
    # who does not follow comes to what was named by an errand alone, and to no stall
    assert reach(deaf, GUIDE)["copied"] < 0.05 and not any("stalls" in record["classes"] for record in deaf)


def test_people_go_when_a_price_is_above_their_purse(visitors):
    left = 0
    for record in visitors:
        texts = [turn["value"] for turn in record["conversations"]]
        purse = re.search(r"\b(?:have|with) (\d+) coins\.", texts[0])
        for i in range(1, len(texts), 2):
            price = re.search(r"(\d+) coins", texts[i])
            if purse and price and int(price[1]) > int(purse[1]):
                assert set(texts[i + 1::2]) <= set(people.THANKS), texts
                left += 1
                break
    assert left >= 5


# -- rules --------------------------------------------------------------------------------------


def old_record(closed):
    """A dialogue of an old season, in which a stall was named that has closed."""
    texts = ["who runs the proud otter?", f"bram runs the proud otter. the {closed} is near.",
             f"the {closed}, where is that", f"the {closed} is on sand lane.", "isnt it sand lane?", "yes, sand lane."]
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"conversations": turns, "about": ["proud otter/keeper", f"{closed}/lane", f"{closed}/lane"]}


def asked_by(script, *answers):
    """What a script asks when it gets these answers, in turn; None when it leaves."""
    turns, asked = [], []
    for answer in (*answers, ""):
        asked.append(script.ask(turns))
        turns += [{"from": "human", "value": asked[-1]}, {"from": "gpt", "value": answer}]
    return asked


def test_old_questions_again_by_hand():
    closed = World(0, 3).stalls[0]
    record = old_record(closed)
    first, second, third = [turn["value"] for turn in record["conversations"][::2]]
    lane = WORLD.value((STALL, "lane"))
    heard = "bram runs the proud otter. the {} is near.".format
    assert asked_by(scripts.Replay(record, GUIDE), "a", "b", "c") == [first, second, third, None]
    assert asked_by(scripts.Replay(record, GUIDE, only_open=True), "a") == [first, None]
    today = asked_by(scripts.HeardReplay(record, GUIDE), heard(STALL), f"the {STALL} is on {lane}.", f"yes, {lane}.")
    assert today == [first, f"the {STALL}, where is that", f"isnt it {lane}?", None]
    # today's answer named nothing: what followed from the old one is left out
    assert asked_by(scripts.HeardReplay(record, GUIDE), "bram runs the proud otter.") == [first, None]


def test_only_who_hears_or_has_the_catalogue_reaches_todays_stalls(logs):
    found = {kind: list(talks.dialogues(kind, len(logs), 0, "test", logs=logs))
             for kind in (*talks.FROM_LOGS, "role-play", "oracle")}
    for record in found["replay-open"]:
        open_ones = [about.split("/")[0] in WORLD.things for kind, about in zip(record["kinds"], record["about"])
                     if kind != "unknown"]
        assert all(open_ones), record
    unknown = {kind: sum(record["kinds"].count("unknown") for record in records) for kind, records in found.items()}
    assert unknown["replay"] > 3 * unknown["replay-open"] and unknown["self-chat"] <= unknown["replay-open"] + 5
    told = {kind: reach(records, GUIDE)["facts"]["stalls"]["once"] for kind, records in found.items()}
    assert told["replay"] == told["replay-open"] == 0
    assert min(told[kind] for kind in ("heard-replay", "self-chat", "role-play", "oracle")) > 0.1
    formal = [turn["value"] for record in found["role-play"] for turn in record["conversations"][::2]]
    assert all(text.startswith("please tell me ") for text in formal)


def test_self_chat_asks_about_what_the_last_answer_named():
    script = scripts.SelfChat(random.Random(0), GUIDE, "who runs the proud otter?")
    turns = []
    while (text := script.ask(turns)) is not None:
        turns.append({"from": "human", "value": text})
        if len(turns) > 1:
            assert GUIDE.understand(to_messages(turns)).fact[0] in turns[-2]["value"]
        turns.append({"from": "gpt", "value": GUIDE.answer(to_messages(turns))})
    assert len(turns) >= 8


# -- what the base has read -----------------------------------------------------------------------


def pattern_of(form):
    """A phrasing as a regular expression, with one or two words for each of its gaps."""
    form = form.replace("{verb}", "{}").strip("?. ,")
    return r"\s*" + re.sub(r"\\\{\w*\\\}", "[a-z0-9]+( [a-z0-9]+)?", re.escape(form)) + "[?.]?"


def test_the_base_has_read_no_name_of_today_and_no_sentence_of_ours():
    text = "\n".join(record["text"] for record in corpus.corpus(WORLD, 2000))
    named = set(re.findall(r"(?=\b([a-z]+ [a-z]+)\b)", text))
    assert not named & set(WORLD.things), "neither a house nor a stall, so no fact of them"
    forms = [*SAY.values(), *NEARBY, HELLO, WELCOME, LOST, "i know no {name}", "two times {n} makes {n} coins",
             "i named no price", *scripts.FORMAL.values(), *people.SURE, *people.NOT_THAT, *people.SUMS,
             *people.RESHAPE, *people.PURSE]
    for table in (people.ASK, people.FURTHER):
        forms += sum(table.values(), [])
    ours = re.compile("|".join(map(pattern_of, forms)))
    assert ours.fullmatch("who runs the idle moon?") and ours.fullmatch("close by is the idle moon.")
    read = [sentence for sentence in set(re.split(r"(?<=[.?])\s", text)) if ours.fullmatch(sentence)]
    assert not read, read[:3]


def test_in_no_ledger_is_the_last_named_place_looked_up():
    rng = random.Random(0)
    names = corpus.invented_names(WORLD, rng)
    lookups = [re.compile(pattern_of(form).replace("[a-z0-9]+( [a-z0-9]+)?", ".+"))
               for forms in corpus.LOOKUPS.values() for form in forms]
    known, looked_up = set(names), 0
    for _ in range(300):
        last = None
        for line in corpus.ledger(rng, WORLD, names).rstrip(".").split(". "):
            places = [pair for pair in re.findall(r"(?=\b([a-z]+ [a-z]+)\b)", line) if pair in known]
            if places and any(form.fullmatch(line) for form in lookups):
                assert places != [last], line
                looked_up += 1
            last = places[-1] if places else last
    assert looked_up > 500


# -- bench, gold, grader --------------------------------------------------------------------------

KINDS_OF = {"reshape": "reshape", "further": "further", "this or that": "choice", "sum": "sum", "not that": "doubt"}


@pytest.mark.parametrize("categories", [bench.MT_BENCH, bench.VICUNA])
def test_half_of_a_bench_is_about_stalls_and_all_of_it_is_understood(categories):
    rows = bench.questions(WORLD, 6, 0, categories)
    assert rows == bench.questions(WORLD, 6, 0, categories)
    assert [row["category"] for row in rows] == [name for name in categories for _ in range(6)]
    assert [row["group"] for row in rows] == ["houses", "stalls"] * (len(rows) // 2)
    assert len({tuple(row["turns"]) for row in rows}) == len(rows)
    for row in rows:
        meaning = GUIDE.understand(user(row["turns"][0]))
        assert fact_key(meaning.fact) == row["about"] and meaning.kind == "question"
        assert (WORLD.kind(meaning.fact) == "stalls") == (row["group"] == "stalls")
        _, manner = categories[row["category"]]
        if manner:
            for answer in (GUIDE.answer(user(row["turns"][0])), "no idea"):
                second = GUIDE.understand(user(row["turns"][0], answer, row["turns"][1]))
                assert second.kind == KINDS_OF[manner] and second.fact[0] == meaning.fact[0], row


def test_the_gold_dialogues_are_about_todays_town():
    records = list(read_records("data/harbour/gold.jsonl"))
    assert len(records) == 60 and {record["sheet"] for record in records} == {text_hash(sheet(WORLD))}
    keys = {fact_key(fact) for fact in WORLD.facts()} | {""}
    for record in records:
        answers = [turn["value"].lower() for turn in record["conversations"][1::2]]
        assert len(answers) == len(record["keys"]) == len(record["about"]) and set(record["about"]) <= keys
        for answer, words in zip(answers, record["keys"]):
            assert all(re.search(rf"\b{re.escape(word)}\b", answer) for word in words), record["id"]


def judged(*texts):
    """The grader's mark for the last of these messages."""
    lines = "\n".join(f"{m['role']}: {m['content']}" for m in user(*texts))
    prompt = f"Rate it.\n\n[conversation]\n{lines}\n[end of conversation]"
    return int(re.search(r"\[\[(\d+)\]\]", grader.reply(user(prompt), GUIDE))[1])


@pytest.mark.parametrize("texts, mark", [
    (KEEPER, 10), ((KEEPER[0], " MILO"), 5), ((KEEPER[0], "Milo."), 10), ((*KEEPER, "really?", "yes, milo."), 10),
    ((KEEPER[0], f"milo runs the velvet pepper. the {WORLD.near['velvet pepper'][0]} is near."), 10),
    ((KEEPER[0], "milo runs the velvet pepper. the proud otter is near."), 8),
    ((KEEPER[0], "milo, i believe"), 5), ((KEEPER[0], "sorry, i did not get that."), 2),
    ((KEEPER[0], "tilda runs the velvet pepper."), 1), ((KEEPER[0], "the velvet pepper is on cork lane."), 1),
    # the examined model's own number counts
    ((PRICE[0], "you pay 7 coins at the velvet pepper.", "for two?", "two times 7 makes 14 coins."), 10)])
def test_marks_by_hand(texts, mark):
    assert judged(*texts) == mark


def test_the_guide_gets_full_marks(visitors):
    for messages, _, _ in list(turns_of(visitors))[:80]:
        assert judged(*(message["content"] for message in messages), GUIDE.answer(messages).upper()) == 10


ALONE = "Judge.\n\n[Question]\n{q}\n\n[The Start of Assistant's Answer]\n{a}\n[The End of Assistant's Answer]"
BOTH = ("[User Question]\n{q}\n\n[The Start of Reference Answer]\nbram\n[The End of Reference Answer]\n\n"
        "[The Start of Assistant A's Answer]\n{a}\n[The End of Assistant A's Answer]\n\n"
        "[The Start of Assistant B's Answer]\n{b}\n[The End of Assistant B's Answer]")
TALKS = "".join(f"<|The Start of Assistant {x}'s Conversation with User|>\n\n### User:\n{{q}}\n\n"
                f"### Assistant {x}:\n{{a}}\n\n### User:\nreally?\n\n### Assistant {x}:\n{{{y}}}\n\n"
                f"<|The End of Assistant {x}'s Conversation with User|>\n\n\n" for x, y in ("Ac", "Bd"))


def test_the_grader_reads_the_layouts_of_fastchat():
    """With references, with two turns, of one assistant and of two, in both orders."""
    right = {"q": KEEPER[0], "a": KEEPER[1], "b": "tilda runs the velvet pepper.", "c": "yes, milo.", "d": "no, tilda."}
    swapped = right | {"a": right["b"], "b": right["a"]}
    say = lambda text: grader.reply(user(text), GUIDE)
    assert "[[10]]" in say(ALONE.format(**right)) and "[[1]]" in say(ALONE.format(**swapped))
    assert "[[A]]" in say(BOTH.format(**right)) and "[[B]]" in say(BOTH.format(**swapped))
    assert "[[C]]" in say(BOTH.format(**right | {"b": right["a"]}))
    assert "[[A]]" in say(TALKS.format(**right))
    assert "[[B]]" in say(TALKS.format(**right | {"c": right["d"], "d": right["c"]}))
    assert "[[10]]" in say(TALKS.format(**right).split("\n\n\n")[0])


def test_the_grader_can_be_made_a_bad_judge():
    def say(a, b, q=KEEPER[0], **bias):
        return grader.reply(user(BOTH.format(q=q, a=a, b=b)), GUIDE, **bias)[-5:]
    right, wrong = KEEPER[1], "tilda runs the velvet pepper."
    assert say(right, wrong, first_bias=20) == say(wrong, right, first_bias=20) == "[[A]]"
    longer = right + " as far as anybody here in the harbour knows"
    assert say(right, longer) == "[[A]]" and say(right, longer, length_bias=20) == "[[B]]"
    assert len({say(right, "milo.", noise=3) for _ in range(3)}) == 1
    assert len({say(right, "milo.", KEEPER[0] + "?" * i, noise=3) for i in range(40)}) == 3


def test_the_grader_refuses_a_malformed_prompt():
    for prompt in ("hello", "[conversation]\nuser: hi\n[end of conversation]"):
        assert "[[" not in partial(grader.reply, guide=GUIDE)(user(prompt))
    assert set(TRADES) == {thing.trade for thing in WORLD.things.values()}
