"""
Three next questions to the same answer: by a held-out person, by Socratic, by a script.

    python -m data.experiment.next_questions --user DIR --human FILE --out questions.json
    python -m data.experiment.next_questions --tell questions.json

Chosen are dialogues in which the person's second or third turn leans on the answer before it, other
than by asking for it in another form.
"""

import argparse
import json
import random
from itertools import islice

from data.harbour.scripts import SelfChat
from data.harbour.teacher import LEANING
from data.machine import load_checkpoint
from data.program import UserError, require_apart, run, write_json
from data.users import UserSettings
from platolm import DialogueEnd, read_records
from simulate import Socratic

SPEAKERS = {"human": "user", "gpt": "teacher"}


def leaning_turns(records):
    """Yield (turns so far, the person's next text) where that text leans on the last answer."""
    for record in records:
        for number, kind in enumerate(record["kinds"][1:3], 1):
            if kind in LEANING and kind != "reshape":
                conversation = record["conversations"]
                yield conversation[:2 * number], conversation[2 * number]["value"]
                break


def continue_dialogue(number, turns, person, socratic):
    """Return one case: the turns so far, and the next question of person, Socratic and script."""
    script = SelfChat(random.Random(number))
    # long enough that the script does not leave here
    script.length = 9
    try:
        question = socratic.start_dialogue(number)(turns) or "(leaves)"
    except DialogueEnd as end:
        question = f"({end})"
    return {"turns": turns, "person": person, "socratic": question,
            "script": script.ask(turns) or "(leaves)"}


def format_case(case):
    """Format a case as text: a line a turn, then a line for each of the three questions."""
    lines = [f"    {SPEAKERS[turn['from']]}: {turn['value']}" for turn in case["turns"]]
    for name, key in (("a person", "person"), ("socratic", "socratic"), ("a script", "script")):
        lines.append(f"      {name + ' goes on:':<22}{case[key]}")
    return "\n".join(lines)


def make_cases(directory, human, count):
    """Make up to `count` cases from a file of dialogues, with the Socratic of this directory."""
    model, tokenizer = load_checkpoint(directory)
    settings = UserSettings(context=model.config.context)
    socratic = Socratic(model, tokenizer, slots=count, settings=settings)
    cases = []
    for turns, person in islice(leaning_turns(read_records(human)), count):
        cases.append(continue_dialogue(len(cases), turns, person, socratic))
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--user", metavar="DIR", help="checkpoint of a trained user")
    parser.add_argument("--human", help="held-out dialogues of people")
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--count", type=int, default=3, help="how many cases")
    parser.add_argument("--tell", metavar="FILE", help="print the first case of a file instead")
    args = parser.parse_args()
    if args.tell:
        with open(args.tell, encoding="utf-8") as file:
            case = json.load(file)[0]
        print(f"three next questions to the same answer:\n{format_case(case)}")
        return
    require_apart([args.out], [args.user, args.human])
    cases = make_cases(args.user, args.human, args.count)
    if not cases:
        raise UserError(f"in {args.human} nobody's second or third turn leans on an answer")
    write_json(args.out, cases)


if __name__ == "__main__":
    run(main)
