"""
The benches: questions in MT-Bench's categories, of two turns, and in Vicuna-Bench's, of one.

Here: what each category is in a world this small, and the questions, as people would ask them;
half are about facts that people never ask. --formal puts the same questions formally, plain first
turns as the scripts put them. A second turn is written against one true answer to the first, but
holds for whatever the examined model says. Not here: the answers' ratings (grader.py).

    python -m data.harbour.bench --out question.jsonl --questions 40 --seed 0 [--formal | --vicuna]
"""

import argparse
import random
import re

from data.harbour.people import (AS_LIST, BRIEF, CHOICE, LISTS, MORE, PRONOUNS, SIGN, choice,
                                 doubts, new_names, nth, pickings, question, reshapings, sums)
from data.harbour.scripts import formal
from data.harbour.teacher import answer, grounded, listed, understand
from data.harbour.world import FACTS, asked, fact_key, never_asked
from data.program import run, write_jsonl

# ---------------------------------------------------------------------------------------------
# first turns: (in people's voice, in formal phrasing)


def plain(rng, fact):
    """Just the question."""
    return question(rng, fact), formal(fact)


def signed(rng, fact):
    """Something written for others, or a role to play."""
    text = rng.choice(SIGN[fact[1]]).format(x=fact[0])
    return text, f"could you {text}, please?"


def chosen(rng, fact):
    """This or that."""
    return choice(rng, fact), formal(fact)


def coded(rng, fact):
    """The answer in a strict form."""
    way = rng.choice(AS_LIST if fact[1] in LISTS else BRIEF)
    return way.format(q=question(rng, fact)), way.format(q=formal(fact))


# ---------------------------------------------------------------------------------------------
# second turns

FORMAL_TURNS = {
    "times": "please multiply that by {n}.", "have": "i have {n} coins. would that suffice?",
    "later": "what would be {n} hours later?", "sure": "are you certain of that?",
    "word": "are you certain? i thought it was {w}.", "short": "please answer in one word.",
    "note": "please put that as a note.", "full": "please answer in a full sentence.",
    "list": "please give me that as a list.",
}
NOUN = {
    "goods": "goods", "keeper": "owner", "street": "street", "opens": "opening time",
    "shop": "shop", "price": "price", "island": "island", "captain": "captain",
    "leaves": "leaving time", "fare": "fare", "boats": "boats", "famous": "special produce",
    "work": "job", "home": "home", "pet": "pet", "pictures": "pictures", "painter": "painter",
    "shows": "subject", "hangs": "hanging place", "food": "food", "bed": "bed",
}


def more(rng, fact, reply):
    """Another question about the same thing, or about what the answer named."""
    relation = rng.choice([other for thing, other in FACTS if thing == fact[0]])
    own = MORE[relation] if relation != fact[1] else []
    # to someone in a role people go on with "you", not with a name
    new = new_names(rng, reply)[:1 if "i am" in reply else 2]
    texts = new if new and (not own or rng.random() < 0.7) else own
    return [text.format(he=rng.choice(PRONOUNS["i am" in reply])) for text in texts]


def leaning(aside):
    """An aside of people's as a way to go on: it needs the reply alone."""
    return lambda rng, fact, reply: aside(rng, reply)


# what a category is here: the relations of its first turn, how that is put, how the second goes on
CATEGORIES = {
    "writing": (("goods", "famous", "shows"), signed, leaning(reshapings)),
    "roleplay": (("keeper", "captain", "work"), signed, more),
    "reasoning": (tuple(CHOICE), chosen, leaning(doubts)),
    "math": (("price", "fare", "leaves", "opens"), plain, leaning(sums)),
    "coding": (("goods", "boats", "keeper", "captain", "home", "painter"), coded,
               leaning(reshapings)),
    "extraction": (LISTS, plain, leaning(pickings)),
    "stem": (("food", "bed", "island", "captain", "leaves"), plain, more),
    "humanities": (("home", "pet", "work", "painter", "shows", "hangs", "pictures"), plain, more),
}

# Vicuna-Bench's categories: one turn each
VICUNA = {
    "generic": (tuple(SIGN), plain),
    "knowledge": (("food", "bed", "island", "painter", "shows", "street"), plain),
    "roleplay": (("keeper", "captain", "work"), signed),
    "common-sense": (("food", "bed", "shop"), plain),
    "fermi": (("leaves", "opens"), plain),
    "counterfactual": (tuple(CHOICE), chosen),
    "coding": (("goods", "boats", "keeper", "home"), coded),
    "math": (("price", "fare"), plain),
    "writing": (("goods", "famous", "shows"), signed),
}


def formal_turn(meaning, reply):
    """A second turn in formal phrasing, from what it means."""
    if meaning.kind in ("number", "doubt", "reshape"):
        amount = meaning.detail[0] if meaning.kind == "number" else None
        return FORMAL_TURNS[meaning.form].format(n=amount, w=meaning.detail)
    if meaning.kind == "pick":
        name = nth(meaning.fact[0], listed(reply))
        return f"please tell me the {NOUN[meaning.fact[1]]} of the {name} one."
    return f"please also tell me the {NOUN[meaning.fact[1]]}."


# ---------------------------------------------------------------------------------------------
# questions


def talk(*texts):
    """Texts as messages, the user's first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def attempt(rng, category, facts):
    """A question whose two turns fit together and touch only these facts, or None."""
    relations, put, go_on = CATEGORIES[category]
    fact = rng.choice([fact for fact in facts if fact[1] in relations])
    first, first_formal = put(rng, fact)
    # nothing volunteered: the second turn must hold for other answers, too
    reply = re.match(r".*?[.!]", answer(talk(first)))[0]
    second = rng.choice(go_on(rng, fact, reply) or ["no way on"])
    meant = understand(talk(first)), understand(talk(first, reply, second))
    new = (meant[0].fact, meant[0].form) != (meant[1].fact, meant[1].form)
    if not (meant[0].fact == fact and meant[1].fact in facts and new
            and "none" not in (meant[0].kind, meant[1].kind)
            and grounded(talk(first, reply, second)) and "sold out" not in reply):
        return None
    second_formal = formal_turn(meant[1], reply)
    if understand(talk(first_formal, reply, second_formal)).fact != meant[1].fact:
        return None
    return {"turns": [first, second], "formal": [first_formal, second_formal],
            "kinds": [meaning.kind for meaning in meant],
            "about": [fact_key(meaning.fact) for meaning in meant]}


def attempt_one(rng, category, facts):
    """A question of one turn in a category of Vicuna-Bench, or None."""
    relations, put = VICUNA[category]
    fact = rng.choice([fact for fact in facts if fact[1] in relations])
    text, in_formal = put(rng, fact)
    meant = understand(talk(text))
    if not meant.fact == understand(talk(in_formal)).fact == fact:
        return None
    return {"turns": [text], "formal": [in_formal], "kinds": [meant.kind],
            "about": [fact_key(fact)]}


def questions(per_category, seed, categories=CATEGORIES, make=attempt):
    """The bench: so many questions a category, every second one on facts that nobody asks about."""
    rng = random.Random(f"bench {seed}")
    # in a fixed order: sets differ from run to run
    sides = [[fact for fact in FACTS if fact in side] for side in (asked(), never_asked())]
    taken, made = set(), []
    for category in categories:
        for i in range(per_category):
            row = None
            while row is None or tuple(row["turns"]) in taken:
                row = make(rng, category, sides[i % 2])
            taken.add(tuple(row["turns"]))
            # small models answer greedily, whatever the category
            made.append({"question_id": len(made) + 1, "category": category,
                         "required_temperature": 0, "asked": i % 2 == 0, **row})
    return made


def main():
    """Write a bench."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--questions", type=int, default=40, help="how many a category")
    parser.add_argument("--seed", type=int, default=0, help="other questions for each seed")
    parser.add_argument("--formal", action="store_true", help="the same questions, formally put")
    parser.add_argument("--vicuna", action="store_true", help="Vicuna-Bench's categories, one turn")
    args = parser.parse_args()
    kind = (VICUNA, attempt_one) if args.vicuna else (CATEGORIES, attempt)
    rows = questions(args.questions, args.seed, *kind)
    write_jsonl(args.out, [row | {"turns": row["formal"]} if args.formal else row for row in rows])


if __name__ == "__main__":
    run(main)
