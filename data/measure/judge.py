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

from data.api.budget import Endpoint
from data.api.journal import Journal
from data.api.request_pool import ask_all, journalled_texts
from data.measure import mtbench
from data.program import UserError, Progress, format_dollars
from simulate import client_factory, client_settings


class Case(NamedTuple):
    """One judgment: what it is about, in FastChat's keys; the prompts (name, system, text)."""
    row: dict
    asked: list


class Judge:
    """
    args: those of `evaluate.py judge`; path: the file; stop: an event after which nobody is asked;
    systems {prompt's name: its system message}.

    filed {name: [text, ...]}: what stands in the file of what he said of a prompt; failed {name:
    why}: what could not be asked.
    """

    def __init__(self, path, args, stop, systems):
        self.path, self.args, self.stop = path, args, stop
        self.journal = Journal(f"{path}.journal", {"judge": args.judge_model, "temperature": 0})
        client_for, self.ledger = client_factory(client_settings(args), args.judge, self.journal,
                                                 stop, bool(args.price))
        self.client = client_for(Endpoint(args.judge, args.judge_model, args.price))
        self.filed, self.failed = {}, {}
        for name, texts in mtbench.judged_texts(path, systems):
            self.filed.setdefault(name, texts)

    def texts(self, name):
        """All that he said of a prompt."""
        new = journalled_texts(self.journal, name)
        return [text for text in self.filed.get(name, []) if text not in new] + new

    def lacking(self, prompts, readable):
        """The names of prompts with fewer judgments than wanted, of those that can be read."""
        return [name for name in prompts if name not in self.failed
                and sum(map(readable, self.texts(name))) < self.args.repeats]

    def ask(self, prompts, readable):
        """
        Have him judge the prompts {name: messages} that lack a judgment, as often as is wanted.

        readable(text) tells whether a judgment can be read. Returns how many lacked one.
        """
        args = self.args
        first = self.lacking(prompts, readable)
        for _ in range(args.repeats):
            tasks = {name: partial(self.client.chat, args.judge_model, prompts[name],
                                   args.max_tokens, temperature=0)
                     for name in self.lacking(prompts, readable)}
            told = Progress(self.path.stem, len(tasks), self.ledger, unit="judgments")
            self.failed |= ask_all(self.journal, tasks, args.in_flight, self.stop, told)
        return len(first)

    def spent(self):
        """What it has cost so far, in words; nothing where it was free."""
        return f"; {format_dollars(self.ledger.spent)} spent" if self.ledger.spent else ""

    def row(self, case, read):
        """
        A case and what he said of it, as a row of FastChat's. read(text): the number in it, or
        None; of several the median counts. What failed has the score -1, or the winner "error".
        """
        row = case.row | {"judge": [self.args.judge_model, *(asked[0] for asked in case.asked[:1])],
                          "tstamp": time.time()}
        found = [median(self.texts(mtbench.text_hash(*asked)), read) for asked in case.asked]
        if None in (mark for mark, _ in found) or not found:
            why = [self.failed.get(mtbench.text_hash(*asked)) for asked in case.asked]
            # an answer that was refused has nothing to judge
            row["failure"] = next(filter(None, why), "unparsed" if found else "no answer")
        games = ("g1_", "g2_") if "model_1" in row else ("",)
        for game, asked, (mark, texts) in zip(games, case.asked, found):
            row |= {f"{game}user_prompt": asked[2], f"{game}judgment": texts[0] if texts else ""}
            row |= {f"{game}judgments": texts} if len(texts) > 1 else {}
            row |= {"system_prompt": asked[1]} if asked[1] else {}
        marks = [mark for mark, _ in found] or [None, None]
        if len(games) == 1:
            return row | {"score": -1 if marks[0] is None else marks[0]}
        return row | {"g1_winner": winner(marks[0], (1, 2)), "g2_winner": winner(marks[1], (2, 1))}


def median(texts, read):
    """The median of what can be read in some judgments, or None; and those, the nearest first."""
    marks = [(read(text), text) for text in texts if read(text) is not None]
    if not marks:
        return None, texts[:1]
    middle = float(np.median([mark for mark, _ in marks]))
    return middle, [text for _, text in sorted(marks, key=lambda pair: abs(pair[0] - middle))]


def prompt_messages(asked):
    """A prompt (name, system, text) as messages."""
    system = [{"role": "system", "content": asked[1]}] if asked[1] else []
    return system + [{"role": "user", "content": asked[2]}]


def winner(mark, order):
    """Who won a game, from what the first got; order: whose answer stood first and second."""
    if mark is None:
        return "error"
    return "tie" if mark == 0.5 else f"model_{order[0] if mark > 0.5 else order[1]}"


def require_one_budget(args, places, what):
    """A cap is kept in a journal: a Problem where there would be several."""
    if args.max_dollars is not None and len(places) > 1:
        raise UserError(f"--max-dollars holds for one {what} at a time; there are {len(places)}")


def open_journal(args, stop, home):
    """A journal beside args.out, and client_for(endpoint) for the servers that are asked."""
    settings = {name: getattr(args, name, None) for name in ("judge_model", "embed_model", "seed")}
    journal = Journal(f"{args.out}.journal", settings)
    priced = any(getattr(args, name, None) for name in ("price", "user_price", "embed_price"))
    client_for, _ = client_factory(client_settings(args), home, journal, stop, priced)
    return journal, client_for
