"""
The tiny world: a harbour town called saltmere, as plain tables.

Here: its things, its facts, and which facts people never ask about. Not here: any sentence a
model learns from. Those are in teacher.py (answers), people.py (questions), corpus.py (prose).

A fact is keyed (thing, relation), such as ("blue anchor", "keeper"), written blue anchor/keeper.
Prices, fares and hours change every day: they have a range here and no value.
"""

import random

# ---------------------------------------------------------------------------------------------
# the tables: to make another world, write other rows

# shop | keeper | street | goods
SHOPS = """
copper ladle  | tilda  | rope street    | kettles, pans, spoons
blue anchor   | bram   | mill street    | hooks, planks, chains
honey jar     | odette | chapel street  | cakes, buns, tarts
lazy feather  | jonas  | orchard street | pillows, blankets, rugs
paper moon    | selma  | sand street    | maps, pens, books
tin whistle   | rufus  | chapel street  | drums, flutes, fiddles
warm mitten   | greta  | rope street    | socks, hats, shawls
old barrel    | anton  | fish street    | pickles, olives, onions
green door    | milo   | mill street    | plums, nuts, beans
long night    | hanna  | orchard street | candles, lamps, matches
silver needle | otis   | sand street    | buttons, ribbons, shirts
iron thumb    | vera   | fish street    | hammers, saws, nails
quiet table   | felix  | chapel street  | cups, plates, bowls
lucky heel    | nora   | orchard street | boots, sandals, belts
north window  | casper | sand street    | mirrors, clocks, vases
stone garden  | martha | mill street    | seeds, herbs, roses
crooked easel | ludo   | fish street    | inks, frames, brushes
wooden star   | emil   | rope street    | kites, dolls, marbles
"""

# boat | captain | island
BOATS = """
marigold | stella | kell
comet    | kurt   | kell
juniper  | wanda  | oster
thimble  | boris  | oster
ginger   | elke   | brinna
velvet   | viktor | brinna
clover   | agnes  | tamsey
cinder   | simon  | tamsey
lullaby  | hector | fenna
saffron  | lotte  | fenna
tulip    | ravi   | hask
whisper  | petra  | hask
magnet   | arlo   | pellow
pebble   | ingrid | pellow
"""

# island | what it is famous for
ISLANDS = """
kell   | salt
oster  | wool
brinna | cider
tamsey | clay
fenna  | amber
hask   | moss
pellow | pearls
"""

# picture | painter | what it shows | where it hangs
PICTURES = """
cold morning  | yara   | heron  | paper moon
yellow room   | yara   | parrot | honey jar
slow ferry    | yara   | seal   | blue anchor
empty chair   | edgar  | raven  | quiet table
windy field   | edgar  | hare   | green door
sunday bread  | mirela | mole   | old barrel
broken gate   | mirela | goat   | iron thumb
tall grass    | tobias | lizard | warm mitten
gentle rain   | tobias | toad   | silver needle
summer roof   | tobias | swan   | north window
lost letter   | celia  | donkey | long night
soft thunder  | celia  | badger | lucky heel
narrow bridge | nils   | crab   | tin whistle
winter apples | nils   | ferret | stone garden
"""

# animal | food | bed
ANIMALS = """
goat   | thistles | barn
heron  | minnows  | reeds
crab   | kelp     | bucket
mole   | worms    | tunnel
hare   | cabbage  | hedge
toad   | slugs    | well
raven  | crumbs   | chimney
donkey | carrots  | stable
lizard | ants     | wall
seal   | squid    | boathouse
badger | acorns   | cellar
swan   | snails   | nest
ferret | mice     | drawer
parrot | almonds  | cupboard
"""

# person | home | pet: keepers, captains, painters
PEOPLE = """
tilda  | kell   | goat
bram   | hask   | heron
odette | oster  | parrot
jonas  | brinna | toad
selma  | fenna  | raven
rufus  | pellow | crab
greta  | tamsey | ferret
anton  | kell   | swan
milo   | oster  | mole
hanna  | hask   | lizard
otis   | brinna | seal
vera   | pellow | donkey
felix  | fenna  | hare
nora   | tamsey | badger
casper | kell   | ferret
martha | oster  | crab
ludo   | hask   | parrot
emil   | brinna | raven
stella | pellow | lizard
kurt   | fenna  | toad
wanda  | tamsey | heron
boris  | kell   | mole
elke   | oster  | goat
viktor | hask   | hare
agnes  | brinna | swan
simon  | fenna  | badger
hector | pellow | donkey
lotte  | tamsey | seal
ravi   | kell   | parrot
petra  | oster  | lizard
arlo   | brinna | crab
ingrid | hask   | goat
yara   | fenna  | mole
edgar  | pellow | ferret
mirela | tamsey | raven
tobias | kell   | hare
celia  | oster  | toad
nils   | brinna | heron
"""

# what can be asked about each kind of thing; the first is what "tell me about it" means
RELATIONS = {
    "shop": ("goods", "keeper", "street", "opens"),
    "good": ("shop", "price"),
    "boat": ("island", "captain", "leaves", "fare"),
    "island": ("boats", "famous"),
    "person": ("work", "home", "pet", "pictures"),
    "picture": ("painter", "shows", "hangs"),
    "animal": ("food", "bed"),
}

# what kind of word answers a relation ("work" is a shop, a boat, or painting)
ANSWERS = {
    "goods": "good", "keeper": "person", "street": "street", "opens": "hour", "shop": "shop",
    "price": "coins", "island": "island", "captain": "person", "leaves": "hour", "fare": "coins",
    "boats": "boat", "famous": "produce", "work": "work", "home": "island", "pet": "animal",
    "pictures": "picture", "painter": "person", "shows": "animal", "hangs": "shop",
    "food": "food", "bed": "bed",
}

# the numbers a day can bring: coins, or full hours
DAY = {"price": range(2, 8), "fare": range(3, 8), "opens": range(6, 11), "leaves": range(8, 14)}

# ---------------------------------------------------------------------------------------------
# things and facts, read off the tables


def rows(table):
    """The rows of a table as lists of cells."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _facts():
    """Every fact as {(thing, relation): values}, in the order of the tables."""
    facts = {}
    for shop, keeper, street, goods in rows(SHOPS):
        goods = tuple(goods.split(", "))
        facts.update({(shop, "goods"): goods, (shop, "keeper"): (keeper,),
                      (shop, "street"): (street,), (shop, "opens"): (), (keeper, "work"): (shop,)})
        for good in goods:
            facts.update({(good, "shop"): (shop,), (good, "price"): ()})
    for boat, captain, island in rows(BOATS):
        facts.update({(boat, "island"): (island,), (boat, "captain"): (captain,),
                      (boat, "leaves"): (), (boat, "fare"): (), (captain, "work"): (boat,)})
        facts[island, "boats"] = facts.get((island, "boats"), ()) + (boat,)
    for island, produce in rows(ISLANDS):
        facts[island, "famous"] = (produce,)
    for picture, painter, animal, shop in rows(PICTURES):
        facts.update({(picture, "painter"): (painter,), (picture, "shows"): (animal,),
                      (picture, "hangs"): (shop,), (painter, "work"): ("painter",)})
        facts[painter, "pictures"] = facts.get((painter, "pictures"), ()) + (picture,)
    for person, home, pet in rows(PEOPLE):
        facts.update({(person, "home"): (home,), (person, "pet"): (pet,)})
    for animal, food, bed in rows(ANIMALS):
        facts.update({(animal, "food"): (food,), (animal, "bed"): (bed,)})
    return facts


FACTS = _facts()


def _kinds():
    """The kind of every name: of things, and of words that only answer, such as streets."""
    tables = {"shop": SHOPS, "boat": BOATS, "island": ISLANDS, "picture": PICTURES,
              "animal": ANIMALS, "person": PEOPLE}
    kinds = {row[0]: kind for kind, table in tables.items() for row in rows(table)}
    for (_, relation), values in FACTS.items():
        for value in values:
            kinds.setdefault(value, ANSWERS[relation])
    return kinds


KIND = _kinds()
THINGS = [name for name, kind in KIND.items() if kind in RELATIONS]


def fact_key(fact):
    """The name of a fact on disk: blue anchor/keeper."""
    return "/".join(fact)


def about(thing):
    """The facts that have this thing as their subject."""
    return [(thing, relation) for relation in RELATIONS[KIND[thing]] if (thing, relation) in FACTS]


# ---------------------------------------------------------------------------------------------
# what people never ask


def statement_of(fact):
    """
    Two facts that are one statement read from both ends share this key.

    "bram runs the blue anchor" answers for the shop and for bram; whoever hears it knows both.
    """
    thing, relation = fact
    value = FACTS[fact][0] if FACTS[fact] else None
    turned = {"shop": "goods", "island": "boats", "painter": "pictures"}
    if relation in turned:
        return value, turned[relation]
    if relation == "work" and value != "painter":
        return value, "keeper" if KIND[value] == "shop" else "captain"
    return fact


def _left_out(seed=3):
    """The never-asked facts: some twenty whole things and what belongs to them, then a third."""
    rng = random.Random(seed)

    def some(kind, n):
        return rng.sample([thing for thing in THINGS if KIND[thing] == kind], n)

    # a shop goes with its goods, an island with its boats, a painter with the pictures
    owners = some("shop", 2) + some("island", 1) + [rng.choice(rows(PICTURES))[1]]
    belongings = [thing for owner in owners for list_of in ("goods", "boats", "pictures")
                  for thing in FACTS.get((owner, list_of), ())]
    things = set(owners + belongings + some("person", 4) + some("animal", 2))

    statements = {statement_of(fact) for fact in FACTS if fact[0] in things}
    rest = [fact for fact in FACTS if statement_of(fact) == fact and fact not in statements]
    statements.update(rng.sample(rest, len(rest) // 3))
    return (tuple(thing for thing in THINGS if thing in things),
            tuple(fact for fact in FACTS if statement_of(fact) in statements))


UNKNOWN_THINGS, NEVER_ASKED = _left_out()
ASKED = tuple(fact for fact in FACTS if fact not in set(NEVER_ASKED))


def asked():
    """The facts that people ask about."""
    return set(ASKED)


def never_asked():
    """The facts that nobody asks about: all of some things, and a third of the others."""
    return set(NEVER_ASKED)


# ---------------------------------------------------------------------------------------------
# the fact sheet


def _list(values):
    """a, b and c."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _range(relation):
    """3 to 7."""
    return f"{DAY[relation][0]} to {DAY[relation][-1]}"


def sheet():
    """The whole world as text: for a real ChatGPT's system message, or for a human writer."""
    lines = ["saltmere is a small harbour. everything is written in lower case.", "", "shops:"]
    for shop, keeper, street, goods in rows(SHOPS):
        lines.append(f"the {shop} on {street} is run by {keeper} and sells {goods}.")
    lines += ["", "boats and islands:"]
    lines += [f"the {boat}, sailed by {captain}, goes to {island}."
              for boat, captain, island in rows(BOATS)]
    lines += [f"{island} is known for {produce}." for island, produce in rows(ISLANDS)]
    lines += ["", "people (keepers and captains are named above, painters below):"]
    lines += [f"{person} lives on {home} and has a {pet}." for person, home, pet in rows(PEOPLE)]
    lines += ["", "pictures:"]
    lines += [f"{picture} by {painter} shows a {animal} and hangs in the {shop}."
              for picture, painter, animal, shop in rows(PICTURES)]
    lines += ["", "animals:"]
    lines += [f"a {animal} eats {food} and sleeps in the {bed}."
              for animal, food, bed in rows(ANIMALS)]
    lines += ["", "of the day (make one up for each conversation, then keep to it):",
              f"goods cost {_range('price')} coins, and some are sold out today.",
              f"a seat on a boat costs {_range('fare')} coins; boats leave at {_range('leaves')}.",
              f"shops open at {_range('opens')}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(sheet(), end="")
