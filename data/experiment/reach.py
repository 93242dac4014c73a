"""
How far users reach into today's town, and whether they listen: which facts their dialogues had the
guide tell, how often they ask by name about what was just named, which names they cannot know.

    python -m data.experiment.reach NAME=FILE ... --out reach.json
"""

import argparse
from collections import Counter

from data.experiment.talks import draw_guide
from data.harbour.teacher import ASIDES, FACTUAL
from data.harbour.world import TODAY
from data.program import require_apart, run, write_json
from platolm import read_records, to_messages


def read_dialogue(record, guide):
    """
    Yield for each human turn of a dialogue: (its meaning, the names in it, the name that the answer
    before it called near or None, all names in the turns before it).
    """
    turns, before = record["conversations"], set()
    for i in range(0, len(turns), 2):
        names = guide.name.findall(guide.clean(turns[i]["value"]))
        near = guide.split_reply(turns[i - 1]["value"])[1] if i else None
        yield guide.understand(to_messages(turns[:i + 1])), names, near, set(before)
        for turn in turns[i:i + 2]:
            before.update(guide.name.findall(turn["value"].lower()))


def reach(records, guide):
    """
    Sum up what the users of some dialogues were told of today's town, and how.

    Returns {"dialogues", "turns" (a dialogue), "kinds" (shares of turns), "ends", "told" {thing:
    times a fact of it was told}, "facts" {"houses", "stalls": {"once", "twice": shares of the facts
    that were told so often, "times": the mean}}, "near" (times something new was named near),
    "copied" (the share of these that the next turn names), "lucky" (turns that name a stall of this
    season of which no turn before had spoken)}. Logs are of other seasons: they reach no stall, and
    of what they tell of houses counts what is still true.
    """
    world, kinds, facts = guide.world, Counter(), Counter()
    true_before = set(world.facts()) - world.changed
    near_count = copied = lucky = 0
    for record in records:
        is_today = record.get("season", TODAY) == world.number
        for number, (meaning, names, near, before) in enumerate(read_dialogue(record, guide)):
            kind, fact = meaning.kind, meaning.fact
            if not is_today:
                kind, fact = record["kinds"][number], tuple(record["about"][number].split("/"))
            kinds[kind] += 1
            if kind in FACTUAL and (is_today or fact in true_before):
                facts[fact] += 1
            copied += bool(near) and near in names
            lucky += any(name in world.stalls and name not in before for name in names)
        for turn in record["conversations"][1::2]:
            near_count += guide.split_reply(turn["value"])[1] is not None
    turns = sum(kinds.values())
    told = Counter()
    for (thing, _), times in facts.items():
        told[thing] += times
    groups = {}
    for group in ("houses", "stalls"):
        times = [facts[fact] for fact in world.facts()
                 if (world.things[fact[0]].kind == "stall") == (group == "stalls")]
        groups[group] = {"once": sum(n >= 1 for n in times) / len(times),
                         "twice": sum(n >= 2 for n in times) / len(times),
                         "times": sum(times) / len(times)}
    return {"dialogues": len(records), "turns": turns / len(records),
            "kinds": {kind: count / turns for kind, count in kinds.most_common()},
            "asides": sum(kinds[kind] for kind in ASIDES) / turns,
            "ends": dict(Counter(record.get("end") for record in records)), "told": dict(told),
            "facts": groups, "near": near_count, "copied": copied / max(1, near_count),
            "lucky": lucky}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("files", nargs="+", metavar="NAME=FILE", help="dialogues of one user each")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    args = parser.parse_args()
    require_apart([args.out], [args.files])
    guide = draw_guide(args.seed, args.growth)
    results = {}
    print(f"{'user':<14}{'turns':>6}{'asides':>8}{'unknown':>9}{'copied':>8}{'lucky':>7}"
          "   stalls' facts told once, twice, times")
    for word in args.files:
        name, _, path = word.partition("=")
        row = results[name] = reach(list(read_records(path)), guide)
        stalls = row["facts"]["stalls"]
        print(f"{name:<14}{row['turns']:>6.1f}{row['asides']:>8.0%}"
              f"{row['kinds'].get('unknown', 0):>9.1%}{row['copied']:>8.3f}{row['lucky']:>7}"
              f"   {stalls['once']:.0%}, {stalls['twice']:.0%}, {stalls['times']:.1f}", flush=True)
    write_json(args.out, results)
    print("copied: of the answers that name something near, how many are followed by a question "
          "that names it;\nlucky: turns with a stall's name of which nobody had spoken")


if __name__ == "__main__":
    run(main)
