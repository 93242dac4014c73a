"""
The benches: questions about today's harbour in MT-Bench's categories, of two turns, and in
Vicuna-Bench's, of one. Half are about houses, half about this season's stalls.

A category here is what the first turn asks for and how the second goes on. The second turn is
written against the true answer to the first, but holds for whatever the examined model says.

    python -m data.harbour.bench --out question.jsonl [--questions 20] [--seed 0] [--vicuna]
"""

import argparse
import random

from data.harbour.people import ASK, FURTHER, aside_forms
from data.harbour.world import RELATIONS, World, fact_key
from data.program import UserError, positive_int, run, write_jsonl

# MT-Bench's labels: what the first turn asks for, and the second turn's manner
MT_BENCH = {"writing": ("offer", "reshape"), "roleplay": ("keeper", "further"),
            "reasoning": ("lane", "this or that"), "math": ("price", "sum"),
            "coding": ("lane", "reshape"), "extraction": ("offer", "this or that"),
            "stem": ("price", "further"), "humanities": ("keeper", "not that")}
# Vicuna-Bench's: one turn
VICUNA = {"generic": ("offer", None), "knowledge": ("keeper", None), "roleplay": ("keeper", None),
          "common-sense": ("lane", None), "fermi": ("price", None),
          "counterfactual": ("lane", None), "coding": ("offer", None), "math": ("price", None),
          "writing": ("offer", None)}


def make_turns(rng, world, fact, manner):
    """Return the turns of a question about a fact, as people would put them."""
    first = rng.choice(ASK[fact[1]]).format(x=fact[0])
    if manner is None:
        return [first]
    if manner == "further":
        other = rng.choice([relation for relation in RELATIONS if relation != fact[1]])
        return [first, rng.choice(FURTHER[other])]
    return [first, rng.choice(aside_forms(rng, world, fact, manner))]


def questions(world, per_category, seed, categories):
    """List so many questions of each category, houses and stalls in turn, no question twice."""
    rng = random.Random(f"bench {seed}")
    rows, taken = [], set()
    for category, (relation, manner) in categories.items():
        for i in range(per_category):
            names = world.stalls if i % 2 else world.houses
            for _ in range(1000):
                fact = rng.choice(names), relation
                turns = make_turns(rng, world, fact, manner)
                if tuple(turns) not in taken:
                    break
            else:
                raise UserError(f"there are no {per_category} different questions of {category}")
            taken.add(tuple(turns))
            # small models answer greedily, whatever the category
            rows.append({"question_id": len(rows) + 1, "category": category, "turns": turns,
                         "required_temperature": 0, "kinds": ["question", manner][:len(turns)],
                         "group": "stalls" if i % 2 else "houses", "about": fact_key(fact)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--out", required=True, help="JSONL file to write")
    parser.add_argument("--questions", type=positive_int, default=20, help="how many a category")
    parser.add_argument("--seed", type=int, default=0, help="of the world, and of the questions")
    parser.add_argument("--growth", type=float, default=1.0, help="share of new stalls a season")
    parser.add_argument("--vicuna", action="store_true", help="Vicuna-Bench's categories, one turn")
    args = parser.parse_args()
    world = World(args.seed, growth=args.growth)
    categories = VICUNA if args.vicuna else MT_BENCH
    write_jsonl(args.out, questions(world, args.questions, args.seed, categories))


if __name__ == "__main__":
    run(main)
