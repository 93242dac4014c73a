"""
The teacher: answers about the harbour from the messages alone, standing in for ChatGPT.

`understand` says what the last user message means; everything else follows from it: `answer` is
one reply, `truths` are all admissible ones, `key` is what a right one must contain. Lists change
their order, second facts are volunteered and numbers are "of the day", all by a hash of the
messages: nobody can guess an answer from the question, and yet it repeats exactly.
Not here: the people who ask (people.py), the grading of others' replies (grader.py).

    python -m data.harbour.teacher -- COMMAND ... URL ...  run COMMAND against the teacher's address
"""

import hashlib
import re
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from data.harbour.world import ANSWERS, ASKED, DAY, FACTS, KIND, RELATIONS, about


class Meaning(NamedTuple):
    """What a user message means: its kind, the fact at stake, and how to put it or what to do."""
    kind: str                # question ellipsis pick name number doubt reshape meta smalltalk none
    fact: tuple = None       # (thing, relation)
    form: str = "say"        # for facts: say check short ... ; else which sum, which social form
    detail: object = None    # a doubted word, an amount


FACTUAL = ("question", "ellipsis", "pick", "name")
# what depends on the last answer
LEANING = ("pick", "number", "doubt", "name", "reshape")


class Heard(NamedTuple):
    """A user message, cleaned, and what it can refer to."""
    text: str                # lower case, typos mended
    names: list              # the names in it
    bare: str                # its text with _ for each name
    last: str                # the answer before it
    before: tuple            # the messages before it


# ---------------------------------------------------------------------------------------------
# sentences: how the teacher puts facts, and how it reads them back

SAY = {
    "goods": "the {thing} sells {value}", "keeper": "{value} runs the {thing}",
    "street": "the {thing} is on {value}", "opens": "the {thing} opens at {value}",
    "shop": "you get {thing} at the {value}", "price": "{thing} cost {value} coins",
    "island": "the {thing} goes to {value}", "captain": "{value} sails the {thing}",
    "leaves": "the {thing} leaves at {value}", "fare": "a seat on the {thing} costs {value} coins",
    "boats": "the {value} go to {thing}", "famous": "{thing} is known for {value}",
    "work": "{thing} is a {value}", "home": "{thing} lives on {value}",
    "pet": "{thing} has a {value}", "pictures": "{thing} painted {value}",
    "painter": "{value} painted {thing}", "shows": "{thing} shows a {value}",
    "hangs": "{thing} hangs in the {value}", "food": "a {thing} eats {value}",
    "bed": "a {thing} sleeps in the {value}",
}
SOLD_OUT = "sorry, {thing} are sold out today"
ADS = {
    "goods": "come to the {thing} for {value}!",
    "famous": "greetings from {thing}, full of {value}!",
    "shows": "see {thing}, it shows a {value}!",
}
PLAY = {"keeper": "ahoy, i am {value} and i run the {thing}!",
        "captain": "ahoy, i am {value} and i sail the {thing}!"}
SOCIAL = {
    "hello": ["hello! what would you like to know?", "hello! how can i help?"],
    "thanks": ["you are welcome!", "my pleasure!"],
    "bye": ["goodbye!", "see you soon!"],
    "how": ["fine, thank you!", "very well, thank you!"],
    "who": ["i am the harbour guide.", "i am your guide to saltmere."],
    "ok": ["good! anything else?", "fine. what else?"],
}
LOST = ["sorry, i did not get that.", "sorry, i do not understand."]

# relations that are one statement read from its other end
TURNED = {"keeper": "work", "captain": "work", "goods": "shop", "shop": "goods",
          "boats": "island", "island": "boats", "painter": "pictures", "pictures": "painter"}

# longest first, so that no name hides inside another; "painter" is an ordinary word
NAMES = sorted((name for name in KIND if name != "painter"), key=lambda name: (-len(name), name))
NAME = re.compile(r"\b(" + "|".join(NAMES) + r")\b")


def join(values, article=""):
    """a, b and c; or with an article each: a and the b."""
    values = [values[0]] + [article + value for value in values[1:]]
    return " and ".join(([", ".join(values[:-1])] if len(values) > 1 else []) + values[-1:])


def statement(fact, values):
    """A fact as the teacher's sentence, without its full stop."""
    thing, relation = fact
    if values == ("sold out",):
        return SOLD_OUT.format(thing=thing)
    if relation == "work" and values != ("painter",):
        relation, thing, values = turned_work(thing, values[0])
    return SAY[relation].format(thing=thing, value=join(values, "the " * (relation == "boats")))


def turned_work(person, place):
    """That a person works at a place, read as the place's keeper or captain."""
    return ("keeper" if KIND[place] == "shop" else "captain"), place, (person,)


def shown(relation, values):
    """The value alone, with its unit: 4 coins; at 9; plums, nuts and beans."""
    unit = {"coins": "{} coins", "hour": "at {}"}.get(ANSWERS[relation], "{}")
    return unit.format(join(values)) if values != ("sold out",) else "sold out"


READ = [(relation, re.compile(pattern.format(thing="(?P<thing>[a-z ]+?)", value="(?P<value>.+)")))
        for relation, pattern in [*SAY.items(), ("price", "(?:sorry, )?{thing} are {value} today")]]


def read_values(text):
    """The numbers or names in a piece of text, in order."""
    return tuple(m.group() for m in re.finditer(r"\d+|sold out|\bpainter\b|" + NAME.pattern, text))


@lru_cache(4096)
def stated(text):
    """The facts that a text states in the teacher's words: [((thing, relation), values)]."""
    found = []
    for sentence in re.split(r"[.!?] *", text.lower()):
        sentence = re.sub(r", so (yes|no)$", "", sentence)
        for relation, pattern in READ:
            match = pattern.fullmatch(sentence)
            fact = match and (match["thing"], relation)
            values = read_values(match["value"]) if match else ()
            if values and (fact in FACTS or relation == "work" and fact[0] in KIND):
                found.append((fact, values))
    return found


@lru_cache(4096)
def claims(text):
    """What a text states, and the same statements read from their other ends."""
    turned = [((value, TURNED[relation]), (thing,))
              for (thing, relation), values in stated(text) for value in values
              if (value, TURNED.get(relation)) in FACTS]
    return stated(text) + turned


@lru_cache(4096)
def listed(text):
    """The goods, boats or pictures that a text lists, in its order; () if it lists none."""
    for sentence in re.split(r"[.!?] *", text.lower()):
        names = NAME.findall(sentence)
        for kind in ("good", "boat", "picture"):
            members = tuple(name for name in names if KIND[name] == kind)
            if len(members) > 1:
                return members
    return ()


# ---------------------------------------------------------------------------------------------
# hearing: typos and names

# what asks for a relation: clear words first, then words that ask several kinds of thing
CUES = [(relation, re.compile(words)) for relation, words in [
    ("home", r"\bliv(e|es|ing)\b|\bhome\b"), ("pet", r"\bpet\b|\banimal\b"),
    ("street", r"\bstreet\b"), ("hangs", r"\b(hang|hangs|hanging)\b"),
    ("bed", r"\b(sleep|sleeps|bed)\b"), ("food", r"\b(eat|eats|feed|food)\b"),
    ("opens", r"\b(open|opens|opening)\b"), ("leaves", r"\b(leave|leaves|leaving|depart|sets)\b"),
    ("fare", r"\b(fare|ticket|seat|cost|costs|price|much)\b"),
    ("price", r"\b(price|cost|costs|much|coins|dear)\b"),
    ("pictures", r"\b(paint|painted|pictures)\b"), ("painter", r"\b(paint|painted|painter|by)\b"),
    ("shows", r"\b(shows?|see|on|subject)\b"), ("famous", r"\b(famous|known|special)\b"),
    ("boats", r"\b(boats?|go|goes|get|ferry|sails?)\b"),
    ("captain", r"\b(captain|sails?|skipper|steers?)\b"),
    ("keeper", r"\b(keeper|runs?|owner|owns?|keeps?|boss)\b"),
    ("goods", r"\b(sells?|goods|stock|buy|wares)\b"),
    ("work", r"\b(work|works|job|runs?|sails?|living)\b"),
    ("shop", r"\b(sells?|shop|buy|has|get|where)\b"),
    ("island", r"\b(goes|island|going|where|to)\b"),
]]
VAGUE = [(relation, re.compile(words)) for relation, words in [
    ("leaves", r"\b(when|time|hour)\b"), ("opens", r"\b(when|time|hour|early)\b"),
    ("street", r"\bwhere\b"), ("hangs", r"\bwhere\b"), ("home", r"\bwhere\b"),
    ("keeper", r"\bwho\b"), ("captain", r"\bwho\b"), ("painter", r"\bwho\b"),
    ("goods", r"\bwhat\b"), ("shows", r"\bwhat\b"),
]]
DOUBT = r"\b(really|sure|certain|wasnt|isnt|arent|thought)\b|^not "
RESHAPE = [
    ("short", r"\b(short|shorter|brief|one word|just the)\b"), ("note", r"\bnote\b"),
    ("list", r"\b(list|numbered)\b"),
    ("full", r"\bsentence\b"),
]
PICK = ["first", "second", "third"]
TALK = [
    ("hello", r"(hi|hello|hey)( there)?"), ("thanks", r"(ok |great |cool )?(thanks|thank you|thx)"),
    ("bye", r"(bye|goodbye)"), ("how", r"how are you( today)?"), ("who", r"(and )?who are you"),
    ("ok", r"(ok|okay|good|great|cool|nice|i see)"),
]
# ordinary words that no typo should be mended into a cue or a name
PLAIN = """about after also anything back both could does down exactly from have hours into like
    long look looking many more need news only other over please repeat said same short tell that
    them then there they thing things this through time today trip want wants what when where
    which whole will with without would write wrong your youre yours times said went boat boats
    pretend play captain greet greetings sign card poster right true name names cheap here lets
    first question asked again kind care"""


def _vocabulary():
    """Every word that the teacher knows."""
    cues = [words.pattern for _, words in CUES + VAGUE] + [words for _, words in RESHAPE + TALK]
    cues = " ".join(cues + PICK + [DOUBT])
    cues = re.sub(r"(\w+)s\?", r"\1s \1", cues.replace(r"\b", " "))
    return set(re.findall(r"[a-z]{2,}", " ".join([PLAIN, cues, *KIND, *SAY.values()])))


VOCABULARY = _vocabulary()
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@lru_cache(4096)
def mend(word):
    """The one known word that a typo may stand for, or the word as it is."""
    if word in VOCABULARY or len(word) < 4 or not word.isalpha():
        return word
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    near = {a + b[1:] for a, b in cuts if b} | {a + c + b for a, b in cuts for c in ALPHABET}
    near |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    near |= {a + c + b[1:] for a, b in cuts if b for c in ALPHABET}
    known = near & VOCABULARY
    return known.pop() if len(known) == 1 else word


@lru_cache(8192)
def clean(text):
    """Lower case, no apostrophes, no typos, single spaces."""
    text = re.sub(r"['’]", "", text.lower())
    return " ".join(re.sub(r"[a-z]+", lambda m: mend(m.group()), text).split())


def hear(talk):
    """The last user message with what it can refer to."""
    text = re.sub(r",? ?\bplease\b", "", clean(talk[-1][1])).strip()
    last = talk[-2][1] if len(talk) > 1 and talk[-2][0] == "assistant" else ""
    return Heard(text, NAME.findall(text), NAME.sub("_", text), last, talk[:-1])


def clause(text):
    """The last clause of a message that has a word in it: what it asks, after what it tells."""
    parts = [part.strip() for part in re.split(r"[,.:;!?]", text) if re.search(r"\w", part)]
    return parts[-1] if parts else text


# ---------------------------------------------------------------------------------------------
# what can be meant, one reader per kind of message; each gives a Meaning or None


def smalltalk(h):
    """Hello, thanks, who are you."""
    words = re.sub(r"[^a-z ]", "", h.text).strip()
    for form, pattern in TALK:
        if re.fullmatch(pattern, words):
            return Meaning("smalltalk", topic(h.before), form)


def meta(h):
    """Talk about the talk: say that again; what did i ask first."""
    if re.search(r"\b(again|repeat)\b", h.bare) and h.last:
        return Meaning("meta", topic(h.before), "again")
    if re.search(r"\b(did i ask|my first question)\b", h.bare) and h.before:
        return Meaning("meta", topic(h.before), "asked")


def doubt(h):
    """Really? wasnt it bram? not 5? The fact is the one stated last that the word fits."""
    if not re.search(DOUBT, h.bare) or not h.last:
        return None
    words = h.names[-1:] or re.findall(r"\d+", h.text)[-1:]
    if words:
        return Meaning("doubt", doubted_fact(words[0], h), "word", words[0])
    said = stated(h.last)
    return Meaning("doubt", said[0][0] if said else topic(h.before), "sure")


def doubted_fact(word, h):
    """The stated fact whose value the word is, or could be instead; else that last spoken of."""
    for fact, values in claims(h.last):
        if word in values:
            return fact
    facts = [fact for fact, _ in stated(h.last)] + [topic(h.before)]
    return next((fact for fact in facts if fact and fits(word, fact)), None)


def fits(word, fact):
    """Whether a word or number is of the kind that answers this fact."""
    if word.isdigit():
        return fact[1] in DAY
    return KIND[word] == ANSWERS[fact[1]] or (fact[1] == "work" and KIND[word] in ("shop", "boat"))


AMOUNTS = [
    ("later", r"\b(\d+) hours?\b"), ("have", r"\b(?:got|have|only|with) (\d+)\b"),
    ("times", r"\b(?:times|x|for|take|by|need) (\d+)\b"), ("times", r"\b(\d+) of (?:them|us)\b"),
]


def number(h):
    """Times 2; only got 5; 3 hours later. The other number is the last one named."""
    if h.names or not h.before:
        return None
    for form, pattern in AMOUNTS:
        match = re.search(pattern, h.bare)
        named = match and last_number(h.before, form)
        if named:
            fact = next((fact for fact, values in claims(h.last) if values == (str(named),)
                         and (ANSWERS[fact[1]] == "hour") == (form == "later")), topic(h.before))
            return Meaning("number", fact, form, (int(match[1]), named))


def last_number(talk, form):
    """The number of coins, or for "later" the hour, in the latest answer that names one."""
    pattern = r"\bat (\d+)" if form == "later" else r"(\d+) coins?"
    for role, text in reversed(talk):
        found = re.findall(pattern, text) if role == "assistant" else []
        if found:
            return int(found[0])
    return None


def reshape(h):
    """In one word; as a list; in a full sentence: the same fact in another form."""
    fact = topic(h.before)
    if h.names or not fact or not h.last or understand_talk(h.before[:-1]).kind == "number":
        return None
    for form, pattern in RESHAPE:
        if re.search(pattern, h.bare):
            return Meaning("reshape", fact, form)


def pick(h):
    """The second one; who sails the first; the other one: a member of the last list."""
    match = re.search(r"\b(first|second|third|last|other)\b", clause(h.bare))
    members = match and not h.names and last_list(h.before)
    if not members:
        return None
    if match[1] == "other":
        spoken = topic(h.before)[0] if topic(h.before) else None
        thing = next((member for member in members if member != spoken), None)
    else:
        place = -1 if match[1] == "last" else PICK.index(match[1])
        thing = members[place] if place < len(members) else None
    if thing:
        usual = {"good": "price", "boat": "leaves", "picture": "shows"}[KIND[thing]]
        return Meaning("pick", (thing, asked_relation(thing, clause(h.bare)) or usual))


def last_list(talk):
    """The members of the last list in an answer."""
    return next((listed(text) for role, text in reversed(talk)
                 if role == "assistant" and listed(text)), ())


def asked_relation(thing, bare):
    """The relation of this thing that the words ask for, or None."""
    for cues in (CUES, VAGUE):
        for relation, pattern in cues:
            if (thing, relation) in FACTS and pattern.search(bare):
                return relation
    return None


def question(h):
    """A question that names its thing, with or without saying what about it."""
    said = clause(h.text)
    things = [name for name in NAME.findall(said) or h.names if KIND[name] in RELATIONS]
    if not things:
        return None
    bare = NAME.sub("_", said)
    form = asked_form(h.text, bare)
    checked = form == "say" and check(things, NAME.findall(said), bare)
    if checked:
        return checked
    asked = [(thing, asked_relation(thing, bare)) for thing in things]
    thing, relation = next((pair for pair in reversed(asked) if pair[1]), asked[-1])
    if form in ("ad", "play"):
        return with_form(thing, form)
    kind = "name" if first_named(thing, h) else "question"
    if relation:
        return Meaning(kind, (thing, relation), form)
    return named_only(thing, bare, kind, h)


def asked_form(text, bare):
    """How the answer is wanted: as a sign, in a role, briefly, or just said."""
    if re.search(r"\b(write|sign|card|poster)\b", bare):
        return "ad"
    if re.search(r"\b(play|pretend|youre)\b", bare):
        return "play"
    return next((form for form, pattern in RESHAPE if re.search(pattern, text)), "say")


def with_form(thing, form):
    """Signs and roles use the one fact that suits the thing."""
    suits = {"ad": {"shop": "goods", "island": "famous", "picture": "shows"},
             "play": {"shop": "keeper", "boat": "captain", "person": "work"}}[form]
    if KIND[thing] in suits and FACTS[thing, suits[KIND[thing]]] != ("painter",):
        return Meaning("question", (thing, suits[KIND[thing]]), form)


def check(things, names, bare):
    """Does bram run the blue anchor: yes or no. Is it run by bram or vera: just the fact."""
    if not re.match(r"(so )?(is|does|do|did|are)\b", bare):
        return None
    this_or_that = " or " in bare
    for thing in things if this_or_that else reversed(things):
        for name in names:
            fitting = [fact for fact in about(thing) if fits(name, fact) and fact[1] != "boats"]
            fact = (thing, asked_relation(thing, bare)) if len(fitting) != 1 else fitting[0]
            if name != thing and fact in fitting:
                return Meaning("question", fact, *(["say"] if this_or_that else ["check", name]))


def named_only(thing, bare, kind, h):
    """And the comet? who is bram? Asks again what was asked before, or for the usual."""
    before = understand_talk(h.before[:-1]) if len(h.before) > 1 else Meaning("none")
    again = re.match(r"and |what about|how about", bare) and before.fact
    if again and before.form in ("ad", "play") and with_form(thing, before.form):
        return with_form(thing, before.form)._replace(kind="ellipsis")
    if again and (thing, before.fact[1]) in FACTS:
        return Meaning("ellipsis" if kind == "question" else kind, (thing, before.fact[1]))
    return Meaning(kind, (thing, RELATIONS[KIND[thing]][0]))


def first_named(thing, h):
    """Whether the last answer is the first message that names this thing."""
    named = re.compile(rf"\b{thing}\b")
    return bool(named.search(h.last)) and not any(named.search(text) for _, text in h.before[:-1])


def ellipsis(h):
    """And the fare? where does she live? What it is about comes from the talk before."""
    bare = clause(h.bare)
    things = spoken_of(h)
    if re.search(r"\b(he|she|you|hes|shes)\b", bare):
        things = [thing for thing in things if KIND[thing] == "person"]
    elif re.search(r"\bit\b", bare):
        things = [thing for thing in things if KIND[thing] != "person"]
    for cues in (CUES, VAGUE):
        for thing in things:
            for relation, pattern in cues:
                if (thing, relation) in FACTS and pattern.search(bare):
                    return Meaning("name" if first_named(thing, h) else "ellipsis",
                                   (thing, relation))


def spoken_of(h):
    """The things that "it" or "she" can be: the topic first, then those the last answer named."""
    fact = topic(h.before)
    things = [fact[0]] if fact else []
    return things + [name for name in NAME.findall(h.last.lower()) if KIND[name] in RELATIONS]


READERS = (smalltalk, meta, doubt, number, pick, reshape, question, ellipsis)


@lru_cache(8192)
def understand_talk(talk):
    """The meaning of the last message of a talk, a tuple of (role, text)."""
    heard = hear(talk)
    for reader in READERS:
        meaning = reader(heard)
        if meaning:
            return meaning
    return Meaning("none", topic(talk[:-1]))


def topic(before):
    """The fact that was spoken of last, before this message."""
    return understand_talk(before[:-1]).fact if len(before) > 1 else None


def as_talk(messages):
    """OpenAI messages as a hashable tuple that ends with the user's, without system messages."""
    talk = [(m["role"], m["content"]) for m in messages if m["role"] in ("user", "assistant")]
    while talk and talk[-1][0] != "user":
        talk.pop()
    return tuple(talk) or (("user", ""),)


def understand(messages):
    """What the last user message means; its `kind` labels the turn, its `fact` what it touches."""
    return understand_talk(as_talk(messages))


# ---------------------------------------------------------------------------------------------
# replying


class Voice(NamedTuple):
    """Who replies: the teacher, who says one thing, or anybody who says what is true."""
    numbers: object          # a fact -> the numbers that may be said for it
    orders: object           # the values of a list -> the orders it may be said in
    extra: object            # the facts that may be added unasked


def draw(*what):
    """A number that looks random and is the same for the same words, everywhere."""
    text = "\n".join(str(part) for part in what)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def named_value(talk, fact):
    """What an earlier answer gave as this day's number, or None."""
    return next((values[0] for role, text in talk if role == "assistant"
                 for claimed, values in claims(text) if claimed == fact and values), None)


def rotations(values):
    """A list begun at each of its members: nobody can know where, but each calls up the next."""
    return [values[i:] + values[:i] for i in range(len(values))]


def teachers(talk):
    """The teacher's voice: the numbers of this conversation, new facts that people ask about."""
    def numbers(fact):
        """The one number of this fact today: as named before, else drawn from the first message."""
        lot = draw(talk[0][1], *fact)
        choice = DAY[fact[1]][lot % len(DAY[fact[1]])]
        sold_out = fact[1] == "price" and lot // 64 % 12 == 0
        return [named_value(talk, fact) or ("sold out" if sold_out else str(choice))]
    known = {fact for _, text in talk for fact, _ in claims(text)}
    return Voice(numbers, rotations, ASKED_SET - known)


def anybodys(talk):
    """The voice of whoever speaks the truth."""
    def numbers(fact):
        """All numbers this fact can have: as named before, else any of the day's range."""
        named = named_value(talk, fact)
        free = [str(n) for n in DAY[fact[1]]] + ["sold out"] * (fact[1] == "price")
        return [named] if named else free
    return Voice(numbers, permutations, FACTS)


def orders(fact, voice):
    """The values of a fact, in every order that this voice may list them in."""
    if fact[1] in DAY:
        return [(number,) for number in voice.numbers(fact)]
    return list(voice.orders(FACTS[fact]))


def others(fact, voice):
    """Facts that can be volunteered after this one: single ones about the same thing."""
    return [other for other in about(fact[0]) if other != fact and other in voice.extra
            and other[1] not in ("goods", "boats", "pictures")]


ASKED_SET = frozenset(ASKED)


def put(meaning, values):
    """A fact with these values in the form it was asked for."""
    (thing, relation), form = meaning.fact, meaning.form
    if form == "short":
        return shown(relation, values) + "."
    if form == "note":
        return f"{thing}: {shown(relation, values)}."
    if form == "list":
        return ", ".join(f"{i} {value}" for i, value in enumerate(values, 1)) + "."
    if form == "ad":
        return ADS[relation].format(thing=thing, value=join(values))
    if form == "play":
        if relation == "work":
            relation, thing, values = turned_work(thing, values[0])
        return PLAY[relation].format(thing=thing, value=values[0])
    if form == "check":
        sure = "yes" if meaning.detail in values else "no"
        return f"{statement(meaning.fact, values)}, so {sure}."
    return statement(meaning.fact, values) + "."


def reassured(meaning, talk, voice):
    """The reply to a doubt: yes if what was said, or the doubted word, is true."""
    fact, word = meaning.fact, meaning.detail
    if meaning.form == "word" and fact is None:
        return [f"i did not say {word}."]
    said = next((values for claimed, values in claims(talk[-2][1]) if claimed == fact), None)
    if meaning.form == "sure" and not said:
        right = talk[-2][1] in truths_of(talk[:-2])
        return ["yes, i am sure."] if right else ["sorry, i was wrong."]
    texts = []
    for values in orders(fact, voice):
        sure = set(said) <= set(values) if meaning.form == "sure" else word in values
        texts.append(("yes, i am sure." if not word else f"yes, {word}, i am sure.") if sure
                     else f"no, it is {shown(fact[1], values)}.")
    return texts


def computed(meaning):
    """A sum said aloud, in two parts: how it is worked out, and what comes out of it."""
    amount, named = meaning.detail
    apart = f"{abs(amount - named)} coin{'s' * (abs(amount - named) > 1)}"
    if meaning.form == "times":
        return f"{amount} times {named} makes", f"{amount * named} coins."
    if meaning.form == "later":
        return f"{amount} hours after {named} would be", f"at {amount + named}."
    if amount < named:
        return f"{named} minus {amount}:", f"no, you are {apart} short."
    if amount == named:
        return f"exactly {named}:", "yes, just enough."
    return f"{amount} minus {named}:", f"yes, you keep {apart}."


def replies(meaning, talk, voice):
    """Two lists of admissible replies: the plain ones, and those that volunteer a second fact."""
    if meaning.kind == "none":
        return LOST, []
    if meaning.kind == "smalltalk":
        return SOCIAL[meaning.form], []
    if meaning.kind == "meta":
        return [talk[-2][1] if meaning.form == "again" else f"you asked: {talk[0][1]}"], []
    if meaning.kind == "number":
        return [" ".join(computed(meaning))], []
    if meaning.kind == "doubt":
        return reassured(meaning, talk, voice), []
    plain = [put(meaning, values) for values in orders(meaning.fact, voice)]
    if meaning.form != "say":
        return plain, []
    more = [f"{statement(other, values)}." for other in others(meaning.fact, voice)
            for values in orders(other, voice) if values != ("sold out",)]
    return plain, [f"{first} {second}" for first in plain for second in more
                   if "sold out" not in first]


def answer(messages):
    """The teacher's reply: a pure function of the messages."""
    talk = as_talk(messages)
    plain, longer = replies(understand_talk(talk), talk, teachers(talk))
    lot = draw(*[text for _, text in talk])
    choices = longer if longer and lot % 4 < 3 else plain
    return choices[lot // 4 % len(choices)]


@lru_cache(4096)
def truths_of(talk):
    """All admissible replies to a talk."""
    plain, longer = replies(understand_talk(talk), talk, anybodys(talk))
    return frozenset(plain + longer)


def truths(messages):
    """Every admissible reply to the last user message, given what stands before it."""
    return set(truths_of(as_talk(messages)))


def key(messages):
    """The short strings that a right reply must contain."""
    talk = as_talk(messages)
    meaning = understand_talk(talk)
    if meaning.kind in FACTUAL + ("reshape",):
        values = orders(meaning.fact, anybodys(talk))
        start = ["yes" if meaning.detail in values[0] else "no"] * (meaning.form == "check")
        # a number nobody has named yet cannot be known, but its unit can
        unit = {"coins": "coins", "hour": "at"}.get(ANSWERS[meaning.fact[1]])
        return start + (list(values[0]) if len({*map(frozenset, values)}) == 1 else [unit])
    texts = [computed(meaning)[1]] if meaning.kind == "number" else truths_of(talk)
    words = [set(re.findall(r"\b(?:yes|no|\d+)\b", text)) | set(NAME.findall(text))
             for text in texts]
    return sorted(set.intersection(*words))


def grounded(messages):
    """Whether a turn that leans on the last answer finds there what it leans on."""
    talk = as_talk(messages)
    meaning, heard = understand_talk(talk), hear(talk)
    if meaning.kind == "pick":
        return bool(listed(heard.last))
    if meaning.kind == "number":
        return last_number(talk[-2:-1], meaning.form) is not None
    if meaning.kind == "doubt":
        return meaning.fact is not None and (bool(claims(heard.last)) or understand_talk(
            talk[:-2]).kind not in ("smalltalk", "meta", "none"))
    if meaning.kind == "reshape":
        return understand_talk(talk[:-2]).kind in FACTUAL + ("reshape",)
    return meaning.kind != "name" or meaning.fact[0] in NAME.findall(heard.last)


def main():
    """Serve the teacher to a command."""
    from data.api.server import run_with
    raise SystemExit(run_with(answer, name="teacher"))


if __name__ == "__main__":
    main()
