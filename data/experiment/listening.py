"""
What users did in their dialogues: kinds of turn, and whether what they leaned on was there.

A doubt ("venn? really?") and a pick ("the second one") lean on the last answer, a question about
a new name on some answer before. Whether a turn leans so is read off its words alone; whether it is
grounded, off the answers. Who does not listen leans as often, and on nothing; and is more surprised
by what people say. Not here: what can be asked of any user and any dialogues (evaluate.py card).

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
from data.measure.intervals import bootstrap
from data.measure.likelihood import turn_losses
from data.program import require_keys, read_jsonl, run, write_json
from data.machine import load_checkpoint
from platolm import to_messages, record_error, read_records

ECHO = re.compile(r"\b(really|sure|certain)\b")
NTH = re.compile(rf"\b({'|'.join(PICK)}|last)\b")


def doubt(h, earlier):
    """Is the doubted word in the last answer; could the suggested one stand there? Or None."""
    words = h.names[-1:] or re.findall(r"\d+", h.text)[-1:]
    if not re.search(DOUBT, h.bare) or not words:
        return None
    if ECHO.search(h.bare):
        return bool(re.search(rf"\b{words[0]}\b", h.last.lower()))
    return any(fits(words[0], fact) for fact, _ in claims(h.last))


def pick(h, earlier):
    """Does the last answer hold a list that is long enough? Or None."""
    nth = NTH.search(clause(h.bare))
    if not nth or h.names or "first question" in h.bare or "ask first" in h.bare:
        return None
    return len(listed(h.last)) > (1 if nth[1] == "last" else PICK.index(nth[1]))


def name(h, earlier):
    """Is the thing that no human turn named before in one of the answers? Or None."""
    new = [word for word in h.names if word in THINGS and word not in earlier]
    if not new or len(new) < len(h.names) or re.search(DOUBT, h.bare):
        return None
    return any(new[0] in NAME.findall(text.lower()) for role, text in h.before
               if role == "assistant")


LEANS = {"doubts": doubt, "picks": pick, "new names": name}


def turns_of(record):
    """Of each later human turn: what was heard, and the names in the human turns before it."""
    messages = to_messages(record["conversations"])
    for i in range(2, len(messages), 2):
        earlier = {word for message in messages[:i:2] for word in hear(
            (("user", message["content"]),)).names}
        yield hear(as_talk(messages[:i + 1])), earlier


def behaviour(records):
    """What the users of some dialogues did, as {"turns", "kinds", "leaning", "grounded", ...}."""
    kinds, later, facts, found = Counter(), Counter(), set(), {word: [] for word in LEANS}
    for record in records:
        messages = to_messages(record["conversations"])
        meanings = [understand(messages[:i + 1]) for i in range(0, len(messages), 2)]
        kinds.update(meaning.kind for meaning in meanings)
        later.update(meaning.kind for meaning in meanings[1:])
        facts.update(meaning.fact for meaning in meanings if meaning.kind in FACTUAL)
        for heard, earlier in turns_of(record):
            for word, leans in LEANS.items():
                found[word] += [grounded for grounded in [leans(heard, earlier)]
                                if grounded is not None]
    turns = sum(kinds.values())
    return {"dialogues": len(records), "turns": turns / len(records),
            "kinds": {kind: n / turns for kind, n in kinds.most_common()},
            "leaning": sum(later[kind] for kind in LEANING) / max(1, sum(later.values())),
            "lost": kinds["none"] / turns,
            "never_asked": len(facts & set(NEVER_ASKED)) / len(NEVER_ASKED),
            "ends": dict(Counter(record.get("end") for record in records)),
            "grounded": {word: {"share": sum(hits) / len(hits) if hits else None, "n": len(hits)}
                         for word, hits in found.items()}}


def row(name, found):
    """One user as a line of text."""
    shares = [f"{hit['share']:.2f} of {hit['n']:<5}" if hit["n"] else f"{'-':<13}"
              for hit in found["grounded"].values()]
    return (f"{name:<11}{found['turns']:>6.1f}{found['leaning']:>9.0%}{found['lost']:>6.0%}"
            f"{found['never_asked']:>8.0%}   " + "  ".join(shares))


# ------------------------------------------------------------------------------------------------
# what people say surprises a listener less than a user trained blind


def heard(record):
    """
    What each later human turn follows on: [(turn, leans on the answer?, answer on an asked fact?)].

    A record tells for each human turn whether it "leans" so, and is about something "asked".
    """
    return [(t, record["leans"][t], record["asked"][t - 1]) for t in range(1, len(record["leans"]))]


def listening(records, listener, deaf):
    """
    Nats per token of human turns, for a listener and for a user trained blind, by what the turns
    follow on; the difference blind - listener, with its interval, is what listening is worth.
    """
    rows = []
    for about in (None, True, False):
        for leans in (None, True, False):
            sums = np.zeros((len(records), 3))
            for i, record in enumerate(records):
                for t, leaning, asked in heard(record):
                    if leans in (None, leaning) and about in (None, asked):
                        sums[i] += sum(listener[i][t]), sum(deaf[i][t]), len(listener[i][t])
            if not sums.any():
                continue
            worth, low, high = bootstrap(sums[:, 1] - sums[:, 0], sums[:, 2])
            rows.append({"leaning": leans, "asked": about, "tokens": int(sums[:, 2].sum()),
                         "listener": sums[:, 0].sum() / sums[:, 2].sum(),
                         "blind": sums[:, 1].sum() / sums[:, 2].sum(),
                         "difference": worth, "low": low, "high": high})
    return rows


def told(row):
    """What the turns of a row have in common, in words."""
    which = {None: "all turns", True: "leaning on the answer", False: "others"}[row["leaning"]]
    return which + {None: "", True: ", asked facts", False: ", never-asked facts"}[row["asked"]]


def command_did(args):
    found = {}
    print(f"{'user':<11}{'turns':>6}{'leaning':>9}{'lost':>6}{'reached':>8}   grounded: "
          + ", ".join(LEANS))
    for word in args.files:
        name, _, path = word.partition("=")
        found[name] = behaviour(list(read_records(path)))
        print(row(name, found[name]), flush=True)
    write_json(args.out, found)
    print("leaning: later turns that depend on the answer; lost: not understood by the teacher; "
          "reached: of the facts\nthat people never ask about; grounded: what a turn leans on was "
          "answered")


def command_expected(args):
    records = list(read_jsonl(args.human, require_keys("leans", "asked", also=record_error)))
    losses = []
    for directory, blind in ((args.listener, False), (args.blind, True)):
        losses.append(turn_losses(*load_checkpoint(directory), records, blind))
    rows = listening(records, *losses)
    write_json(args.out, {"dialogues": len(records), "rows": rows})
    print(f"nats per token of {len(records)} held-out humans' later turns\n{'':<44}"
          f"{'listens':>8}{'blind':>8}  {'what listening is worth':>24}")
    for found in rows:
        print(f"{told(found):<44}{found['listener']:>8.3f}{found['blind']:>8.3f}  "
              f"{found['difference']:>+8.3f} [{found['low']:+.3f}, {found['high']:+.3f}]")


def main():
    """Compare the users of some files of dialogues, or two trained users."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("did", help="what the users of some dialogues did")
    one.add_argument("files", nargs="+", metavar="NAME=FILE", help="dialogues of one user each")
    two = commands.add_parser("expected", help="what listening is worth to a trained user")
    two.add_argument("listener", metavar="DIR", help="checkpoint of a trained user")
    two.add_argument("--blind", required=True, metavar="DIR", help="one trained with --blind")
    two.add_argument("--human", required=True, help='held-out dialogues with "leans" and "asked"')
    for command in (one, two):
        command.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    {"did": command_did, "expected": command_expected}[args.command](args)


if __name__ == "__main__":
    run(main)
