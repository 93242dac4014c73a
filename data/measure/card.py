"""
The report card of a user simulator: how like people is it, and does it listen?

Held-out dialogues of people are split in two. One half is the reference. At every place of the
other half where a person spoke or left, the simulator speaks or leaves, having read what that
person had read; what it says is compared with what people of the reference say. The people of the
second half stand beside it, compared in the same way: nobody can be expected to be nearer to people
than they are.

Here: measures, and the notes beside them. Not here: the places, and what is said there (turns.py);
what a model expects (evaluate.py); what is counted in texts (text_metrics.py); the table
(tables.py).
"""

import threading
from functools import partial
from pathlib import Path

import numpy as np

from data.formats.files import read_dialogues
from data.measure.judge import open_journal
from data.measure.tables import card_lines
from data.measure.turns import SETTINGS, ask_at_turns, split_halves, readable_dialogues, human_turns
from data.program import (UserError, url, file_hash as content_of, name_and_value, positive_int,
                          write_json)
from data.text_metrics import (LEAKS, SERVES, SHAPE, auc, content, distinct, grams_in,
                               jaccard_diversity, kolmogorov, logistic, mtld, out_of_fold, vectors,
                               wasserstein, words_of)
from data.users import scale_odds
from simulate import money_flags, user_flags

VERSION = 1
# random halves of people, to see how far people are from people
SPLITS = 20
# turns of each side that a classifier learns from
MAX_TURNS = 1500


def spoken(said, places):
    """The places at which something was said, with what it was: [(place, text), ...]."""
    return [(place, text) for place, text in zip(places, said) if text]


# ------------------------------------------------------------------------------------------------
# measures: of what was said, one number each; people's own number is the reference


def share(test):
    """A measure: the share of turns that pass a test."""
    return lambda pairs: float(np.mean([bool(test(text)) for _, text in pairs])) if pairs else None


def words_a_turn(pairs):
    return float(np.mean([len(words_of(text)) for _, text in pairs])) if pairs else None


def mtld_of_turns(pairs):
    """MTLD of all turns, one after another."""
    return mtld([word for _, text in pairs for word in words_of(text)])


def different_pairs(pairs):
    return distinct([words_of(text) for _, text in pairs])


def variety_of_first_turns(pairs, most=500):
    """1 minus the mean Jaccard of their words, over all pairs of first turns."""
    return jaccard_diversity([text for place, text in pairs if not place.number][:most])


def says_again(pairs):
    """The share of later turns that somebody said before in the same dialogue, word for word."""
    later = [text in [turn["value"] for turn in place.before] for place, text in pairs
             if place.number]
    return float(np.mean(later)) if later else None


def key_words(pairs):
    """The share of a later turn's words of content that are among those of the first turn."""
    found = [len(content(text) & content(first_of(place))) / len(content(text))
             for place, text in pairs if place.number and content(text) and first_of(place)]
    return float(np.mean(found)) if found else None


def first_of(place):
    """The first human turn that was read; "" if none was."""
    return next((turn["value"] for turn in place.before if turn["from"] == "human"), "")


MEASURES = {
    "words a turn": words_a_turn,
    **{name: share(test) for name, test in SHAPE.items()},
    "MTLD of all turns": mtld_of_turns,
    "different pairs of words": different_pairs,
    "variety of first turns": variety_of_first_turns,
    "first turn's words in later ones": key_words,
    "says the same again": says_again,
    "leaks a role or a mark": share(LEAKS.search),
    "serves like an assistant": share(SERVES.search),
}


# ------------------------------------------------------------------------------------------------
# measures that compare with the reference's turns


def match_lengths(texts, others, seed=0):
    """Indices of texts in both lists, so that each length (in words) is as frequent in both."""
    rng = np.random.default_rng(seed)
    sizes = [[len(words_of(text)) for text in found] for found in (texts, others)]
    chosen = [[], []]
    for size in set(sizes[0]) & set(sizes[1]):
        here = [np.flatnonzero(np.array(found) == size) for found in sizes]
        n = min(map(len, here))
        for picked, where in zip(chosen, here):
            picked += rng.permutation(where)[:n].tolist()
    return chosen


class Detector:
    """
    A classifier trained to tell a user's turns from the reference's, and tried on dialogues that it
    has not seen: AUC 0.5 where nobody could tell, 1 where everybody could.
    """

    def __init__(self, pairs, people):
        self.pairs, self.people = self.some(pairs), self.some(people)
        self.texts = [text for _, text in self.people + self.pairs]
        self.x = vectors(self.texts)
        self.y = np.r_[np.zeros(len(self.people)), np.ones(len(self.pairs))]
        self.groups = np.array([f"{side}{place.dialogue}" for side, found in
                                (("people ", self.people), ("user ", self.pairs))
                                for place, _ in found])

    @staticmethod
    def some(pairs):
        """Up to SAMPLE of them, spread over all."""
        chosen = np.random.default_rng(0).permutation(len(pairs))[:MAX_TURNS]
        return [pairs[i] for i in sorted(chosen)]

    def found(self):
        """{"auc", "low", "high", "matched", "telltales"}."""
        if min(len(self.pairs), len(self.people)) < 20:
            return {"auc": None, "low": None, "high": None, "matched": None, "telltales": []}
        scores = out_of_fold(self.x, self.y, self.groups)
        low, high = self.interval(scores)
        return {"auc": auc(scores, self.y), "low": low, "high": high,
                "matched": self.matched(), "telltales": self.telltales()}

    def interval(self, scores, draws=300):
        """95 % of the AUC when dialogues are drawn again (the classifier stays as it is)."""
        names, group = np.unique(self.groups, return_inverse=True)
        rows = [np.flatnonzero(group == i) for i in range(len(names))]
        rng, found = np.random.default_rng(0), []
        for _ in range(draws):
            picked = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
            found.append(auc(scores[picked], self.y[picked]))
        return np.percentile([value for value in found if value is not None], [2.5, 97.5]).tolist()

    def matched(self):
        """The AUC when both sides have turns of the same lengths: length alone tells nothing."""
        n = len(self.people)
        ours, theirs = match_lengths(self.texts[n:], self.texts[:n])
        rows = np.array(theirs + [n + i for i in ours], dtype=int)
        if len(ours) < 20:
            return None
        return auc(out_of_fold(self.x[rows], self.y[rows], self.groups[rows]), self.y[rows])

    def telltales(self, most=6):
        """The runs of characters that give the user away: [text, ...], the surest first."""
        w, _ = logistic(self.x, self.y)
        surest = np.argsort(-w * self.x[self.y == 1].mean(axis=0))[:most]
        grams = grams_in(self.texts[len(self.people):], set(surest.tolist()))
        return [grams[i] for i in surest.tolist() if i in grams]


class Roles:
    """Who speaks so? A classifier of people's turns and of answers, trained on the reference."""

    def __init__(self, places):
        people = [place.said for place in places if place.said][:MAX_TURNS]
        answers = [place.before[-1]["value"] for place in places
                   if place.before and place.before[-1]["from"] == "gpt"][:MAX_TURNS]
        y = np.r_[np.ones(len(people)), np.zeros(len(answers))]
        self.known = bool(people and answers)
        self.w, self.bias = logistic(vectors([*people, *answers]), y) if self.known else (0, 0)

    def human(self, pairs):
        """The share of turns that it takes for a human's, and not for an answer."""
        if not pairs or not self.known:
            return None
        return float((vectors([text for _, text in pairs]) @ self.w + self.bias > 0).mean())


LENGTHS = {"words a turn: Wasserstein": wasserstein, "words a turn: Kolmogorov": kolmogorov}


def lengths(pairs, people):
    """How far the numbers of words a turn are from people's: {name of the distance: number}."""
    sizes = [[len(words_of(text)) for _, text in found] for found in (pairs, people)]
    return {name: distance(*sizes) if all(sizes) else None for name, distance in LENGTHS.items()}


def topic(pairs, most=6):
    """
    How near a turn is to the first turn and to the answer before it (cosine), by its number from 1
    on; and to the answer before somebody else's turn: who listens is nearer to his own.
    """
    later = [(place, text) for place, text in pairs
             if place.number and place.before[-1]["from"] == "gpt" and first_of(place)]
    if not later:
        return {"first": [], "answer": [], "own answer": None, "another's": None}
    own = vectors([text for _, text in later])
    firsts = (own * vectors([first_of(place) for place, _ in later])).sum(axis=1)
    heard = vectors([place.before[-1]["value"] for place, _ in later])
    answers = (own * heard).sum(axis=1)
    other, far = elsewhere([place for place, _ in later])
    numbers = np.array([place.number for place, _ in later])
    curve = lambda values: [float(values[numbers == n].mean()) for n in range(1, most)
                            if (numbers == n).any()]
    return {"first": curve(firsts), "answer": curve(answers), "own answer": float(answers.mean()),
            "another's": float((own * heard[other]).sum(axis=1)[far].mean()) if far.any() else None}


def elsewhere(places):
    """
    For each place, another with as many turns before it, of another dialogue: its index, and
    whether there is one.
    """
    same = {}
    for i, place in enumerate(places):
        same.setdefault(place.number, []).append(i)
    found = np.arange(len(places))
    for rows in same.values():
        found[rows] = np.roll(rows, -1)
    return found, found != np.arange(len(places))


# ------------------------------------------------------------------------------------------------
# leaving: at each answer, a person goes on or leaves


def leave_scores(p, places):
    """
    Chances of leaving p (NaN where nothing was told) against what people did, wherever an answer
    had been heard; None if no person is known to have left.

    "f1" of p >= 0.5; "curve" [(threshold, F1)], and its "best" point, chosen on these very places;
    "brier" (Brier 1950), the mean squared error of p, where p is a chance and not one decision;
    "reliability" [(p, share that left, places)]; "hazard", and that of "people", [(turns, p)].
    """
    fit = [i for i, place in enumerate(places) if place.before and place.before[-1]["from"] == "gpt"
           and not np.isnan(p[i])]
    p, y = np.asarray(p)[fit], np.array([places[i].said is None for i in fit], dtype=float)
    if not y.any():
        return None
    curve = [(t, f1(p >= t, y)) for t in np.linspace(0.05, 0.95, 19).round(2).tolist()]
    numbers = np.array([places[i].number for i in fit])
    # of who says yes or no, and never how likely, chances cannot be told
    sampled = set(p) <= {0.0, 1.0}
    return {"f1": f1(p >= 0.5, y), "best": max(curve, key=lambda point: point[1]),
            "brier": None if sampled else float(((p - y) ** 2).mean()),
            "reliability": reliability(p, y), "curve": curve,
            "hazard": hazard(numbers, p), "people": hazard(numbers, y)}


def f1(said, y):
    """The harmonic mean of precision and recall of leaving; 0 where nobody is said to leave."""
    hits = float((said * y).sum())
    return 2 * hits / float(said.sum() + y.sum()) if hits else 0.0


def reliability(p, y, bins=10):
    """Where leaving was given a chance of about this, how often did people leave? [(p, y, n)]"""
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    return [(float(p[bin_of == b].mean()), float(y[bin_of == b].mean()), int((bin_of == b).sum()))
            for b in range(bins) if (bin_of == b).any()]


def hazard(numbers, leaves, least=10):
    """The chance of leaving after so many turns, where there are enough places: [(turns, p)]."""
    return [(int(n), float(leaves[numbers == n].mean())) for n in np.unique(numbers)
            if (numbers == n).sum() >= least]


def by_number(places, learnt):
    """The chance of leaving by the number of turns alone, as it was in the reference (learnt)."""
    rate = {}
    for place in learnt:
        if place.before and place.before[-1]["from"] == "gpt":
            rate.setdefault(place.number, []).append(place.said is None)
    overall = np.mean([left for found in rate.values() for left in found])
    return np.array([np.mean(rate.get(place.number, [overall])) for place in places])


# ------------------------------------------------------------------------------------------------
# where an intent is given


def steering(said, places):
    """
    Does the intent steer? The share of its words of content that are said in the dialogue, beside
    the share of those of another dialogue's intent; and how much of a turn is copied from it. None
    without intents.
    """
    words, copied = {}, []
    for place, text in spoken(said, places):
        if place.intent:
            words.setdefault(place.dialogue, (place.intent, set()))[1].update(content(text))
            if content(text):
                copied.append(len(content(text) & content(place.intent)) / len(content(text)))
    found = [(content(intent), said) for intent, said in words.values() if content(intent)]
    # the next intent that is another
    others = [next((wanted for wanted, _ in found[i + 1:] + found[:i] if wanted != own), None)
              for i, (own, _) in enumerate(found)]
    if len(found) < 2 or None in others:
        return None
    cover = lambda wanted, said: len(wanted & said) / len(wanted)
    return {"own": float(np.mean([cover(wanted, said) for wanted, said in found])),
            "another's": float(np.mean([cover(wanted, said) for wanted, (_, said)
                                        in zip(others, found)])),
            "copied": float(np.mean(copied))}


# ------------------------------------------------------------------------------------------------
# whole dialogues, where a simulation was run


def dialogue_lengths(records, people):
    """How many turns dialogues have, against people's: mean, distances, chances of leaving."""
    ours, theirs = [np.array([sum(turn["from"] == "human" for turn in record["conversations"])
                              for record in found]) for found in (records, people)]

    def ended(counts, found):
        # who was cut off did not leave
        left = np.array([record.get("end") == "left" for record in found])
        return [(n, float(left[counts == n].sum() / (counts >= n).sum()))
                for n in range(1, 13) if (counts >= n).sum() >= 10]
    return {"dialogues": len(ours), "turns": float(ours.mean()), "people": float(theirs.mean()),
            "wasserstein": wasserstein(ours, theirs), "kolmogorov": kolmogorov(ours, theirs),
            "hazard": ended(ours, records), "hazard of people": ended(theirs, people)}


# ------------------------------------------------------------------------------------------------
# the card


def measure_user(said, places, reference, roles):
    """All measures of what a user said at these places, against the reference's places."""
    pairs = spoken(said, places)
    people = spoken([place.said for place in reference], reference)
    return {"turns": len(pairs), **{name: f(pairs) for name, f in MEASURES.items()},
            "more like people than like answers": roles.human(pairs), "topic": topic(pairs),
            "lengths": lengths(pairs, people), "detector": Detector(pairs, people).found(),
            "steering": steering(said, places)}


def ceiling(records):
    """
    How far people are from people: for each measure the gaps between two random halves, as
    {"mean", "largest"}, over SPLITS of them, none of which is that of the card.
    """
    gaps = {name: [] for name in [*MEASURES, *LENGTHS]}
    for split in range(1, 1 + SPLITS):
        sides = [spoken([place.said for place in half], half)
                 for half in map(human_turns, split_halves(records, split))]
        for name, f in MEASURES.items():
            ours, theirs = map(f, sides)
            gaps[name] += [abs(ours - theirs)] if None not in (ours, theirs) else []
        for name, value in lengths(*sides).items():
            gaps[name] += [value] if value is not None else []
    return {name: {"mean": float(np.mean(found)), "largest": float(max(found))}
            for name, found in gaps.items() if found}


def gaps_of(user, reference):
    """Of each measure with a ceiling, how far a user is from the reference."""
    found = {name: abs(user[name] - reference[name]) for name in MEASURES
             if None not in (user[name], reference[name])}
    return found | {name: value for name, value in user["lengths"].items() if value is not None}


def card_notes(users, reference, limits):
    """Where people were not the nearest to people, and why: sentences."""
    gaps = {name: gaps_of(user, reference) for name, user in users.items() if name != "random"}
    own, ties, found = gaps.pop("human"), [], []
    for measure in [measure for measure in limits if measure in own]:
        nearer = [name for name in gaps if gaps[name].get(measure, np.inf) < own[measure]]
        if nearer and own[measure] <= limits[measure]["largest"]:
            ties.append(f"{measure} ({', '.join(nearer)})")
        elif nearer:
            found.append(f"{measure}: {', '.join(nearer)} came nearer to people than people did; "
                         "these two halves of people differ more than most")
    told = {name: user["detector"] for name, user in users.items() if name != "random"}
    human = told.pop("human")
    if harder := [name for name, one in told.items() if None not in (one["auc"], human["auc"])
                  and one["auc"] < human["auc"]]:
        within = all(told[name]["auc"] >= human["low"] for name in harder)
        ties.append(f"told from people ({', '.join(harder)})") if within else found.append(
            f"told from people: {', '.join(harder)} less often than people, beyond people's "
            "interval: the two halves of people differ")
    if ties:
        found.insert(0, "ties, nearer to people than people were, but by less than halves of "
                     "people differ: " + ", ".join(ties))
    if not any(user.get("leaving") for user in users.values()):
        return found + ['leaving: no dialogue of these people says that its human left ("end": '
                        '"left"; data/formats/files.py writes that), so nothing can be told']
    return found + ["leaving: nobody can say what another person would have done at the same "
                    "place; the chance by the number of turns alone is the floor"]


# ------------------------------------------------------------------------------------------------
# the command: evaluate.py card


def flags(parser):
    add = parser.add_argument
    add("--user", required=True, help="whose card it is: as simulate.py --user")
    add("--human", required=True, metavar="FILE", help="dialogues of people, held out")
    add("--twin", metavar="DIR", help="the same base, trained on the answers")
    add("--beside", nargs="+", default=[], metavar="NAME=USER", type=name_and_value, help="further users")
    add("--simulated", nargs="+", default=[], metavar="NAME=FILE", type=name_and_value,
        help="what simulate.py wrote: whole dialogues of these users")
    add("--dialogues", type=positive_int, default=400, help="of people, at most (%(default)s)")
    add("--teacher", type=url, metavar="URL", help="a chat model: told to be a user "
        "(data/user.txt), it stands on the card, too; its key is read from OPENAI_API_KEY")
    add("--model", default="gpt-3.5-turbo", help="its name there (%(default)s)")
    add("--in-flight", type=positive_int, default=64, help="turns at a time (%(default)s)")
    add("--out", default="card.json", help="JSON file to write (%(default)s)")
    user_flags(parser)
    money_flags(parser)


PROMPTED = "prompt:data/user.txt"
OURS = {"user", "script", "prompted", "twin", "human", "random", "number"}


def card_users(args):
    """Who is put beside whom on the card: {name: word as for --user}."""
    if taken := OURS & {name for name, _ in args.beside}:
        raise UserError(f"{', '.join(taken)} is on the card already: take another name")
    found = {"user": args.user, "script": "script:follow-up"}
    if args.teacher and args.user != PROMPTED:
        found["prompted"] = PROMPTED
    if args.twin and not Path(args.twin).is_dir():
        raise UserError(f"--twin {args.twin} is no checkpoint directory")
    found |= {"twin": args.twin} if args.twin else {}
    return found | dict(args.beside)


def user_row(word, places, records, reference, roles, args, asked, expected):
    """One user's part of the card."""
    texts, failed = asked(word)
    found = measure_user(texts, places, reference, roles) | {"failed": failed}
    p = np.array([np.nan if text is None else float(not text) for text in texts])
    if Path(word).is_dir():
        found["surprise"], p = expected(word, records, places, args.blind and word == args.user)
        if word == args.user:
            p = np.array([scale_odds(chance, args.leave) for chance in p])
    return found | {"leaving": leave_scores(p, places)}


def make_card(args, asked_at, expected):
    """The whole card."""
    simulated = {name: list(read_dialogues(path)) for name, path in args.simulated}
    if empty := [name for name, found in simulated.items() if not found]:
        raise UserError(f"--simulated {empty[0]} holds no dialogues")
    people = readable_dialogues(args.human, args.dialogues,
                       [word for word in card_users(args).values() if Path(word).is_dir()])
    reference, records = split_halves(people)
    learnt, places = human_turns(reference), human_turns(records)
    own, roles = [place.said for place in places], Roles(learnt)
    users = {name: user_row(word, places, records, learnt, roles, args,
                          lambda word: asked_at(word, places), expected)
             for name, word in card_users(args).items()}
    # people themselves; what they said, at random places; who knows nothing but the turn's number
    users["human"] = measure_user(own, places, learnt, roles)
    spoke = [i for i, text in enumerate(own) if text]
    mixed = dict(zip(spoke, np.random.default_rng(0).permutation(spoke)))
    users["random"] = measure_user([own[mixed[i]] if i in mixed else None for i in range(len(own))],
                               places, learnt, roles)
    users["number"] = {"leaving": leave_scores(by_number(places, learnt), places)}
    for name, found in simulated.items():
        users.setdefault(name, {})["dialogues"] = dialogue_lengths(found, people)
    limits = ceiling(people)
    seen = {name: f(spoken([place.said for place in learnt], learnt))
            for name, f in MEASURES.items()}
    return {"version": VERSION, "people": {
        "file": content_of(Path(args.human)), "dialogues": len(people), "places": len(places)},
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "who": card_users(args), "reference": seen, "ceiling": limits, "users": users,
        "notes": card_notes({name: user for name, user in users.items() if "lengths" in user},
                       seen, limits)}


def command(args, expected):
    """
    Make a card. expected(directory, records, places, blind) tells how surprised a trained user is
    by what people say, and how likely it leaves at each place.
    """
    stop = threading.Event()
    journal, client_for = open_journal(args, stop, args.teacher)
    try:
        found = make_card(args, partial(ask_at_turns, args=args, client_for=client_for,
                                        journal=journal, stop=stop),
                        expected)
    finally:
        journal.close()
    write_json(args.out, found)
    print("\n".join([*card_lines(found), "", f"all numbers: {args.out}"]))
