"""
The report: one page that holds all of a run's results, in words, tables and pictures.

It needs no network and no script; light and dark follow the reader's choice. Not here: any
computation of a result (evaluate.py, listening.py), tables and pictures (svg.py).

    python -m data.experiment.report runs/tiny --out runs/tiny/report.html
"""

import argparse
import json
from html import escape
from itertools import groupby, islice
from pathlib import Path

from data.experiment.svg import bars, curves, figure, table, tag, talk
from data.measure.tables import p_value, flat_user, number, interval
from data.program import UserError, write_text, read_jsonl, run
from platolm import Tokenizer, encode, token_text, turns, read_records

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


def mask(record, tokenizer, learn):
    """The ids of a dialogue as text, with what is learnt marked."""
    ids, learnt = encode(turns(record), tokenizer, learn)
    pieces = zip([token_text(token, tokenizer) for token in ids], learnt)
    runs = [(marked, escape("".join(text for text, _ in run)))
            for marked, run in groupby(pieces, key=lambda pair: pair[1])]
    text = "".join(tag("mark", text) if marked else text for marked, text in runs)
    return tag("div", text.replace("&lt;/s&gt;", "&lt;/s&gt;\n").replace("⏎", "\n"), class_="mask")


# ---------------------------------------------------------------------------------------------
# sections; each takes the run's directory, or what was read from it


def load(path):
    """A JSON file of the run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path}; `make all` writes it") from None


def log(run, name):
    """The rows of a training's log."""
    return list(read_jsonl(run / name / "log.jsonl", None))


def colour(name):
    """PlatoLM's, the human arm's, and that of all others."""
    return {"socratic": "var(--a)", "human": "var(--b)"}.get(name, "var(--c)")


def verdict(a, b, pair):
    """One honest sentence on the paired difference between two arms."""
    found = f"{pair['difference']:+.3f} {interval(pair, sign='+')}"
    if pair["low"] is None:
        return f"One question tells nothing of {a} and {b}: {found}."
    if pair["low"] > 0:
        return f"{a} scored higher than {b}: {found}."
    if pair["high"] < 0:
        return f"{a} scored lower than {b}: {found}."
    return f"No difference between {a} and {b} that these questions could show: {found}."


def next_questions(run):
    cases = load(run / "questions.json")[:3]
    ways = (("a person", "person"), ("Socratic", "socratic"), ("a script", "script"))
    cards = [talk("so far", case["turns"], "".join(
        tag("div", f'<span class="gpt">{words}:</span> <b>{escape(case[key])}</b>', class_="next")
        for words, key in ways)) for case in cases]
    return tag("h2", "Three next questions to the same answer") + figure(
        tag("div", "".join(cards), class_="cards"), "Bold is what users say. The talks are those "
        "of held-out people, in the order of the file, cut where the person leaned on the answer.")


def arms(results):
    found = sorted(results["arms"].items(), key=lambda arm: -arm[1]["overall"])
    rows = [(name, arm["overall"], arm["low"], arm["high"], colour(name)) for name, arm in found]
    keys = {"asked": "asked", "never asked": "never_asked", "turn 1": "turn1", "turn 2": "turn2",
            "formal": "formal", "Vicuna's": "vicuna", "gold": "gold", "completes": "completed"}
    width = max(arm["gold_high"] - arm["gold_low"] for _, arm in found) / 2
    page = tag("h2", "The arms: which dialogues make the better assistant?")
    page += figure(bars(rows), "Mean score from 0 to 1 over the questions, with 95 % intervals.")
    page += tag("dl", "".join(tag("dt", escape(name)) + tag("dd", escape(ARMS.get(name, "")))
                              for name, _ in found))
    page += figure(table(["arm", "overall", *keys],
                         [[name, arm["overall"], *(arm.get(key) for key in keys.values())]
                          for name, arm in found]),
                   "asked, never asked: questions about facts that the people in the data do and "
                   "do not ask about. formal: the same questions in a formal phrasing, plain first "
                   "turns as the scripts put them. gold: right answers in 60 dialogues that we had "
                   "written one by one, from the fact sheet, by writers who had not seen the "
                   f"generator (±{width:.2f} at most). completes: encyclopaedia "
                   "sentences ended rightly "
                   "as plain text; fine-tuning erodes it.")
    pairs = [(a, b, results["paired"].get(f"{a}-{b}")) for a, _ in found for b, _ in found]
    said = [verdict(a, b, pair) for a, b, pair in pairs if pair]
    page += tag("ul", "".join(tag("li", escape(sentence)) for sentence in said))
    return page + tag("p", "The intervals cover the choice of questions; they do not cover the "
                           "luck of training. This is one seed.", class_="soft")


def pairs(results):
    if not results.get("duels"):
        return ""
    rows = [[f"{duel['model_1']} – {duel['model_2']}", duel["wins"], duel["ties"], duel["losses"],
             f"{number(duel['adjusted'], 2)} {interval(duel, 2)}", p_value(duel["p"]),
             "-" if not (even := duel["controlled"]) else
             f"{number(even['rate'], 2)} {interval(even, 2)}", duel["flips"], duel["first"]]
            for duel in results["duels"]]
    return tag("h2", "The same answers in pairs") + figure(
        table(["first – second", "win", "tie", "loss", "wins and half the ties", "p",
               "at equal length", "flips", "first place"], rows),
        "Each pair is judged in both orders, and a win counts where both agree. p: of no "
        "difference, by permutation over questions. At equal length: what remains when the "
        "judge's liking for longer answers is taken out. Flips: how often the orders disagree. "
        "First place: of the games that somebody won, who stood first; 0.50 means that the place "
        "does not matter.")


def by_kind(results):
    page = tag("h2", "Where they differ: kinds of turn, and categories")
    for what, words in (("kinds", "Mean score per kind of turn. A doubt, a pick, a number, a new "
                         "name and a reshaping lean on the answer before them."),
                        ("categories", "Mean score per category: the harbour's questions under "
                         "MT-Bench's labels.")):
        names = list(next(iter(results["arms"].values()))[what])
        rows = [[name, *(arm[what][key] for key in names)]
                for name, arm in results["arms"].items()]
        page += figure(table(["arm", *names], rows), words)
    return page


def listening(run):
    found, nll = load(run / "behaviour.json"), load(run / "listening.json")
    rows = [[name, user["turns"], f"{user['leaning']:.0%}", f"{user['lost']:.1%}",
             f"{user['never_asked']:.0%}",
             *(number(hit["share"]) for hit in user["grounded"].values())]
            for name, user in found.items()]
    page = tag("h2", "Does the simulator listen?")
    page += figure(table(["user", "turns", "leaning", "lost", "reached",
                          *next(iter(found.values()))["grounded"]], rows),
                   "leaning: later turns that depend on the answer. lost: turns that the teacher "
                   "did not understand. reached: share of the facts that people never ask about. "
                   "The last three: of the turns that lean on something by their words, how many "
                   "find it in an answer; blind shows how far one comes who "
                   "hears only himself.")
    words = {(None, None): "all later turns", (True, None): "leaning on the answer",
             (False, None): "others", (None, False): "after a never-asked fact",
             (True, False): "leaning, after a never-asked fact"}
    picked = [(words[key], row) for row in nll["rows"]
              if (key := (row["leaning"], row["asked"])) in words]
    page += figure(table(["human turns", "tokens", "Socratic", "blind", "gap", "interval"],
                         [[name, row["tokens"], number(row["listener"], 3), number(row["blind"], 3),
                           number(row["difference"], 3), f"{row['low']:+.3f} to {row['high']:+.3f}"]
                          for name, row in picked]),
                   f"Surprise in nats per token at what {nll['dialogues']} held-out people say, "
                   "who ask about everything: Socratic, and the same trained blind. The gap is "
                   "what hearing the answers is worth.")
    return page


WHO = {"human": "people, their second half", "user": "Socratic",
       "base": "the base, not trained to be a user",
       "twin": "the same base, trained on the answers", "prompted": "the twin, told to be a user",
       "script": "“could you tell me more about ...?”",
       "self-chat": "whole dialogues of a script (as for Baize)",
       "random": "what people said, at other places", "number": "the number of turns alone"}
HUES = {"human": "var(--b)", "user": "var(--a)"}


def report_card(run):
    card = load(run / "card.json")
    users = {name: card["users"][name] for name in [*HUES, *card["users"]] if name in card["users"]}
    told = [(name, found["auc"], found["low"], found["high"], HUES.get(name, "var(--c)"))
            for name, user in users.items() if (found := user.get("detector", {})).get("auc")]
    page = tag("h2", "The simulator's report card: how like people is it?")
    page += figure(bars(told), "How well a classifier tells a user's turns from people's "
                   "(AUC, 95 % over dialogues): 0.50 means that it cannot. Every user spoke at the "
                   f"same {card['people']['places']:,} places of held-out people's dialogues.")
    page += tag("dl", "".join(tag("dt", escape(name)) + tag("dd", escape(WHO.get(name, "")))
                              for name in users))
    numbers = {"reference": card["reference"]} | {name: flat_user(user) for name, user in users.items()}
    names = dict.fromkeys(row for found in numbers.values() for row in found)
    rows = [[row, *(found.get(row) for found in numbers.values())] for row in names
            if any(found.get(row) is not None for found in numbers.values())]
    page += figure(table(["", "reference", *users], rows), "Reference: the other half of people. "
                   "Nobody can be expected to be nearer to it than people are.")
    page += tag("ul", "".join(tag("li", escape(note)) for note in card["notes"]))
    return (page + leaving_curves(users) + topic_curves(users)
            + expectations(card["users"]["user"].get("surprise")))


def leaving_curves(users):
    """Three pictures: are the chances right, where to draw the line, when do they leave?"""
    known = {name: user["leaving"] for name, user in users.items()
             if user.get("leaving") and name in ("user", "twin", "number")}
    if "user" not in known:
        return ""
    line = lambda key: {name: ([point[:2] for point in found[key]], HUES.get(name, "var(--c)"))
                        for name, found in known.items()}
    unit_box, people = ((0, 1), (0, 1)), known["user"]["people"]
    last = people[-1][0]
    hazards = line("hazard") | {"people": (people, HUES["human"])}
    cards = [
        curves({"right": ([(0, 0), (1, 1)], "var(--line)")} | line("reliability"),
               "chance given to leaving", unit_box),
        curves(line("curve"), "counts as leaving from here", unit_box),
        curves(hazards, "turns so far", ((people[0][0], last), (0, 1)))]
    titles = ("How often people did leave", "F1 of leaving", "Leaving at this turn")
    return figure(tag("div", "".join(tag("div", tag("h3", title) + picture, class_="talk")
                                     for title, picture in zip(titles, cards)), class_="cards"),
                  "Does it leave when people do? Left: of the places to which it gave such a "
                  "chance, the share at which the person left; the straight line would be right. "
                  "Middle: F1 by the chance from which it counts as leaving. Right: the chance of "
                  "leaving by the number of turns.")


def topic_curves(users):
    """Two pictures: how near to the first turn, and to the last answer, do users stay?"""
    shown = {name: user["topic"] for name, user in users.items()
             if name in ("human", "user", "script", "twin") and user.get("topic", {}).get("first")}
    if not shown:
        return ""
    titles = {"first": "Nearness to the first turn", "answer": "Nearness to the answer before"}
    cards = [tag("div", tag("h3", title) + curves(
        {name: (list(enumerate(found[key], 1)), HUES.get(name, "var(--c)"))
         for name, found in shown.items()}, "turns so far"), class_="talk")
        for key, title in titles.items()]
    return figure(tag("div", "".join(cards), class_="cards"), "How a dialogue moves on: the mean "
                  "cosine of hashed runs of characters, by the number of turns.")


def expectations(surprise):
    """What people say, as the simulator expects it, by kind of turn."""
    if not surprise:
        return ""
    rows = [[name, kind["turns"], number(kind["bits"]),
             *(f"{number(kind[way]['mean'], 2, '+')} {interval(kind[way], 2, '+')}"
               for way in ("blanked", "exchanged"))] for name, kind in surprise["kinds"].items()
            # of fewer there is no telling
            if kind["turns"] >= 10]
    return figure(table(["people's later turns", "turns", "bits per byte", "answers blanked",
                         "answers exchanged"], rows),
                  "How surprised the simulator is by what people say, and how much more if the "
                  "answers they had heard are blanked, or another dialogue's: what it hears.")


def statistics(run):
    found = load(run / "stats.json")
    measures = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    rows = [[measure, *(number(numbers.get(measure)) for numbers in found.values())]
            for measure in measures]
    return tag("h2", "Statistics of the dialogues") + figure(
        table(["", *found], rows), "Taken for human, and AUC: a classifier of runs of characters, "
        "trained on held-out people against this set, cross-validated over dialogues. Cosines and "
        "topics: of hashed runs of characters, so they see words and not meanings. A session that "
        "shares words with the bench has eight in a row, or all of a shorter question.")


def training(run):
    users = {name: ([(row["step"], row["held_out"]) for row in log(run, name)
                     if "held_out" in row], colour(name)) for name in ("socratic", "blind")}
    chats = [path.parent.name for path in sorted(run.glob("assistant/*/log.jsonl"))]

    def smooth(rows, width=40):
        return [(rows[i]["step"], sum(row["loss"] for row in rows[i:i + width])
                 / len(rows[i:i + width])) for i in range(0, len(rows), width)]
    losses = {name: (smooth(log(run, f"assistant/{name}")), colour(name)) for name in chats}
    page = tag("h2", "Training")
    page += figure(curves(users, "updates"), "Loss of the two users on held-out people, in nats "
                   "per token. The blind one is told less, so it stays more surprised.")
    return page + figure(curves(losses, "updates"), "Training loss of the assistants, in nats per "
                         "token, each on its own dialogues: low means predictable, not good.")


def equal(run, results):
    rows, users = [], load(run / "behaviour.json")
    for path in sorted(run.glob("assistant/*/log.jsonl")):
        name, steps = path.parent.name, log(run, f"assistant/{path.parent.name}")
        dialogues = sum(1 for _ in open(run / "chat" / f"{name}.jsonl", encoding="utf-8"))
        reached = users[name]["never_asked"]
        rows.append([name, dialogues, len(steps), sum(row["tokens"] for row in steps),
                     sum(row["learnt"] for row in steps),
                     number(sum(row["samples"] for row in steps) / dialogues), f"{reached:.0%}"])
    return tag("h2", "What was equal, and what was not") + figure(
        table(["arm", "dialogues", "updates", "tokens computed", "tokens learnt", "epochs",
               "never-asked facts reached"], rows),
        "Equal by design: the base, the number of dialogues, the updates, the tokens computed in "
        "an update. Not equal: how many of them are answers, how often a dialogue is seen, which "
        "facts are talked about. Socratic and his blind twin learnt from all human dialogues, the "
        "human arm from as many as the others have (as in the paper).")


def masks(run):
    record = next(read_records("data/example.jsonl"))
    tokenizer = Tokenizer.load(run / "base")
    models = {"human": "human learnt: Socratic", "gpt": "gpt learnt: PlatoLM"}
    cards = [tag("div", tag("h3", title) + mask(record, tokenizer, learn), class_="talk")
             for learn, title in models.items()]
    return tag("h2", "One dialogue, two ways to learn from it") + figure(
        tag("div", "".join(cards), class_="cards"), "The same ids; the loss counts where it is "
        "marked. At the end the human leaves, by saying nothing.")


def dialogues(run):
    page = tag("h2", "Dialogues, side by side")
    sources = {"held-out people": "held-out.jsonl", "Socratic": "chat/socratic.jsonl",
               "self-chat": "chat/self-chat.jsonl", "role-play": "chat/role-play.jsonl"}
    cards = []
    for name, file in sources.items():
        fit = (record for record in read_records(run / file)
               if 6 <= len(record["conversations"]) <= 10)
        cards += [talk(name, record["conversations"]) for record in islice(fit, 2)]
    return page + figure(tag("div", "".join(cards), class_="cards"), "The first two of each file "
                         "that have three to five rounds; none was chosen.")


def stages(results):
    rows = [[name, f"{seconds:.0f} s"] for name, seconds in results.get("seconds", {}).items()]
    return tag("h2", "Time") + figure(table(["stage", "took"], rows),
                                      "Stages run side by side, so the sum is more than the "
                                      "wait; of a resumed stage this is the last part.")


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
    """The whole page as HTML."""
    results = load(run / "results.json")
    body = [ABOUT, next_questions(run), arms(results), pairs(results), by_kind(results),
            report_card(run), listening(run), statistics(run), masks(run), dialogues(run),
            equal(run, results), training(run), stages(results)]
    head = ('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>PlatoLM in a tiny world</title><style>{STYLE}</style>")
    inside = tag("head", head) + tag("body", "".join(body))
    return f'<!doctype html>\n<html lang="en">{inside}</html>\n'


def main():
    """Write the report of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/tiny")
    parser.add_argument("--out", required=True, help="HTML file to write")
    args = parser.parse_args()
    write_text(args.out, [page(args.run)])
    print(f"the report: {args.out}")


if __name__ == "__main__":
    run(main)
