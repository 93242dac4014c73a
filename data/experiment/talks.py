"""
Write dialogues of invented people, or of scripts, with the harbour's teacher, in one process.

    python -m data.experiment.talks people --out human.jsonl --dialogues 12000
    python -m data.experiment.talks self-chat --human human.jsonl --out self-chat.jsonl
"""

import argparse
import random

from data.harbour.people import Person
from data.harbour.scripts import SCRIPTS
from data.harbour.teacher import LEANING, answer, understand
from data.harbour.world import FACTS, asked, fact_key, never_asked
from data.program import natural_int, positive_int, require_apart, run, write_jsonl
from platolm import read_records, to_messages
from simulate import converse

NEVER_ASKED = never_asked()


def make_user(kind, rng, allowed, first_questions):
    """
    Make the user of one dialogue: an object with ask(turns) -> question or None.

    kind: "people", who ask about the `allowed` facts, or the name of a script; the script self-chat
    opens with one of `first_questions`.
    """
    if kind == "people":
        return Person(rng, allowed)
    if kind == "self-chat":
        return SCRIPTS[kind](rng, rng.choice(first_questions))
    return SCRIPTS[kind](rng)


def labelled_record(turns, end, name):
    """
    Make a record of a dialogue, with labels for each human turn: its kind, the fact it is about,
    whether people ever ask about that fact, and whether the turn leans on the answer before it.
    """
    meanings = [understand(to_messages(turns[:i + 1])) for i in range(0, len(turns), 2)]
    return {"id": name, "conversations": turns, "end": end,
            "kinds": [meaning.kind for meaning in meanings],
            "about": [fact_key(meaning.fact) if meaning.fact else "" for meaning in meanings],
            "asked": [meaning.fact not in NEVER_ASKED for meaning in meanings],
            "leans": [meaning.kind in LEANING for meaning in meanings]}


def dialogues(kind, n, seed, allowed=(), firsts=(), prefix=None):
    """Yield n labelled records of dialogues between users of this kind and the teacher."""
    for i in range(n):
        rng = random.Random(f"{seed} {i}" if kind == "people" else f"{kind} {seed} {i}")
        user = make_user(kind, rng, allowed, firsts)
        turns, end = converse(user.ask, lambda turns: answer(to_messages(turns)), 16)
        yield labelled_record(turns, end, f"{prefix or kind}-{i + 1:06d}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("who", choices=["people", *SCRIPTS])
    add("--out", required=True, help="JSONL file to write")
    add("--dialogues", type=positive_int, default=4000, help="how many")
    add("--seed", type=natural_int, default=0, help="other dialogues for each seed")
    add("--facts", choices=["asked", "all"], default="asked", help="what people ask about")
    add("--human", metavar="FILE", help="dialogues of people; self-chat begins with theirs")
    add("--prefix", help="how the ids begin")
    args = parser.parse_args()
    require_apart([args.out], [args.human])
    if args.who == "self-chat" and not args.human:
        parser.error("self-chat takes its first questions from --human FILE")
    first_questions = []
    if args.who == "self-chat":
        for record in read_records(args.human):
            first_questions.append(record["conversations"][0]["value"])
    allowed = asked() if args.facts == "asked" else set(FACTS)
    write_jsonl(args.out, dialogues(args.who, args.dialogues, args.seed, allowed, first_questions,
                                    args.prefix))


if __name__ == "__main__":
    run(main)
