"""
Dialogues of invented people, or of scripts, with the teacher, all in this process.

    python -m data.experiment.talks people --out human.jsonl --dialogues 12000
    python -m data.experiment.talks self-chat --human human.jsonl --out self-chat.jsonl

Here: who talks, and the labels of what was said. Not here: the people (people.py), the scripts
(scripts.py), the teacher (teacher.py), dialogues over the wire (simulate.py).
"""

import argparse
import random

from data.harbour.people import Person
from data.harbour.scripts import SCRIPTS
from data.harbour.teacher import LEANING, answer, understand
from data.harbour.world import FACTS, asked, fact_key, never_asked
from data.program import positive_int, run, write_jsonl
from platolm import to_messages, read_records
from simulate import converse

UNASKED = never_asked()


def speaker(who, rng, allowed, firsts):
    """A person who asks about `allowed` facts, or a script; self-chat begins with one of firsts."""
    if who == "people":
        return Person(rng, allowed)
    return SCRIPTS[who](rng, rng.choice(firsts)) if who == "self-chat" else SCRIPTS[who](rng)


def labelled(turns, end, name):
    """A dialogue as a record; of each human turn its kind, its fact, and if people ask about it."""
    meanings = [understand(to_messages(turns[:i + 1])) for i in range(0, len(turns), 2)]
    return {"id": name, "conversations": turns, "end": end,
            "kinds": [meaning.kind for meaning in meanings],
            "about": [fact_key(meaning.fact) if meaning.fact else "" for meaning in meanings],
            "asked": [meaning.fact not in UNASKED for meaning in meanings],
            "leans": [meaning.kind in LEANING for meaning in meanings]}


def dialogues(who, n, seed, allowed=(), firsts=(), prefix=None):
    """n labelled dialogues with the teacher."""
    for i in range(n):
        rng = random.Random(f"{seed} {i}" if who == "people" else f"{who} {seed} {i}")
        ask = speaker(who, rng, allowed, firsts).ask
        turns, end = converse(ask, lambda turns: answer(to_messages(turns)), 16)
        yield labelled(turns, end, f"{prefix or who}-{i + 1:06d}")


def main():
    """Write dialogues with the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("who", choices=["people", *SCRIPTS])
    add("--out", required=True, help="JSONL file to write")
    add("--dialogues", type=positive_int, default=4000, help="how many")
    add("--seed", type=int, default=0, help="other dialogues for each seed")
    add("--facts", choices=["asked", "all"], default="asked", help="what people ask about")
    add("--human", metavar="FILE", help="dialogues of people; self-chat begins with theirs")
    add("--prefix", help="how the ids begin")
    args = parser.parse_args()
    if args.who == "self-chat" and not args.human:
        parser.error("self-chat takes its first questions from --human FILE")
    firsts = [record["conversations"][0]["value"] for record in read_records(args.human)] \
        if args.who == "self-chat" else ()
    allowed = asked() if args.facts == "asked" else set(FACTS)
    write_jsonl(args.out, dialogues(args.who, args.dialogues, args.seed, allowed, firsts, args.prefix))


if __name__ == "__main__":
    run(main)
