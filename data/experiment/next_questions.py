"""
Next questions to the same answers: by a held-out person, by Socratic, by a script.

    python -m data.experiment.next_questions --user DIR --human FILE --out questions.json

Chosen are the first dialogues in which the person asked about what an answer of the first rounds
had just named, and, for every second case, leant on what it had said.
"""

import argparse
import random

from data.experiment.talks import draw_guide
from data.harbour.scripts import SelfChat
from data.harbour.teacher import ASIDES
from data.machine import load_checkpoint
from data.program import UserError, require_apart, run, write_json
from data.users import UserSettings
from platolm import DialogueEnd, read_records
from simulate import Socratic


def listening_turns(records, guide, count):
    """
    List up to `count` of (turns so far, the person's next text), a dialogue each, in which that
    text goes on from the last answer: by asking of what it named, by an aside, and so on in turn.
    """
    chosen = []
    for record in records:
        turns = record["conversations"]
        for i in range(2, min(6, len(turns)), 2):
            near = guide.split_reply(turns[i - 1]["value"])[1]
            follows = near is not None and near in turns[i]["value"]
            aside = record["kinds"][i // 2] in ASIDES
            if len(chosen) < count and (aside if len(chosen) % 2 else follows):
                chosen.append((turns[:i], turns[i]["value"]))
                break
    return chosen


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--user", metavar="DIR", required=True, help="checkpoint of a trained user")
    parser.add_argument("--human", required=True, help="held-out dialogues of today's people")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--count", type=int, default=3, help="how many cases")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    args = parser.parse_args()
    require_apart([args.out], [args.user, args.human])
    guide = draw_guide(args.seed, args.growth)
    model, tokenizer = load_checkpoint(args.user)
    settings = UserSettings(context=model.config.context)
    socratic = Socratic(model, tokenizer, slots=args.count, settings=settings)
    chosen = listening_turns(read_records(args.human), guide, args.count)
    cases = [continue_dialogue(number, turns, person, socratic, guide)
             for number, (turns, person) in enumerate(chosen)]
    if not cases:
        raise UserError(f"in {args.human} nobody goes on from an answer")
    write_json(args.out, cases)


if __name__ == "__main__":
    run(main)
