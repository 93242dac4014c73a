"""
Three next questions to the same answer: a held-out person's, Socratic's, a script's.

Taken are dialogues in which the person leaned on what had just been said. Not here: whole
simulated dialogues (simulate.py), the script (scripts.py).

    python -m data.questions --user runs/tiny/socratic --human held-out.jsonl --out questions.json
"""

import argparse
import json
import random
from itertools import islice

from data.listening import LEANING
from data.scripts import SelfChat
from model import Llama, machine
from platolm import Tokenizer, read, run
from simulate import Socratic

WORDS = {"human": "user", "gpt": "teacher"}


def places(records):
    """(turns so far, what the person said next), where that leans on the last answer."""
    for record in records:
        for t, kind in enumerate(record["kinds"][1:3], 1):
            if kind in LEANING and kind != "reshape":
                yield record["conversations"][:2 * t], record["conversations"][2 * t]["value"]
                break


def three(number, turns, person, socratic):
    """One case: the talk so far, and how each of the three goes on."""
    ask = socratic.join(number)
    script = SelfChat(random.Random(number), "")
    script.length = 9
    return {"turns": turns, "person": person, "socratic": ask(turns) or "(leaves)",
            "script": script.ask(turns) or "(leaves)"}


def told(case):
    """A case as text."""
    said = [f"    {WORDS[turn['from']]}: {turn['value']}" for turn in case["turns"]]
    ways = [("a person", "person"), ("socratic", "socratic"), ("a script", "script")]
    return "\n".join(said + [f"      {words + ' goes on:':<22}{case[key]}" for words, key in ways])


def main():
    """Write some cases, and print the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--user", required=True, metavar="DIR", help="checkpoint of a trained user")
    parser.add_argument("--human", required=True, help="held-out dialogues of people")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--count", type=int, default=6, help="how many cases")
    args = parser.parse_args()
    model = Llama.load(args.user, machine()["attention"])
    socratic = Socratic(model, Tokenizer.load(args.user), slots=args.count, temperature=0.7)
    cases = [three(number, turns, person, socratic) for number, (turns, person)
             in enumerate(islice(places(read(args.human)), args.count))]
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(cases, file, indent=2)
    print("three next questions to the same answer:\n" + "\n".join(map(told, cases[:1])))


if __name__ == "__main__":
    run(main)
