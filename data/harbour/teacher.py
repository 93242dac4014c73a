"""
The teacher, standing in for ChatGPT: a guide who answers about the harbour from the messages alone.

`understand` says what the last user message means; `answer` is the guide's reply, `truths` are all
replies that are right. In most answers the guide names something near, and tells nothing else of
it. What it names is drawn from a hash of the messages: nobody can guess it from the question, and
yet the same messages get the same answer.

    python -m data.harbour.teacher [--seed 0] -- COMMAND ... URL ...     run COMMAND against it
"""

import argparse
import hashlib
import re
import sys
from functools import lru_cache
from typing import NamedTuple

from data.harbour.world import TRADES, World
from data.program import run


class Meaning(NamedTuple):
    """What a user message means."""
    kind: str                # one of KINDS
    fact: tuple = None       # the (thing, relation) at stake; of other kinds the last spoken of
    detail: object = None    # an unknown name; a doubted value; how many are to be paid for


# a question that names its thing, another about the same thing, asides that lean on the last answer
FACTUAL = ("question", "further", "short")
ASIDES = ("doubt", "choice", "sum", "reshape")
KINDS = (*FACTUAL, *ASIDES, "unknown", "hello", "thanks", "none")

SAY = {"keeper": "{value} runs the {thing}.", "lane": "the {thing} is on {value}.",
       "offer": "the {thing} {verb} {value}.", "price": "you pay {value} coins at the {thing}."}
NEARBY = ("the {name} is near.", "close by is the {name}.")
# in nine answers of ten something near is named
NAMES_NEAR = 0.9
HELLO = "hello! what would you like to know?"
WELCOME = "you are welcome."
LOST = "sorry, i did not get that."

# what asks for a relation
CUES = {"price": r"\b(much|price|costs?|pay|coins?|dear|charge)\b",
        "lane": r"\b(where|lanes?|street|address|located|find|way)\b",
        "keeper": r"\b(who|whos|runs?|owner|keepers?|boss|name)\b",
        "offer": r"\b(what|whats|sells?|serves?|mends?|offers?)\b"}
DOUBT = r"\b(sure|certain|really|isnt|not)\b"
SHORT = r"\b(short|shorter|brief|briefly|one word)\b"
AMOUNT = r"\b(?:for|times|makes) (two|three|2|3)\b"
COUNT = {"two": 2, "three": 3, "2": 2, "3": 3}
# ordinary words that a slip of the finger should be mended to, beside those above
PLAIN = """hello hi hey good morning day please thanks thank you cheers and the at in is it of on or
    do does to with i me my tell like would could over there one then again ok about here them
    they this that be can number of all so got get have know looking come came want""".split()


def join_messages(messages):
    """
    OpenAI messages as a hashable tuple that ends with the user's, without system messages: the last
    99 of them, since a guide does not look back any further.
    """
    talk = [(m["role"], m["content"]) for m in messages if m["role"] in ("user", "assistant")]
    while talk and talk[-1][0] != "user":
        talk.pop()
    return tuple(talk[-99:]) or (("user", ""),)


def draw(*what):
    """A number from 0 to 1 that looks random and is the same for the same texts, everywhere."""
    digest = hashlib.sha256("\n".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2 ** 48


# ------------------------------------------------------------------------------------------------
# reading: slips of the finger, names, values


def words_of(patterns):
    """Every word in some regular expressions."""
    return {word for pattern in patterns
            for word in re.findall(r"[a-z]{2,}", pattern.replace(r"\b", " "))}


VOCABULARY = words_of([*CUES.values(), DOUBT, SHORT, AMOUNT, *SAY.values(), *NEARBY, *PLAIN,
                       *TRADES.values()])


@lru_cache(8192)
def mend(word, names):
    """The one known word that a slip of the finger may have meant, or the word as it is."""
    if len(word) < 4 or word in VOCABULARY or word in names:
        return word
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    near = {a + b[1:] for a, b in cuts if b}
    near |= {a + c + b for a, b in cuts for c in letters}
    near |= {a + c + b[1:] for a, b in cuts if b for c in letters}
    near |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    known = near & VOCABULARY
    return known.pop() if len(known) == 1 else word


class Guide:
    """The guide to one world."""

    def __init__(self, world):
        self.world = world
        first, last = zip(*[name.split() for name in world.things])
        self.name = re.compile(rf"\b((?:{'|'.join(sorted(set(first)))}) "
                               rf"(?:{'|'.join(sorted(set(last)))}))\b")
        # (prices are read as any number is)
        values = {value for pool in (*world.offers.values(), *world.pools.values())
                  for value in pool if not value.isdigit()}
        longest_first = "|".join(sorted(values, key=lambda value: (-len(value), value)))
        self.value = re.compile(rf"\b({longest_first}|\d+)\b")
        self.known = frozenset(word for text in (*first, *last, *values) for word in text.split())
        self.understood = {}

    def clean(self, text):
        """Lower case, no apostrophes, slips of the finger mended, single spaces."""
        text = re.sub(r"['’]", "", text.lower())
        text = re.sub(r"[a-z]+", lambda match: mend(match.group(), self.known), text)
        return " ".join(text.split())

    def understand(self, messages):
        """Return the Meaning of the last user message."""
        return self.read(join_messages(messages))

    def read(self, talk):
        """Return the Meaning of the last message of a talk, a tuple of (role, text)."""
        if talk not in self.understood:
            self.understood[talk] = self._read(talk)
        return self.understood[talk]

    def topic(self, talk):
        """Return the fact that was spoken of before the last message, or None."""
        return self.read(talk[:-2]).fact if len(talk) > 2 else None

    def _read(self, talk):
        text, topic = self.clean(talk[-1][1]), self.topic(talk)
        # what is asked stands last: "i have 5 coins. is the proud otter dear?"
        text = re.split(r"[.!] ", text)[-1]
        names = self.name.findall(text)
        bare = self.name.sub("", text)
        if names and names[-1] not in self.world.things:
            return Meaning("unknown", topic, names[-1])
        if not names and topic:
            aside = self._aside(bare, topic, talk)
            if aside:
                return aside
        thing = names[-1] if names else topic and topic[0]
        relation = asked_relation(bare)
        if thing and (names or relation):
            kind = "short" if re.search(SHORT, bare) else "question" if names else "further"
            return Meaning(kind, (thing, relation or "offer"))
        if re.search(r"\b(thanks|thank|cheers)\b", bare):
            return Meaning("thanks", topic)
        if re.search(r"\b(hello|hi|hey|day|morning)\b", bare):
            return Meaning("hello", topic)
        return Meaning("none", topic)

    def _aside(self, bare, topic, talk):
        """Read a turn that leans on the last answer; None if it is none."""
        values = self.value.findall(bare)
        if " or " in f" {bare} " and len(values) > 1:
            return Meaning("choice", topic)
        amount = re.search(AMOUNT, bare)
        if amount:
            return Meaning("sum", topic, COUNT[amount[1]])
        if re.search(DOUBT, bare):
            return Meaning("doubt", topic, values[-1] if values else None)
        if re.search(SHORT, bare) and not asked_relation(re.sub(SHORT, "", bare)):
            return Meaning("reshape", topic)
        return None

    # -- replying ---------------------------------------------------------------------------

    def statement(self, fact):
        """Return a fact as the guide's sentence."""
        thing, relation = fact
        verb = TRADES[self.world.things[thing].trade]
        return SAY[relation].format(thing=thing, verb=verb, value=self.world.value(fact))

    def truths(self, messages):
        """
        Return every right reply to the last user message, the guide's own form first.

        What is near may be named after each of them: `split_reply` takes it off.
        """
        return self._truths(join_messages(messages))

    def _truths(self, talk):
        meaning = self.read(talk)
        fact, detail = meaning.fact, meaning.detail
        if meaning.kind == "unknown":
            return [f"i know no {detail}."]
        if meaning.kind == "sum":
            price = coins_named(talk)
            # the working shows the price beside its multiple
            number = "two" if detail == 2 else "three"
            return ["i named no price." if price is None else
                    f"{number} times {price} makes {detail * price} coins."]
        if meaning.kind in FACTUAL + ASIDES:
            value = self.world.value(fact)
            shown = f"{value} coins" if fact[1] == "price" else value
            if meaning.kind == "doubt":
                return [f"yes, {shown}." if detail is None else f"it is {shown}."]
            if meaning.kind in ("choice", "short", "reshape"):
                return [f"{shown}.", self.statement(fact)]
            return [self.statement(fact), f"{shown}."]
        return [{"hello": HELLO, "thanks": WELCOME}.get(meaning.kind, LOST)]

    def near(self, talk):
        """Return what the guide names as near after this talk, or None."""
        meaning = self.read(talk)
        if meaning.kind not in ("question", "further") or draw("near?", *talk) > NAMES_NEAR:
            return None
        said = " ".join(text for _, text in talk).lower()
        new = [name for name in self.world.near[meaning.fact[0]] if name not in said]
        return new[int(draw("which?", *talk) * len(new))] if new else None

    def answer(self, messages):
        """Return the guide's reply: a pure function of the messages."""
        talk = join_messages(messages)
        reply = self._truths(talk)[0]
        name = self.near(talk)
        if name:
            reply += " " + NEARBY[int(draw("how?", *talk) * len(NEARBY))].format(name=name)
        return reply

    def split_reply(self, reply):
        """Split a reply: (its text without what is said to be near, the name of that or None)."""
        reply = " ".join(reply.lower().split())
        for form in NEARBY:
            ending = re.escape(form).replace(r"\{name\}", self.name.pattern)
            match = re.fullmatch(r"(.*?) ?" + ending, reply)
            if match:
                return match[1], match[2]
        return reply, None

    def is_right(self, messages, reply):
        """Whether a reply is right, whatever it says of what is near."""
        return self.split_reply(reply)[0] in self.truths(messages)


def asked_relation(bare):
    """Return the relation that the words of a message ask for, or None."""
    return next((name for name, pattern in CUES.items() if re.search(pattern, bare)), None)


def coins_named(talk):
    """Return the coins that the last answer names, or None."""
    match = re.search(r"(\d+) coins", talk[-2][1]) if len(talk) > 1 else None
    return int(match[1]) if match else None


def serve(name, make_reply, **defaults):
    """
    Serve make_reply(**numbers) to the command after --; the numbers are flags, with these defaults.
    """
    from data.api.server import run_with
    parser = argparse.ArgumentParser(add_help=False)
    for flag, default in defaults.items():
        parser.add_argument("--" + flag.replace("_", "-"), type=type(default), default=default)
    words = sys.argv[1:]
    border = words.index("--") if "--" in words else len(words)
    numbers, rest = parser.parse_known_args(words[:border])
    reply = make_reply(**vars(numbers))
    raise SystemExit(run_with(reply, name=name, argv=rest + words[border:]))


def make_answer(seed, growth):
    """Return the `answer` of the guide to today's world."""
    return Guide(World(seed, growth=growth)).answer


def main():
    serve("teacher", make_answer, seed=0, growth=1.0)


if __name__ == "__main__":
    run(main)
