"""
The report: one HTML page with all results of a run, in words, maps, tables and charts.

It needs no network and no script; light and dark follow the reader's choice.

    python -m data.experiment.report runs/tiny --out runs/tiny/report.html
    python -m data.experiment.report runs/tiny --tell        the result, short, as text
"""

import argparse
import json
from html import escape
from itertools import groupby, islice
from pathlib import Path

from data.experiment.contrasts import CLASSES
from data.experiment.svg import (bars, card, curves, figure, map_legend, table, tag, talk,
                                 timeline, town_map)
from data.experiment.talks import draw_guide
from data.measure.tables import flat_user, interval, number, p_value
from data.program import UserError, read_jsonl, run, write_text
from platolm import Tokenizer, encode, read_records, token_text, turns

SETTING = """In the harbour of saltmere the houses stay and the stalls change every season; we hold
people's talks with the guide in past seasons, and only the guide knows this season's stalls."""
QUESTION = """What best prepares an assistant for today's visitors: people's old talks, the old
questions asked once more, a script, or a simulator that learnt from people to listen?"""

NAMES = """An arm is an assistant, named after who asks in the dialogues that it learnt from. The
arm socratic is PlatoLM: it learnt from what the guide told Socratic, the simulator."""

LUCK = """The interval is over questions and dialogues; another training can move the scores by
more (make seeds)."""

ARMS = {
    "today": "people of today with today's guide: as good as it can get",
    "socratic": "Socratic: a simulator that learnt from the logs what people say to an answer",
    "heard-replay": "the logs' questions; a rule puts in the names that today's guide just said",
    "oracle": "people who hold a list of everything there is today",
    "self-chat": "a person's first question, then a script's about what the answers name",
    "role-play": "a script that holds a list of everything there is today",
    "replay": "the logs' questions put to today's guide, whatever it answers",
    "replay-open": "the same without the questions about stalls that have closed",
    "human": "the logs: people of past seasons, and the guides of then",
    "blind": "a simulator that was trained, and talks, without hearing any answer",
    "floor": "no dialogue at all: the base as it is",
}

CONSTRUCTION = [
    "Sure beforehand: the logs, their questions repeated and a simulator that hears nothing cannot "
    "know this season's stalls beyond a lucky guess, for nobody in them had heard of one. The "
    "logs are wrong, too, about what has changed at the houses.",
    "Sure beforehand: the script of self-chat has no asides, so its assistant learns none; and "
    "people do not talk like it. Half of the headline is asked in people's words and half in the "
    "script's, so that neither has all questions put in its own manner.",
    "Open: whether so small a model learns from people to ask about names that it has never seen; "
    "and whether the dialogues it then has serve better than those of a script that asks about "
    "whatever is named. Where the interval of socratic - self-chat does not lie above zero, no "
    "advantage over a script is shown.",
    "Programs of ours play the people, the guide and the grader. As we wrote the people, what "
    "there is to learn from them can be written as a rule, heard-replay; for real people nobody "
    "can.",
    "This is one seed of a tiny town, and no reproduction of PlatoLM's result. It does not show "
    "that simulated dialogues are better than people's: people of today are the ceiling.",
]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6675;
  --line: #d9dde4; --page: #fcfcfa; --box: #f2f2ec;
  --a: #0b6e99; --b: #c2571a; --c: #8a8f99; --mark: #cfe8c9; --water: #cfe3ee; --street: #d8d3c8;
  --told1: #f7d98b; --told2: #eda24a; --told3: #cf5a2b; --told4: #83231b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e0; --soft: #a0a7b4; --line: #3a404b;
  --page: #16191f; --box: #20242c; --a: #5cb8e0; --b: #f0935a; --c: #868d9a; --mark: #2c5130;
  --water: #1f3a4a; --street: #363a42;
  --told1: #69431f; --told2: #a9652a; --told3: #e59d48; --told4: #ffe7ad; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 Georgia, serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin-top: 2.6rem; } p { max-width: 46rem; margin: .7rem 0; }
.soft, figcaption, th { color: var(--soft); } .warning { color: var(--b); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .9rem; }
dd { margin: 0; color: var(--soft); } ul { padding-left: 1.2rem; max-width: 46rem; }
figcaption { font-size: .85rem; max-width: 46rem; margin-top: .4rem; } figure { margin: 1rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
table, svg, .card, .legend { font-family: system-ui, sans-serif; }
td, th { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid var(--line);
  font-weight: normal; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0;
  background: var(--page); }
@media (max-width: 40rem) { td:first-child { white-space: normal; min-width: 8rem; } }
svg { width: 100%; max-width: 28rem; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 12px; } svg .small { font-size: 8px; }
svg.wide { max-width: 46rem; } svg .soft { fill: var(--soft); }
svg polyline { stroke-width: 1.6; }
.told0 { fill: none; stroke: var(--soft); } .told1 { fill: var(--told1); }
.told2 { fill: var(--told2); } .told3 { fill: var(--told3); } .told4 { fill: var(--told4); }
.water { fill: var(--water); } .street { fill: var(--street); }
.maps, .cards { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(max(9rem, 22%), 1fr)); }
.cards { grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .8rem; margin: .6rem 0; }
.legend span { display: flex; align-items: center; gap: .3rem; }
.legend svg { height: .9rem; width: auto; }
.card { background: var(--box); border-radius: .5rem; padding: .6rem .8rem; font-size: .88rem; }
.card h3 { margin: 0 0 .2rem; font-size: .88rem; }
.maps .card { color: var(--soft); padding: .5rem; display: flex; flex-direction: column; }
.maps .who { font-size: .8rem; flex: 1; } .map { margin-top: .4rem; }
.card div { margin: .15rem 0; } .card b { font-weight: 600; } .gpt { color: var(--soft); }
.next { border-top: 1px solid var(--line); padding-top: .3rem; }
.mask { font: .78rem/1.7 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; } .mask mark { background: var(--mark); color: inherit; }
"""


def find(run, name):
    """
    Return the path of a file of a run: in its directory, or in that of the run it is a variant of,
    runs/tiny for runs/tiny-growth0; a UserError if it is in neither.
    """
    directory = run.resolve()
    words = directory.name.split("-")
    for count in range(len(words), 0, -1):
        path = directory.with_name("-".join(words[:count])) / name
        if path.exists():
            return path
    raise UserError(f"no {run / name}; `make all` writes it")


def load(run, name):
    """Read a JSON file of the run."""
    return json.loads(find(run, name).read_text(encoding="utf-8"))


def log(run, name):
    """Read the rows of a training's log: NAME/log.jsonl."""
    return list(read_jsonl(find(run, f"{name}/log.jsonl")))


def in_order(names):
    """The names of arms, as in ARMS; others after them."""
    known = list(ARMS)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def cards(parts):
    """HTML cards side by side."""
    return tag("div", "".join(parts), class_="cards")


def definitions(names, meanings):
    """A list of names with their meanings, {name: text}; "" for a name without one."""
    items = ""
    for name in names:
        items += tag("dt", escape(name)) + tag("dd", escape(meanings.get(name, "")))
    return tag("dl", items)


def bullets(sentences):
    """A list of sentences."""
    return tag("ul", "".join(tag("li", escape(sentence)) for sentence in sentences))


# ------------------------------------------------------------------------------------------------
# the result in words, for the terminal and the page


def verdict(pair):
    """Say in one sentence what a contrast, with its interval, shows."""
    words = "no difference that these questions can tell from chance"
    if pair["low"] > 0:
        words = f"{pair['a']} knows more"
    elif pair["high"] < 0:
        words = f"{pair['a']} knows less"
    difference = f"{pair['difference']:+.3f} {interval(pair, sign='+')}"
    return f"{pair['a']} - {pair['b']} {difference}: {words}."


def gates_sentence(gates):
    """Say whether the experiment can answer at all."""
    failed = [row["gate"].split(" (")[0] for row in gates if not row["passed"]]
    if failed:
        return f"GATES NOT PASSED, so nothing here can be relied on: {'; '.join(failed)}."
    return ("Checked before any comparison (the gates): the base copies names that it never read, "
            "the ceiling knows its town, no training is unfinished. All are passed.")


def result(run):
    """The result of a run in sentences: stalls right by arm, the contrasts, the gates."""
    analysis = load(run, "contrasts.json")
    arms = analysis["arms"]
    scores = [f"{name} {arms[name]['headline']['right']:.0%}" for name in in_order(arms)]
    lines = [f"Right about this season's stalls: {', '.join(scores)}."]
    lost = []
    for pair in analysis["contrasts"]:
        if pair["role"] == "primary":
            lines.append(f"The one contrast named beforehand: {verdict(pair)}")
        elif pair["b"] == "heard-replay":
            lines.append(f"A rule, which we could write as we wrote the people: {verdict(pair)}")
        elif pair["role"] == "described":
            lost.append(pair["b"])
    if lost:
        lines.append(f"Lost by construction: {', '.join(lost)}; nobody in these had heard of a "
                     "stall of this season.")
    return lines + [gates_sentence(load(run, "gates.json"))]


SPEAKERS = {"person": "a person", "socratic": "Socratic", "script": "a script"}


def tell(run):
    """The result as text: three next questions to one answer, the question, what came out."""
    case = load(run, "questions.json")[0]
    lines = ["three next questions to the same answer:"]
    for turn in case["turns"]:
        lines.append(f"    {'guide' if turn['from'] == 'gpt' else 'user'}: {turn['value']}")
    for key, speaker in SPEAKERS.items():
        lines.append(f"      {speaker + ' goes on:':<22}{case[key]}")
    return "\n".join([*lines, "", QUESTION, *result(run)])


# ------------------------------------------------------------------------------------------------
# the first screen: the question, the town, the arms


def maps(run, guide):
    """One map of the town for each arm: how often its guide told of each house and stall."""
    world, lanes = guide.world, {}
    for name, thing in world.things.items():
        lanes.setdefault(thing.facts["lane"], []).append((name, thing.kind == "stall"))
    lanes = dict(sorted(lanes.items()))
    users = load(run, "reach.json")
    parts = []
    for name in in_order(users):
        told = users[name]["told"]
        share = sum(stall in told for stall in world.stalls) / len(world.stalls)
        title = f"something told of {share:.0%} of stalls"
        who = tag("div", escape(ARMS.get(name, "")), class_="who")
        parts.append(card(name, who + title + town_map(lanes, told, f"{name}: {title}")))
    return tag("p", NAMES) + map_legend() + figure(
        tag("div", "".join(parts), class_="maps"),
        "The town today, once for each arm: houses stand above their lane, this season's stalls "
        "below it, and the water is at the foot. The colour says how often the guide told of them "
        "in the arm's dialogues (of what the logs tell, what is still true). Where maps look "
        "alike, the arms were told of the same; what parts them then is how they asked.")


def arm_colour(name):
    """The colour of an arm: one for PlatoLM, one for the ceiling, one for all others."""
    return {"socratic": "var(--a)", "today": "var(--b)"}.get(name, "var(--c)")


def arms(run):
    """The arms as bars, and in a table."""
    found = load(run, "contrasts.json")["arms"]
    names = in_order(found)
    titles = {"headline": "This season's stalls", "houses": "Houses", "asides": "Asides"}
    charts = []
    for key, title in titles.items():
        points = []
        for name in names:
            part = found[name].get(key)
            if part:
                points.append((name, part["right"], part["low"], part["high"], arm_colour(name)))
        charts.append(card(title, bars(points)))
    rows = []
    for name in names:
        arm = found[name]
        values = [arm.get(key, {}).get("right") for key in CLASSES]
        rows.append([name, *values, arm["script"], arm["headline"]["right"], arm["gold"]["right"]])
    # dialogues written by hand are about one seed's town alone
    widths = [arm["gold"]["high"] - arm["gold"]["low"] for arm in found.values()
              if arm["gold"]["low"] is not None]
    within = f" (±{max(widths) / 2:.2f} at most)" if widths else ""
    return figure(cards(charts),
                  "Share of right answers to held-out people of today, every turn with the right "
                  "turns before it; 95 % intervals over things and dialogues. Stalls: the mean of "
                  "people's phrasing and the script's. Asides lean on an answer: a doubt, this or "
                  "that, a sum, in short. floor is the base, without any dialogue.") + figure(
        table(["arm", "houses", "changed", "asides", "stalls, people's words", "script's words",
               "both", "gold"], rows),
        "houses: facts that are as they always were; changed: those that are different today. "
        "gold: dialogues written one by one, by writers who had not seen the generator, and far "
        f"freer in their words than anything that an arm was taught{within}.")


def next_questions(run):
    """Three users' next questions in the same dialogues."""
    parts = []
    for case in load(run, "questions.json")[:3]:
        questions = ""
        for key, label in SPEAKERS.items():
            question = f'<span class="gpt">{label}:</span> <b>{escape(case[key])}</b>'
            questions += tag("div", question, class_="next")
        parts.append(talk("so far", case["turns"], questions))
    return figure(cards(parts), "Bold is what users say. The first talks of held-out people in "
                  "which the person asked about what was just named and, in the middle, leant on "
                  "an answer; cut there.")


# ------------------------------------------------------------------------------------------------
# may the result be relied on, and what it is


def gates(run):
    """The gates, with their figures."""
    rows = [[row["gate"], number(row["value"]), "passed" if row["passed"] else "NOT PASSED"]
            for row in load(run, "gates.json")]
    return figure(table(["gate", "figure", ""], rows),
                  "Whether the experiment could answer at all. The gates look at no contrast; how "
                  "Socratic copies and how far he reaches are results.")


def contrasts(run):
    """All contrasts, each with its role, and the share of the gap that socratic closes."""
    analysis = load(run, "contrasts.json")
    roles = {"primary": "the primary one", "further": "further, adjusted (Holm)",
             "described": "described: lost by construction"}
    rows, sentences = [], []
    for pair in analysis["contrasts"]:
        rows.append([f"{pair['a']} – {pair['b']}", number(pair["difference"], 3, "+"),
                     interval(pair, sign="+"), p_value(pair["p"]), roles[pair["role"]]])
        if pair["role"] != "described":
            sentences.append(verdict(pair))
    gap = analysis["gap"]
    if gap:
        sentences.append(f"Of the way from replay to today, socratic goes {gap['share']:.0%} "
                         f"({gap['low']:.0%} to {gap['high']:.0%}).")
    html = figure(table(["contrast", "difference", "95 %", "p", "role"], rows),
                  "Differences in the share of right answers about this season's stalls, over both "
                  "phrasings. Drawn anew are things and dialogues; the luck of logs, base and "
                  "training is not in these intervals: `make seeds` shows it.")
    return html + bullets(sentences)


def construction(run):
    """What was sure beforehand, and what was open."""
    return bullets(CONSTRUCTION)


def coverage(run):
    """What each arm was told of today's town, and how its users talk."""
    users = load(run, "reach.json")
    rows = []
    for name in in_order(users):
        user = users[name]
        cells = [name, user["turns"], f"{user['asides']:.0%}",
                 f"{user['kinds'].get('unknown', 0):.1%}", user["copied"], user["lucky"]]
        for group in ("houses", "stalls"):
            facts = user["facts"][group]
            cells += [f"{facts['once']:.0%}", f"{facts['twice']:.0%}", number(facts["times"], 1)]
        rows.append(cells)
    return figure(
        table(["arm", "turns", "asides", "unknown", "copied", "lucky", "houses: once", "twice",
               "times", "stalls: once", "twice", "times"], rows),
        "turns: of a dialogue. unknown: turns with a name that the guide does not know. copied: of "
        "the answers that name something near, how many are followed by a question that names it. "
        "lucky: turns with a stall's name that nobody had said (a list holds them all). once, "
        "twice: the share of today's facts that were told so often; times: the mean.")


# ------------------------------------------------------------------------------------------------
# the benches, from results.json


def benches(run):
    """Mean scores on the two benches: overall, by group, turn, kind and category; differences."""
    results = load(run, "results.json")
    found = results["arms"]
    names = in_order(found)
    rows = []
    for name in names:
        arm = found[name]
        rows.append([name, arm["overall"], interval(arm, 2), *arm["groups"].values(), arm["turn1"],
                     arm["turn2"], arm.get("vicuna")])
    groups = list(next(iter(found.values()))["groups"])
    html = figure(table(["arm", "overall", "95 %", *groups, "turn 1", "turn 2", "Vicuna's"], rows),
                  "Mean score from 0 to 1, judged over HTTP by the grader, in the layouts of "
                  "MT-Bench and of Vicuna-Bench; intervals over questions.")
    captions = {"kinds": "By kind of turn.", "categories": "By MT-Bench's labels."}
    for group, caption in captions.items():
        kinds = list(next(iter(found.values()))[group])
        rows = [[name, *(found[name][group][kind] for kind in kinds)] for name in names]
        html += figure(table(["arm", *kinds], rows), caption)
    rows = [[name, number(pair["difference"], 3, "+"), interval(pair, sign="+"), p_value(pair["p"])]
            for name, pair in results["paired"].items()]
    return html + figure(table(["difference", "overall", "95 %", "p"], rows),
                         "Paired by question. The plan does not rest on this bench: many of its "
                         "second turns are asides, which no script has, so that an advantage over "
                         "scripts is by construction.")


def pairs(run):
    """The same answers compared in pairs."""
    rows = []
    for pair in load(run, "results.json").get("duels") or []:
        controlled = "-"
        if pair["controlled"]:
            controlled = (f"{number(pair['controlled']['rate'], 2)} "
                          f"{interval(pair['controlled'], 2)}")
        rows.append([f"{pair['model_1']} – {pair['model_2']}", pair["wins"], pair["ties"],
                     pair["losses"], f"{number(pair['adjusted'], 2)} {interval(pair, 2)}",
                     p_value(pair["p"]), controlled, pair["flips"], pair["first"]])
    return figure(
        table(["first – second", "win", "tie", "loss", "wins and half the ties", "p",
               "at equal length", "flips", "first place"], rows),
        "Each pair is judged in both orders, and a win counts where both agree. p: of no "
        "difference, by permutation over questions. At equal length: what remains when the "
        "judge's liking for longer answers is taken out. Flips: how often the orders disagree. "
        "First place: of the games that somebody won, who stood first; 0.50 is no position bias.")


# ------------------------------------------------------------------------------------------------
# the simulator's card


USERS = {"human": "people, their second half", "user": "Socratic",
         "base": "the base, not trained to be a user",
         "twin": "the same base, trained on the answers", "prompted": "the twin, told to be a user",
         "script": "“could you tell me more about ...?”",
         "self-chat": "whole dialogues of a script",
         "random": "what people wrote at other turns", "number": "the number of turns alone"}


def user_colour(name):
    """The colour of a user of the card: one for people, one for Socratic, one for all others."""
    return {"human": "var(--b)", "user": "var(--a)"}.get(name, "var(--c)")


def report_card(run):
    """The simulator's card: charts, a table, notes."""
    found = load(run, "card.json")
    order = dict.fromkeys(["human", "user", *found["users"]])
    users = {name: found["users"][name] for name in order if name in found["users"]}
    points = []
    columns = {"reference": found["reference"]}
    for name, user in users.items():
        columns[name] = flat_user(user)
        detector = user.get("detector", {})
        if detector.get("auc"):
            points.append((name, detector["auc"], detector["low"], detector["high"],
                           user_colour(name)))
    html = figure(bars(points), "How well a classifier tells a user's turns from people's "
                   "(AUC, 95 % over dialogues): 0.50 means that it cannot. Every user spoke at the "
                   f"same {found['people']['places']:,} human turns of held-out dialogues.")
    html += definitions(users, USERS)
    rows = []
    for measure in dict.fromkeys(name for column in columns.values() for name in column):
        values = [column.get(measure) for column in columns.values()]
        if values.count(None) < len(values):
            rows.append([measure, *values])
    html += figure(table(["", "reference", *users], rows), "Reference: the other half of people. "
                   "Nobody can be expected to be nearer to it than people are.")
    html += bullets(found["notes"])
    html += leaving_curves(users) + topic_curves(users)
    return html + expectations(found["users"]["user"].get("surprise"))


def leaving_curves(users):
    """Three charts about leaving: are the probabilities right, where to draw the line, when?"""
    scores = {}
    for name, user in users.items():
        if user.get("leaving") and name in ("user", "twin", "number"):
            scores[name] = user["leaving"]
    if "user" not in scores:
        return ""

    def lines(key):
        series = {}
        for name, leaving in scores.items():
            series[name] = [point[:2] for point in leaving[key]], user_colour(name)
        return series

    unit_box = ((0, 1), (0, 1))
    people = scores["user"]["people"]
    calibration = {"right": ([(0, 0), (1, 1)], "var(--line)")} | lines("reliability")
    hazards = lines("hazard") | {"people": (people, user_colour("human"))}
    hazard_box = ((people[0][0], people[-1][0]), (0, 1))
    parts = [
        card("How often people did leave",
                   curves(calibration, "chance given to leaving", unit_box)),
        card("F1 of leaving",
                   curves(lines("curve"), "counts as leaving from here", unit_box)),
        card("Leaving at this turn", curves(hazards, "turns so far", hazard_box))]
    return figure(cards(parts),
                  "Does it leave when people do? Left: of the turns to which it gave such a "
                  "chance, the share at which the person left; the straight line would be right. "
                  "Middle: F1 by the chance from which it counts as leaving. Right: the chance of "
                  "leaving by the number of turns.")


def topic_curves(users):
    """Two charts: how similar later turns are to the first turn, and to the answer before."""
    topics = {}
    for name, user in users.items():
        if name in ("human", "user", "script", "twin") and user.get("topic", {}).get("first"):
            topics[name] = user["topic"]
    if not topics:
        return ""
    titles = {"first": "Nearness to the first turn", "answer": "Nearness to the answer before"}
    parts = []
    for key, title in titles.items():
        series = {}
        for name, topic in topics.items():
            series[name] = list(enumerate(topic[key], 1)), user_colour(name)
        parts.append(card(title, curves(series, "turns so far")))
    return figure(cards(parts), "How a dialogue moves on: the mean cosine of hashed runs of "
                  "characters, by the number of turns.")


def expectations(bits):
    """A table of the simulator's bits per byte of people's turns, by kind of turn."""
    if not bits:
        return ""
    rows = []
    for name, kind in bits["kinds"].items():
        # fewer turns than ten say nothing
        if kind["turns"] >= 10:
            changes = [f"{number(kind[change]['mean'], 2, '+')} {interval(kind[change], 2, '+')}"
                       for change in ("blanked", "exchanged")]
            rows.append([name, kind["turns"], number(kind["bits"]), *changes])
    return figure(table(["people's later turns", "turns", "bits per byte", "answers blanked",
                         "answers exchanged"], rows),
                  "How surprised the simulator is by what people say, and how much more if the "
                  "answers they had heard are blanked, or another dialogue's: what it hears.")


# ------------------------------------------------------------------------------------------------
# sections about the data and the training


def statistics(run):
    """Statistics of all sets of dialogues, from stats.json."""
    numbers_of = load(run, "stats.json")
    rows = []
    for measure in dict.fromkeys(name for numbers in numbers_of.values() for name in numbers):
        rows.append([measure, *(number(numbers.get(measure)) for numbers in numbers_of.values())])
    return figure(
        table(["", *numbers_of], rows), "Taken for human, and AUC: a classifier of runs of "
        "characters, trained on held-out people against this set, cross-validated over dialogues. "
        "Cosines and topics: of hashed runs of characters, so they see words and not meanings. A "
        "session that shares words with the bench has eight in a row, or all of a shorter "
        "question.")


def mask(record, tokenizer, learn):
    """The tokens of a dialogue as HTML, with the target tokens marked."""
    ids, is_target = encode(turns(record), tokenizer, learn)
    texts = [token_text(token, tokenizer) for token in ids]
    html = ""
    for marked, group in groupby(zip(texts, is_target), key=lambda pair: pair[1]):
        text = escape("".join(text for text, _ in group))
        html += tag("mark", text) if marked else text
    html = html.replace("&lt;/s&gt;", "&lt;/s&gt;\n").replace("⏎", "\n")
    return tag("div", html, class_="mask")


def masks(run):
    """One dialogue and its two masks."""
    record = next(read_records("data/example.jsonl"))
    tokenizer = Tokenizer.load(find(run, "base/tokenizer.model").parent)
    titles = {"human": "human learnt: Socratic", "gpt": "gpt learnt: PlatoLM"}
    parts = [card(title, mask(record, tokenizer, learn)) for learn, title in titles.items()]
    return figure(cards(parts), "The same ids; the loss counts where it is marked. At the end the "
                  "human leaves, by saying nothing.")


def dialogues(run):
    """A dialogue of each arm: the first of three to six rounds."""
    parts = []
    for name in in_order(load(run, "reach.json")):
        short = (record for record in read_records(find(run, f"chat/{name}.jsonl"))
                 if 6 <= len(record["conversations"]) <= 12)
        parts += [talk(name, record["conversations"]) for record in islice(short, 1)]
    return figure(cards(parts), "The first of each file that has three to six rounds; none was "
                  "chosen. The logs (human) are of a past season: its stalls are closed today.")


def arm_sizes(run):
    """The sizes of each arm's training: what was equal, and what was not."""
    users = load(run, "reach.json")
    rows = []
    for name in in_order(users):
        steps = log(run, f"assistant/{name}")
        tokens, learnt, samples = [sum(step[key] for step in steps)
                                   for key in ("tokens", "learnt", "samples")]
        count = users[name]["dialogues"]
        rows.append([name, count, len(steps), tokens, learnt, number(samples / count)])
    return figure(
        table(["arm", "dialogues", "updates", "tokens computed", "tokens learnt", "epochs"], rows),
        "Equal by design: the base, the number of dialogues, the updates, the tokens computed in "
        "an update. Not equal: how many of them are answers, how often a dialogue is seen, what is "
        "talked about. Socratic and blind learnt from just the dialogues of human.")


def mean_losses(rows, width=40):
    """Average a log's losses over `width` updates: [(first step, loss), ...]."""
    points = []
    for i in range(0, len(rows), width):
        losses = [row["loss"] for row in rows[i:i + width]]
        points.append((rows[i]["step"], sum(losses) / len(losses)))
    return points


def training(run):
    """Two charts of losses: held-out for the users, training for the assistants."""
    users, assistants = {}, {}
    for name in ("socratic", "blind"):
        points = [(row["step"], row["held_out"]) for row in log(run, name) if "held_out" in row]
        users[name] = points, arm_colour(name)
    for name in in_order(load(run, "reach.json")):
        assistants[name] = mean_losses(log(run, f"assistant/{name}")), arm_colour(name)
    parts = [card("The two users, on held-out people", curves(users, "updates")),
             card("The assistants, each on its own dialogues", curves(assistants, "updates"))]
    return figure(cards(parts), "Loss in nats per token. The blind user is told less, so it stays "
                  "more surprised. An assistant's low loss means predictable, not good.")


def stages(run):
    """When each stage ran, and how long it took."""
    # of a stage that was made again, the last time
    last = {row["stage"]: row for row in read_jsonl(find(run, "seconds.jsonl"))
            if "ended" in row}
    if not last:
        raise UserError("this run is older than the times that are drawn here")
    rows = [(name, row["ended"] - row["seconds"], row["ended"]) for name, row in last.items()]
    busy = sum(row["seconds"] for row in last.values())
    wait = max(end for _, _, end in rows) - min(begin for _, begin, _ in rows)
    return figure(timeline(rows), f"Stages run side by side: together they took {busy / 60:.1f} "
                  f"minutes, from the first to the last {wait / 60:.1f} minutes went by. Of a "
                  "resumed stage this is the last part.")


# ------------------------------------------------------------------------------------------------
# the page

# what stands on the page below the first screen, in this order
SECTIONS = {
    "Three next questions to the same answer": next_questions,
    "The gates: could the experiment answer?": gates,
    "The contrasts": contrasts,
    "What was sure beforehand, and what was open": construction,
    "What each arm was told": coverage,
    "The benches": benches,
    "The same answers in pairs": pairs,
    "The simulator's report card: how like people is it?": report_card,
    "Statistics of the dialogues": statistics,
    "One dialogue, two ways to learn from it": masks,
    "Dialogues, side by side": dialogues,
    "What was equal, and what was not": arm_sizes,
    "Training": training,
    "Time": stages,
}


def page(run, guide):
    """The whole page as HTML; run: the directory of the run; guide: to the town of the run."""
    checks = load(run, "gates.json")
    title = "Who prepares an assistant for a town that changes?"
    html = tag("h1", title) + tag("p", f"{SETTING} {QUESTION}")
    analysis = load(run, "contrasts.json")
    for pair in analysis["contrasts"]:
        if pair["role"] == "primary":
            scores = [f"{name} {analysis['arms'][name]['headline']['right']:.0%}"
                      for name in (pair["a"], pair["b"])]
            html += tag("p", tag("b", "Right about this season's stalls: ")
                        + escape(f"{', '.join(scores)}. {verdict(pair)} {LUCK}"))
    passed = all(row["passed"] for row in checks)
    html += tag("p", escape(gates_sentence(checks)), class_="soft" if passed else "warning")
    html += maps(run, guide) + tag("h2", "Right answers, by arm") + arms(run)
    for name, section in SECTIONS.items():
        html += tag("h2", name)
        try:
            html += section(run)
        # a section whose file is not there says so; the others are still worth reading
        except UserError as error:
            html += tag("p", escape(str(error)), class_="soft")
    head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{STYLE}</style>")
    return f'<!doctype html>\n<html lang="en">{tag("head", head)}{tag("body", html)}</html>\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("run", type=Path, help="directory of the run, such as runs/tiny")
    add("--seed", type=int, default=0, help="of the world")
    add("--growth", type=float, default=1.0, help="share of stalls that are new each season")
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--out", help="HTML file to write")
    output.add_argument("--tell", action="store_true", help="print the result, short, as text")
    args = parser.parse_args()
    if args.tell:
        print(tell(args.run))
        return
    # the page stands in the directory of what it is made from
    if Path(args.out).suffix != ".html":
        raise UserError(f"--out {args.out}: the report is a page, so that its name ends in .html")
    write_text(args.out, [page(args.run, draw_guide(args.seed, args.growth))])
    print(f"the report: {args.out}")


if __name__ == "__main__":
    run(main)
