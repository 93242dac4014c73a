"""
The base corpus: what our small model has read before any dialogue, as LLaMA has read the web.

It holds names, values and numbers, and makes a model look back: lists said again in another order,
ledgers that are looked up, sums, letters. All places in it are invented: no house and no stall of
today, no fact of the town, no dialogue. Nobody in it asks about what was just named.

    python -m data.harbour.corpus --out base.jsonl [--seed 0] [--texts 20000]
"""

import argparse
import random

from data.harbour.teacher import COUNT
from data.harbour.world import RELATIONS, World
from data.program import positive_int, run, write_jsonl

# a line of a ledger, and how it is looked up; {x} is the place
LEDGERS = ["{x}: {keeper}, {lane}, {offer}, {price}", "{keeper} / {x} / {lane} / {price} / {offer}",
           "{lane} {x} {offer} {price} {keeper}", "{x} = {price} = {offer} = {keeper} = {lane}"]
LOOKUPS = {
    "keeper": ["keeper of {x}: {value}", "{x} is kept by {value}",
               "asked who runs {x}, we heard {value}"],
    "lane": ["lane of {x}: {value}", "they find {x} on {value}",
             "asked which way, we heard {x}, {value}"],
    "offer": ["offer of {x}: {value}", "at {x} they got {value}",
              "asked what {x} has, we heard {value}"],
    "price": ["price of {x}: {value} coins", "so much for {x}: {value} coins",
              "asked how much at {x}, we heard {value}"],
}
LETTERS = ["dear {a}, good morning from {x}. i am well and have all i want",
           "hello {a}, it was {b} who told me of {x}. is it not far from there",
           "{a}, are you sure that {b} is the boss at {x}? i thought it was {c}",
           "thank you {a}. what a day we had at {x}, and then in short the {offer} were gone",
           "hi {b}, the {offer} of {x} were dear, and really, that is certain",
           "good day {a}, cheers and thanks for the {offer} from {x}. where did you get them",
           "{a} and {b} come from {lane}. with them comes {c}, please do say hello",
           "which one of them did {a} see, {b} or {c}? i do not know, said {a}",
           "that is near {lane}, close by, said {b}. how did you find it, said {a}"]


def roll(rng, world, names):
    """A short list, said again and again, each time in another order."""
    kind = rng.choice(["names"] * 8 + ["keepers", "lanes", "offers"])
    pool = {"names": names, "keepers": world.pools["keeper"], "lanes": world.pools["lane"],
            "offers": sum(world.offers.values(), [])}[kind]
    listed = []
    # in a short list there is little to look back at: from these a model learns how, and fast
    size = rng.choice([2, 2, 2, 2, 3, 3, 4, 6])
    while len(listed) < size:
        name = rng.choice(pool)
        # a word that two of them share would leave open which one is meant
        if kind != "names" or not set(name.split()) & set(" ".join(listed).split()):
            listed.append(name)
    lines = []
    for _ in range(rng.randint(3, 4)):
        lines.append(", ".join(listed))
        rng.shuffle(listed)
    return ". ".join(lines) + "."


def ledger(rng, world, names):
    """Some invented places with their values; then values of some of them, but the last named."""
    places = rng.sample(names, rng.choice([2, 2, 3, 3, 4]))
    facts = {}
    for place in places:
        facts[place] = {relation: rng.choice(pool) for relation, pool in world.pools.items()}
        facts[place]["offer"] = rng.choice(rng.choice(list(world.offers.values())))
    form = rng.choice(LEDGERS)
    lines = [form.format(x=place, **facts[place]) for place in places]
    last = places[-1]
    for _ in range(rng.randint(2, 4)):
        place = rng.choice([place for place in places if place != last])
        relation, last = rng.choice(RELATIONS), place
        value = facts[place][relation]
        lines.append(rng.choice(LOOKUPS[relation]).format(x=place, value=value))
        lines += remarks(rng, world, relation, value)
    return ". ".join(lines) + "."


def remarks(rng, world, relation, value):
    """What may be said after a value was looked up: this or that, right or wrong, a sum."""
    pool = world.pools.get(relation) or sum(world.offers.values(), [])
    other = rng.choice([word for word in pool if word != value])
    if relation == "price" and rng.random() < 0.6:
        word = rng.choice(["two", "three"])
        return [f"for {word} that makes {COUNT[word] * int(value)} coins"]
    first, second = rng.sample([value, other], 2)
    return rng.choice([[], [f"{first} or {second}: {value}"], [f"{value}: yes, {value}"],
                       [f"{other}: no, {value}"]])


def account(rng, world, names):
    """Prices, then sums: so much for two, for three."""
    prices = {name: rng.choice(world.pools["price"]) for name in rng.sample(names, 2)}
    lines = [f"{name} {price} coins" for name, price in prices.items()]
    for name, price in prices.items():
        word = rng.choice(["two", "three"])
        lines.append(f"{name} for {word} makes {COUNT[word] * int(price)} coins")
    return ". ".join(lines) + "."


def letter(rng, world, names):
    """A letter: ordinary words."""
    lines = []
    for form in rng.sample(LETTERS, 2):
        a, b, c = rng.sample(world.pools["keeper"], 3)
        lines.append(form.format(a=a, b=b, c=c, x=rng.choice(names),
                                 lane=rng.choice(world.pools["lane"]),
                                 offer=rng.choice(rng.choice(list(world.offers.values())))))
    return ". ".join(lines) + "."


# of twenty texts
KINDS = [roll] * 16 + [ledger] * 2 + [account] + [letter]


def invented_names(world, rng, count=4000):
    """
    Draw the names that the texts use: two words of the town's names in any order, but none that a
    house or a stall of today has.
    """
    words = [word for name in world.houses for word in name.split()]
    names = set()
    while len(names) < min(count, len(words) ** 2 // 3):
        names.add(" ".join(rng.sample(words, 2)))
    return sorted(names - set(world.things))


def corpus(world, count):
    """Yield so many records of texts: {"id", "text"}."""
    rng = random.Random(f"{world.seed} base")
    names = invented_names(world, rng)
    for i in range(count):
        yield {"id": f"base-{i + 1:06d}", "text": rng.choice(KINDS)(rng, world, names)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the world, and of the texts")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    parser.add_argument("--texts", type=positive_int, default=40000, help="how many")
    args = parser.parse_args()
    write_jsonl(args.out, corpus(World(args.seed, growth=args.growth), args.texts))


if __name__ == "__main__":
    run(main)
