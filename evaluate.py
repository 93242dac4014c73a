"""
Ask assistants the questions of a bench, have a judge compare what they say, and say how sure one
may be; and measure users: what they say, and whether they listen.

    python evaluate.py answer NAME=DIR ... --bench bench            answers of checkpoints
    python evaluate.py judge NAME ... --bench bench --judge URL     ratings, or winners of pairs
    python evaluate.py score NAME ... --bench bench                 the tables, and results.json
    python evaluate.py stats FILE ...                               what dialogues are like
    python evaluate.py card --user DIR --human FILE                 how like people is a user?

A bench is a directory in MT-Bench's layout (data/measure/mtbench.py). Not here: the judge
(data/measure/judge.py, data/harbour/grader.py), what is counted in texts (data/text_metrics.py),
what a card and statistics are made of
(data/measure/card.py, data/measure/dataset_stats.py), the page (data/experiment/report.py).
Read before: platolm.py, model.py, simulate.py.
"""

import argparse
import re
import threading
import time
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np

from data.api.budget import Endpoint
from data.api.journal import Journal
from data.api.request_pool import tally, ask_all, raise_if_incomplete
from data.machine import named_checkpoint
from data.measure import card, dataset_stats as sets, mtbench
from data.measure.intervals import bootstrap, bounded, kappa, mean_of, paired, permutation
from data.measure.judge import Case, Judge, prompt_messages, require_one_budget
from data.measure.likelihood import UserLikelihoods
from data.measure.mtbench import read_questions
from data.measure.tables import arm_lines, pair_lines, vote_lines
from data.program import (UserError, Progress, url, name_and_value, natural_int, positive_int,
                          read_jsonl, read_json, run, write_jsonl, write_json)
from model import generate_batch
from platolm import prompt
from simulate import client_factory, client_settings, money_flags


# ------------------------------------------------------------------------------------------------
# answer


def answer(model, tokenizer, questions, limit, slots=64, seed=0):
    """
    An assistant's answers, turn by turn, at most `limit` tokens each, as freely drawn as their
    category asks for (mtbench.temperature).

    questions: [{"category", "turns": [text, ...]}, ...]. Returns for each its answers, and why
    some of them do not end where the assistant ended: {turn, from 1: "length"}.
    """
    talks, ends = [[] for _ in questions], [{} for _ in questions]
    freely = [mtbench.temperature(question) for question in questions]
    turns_of = [len(question["turns"]) for question in questions]
    for turn, heat in product(range(max(turns_of)), sorted(set(freely))):
        asked = [i for i, n in enumerate(turns_of) if turn < n and freely[i] == heat]
        for i in asked:
            talks[i].append({"from": "human", "value": questions[i]["turns"][turn]})
        prompts = [prompt(talks[i], tokenizer, "gpt") for i in asked]
        draws = [np.random.default_rng([seed, i, turn]).random for i in asked]
        rows = generate_batch(model, prompts, [tokenizer.eos], limit, slots, draws,
                              temperature=heat)
        for i, row in zip(asked, rows):
            talks[i].append({"from": "gpt", "value": tokenizer.decode(row.output)})
            ends[i] |= {turn + 1: row.finish_reason} if row.finish_reason != "stop" else {}
    return [[said["value"] for said in talk if said["from"] == "gpt"] for talk in talks], ends


def answer_over(client, model, questions, limit, journal, in_flight, stop):
    """
    The same from a model behind an address. Every answer is in the journal before it counts; one
    that is refused stays empty, and so do those after it.
    """
    answers, ends = [[] for _ in questions], [{} for _ in questions]
    refused = [None] * len(questions)
    for turn in range(max(len(question["turns"]) for question in questions)):
        names, tasks = {}, {}
        for i, question in enumerate(questions):
            if turn < len(question["turns"]) and not refused[i]:
                talk = mtbench.messages_so_far(question["turns"], answers[i])
                names[i] = mtbench.text_hash(repr(talk), str(question["question_id"]))
                if not journal.turns(names[i]):
                    tasks[names[i]] = partial(client.chat, model, talk, limit,
                                              temperature=mtbench.temperature(question))
        told = Progress(f"{model}, turn {turn + 1}", len(tasks), client.ledger, unit="answers")
        failed = ask_all(journal, tasks, in_flight, stop, told)
        raise_if_incomplete(failed.values(), "answers")
        for i, question in enumerate(questions):
            if turn < len(question["turns"]):
                refused[i] = refused[i] or failed.get(names[i])
                row = {"value": "", "finish": refused[i]} if refused[i] else \
                    journal.turns(names[i])[0]
                answers[i].append(row["value"])
                # servers have many words for an end; that it was cut short has one
                if row["finish"] in ("length", refused[i]):
                    ends[i][turn + 1] = row["finish"]
    return answers, ends


# ------------------------------------------------------------------------------------------------
# judge


def rating(judgment):
    """The number in [[7]] or [[7.5]], otherwise in [7]; None if there is none from 1 to 10."""
    for pattern in (r"\[\[(\d+\.?\d*)\]\]", r"\[(\d+\.?\d*)\]"):
        if found := re.search(pattern, judgment):
            number = float(found[1])
            return number if 1 <= number <= 10 else None
    return None


def verdict(judgment):
    """
    What the answer that was shown first gets: 1 for [[A]], 0 for [[B]], 0.5 for [[C]]; None without
    any. Of several, [[A]] goes before [[B]] before [[C]], wherever they stand, as in FastChat.
    """
    for mark, share in (("[[A]]", 1.0), ("[[B]]", 0.0), ("[[C]]", 0.5)):
        if mark in judgment:
            return share
    return None


def judgment_cases(bench, names, pairs, prompts, judge):
    """
    The judgments of a bench: of each assistant's answers alone or, with pairs [(a, b), ...], of
    two together, in both orders.
    """
    questions, references = read_questions(bench), mtbench.read_references(bench, judge)
    answers = {name: mtbench.answers_to(bench, name, questions)
               for name in dict.fromkeys([*names, *(name for pair in pairs for name in pair)])}
    for who, (i, question) in product(pairs or [(name,) for name in names], enumerate(questions)):
        right = mtbench.reference(question, references)
        shown = [answers[name][i] for name in who]
        about = {"model_1": who[0], "model_2": who[1]} if pairs else {"model": who[0]}
        for turn in range(1, len(question["turns"]) + 1):
            orders = (shown, shown[::-1]) if pairs else (shown,)
            refused = any(None in texts[:turn] for texts in shown)
            asked = [] if refused else [mtbench.fill_prompt(prompts, question, turn, order, right)
                                        for order in orders]
            row = {"question_id": question["question_id"], **about, "turn": turn}
            yield Case(row | {"answers": mtbench.answers_hash(shown, turn)}, asked)


# ------------------------------------------------------------------------------------------------
# how sure may one be?


def length_controlled(outcomes, longer, weights=None, ridge=0.01, steps=25):
    """
    The win rate at equal length (Dubois et al. 2024, arXiv 2404.04475, in its smallest form).

    Fits logit P(win) = a + b tanh(longer / its standard deviation) by Newton's steps and gives P at
    longer = 0. The ridge keeps both finite, and draws P a little towards 1/2. outcomes (n): 1, 0.5
    or 0; longer (n): by how many characters; weights (draws, n): how often each counts. Returns
    (draws,), or (1,) without weights.
    """
    x = np.tanh(longer / (np.std(longer) or 1))
    weights = np.ones((1, len(outcomes))) if weights is None else weights
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * x)))
        missed, curve = weights * (outcomes - p), weights * p * (1 - p)
        # the gradient (2) and the curvature (2 x 2) of the penalised log-likelihood
        ga, gb = missed.sum(1) - ridge * a, (missed * x).sum(1) - ridge * b
        haa, hab, hbb = curve.sum(1) + ridge, (curve * x).sum(1), (curve * x * x).sum(1) + ridge
        det = haa * hbb - hab * hab
        a, b = a + (hbb * ga - hab * gb) / det, b + (haa * gb - hab * ga) / det
    return 1 / (1 + np.exp(-a))


# ------------------------------------------------------------------------------------------------
# scores of one


def to_unit_scale(ratings):
    """Ratings of 1 to 10 as scores of 0 to 1."""
    return (np.asarray(ratings, dtype=float) - 1) / 9


def summary(scores, questions):
    """
    One assistant in numbers. scores (questions, turns), in 0..1, NaN where nothing was rated  ->
    {"overall", "low", "high", "failed", "worst", "best", "asked", ...}. A question's "asked" tells
    whether the humans of the training data ever ask about what it is about; without the key it
    counts as asked.
    """
    rated = ~np.isnan(scores)
    mean, low, high = bootstrap(np.nansum(scores, axis=1), rated.sum(axis=1))
    asked = np.array([question.get("asked", True) for question in questions])
    there = np.array([[turn < len(question["turns"]) for turn in range(scores.shape[1])]
                      for question in questions])
    categories = np.array([question["category"] for question in questions])
    worst, best = bounded(scores[there], 0, 1)
    return {"overall": mean, "low": low, "high": high, "worst": worst, "best": best,
            "rating": None if mean is None else 1 + 9 * mean, "failed": int((there & ~rated).sum()),
            "asked": mean_of(scores[asked]), "never_asked": mean_of(scores[~asked]),
            **{f"turn{i + 1}": mean_of(scores[:, i]) for i in range(scores.shape[1])},
            "categories": {name: mean_of(scores[categories == name])
                           for name in dict.fromkeys(categories.tolist())},
            "kinds": by_kind(scores, questions)}


def by_kind(scores, questions):
    """Mean score of each kind of turn, for questions that name them: {"doubt": 0.93, ...}."""
    found = {}
    for row, question in zip(scores, questions):
        for score, kind in zip(row, question.get("kinds", ())):
            found.setdefault(kind, []).append(score)
    return {kind: mean_of(np.array(found[kind])) for kind in sorted(found)}


# ------------------------------------------------------------------------------------------------
# scores of two


def outcome(row):
    """
    What model 1 gets of a judgment of two: a win or a loss counts only where both orders agree.

    1, 0; 0.5 for a tie, also of one order alone, and for a disagreement; NaN where a game has no
    winner. (Old files of FastChat have but one "winner".)
    """
    games = row.get("g1_winner", row.get("winner")), row.get("g2_winner", row.get("winner"))
    if "error" in games:
        return np.nan
    return {("model_1", "model_1"): 1.0, ("model_2", "model_2"): 0.0}.get(games, 0.5)


def pairwise(rows, longer):
    """
    Model 1 against model 2, from all judgments of the pair; longer: for each, by how many
    characters the answer of model 1 was longer.

    Of all judgments, one a turn: "win_rate", "loss_rate", and "adjusted" (FastChat's word), the
    share of wins and half the ties, with its interval over questions, and "p" of no difference;
    "controlled" is that at equal length. "flips": the share in which the orders disagree, a win
    against a tie included. "first": of the games that somebody won, the share won by who was shown
    first. "worst", "best": "adjusted" if all that failed were losses, or wins.
    """
    outcomes = np.array([outcome(row) for row in rows])
    _, group = np.unique([str(row["question_id"]) for row in rows], return_inverse=True)
    judged = ~np.isnan(outcomes)
    sums = np.bincount(group, np.where(judged, outcomes, 0))
    counts = np.bincount(group, judged)
    rate, low, high = bootstrap(sums, counts)
    games = [(row["g1_winner"], row["g2_winner"]) for row, fine in zip(rows, judged)
             if fine and "g1_winner" in row]
    won = [game == first for both in games for game, first in zip(both, ("model_1", "model_2"))
           if game != "tie"]
    wins, losses, n = (outcomes == 1).sum(), (outcomes == 0).sum(), judged.sum()
    worst, best = bounded(outcomes, 0, 1)
    seen = counts > 0
    return {"wins": int(wins), "ties": int(n - wins - losses), "losses": int(losses),
            "win_rate": ratio(wins, n), "loss_rate": ratio(losses, n),
            "adjusted": rate, "low": low, "high": high,
            "p": permutation(sums[seen] / counts[seen] - 0.5) if seen.any() else None,
            "flips": ratio(sum(a != b for a, b in games), len(games)),
            "first": ratio(sum(won), len(won)),
            "failed": int((~judged).sum()), "worst": worst, "best": best,
            "controlled": length_controlled_interval(outcomes[judged], np.asarray(longer)[judged], group[judged])}


def ratio(part, whole):
    """part / whole, or None of nothing."""
    return float(part / whole) if whole else None


def length_controlled_interval(outcomes, longer, group, draws=500, seed=0):
    """
    The win rate at equal length with its interval over questions: {"rate", "low", "high"}; None
    where there are no two questions, or every answer is longer by as much.
    """
    _, group = np.unique(group, return_inverse=True)
    if len(set(group)) < 2 or np.std(longer) == 0 and np.any(longer):
        return None
    questions = group.max() + 1
    picks = np.random.default_rng(seed).integers(questions, size=(draws, questions))
    weights = np.array([np.bincount(pick, minlength=questions)[group] for pick in picks])
    rate, = length_controlled(outcomes, longer)
    low, high = np.percentile(length_controlled(outcomes, longer, weights), [2.5, 97.5])
    return {"rate": rate, "low": low, "high": high}


def agreement(rows, votes):
    """
    A judge against human votes (question, turn, a, b, winner) on the same pairs of answers:
    {"n", "agreed", "low", "high", "kappa"} over three labels, and without the ties of either.
    """
    judged = {}
    for row in rows:
        if not np.isnan(outcome(row)):
            place, one, two = mtbench.judgment_key(row)[:2], row["model_1"], row["model_2"]
            judged[(*place, one, two)] = {1.0: "a", 0.0: "b"}.get(outcome(row), "tie")
            judged[(*place, two, one)] = {1.0: "b", 0.0: "a"}.get(outcome(row), "tie")
    both = [(vote[0], judged[vote[:4]], vote[4]) for vote in votes if vote[:4] in judged]
    strict = [row for row in both if "tie" not in row]
    return {"all": agreed(both), "without_ties": agreed(strict)}


def agreed(both):
    """[(question, label, label)] -> {"n", "agreed", "low", "high", "kappa"}; None of nothing."""
    if not both:
        return None
    names, group = np.unique([str(question) for question, _, _ in both], return_inverse=True)
    same = np.array([a == b for _, a, b in both])
    share, low, high = bootstrap(np.bincount(group, same), np.bincount(group))
    return {"n": len(both), "agreed": share, "low": low, "high": high,
            "kappa": kappa([a for _, a, _ in both], [b for _, _, b in both])}


# ------------------------------------------------------------------------------------------------
# a user's card: what people say, and when they leave, as a trained user expects it


# ------------------------------------------------------------------------------------------------
# commands


def is_address(word):
    """Whether it is NAME=URL, and not NAME=DIR."""
    return word.partition("=")[2].startswith(("http://", "https://"))


def answers_from(word, benches, args):
    """The answers of NAME=DIR or NAME=URL, bench by bench: (name, bench, answers, ends)."""
    name, _, url = word.partition("=")
    if not is_address(word):
        name, model, tokenizer = named_checkpoint(word)
        for bench, questions in benches.items():
            yield name, bench, *answer(model, tokenizer, questions, args.limit, seed=args.seed)
        return
    for bench, questions in benches.items():
        stop = threading.Event()
        journal = Journal(mtbench.answers_path(bench, name).with_suffix(".journal"),
                          {"model": name, "limit": args.limit})
        client_for, _ = client_factory(client_settings(args), url, journal, stop, bool(args.price))
        client = client_for(Endpoint(url, name, args.price))
        try:
            yield name, bench, *answer_over(client, name, questions,
                                            args.limit, journal, args.in_flight, stop)
        finally:
            journal.close()


def command_answer(args):
    benches = {bench: read_questions(bench) for bench in args.bench}
    addresses = [word.partition("=")[2] for word in args.models if is_address(word)]
    if len(set(addresses)) > 1:
        raise UserError("one address at a time: OPENAI_API_KEY and --price are for one")
    require_one_budget(args, addresses * len(benches), "bench and model")
    names = [word.partition("=")[0] if is_address(word) else word.rpartition("=")[0]
             or Path(word).name for word in args.models]
    if len(set(names)) < len(names):
        raise UserError(f"two of {', '.join(names)} have one name: NAME=DIR tells them apart")
    for word in args.models:
        began, why = time.time(), []
        for name, bench, texts, ends in answers_from(word, benches, args):
            rows = mtbench.answer_rows(name, benches[bench], texts, ends)
            write_jsonl(mtbench.answers_path(bench, name), rows)
            why += [end for one in ends for end in one.values()]
        print(f"{name}: answers to {sum(map(len, benches.values()))} questions in "
              f"{time.time() - began:.0f} s"
              + (f"; not ended by itself: {tally(why)}" if why else ""), flush=True)


def make_pairs(args):
    """Which assistants are held against each other, as (a, b); none where each is rated alone."""
    if args.mode == "single":
        return []
    found = list(combinations(dict.fromkeys(args.names), 2))
    if args.mode == "pairwise-baseline":
        if not args.baseline:
            raise UserError("--mode pairwise-baseline needs --baseline NAME")
        found = [(name, args.baseline) for name in args.names if name != args.baseline]
    if not found:
        raise UserError(f"--mode {args.mode} of {' '.join(args.names)} makes no pair")
    return found


def judge_bench(bench, args, prompts, stop):
    """Have one bench judged; returns how failures came about."""
    kind, parse = ("single", rating) if args.mode == "single" else ("pair", verdict)
    path = mtbench.judgments_path(bench, args.judge_model, kind)
    found = list(judgment_cases(bench, args.names, make_pairs(args), prompts, args.judge_model))
    wanted = {mtbench.text_hash(*asked): prompt_messages(asked)
              for case in found for asked in case.asked}
    systems = {row["name"]: row.get("system_prompt") or "" for row in prompts}
    judge = Judge(path, args, stop, systems)
    try:
        new = judge.ask(wanted, lambda text: parse(text) is not None)
        rows = [judge.row(case, parse) for case in found]
    finally:
        judge.journal.close()
    write_jsonl(path, mtbench.merge_judgments(mtbench.read_judgments(path), rows))
    failures = [row["failure"] for row in rows if "failure" in row]
    print(f"{path}: {len(rows):,} judgments of {len(wanted):,} prompts, {new:,} of which had none "
          f"before; failed: {tally(failures) or 'none'}{judge.spent()}", flush=True)
    if "unparsed" in failures:
        row = rows[[row.get("failure") for row in rows].index("unparsed")]
        text = row.get("judgment") or row.get("g1_judgment") or row.get("g2_judgment") or ""
        print(f"such as: {text[-200:]!r}")
    return failures


def command_judge(args):
    require_one_budget(args, args.bench, "bench")
    prompts, stop = mtbench.read_prompts(args.prompts), threading.Event()
    # the first comes last: where its judgments are, all are
    failures = [why for bench in reversed(args.bench)
                for why in judge_bench(bench, args, prompts, stop)]
    raise_if_incomplete(failures, "judgments")


def read_scores(bench, judge_model, names, questions):
    """{name: scores (questions, turns) in 0..1}; NaN where a judgment failed, or no turn is."""
    path = mtbench.judgments_path(bench, judge_model, "single")
    if not path.exists():
        raise UserError(f"no {path}; `evaluate.py judge` writes it")
    rows = [row for row in mtbench.read_judgments(path) if row["model"] in names]
    old = [mtbench.judgment_key(row) for row in mtbench.stale(bench, rows)]
    rated = {mtbench.judgment_key(row): row["score"] for row in rows if mtbench.judgment_key(row) not in old}
    width, found = max(len(question["turns"]) for question in questions), {}
    for name in names:
        keys = [[(q["question_id"], turn + 1, (name,)) for turn in range(len(q["turns"]))]
                for q in questions]
        missing = sum(key not in rated for row in keys for key in row)
        if missing:
            raise UserError(f"{missing} answers of {name} have not been judged as they are now; "
                          "`evaluate.py judge` asks for just those")
        rows = [[rated[key] for key in row] + [-1] * (width - len(row)) for row in keys]
        found[name] = to_unit_scale(np.where(np.array(rows) < 0, np.nan, rows))
    return found


def pairwise_results(bench, judge_model, names, questions):
    """The pairs of these assistants that were judged: [{"model_1", "model_2", ...}], by `duel`."""
    place = {(question["question_id"], turn): (i, turn - 1) for i, question in enumerate(questions)
             for turn in range(1, len(question["turns"]) + 1)}
    rows = [row for row in mtbench.read_judgments(mtbench.judgments_path(bench, judge_model, "pair"))
            if mtbench.judgment_key(row)[:2] in place and {row["model_1"], row["model_2"]} <= set(names)]
    if old := mtbench.stale(bench, rows):
        raise UserError(f"{len(old)} judgments of pairs are about other answers than those there are "
                      "now; `evaluate.py judge` asks for just those")
    found, lengths = [], {}
    for one, two in dict.fromkeys((row["model_1"], row["model_2"]) for row in rows):
        for name in {one, two} - set(lengths):
            lengths[name] = [[len(text or "") for text in texts]
                             for texts in mtbench.answers_to(bench, name, questions)]
        pair = [row for row in rows if (row["model_1"], row["model_2"]) == (one, two)]
        places = [place[mtbench.judgment_key(row)[:2]] for row in pair]
        longer = [lengths[one][i][turn] - lengths[two][i][turn] for i, turn in places]
        found.append({"model_1": one, "model_2": two, **pairwise(pair, longer)})
    return found


def make_results(args):
    """All that `score` finds, as results.json has it."""
    questions = read_questions(args.bench)
    pairs_only = not mtbench.judgments_path(args.bench, args.judge_model, "single").exists() and \
        mtbench.judgments_path(args.bench, args.judge_model, "pair").exists()
    scores = {} if pairs_only else read_scores(args.bench, args.judge_model, args.names, questions)
    arms = {name: summary(scores[name], questions) for name in scores}
    for column, bench in args.beside:
        found = read_scores(Path(bench), args.judge_model, args.names, read_questions(Path(bench)))
        for name in arms:
            if column in arms[name]:
                raise UserError(f"--beside {column}=... is a column already: take another name")
            arms[name][column] = mean_of(found[name])
    if args.probes:
        probes = read_json(Path(args.probes))
        if missing := [name for name in arms if name not in probes]:
            raise UserError(f"{args.probes} says nothing about {', '.join(missing)}")
        arms = {name: arm | probes[name] for name, arm in arms.items()}
    pairs = {f"{args.against}-{name}": paired(scores[args.against], scores[name])
             for name in scores if args.against in scores and name != args.against}
    results = {"questions": len(questions), "arms": arms,
               "paired": {name: pair for name, pair in pairs.items() if pair},
               "duels": pairwise_results(args.bench, args.judge_model, args.names, questions)}
    if args.votes:
        rows = mtbench.read_judgments(mtbench.judgments_path(args.bench, args.judge_model, "pair"))
        results["votes"] = agreement(rows, list(mtbench.read_votes(args.votes)))
    if args.seconds:
        results["seconds"] = {row["stage"]: row["seconds"] for row in read_jsonl(args.seconds, None)}
    return results


def command_score(args):
    results = make_results(args)
    write_json(args.out, results)
    print("\n".join([*arm_lines(results), *pair_lines(results["duels"]),
                     *vote_lines(results.get("votes"))]))
    print(f"\nall numbers: {args.out}")


def arguments():
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("answer", help="let assistants answer a bench")
    one.add_argument("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories, or "
                     "NAME=URL for the model NAME at an OpenAI-compatible address")
    one.add_argument("--limit", type=positive_int, default=1024, help="longest answer (1024 tokens)")
    one.add_argument("--seed", type=natural_int, default=0)
    two = commands.add_parser("judge", help="let a judge rate answers, or compare them")
    two.add_argument("--judge", type=url, required=True, metavar="URL",
                     help="OpenAI-compatible address; its key is read from OPENAI_API_KEY")
    two.add_argument("--mode", default="single", help="rate each alone (%(default)s), or pairs",
                     choices=["single", "pairwise-baseline", "pairwise-all"])
    two.add_argument("--baseline", metavar="NAME", help="whom all others are held against")
    two.add_argument("--prompts", metavar="FILE", help="judge_prompts.jsonl of FastChat, not ours")
    two.add_argument("--repeats", type=positive_int, default=1, help="judgments of each; the median "
                     "counts")
    two.add_argument("--max-tokens", type=positive_int, default=2048, help="longest judgment (2048)")
    three = commands.add_parser("score", help="compare what was judged")
    three.add_argument("--against", default="socratic", help="the arm that others are held against")
    three.add_argument("--beside", nargs="+", default=[], metavar="COLUMN=BENCH", type=name_and_value,
                       help="further benches, one column each")
    three.add_argument("--votes", metavar="FILE", help="human votes: does the judge agree?")
    three.add_argument("--probes", help="what data/experiment/probes.py wrote: further columns")
    three.add_argument("--seconds", help="JSONL of stages and how long they took, to be kept too")
    three.add_argument("--out", default="results.json")
    sets.flags(commands.add_parser("stats", help="what the dialogues of some files are like"))
    card.flags(commands.add_parser("card", help="how like people is a user, and does it listen?"))
    for command in (two, three):
        command.add_argument("names", nargs="+", help="assistants, as in model_answer/")
        command.add_argument("--judge-model", required=True, help="the judge's name there")
    for command in (one, two):
        command.add_argument("--bench", type=Path, nargs="+", required=True, help="directories")
        command.add_argument("--in-flight", type=positive_int, default=16, help="questions at a time")
        money_flags(command)
    three.add_argument("--bench", type=Path, required=True, help="directory of the bench")
    return parser.parse_args()


def main():
    args = arguments()
    {"answer": command_answer, "judge": command_judge, "score": command_score,
     "stats": sets.command, "card": partial(card.command, expected=UserLikelihoods())}[args.command](args)


if __name__ == "__main__":
    run(main)
