"""
The people: they come to the harbour with goals, ask in their own manner, and leave.

Here: how people phrase things, and the Person who turns the last answer into the next turn. What
a turn means is read by the teacher's own parser. Not here: the answers (teacher.py), and dialogues
of the two (talks.py).
"""

import re

from data.harbour.teacher import FACTUAL, NAME, claims, grounded, listed, understand
from data.harbour.world import DAY, FACTS, KIND, THINGS, about
from platolm import to_messages

# ---------------------------------------------------------------------------------------------
# phrasings; {x} is the thing

ASK = {
    "goods": ["what does the {x} sell?", "whats in stock at the {x}?", "goods at the {x}?"],
    "keeper": ["who runs the {x}?", "whos the owner of the {x}?", "who keeps the {x}?"],
    "street": ["what street is the {x} on?", "where is the {x}?", "the {x}, which street?"],
    "opens": ["when does the {x} open?", "opening time of the {x}?", "the {x} opens when?"],
    "shop": ["who sells {x}?", "where do i get {x}?", "which shop has {x}?", "where to buy {x}?"],
    "price": ["how much are {x}?", "price of {x}?", "what do {x} cost?"],
    "island": ["where does the {x} go?", "which island does the {x} go to?", "the {x} goes where?"],
    "captain": ["who sails the {x}?", "captain of the {x}?", "whos the skipper of the {x}?"],
    "leaves": ["when does the {x} leave?", "the {x} leaves when?", "what time does the {x} leave?"],
    "fare": ["whats the fare on the {x}?", "how much is a seat on the {x}?", "{x} ticket price?"],
    "boats": ["which boats go to {x}?", "how do i get to {x}?", "boats to {x}?"],
    "famous": ["what is {x} known for?", "whats special about {x}?", "{x} is famous for what?"],
    "work": ["who is {x}?", "what work does {x} do?", "whats the job of {x}?"],
    "home": ["where does {x} live?", "home of {x}?", "what island does {x} live on?"],
    "pet": ["what pet does {x} have?", "does {x} have a pet?", "which animal has {x} got?"],
    "pictures": ["what did {x} paint?", "which pictures did {x} paint?", "pictures by {x}?"],
    "painter": ["who painted {x}?", "whos the painter of {x}?", "{x} is by who?"],
    "shows": ["what does {x} show?", "what do i see on {x}?", "{x} shows what?"],
    "hangs": ["where does {x} hang?", "where is {x} hanging?", "{x} hangs where?"],
    "food": ["what does a {x} eat?", "what do i feed a {x}?", "food for a {x}?"],
    "bed": ["where does a {x} sleep?", "bed for a {x}?", "a {x} sleeps where?"],
}
MORE = {
    "goods": ["what does it sell?", "any goods?"], "keeper": ["who runs it?", "and the owner?"],
    "street": ["on what street?", "and the street?"], "opens": ["when does it open?", "open when?"],
    "shop": ["who sells them?", "which shop?"], "price": ["how much?", "and the price?"],
    "island": ["what island?", "where does it go?"], "captain": ["who sails it?", "the captain?"],
    "leaves": ["when does it leave?", "and it leaves when?"],
    "fare": ["and the fare?", "how much is a seat?"],
    "boats": ["which boats go there?", "how do i get there?"],
    "famous": ["known for what?", "anything special?"], "work": ["and the job?", "what work?"],
    "home": ["where does {he} live?", "and home?"], "pet": ["any pet?", "and the pet?"],
    "pictures": ["what did {he} paint?", "pictures?"], "painter": ["who painted it?", "painter?"],
    "shows": ["what does it show?", "and it shows what?"], "hangs": ["where does it hang?"],
    "food": ["what does it eat?", "and food?"], "bed": ["where does it sleep?", "and the bed?"],
}
# which of two: whether one name is the same as another is more than so small a model can tell
CHOICE = {
    "keeper": "is the {x} run by {y} or {z}?", "street": "is the {x} on {y} or {z}?",
    "island": "does the {x} go to {y} or {z}?", "captain": "is the {x} sailed by {y} or {z}?",
    "home": "does {x} live on {y} or {z}?", "pet": "is the pet of {x} a {y} or a {z}?",
    "painter": "is {x} by {y} or {z}?", "shows": "does {x} show a {y} or a {z}?",
    "hangs": "does {x} hang in the {y} or the {z}?", "food": "does a {x} eat {y} or {z}?",
    "bed": "does a {x} sleep in the {y} or the {z}?",
}
SIGN = {
    "goods": ["write a sign for the {x}", "make a poster for the {x}"],
    "famous": ["write a card from {x}", "write me a card about {x}"],
    "shows": ["write a poster for {x}", "make a sign for {x}"],
    "keeper": ["play the keeper of the {x}", "pretend you run the {x}"],
    "captain": ["play the captain of the {x}", "pretend you sail the {x}"],
    "work": ["play {x}", "pretend youre {x}"],
}
BRIEF = ["in one word, {q}", "in short, {q}", "as a note, {q}"]
AS_LIST = ["as a list, {q}"]
AND = ["and {x}?", "what about {x}?"]
PICK = ["the {nth} one?", "{nth} one please", "and the {nth}?"]
PICK_ABOUT = {"price": ["price of the {nth} one?"], "fare": ["fare of the {nth} one?"],
              "leaves": ["when does the {nth} leave?"], "captain": ["who sails the {nth}?"],
              "shows": ["what does the {nth} show?"], "hangs": ["where does the {nth} hang?"]}
TIMES = ["times {n}?", "x {n}", "for {n}?", "i need {n}", "{n} of them?"]
HAVE = ["only got {n}", "i have {n}, enough?", "ive got {n}"]
LATER = ["{n} hours later?", "and {n} hours later?"]
SURE = ["really?", "are you sure?", "you sure?"]
ECHO = ["{w}? really?", "really {w}?", "{w}, are you sure?"]
COUNTER = ["wasnt it {w}?", "isnt it {w}?", "not {w}?", "i thought it was {w}"]
RESHAPED = {
    "short": ["in short?", "in one word?", "shorter please"],
    "note": ["as a note", "make it a note"],
    "full": ["in a full sentence", "a whole sentence please"],
    "list": ["as a list", "make it a numbered list"],
}
META = ["say that again", "again please?", "what did i ask first?"]
CHAT = ["how are you?", "who are you?", "ok", "cool, thanks", "nice"]
WANT = {
    "shop": ["the {x}", "a look at the {x}"], "good": ["{x}", "some {x}"],
    "boat": ["the {x}", "a trip on the {x}"], "island": ["a trip to {x}", "a boat to {x}"],
    "person": ["news of {x}", "{x}"], "picture": ["{x}", "a look at {x}"],
    "animal": ["a {x}", "help with a {x}"],
}
OPENINGS = ["i want {wants}, {q}", "need {wants}, {q}", "today {wants}, {q}", "{wants}. {q}"]
WITH_COINS = ["i have {n} coins and want {wants}, {q}", "{n} coins for {wants}, {q}"]
PRONOUNS = {False: ["he", "she"], True: ["you"]}
LISTS = ("boats", "goods", "pictures")
FAILED = re.compile(r"sorry|sold out|short\.|did not say")


def definite(thing):
    """A thing with the article it takes: the comet, a goat, plums."""
    article = {"shop": "the ", "boat": "the ", "animal": "a "}.get(KIND[thing], "")
    return article + thing


def question(rng, fact):
    """A human question for a fact that names its thing."""
    return rng.choice(ASK[fact[1]]).format(x=fact[0])


def rival(rng, fact, value):
    """Another word of the kind that answers this fact: what it could have been instead."""
    if value.isdigit():
        return str(max(1, int(value) + rng.choice([-2, -1, 1, 2])))
    kind = "shop" if value == "painter" else KIND[value]
    return rng.choice([name for name in KIND if KIND[name] == kind and name != value])


def choice(rng, fact):
    """Is it this or that: one is right."""
    value = FACTS[fact][0]
    y, z = rng.sample([value, rival(rng, fact, value)], 2)
    return CHOICE[fact[1]].format(x=fact[0], y=y, z=z)


def special(rng, fact):
    """A rarer way to ask for a fact: as a sign or in a role; this or that; in short."""
    thing, relation = fact
    roll = rng.random()
    if roll < 0.4 and relation in SIGN and FACTS[fact] != ("painter",):
        return [rng.choice(SIGN[relation]).format(x=thing)]
    if roll < 0.7 and relation in CHOICE:
        return [choice(rng, fact)]
    way = rng.choice(AS_LIST if relation in LISTS else BRIEF)
    return [way.format(q=question(rng, fact))]


def nth(member, members):
    """What people call a member of a list: the first, the last; those between get no name."""
    return {members[-1]: "last", members[0]: "first"}.get(member)


def picks(rng, member, members, relation):
    """Ways to ask for this member of a list."""
    name = nth(member, members)
    return [rng.choice(PICK + PICK_ABOUT.get(relation, [])).format(nth=name)] if name else []


def slip(rng, word):
    """A word with one slip of the finger: a letter doubled, dropped, or swapped with the next."""
    if len(word) < 5 or not word.isalpha():
        return word
    i = rng.randrange(1, len(word) - 1)
    return rng.choice([word[:i] + word[i:i + 1] * 2 + word[i + 1:], word[:i] + word[i + 1:],
                       word[:i] + word[i + 1] + word[i] + word[i + 2:]])


# ---------------------------------------------------------------------------------------------
# asides: turns that lean on the last answer


def doubts(rng, reply):
    """Doubt something that the answer states."""
    stated = claims(reply)
    if not stated:
        return [rng.choice(SURE)] if rng.random() < 0.4 else []
    fact, values = rng.choice(stated[:2])
    word = rng.choice(values)
    other = rival(rng, fact, word) if word in KIND or word.isdigit() else None
    return [rng.choice(SURE)] * (rng.random() < 0.3) + [
        rng.choice(ECHO).format(w=word),
        rng.choice(COUNTER).format(w=other) if other and rng.random() < 0.8 else rng.choice(SURE)]


def sums(rng, reply):
    """Compute with a number of the answer."""
    if re.search(r"costs?|makes", reply):
        return [rng.choice(TIMES).format(n=rng.randint(2, 3)) if rng.random() < 0.8
                else rng.choice(HAVE).format(n=rng.randint(2, 9))]
    return [rng.choice(LATER).format(n=rng.randint(2, 3))]


def new_names(rng, reply):
    """Ask about something that the answer named."""
    things = [name for name in NAME.findall(reply) if name in THINGS]
    facts = about(rng.choice(things)) if things else []
    if not facts:
        return []
    fact = rng.choice(facts)
    return [rng.choice(MORE[fact[1]]).format(he=rng.choice(PRONOUNS["i am" in reply])),
            rng.choice(AND).format(x=definite(fact[0])), question(rng, fact)]


def reshapings(rng, reply):
    """Ask for the answer in another form."""
    forms = ["list", "list", "short"] if listed(reply) else ["short", "note", "full"]
    return [rng.choice(RESHAPED[rng.choice(forms)])]


def pickings(rng, reply):
    """Pick a member of the answer's list."""
    members = listed(reply)
    if not members:
        return []
    relations = [relation for relation in PICK_ABOUT if (members[0], relation) in FACTS]
    return picks(rng, rng.choice([members[0], members[-1]]), members, rng.choice(relations))


def asides(rng, reply):
    """Turns that fit the last answer, in random order: (kind, text)."""
    found = [("doubt", doubts(rng, reply)), ("number", sums(rng, reply)),
             ("name", new_names(rng, reply)), ("reshape", reshapings(rng, reply)),
             ("pick", pickings(rng, reply))]
    rng.shuffle(found)
    # lists and numbers are rare in answers, so they are taken up more often
    found.sort(key=lambda aside: aside[0] not in ("pick", "number") or rng.random() < 0.1)
    if rng.random() < 0.12:
        found.insert(0, rng.choice([("meta", META), ("smalltalk", CHAT)]))
    return [(kind, rng.choice(texts)) for kind, texts in found if texts]


# ---------------------------------------------------------------------------------------------
# a person


class Goal:
    """What a person wants to know about one thing: the facts still to be found out."""

    def __init__(self, rng, thing, allowed):
        self.thing = thing
        facts = [fact for fact in about(thing) if fact in allowed]
        self.steps = rng.sample(facts, min(len(facts), rng.choice([1, 2, 2, 2])))
        # hours and prices are what most people come to ask
        numbers = [fact for fact in facts if fact[1] in DAY and fact not in self.steps]
        self.steps += rng.sample(numbers, 1) if numbers and rng.random() < 0.5 else []
        # lists and places come first: the goal goes on with what they name
        self.steps.sort(key=lambda fact: fact[1] not in LISTS + ("work", "shop", "painter"))
        self.want = rng.choice(WANT[KIND[thing]]).format(x=thing)
        self.deeper = 2

    def met(self, rng, facts, reply, allowed):
        """Tick off what the reply tells; what it names may lead one step deeper."""
        new = [fact for fact in self.steps if fact in facts]
        self.steps = [fact for fact in self.steps if fact not in facts]
        named = [(fact, name) for fact in new for name in NAME.findall(reply)
                 if name in FACTS[fact] and name in THINGS]
        if not self.deeper or not named or len(self.steps) > 1:
            return
        fact, thing = rng.choice(named)
        known = [other for other in about(thing) if other in allowed and other not in facts
                 and (other[1] != "goods" or rng.random() < 0.5)]
        if fact[1] in LISTS or rng.random() < 0.5:
            self.deeper -= 1
            self.steps = rng.sample(known, min(len(known), rng.choice([1, 2]))) + self.steps


def goals(rng, allowed):
    """One to three goals about different kinds of things, on allowed facts only."""
    kinds = rng.sample(["good", "island", "island", "shop", "shop", "shop", "person", "picture",
                        "boat", "animal"], rng.choice([1, 2, 2, 2, 2, 2, 2, 2]))
    chosen = [rng.choice([thing for thing in THINGS if KIND[thing] == kind]) for kind in kinds]
    found = [Goal(rng, thing, allowed) for thing in dict.fromkeys(chosen)]
    return [goal for goal in found if goal.steps] or goals(rng, allowed)


class Person:
    """A person with goals, a manner and patience; `ask` fits converse."""

    def __init__(self, rng, allowed):
        self.rng, self.allowed = rng, allowed
        self.goals = goals(rng, allowed)
        self.patience = rng.choice([1, 2, 2, 3])
        spends = any(KIND[goal.thing] in ("good", "shop", "boat", "island") for goal in self.goals)
        self.coins = rng.randint(3, 9) if spends and rng.random() < 0.2 else None
        # manner: thanks and please, slips of the finger, question marks, curiosity
        self.polite = rng.random() < 0.3
        self.typos = rng.choice([0, 0, 0.05, 0.1])
        self.marks = rng.choice([0, 0.5, 1])
        self.wander = rng.uniform(0.7, 1)
        self.asides = 0
        self.pay = False

    def ask(self, turns):
        """The next turn, or None to leave: goals met, or out of patience."""
        if not turns:
            return self.opening()
        self.listen(turns)
        if self.patience <= 0:
            return None
        if self.goals or self.pay:
            return self.next_turn(turns)
        if self.polite:
            # once, and then they go
            self.polite = False
            return self.rng.choice(["thanks", "thank you", "ok thx"])

    def listen(self, turns):
        """Tick off what has been told, and lose patience over what has failed."""
        meaning, reply = understand(to_messages(turns[:-1])), turns[-1]["value"]
        self.patience -= bool(FAILED.search(reply))
        told = [fact for fact, _ in claims(reply)] + [meaning.fact] * (meaning.kind in FACTUAL)
        if "coins" in reply and meaning.kind in FACTUAL:
            self.pay = self.coins is not None
        if self.goals:
            self.goals[0].met(self.rng, told, reply, self.allowed)
            # what is sold out is not looked into further
            if "sold out" in reply or not self.goals[0].steps:
                self.goals.pop(0)

    def opening(self):
        """The first turn: what this person came for, then the first question."""
        wants = " and ".join(goal.want for goal in self.goals)
        text = self.rng.choice(OPENINGS if self.coins is None else WITH_COINS)
        step = self.goals[0].steps[0]
        q = special(self.rng, step)[0]
        if self.rng.random() < 0.75 or self.meaning(q).fact != step:
            q = question(self.rng, step)
        return self.styled("hello, " * self.polite + text.format(n=self.coins, wants=wants, q=q))

    def next_turn(self, turns):
        """A turn that fits here: an aside on the last answer, or the next step to the goal."""
        messages = to_messages(turns)
        heard = understand(messages[:-1])
        moves = self.paying() if self.pay else []
        if self.asides < 2 and len(turns) < 10 and self.rng.random() < self.wander:
            moves += asides(self.rng, turns[-1]["value"])
        moves += [("step", text) for text in self.ways(heard, turns[-1]["value"])]
        for kind, text in moves:
            said = self.fits(text, messages, kind) and self.styled(text, messages)
            if said and all(said != turn["value"] for turn in turns):
                self.asides = 0 if kind == "step" else self.asides + 1
                return said
        return None

    def paying(self):
        """Ask whether the coins will do: said once, after the price."""
        coins, self.coins, self.pay = self.coins, None, False
        return [("number", text.format(n=coins)) for text in self.rng.sample(HAVE, 2)]

    def ways(self, heard, reply):
        """Texts that may ask for the next step, those that lean on the talk before mostly first."""
        if not self.goals:
            return []
        thing, relation = fact = self.goals[0].steps[0]
        rng, ways = self.rng, []
        if thing in listed(reply):
            ways += picks(rng, thing, listed(reply), relation)
        ways.append(rng.choice(MORE[relation]).format(he=rng.choice(["he", "she"])))
        if heard.fact and heard.fact[1] == relation:
            ways.append(rng.choice(AND).format(x=definite(thing)))
        if rng.random() < 0.35:
            ways = special(rng, fact)
        return ways + [text.format(x=thing) for text in rng.sample(ASK[relation], 2)]

    # -- manner -----------------------------------------------------------------------------

    def styled(self, text, messages=()):
        """The text in this person's manner: marks, courtesy, slips of the finger."""
        rough = text if self.rng.random() < self.marks else text.rstrip("?.")
        if self.polite and self.rng.random() < 0.15 and messages and "please" not in text:
            rough = rough.rstrip("?.") + " please"
        slipped = " ".join(slip(self.rng, word) if self.rng.random() < self.typos else word
                           for word in rough.split(" "))
        if slipped == rough:
            return rough
        # a slip may make a turn unreadable, but not turn it into another question
        meant, read = self.meaning(text, messages), self.meaning(slipped, messages)
        return slipped if read == meant or read.kind == "none" else rough

    def meaning(self, text, messages=()):
        """What a text would mean as the next message."""
        return understand([*messages, {"role": "user", "content": text}])

    def fits(self, text, messages, kind):
        """Whether a text is understood as it is meant, and touches only what people ask."""
        meaning = self.meaning(text, messages)
        if kind == "step":
            return meaning.kind in FACTUAL and meaning.fact == self.goals[0].steps[0]
        before = understand(messages)
        new = (meaning.fact, meaning.form) != (before.fact, before.form)
        allowed = meaning.fact is None or meaning.fact in self.allowed
        spoken = [*messages, {"role": "user", "content": text}]
        return meaning.kind == kind and new and allowed and grounded(spoken)
