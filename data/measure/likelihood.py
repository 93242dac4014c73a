"""
What a trained user expects of people: bits per byte of their turns, and probabilities of leaving.
"""

from itertools import groupby

import numpy as np
import torch

from data.machine import load_checkpoint
from data.measure.intervals import bootstrap
from data.measure.turns import fits_context, human_turns, swap_answers
from model import nll
from platolm import IGNORE, blanked, encode, shift, turns
from train import batches, pad


@torch.no_grad()
def turn_losses(model, tokenizer, records, blind=False, budget=8192):
    """
    The negative log-likelihood of every token that humans write.

    blind: whether the answers before it are blanked; budget: tokens in a batch. Returns, for each
    record, for each of its human turns, the nats of its tokens [[[nats, ...], ...], ...]. The end
    of a turn is its last token; a human who left has one turn more, of nothing but its end.
    """
    samples = []
    for record in records:
        conversation = blanked(turns(record)) if blind else turns(record)
        samples.append(shift(*encode(conversation, tokenizer, "human", record.get("intent", ""))))
    lengths = [len(ids) for ids, _ in samples]
    device = model.embed_tokens.weight.device
    result = [None] * len(samples)
    for batch in batches(lengths, budget, np.random.default_rng(0)):
        ids, targets = pad([samples[i] for i in batch], device)
        # one loss for each target token of the batch, sample after sample
        losses = iter(nll(model, ids, targets).tolist())
        for i in batch:
            result[i] = []
            # a human turn is one unbroken run of target tokens
            for is_turn, run in groupby(samples[i][1], key=lambda target: target != IGNORE):
                if is_turn:
                    result[i].append([next(losses) for _ in run])
    return result


def turn_bits(model, tokenizer, records, blind=False):
    """The negative log-likelihood of each human turn in bits: [[bits, ...], ...], by record."""
    bits = []
    for losses in turn_losses(model, tokenizer, records, blind):
        bits.append([sum(nats) / np.log(2) for nats in losses])
    return bits


def bits_per_byte(model, tokenizer, records, blind=False):
    """
    Bits per byte of what humans say, which compares models with different tokenizers.

    The end of a turn counts as one byte. Returns a dictionary; a mean is {"mean", "low", "high"},
    with its interval over dialogues.
    "bits": the mean over all human turns; "by number": of the first, second, ... turn, up to eight
    (numbers alone); "dialogues" (records, 2): the bits and bytes of each.
    "blanked", "exchanged": the mean of how many bits per byte more the turns after the first cost
    if all answers are blanked, or are another dialogue's; "without intent": the same without the
    record's intent, if any has one.
    "kinds": {kind: {"turns", "bits", "blanked", ...}} of the turns after the first.
    """
    swapped = swap_answers(records)
    true_bits = turn_bits(model, tokenizer, records, blind)
    changed_bits = {"blanked": turn_bits(model, tokenizer, records, True),
                    "exchanged": turn_bits(model, tokenizer, swapped, blind)}
    if any(record.get("intent") for record in records):
        without = [record | {"intent": ""} for record in records]
        changed_bits["without intent"] = turn_bits(model, tokenizer, without, blind)
    # exchanged answers may be longer: a dialogue that no longer fits the context is not compared
    comparable = {change: [True] * len(records) for change in changed_bits}
    context = model.config.context
    comparable["exchanged"] = [fits_context(record, tokenizer, context) for record in swapped]
    rows = human_turns(records)

    def sums(chosen, change=None):
        """Bits and bytes (records, 2) of the chosen turns; with a change, how many bits more."""
        table = np.zeros((len(records), 2))
        for turn in chosen:
            i, number = turn.dialogue, turn.number
            bits = true_bits[i][number]
            if change:
                if not comparable[change][i]:
                    continue
                bits = changed_bits[change][i][number] - bits
            table[i] += bits, len((turn.text or "").encode()) + 1
        return table

    def per_byte(chosen, change=None):
        """The same per byte: {"mean", "low", "high"}."""
        mean, low, high = bootstrap(*sums(chosen, change).T)
        return {"mean": mean, "low": low, "high": high}

    later = [turn for turn in rows if turn.number > 0]
    most_turns = 1 + max(turn.number for turn in rows)
    by_number = []
    for number in range(min(8, most_turns)):
        by_number.append(per_byte([turn for turn in rows if turn.number == number])["mean"])
    result = {"bits": per_byte(rows), "kinds": {}, "dialogues": sums(rows), "by number": by_number}
    for change in changed_bits:
        result[change] = per_byte(later, change)
    for kind in sorted({turn.kind for turn in later}):
        chosen = [turn for turn in later if turn.kind == kind]
        numbers = {"turns": len(chosen), "bits": per_byte(chosen)["mean"]}
        for change in changed_bits:
            numbers[change] = per_byte(chosen, change)
        result["kinds"][kind] = numbers
    return result


def leave_probabilities(model, tokenizer, human_turns, blind=False):
    """
    The probability that a trained user leaves at each human turn (N,), at temperature 1.

    To leave is to say nothing: the probability of the end of the turn as its first token. NaN where
    the dialogue has not begun.
    """
    # a human who left at this turn: its last turn is nothing but an end
    records = []
    for turn in human_turns:
        conversation = turn.before or [{"from": "human", "value": ""}]
        records.append({"conversations": conversation, "end": "left", "intent": turn.intent})
    losses = turn_losses(model, tokenizer, records, blind)
    probabilities = []
    for turn, nats in zip(human_turns, losses):
        probabilities.append(np.exp(-nats[-1][0]) if turn.before else np.nan)
    return np.array(probabilities)


class UserLikelihoods:
    """
    What several trained users expect of the same people, for a card.

    The first user that is measured is the reference: the others' bits per byte are compared with
    its, dialogue by dialogue.
    """

    def __init__(self):
        self.reference_bits = None

    def measure(self, directory, records, human_turns, blind=False):
        """
        Measure the user of a checkpoint directory: (bits_per_byte, leave_probabilities).

        For all users but the first, "more" in bits_per_byte is by how many bits per byte it exceeds
        the first user's: {"mean", "low", "high"}.
        """
        model, tokenizer = load_checkpoint(directory)
        result = bits_per_byte(model, tokenizer, records, blind)
        bits, sizes = result.pop("dialogues").T
        if self.reference_bits is None:
            self.reference_bits = bits
        else:
            mean, low, high = bootstrap(bits - self.reference_bits, sizes)
            result["more"] = {"mean": mean, "low": low, "high": high}
        return result, leave_probabilities(model, tokenizer, human_turns, blind)
