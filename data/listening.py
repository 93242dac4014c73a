"""
What users did in their dialogues: kinds of turn, and whether what they leaned on was there.

A doubt ("venn? really?") and a pick ("the second one") lean on the last answer, a question about
a new name on some answer before. Whether a turn leans so is read off its words alone; whether it is
grounded, off the answers. Who does not listen leans as often, and on nothing. Not here: how
surprised a model is by what people say (evaluate.py listen).

    python -m data.listening NAME=FILE ... --out behaviour.json
"""

import argparse
import re
from collections import Counter

from data.teacher import (DOUBT, FACTUAL, LEANING, NAME, PICK, as_talk, claims, clause, fits, hear,
                          listed, understand)
from data.world import NEVER_ASKED, THINGS
from platolm import read, run, to_messages, write_json

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


def main():
    """Compare the users of some files of dialogues."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("files", nargs="+", metavar="NAME=FILE", help="dialogues of one user each")
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args()
    found = {}
    print(f"{'user':<11}{'turns':>6}{'leaning':>9}{'lost':>6}{'reached':>8}   grounded: "
          + ", ".join(LEANS))
    for word in args.files:
        name, _, path = word.partition("=")
        found[name] = behaviour(list(read(path)))
        print(row(name, found[name]), flush=True)
    write_json(args.out, found)
    print("leaning: later turns that depend on the answer; lost: not understood by the teacher; "
          "reached: of the facts\nthat people never ask about; grounded: what a turn leans on was "
          "answered")


if __name__ == "__main__":
    run(main)
