"""
A judge behind an address: it is asked, and its texts become rows of judgments.

A judge's texts are in model_judgment/JUDGE_KIND.jsonl, or in the journal beside it, and no prompt
with a text there is sent again. A request that failed has no text: the next start sends it.

`rating` and `verdict` read what a judge means; with fastchat=True by FastChat's rules.
"""

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from data.api.budget import Endpoint
from data.api.journal import Journal
from data.api.protocol import without_reasoning
from data.api.request_pool import ask_all, journalled_texts
from data.api.session import check_server
from data.measure.mtbench import judged_texts, text_hash
from data.program import Progress, UserError
from simulate import client_factory


# ------------------------------------------------------------------------------------------------
# what a judgment says

# a mark is [[...]]; one that follows a name, as in x[[3]], is an index
MARK = re.compile(r"(?<![A-Za-z0-9_)\]])\[\[([^\[\]]*)\]\]")
SINGLE_BRACKETS = re.compile(r"(?<![A-Za-z0-9_)\]\[])\[([^\[\]]*)\]")
# a number between words: "8", "Rating: 8", "8/10", "8 out of 10"
NUMBER = re.compile(r"(?:[a-z ]*[:=]?)\s*(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*10)?[a-z .]*", re.I)
# a rating without brackets: "Rating: 8", "8/10"
PHRASE = re.compile(r"(?:rating|score|mark|grade)\W{0,5}(?:is|of)?\W{0,5}(\d+(?:\.\d+)?)"
                    r"(?![\d.]*\s*(?:to|-|–)\s*\d)"
                    r"|(\d+(?:\.\d+)?)\s*(?:/|out of)\s*10\b", re.I)


def rating(judgment, fastchat=False):
    """
    Read a rating from 1 to 10 from a judge's text; None if there is none.

    Of several marks like [[7]], [[ 7.5/10 ]] or [[Rating: 7]] the last valid one counts, outside
    reasoning; without any, "Rating: 7" and "7/10" do, and without these [7]. FastChat's rule is the
    first [[7]], or else the first [7].
    """
    if fastchat:
        found = (re.search(r"\[\[(\d+\.?\d*)\]\]", judgment)
                 or re.search(r"\[(\d+\.?\d*)\]", judgment))
        numbers = [found[1]] if found else []
        return last_rating(numbers)
    text, _ = without_reasoning(judgment)
    marks = last_rating(numbers_in(MARK.findall(text)))
    phrases = last_rating([one or other for one, other in PHRASE.findall(text)])
    brackets = last_rating(numbers_in(SINGLE_BRACKETS.findall(text)))
    return next((value for value in (marks, phrases, brackets) if value is not None), None)


def numbers_in(texts):
    """List the numbers in those texts of marks that hold one."""
    matches = [NUMBER.fullmatch(text.strip()) for text in texts]
    return [match[1] for match in matches if match]


def last_rating(numbers):
    """Return the last of some numbers (texts) that is from 1 to 10, or None."""
    valid = [float(number) for number in numbers if 1 <= float(number) <= 10]
    return valid[-1] if valid else None


def verdict(judgment, fastchat=False):
    """
    Read from a judge's text what answer A gets: 1 for [[A]], 0 for [[B]], 0.5 for [[C]], a tie.

    None if there is no such mark. Of several the last counts, outside reasoning; small letters and
    words beside the letter are allowed. By FastChat's rule [[A]] goes before [[B]], and [[B]]
    before [[C]], wherever they stand.
    """
    scores = {"A": 1.0, "B": 0.0, "C": 0.5}
    if fastchat:
        marks = [mark for mark in scores if f"[[{mark}]]" in judgment]
        return scores[marks[0]] if marks else None
    text, _ = without_reasoning(judgment)
    letters = [letter for letter in map(letter_in, MARK.findall(text)) if letter]
    return scores[letters[-1]] if letters else None


def letter_in(mark):
    """Return the one letter A, B or C that the text of a mark names, or None."""
    mark = mark.replace("_", " ")
    # "a" may be an article: capitals go first
    for letters in (re.findall(r"\b[ABC]\b", mark), re.findall(r"\b[abc]\b", mark)):
        if len(set(letters)) == 1:
            return letters[0].upper()
    return "C" if re.search(r"\btie\b", mark, re.I) else None


# ------------------------------------------------------------------------------------------------
# asking


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
    requests at a time; temperature: None for the judge's own; again: whether a judgment that cannot
    be read is asked for again; fastchat: whether marks are read by FastChat's rules.
    """
    endpoint: Endpoint
    repeats: int = 1
    max_tokens: int = 2048
    in_flight: int = 16
    temperature: float | None = 0
    again: bool = False
    fastchat: bool = False


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
        self.journal = Journal(f"{path}.journal", {"judge": endpoint.model,
                                                   "temperature": settings.temperature})
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
            judgments = len(values)
            if self.settings.again:
                judgments -= values.count(None)
            if key not in self.failures and judgments < self.settings.repeats:
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
        if before:
            check_server(self.client, "judge")
        for _ in range(settings.repeats):
            tasks = {}
            for key in self.incomplete(requests, parse):
                tasks[key] = partial(self.client.chat, settings.endpoint.model, requests[key],
                                     settings.max_tokens, temperature=settings.temperature)
            progress = Progress(self.path.stem, len(tasks), self.ledger, unit="judgments")
            self.failures |= ask_all(self.journal, tasks, settings.in_flight, self.stop, progress)
        return before

    def rows(self, cases, parse):
        """Make the rows of all Cases but those that a run that has stopped did not come to."""
        known = []
        for case in cases:
            keys = [text_hash(*prompt) for prompt in case.prompts]
            if all(key in self.failures or self.texts(key) for key in keys):
                known.append(self.row(case, parse))
        return known

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
