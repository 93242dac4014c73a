"""
A judge behind an address, who is asked for nothing twice.

What he said stands in model_judgment/JUDGE_KIND.jsonl, or in the journal beside it; who failed has
no judgment, and is asked for again by the next start. Not here: what he is asked and how his words
are read (evaluate.py), the layout of the files (mtbench.py), the client (simulate.py).
"""

import time
from functools import partial
from typing import NamedTuple

import numpy as np

from data import mtbench
from data.errands import errands, kept
from data.journal import Journal
from simulate import Progress, in_dollars, reaching


class Case(NamedTuple):
    """One judgment: what it is about, in FastChat's keys; the prompts (name, system, text)."""
    row: dict
    asked: list


class Judge:
    """
    args: those of `evaluate.py judge`; path: the file; stop: an event after which nobody is asked.

    texts {name: [text, ...]}: what he said of a prompt; failed {name: why}.
    """

    def __init__(self, path, args, stop):
        self.path, self.args, self.stop = path, args, stop
        self.journal = Journal(f"{path}.journal", {"judge": args.judge_model, "temperature": 0})
        reach, self.ledger = reaching(args, args.judge, self.journal, stop)
        self.client = reach(args.judge, args.judge_model, args.price)
        self.texts, self.failed = {}, {}

    def know(self, names):
        """Find what was said already."""
        self.texts = {name: kept(self.journal, name) for name in names}
        for name, text in mtbench.judged(self.path):
            if self.texts.get(name) == []:
                self.texts[name] = [text]

    def lacking(self, readable):
        """The names of prompts with fewer judgments than wanted, of those that can be read."""
        return [name for name, texts in self.texts.items() if name not in self.failed
                and sum(map(readable, texts)) < self.args.repeats]

    def ask(self, prompts, readable):
        """
        Have him judge the prompts {name: messages} that lack a judgment, as often as is wanted.

        readable(text) tells whether a judgment can be read. Returns how many were asked.
        """
        args = self.args
        self.know(prompts)
        first = self.lacking(readable)
        for _ in range(args.repeats):
            tasks = {name: partial(self.client.chat, args.judge_model, prompts[name],
                                   args.max_tokens, temperature=0)
                     for name in self.lacking(readable)}
            told = Progress(self.path.stem, len(tasks), self.ledger, "judgments")
            self.failed |= errands(self.journal, tasks, args.in_flight, self.stop, told)
            for name in tasks:
                self.texts[name] = kept(self.journal, name)
        return len(first)

    def spent(self):
        """What it has cost so far, in words; nothing where it was free."""
        return f"; {in_dollars(self.ledger.spent)} spent" if self.ledger.spent else ""


def name_of(asked):
    """What a prompt is called in the journal; the same words are judged once."""
    return mtbench.name_of(asked[0], asked[2])


def messages_of(asked):
    """A prompt as messages."""
    system = [{"role": "system", "content": asked[1]}] if asked[1] else []
    return system + [{"role": "user", "content": asked[2]}]


def judgment(case, judge, texts, failed, read):
    """
    A case and what the judge said of it, as a row of FastChat's. texts {name: [text, ...]}: of
    several the median counts; failed {name: why}; read(text): the number in it, or None. What
    failed has the score -1, or the winner "error".
    """
    names = [name_of(asked) for asked in case.asked]
    marks = [[mark for mark in map(read, texts.get(name, ())) if mark is not None]
             for name in names]
    said = [texts[name][0] if texts.get(name) else "" for name in names]
    marks = [float(np.median(found)) if found else None for found in marks]
    row = case.row | {"judge": [judge, case.asked[0][0]], "tstamp": time.time()}
    if None in marks:
        row["failure"] = next((failed[name] for name in names if name in failed), "unparsed")
    if len(names) == 1:
        return row | {"user_prompt": case.asked[0][2], "judgment": said[0],
                      "score": -1 if marks[0] is None else marks[0]}
    for game, (mark, order) in enumerate(zip(marks, ((1, 2), (2, 1)))):
        row |= {f"g{game + 1}_winner": winner(mark, order), f"g{game + 1}_judgment": said[game],
                f"g{game + 1}_user_prompt": case.asked[game][2]}
    return row


def winner(mark, order):
    """Who won a game, from what the first got; order: whose answer stood first and second."""
    if mark is None:
        return "error"
    return "tie" if mark == 0.5 else f"model_{order[0] if mark > 0.5 else order[1]}"


def outside(args, stop, home):
    """A journal beside args.out, and reach(url, model, price) for whoever is asked from there."""
    settings = {name: getattr(args, name, None) for name in ("judge_model", "embed_model", "seed")}
    journal = Journal(f"{args.out}.journal", settings)
    return journal, reaching(args, home, journal, stop)[0]
