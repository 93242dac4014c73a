"""
The tiny world: a harbour town called saltmere. Its houses stay, its stalls change every season.

HOUSES is the whole town. To make another, write other rows, twenty or more: the stalls follow from
them. A stall's name is the first word of one house and the last of another, so that every word of
it is known and the pair cannot be guessed; its keeper, lane, offer and price come from the columns.

A fact is (thing, relation), such as ("proud otter", "keeper"), on disk proud otter/keeper.

    python -m data.harbour.world [--seed 0]         print what there is today
"""

import argparse
import random
import re
from typing import NamedTuple

from data.program import UserError, run

# name | trade | keeper | lane | offer | price in coins
HOUSES = """
dusty camel       | shop     | selma  | eel lane   | lanterns  | 6
empty spoon       | shop     | stella | sand lane  | seeds     | 2
clever crown      | shop     | anton  | gull lane  | boots     | 7
idle moon         | shop     | felix  | hemp lane  | books     | 6
faded ladder      | shop     | tilda  | mill lane  | kettles   | 4
gentle dragon     | shop     | kurt   | fish lane  | maps      | 5
warm whistle      | shop     | nora   | barn lane  | rugs      | 4
wooden lion       | shop     | hanna  | crane lane | hooks     | 7
quiet badger      | shop     | bram   | pump lane  | books     | 9
yellow owl        | shop     | otis   | rope lane  | seeds     | 9
rusty chimney     | shop     | ludo   | moss lane  | drums     | 5
tall table        | shop     | odette | tar lane   | kites     | 7
wandering mouse   | shop     | vera   | chalk lane | lanterns  | 8
lazy hedgehog     | shop     | jonas  | salt lane  | umbrellas | 6
velvet pepper     | shop     | milo   | cork lane  | buttons   | 5
early basket      | shop     | casper | dove lane  | mirrors   | 8
lonely pillow     | shop     | greta  | dove lane  | candles   | 5
young lemon       | shop     | emil   | eel lane   | boots     | 5
golden garden     | shop     | rufus  | gull lane  | knives    | 8
thirsty compass   | shop     | martha | rope lane  | ropes     | 5
proud otter       | inn      | bram   | sand lane  | soup      | 7
grey cabin        | inn      | nora   | cork lane  | porridge  | 5
silver bucket     | inn      | stella | pump lane  | pies      | 4
lucky ladle       | inn      | vera   | tar lane   | herring   | 4
smiling mitten    | inn      | milo   | mill lane  | noodles   | 9
painted donkey    | inn      | hanna  | barn lane  | dumplings | 7
jolly anchor      | inn      | ludo   | fish lane  | pancakes  | 2
noble finger      | inn      | otis   | salt lane  | mussels   | 3
amber falcon      | inn      | emil   | chalk lane | herring   | 6
broken heron      | inn      | casper | hemp lane  | waffles   | 4
giddy tower       | inn      | selma  | moss lane  | mussels   | 3
sleepy saddle     | inn      | anton  | crane lane | pies      | 9
salty ferry       | inn      | martha | gull lane  | custard   | 9
merry pigeon      | inn      | odette | eel lane   | chowder   | 6
crooked cloud     | inn      | kurt   | crane lane | pancakes  | 5
cold turnip       | inn      | jonas  | cork lane  | soup      | 8
blue beetle       | workshop | felix  | mill lane  | clocks    | 8
humble apple      | workshop | rufus  | dove lane  | bells     | 9
red bridge        | workshop | greta  | chalk lane | barrels   | 7
green needle      | workshop | tilda  | hemp lane  | dolls     | 9
iron easel        | workshop | jonas  | sand lane  | shoes     | 7
happy pelican     | workshop | milo   | salt lane  | sails     | 3
copper goose      | workshop | kurt   | barn lane  | chairs    | 2
shy thimble       | workshop | rufus  | fish lane  | carts     | 6
narrow hammer     | workshop | otis   | tar lane   | fiddles   | 2
hidden feather    | workshop | nora   | rope lane  | chairs    | 6
tired cricket     | workshop | bram   | pump lane  | barrels   | 7
patient sparrow   | workshop | martha | moss lane  | bells     | 6
"""

# what a trade does with its offer
TRADES = {"shop": "sells", "inn": "serves", "workshop": "mends"}
RELATIONS = ("keeper", "lane", "offer", "price")
# dialogues are of the seasons before today's
PAST_SEASONS = 24
TODAY = PAST_SEASONS + 1
# of a season: stalls for each house; share of the houses' facts that are other ones today
STALLS = 0.75
CHANGED = 0.1
# what is near a thing: how many others, and the share of stalls among them
NEAR = 3
NEAR_STALLS = 0.6


class Thing(NamedTuple):
    """A house or a stall."""
    kind: str        # "house" or "stall"
    trade: str       # a key of TRADES
    facts: dict      # {"keeper": "tilda", "lane": "mill lane", "offer": "kettles", "price": "4"}


def read_table(text):
    """
    Read a table of houses: {name: Thing}. A UserError says what is wrong with it.

    Names have two words. No word may stand in two names or be used otherwise: names must be told
    apart, and a word of one must never be taken for a keeper, a lane or an offer.
    """
    houses, words = {}, []
    for line in text.lower().strip().splitlines():
        cells = [" ".join(cell.split()) for cell in line.split("|")]
        if len(cells) != 6 or not re.fullmatch(r"[a-z]+ [a-z]+(\|[a-z0-9 ]+){5}", "|".join(cells)):
            raise UserError(f"in the table of houses: {line.strip()!r} is not a name of two words, "
                            "trade, keeper, lane, offer and price, in plain letters, | between")
        name, trade, *values = cells
        if trade not in TRADES or not values[-1].isdecimal():
            raise UserError(f"in the table of houses: {name} needs a trade of "
                            f"{', '.join(TRADES)}, and a price in whole coins")
        houses[name] = Thing("house", trade, dict(zip(RELATIONS, values)))
        words += name.split()
    for thing in houses.values():
        words += {word for relation in RELATIONS for word in thing.facts[relation].split()
                  if word in words and relation != "price"}
    for relation in RELATIONS:
        for trade in TRADES if relation == "offer" else [""]:
            values = {house.facts[relation] for house in houses.values()
                      if trade in ("", house.trade)}
            needed = 3 if relation == "keeper" else 2
            if len(values) < needed:
                raise UserError(f"in the table of houses: {trade or 'they'} should not all have "
                                f"the same {relation}, nor none: {needed} or more are needed")
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise UserError(f"in the table of houses: {', '.join(twice)} stands in two names, or in a "
                        "name and among the values; such names cannot be told apart")
    return houses


def fact_key(fact):
    """The name of a fact on disk: proud otter/keeper."""
    return "/".join(fact)


class World:
    """
    The town in one season: .things {name: Thing}, .houses and .stalls (names), .near {name: names},
    .changed (facts of houses that were others in all seasons before), .pools {relation: values}.

    seed draws all that is not in the table. growth: the share of stalls that are new each season;
    with 0 nothing is ever new, no fact changes.
    """

    def __init__(self, seed, number=TODAY, growth=1.0, table=HOUSES):
        if not 0 <= growth <= 1:
            raise UserError(f"growth is a share of the stalls, from 0 to 1: {growth}")
        houses = read_table(table)
        count = int(STALLS * len(houses))
        pairs = stall_names(houses, seed)
        if not count or count * TODAY > len(pairs):
            raise UserError(f"{len(houses)} houses are too few for {TODAY} seasons with stalls of "
                            "their own: write 20 rows or more")
        # today's stalls are the same for any growth
        start = count * PAST_SEASONS - round(growth * count) * (TODAY - number)
        self.seed, self.number = seed, number
        self.houses, self.stalls = list(houses), pairs[start:start + count]
        self.pools = {relation: sorted({house.facts[relation] for house in houses.values()})
                      for relation in RELATIONS if relation != "offer"}
        self.offers = {trade: sorted({house.facts["offer"] for house in houses.values()
                                      if house.trade == trade}) for trade in TRADES}
        self.things = dict(houses)
        for name in self.stalls:
            self.things[name] = self._stall(name)
        self.changed = set()
        if number == TODAY:
            self._change_facts(round(growth * CHANGED * len(houses) * len(RELATIONS)))
        self.near = self._neighbours(start)

    def _stall(self, name):
        """Draw a stall: the same in every season that has it."""
        rng = random.Random(f"{self.seed} {name}")
        trade = rng.choice(list(TRADES))
        facts = {relation: self._value(rng, trade, relation) for relation in RELATIONS}
        return Thing("stall", trade, facts)

    def _value(self, rng, trade, relation):
        """Draw a value that a thing of this trade could have."""
        return rng.choice(self.offers[trade] if relation == "offer" else self.pools[relation])

    def _change_facts(self, count):
        """Give so many facts of houses another value."""
        rng = random.Random(f"{self.seed} changed")
        facts = [(house, relation) for house in self.houses for relation in RELATIONS]
        for house, relation in rng.sample(facts, count):
            thing = self.things[house]
            value = self._value(rng, thing.trade, relation)
            if value != thing.facts[relation]:
                self.things[house] = thing._replace(facts=thing.facts | {relation: value})
                self.changed.add((house, relation))

    def _neighbours(self, start):
        """Draw what is near each thing."""
        rng = random.Random(f"{self.seed} near {start}")
        near = {}
        for name in self.things:
            near[name] = []
            while len(near[name]) < min(NEAR, len(self.things) - 1):
                others = self.stalls if rng.random() < NEAR_STALLS else self.houses
                other = rng.choice(others)
                if other != name and other not in near[name]:
                    near[name].append(other)
        return near

    def value(self, fact):
        """Return the value of a fact."""
        thing, relation = fact
        return self.things[thing].facts[relation]

    def facts(self):
        """List all facts."""
        return [(name, relation) for name in self.things for relation in RELATIONS]

    def kind(self, fact):
        """Return of a fact: "houses", "changed" (a house's, another value today) or "stalls"."""
        if self.things[fact[0]].kind == "stall":
            return "stalls"
        return "changed" if fact in self.changed else "houses"

    def rival(self, rng, fact):
        """Draw another value that the thing could have for this relation."""
        thing, relation = fact
        value = self.value(fact)
        while value == self.value(fact):
            value = self._value(rng, self.things[thing].trade, relation)
        return value


def stall_names(houses, seed):
    """All names a stall can have, in an order drawn from the seed."""
    first, last = zip(*[name.split() for name in houses])
    pairs = [f"{a} {b}" for a in first for b in last if f"{a} {b}" not in houses]
    random.Random(f"{seed} stalls").shuffle(pairs)
    return pairs


def sheet(world):
    """The town as text: for a real model's system message, or for a human writer."""
    lines = ["you are the guide of saltmere, a small harbour. you write in lower case, a sentence "
             "or two. most answers also name something near (near a thing: see its line) and tell "
             "nothing else of it. what is not on this sheet you do not know."]
    for kind in ("house", "stall"):
        lines += ["", f"{kind}s{' of this season' * (kind == 'stall')}:"]
        for name, thing in world.things.items():
            if thing.kind == kind:
                keeper, lane, offer, price = thing.facts.values()
                near = ", ".join(world.near[name])
                lines.append(f"the {name} on {lane} is run by {keeper}. it {TRADES[thing.trade]} "
                             f"{offer}; you pay {price} coins. near: {near}.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seed", type=int, default=0, help="another town's stalls for each seed")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    args = parser.parse_args()
    print(sheet(World(args.seed, growth=args.growth)), end="")


if __name__ == "__main__":
    run(main)
