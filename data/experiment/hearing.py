"""
Let Socratic talk to today's guide and hear the answers badly: only some of them, or those of
another dialogue. What a dialogue's file holds are the answers that were given.

    python -m data.experiment.hearing runs/tiny/socratic --hearing 0.5 --out half.jsonl
    python -m data.experiment.hearing runs/tiny/socratic --swap today.jsonl --out swapped.jsonl
"""

import argparse
import random
from concurrent.futures import ThreadPoolExecutor

from data.experiment.talks import draw_guide, labelled
from data.machine import load_checkpoint
from data.program import positive_int, require_apart, run, write_jsonl
from data.users import UserSettings
from platolm import read_records, to_messages
from simulate import Socratic, converse

AT_A_TIME = 64


def badly_heard(turns, number, seed, hearing, others):
    """
    Return turns as Socratic hears them: each answer with probability `hearing`, else an empty one;
    or, with other dialogues, the answer of the next of them in its place.
    """
    heard = []
    for i, turn in enumerate(turns):
        if turn["from"] == "gpt" and others:
            answers = others[(number + 1) % len(others)]["conversations"][1::2]
            turn = answers[(i // 2) % len(answers)]
        elif turn["from"] == "gpt" and random.Random(f"{seed} {number} {i}").random() >= hearing:
            turn = turn | {"value": ""}
        heard.append(turn)
    return heard


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("user", metavar="DIR", help="checkpoint of a trained user")
    add("--out", required=True, help="JSONL file to write")
    add("--dialogues", type=positive_int, default=2400, help="how many")
    add("--hearing", type=float, default=1.0, help="how often an answer is heard")
    add("--swap", metavar="FILE", help="dialogues whose answers are heard instead")
    add("--seed", type=int, default=0, help="of the world, and of what is drawn")
    add("--growth", type=float, default=1.0, help="share of stalls that are new each season")
    args = parser.parse_args()
    require_apart([args.out], [args.user, args.swap])
    guide = draw_guide(args.seed, args.growth)
    others = list(read_records(args.swap)) if args.swap else []
    model, tokenizer = load_checkpoint(args.user)
    settings = UserSettings(context=model.config.context, seed=args.seed)
    socratic = Socratic(model, tokenizer, AT_A_TIME, settings)

    def hold(number):
        user = socratic.start_dialogue(number)
        try:
            turns, end = converse(
                lambda turns: user(badly_heard(turns, number, args.seed, args.hearing, others)),
                lambda turns: guide.answer(to_messages(turns)), 12)
        finally:
            user.close()
        return labelled(turns, end, guide, f"socratic-{number + 1:06d}") if turns else None

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        records = list(pool.map(hold, range(args.dialogues)))
    write_jsonl(args.out, filter(None, records))
    socratic.close()


if __name__ == "__main__":
    run(main)
