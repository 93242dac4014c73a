"""
Do users listen? Whether their turns refer to answers that were given, and how likely turns are.

A doubt ("venn? really?") and a pick ("the second one") lean on the last answer, a question about
a new name on some answer before. Whether a turn leans is decided by its words alone; whether it is
grounded, by the answers. A user that does not listen leans as often, but ungrounded; and the turns
of people are less likely to it.

    python -m data.experiment.listening did NAME=FILE ... --out behaviour.json
    python -m data.experiment.listening expected DIR --blind DIR --human FILE --out listening.json
"""

import argparse
import re
from collections import Counter

import numpy as np

from data.harbour.teacher import (DOUBT, FACTUAL, LEANING, NAME, PICK, as_talk, claims, clause,
                                  fits, hear, listed, understand)
from data.harbour.world import NEVER_ASKED, THINGS
from data.machine import load_checkpoint
from data.measure.intervals import bootstrap
from data.measure.likelihood import turn_losses
from data.program import read_jsonl, require_apart, require_keys, run, write_json
from platolm import read_records, record_error, to_messages

ECHO = re.compile(r"\b(really|sure|certain)\b")
NTH = re.compile(rf"\b({'|'.join(PICK)}|last)\b")


def doubt(h, earlier):
    """Whether a doubt is about the last answer: it holds the word, or could; None for no doubt."""
    words = h.names[-1:] or re.findall(r"\d+", h.text)[-1:]
    if not re.search(DOUBT, h.bare) or not words:
        return None
    if ECHO.search(h.bare):
        return bool(re.search(rf"\b{words[0]}\b", h.last.lower()))
    return any(fits(words[0], fact) for fact, _ in claims(h.last))


def pick(h, earlier):
    """Whether the last answer holds a list long enough for this pick; None for no pick."""
    nth = NTH.search(clause(h.bare))
    if not nth or h.names or "first question" in h.bare or "ask first" in h.bare:
        return None
    return len(listed(h.last)) > (1 if nth[1] == "last" else PICK.index(nth[1]))


def name(h, earlier):
    """Whether a thing that no human named before is in an answer; None without such a thing."""
    new = [word for word in h.names if word in THINGS and word not in earlier]
    if not new or len(new) < len(h.names) or re.search(DOUBT, h.bare):
        return None
    return any(new[0] in NAME.findall(text.lower()) for role, text in h.before
               if role == "assistant")


LEANS = {"doubts": doubt, "picks": pick, "new names": name}


def later_turns(record):
    """Yield for each later human turn what it can refer to, and the names humans used before."""
    messages = to_messages(record["conversations"])
    for i in range(2, len(messages), 2):
        earlier = set()
        for message in messages[:i:2]:
            earlier |= set(hear((("user", message["content"]),)).names)
        yield hear(as_talk(messages[:i + 1])), earlier


def behaviour(records):
    """
    Count what the users of some dialogues did: {"turns", "kinds", "leaning", "lost", ...}.

    "leaning" and "lost": shares of turns; "never_asked": the share of the facts that people never
    ask about which these users did; "grounded": of each way to lean, the share that was grounded.
    """
    kinds, later, facts = Counter(), Counter(), set()
    grounded = {way: [] for way in LEANS}
    for record in records:
        messages = to_messages(record["conversations"])
        meanings = [understand(messages[:i + 1]) for i in range(0, len(messages), 2)]
        kinds.update(meaning.kind for meaning in meanings)
        later.update(meaning.kind for meaning in meanings[1:])
        facts.update(meaning.fact for meaning in meanings if meaning.kind in FACTUAL)
        for turn, earlier in later_turns(record):
            for way, leans in LEANS.items():
                hit = leans(turn, earlier)
                if hit is not None:
                    grounded[way].append(hit)
    turns = sum(kinds.values())
    return {"dialogues": len(records), "turns": turns / len(records),
            "kinds": {kind: n / turns for kind, n in kinds.most_common()},
            "leaning": sum(later[kind] for kind in LEANING) / max(1, sum(later.values())),
            "lost": kinds["none"] / turns,
            "never_asked": len(facts & set(NEVER_ASKED)) / len(NEVER_ASKED),
            "ends": dict(Counter(record.get("end") for record in records)),
            "grounded": {way: {"share": sum(hits) / len(hits) if hits else None, "n": len(hits)}
                         for way, hits in grounded.items()}}


def behaviour_line(name, counts):
    """Format what `behaviour` counted of one user as a line of the table."""
    shares = []
    for hit in counts["grounded"].values():
        shares.append(f"{hit['share']:.2f} of {hit['n']:<5}" if hit["n"] else f"{'-':<13}")
    return (f"{name:<11}{counts['turns']:>6.1f}{counts['leaning']:>9.0%}{counts['lost']:>6.0%}"
            f"{counts['never_asked']:>8.0%}   " + "  ".join(shares))


# ------------------------------------------------------------------------------------------------
# people's turns are likelier to a user that listens than to one trained blind


def turn_labels(record):
    """
    List for each later human turn (its number, whether it leans on the answer before it, whether
    that answer is about a fact that people ask about), from the labels "leans" and "asked".
    """
    return [(number, record["leans"][number], record["asked"][number - 1])
            for number in range(1, len(record["leans"]))]


def listening(records, listener, blind):
    """
    Compare two users' nats per token of human turns, by what the turns lean on.

    listener and blind: per record, per human turn, the nats of its tokens (likelihood.turn_losses).
    Returns rows {"leaning", "asked", "tokens", "listener", "blind", "difference", "low", "high"};
    the difference blind - listener is what listening is worth. None in a row means either.
    """
    rows = []
    for wanted_asked in (None, True, False):
        for wanted_leaning in (None, True, False):
            # per record: nats of the listener, nats of the blind user, tokens
            sums = np.zeros((len(records), 3))
            for i, record in enumerate(records):
                for number, leaning, asked in turn_labels(record):
                    if wanted_leaning in (None, leaning) and wanted_asked in (None, asked):
                        heard, unheard = listener[i][number], blind[i][number]
                        sums[i] += sum(heard), sum(unheard), len(heard)
            if not sums.any():
                continue
            tokens = sums[:, 2].sum()
            difference, low, high = bootstrap(sums[:, 1] - sums[:, 0], sums[:, 2])
            rows.append({"leaning": wanted_leaning, "asked": wanted_asked, "tokens": int(tokens),
                         "listener": sums[:, 0].sum() / tokens, "blind": sums[:, 1].sum() / tokens,
                         "difference": difference, "low": low, "high": high})
    return rows


def row_name(row):
    """Describe which turns a row of `listening` is about."""
    leaning = {None: "all turns", True: "leaning on the answer", False: "others"}[row["leaning"]]
    return leaning + {None: "", True: ", asked facts", False: ", never-asked facts"}[row["asked"]]


def command_did(args):
    """Print and write what the users of some files of dialogues did."""
    counts = {}
    print(f"{'user':<11}{'turns':>6}{'leaning':>9}{'lost':>6}{'reached':>8}   grounded: "
          + ", ".join(LEANS))
    for argument in args.files:
        name, _, path = argument.partition("=")
        counts[name] = behaviour(list(read_records(path)))
        print(behaviour_line(name, counts[name]), flush=True)
    write_json(args.out, counts)
    print("leaning: later turns that depend on the answer; lost: not understood by the teacher; "
          "reached: of the facts\nthat people never ask about; grounded: what a turn leans on was "
          "answered")


def command_expected(args):
    """Print and write what listening is worth: nats per token of a listener and a blind user."""
    records = list(read_jsonl(args.human, require_keys("leans", "asked", also=record_error)))
    listener = turn_losses(*load_checkpoint(args.listener), records)
    blind = turn_losses(*load_checkpoint(args.blind), records, blind=True)
    rows = listening(records, listener, blind)
    write_json(args.out, {"dialogues": len(records), "rows": rows})
    print(f"nats per token of {len(records)} held-out humans' later turns\n{'':<44}"
          f"{'listens':>8}{'blind':>8}  {'what listening is worth':>24}")
    for row in rows:
        print(f"{row_name(row):<44}{row['listener']:>8.3f}{row['blind']:>8.3f}  "
              f"{row['difference']:>+8.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    commands = parser.add_subparsers(dest="command", required=True)
    did = commands.add_parser("did", help="what the users of some dialogues did")
    did.add_argument("files", nargs="+", metavar="NAME=FILE", help="dialogues of one user each")
    expected = commands.add_parser("expected", help="what listening is worth to a trained user")
    expected.add_argument("listener", metavar="DIR", help="checkpoint of a trained user")
    expected.add_argument("--blind", required=True, metavar="DIR", help="one trained with --blind")
    expected.add_argument("--human", required=True,
                          help='held-out dialogues with "leans" and "asked"')
    for command in (did, expected):
        command.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    given = args.files if args.command == "did" else [args.listener, args.blind, args.human]
    require_apart([args.out], given)
    {"did": command_did, "expected": command_expected}[args.command](args)


if __name__ == "__main__":
    run(main)
