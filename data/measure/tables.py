"""
Results as text for a terminal: each function takes results and gives a list of lines.
"""

# the columns of the table of arms: the heading, and the key in results.json
COLUMNS = {"of 10": "rating", "turn 1": "turn1", "turn 2": "turn2", "vicuna": "vicuna"}


def number(x, digits=3, sign=""):
    """Format a number for a table: 1,234, 0.123 or 12.3; a dash for None. sign="+" shows plus."""
    if x is None:
        return "-"
    if isinstance(x, int):
        return f"{x:,}"
    if abs(x) >= 10:
        digits = min(1, digits)
    return f"{x:{sign}.{digits}f}"


def p_value(p):
    """Format a p-value: 0.036, or <0.001; a dash for None."""
    return "<0.001" if p is not None and p < 0.001 else number(p)


def interval(row, digits=3, sign=""):
    """Format the interval of {"low", "high"}: [-0.020, +0.031]."""
    return f"[{number(row['low'], digits, sign)}, {number(row['high'], digits, sign)}]"


def cells(values, width):
    """Texts side by side, each at the right of a cell of some width."""
    return "".join(f"{value:>{width}}" for value in values)


# ------------------------------------------------------------------------------------------------
# evaluate.py score


def arm_lines(results):
    """The tables of results.json: a line for each arm, the best first; groups; differences."""
    if not results["arms"]:
        return [f"{results['questions']} questions, judged in pairs alone"]
    by_score = sorted(results["arms"].items(), key=lambda item: -(item[1]["overall"] or 0))
    arms = dict(by_score)
    headings = []
    for heading, key in COLUMNS.items():
        if any(arm.get(key) is not None for arm in arms.values()):
            headings.append(heading)
    lines = [f"{results['questions']} questions; scores from 0 to 1; 95 % intervals over questions"]
    width = max(11, 2 + max(map(len, arms)))
    lines += ["", f"{'arm':<{width}}{'overall':>7}  {'interval':^14}" + cells(headings, 8)]
    for name, arm in arms.items():
        values = [number(arm.get(COLUMNS[heading])) for heading in headings]
        lines.append(f"{name:<{width}}{number(arm['overall']):>7}  {number(arm['low'])} to "
                     f"{number(arm['high'])}" + cells(values, 8))
    for group in ("groups", "categories", "kinds"):
        names = list(next(iter(arms.values()))[group])
        if names:
            lines += ["", f"{group:<{width}}" + cells([name[:9] for name in names], 10)]
            for name, arm in arms.items():
                values = [number(arm[group][key]) for key in names]
                lines.append(f"{name:<{width}}" + cells(values, 10))
    lines.append("")
    for name, arm in arms.items():
        if arm["failed"]:
            lines.append(f"{name}: {arm['failed']} judgments failed; had all been the worst, or "
                         f"the best: {arm['worst']:.3f} to {arm['best']:.3f}")
    width = max(24, 1 + max(map(len, results["paired"]), default=0))
    for name, pair in results["paired"].items():
        lines.append(f"{name:<{width}} {pair['difference']:+.3f}  {interval(pair, sign='+')}  "
                     f"p {p_value(pair['p'])}")
    return lines


def pair_lines(pairs):
    """The table of pairwise comparisons: how often model 1 won, how consistent the judge was."""
    if not pairs:
        return []
    names = [f"{pair['model_1']}-{pair['model_2']}" for pair in pairs]
    width = max(22, 2 + max(map(len, names)))
    lines = ["", "pairs, each judged in both orders: a win counts where both agree; 95 % intervals "
             "over questions", f"{'':<{width}}{'win':>5}{'tie':>5}{'loss':>5}{'win+tie/2':>10}"
             f"{'':>16}{'p':>6}{'at equal length':>17}{'':>12}{'flips':>6}{'first':>6}"]
    for name, pair in zip(names, pairs):
        controlled = pair["controlled"] or {"rate": None, "low": None, "high": None}
        lines.append(f"{name:<{width}}{pair['wins']:>5}{pair['ties']:>5}{pair['losses']:>5}"
                     f"{number(pair['adjusted']):>10} {interval(pair):<14}"
                     f"{p_value(pair['p']):>7}"
                     f"{number(controlled['rate']):>12} {interval(controlled):<14}"
                     f"{number(pair['flips'], 2):>6}{number(pair['first'], 2):>6}")
        if pair["failed"]:
            lines.append(f"{name:<{width}}{pair['failed']} judgments failed; had all been losses, "
                         f"or wins: {pair['worst']:.3f} to {pair['best']:.3f}")
    return lines + ["flips: the two orders do not agree; first: of the games that somebody won, "
                    "who stood first (0.5: no position bias)"]


def vote_lines(votes):
    """The agreement of the judge with human votes; [] if there were no votes."""
    if not votes:
        return []
    lines = [""]
    for words, key in (("all votes", "all"), ("without ties", "without_ties")):
        row = votes.get(key)
        if row:
            lines.append(f"judge and people agree, {words}: {row['agreed']:.3f} "
                         f"{interval(row)} of {row['n']:,}, kappa {number(row['kappa'])}")
    if len(lines) == 1:
        lines.append("no human vote is about a pair that was judged")
    return lines


# ------------------------------------------------------------------------------------------------
# evaluate.py stats and card


def column_lines(columns):
    """{column: {measure: number}} as a table: a line for each measure that has any number."""
    width = 2 + max(8, *map(len, columns))
    lines = [f"{'':<44}" + cells(columns, width)]
    measures = dict.fromkeys(name for numbers in columns.values() for name in numbers)
    for measure in measures:
        values = [numbers.get(measure) for numbers in columns.values()]
        if values.count(None) < len(values):
            lines.append(f"{measure:<44}" + cells(map(number, values), width))
    return lines


def flat_user(user):
    """A user's part of card.json, which is nested, as one dictionary {measure: number}."""
    numbers = {}
    for name, value in user.items():
        if value is None or isinstance(value, (int, float)):
            numbers[name] = value
    if user.get("failed"):
        numbers["turns that came to nothing"] = sum(user["failed"].values())
    if "topic" in user:
        numbers["nearness to the answer before"] = user["topic"]["own answer"]
        numbers["nearness to another's answer"] = user["topic"]["another's"]
        numbers.update(user["lengths"])
        numbers["told from people: AUC"] = user["detector"]["auc"]
        numbers["told at equal lengths: AUC"] = user["detector"]["matched"]
    if user.get("steering"):
        numbers["intent's words said"] = user["steering"]["own"]
        numbers["another intent's words said"] = user["steering"]["another's"]
        numbers["copied from the intent"] = user["steering"]["copied"]
    if user.get("leaving"):
        numbers["leaving: F1 at 0.5"] = user["leaving"]["f1"]
        numbers["leaving: best F1"] = user["leaving"]["best"][1]
        numbers["leaving: Brier"] = user["leaving"]["brier"]
    if "surprise" in user:
        bits = user["surprise"]
        numbers["bits per byte of people"] = bits["bits"]["mean"]
        if "more" in bits:
            numbers["more than by the user"] = bits["more"]["mean"]
        numbers["more if answers are blanked"] = bits["blanked"]["mean"]
        numbers["more if answers are exchanged"] = bits["exchanged"]["mean"]
        if "without intent" in bits:
            numbers["more without the intent"] = bits["without intent"]["mean"]
    if "dialogues" in user:
        numbers["turns a simulated dialogue"] = user["dialogues"]["turns"]
        numbers["turns a dialogue: Wasserstein"] = user["dialogues"]["wasserstein"]
        numbers["turns a dialogue: Kolmogorov"] = user["dialogues"]["kolmogorov"]
    return numbers


def kind_lines(bits):
    """A user's bits per byte by kind of turn, for kinds with at least ten turns."""
    lines = ["", f"{'later turns of people, bits per byte':<38}{'turns':>7}{'heard':>8}"
             f"{'answers blanked':>26}{'exchanged':>26}"]
    for name, kind in bits["kinds"].items():
        if kind["turns"] >= 10:
            line = f"{name:<38}{kind['turns']:>7}{kind['bits']:>8.3f}"
            for change in ("blanked", "exchanged"):
                mean = number(kind[change]["mean"], 3, "+")
                line += f"{mean:>9} {interval(kind[change], 3, '+'):<16}"
            lines.append(line)
    return lines


def card_lines(card):
    """The tables of card.json: a line for each measure, a column for each user, people first."""
    others = [name for name in card["users"] if name not in ("human", "user")]
    users = {name: card["users"][name] for name in ["human", "user", *others]}
    lines = [f"{card['people']['dialogues']} dialogues of people: half of them the reference, "
             f"users write {card['people']['places']} human turns of the other half"]
    lines += [f"{name}: {word}" for name, word in card["who"].items()]
    lines += ["random: what people wrote at other turns; number: leaving by the number of turns "
              "alone", ""]
    columns = {"reference": card["reference"]}
    for name, user in users.items():
        columns[name] = flat_user(user)
    lines += [*column_lines(columns), ""]
    for name, user in users.items():
        detector = user.get("detector", {})
        # n-grams give a user away only if the classifier can tell it from people
        if detector.get("telltales") and detector["low"] > 0.5:
            ngrams = "  ".join(repr(text) for text in detector["telltales"])
            lines.append(f"{name + ' given away by':<22}{ngrams}")
    for name, user in users.items():
        more = user.get("surprise", {}).get("more")
        if more:
            lines.append(f"{name}: {more['mean']:+.3f} bits per byte of people more than by the "
                         f"user {interval(more, 3, '+')}, paired by dialogue")
    if users["user"].get("surprise"):
        lines += kind_lines(users["user"]["surprise"])
    return lines + ["", *card["notes"]]
