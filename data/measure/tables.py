"""
Results as text, for a terminal: each function takes what was found and gives lines.

Not here: the finding (evaluate.py), the page (report.py).
"""

# the columns of the table: what each is called there, and in results.json
COLUMNS = {"of 10": "rating", "asked": "asked", "never": "never_asked", "turn 1": "turn1",
           "turn 2": "turn2", "formal": "formal", "vicuna": "vicuna", "gold": "gold",
           "ends": "completed"}


def number(x, digits=3, sign=""):
    """A number in a table: 1,234, 0.123 or 12.3; a dash for none."""
    if x is None or isinstance(x, int):
        return "-" if x is None else f"{x:,}"
    return f"{x:{sign}.{digits if abs(x) < 10 else min(1, digits)}f}"


def p_value(p):
    """A p-value: 0.036, or <0.001; a dash for none."""
    return "<0.001" if p is not None and p < 0.001 else number(p)


def interval(found, digits=3, sign=""):
    """[-0.020, +0.031]"""
    return f"[{number(found['low'], digits, sign)}, {number(found['high'], digits, sign)}]"


def arm_lines(results):
    """The results as lines: an arm each, best first; kinds of turn; the differences."""
    arms = dict(sorted(results["arms"].items(), key=lambda item: -(item[1]["overall"] or 0)))
    if not arms:
        return [f"{results['questions']} questions, judged in pairs alone"]
    held = [word for word, key in COLUMNS.items()
            if any(arm.get(key) is not None for arm in arms.values())]
    lines = [f"{results['questions']} questions; scores from 0 to 1; 95 % intervals over questions"]
    if "never" in held:
        lines.append("asked: about what the people in the data ask; never: about what they never "
                     "ask")
    else:
        held = [word for word in held if word != "asked"]
    lines += ["", f"{'arm':<11}{'overall':>7}  {'interval':^14}" + "".join(f"{w:>8}" for w in held)]
    for name, arm in arms.items():
        lines.append(f"{name:<11}{number(arm['overall']):>7}  {number(arm['low'])} to "
                     f"{number(arm['high'])}"
                     + "".join(f"{number(arm.get(COLUMNS[word])):>8}" for word in held))
    for what in ("categories", "kinds"):
        names = list(next(iter(arms.values()))[what])
        lines += ["", f"{what:<11}" + "".join(f"{name[:9]:>10}" for name in names)] if names else []
        lines += [f"{name:<11}" + "".join(f"{number(arm[what][key]):>10}" for key in names)
                  for name, arm in arms.items()] if names else []
    lines.append("")
    for name, arm in arms.items():
        if arm["failed"]:
            lines.append(f"{name}: {arm['failed']} judgments failed; had all been the worst, or "
                         f"the best: {arm['worst']:.3f} to {arm['best']:.3f}")
    for name, pair in results["paired"].items():
        lines.append(f"{name:<24} {pair['difference']:+.3f}  {interval(pair, sign='+')}  "
                     f"p {p_value(pair['p'])}")
    return lines


def pair_lines(duels):
    """Pairs as lines: how often the first won, and how far the judge can be believed."""
    if not duels:
        return []
    lines = ["", "pairs, each judged in both orders: a win counts where both agree; 95 % intervals "
             "over questions", f"{'':<22}{'win':>5}{'tie':>5}{'loss':>5}{'win+tie/2':>10}"
             f"{'':>16}{'p':>6}{'at equal length':>17}{'':>12}{'flips':>6}{'first':>6}"]
    for found in duels:
        name = f"{found['model_1']}-{found['model_2']}"
        even = found["controlled"] or {"rate": None, "low": None, "high": None}
        lines.append(f"{name:<22}{found['wins']:>5}{found['ties']:>5}{found['losses']:>5}"
                     f"{number(found['adjusted']):>10} {interval(found):<14}{p_value(found['p']):>7}"
                     f"{number(even['rate']):>12} {interval(even):<14}{number(found['flips'], 2):>6}"
                     f"{number(found['first'], 2):>6}")
        if found["failed"]:
            lines.append(f"{name:<22}{found['failed']} judgments failed; had all been losses, or "
                         f"wins: {found['worst']:.3f} to {found['best']:.3f}")
    return lines + ["flips: the two orders do not agree; first: of the games that somebody won, "
                    "who stood first (0.5: the place does not matter)"]


def vote_lines(votes):
    """The judge against human votes, as lines."""
    lines = []
    for words, found in (("all votes", (votes or {}).get("all")),
                         ("without ties", (votes or {}).get("without_ties"))):
        if found:
            lines.append(f"judge and people agree, {words}: {found['agreed']:.3f} "
                         f"{interval(found)} of {found['n']:,}, kappa {number(found['kappa'])}")
    if votes and not lines:
        return ["", "no human vote is about a pair that was judged"]
    return ["", *lines] if lines else []


def column_lines(found):
    """{set: {measure: number}} as lines: a measure each, a column for each set."""
    names = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    width = 2 + max(8, *map(len, found))
    names = [name for name in names if any(row.get(name) is not None for row in found.values())]
    return ["".join([f"{'':<44}", *(f"{name:>{width}}" for name in found)])] + [
        "".join([f"{name:<44}", *(f"{number(row.get(name)):>{width}}" for row in found.values())])
        for name in names]


def flat_user(user):
    """A user's part of a card as {measure: number}."""
    found = {name: value for name, value in user.items()
             if value is None or isinstance(value, (int, float))}
    if user.get("failed"):
        found["turns that came to nothing"] = sum(user["failed"].values())
    if "topic" in user:
        found |= {"nearness to the answer before": user["topic"]["own answer"],
                  "nearness to another's answer": user["topic"]["another's"],
                  **user["lengths"], "told from people: AUC": user["detector"]["auc"],
                  "told at equal lengths: AUC": user["detector"]["matched"]}
    if user.get("steering"):
        found |= {"intent's words said": user["steering"]["own"],
                  "another intent's words said": user["steering"]["another's"],
                  "copied from the intent": user["steering"]["copied"]}
    if user.get("leaving"):
        left = user["leaving"]
        found |= {"leaving: F1 at 0.5": left["f1"], "leaving: best F1": left["best"][1],
                  "leaving: Brier": left["brier"]}
    if "surprise" in user:
        found["bits per byte of people"] = user["surprise"]["bits"]["mean"]
        if "more" in user["surprise"]:
            found["more than by the user"] = user["surprise"]["more"]["mean"]
        for way in ("blanked", "exchanged"):
            found[f"more if answers are {way}"] = user["surprise"][way]["mean"]
        if "without intent" in user["surprise"]:
            found["more without the intent"] = user["surprise"]["without intent"]["mean"]
    if "dialogues" in user:
        whole = user["dialogues"]
        found |= {"turns a simulated dialogue": whole["turns"],
                  "turns a dialogue: Wasserstein": whole["wasserstein"],
                  "turns a dialogue: Kolmogorov": whole["kolmogorov"]}
    return found


def card_lines(card):
    """A card as lines: a measure each; people themselves first."""
    order = ["human", "user", *(name for name in card["users"] if name not in ("human", "user"))]
    users = {name: flat_user(card["users"][name]) for name in order}
    lines = [f"{card['people']['dialogues']} dialogues of people: half of them the reference, "
             f"{card['people']['places']} places of the others asked at",
             *(f"{name}: {word}" for name, word in card["who"].items()),
             "random: what people said, at other places; number: leaving by the number of turns "
             "alone", "",
             *column_lines({"reference": card["reference"], **users}), ""]
    for name in order:
        found = card["users"][name].get("detector", {})
        # who cannot be told from people is not given away
        if found.get("telltales") and found["low"] > 0.5:
            lines.append(f"{name + ' given away by':<22}"
                         + "  ".join(f"{text!r}" for text in found["telltales"]))
    for name in order:
        if more := card["users"][name].get("surprise", {}).get("more"):
            lines.append(f"{name}: {more['mean']:+.3f} bits per byte of people more than by the "
                         f"user {interval(more, 3, '+')}, paired by dialogue")
    if found := card["users"]["user"].get("surprise"):
        lines += ["", f"{'later turns of people, bits per byte':<38}{'turns':>7}{'heard':>8}"
                  f"{'answers blanked':>26}{'exchanged':>26}"]
        lines += [f"{name:<38}{kind['turns']:>7}{kind['bits']:>8.3f}"
                  + "".join(f"{number(kind[way]['mean'], 3, '+'):>9} {interval(kind[way], 3, '+'):<16}"
                            for way in ("blanked", "exchanged"))
                  for name, kind in found["kinds"].items() if kind["turns"] >= 10]
    return lines + ["", *card["notes"]]
