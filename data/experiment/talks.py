"""
Write dialogues of people, or of users that are rules, with the harbour's guide, in one process.

    python -m data.experiment.talks logs  --out human.jsonl --dialogues 2400    past seasons' people
    python -m data.experiment.talks today --out today.jsonl --dialogues 2400    today's
    python -m data.experiment.talks replay --logs human.jsonl --out replay.jsonl    one for each log
"""

import argparse
import random

from data.harbour.people import FOLLOW, Person
from data.harbour.scripts import HeardReplay, Replay, RolePlay, SelfChat
from data.harbour.teacher import ASIDES, FACTUAL, Guide
from data.harbour.world import PAST_SEASONS, TODAY, World, fact_key
from data.program import positive_int, require_apart, run, write_jsonl
from platolm import read_records, to_messages
from simulate import converse

FROM_LOGS = ("replay", "replay-open", "heard-replay", "self-chat")
USERS = ("logs", "today", *FROM_LOGS, "role-play", "oracle")


def draw_guide(seed, growth=1.0, number=TODAY):
    """Return the guide to the world of a seed in one season, by default today's."""
    return Guide(World(seed, number, growth))


def make_user(kind, rng, guide, record, follow):
    """Make the user of one dialogue, with ask(turns) -> text or None; record: an old dialogue."""
    if kind == "replay":
        return Replay(record, guide)
    if kind == "replay-open":
        return Replay(record, guide, only_open=True)
    if kind == "heard-replay":
        return HeardReplay(record, guide)
    if kind == "self-chat":
        return SelfChat(rng, guide, record["conversations"][0]["value"])
    if kind == "role-play":
        return RolePlay(rng, guide)
    if kind == "oracle":
        return Person(rng, guide, list(guide.world.things), follow=0)
    return Person(rng, guide, guide.world.houses, follow)


def label(guide, messages):
    """
    Label the last user message: (kind, fact key, class). The class is "houses", "changed" or
    "stalls" for questions, by what they are about; "asides" for what leans on an answer; "talk".
    """
    meaning = guide.understand(messages)
    name = "talk"
    if meaning.kind in FACTUAL:
        name = guide.world.kind(meaning.fact)
    elif meaning.kind in ASIDES:
        name = "asides"
    return meaning.kind, fact_key(meaning.fact) if meaning.fact else "", name


def labelled(turns, end, guide, name):
    """Make a record of a dialogue, with labels for each human turn."""
    labels = [label(guide, to_messages(turns[:i + 1])) for i in range(0, len(turns), 2)]
    kinds, about, classes = zip(*labels)
    return {"id": name, "conversations": turns, "end": end, "season": guide.world.number,
            "kinds": kinds, "about": about, "classes": classes}


def dialogues(kind, count, seed, draw, growth=1.0, seasons=PAST_SEASONS, follow=FOLLOW, logs=()):
    """
    Yield records of dialogues. seed: the world's; draw: other dialogues in it.

    kind: one of USERS; seasons: of logs, how many past ones, the last of them; logs: old dialogues,
    one for each to come, for users that repeat or begin with them.
    """
    past = range(TODAY - seasons, TODAY) if kind == "logs" else [TODAY]
    guides = [draw_guide(seed, growth, number) for number in past]
    for i in range(count):
        rng = random.Random(f"{kind} {seed} {draw} {i}")
        guide = guides[i % len(guides)]
        record = logs[i % len(logs)] if logs else None
        user = make_user(kind, rng, guide, record, follow)
        turns, end = converse(user.ask, lambda turns: guide.answer(to_messages(turns)), 16)
        if turns:
            yield labelled(turns, end, guide, f"{kind}-{i + 1:06d}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("user", choices=USERS)
    add("--out", required=True, help="JSONL file to write")
    add("--dialogues", type=positive_int, default=2400, help="how many")
    add("--seed", type=int, default=0, help="of the world")
    add("--draw", default="0", help="other dialogues in the same world")
    add("--growth", type=float, default=1.0, help="share of stalls that are new each season")
    add("--seasons", type=positive_int, default=PAST_SEASONS, help="how many past ones logs are of")
    add("--follow", type=float, default=FOLLOW, help="how often people ask about what is named")
    add("--logs", metavar="FILE", help="old dialogues, for users that repeat or begin with them")
    args = parser.parse_args()
    if args.user in FROM_LOGS and not args.logs:
        parser.error(f"{args.user} needs old dialogues: --logs FILE")
    require_apart([args.out], [args.logs])
    logs = list(read_records(args.logs)) if args.logs else ()
    write_jsonl(args.out, dialogues(args.user, args.dialogues, args.seed, args.draw, args.growth,
                                    args.seasons, args.follow, logs))


if __name__ == "__main__":
    run(main)
