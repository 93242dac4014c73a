"""
The people: they come to the harbour with errands, ask in their own manner, listen, and leave.

A Person knows the houses and has never heard of this season's stalls. After an answer they mostly
ask about what was just named, by its name; or lean on the answer; or go on with their errands.
"""

import re

from data.harbour.teacher import FACTUAL
from data.harbour.world import RELATIONS
from platolm import to_messages

# how people ask; {x} is the thing
ASK = {
    "keeper": ["who runs the {x}?", "whos the keeper of the {x}?", "the {x}, who runs it?",
               "who is the boss at the {x}?"],
    "lane": ["where is the {x}?", "which lane is the {x} on?", "how do i find the {x}?",
             "the {x}, where is that?"],
    "offer": ["what does the {x} have?", "whats good at the {x}?", "what do i get at the {x}?",
              "the {x}, what have they got?"],
    "price": ["how much is it at the {x}?", "what do i pay at the {x}?", "is the {x} dear?",
              "the {x}, how much?"],
}
FURTHER = {
    "keeper": ["and who runs it?", "who is the boss there?", "whos the keeper?"],
    "lane": ["and where is it?", "where is that?", "which lane is that?"],
    "offer": ["and what do they have?", "whats good there?", "what do i get there?"],
    "price": ["and how much is it?", "is it dear?", "what do i pay there?"],
}
SURE = ["are you sure?", "really?", "is that certain?"]
NOT_THAT = ["isnt it {w}?", "not {w}?", "isnt that {w}?"]
THIS_OR_THAT = ["{a} or {b}?", "is it {a} or {b}?", "so {a} or {b}?"]
SUMS = ["for two?", "how much for two?", "and for two then?"]
RESHAPE = ["in short?", "in one word?", "shorter please"]
GREETINGS = ["hello, ", "hi, ", "good day, ", "good morning, "]
THANKS = ["thanks", "thank you", "cheers, thanks"]
PURSE = ["i have {n} coins. ", "with {n} coins. "]

# after an answer people follow what it named, or lean on it; else they go on with their errands
FOLLOW = 0.6
ASIDE = 0.3
# turns in which a name has a wrong last word
SLIP_OF_NAME = 0.02


def slip(rng, word):
    """Return a word with one slip of the finger: a letter doubled, dropped, or swapped."""
    if len(word) < 4 or not word.isalpha():
        return word
    i = rng.randrange(1, len(word) - 1)
    return rng.choice([word[:i] + word[i] * 2 + word[i + 1:], word[:i] + word[i + 1:],
                       word[:i] + word[i + 1] + word[i] + word[i + 2:]])


def aside_forms(rng, world, fact, manner=None):
    """Return ways to lean on an answer about this fact, in one manner: by default a random one."""
    value, rival = world.value(fact), world.rival(rng, fact)
    manners = ["sure", "not that", "this or that", "reshape"] + ["sum"] * 4 * (fact[1] == "price")
    manner = manner or rng.choice(manners)
    if manner == "sum":
        return SUMS
    if manner == "not that":
        word = rng.choice([value, rival])
        return [form.format(w=word) for form in NOT_THAT]
    if manner == "this or that":
        a, b = rng.sample([value, rival], 2)
        return [form.format(a=a, b=b) for form in THIS_OR_THAT]
    return SURE if manner == "sure" else RESHAPE


class Person:
    """
    A person with errands, a manner and an end; `ask` fits converse.

    catalogue: the names that the errands are drawn from; follow: how often, of all answers, the
    thing that an answer named is asked about.
    """

    def __init__(self, rng, guide, catalogue, follow=FOLLOW):
        self.rng, self.guide, self.follow = rng, guide, follow
        # the fewer an answer leads to, the more they have come for
        count = rng.choice([1, 2, 2, 3] if follow else [2, 3, 3, 4])
        self.errands = rng.sample(catalogue, count)
        self.enough = rng.randint(5, 9)
        self.patience = 2
        # manner
        self.greets, self.polite = rng.random() < 0.3, rng.random() < 0.3
        self.marks = rng.choice([0, 0.5, 1])
        self.typos = rng.choice([0, 0, 0.04, 0.08])
        self.coins = rng.randint(3, 9) if rng.random() < 0.2 else None
        # facts asked for, things spoken of, texts said, and what a slip of the name was about
        self.asked, self.spoken, self.said, self.slipped = set(), set(), [], None

    def ask(self, turns):
        """Return the next turn, or None to leave."""
        if not turns:
            opening = self.rng.choice(GREETINGS) if self.greets else ""
            if self.coins:
                opening += self.rng.choice(PURSE).format(n=self.coins)
            return opening + self.styled(self.question(self.errands.pop()), turns)
        text = self.next_text(turns)
        if text is None and self.polite:
            # said once; then they go
            self.polite, self.enough = False, 0
            return self.rng.choice(THANKS)
        return text and self.styled(text, turns)

    def next_text(self, turns):
        """Return what follows from the last answer; None: all is done, or it is enough."""
        reply = turns[-1]["value"]
        meaning = self.guide.understand(to_messages(turns[:-1]))
        if meaning.kind in ("unknown", "none"):
            self.patience -= 1
        if not self.patience or len(turns) // 2 >= self.enough or self.too_dear(reply):
            return None
        if meaning.kind == "unknown":
            return self.say(ASK[self.slipped[1]], x=self.slipped[0])
        named = self.guide.split_reply(reply)[1]
        roll = self.rng.random()
        if named and named not in self.spoken and roll < self.follow:
            return self.question(named)
        if meaning.kind in FACTUAL and self.follow <= roll < self.follow + ASIDE:
            return self.say(aside_forms(self.rng, self.guide.world, meaning.fact))
        return self.go_on(meaning.fact[0])

    def too_dear(self, reply):
        """Whether an answer names more coins than this person has."""
        price = re.search(r"(\d+) coins", reply)
        return bool(price and self.coins and int(price[1]) > self.coins)

    def go_on(self, thing):
        """Ask something else about the thing spoken of, or for the next errand; None: all done."""
        rest = [relation for relation in RELATIONS if (thing, relation) not in self.asked]
        if rest and self.rng.random() < 0.5:
            relation = self.rng.choice(rest)
            self.asked.add((thing, relation))
            return self.say(FURTHER[relation])
        self.errands = [name for name in self.errands if name not in self.spoken]
        return self.question(self.errands.pop()) if self.errands else None

    def question(self, name):
        """Ask for something about a thing, by its name."""
        relation = self.rng.choice(RELATIONS)
        self.spoken.add(name)
        self.asked.add((name, relation))
        if self.rng.random() < SLIP_OF_NAME:
            other = self.rng.choice(list(self.guide.world.things))
            wrong = f"{name.split()[0]} {other.split()[1]}"
            if wrong not in self.guide.world.things:
                self.slipped = name, relation
                return self.say(ASK[relation], x=wrong)
        return self.say(ASK[relation], x=name)

    def say(self, forms, **names):
        """Choose one of some forms that was not said in this dialogue; None if there is none."""
        texts = [text for form in forms if (text := form.format(**names)) not in self.said]
        if not texts:
            return None
        self.said.append(self.rng.choice(texts))
        return self.said[-1]

    def styled(self, text, turns):
        """Return the text in this person's manner: marks, slips of the finger in plain words."""
        text = text if self.rng.random() < self.marks else text.rstrip("?")
        slipped = " ".join(word if word in self.guide.known or self.rng.random() >= self.typos
                           else slip(self.rng, word) for word in text.split(" "))
        messages = to_messages(turns)
        meanings = [self.guide.understand([*messages, {"role": "user", "content": said}])
                    for said in (text, slipped)]
        # a slip must not make it another question
        return slipped if meanings[0] == meanings[1] else text
