"""
Users that are rules, to compare a trained simulator with. Each has `.ask(turns)`, as people have.

    self-chat      a person's first question, then formal ones about what the answers name
    role-play      things of a given list; what there is to ask of each, in formal phrasing
    replay         the questions of an old dialogue, whatever is answered
    replay-open    the same, without those about stalls that are closed
    heard-replay   the same, but a question about what the old answer had just named is put about
                   what today's answer names, and a value that is leant on is today's
    follow-up      more about the last answer's longest new word: for any world
"""

import re

from data.harbour.world import RELATIONS
from platolm import to_messages

# the script's phrasing, always the same; {x} is the thing
FORMAL = {
    "keeper": "please tell me the name of who runs the {x}.",
    "lane": "please tell me on which lane one finds the {x}.",
    "offer": "please tell me what one could have at the {x}.",
    "price": "please tell me how much one should pay at the {x}.",
}


def formal(fact):
    """Return the script's question for a fact."""
    return FORMAL[fact[1]].format(x=fact[0])


class SelfChat:
    """A first question, then formal ones about something that the last answer named."""

    def __init__(self, rng, guide, first):
        self.rng, self.guide, self.first = rng, guide, first
        self.length = rng.randint(4, 8)

    def ask(self, turns):
        """Return the first question, then one for an unknown fact of a thing in the last answer."""
        if not turns:
            return self.first
        if len(turns) // 2 >= self.length:
            return None
        known = {self.guide.understand(to_messages(turns[:i])).fact
                 for i in range(1, len(turns), 2)}
        names = self.guide.name.findall(turns[-1]["value"])
        facts = [(name, relation) for name in names if name in self.guide.world.things
                 for relation in RELATIONS if (name, relation) not in known]
        return formal(self.rng.choice(facts)) if facts else None


class RolePlay:
    """Things of the whole list are given; what there is to know of each is asked for."""

    def __init__(self, rng, guide):
        self.length = rng.randint(4, 8)
        self.facts = []
        for name in rng.sample(list(guide.world.things), 4):
            self.facts += [(name, relation) for relation in rng.sample(RELATIONS, 4)]

    def ask(self, turns):
        """Return the next question; what was answered does not matter."""
        number = len(turns) // 2
        return formal(self.facts[number]) if number < self.length else None


class Replay:
    """
    The human turns of an old dialogue again. A record has for each of them the fact it was about.

    only_open: leave out what was about a thing that there is no more.
    """

    def __init__(self, record, guide, only_open=False):
        texts = [turn["value"] for turn in record["conversations"][::2]]
        self.texts = [text for text, about in zip(texts, record["about"])
                      if not only_open or about.split("/")[0] in guide.world.things]

    def ask(self, turns):
        """Return the next old text; None after the last."""
        number = len(turns) // 2
        return self.texts[number] if number < len(self.texts) else None


class HeardReplay:
    """The human turns of an old dialogue, put about what today's answers name and say."""

    def __init__(self, record, guide):
        self.record, self.guide = record, guide
        # the next old turn; {name in the old dialogue: name today, or None}
        self.number, self.today = 0, {}

    def ask(self, turns):
        """Return the next old turn, translated; those that cannot be are left out."""
        texts = [turn["value"] for turn in self.record["conversations"]]
        while 2 * self.number < len(texts):
            text = texts[2 * self.number]
            old_answer = texts[2 * self.number - 1] if self.number else ""
            old_thing, _, relation = self.record["about"][self.number].partition("/")
            self.number += 1
            reply = turns[-1]["value"] if turns else ""
            text = self.translate(text, old_answer, reply, old_thing, relation)
            if text and all(text != turn["value"] for turn in turns):
                return text
        return None

    def translate(self, text, old_answer, reply, old_thing, relation):
        """Put an old turn about today's things and values; None if that cannot be."""
        guide = self.guide
        old_near = guide.split_reply(old_answer)[1]
        names = guide.name.findall(text)
        if old_near in names:
            self.today[old_near] = guide.split_reply(reply)[1]
        thing = names[-1] if names else old_thing
        thing = self.today.get(thing, thing)
        if thing not in guide.world.things:
            return None
        if names:
            return text.replace(names[-1], thing)
        # a value that is leant on: the old answer's becomes today's
        old_values = guide.value.findall(guide.name.sub("", guide.split_reply(old_answer)[0]))
        if old_values:
            value = guide.world.value((thing, relation))
            text = re.sub(rf"\b{old_values[-1]}\b", value, text)
        return text


class FollowUp:
    """A greeting, then more about the longest word of the last answer that was not asked about."""

    def __init__(self, rng):
        self.length = rng.randint(2, 6)

    def ask(self, turns):
        """Return the next question; None when as many were asked as planned, or nothing is new."""
        if not turns:
            return "hello, could you help me?"
        asked = " ".join(turn["value"].lower() for turn in turns if turn["from"] == "human")
        new = [word for word in re.findall(r"[^\W\d_]+", turns[-1]["value"])
               if word.lower() not in asked]
        if len(turns) >= 2 * self.length or not new:
            return None
        return f"could you tell me more about {max(new, key=len)}?"


# what `simulate.py --user script:NAME` knows; the others need a world or logs (talks.py)
SCRIPTS = {"follow-up": FollowUp}
