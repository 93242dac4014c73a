"""
The analysis: which arm's assistant knows this season's stalls, and how sure one may be of it.

    python -m data.experiment.contrasts runs/tiny/probes.json --out runs/tiny/contrasts.json

The plan, written down before the first full run, is in data/harbour/README.md. The headline of an
arm is the share of the stalls' questions that it answers rightly, averaged over people's and the
script's phrasing. Intervals are over things and dialogues, of one seed.
"""

import argparse
import json

import numpy as np

from data.measure.intervals import bootstrap, drawn_interval, drawn_p, holm, two_way_draws
from data.measure.tables import cells, interval, number, p_value
from data.program import UserError, require_apart, run, write_json

# the one question, and those beside it (Holm's adjustment is over these)
PRIMARY = ("socratic", "self-chat")
FURTHER = [("socratic", "heard-replay"), ("socratic", "role-play"), ("socratic", "oracle")]
# lost by construction, so described and not tested: these cannot know a stall of this season
DESCRIBED = [("socratic", "human"), ("socratic", "replay"), ("socratic", "blind")]
CLASSES = ("houses", "changed", "asides", "stalls")


def stalls_right(probes):
    """
    Return (names of the arms, scores (n, arms) of the n questions about stalls, dialogues, things).

    A score is the mean over the two phrasings: 0, 0.5 or 1.
    """
    is_stall = np.array(probes["turns"]["class"]) == "stalls"
    if not is_stall.any():
        raise UserError("none of the held-out people asked about a stall")
    names = list(probes["arms"])
    scores = [(np.array(arm["people"])[is_stall] + np.array(arm["script"], dtype=float)) / 2
              for arm in probes["arms"].values()]
    dialogues = np.array(probes["turns"]["dialogue"])[is_stall]
    return names, np.stack(scores, axis=1), dialogues, np.array(probes["turns"]["thing"])[is_stall]


def class_table(probes):
    """Return for each arm, for each class of turns: {"right", "low", "high"}; see talks.label."""
    turns = {key: np.array(values) for key, values in probes["turns"].items()}
    right = np.stack([arm["people"] for arm in probes["arms"].values()], axis=1).astype(float)
    table = {name: {} for name in probes["arms"]}
    for kind in CLASSES:
        chosen = turns["class"] == kind
        if chosen.any():
            draws = two_way_draws(right[chosen], turns["dialogue"][chosen], turns["thing"][chosen])
            for i, name in enumerate(table):
                low, high = drawn_interval(draws[:, i])
                mean = float(right[chosen, i].mean())
                table[name][kind] = {"right": mean, "low": low, "high": high}
    return table


def analyse(probes):
    """
    Return {"arms", "contrasts", "gap"} of a file of probes.

    "arms": class_table, with "headline", "script" and "gold" for each arm. "contrasts": rows
    {"a", "b", "difference", "low", "high", "p", "role"}; p is None where the outcome was sure.
    "gap": the share of the way from replay to today that socratic goes, {"share", "low", "high"}.
    """
    names, scores, dialogues, things = stalls_right(probes)
    draws = two_way_draws(scores, dialogues, things)
    means = dict(zip(names, scores.mean(axis=0)))
    drawn = dict(zip(names, draws.T))
    arms = class_table(probes)
    for name, arm in arms.items():
        low, high = drawn_interval(drawn[name])
        arm["headline"] = {"right": float(means[name]), "low": low, "high": high}
        arm["script"] = float(np.mean(probes["arms"][name]["script"]))
        hits = probes["arms"][name]["gold"]
        right, low, high = bootstrap([sum(hit) for hit in hits], [len(hit) for hit in hits])
        arm["gold"] = {"right": right, "low": low, "high": high}

    contrasts = []
    for role, pairs in (("primary", [PRIMARY]), ("further", FURTHER), ("described", DESCRIBED)):
        rows = []
        for a, b in pairs:
            if a in means and b in means:
                low, high = drawn_interval(drawn[a] - drawn[b])
                rows.append({"a": a, "b": b, "difference": float(means[a] - means[b]), "low": low,
                             "high": high, "p": drawn_p(drawn[a] - drawn[b]), "role": role})
        adjusted = holm([row["p"] for row in rows])
        for row, p in zip(rows, adjusted):
            row["p"] = None if role == "described" else p
        contrasts += rows
    return {"arms": arms, "contrasts": contrasts, "gap": gap_closed(means, drawn)}


def gap_closed(means, drawn):
    """
    Return what share of replay's distance to today socratic covers; None without those arms, or
    where today is not ahead of replay.
    """
    if not {"socratic", "replay", "today"} <= set(means) or means["today"] <= means["replay"]:
        return None
    def share(of):
        return (of["socratic"] - of["replay"]) / (of["today"] - of["replay"])
    ahead = drawn["today"] > drawn["replay"]
    low, high = drawn_interval(share({name: draws[ahead] for name, draws in drawn.items()}))
    return {"share": float(share(means)), "low": low, "high": high}


def print_table(analysis):
    """Print the arms and their contrasts."""
    print(f"{'share right':<14}{'stalls':>8} {'95 %':<14}"
          + cells(["houses", "changed", "asides", "script", "by hand"], 9))
    arms = analysis["arms"]
    for name in sorted(arms, key=lambda name: -arms[name]["headline"]["right"]):
        arm = arms[name]
        row = [arm.get(kind, {}).get("right") for kind in CLASSES[:3]]
        row += [arm["script"], arm["gold"]["right"]]
        print(f"{name:<14}{arm['headline']['right']:>8.3f} {interval(arm['headline']):<14}"
              + cells([number(value) for value in row], 9))
    print("stalls: over people's and the script's phrasings; changed: facts of houses that are "
          "others today")
    for row in analysis["contrasts"]:
        if row["role"] != "described":
            print(f"{row['role']}: {row['a']} - {row['b']} {row['difference']:+.3f} "
                  f"{interval(row, sign='+')}, p {p_value(row['p'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("probes", help="file of data.experiment.probes")
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    require_apart([args.out], [args.probes])
    with open(args.probes, encoding="utf-8") as file:
        analysis = analyse(json.load(file))
    write_json(args.out, analysis)
    print_table(analysis)


if __name__ == "__main__":
    run(main)
