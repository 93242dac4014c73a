"""
Three next questions to the same answer: a held-out person's, Socratic's, a script's.

Taken are dialogues in which the person's second or third turn leans on the answer before it, other
than by asking for it in another form. Not here: whole simulated dialogues (simulate.py), the
script (scripts.py).

    python -m data.experiment.next_questions --user DIR --human FILE --out questions.json
    python -m data.experiment.next_questions --tell questions.json
"""

import argparse
import json
import random
from itertools import islice

from data.harbour.scripts import SelfChat
from data.harbour.teacher import LEANING
from data.program import UserError, run, write_json
from platolm import read_records

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
    from simulate import DialogueEnd
    script = SelfChat(random.Random(number))
    script.length = 9
    try:
        question = socratic.start_dialogue(number)(turns) or "(leaves)"
    except DialogueEnd as end:
        question = f"({end})"
    return {"turns": turns, "person": person, "socratic": question,
            "script": script.ask(turns) or "(leaves)"}


def told(case):
    """A case as text."""
    said = [f"    {WORDS[turn['from']]}: {turn['value']}" for turn in case["turns"]]
    ways = [("a person", "person"), ("socratic", "socratic"), ("a script", "script")]
    return "\n".join(said + [f"      {words + ' goes on:':<22}{case[key]}" for words, key in ways])


def cases(directory, human, count):
    """Some cases, for the Socratic in this checkpoint directory."""
    from data.machine import load_checkpoint
    from simulate import Socratic
    model, tokenizer = load_checkpoint(directory)
    socratic = Socratic(model, tokenizer, slots=count)
    return [three(number, turns, person, socratic)
            for number, (turns, person) in enumerate(islice(places(read_records(human)), count))]


def main():
    """Write some cases, or tell the first of those written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--user", metavar="DIR", help="checkpoint of a trained user")
    parser.add_argument("--human", help="held-out dialogues of people")
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--count", type=int, default=3, help="how many cases")
    parser.add_argument("--tell", metavar="FILE", help="print the first case of a file instead")
    args = parser.parse_args()
    if args.tell:
        with open(args.tell, encoding="utf-8") as file:
            first = told(json.load(file)[0])
        return print(f"three next questions to the same answer:\n{first}")
    found = cases(args.user, args.human, args.count)
    if not found:
        raise UserError(f"in {args.human} nobody's second or third turn leans on an answer")
    write_json(args.out, found)


if __name__ == "__main__":
    run(main)
