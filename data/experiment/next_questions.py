"""
Next questions to the same answers: by a held-out person, by Socratic, by a script.

    python -m data.experiment.next_questions --user DIR --human FILE --out questions.json
    python -m data.experiment.next_questions --tell questions.json

Chosen are the first dialogues in which the person asked about, or leant on, what an answer of the
first rounds had just said.
"""

import argparse
import json
import random
from itertools import islice
from pathlib import Path

from data.experiment.talks import draw_guide
from data.harbour.scripts import SelfChat
from data.harbour.teacher import ASIDES
from data.machine import load_checkpoint
from data.program import UserError, require_apart, run, write_json
from data.users import UserSettings
from platolm import DialogueEnd, read_records
from simulate import Socratic

SPEAKERS = {"human": "user", "gpt": "guide"}


def listening_turns(records, guide):
    """Yield (turns so far, the person's next text) where that text goes on from the last answer."""
    for record in records:
        turns = record["conversations"]
        for i in range(2, min(6, len(turns)), 2):
            near = guide.split_reply(turns[i - 1]["value"])[1]
            follows = near and near in turns[i]["value"]
            # not asides alone: every second case asks about a new name
            if follows or record["kinds"][i // 2] in ASIDES:
                yield turns[:i], turns[i]["value"]
                break


def continue_dialogue(number, turns, person, socratic, guide):
    """Return one case: the turns so far, and the next question of person, Socratic and script."""
    script = SelfChat(random.Random(number), guide, first="")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--user", metavar="DIR", help="checkpoint of a trained user")
    parser.add_argument("--human", help="held-out dialogues of today's people")
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--count", type=int, default=3, help="how many cases")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    parser.add_argument("--tell", metavar="FILE", help="print the first case of a file instead")
    args = parser.parse_args()
    if args.tell:
        case = json.loads(Path(args.tell).read_text(encoding="utf-8"))[0]
        print(f"three next questions to the same answer:\n{format_case(case)}")
        return
    require_apart([args.out], [args.user, args.human])
    guide = draw_guide(args.seed, args.growth)
    model, tokenizer = load_checkpoint(args.user)
    settings = UserSettings(context=model.config.context)
    socratic = Socratic(model, tokenizer, slots=args.count, settings=settings)
    chosen = listening_turns(read_records(args.human), guide)
    cases = [continue_dialogue(number, turns, person, socratic, guide)
             for number, (turns, person) in enumerate(islice(chosen, args.count))]
    if not cases:
        raise UserError(f"in {args.human} nobody goes on from an answer")
    write_json(args.out, cases)


if __name__ == "__main__":
    run(main)
