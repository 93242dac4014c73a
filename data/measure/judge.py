"""
A judge behind an address: it is asked, and its texts become rows of judgments.

A judge's texts are in model_judgment/JUDGE_KIND.jsonl, or in the journal beside it, and no prompt
with a text there is sent again. A request that failed has no text: the next start sends it.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from data.api.budget import Endpoint
from data.api.journal import Journal
from data.api.request_pool import ask_all, journalled_texts
from data.measure.mtbench import judged_texts, text_hash
from data.program import Progress, UserError, format_dollars
from simulate import client_factory


class Case(NamedTuple):
    """
    One judgment: what it is about, in FastChat's keys, and its FilledPrompts: one, two for a pair,
    none if an answer was refused.
    """
    row: dict
    prompts: list


@dataclass(frozen=True)
class JudgeSettings:
    """
    How a judge is asked.

    repeats: judgments of each prompt, whose median counts; max_tokens: of one judgment; in_flight:
    requests at a time.
    """
    endpoint: Endpoint
    repeats: int = 1
    max_tokens: int = 2048
    in_flight: int = 16


class Judge:
    """
    A judge and all it has said so far.

    path: its file of judgments; settings: JudgeSettings; clients: ClientSettings; stop: an event
    after which nothing is sent; systems: {prompt's name: its system message}. Prompts go by their
    key, mtbench.text_hash(*FilledPrompt): on_file {key: [text, ...]} is what the file has of the
    judge's texts, failures {key: reason} what could not be asked.
    """

    def __init__(self, path, settings, clients, stop, systems):
        self.path = path
        self.settings = settings
        self.stop = stop
        endpoint = settings.endpoint
        self.journal = Journal(f"{path}.journal", {"judge": endpoint.model, "temperature": 0})
        client_for, self.ledger = client_factory(clients, endpoint.url, self.journal, stop,
                                                 bool(endpoint.price))
        self.client = client_for(endpoint)
        self.on_file = {}
        self.failures = {}
        for key, texts in judged_texts(path, systems):
            self.on_file.setdefault(key, texts)

    def texts(self, key):
        """All that the judge has said about a prompt, the texts on file first."""
        journalled = journalled_texts(self.journal, key)
        old = [text for text in self.on_file.get(key, []) if text not in journalled]
        return old + journalled

    def incomplete(self, keys, parse):
        """The keys of prompts that need another judgment, for which no request has failed."""
        missing = []
        for key in keys:
            values = [parse(text) for text in self.texts(key)]
            readable = len(values) - values.count(None)
            if key not in self.failures and readable < self.settings.repeats:
                missing.append(key)
        return missing

    def ask(self, requests, parse):
        """
        Ask for the judgments that are missing.

        requests {key: messages}; parse(text): the number in a judgment, or None if it cannot be
        read, and does not count. Returns how many prompts had too few judgments before.
        """
        settings = self.settings
        before = len(self.incomplete(requests, parse))
        for _ in range(settings.repeats):
            tasks = {}
            for key in self.incomplete(requests, parse):
                tasks[key] = partial(self.client.chat, settings.endpoint.model, requests[key],
                                     settings.max_tokens, temperature=0)
            progress = Progress(self.path.stem, len(tasks), self.ledger, unit="judgments")
            self.failures |= ask_all(self.journal, tasks, settings.in_flight, self.stop, progress)
        return before

    def spent(self):
        """The dollars spent so far as "; $1.20 spent"; "" if nothing was."""
        return f"; {format_dollars(self.ledger.spent)} spent" if self.ledger.spent else ""

    def row(self, case, parse):
        """
        Make a row in FastChat's format from a Case and the judge's texts about it.

        parse: as for ask; of several judgments the median counts. A judgment that failed has the
        score -1, or the winner "error", and the reason as its "failure".
        """
        row = dict(case.row)
        row["judge"] = [self.settings.endpoint.model]
        if case.prompts:
            row["judge"].append(case.prompts[0].name)
        row["tstamp"] = time.time()

        values, texts_of, reasons = [], [], []
        for prompt in case.prompts:
            key = text_hash(*prompt)
            value, texts = median_judgment(self.texts(key), parse)
            values.append(value)
            texts_of.append(texts)
            if key in self.failures:
                reasons.append(self.failures[key])
        if not values:
            # an answer that was refused: there is nothing to judge
            row["failure"] = "no answer"
        elif None in values:
            row["failure"] = reasons[0] if reasons else "unparsed"

        in_pairs = "model_1" in row
        games = ("g1_", "g2_") if in_pairs else ("",)
        for game, prompt, texts in zip(games, case.prompts, texts_of):
            row[f"{game}user_prompt"] = prompt.text
            row[f"{game}judgment"] = texts[0] if texts else ""
            if len(texts) > 1:
                row[f"{game}judgments"] = texts
            if prompt.system:
                row["system_prompt"] = prompt.system
        values = values or [None, None]
        if in_pairs:
            row["g1_winner"] = winner(values[0], "model_1", "model_2")
            row["g2_winner"] = winner(values[1], "model_2", "model_1")
        else:
            row["score"] = -1 if values[0] is None else values[0]
        return row


def median_judgment(texts, parse):
    """
    The median of what parse(text) reads in some judgments, and those judgments, the nearest first.

    Judgments for which parse gives None do not count; without any other: (None, texts[:1]).
    """
    judgments = []
    for text in texts:
        value = parse(text)
        if value is not None:
            judgments.append((value, text))
    if not judgments:
        return None, texts[:1]
    median = float(np.median([value for value, _ in judgments]))
    judgments.sort(key=lambda judgment: abs(judgment[0] - median))
    return median, [text for _, text in judgments]


def prompt_messages(prompt):
    """A FilledPrompt as messages [{"role", "content"}, ...]."""
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return messages


def winner(score, first, second):
    """The winner of a game, "tie" or "error"; score: what the answer that was shown first got."""
    if score is None:
        return "error"
    if score == 0.5:
        return "tie"
    return first if score > 0.5 else second


def require_one_budget(max_dollars, count, unit):
    """A UserError if a cap in dollars would have to hold for `count` > 1 journals, one a `unit`."""
    if max_dollars is not None and count > 1:
        raise UserError(f"--max-dollars holds for one {unit} at a time; there are {count}")


def open_journal(out, names, home, settings, priced, stop):
    """
    Open the journal OUT.journal of a command: (Journal, client_for).

    names: the settings that the journal is tied to; home, settings, priced, stop: as for
    simulate.client_factory, which makes client_for(endpoint).
    """
    journal = Journal(f"{out}.journal", names)
    client_for, _ = client_factory(settings, home, journal, stop, priced)
    return journal, client_for
