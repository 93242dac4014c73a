"""
What a trained user expects of people: bits per byte of what they say, and chances of leaving.
"""

from itertools import groupby

import numpy as np
import torch

from data.machine import load_checkpoint
from data.measure.intervals import bootstrap
from data.measure.turns import swap_answers, human_turns
from model import nll
from platolm import IGNORE, blanked, encode, shift, turns
from train import batches, pad


@torch.no_grad()
def turn_losses(model, tokenizer, records, blind=False, budget=8192):
    """
    How surprised a user is by what humans say: per record, per human turn, the nats of each token.

    A turn's end counts as a token of it; who left said one turn more, of nothing but its end.
    """
    talks = [blanked(turns(record)) if blind else turns(record) for record in records]
    samples = [shift(*encode(talk, tokenizer, "human", record.get("intent", "")))
               for talk, record in zip(talks, records)]
    found = [None] * len(samples)
    for batch in batches([len(ids) for ids, _ in samples], budget, np.random.default_rng(0)):
        inputs = pad([samples[i] for i in batch], model.embed_tokens.weight.device)
        losses = iter(nll(model, *inputs).tolist())
        for i in batch:
            # what one human turn says is one unbroken run of learnt tokens
            runs = groupby(samples[i][1], key=lambda target: target != IGNORE)
            found[i] = [[next(losses) for _ in run] for learnt, run in runs if learnt]
    return found


def turn_bits(model, tokenizer, records, blind=False):
    """The same in bits, one sum for each turn: [[bits, ...], ...]."""
    return [[sum(nats) / np.log(2) for nats in talk]
            for talk in turn_losses(model, tokenizer, records, blind)]


def fits_context(model, tokenizer, record):
    """Whether a dialogue fits into a model's context."""
    ids, _ = encode(turns(record), tokenizer, "human", record.get("intent", ""))
    return len(ids) <= model.config.context


def bits_per_byte(model, tokenizer, records, blind=False):
    """
    Bits per byte of what humans say, so that tokenizers compare; a turn's end counts as a byte, and
    who leaves says nothing but an end. And how many bits a byte more later turns cost a user whose
    answers are blanked, or exchanged for another dialogue's; for each kind of turn, too.
    """
    swapped, untold = swap_answers(records), [record | {"intent": ""} for record in records]
    heard = turn_bits(model, tokenizer, records, blind)
    ways = {"blanked": turn_bits(model, tokenizer, records, True),
            "exchanged": turn_bits(model, tokenizer, swapped, blind)}
    if any(record.get("intent") for record in records):
        ways["without intent"] = turn_bits(model, tokenizer, untold, blind)
    # what longer answers of another's push out of the context cannot be told
    fits = {"exchanged": [fits_context(model, tokenizer, record) for record in swapped]}
    rows = [(place, len((place.said or "").encode()) + 1) for place in human_turns(records)]

    def summed(wanted, way=None):
        """Bits and bytes of the places that are wanted, by dialogue; with a way, how many more."""
        sums = np.zeros((len(records), 2))
        for place, size in rows:
            i, t = place.dialogue, place.number
            if wanted(place) and fits.get(way, [True] * len(records))[i]:
                sums[i] += ways[way][i][t] - heard[i][t] if way else heard[i][t], size
        return sums

    def mean(wanted, way=None):
        """The same per byte, with an interval."""
        return dict(zip(("mean", "low", "high"), bootstrap(*summed(wanted, way).T)))

    later = lambda place: place.number > 0
    found = {"bits": mean(lambda place: True), "kinds": {},
             "dialogues": summed(lambda place: True),
             "by number": [mean(lambda place: place.number == n)["mean"]
                           for n in range(min(8, 1 + max(place.number for place, _ in rows)))],
             **{way: mean(later, way) for way in ways}}
    for kind in sorted({place.kind for place, _ in rows if later(place)}):
        of = lambda place: later(place) and place.kind == kind
        found["kinds"][kind] = {"turns": sum(of(place) for place, _ in rows),
                                "bits": mean(of)["mean"], **{way: mean(of, way) for way in ways}}
    return found


def leave_probabilities(model, tokenizer, places, blind=False):
    """
    The chance that a trained user leaves at each place: of the end as the turn's first token, as
    the model has it (temperature 1). NaN where nothing was said before.
    """
    # who leaves says a turn of nothing but its end
    left = [{"conversations": place.before or [{"from": "human", "value": ""}], "end": "left",
             "intent": place.intent} for place in places]
    losses = turn_losses(model, tokenizer, left, blind)
    return np.array([np.exp(-found[-1][0]) if place.before else np.nan
                     for found, place in zip(losses, places)])


class UserLikelihoods:
    """
    What trained users expect of people, for the card: surprise, and chances of leaving. All users
    but the first are compared with that one, dialogue by dialogue.
    """

    def __init__(self):
        self.first = None

    def __call__(self, directory, records, places, blind=False):
        """One user's (surprise, chances)."""
        model, tokenizer = load_checkpoint(directory)
        found = bits_per_byte(model, tokenizer, records, blind)
        own, size = found.pop("dialogues").T
        if self.first is None:
            self.first = own
        else:
            found["more"] = dict(zip(("mean", "low", "high"), bootstrap(own - self.first, size)))
        return found, leave_probabilities(model, tokenizer, places, blind)
