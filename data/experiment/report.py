"""
The report: one HTML page with all results of a run, in words, tables and charts.

It needs no network and no script; light and dark follow the reader's choice.

    python -m data.experiment.report runs/tiny --out runs/tiny/report.html
"""

import argparse
import json
from html import escape
from itertools import groupby, islice
from pathlib import Path

from data.experiment.svg import bars, curves, figure, table, tag, talk
from data.measure.tables import flat_user, interval, number, p_value
from data.program import UserError, read_jsonl, run, write_text
from platolm import Tokenizer, encode, read_records, token_text, turns

ARMS = {
    "socratic": "PlatoLM: a trained user simulator asked",
    "blind": "a simulator asked that was trained, and ran, without hearing any answer",
    "human": "people asked (as for Vicuna)",
    "self-chat": "a person's first question, then a script's (as for Baize)",
    "role-play": "a script walked through the list of everything (as for UltraLLaMA)",
    "oracle": "one fact after another of the whole list, in people's phrasings",
    "ceiling": "people who ask about everything",
    "floor": "no dialogue at all: the base as it is",
}

STYLE = """
:root { --ink: #1d2430; --soft: #5d6675; --line: #d9dde4; --page: #fcfcfa; --box: #f2f2ec;
  --a: #0b6e99; --b: #c2571a; --c: #8a8f99; --mark: #cfe8c9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e0; --soft: #a0a7b4; --line: #3a404b;
  --page: #16191f; --box: #20242c; --a: #5cb8e0; --b: #f0935a; --c: #868d9a; --mark: #2c5130; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 70rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 Georgia, serif; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.6rem; }
p { max-width: 42rem; } .soft, figcaption, th { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; font-size: .9rem; }
dd { margin: 0; color: var(--soft); } ul { padding-left: 1.2rem; max-width: 46rem; }
figcaption { font-size: .85rem; max-width: 42rem; } figure { margin: 1rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
table, svg, .talk { font-family: system-ui, sans-serif; }
td, th { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid var(--line);
  font-weight: normal; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0;
  background: var(--page); }
@media (max-width: 40rem) { td:first-child { white-space: normal; min-width: 8rem; } }
svg { width: 100%; max-width: 36rem; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 11px; } svg .soft { fill: var(--soft); }
svg polyline { stroke-width: 1.6; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.talk { background: var(--box); border-radius: .5rem; padding: .7rem .9rem; font-size: .88rem; }
.talk h3 { margin: 0 0 .4rem; font-size: .8rem; color: var(--soft); font-weight: normal; }
.talk div { margin: .15rem 0; } .talk b { font-weight: 600; } .gpt { color: var(--soft); }
.next { border-top: 1px solid var(--line); padding-top: .3rem; }
.mask { font: .78rem/1.7 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; } .mask mark { background: var(--mark); color: inherit; }
"""


def load(path):
    """Read a JSON file of the run; a UserError if it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path}; `make all` writes it") from None


def log(run, name):
    """Read the rows of a training's log: RUN/NAME/log.jsonl."""
    return list(read_jsonl(run / name / "log.jsonl"))


def heading(text):
    """The heading of a section, as HTML."""
    return tag("h2", text)


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
# sections about the assistants, from results.json


def arm_colour(name):
    """The colour of an arm: one for PlatoLM, one for the human arm, one for all others."""
    return {"socratic": "var(--a)", "human": "var(--b)"}.get(name, "var(--c)")


def verdict(a, b, pair):
    """Say in one sentence what the paired difference of two arms (with its interval) shows."""
    difference = f"{pair['difference']:+.3f} {interval(pair, sign='+')}"
    if pair["low"] is None:
        return f"One question tells nothing of {a} and {b}: {difference}."
    if pair["low"] > 0:
        return f"{a} scored higher than {b}: {difference}."
    if pair["high"] < 0:
        return f"{a} scored lower than {b}: {difference}."
    return f"No difference between {a} and {b} that these questions could show: {difference}."


def arms(results):
    """The section that compares the arms: a chart, a table, and a sentence for each difference."""
    ranked = sorted(results["arms"].items(), key=lambda item: -item[1]["overall"])
    names = [name for name, _ in ranked]
    columns = {"asked": "asked", "never asked": "never_asked", "turn 1": "turn1",
               "turn 2": "turn2", "formal": "formal", "Vicuna's": "vicuna", "gold": "gold",
               "completes": "completed"}
    points, rows, sentences = [], [], []
    for name, arm in ranked:
        points.append((name, arm["overall"], arm["low"], arm["high"], arm_colour(name)))
        rows.append([name, arm["overall"], *(arm.get(key) for key in columns.values())])
        for other in names:
            pair = results["paired"].get(f"{name}-{other}")
            if pair:
                sentences.append(verdict(name, other, pair))
    gold_width = max(arm["gold_high"] - arm["gold_low"] for _, arm in ranked) / 2
    html = heading("The arms: which dialogues make the better assistant?")
    html += figure(bars(points), "Mean score from 0 to 1 over the questions, with 95 % intervals.")
    html += definitions(names, ARMS)
    html += figure(table(["arm", "overall", *columns], rows),
                   "asked, never asked: questions about facts that the people in the data do and "
                   "do not ask about. formal: the same questions in a formal phrasing, plain first "
                   "turns as the scripts put them. gold: right answers in 60 dialogues that we had "
                   "written one by one, from the fact sheet, by writers who had not seen the "
                   f"generator (±{gold_width:.2f} at most). completes: encyclopaedia sentences "
                   "ended rightly as plain text; fine-tuning erodes it.")
    html += bullets(sentences)
    return html + tag("p", "The intervals cover the choice of questions; they do not cover the "
                           "luck of training. This is one seed.", class_="soft")


def pairs(results):
    """The section on pairwise comparisons; "" if there are none."""
    if not results.get("duels"):
        return ""
    rows = []
    for pair in results["duels"]:
        controlled = "-"
        if pair["controlled"]:
            controlled = (f"{number(pair['controlled']['rate'], 2)} "
                          f"{interval(pair['controlled'], 2)}")
        rows.append([f"{pair['model_1']} – {pair['model_2']}", pair["wins"], pair["ties"],
                     pair["losses"], f"{number(pair['adjusted'], 2)} {interval(pair, 2)}",
                     p_value(pair["p"]), controlled, pair["flips"], pair["first"]])
    return heading("The same answers in pairs") + figure(
        table(["first – second", "win", "tie", "loss", "wins and half the ties", "p",
               "at equal length", "flips", "first place"], rows),
        "Each pair is judged in both orders, and a win counts where both agree. p: of no "
        "difference, by permutation over questions. At equal length: what remains when the "
        "judge's liking for longer answers is taken out. Flips: how often the orders disagree. "
        "First place: of the games that somebody won, who stood first; 0.50 is no position bias.")


def by_kind(results):
    """The section with mean scores by kind of turn, and by category."""
    captions = {"kinds": "Mean score per kind of turn. A doubt, a pick, a number, a new name and a "
                         "reshaping lean on the answer before them.",
                "categories": "Mean score per category: the harbour's questions under MT-Bench's "
                              "labels."}
    html = heading("Where they differ: kinds of turn, and categories")
    for group, caption in captions.items():
        names = list(next(iter(results["arms"].values()))[group])
        rows = []
        for name, arm in results["arms"].items():
            rows.append([name, *(arm[group][key] for key in names)])
        html += figure(table(["arm", *names], rows), caption)
    return html


# ------------------------------------------------------------------------------------------------
# sections about the simulated users


def next_questions(run):
    """The section with three users' next questions in the same dialogues."""
    speakers = {"person": "a person", "socratic": "Socratic", "script": "a script"}
    parts = []
    for case in load(run / "questions.json")[:3]:
        questions = ""
        for key, label in speakers.items():
            question = f'<span class="gpt">{label}:</span> <b>{escape(case[key])}</b>'
            questions += tag("div", question, class_="next")
        parts.append(talk("so far", case["turns"], questions))
    return heading("Three next questions to the same answer") + figure(
        cards(parts), "Bold is what users say. The talks are those of held-out people, in the "
        "order of the file, cut where the person leaned on the answer.")


def listening(run):
    """The section on whether users listen: what they did, and what listening is worth."""
    behaviour, losses = load(run / "behaviour.json"), load(run / "listening.json")
    rows = []
    for name, user in behaviour.items():
        shares = [number(kind["share"]) for kind in user["grounded"].values()]
        rows.append([name, user["turns"], f"{user['leaning']:.0%}", f"{user['lost']:.1%}",
                     f"{user['never_asked']:.0%}", *shares])
    kinds = next(iter(behaviour.values()))["grounded"]
    html = heading("Does the simulator listen?")
    html += figure(table(["user", "turns", "leaning", "lost", "reached", *kinds], rows),
                   "leaning: later turns that depend on the answer. lost: turns that the teacher "
                   "did not understand. reached: share of the facts that people never ask about. "
                   "The last three: of the turns that lean on something by their words, how many "
                   "find it in an answer; blind shows how far one comes who "
                   "hears only himself.")
    # (does the turn lean on the answer?, was the answer about a fact that people ask about?)
    labels = {(None, None): "all later turns", (True, None): "leaning on the answer",
              (False, None): "others", (None, False): "after a never-asked fact",
              (True, False): "leaning, after a never-asked fact"}
    rows = []
    for row in losses["rows"]:
        label = labels.get((row["leaning"], row["asked"]))
        if label:
            rows.append([label, row["tokens"], number(row["listener"], 3), number(row["blind"], 3),
                         number(row["difference"], 3), f"{row['low']:+.3f} to {row['high']:+.3f}"])
    return html + figure(
        table(["human turns", "tokens", "Socratic", "blind", "gap", "interval"], rows),
        f"Surprise in nats per token at what {losses['dialogues']} held-out people say, "
        "who ask about everything: Socratic, and the same trained blind. The gap is "
        "what hearing the answers is worth.")


USERS = {"human": "people, their second half", "user": "Socratic",
         "base": "the base, not trained to be a user",
         "twin": "the same base, trained on the answers", "prompted": "the twin, told to be a user",
         "script": "“could you tell me more about ...?”",
         "self-chat": "whole dialogues of a script (as for Baize)",
         "random": "what people wrote at other turns", "number": "the number of turns alone"}


def user_colour(name):
    """The colour of a user of the card: one for people, one for Socratic, one for all others."""
    return {"human": "var(--b)", "user": "var(--a)"}.get(name, "var(--c)")


def report_card(run):
    """The section with the simulator's card: charts, a table, notes."""
    card = load(run / "card.json")
    order = dict.fromkeys(["human", "user", *card["users"]])
    users = {name: card["users"][name] for name in order if name in card["users"]}
    points = []
    columns = {"reference": card["reference"]}
    for name, user in users.items():
        columns[name] = flat_user(user)
        detector = user.get("detector", {})
        if detector.get("auc"):
            points.append((name, detector["auc"], detector["low"], detector["high"],
                           user_colour(name)))
    html = heading("The simulator's report card: how like people is it?")
    html += figure(bars(points), "How well a classifier tells a user's turns from people's "
                   "(AUC, 95 % over dialogues): 0.50 means that it cannot. Every user spoke at the "
                   f"same {card['people']['places']:,} human turns of held-out dialogues.")
    html += definitions(users, USERS)
    rows = []
    for measure in dict.fromkeys(name for column in columns.values() for name in column):
        values = [column.get(measure) for column in columns.values()]
        if values.count(None) < len(values):
            rows.append([measure, *values])
    html += figure(table(["", "reference", *users], rows), "Reference: the other half of people. "
                   "Nobody can be expected to be nearer to it than people are.")
    html += bullets(card["notes"])
    html += leaving_curves(users) + topic_curves(users)
    return html + expectations(card["users"]["user"].get("surprise"))


def chart_card(title, chart):
    """A chart with its title, as a card."""
    return tag("div", tag("h3", title) + chart, class_="talk")


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
        chart_card("How often people did leave",
                   curves(calibration, "chance given to leaving", unit_box)),
        chart_card("F1 of leaving",
                   curves(lines("curve"), "counts as leaving from here", unit_box)),
        chart_card("Leaving at this turn", curves(hazards, "turns so far", hazard_box))]
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
        parts.append(chart_card(title, curves(series, "turns so far")))
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
    """The section with statistics of all sets of dialogues, from stats.json."""
    numbers_of = load(run / "stats.json")
    rows = []
    for measure in dict.fromkeys(name for numbers in numbers_of.values() for name in numbers):
        rows.append([measure, *(number(numbers.get(measure)) for numbers in numbers_of.values())])
    return heading("Statistics of the dialogues") + figure(
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
    """The section with one dialogue and its two masks."""
    record = next(read_records("data/example.jsonl"))
    tokenizer = Tokenizer.load(run / "base")
    titles = {"human": "human learnt: Socratic", "gpt": "gpt learnt: PlatoLM"}
    parts = [chart_card(title, mask(record, tokenizer, learn)) for learn, title in titles.items()]
    return heading("One dialogue, two ways to learn from it") + figure(
        cards(parts), "The same ids; the loss counts where it is marked. At the end the human "
        "leaves, by saying nothing.")


def dialogues(run):
    """The section with dialogues of four users: the first two of three to five rounds."""
    files = {"held-out people": "held-out.jsonl", "Socratic": "chat/socratic.jsonl",
             "self-chat": "chat/self-chat.jsonl", "role-play": "chat/role-play.jsonl"}
    parts = []
    for name, file in files.items():
        short = (record for record in read_records(run / file)
                 if 6 <= len(record["conversations"]) <= 10)
        parts += [talk(name, record["conversations"]) for record in islice(short, 2)]
    return heading("Dialogues, side by side") + figure(
        cards(parts), "The first two of each file that have three to five rounds; none was chosen.")


def arm_sizes(run):
    """The section with the sizes of each arm's training: what was equal, and what was not."""
    behaviour = load(run / "behaviour.json")
    rows = []
    for path in sorted(run.glob("assistant/*/log.jsonl")):
        name = path.parent.name
        steps = log(run, f"assistant/{name}")
        count = sum(1 for _ in open(run / "chat" / f"{name}.jsonl", encoding="utf-8"))
        tokens = sum(step["tokens"] for step in steps)
        learnt = sum(step["learnt"] for step in steps)
        samples = sum(step["samples"] for step in steps)
        rows.append([name, count, len(steps), tokens, learnt, number(samples / count),
                     f"{behaviour[name]['never_asked']:.0%}"])
    return heading("What was equal, and what was not") + figure(
        table(["arm", "dialogues", "updates", "tokens computed", "tokens learnt", "epochs",
               "never-asked facts reached"], rows),
        "Equal by design: the base, the number of dialogues, the updates, the tokens computed in "
        "an update. Not equal: how many of them are answers, how often a dialogue is seen, which "
        "facts are talked about. Socratic and his blind twin learnt from all human dialogues, the "
        "human arm from as many as the others have (as in the paper).")


def mean_losses(rows, width=40):
    """Average a log's losses over `width` updates: [(first step, loss), ...]."""
    points = []
    for i in range(0, len(rows), width):
        losses = [row["loss"] for row in rows[i:i + width]]
        points.append((rows[i]["step"], sum(losses) / len(losses)))
    return points


def training(run):
    """The section with two charts of losses: held-out for the users, training for assistants."""
    users, assistants = {}, {}
    for name in ("socratic", "blind"):
        points = [(row["step"], row["held_out"]) for row in log(run, name) if "held_out" in row]
        users[name] = points, arm_colour(name)
    for path in sorted(run.glob("assistant/*/log.jsonl")):
        name = path.parent.name
        assistants[name] = mean_losses(log(run, f"assistant/{name}")), arm_colour(name)
    html = heading("Training")
    html += figure(curves(users, "updates"), "Loss of the two users on held-out people, in nats "
                   "per token. The blind one is told less, so it stays more surprised.")
    return html + figure(curves(assistants, "updates"), "Training loss of the assistants, in nats "
                         "per token, each on its own dialogues: low means predictable, not good.")


def stages(results):
    """The section with the seconds that each stage took."""
    rows = [[name, f"{seconds:.0f} s"] for name, seconds in results.get("seconds", {}).items()]
    return heading("Time") + figure(table(["stage", "took"], rows),
                                    "Stages run side by side, so the sum is more than the wait; of "
                                    "a resumed stage this is the last part.")


# ------------------------------------------------------------------------------------------------
# the page

ABOUT = """<h1>PlatoLM in a tiny world</h1>
<p>Train a language model on what the <b>humans</b> of dialogues say, and you get Socratic, who
asks as they do. Let him talk to a teacher, train another on the <b>answers</b>, and you get
PlatoLM. This page shows one run of that idea in a small invented harbour, beside other ways to come
by dialogues.</p>
<p class="soft">We wrote the people, the teacher, the scripts and the grader ourselves; a program
stands in for ChatGPT, another for the judge. The facts nobody asks about were left out at random,
which is kind to a learner that recombines. The page illustrates a mechanism; it is no evidence
about models a thousand times larger.</p>"""


def page(run):
    """The whole page as HTML; run: the directory of the run."""
    results = load(run / "results.json")
    sections = [ABOUT, next_questions(run), arms(results), pairs(results), by_kind(results),
                report_card(run), listening(run), statistics(run), masks(run), dialogues(run),
                arm_sizes(run), training(run), stages(results)]
    head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>PlatoLM in a tiny world</title><style>{STYLE}</style>")
    inside = tag("head", head) + tag("body", "".join(sections))
    return f'<!doctype html>\n<html lang="en">{inside}</html>\n'


def main():
    """Write the report of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/tiny")
    parser.add_argument("--out", required=True, help="HTML file to write")
    args = parser.parse_args()
    # the page stands in the directory of what it is made from
    if Path(args.out).suffix != ".html":
        raise UserError(f"--out {args.out}: the report is a page, so that its name ends in .html")
    write_text(args.out, [page(args.run)])
    print(f"the report: {args.out}")


if __name__ == "__main__":
    run(main)
