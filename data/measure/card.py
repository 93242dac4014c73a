"""
The report card of a user simulator: how human-like is it, and does it listen?

Held-out dialogues of people are split in two. One half is the reference. For every human turn in
the other half, the simulator gets the same history and writes that turn, or leaves; its turns are
compared with the people's turns of the reference. The people of the second half are measured in the
same way: human against human is the ceiling.

Below, `pairs` are turns with their texts, [(HumanTurn, text), ...]; for a simulated user the text
is its own, and the HumanTurn says where in which dialogue it was written.
"""

from pathlib import Path

import numpy as np

from data.api.budget import money_flags
from data.formats.files import read_dialogues
from data.measure.turns import ask_at_turns, human_turns, readable_dialogues, split_halves
from data.program import UserError, file_hash, name_and_value, positive_int, url
from data.text_metrics import (LEAKS, SERVES, SHAPE, auc, content, distinct, grams_in,
                               jaccard_diversity, kolmogorov, logistic, mtld, out_of_fold, vectors,
                               wasserstein, words_of)
from data.users import scale_odds, user_flags

VERSION = 1
# random halves of people that measure how far people are from people
SPLITS = 20
# most turns of each side that a classifier learns from
MAX_TURNS = 1500
# fewest turns of each side for which a classifier is trained
MIN_TURNS = 20


def pair_texts(texts, turns):
    """Pair human turns with their texts, without those where nothing was said."""
    return [(turn, text) for turn, text in zip(turns, texts) if text]


def people_pairs(turns):
    """Pair human turns with what the people themselves said there."""
    return pair_texts([turn.text for turn in turns], turns)


def follows_answer(turn):
    """Whether a HumanTurn comes right after an answer."""
    return bool(turn.before) and turn.before[-1]["from"] == "gpt"


def first_human_text(turn):
    """The text of the first human turn in the history of a HumanTurn; "" if there is none."""
    for earlier in turn.before:
        if earlier["from"] == "human":
            return earlier["value"]
    return ""


# ------------------------------------------------------------------------------------------------
# measures of pairs: one number each, None if it cannot be computed


def share_of(test):
    """Make a measure(pairs): the share of texts for which test(text) is true."""
    def measure(pairs):
        passed = [bool(test(text)) for _, text in pairs]
        return float(np.mean(passed)) if passed else None
    return measure


def words_a_turn(pairs):
    """The mean number of words of a turn."""
    counts = [len(words_of(text)) for _, text in pairs]
    return float(np.mean(counts)) if counts else None


def mtld_of_turns(pairs):
    """Lexical diversity (text_metrics.mtld) of all turns, one after another."""
    words = []
    for _, text in pairs:
        words += words_of(text)
    return mtld(words)


def different_pairs(pairs):
    """The share of different pairs of neighbouring words (text_metrics.distinct)."""
    return distinct([words_of(text) for _, text in pairs])


def variety_of_first_turns(pairs, most=500):
    """1 minus the mean Jaccard similarity of the words of two of the first `most` first turns."""
    first_turns = [text for turn, text in pairs if turn.number == 0]
    return jaccard_diversity(first_turns[:most])


def share_of_repeats(pairs):
    """The share of later turns that repeat, word for word, a turn of either side before them."""
    repeats = []
    for turn, text in pairs:
        if turn.number > 0:
            repeats.append(text in [earlier["value"] for earlier in turn.before])
    return float(np.mean(repeats)) if repeats else None


def first_turn_words(pairs):
    """The mean share of a later turn's content words that are in the dialogue's first turn."""
    shares = []
    for turn, text in pairs:
        words = content(text)
        if turn.number > 0 and words and first_human_text(turn):
            shares.append(len(words & content(first_human_text(turn))) / len(words))
    return float(np.mean(shares)) if shares else None


MEASURES = {
    "words a turn": words_a_turn,
    **{name: share_of(test) for name, test in SHAPE.items()},
    "MTLD of all turns": mtld_of_turns,
    "different pairs of words": different_pairs,
    "variety of first turns": variety_of_first_turns,
    "first turn's words in later ones": first_turn_words,
    "says the same again": share_of_repeats,
    "leaks a role or a mark": share_of(LEAKS.search),
    "serves like an assistant": share_of(SERVES.search),
}


# ------------------------------------------------------------------------------------------------
# measures that compare with the turns of people


LENGTHS = {"words a turn: Wasserstein": wasserstein, "words a turn: Kolmogorov": kolmogorov}


def length_distances(pairs, people):
    """How far the lengths of turns in words are from people's: {name of the distance: number}."""
    sizes = [len(words_of(text)) for _, text in pairs]
    people_sizes = [len(words_of(text)) for _, text in people]
    if not sizes or not people_sizes:
        return dict.fromkeys(LENGTHS)
    return {name: distance(sizes, people_sizes) for name, distance in LENGTHS.items()}


def match_lengths(texts, others, seed=0):
    """
    Choose texts from two lists so that each length in words is as frequent in both.

    Returns the indices into the first list and those into the second.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([len(words_of(text)) for text in texts])
    other_sizes = np.array([len(words_of(text)) for text in others])
    chosen, other_chosen = [], []
    for size in set(sizes.tolist()) & set(other_sizes.tolist()):
        same = np.flatnonzero(sizes == size)
        other_same = np.flatnonzero(other_sizes == size)
        n = min(len(same), len(other_same))
        chosen += rng.permutation(same)[:n].tolist()
        other_chosen += rng.permutation(other_same)[:n].tolist()
    return chosen, other_chosen


class Detector:
    """
    A classifier that tells a user's turns from people's, tested on dialogues that it has not seen.

    Its AUC is 0.5 if it cannot tell them apart, and 1 if it always can. pairs: the user's turns;
    people: the reference's.
    """

    def __init__(self, pairs, people):
        pairs, people = self.sample(pairs), self.sample(people)
        self.n_user, self.n_people = len(pairs), len(people)
        # people's turns come first, in all of these
        self.texts = [text for _, text in people + pairs]
        self.x = vectors(self.texts)                                 # (N, 4096)
        self.y = np.r_[np.zeros(len(people)), np.ones(len(pairs))]   # 1: the user's
        names = [f"people {turn.dialogue}" for turn, _ in people]
        names += [f"user {turn.dialogue}" for turn, _ in pairs]
        self.groups = np.array(names)

    @staticmethod
    def sample(pairs):
        """MAX_TURNS of the pairs at random, in their old order."""
        chosen = np.random.default_rng(0).permutation(len(pairs))[:MAX_TURNS]
        return [pairs[i] for i in sorted(chosen)]

    def results(self):
        """
        Train and test it: {"auc", "low", "high", "matched", "telltales"}.

        "matched" is auc_at_equal_lengths, "telltales" top_ngrams. None and [] for too few turns.
        """
        if min(self.n_user, self.n_people) < MIN_TURNS:
            return {"auc": None, "low": None, "high": None, "matched": None, "telltales": []}
        scores = out_of_fold(self.x, self.y, self.groups)
        low, high = self.interval(scores)
        return {"auc": auc(scores, self.y), "low": low, "high": high,
                "matched": self.auc_at_equal_lengths(), "telltales": self.top_ngrams()}

    def interval(self, scores, draws=300):
        """The 95 % interval of the AUC over dialogues, for scores (N,) of a fixed classifier."""
        names, group = np.unique(self.groups, return_inverse=True)
        rows_of = [np.flatnonzero(group == i) for i in range(len(names))]
        rng = np.random.default_rng(0)
        values = []
        for _ in range(draws):
            picks = rng.integers(len(rows_of), size=len(rows_of))
            rows = np.concatenate([rows_of[i] for i in picks])
            value = auc(scores[rows], self.y[rows])
            if value is not None:
                values.append(value)
        return np.percentile(values, [2.5, 97.5]).tolist()

    def auc_at_equal_lengths(self):
        """The AUC over turns of the same lengths on both sides; None for too few."""
        n = self.n_people
        user_rows, people_rows = match_lengths(self.texts[n:], self.texts[:n])
        if len(user_rows) < MIN_TURNS:
            return None
        rows = np.array(people_rows + [n + i for i in user_rows], dtype=int)
        scores = out_of_fold(self.x[rows], self.y[rows], self.groups[rows])
        return auc(scores, self.y[rows])

    def top_ngrams(self, most=6):
        """The character n-grams that give the user away: [text, ...], the strongest first."""
        weights, _ = logistic(self.x, self.y)
        # a feature's mean contribution to the score of the user's turns
        contributions = weights * self.x[self.y == 1].mean(axis=0)
        top = np.argsort(-contributions)[:most].tolist()
        grams = grams_in(self.texts[self.n_people:], set(top))
        return [grams[i] for i in top if i in grams]


class RoleClassifier:
    """A classifier of people's turns against answers, trained on the reference's human turns."""

    def __init__(self, turns):
        people = [turn.text for turn in turns if turn.text][:MAX_TURNS]
        answers = [turn.before[-1]["value"] for turn in turns if follows_answer(turn)][:MAX_TURNS]
        self.is_trained = bool(people and answers)
        if self.is_trained:
            y = np.r_[np.ones(len(people)), np.zeros(len(answers))]
            self.weights, self.bias = logistic(vectors([*people, *answers]), y)

    def human_share(self, pairs):
        """The share of turns that are classified as a human's, not as an answer; or None."""
        if not pairs or not self.is_trained:
            return None
        scores = vectors([text for _, text in pairs]) @ self.weights + self.bias
        return float((scores > 0).mean())


def topic_similarity(pairs, most=6):
    """
    Measure how a dialogue keeps to its topic, by cosine similarities of its later human turns.

    "first" and "answer": the mean similarity to the dialogue's first turn, and to the answer before
    the turn, by number of the turn from 1 up to `most` - 1; "own answer": the latter over all
    turns; "another's": the similarity to the answer before a turn of another dialogue, which is
    lower for a user that listens.
    """
    later = [(turn, text) for turn, text in pairs
             if turn.number > 0 and follows_answer(turn) and first_human_text(turn)]
    if not later:
        return {"first": [], "answer": [], "own answer": None, "another's": None}
    turns = [turn for turn, _ in later]
    own = vectors([text for _, text in later])                       # (N, 4096)
    first = vectors([first_human_text(turn) for turn in turns])
    answer = vectors([turn.before[-1]["value"] for turn in turns])
    # rows have length 1: the sum of products is the cosine
    to_first = (own * first).sum(axis=1)
    to_answer = (own * answer).sum(axis=1)
    other, has_other = other_dialogue(turns)
    to_other = (own * answer[other]).sum(axis=1)[has_other]

    numbers = np.array([turn.number for turn in turns])
    first_curve, answer_curve = [], []
    for n in range(1, most):
        if (numbers == n).any():
            first_curve.append(float(to_first[numbers == n].mean()))
            answer_curve.append(float(to_answer[numbers == n].mean()))
    return {"first": first_curve, "answer": answer_curve, "own answer": float(to_answer.mean()),
            "another's": float(to_other.mean()) if has_other.any() else None}


def other_dialogue(turns):
    """
    For each human turn, pick one of the same number in another dialogue.

    Returns its index (N,), and whether there is one (N,).
    """
    same_number = {}
    for i, turn in enumerate(turns):
        same_number.setdefault(turn.number, []).append(i)
    other = np.arange(len(turns))
    for rows in same_number.values():
        # each turn gets the next one, the last the first
        other[rows] = np.roll(rows, -1)
    return other, other != np.arange(len(turns))


# ------------------------------------------------------------------------------------------------
# leaving: after each answer, a person goes on or leaves


def leave_scores(p, turns):
    """
    Score probabilities of leaving p (NaN: unknown) against what people did, after answers.

    "f1": of p >= 0.5; "curve": [(threshold, F1)] and its "best" point, chosen on these very turns;
    "brier": the mean squared error of p (Brier 1950), None if p is but one decision for each turn;
    "reliability" [(p, share that left, turns)]; "hazard" and that of "people": [(turns before,
    probability of leaving)]. None if no person is known to have left.
    """
    rows = [i for i, turn in enumerate(turns) if follows_answer(turn) and not np.isnan(p[i])]
    p = np.asarray(p)[rows]
    left = np.array([turns[i].text is None for i in rows], dtype=float)
    if not left.any():
        return None
    thresholds = np.linspace(0.05, 0.95, 19).round(2).tolist()
    curve = [(threshold, f1(p >= threshold, left)) for threshold in thresholds]
    numbers = np.array([turns[i].number for i in rows])
    # 0 and 1 alone are sampled decisions, not probabilities
    is_sampled = set(p) <= {0.0, 1.0}
    return {"f1": f1(p >= 0.5, left), "best": max(curve, key=lambda point: point[1]),
            "brier": None if is_sampled else float(((p - left) ** 2).mean()),
            "reliability": reliability(p, left), "curve": curve,
            "hazard": hazard(numbers, p), "people": hazard(numbers, left)}


def f1(predicted, left):
    """F1 of predicted leaving (N,), the harmonic mean of precision and recall; 0 without a hit."""
    hits = float((predicted * left).sum())
    return 2 * hits / float(predicted.sum() + left.sum()) if hits else 0.0


def reliability(p, left, bins=10):
    """Group turns by predicted probability: [(mean p, share that left, number of turns)]."""
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    rows = []
    for b in range(bins):
        members = bin_of == b
        if members.any():
            rows.append((float(p[members].mean()), float(left[members].mean()),
                         int(members.sum())))
    return rows


def hazard(numbers, leaves, least=10):
    """
    The probability of leaving by the number of turns before: [(turns, probability)].

    numbers, leaves (N): of each human turn; numbers with fewer than `least` turns are left out.
    """
    rows = []
    for n in np.unique(numbers):
        if (numbers == n).sum() >= least:
            rows.append((int(n), float(leaves[numbers == n].mean())))
    return rows


def leave_rates_by_number(turns, reference):
    """Predict leaving (N,) from the number of a turn alone, as it was in the reference's turns."""
    outcomes_of = {}
    for turn in reference:
        if follows_answer(turn):
            outcomes_of.setdefault(turn.number, []).append(turn.text is None)
    overall = np.mean([left for outcomes in outcomes_of.values() for left in outcomes])
    return np.array([np.mean(outcomes_of.get(turn.number, [overall])) for turn in turns])


# ------------------------------------------------------------------------------------------------
# intents, and whole simulated dialogues


def steering(texts, turns):
    """
    Measure how much of the given intents users say.

    "own": the mean share of an intent's content words that are said in its dialogue; "another's":
    the same for the intent of another dialogue; "copied": the mean share of a turn's content words
    that are the intent's. None without two different intents.
    """
    said_in, copied = {}, []
    for turn, text in pair_texts(texts, turns):
        if turn.intent:
            _, words = said_in.setdefault(turn.dialogue, (turn.intent, set()))
            words.update(content(text))
            if content(text):
                copied.append(len(content(text) & content(turn.intent)) / len(content(text)))
    dialogues = [(content(intent), words) for intent, words in said_in.values() if content(intent)]
    own, other = [], []
    for i, (intent, words) in enumerate(dialogues):
        own.append(len(intent & words) / len(intent))
        # the next intent that is a different one
        for another, _ in dialogues[i + 1:] + dialogues[:i]:
            if another != intent:
                other.append(len(another & words) / len(another))
                break
    if len(own) < 2 or len(other) < len(own):
        return None
    return {"own": float(np.mean(own)), "another's": float(np.mean(other)),
            "copied": float(np.mean(copied))}


def dialogue_lengths(records, people):
    """Compare the numbers of human turns of simulated dialogues with people's."""
    counts, hazards = [], []
    for side in (records, people):
        turns = np.array([sum(turn["from"] == "human" for turn in record["conversations"])
                          for record in side])
        # a dialogue that was cut off is no decision to leave
        left = np.array([record.get("end") == "left" for record in side])
        curve = []
        for n in range(1, 13):
            if (turns >= n).sum() >= 10:
                curve.append((n, float(left[turns == n].sum() / (turns >= n).sum())))
        counts.append(turns)
        hazards.append(curve)
    return {"dialogues": len(records), "turns": float(counts[0].mean()),
            "people": float(counts[1].mean()),
            "wasserstein": wasserstein(*counts), "kolmogorov": kolmogorov(*counts),
            "hazard": hazards[0], "hazard of people": hazards[1]}


# ------------------------------------------------------------------------------------------------
# the card


def measure_user(texts, turns, reference, roles):
    """
    Compute all measures of one user's texts at some human turns: {measure: number or more}.

    reference: the human turns of the reference; roles: a RoleClassifier.
    """
    pairs = pair_texts(texts, turns)
    people = people_pairs(reference)
    numbers = {"turns": len(pairs)}
    for name, measure in MEASURES.items():
        numbers[name] = measure(pairs)
    return numbers | {
        "more like people than like answers": roles.human_share(pairs),
        "topic": topic_similarity(pairs), "lengths": length_distances(pairs, people),
        "detector": Detector(pairs, people).results(), "steering": steering(texts, turns)}


def ceiling(records):
    """
    Measure how far people are from people: {measure: {"mean", "largest"}}.

    These are the gaps between two random halves of the dialogues, over SPLITS splits; the split of
    the card itself is not among them.
    """
    gaps_of = {}
    for split in range(1, 1 + SPLITS):
        first, second = [people_pairs(human_turns(half)) for half in split_halves(records, split)]
        gaps = length_distances(first, second)
        for name, measure in MEASURES.items():
            a, b = measure(first), measure(second)
            gaps[name] = None if a is None or b is None else abs(a - b)
        for name, gap in gaps.items():
            if gap is not None:
                gaps_of.setdefault(name, []).append(gap)
    return {name: {"mean": float(np.mean(gaps_of[name])), "largest": float(max(gaps_of[name]))}
            for name in [*MEASURES, *LENGTHS] if name in gaps_of}


def gaps_to_reference(user, reference):
    """How far a user's numbers are from the reference's: {measure: gap}, of those known of both."""
    gaps = {}
    for name in MEASURES:
        if user[name] is not None and reference[name] is not None:
            gaps[name] = abs(user[name] - reference[name])
    for name, distance in user["lengths"].items():
        if distance is not None:
            gaps[name] = distance
    return gaps


def card_notes(users, reference, limits):
    """
    Write sentences on the measures by which a user is nearer to people than people, and on leaving.

    users: {name: measure_user's numbers}, "human" among them; reference: the numbers of the
    reference; limits: as of `ceiling`.
    """
    others = [name for name in users if name not in ("human", "random")]
    gaps_of = {name: gaps_to_reference(users[name], reference) for name in others}
    human_gaps = gaps_to_reference(users["human"], reference)
    ties, notes = [], []
    for measure in limits:
        if measure not in human_gaps:
            continue
        gap = human_gaps[measure]
        nearer = [name for name in others if gaps_of[name].get(measure, np.inf) < gap]
        if nearer and gap <= limits[measure]["largest"]:
            ties.append(f"{measure} ({', '.join(nearer)})")
        elif nearer:
            notes.append(f"{measure}: {', '.join(nearer)} came nearer to people than people did; "
                         "these two halves of people differ more than most")

    human = users["human"]["detector"]
    aucs = {name: users[name]["detector"]["auc"] for name in others}
    harder = [name for name in others if None not in (aucs[name], human["auc"])
              and aucs[name] < human["auc"]]
    if harder and all(aucs[name] >= human["low"] for name in harder):
        ties.append(f"told from people ({', '.join(harder)})")
    elif harder:
        notes.append(f"told from people: {', '.join(harder)} less often than people, beyond "
                     "people's interval: the two halves of people differ")
    if ties:
        notes.insert(0, "ties, nearer to people than people were, but by less than halves of "
                        "people differ: " + ", ".join(ties))
    if any(user.get("leaving") for user in users.values()):
        notes.append("leaving: nobody can say what another person would have done at the same "
                     "place; the chance by the number of turns alone is the floor")
    else:
        notes.append('leaving: no dialogue of these people says that its human left ("end": '
                     '"left"; data/formats/files.py writes that), so nothing can be told')
    return notes


PROMPTED = "prompt:data/user.txt"
OURS = {"user", "script", "prompted", "twin", "human", "random", "number"}


def card_users(user, twin=None, teacher=None, others=()):
    """
    The users of a card: {name: the word that --user would take}.

    user: whose card it is; twin: a checkpoint directory; teacher: the address of a chat model that
    is prompted to be a user; others: [(name, word), ...].
    """
    taken = OURS & {name for name, _ in others}
    if taken:
        raise UserError(f"{', '.join(taken)} is on the card already: take another name")
    users = {"user": user, "script": "script:follow-up"}
    if teacher and user != PROMPTED:
        users["prompted"] = PROMPTED
    if twin and not Path(twin).is_dir():
        raise UserError(f"--twin {twin} is no checkpoint directory")
    if twin:
        users["twin"] = twin
    return users | dict(others)


def read_simulated(files):
    """Read the simulated dialogues of [(name, path), ...]: {name: records}."""
    records_of = {}
    for name, path in files:
        records_of[name] = list(read_dialogues(path))
        if not records_of[name]:
            raise UserError(f"--simulated {name} holds no dialogues")
    return records_of


def make_card(users, human, most, simulated, settings, client_for, journal, stop):
    """
    Measure users and people, and put all numbers of a card together.

    users: as of card_users; human: the file of people's dialogues, of which `most` are read;
    simulated: as of read_simulated; settings: turns.AskSettings; client_for, journal, stop: as of
    judge.open_journal.
    """
    # here, as it imports torch, which takes seconds and only cards need
    from data.measure.likelihood import UserLikelihoods
    directories = [word for word in users.values() if Path(word).is_dir()]
    people = readable_dialogues(human, most, directories)
    reference_records, records = split_halves(people)
    reference, turns = human_turns(reference_records), human_turns(records)
    roles, likelihoods = RoleClassifier(reference), UserLikelihoods()
    results = {}
    for name, word in users.items():
        # --blind is about the user whose card it is; --leave shapes what every trained user writes,
        # but the probabilities of leaving (p) of this user only
        is_own = word == users["user"]
        blind = settings.user.blind and is_own
        texts, failures = ask_at_turns(word, turns, settings, blind, client_for, journal, stop)
        row = measure_user(texts, turns, reference, roles) | {"failed": failures}
        p = np.array([np.nan if text is None else float(not text) for text in texts])
        if word in directories:
            row["surprise"], p = likelihoods.measure(word, records, turns, blind)
            if is_own:
                p = np.array([scale_odds(chance, settings.user.leave) for chance in p])
        results[name] = row | {"leaving": leave_scores(p, turns)}

    own_texts = [turn.text for turn in turns]
    results["human"] = measure_user(own_texts, turns, reference, roles)
    # "random": people's own texts, each at another human turn
    spoke = [i for i, text in enumerate(own_texts) if text]
    shuffled = [None] * len(own_texts)
    for i, j in zip(spoke, np.random.default_rng(0).permutation(spoke)):
        shuffled[i] = own_texts[j]
    results["random"] = measure_user(shuffled, turns, reference, roles)
    results["number"] = {"leaving": leave_scores(leave_rates_by_number(turns, reference), turns)}
    for name, dialogues in simulated.items():
        results.setdefault(name, {})["dialogues"] = dialogue_lengths(dialogues, people)

    limits = ceiling(people)
    numbers = {name: measure(people_pairs(reference)) for name, measure in MEASURES.items()}
    measured = {name: row for name, row in results.items() if "lengths" in row}
    return {"version": VERSION,
            "people": {"file": file_hash(Path(human)), "dialogues": len(people),
                       "places": len(turns)},
            "settings": settings.deciding(), "who": users, "reference": numbers,
            "ceiling": limits, "users": results, "notes": card_notes(measured, numbers, limits)}


def add_card_arguments(parser):
    """Add the flags of evaluate.py card to a parser."""
    add = parser.add_argument
    add("--user", required=True, help="whose card it is: as simulate.py --user")
    add("--human", required=True, metavar="FILE", help="dialogues of people, held out")
    add("--twin", metavar="DIR", help="the same base, trained on the answers")
    add("--beside", nargs="+", default=[], metavar="NAME=USER", type=name_and_value,
        help="further users")
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
