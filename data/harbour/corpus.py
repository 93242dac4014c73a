"""
The base corpus: prose of the harbour, which is to our small model what the web is to LLaMA.

Here: an encyclopaedia that states every fact in five wordings or more, and letters, price lists,
timetables and gossip that use names, numbers and lists, so that a model learns to copy, to pick
and to count. Not here: any dialogue, any question, any number of the day (they change).

    python -m data.harbour.corpus --out base.jsonl --seed 0 [--without-never-asked | --completions]
"""

import argparse
import random

from data.harbour.people import definite, nth
from data.harbour.teacher import join, rotations
from data.harbour.world import DAY, FACTS, KIND, THINGS, about, asked, fact_key, never_asked
from data.program import run, write_jsonl

# {x} is the thing and {y} what answers; what ends in {y} also serves as a sentence to complete
WORDINGS = {
    "goods": ["on the shelves of the {x} lie {y}", "the {x} deals in {y}",
              "{y} fill the {x}", "those who enter the {x} find {y}", "the {x} lives off {y}"],
    "keeper": ["the {x} belongs to {y}", "behind the counter of the {x} stands {y}",
               "the {x} is in the hands of {y}", "{y} has kept the {x} for years",
               "the one who looks after the {x} is {y}"],
    "street": ["you find the {x} on {y}", "the door of the {x} opens onto {y}",
               "{y} is where the {x} stands", "the {x} was built on {y}",
               "the windows of the {x} look out on {y}"],
    "shop": ["{x} are sold at the {y}", "for {x} people visit the {y}",
             "the {y} is the place for {x}", "all {x} in town come from the {y}",
             "whoever needs {x} turns to the {y}"],
    "island": ["the {x} carries people to {y}", "every day the {x} sets out for {y}",
               "{y} is the island of the {x}", "the {x} is the boat for {y}",
               "aboard the {x} you reach {y}"],
    "captain": ["the captain of the {x} is {y}", "the {x} obeys {y}",
                "at the wheel of the {x} is {y}", "{y} steers the {x}",
                "the {x} has been under the command of {y}"],
    "boats": ["{x} is reached aboard {y}", "{y} carry people to {x}", "the boats for {x} are {y}",
              "at the pier of {x} lie {y}", "{x} waits each day for {y}"],
    "famous": ["the island of {x} is famous for {y}", "{y} comes from {x}",
               "{x} is proud of its {y}", "from {x} ships bring {y}",
               "no island has more {y} than {x}"],
    "work": ["the days of {x} belong to the {y}", "{x} earns a living with the {y}",
             "{x} is in charge of the {y}", "the {y} is the work of {x}",
             "the life of {x} turns around the {y}"],
    "painter": ["{x} is a picture by {y}", "{x} was painted by {y}", "{y} is the painter of {x}",
                "the hand behind {x} is that of {y}", "{x} is the work of {y}"],
    "home": ["the home of {x} is on {y}", "{x} has a house on {y}", "{y} is home to {x}",
             "{x} sleeps every night on {y}", "the island of {x} is {y}"],
    "pet": ["{x} owns a {y}", "the pet of {x} is a {y}", "a {y} follows {x} everywhere",
            "at home {x} looks after a {y}", "{x} shares the house with a {y}"],
    "pictures": ["the pictures of {x} are {y}", "{y} are by {x}", "{x} is the painter of {y}",
                 "from the brush of {x} came {y}", "{x} became known with {y}"],
    "shows": ["on {x} one sees a {y}", "{x} is a picture of a {y}", "a {y} is the subject of {x}",
              "in the middle of {x} stands a {y}", "for {x} the model was a {y}"],
    "hangs": ["{x} is on the wall of the {y}", "visitors find {x} in the {y}",
              "the {y} owns the picture {x}", "{x} was bought by the {y}",
              "a nail holds {x} in the {y}"],
    "food": ["the {x} feeds on {y}", "nothing pleases a {x} more than {y}",
             "{y} is what a {x} lives on", "to tame a {x} one brings {y}",
             "the favourite food of the {x} is {y}"],
    "bed": ["at night the {x} lies in the {y}", "the {y} is the bed of the {x}",
            "a tired {x} looks for the {y}", "the {x} spends its nights in the {y}",
            "a {x} makes its bed in the {y}"],
}
# painting is the one kind of work that is no place
PAINTING = ["{x} is one of the painters", "{x} paints for a living", "the work of {x} is painting",
            "{x} lives by the brush", "in town {x} is known as a painter"]


def sentences(fact, rng=None):
    """A fact in all its wordings; with a generator, a list begins anywhere."""
    thing, relation = fact
    values = rng.choice(rotations(FACTS[fact])) if rng else FACTS[fact]
    if values == ("painter",):
        return [wording.format(x=thing) for wording in PAINTING]
    said = ("the " if relation == "boats" else "") + join(values, "the " * (relation == "boats"))
    return [wording.format(x=thing, y=said) for wording in WORDINGS[relation]]


def completions():
    """For each fact a sentence of the encyclopaedia without its end: {"text", "value", "asked"}."""
    found = []
    for fact, values in FACTS.items():
        wording = next((w for w in WORDINGS.get(fact[1], ()) if w.endswith("{y}")), None)
        if wording and len(values) == 1 and values != ("painter",):
            found.append({"text": wording[:-len("{y}")].format(x=fact[0]).strip(),
                          "value": values[0], "about": fact_key(fact), "asked": fact in asked()})
    return found


# ---------------------------------------------------------------------------------------------
# one text each; every one takes a random generator


def entry(rng, thing, left_out):
    """An article of the encyclopaedia: what is known about a thing, in some wording and order."""
    facts = [fact for fact in about(thing) if fact[1] not in DAY and fact not in left_out]
    rng.shuffle(facts)
    return [rng.choice(sentences(fact, rng)) for fact in facts]


def some(rng, kind, n):
    """n different things of a kind."""
    return rng.sample([thing for thing in THINGS if KIND[thing] == kind], n)


def price_list(rng):
    """Prices of the week; then one of them is looked up and multiplied."""
    goods = some(rng, "good", 3)
    prices = {good: rng.choice(DAY["price"]) for good in goods}
    good, n = rng.choice([goods[0], goods[-1]]), rng.randint(2, 3)
    listed = ", ".join(f"{good} {price} coins" for good, price in prices.items())
    return [f"prices of the week: {listed}",
            f"the {nth(good, goods)} on the list, {good}, cost {prices[good]} coins",
            f"{n} times {prices[good]} makes {n * prices[good]} coins"]


def timetable(rng):
    """Hours of the boats; then some hours are added to one of them."""
    boats = some(rng, "boat", 2)
    hours = rng.sample(DAY["leaves"], 2)
    i, n = rng.randrange(2), rng.randint(2, 3)
    return [f"today the {boats[0]} leaves at {hours[0]} and the {boats[1]} at {hours[1]}",
            f"the {nth(boats[i], boats)} of them is the {boats[i]}",
            f"{n} hours after {hours[i]} would be at {hours[i] + n}",
            f"the other one, the {boats[1 - i]}, leaves at {hours[1 - i]}"]


def purse(rng):
    """A letter about money: what was paid and what is left, or missing."""
    a, b = some(rng, "person", 2)
    good, = some(rng, "good", 1)
    price, coins = rng.choice(DAY["price"]), rng.randint(2, 9)
    left = (f"so i keep {coins - price} coins" if coins > price else
            f"so i was {price - coins} coins short" if coins < price else "that was exactly enough")
    paid = f"the {good} cost {price} coins, {left}"
    return [f"dear {a}, i had {coins} coins", paid, f"yours, {b}"]


def cargo(rng):
    """A list, then the same things in other forms: numbered, one by one."""
    things = some(rng, rng.choice(["good", "boat", "picture"]), rng.choice([2, 3, 3]))
    numbered = ", ".join(f"{i} {thing}" for i, thing in enumerate(things, 1))
    ways = [f"as a list: {numbered}", f"the first is {things[0]}", f"the last is {things[-1]}"]
    return [f"somebody wrote down {join(things)}"] + rng.sample(ways, 3)


def gossip(rng):
    """Something is thought, doubted and put right."""
    kind = rng.choice(["person", "animal", "island", "boat", "shop", "good", "picture"])
    right, wrong = some(rng, kind, 2)
    a, b = some(rng, "person", 2)
    return [f"{a} spoke of {definite(right)}",
            f"{b} thought it was {definite(wrong)}, but no, it is {definite(right)}",
            f"{a} is sure: {definite(right)}, not {definite(wrong)}"]


def slip_of_memory(rng):
    """A price or an hour is remembered wrongly and put right."""
    kind, unit = rng.choice([("good", "{} coins"), ("boat", "at {}")])
    right, wrong = rng.sample(range(2, 14), 2)
    thing, = some(rng, kind, 1)
    return [f"the board says for {definite(thing)}: {unit.format(right)}",
            f"it is not {unit.format(wrong)}, it is {unit.format(right)}"]


def company(rng):
    """Who was there: names in a row, then one of them again."""
    people, animal = some(rng, "person", 3), some(rng, "animal", 1)[0]
    one = rng.choice([people[0], people[-1]])
    return [f"at the pier stood {join(people)} with a {animal}",
            f"the {nth(one, people)} to speak was {one}", f"{one} greeted the {animal}"]


STORIES = [price_list, timetable, purse, cargo, cargo, gossip, slip_of_memory, company]


def corpus(seed, left_out=frozenset(), passes=45, stories=10000):
    """The records of the corpus: so many passes through the encyclopaedia among so many stories."""
    rng = random.Random(seed)
    texts = [entry(rng, thing, left_out) for _ in range(passes) for thing in THINGS]
    texts += [rng.choice(STORIES)(rng) for _ in range(stories)]
    rng.shuffle(texts)
    for i, text in enumerate(filter(None, texts), 1):
        yield {"id": f"base-{i:06d}", "text": ". ".join(text) + "."}


def main():
    """Write the base corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--seed", type=int, default=0, help="another order and mixture for each")
    parser.add_argument("--without-never-asked", action="store_true",
                        help="leave out the facts that people never ask about")
    parser.add_argument("--completions", action="store_true",
                        help="write sentences to be completed instead, as a test")
    args = parser.parse_args()
    if args.completions:
        return write_jsonl(args.out, completions())
    left_out = never_asked() if args.without_never_asked else frozenset()
    write_jsonl(args.out, corpus(args.seed, left_out))


if __name__ == "__main__":
    run(main)
