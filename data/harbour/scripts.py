"""
Scripted users: the baselines that a trained simulator is compared with.

    self-chat    Baize: a human's first question, then formulaic ones about what the answer named
    role-play    UltraChat: a thing from the list of everything, its relations walked through
    oracle       human phrasings and the full list of facts: what no simulator could know
    follow-up    "could you tell me more about ...?": in any world, about the last answer's longest
                 new word

Each user is a class with `.ask(turns)`, as people are. Not here: the teacher (teacher.py), and
dialogues of the two (talks.py).
"""

import re

from data.harbour.people import question
from data.harbour.teacher import NAME, understand
from data.harbour.world import FACTS, THINGS, about
from platolm import to_messages

# the formal phrasing of a question, {x} being its thing; bench.py asks in it as well
FORMAL = {
    "goods": "could you tell me what the {x} sells?", "keeper": "please state who runs the {x}.",
    "street": "on which street is the {x} located?", "opens": "at what time does the {x} open?",
    "shop": "in which shop can i buy {x}?", "price": "what is the price of {x}?",
    "island": "which island does the {x} go to?", "captain": "who is the captain of the {x}?",
    "leaves": "at what time does the {x} leave?", "fare": "what is the fare of the {x}?",
    "boats": "please name the boats that go to {x}.", "famous": "what is {x} famous for?",
    "work": "what is the job of {x}?", "home": "on which island does {x} live?",
    "pet": "what kind of pet does {x} have?", "pictures": "which pictures did {x} paint?",
    "painter": "who is the painter of {x}?", "shows": "could you tell me what {x} shows?",
    "hangs": "in which shop does {x} hang?", "food": "what food does a {x} eat?",
    "bed": "in which place does a {x} sleep?",
}


def formal(fact):
    """The formal question for a fact."""
    return FORMAL[fact[1]].format(x=fact[0])


class SelfChat:
    """A human's first question, then formal ones about something that the last answer named."""

    def __init__(self, rng, first=""):
        self.rng, self.first, self.length = rng, first, rng.randint(3, 8)

    def ask(self, turns):
        """The first question, then any unasked relation of a thing in the last answer."""
        if not turns:
            return self.first
        if len(turns) >= 2 * self.length:
            return None
        messages = to_messages(turns)
        known = {understand(messages[:i + 1]).fact for i in range(0, len(turns), 2)}
        things = [name for name in NAME.findall(turns[-1]["value"]) if name in THINGS]
        facts = [fact for thing in dict.fromkeys(things) for fact in about(thing)
                 if fact not in known]
        return formal(self.rng.choice(facts)) if facts else None


class RolePlay:
    """A thing is given; its relations are asked for in formal phrasing, then those of the next."""

    def __init__(self, rng):
        self.rng, self.length = rng, rng.randint(3, 8)
        self.facts = []
        for thing in rng.sample(THINGS, 4):
            self.facts += rng.sample(about(thing), len(about(thing)))

    def ask(self, turns):
        """The next relation on the list; what was answered does not matter."""
        n = len(turns) // 2
        return formal(self.facts[n]) if n < min(self.length, len(self.facts)) else None


class Oracle(RolePlay):
    """Any facts at all, each asked for as people would."""

    def __init__(self, rng):
        super().__init__(rng)
        self.facts = rng.sample(list(FACTS), self.length)

    def ask(self, turns):
        """The next fact in a human phrasing."""
        n = len(turns) // 2
        return question(self.rng, self.facts[n]) if n < self.length else None


class FollowUp:
    """A greeting, then more about the longest word of the last answer that was not asked about."""

    def __init__(self, rng):
        self.length = rng.randint(2, 6)

    def ask(self, turns):
        """The next question; None when as many were asked as was planned, or nothing is new."""
        if not turns:
            return "hello, could you help me?"
        asked = " ".join(turn["value"].lower() for turn in turns if turn["from"] == "human")
        new = [word for word in re.findall(r"[^\W\d_]+", turns[-1]["value"])
               if word.lower() not in asked]
        if len(turns) >= 2 * self.length or not new:
            return None
        return f"could you tell me more about {max(new, key=len)}?"


SCRIPTS = {"follow-up": FollowUp, "self-chat": SelfChat, "role-play": RolePlay, "oracle": Oracle}
