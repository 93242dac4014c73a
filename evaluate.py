"""
Evaluate assistants and simulated users.

    python evaluate.py answer NAME=DIR ... --bench bench            answer a bench's questions
    python evaluate.py judge NAME ... --bench bench --judge URL     rate answers, or compare them
    python evaluate.py score NAME ... --bench bench                 print tables, write results.json
    python evaluate.py stats FILE ...                               statistics of dialogues
    python evaluate.py card --user DIR --human FILE                 how human-like is a user?

A bench is a directory in MT-Bench's layout (data/measure/mtbench.py). The code follows the order of
the work: answer, judge, compare, and then the commands. What `card` and `stats` measure is in
data/measure.
Read before: platolm.py, model.py, simulate.py.
"""

import argparse
import threading
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from data.api.budget import Endpoint, client_settings, money_flags
from data.api.journal import Journal
from data.api.protocol import how_it_ended
from data.api.request_pool import ask_all, raise_if_incomplete, tally
from data.api.session import check_server
from data.measure import card, dataset_stats, mtbench
from data.measure.intervals import (bootstrap, label_agreement, length_controlled_interval,
                                    mean_bounds, mean_of, paired, permutation, ratio)
from data.measure.judge import (Case, Judge, JudgeSettings, open_journal, prompt_messages, rating,
                                require_one_budget, verdict)
from data.measure.mtbench import read_questions, read_scores
from data.measure.tables import arm_lines, card_lines, column_lines, pair_lines, vote_lines
from data.measure.turns import AskSettings
from data.program import (Progress, UserError, name_and_value, natural_int, positive_int,
                          require_apart, run, temperature_or_none, url, write_json,
                          write_jsonl)
from data.text_metrics import vectors
from data.users import user_settings
from platolm import prompt
from simulate import client_factory


# ------------------------------------------------------------------------------------------------
# answer


def answer(model, tokenizer, questions, limit, slots=64, seed=0):
    """
    Let a model answer questions of one or more turns, with at most `limit` tokens an answer.

    questions: [{"category", "turns": [text, ...]}, ...]; an answer is sampled at the temperature of
    its question's category (mtbench.temperature), `slots` answers at a time. Returns two lists with
    an item for each question: its answers [text, ...], and which of them the model did not end
    itself: {turn, counted from 1: "length" or "context"}.
    """
    # here, as torch takes seconds to import, and nothing else in this file needs it
    from model import generate_batch
    histories = [[] for _ in questions]
    cut_short = [{} for _ in questions]
    temperatures = [mtbench.temperature(question) for question in questions]
    most_turns = max(len(question["turns"]) for question in questions)
    for turn in range(most_turns):
        for temperature in sorted(set(temperatures)):
            # all questions of this temperature that have such a turn make one batch
            batch = []
            for i, question in enumerate(questions):
                if turn < len(question["turns"]) and temperatures[i] == temperature:
                    histories[i].append({"from": "human", "value": question["turns"][turn]})
                    batch.append(i)
            prompts = [prompt(histories[i], tokenizer, "gpt") for i in batch]
            # a random stream of its own for each answer: the batch does not change what is drawn
            uniforms = [np.random.default_rng([seed, i, turn]).random for i in batch]
            rows = generate_batch(model, prompts, [tokenizer.eos], limit, slots, uniforms,
                                  temperature=temperature)
            for i, row in zip(batch, rows):
                histories[i].append({"from": "gpt", "value": tokenizer.decode(row.output)})
                if row.finish_reason != "stop":
                    cut_short[i][turn + 1] = row.finish_reason
    answers = [[turn["value"] for turn in history[1::2]] for history in histories]
    return answers, cut_short


def journalled_answers(journal, question):
    """
    Follow a question's conversation through a journal: its answers there, up to the first that is
    missing, {turn: "length"} of those that were cut, and the key and messages of the missing one.
    """
    answers, cut_short = [], {}
    while len(answers) < len(question["turns"]):
        messages = mtbench.messages_so_far(question["turns"], answers)
        key = mtbench.text_hash(repr(messages), str(question["question_id"]))
        rows = journal.turns(key)
        if not rows:
            return answers, cut_short, key, messages
        answers.append(rows[0]["value"])
        if how_it_ended(rows[0]["finish"]) == "length":
            cut_short[len(answers)] = "length"
    return answers, cut_short, None, None


def answer_remote(client, model, questions, limit, journal, in_flight, stop):
    """
    Let a model on a server, called `model` there, answer questions; the rest is as for `answer`.

    Every answer is written to the journal before it counts, and found there by the next start. If
    the server refuses a question (a content filter, say), this answer and all later ones of the
    question are "", and the second list has the reason.
    """
    # {key: reason}
    refusals = {}
    most_turns = max(len(question["turns"]) for question in questions)
    for turn in range(most_turns):
        tasks = {}
        for question in questions:
            answers, _, key, messages = journalled_answers(journal, question)
            if key and key not in refusals and len(answers) == turn:
                tasks[key] = partial(client.chat, model, messages, limit,
                                     temperature=mtbench.temperature(question))
        if tasks and turn == 0:
            check_server(client, "model")
        progress = Progress(f"{model}, turn {turn + 1}", len(tasks), client.ledger, unit="answers")
        refusals |= ask_all(journal, tasks, in_flight, stop, progress)
        raise_if_incomplete(refusals.values(), "answers")
    all_answers, all_cut_short = [], []
    for question in questions:
        answers, cut_short, key, _ = journalled_answers(journal, question)
        for turn in range(len(answers), len(question["turns"])):
            answers.append("")
            cut_short[turn + 1] = refusals[key]
        all_answers.append(answers)
        all_cut_short.append(cut_short)
    return all_answers, all_cut_short


def write_whole_answers(path, name, questions, journal):
    """Write the answers to those questions that a journal answers whole, if there are any."""
    found = [(question, *journalled_answers(journal, question)) for question in questions]
    whole = [(question, answers, cut_short) for question, answers, cut_short, key, _ in found
             if not key]
    if whole:
        write_jsonl(path, mtbench.answer_rows(name, *zip(*whole)))


def answer_endpoint(endpoint, questions, limit, path, settings, in_flight):
    """
    Let the model at an Endpoint answer questions as in answer_remote, with a journal beside `path`.

    If the run stops, the whole answers are written there. Returns the answers, how those ended that
    the model did not end, and what it cost as text.
    """
    stop = threading.Event()
    journal = Journal(path.with_suffix(".journal"), {"model": endpoint.model, "limit": limit})
    try:
        client_for, ledger = client_factory(settings, endpoint.url, journal, stop,
                                            bool(endpoint.price))
        answers, cut_short = answer_remote(client_for(endpoint), endpoint.model, questions, limit,
                                           journal, in_flight, stop)
        return answers, cut_short, ledger.summary()
    except BaseException:
        write_whole_answers(path, endpoint.model, questions, journal)
        raise
    finally:
        journal.close()


# ------------------------------------------------------------------------------------------------
# judge


def judgment_cases(bench, names, pairs, prompts, judge):
    """
    Yield a Case for every judgment that a bench needs.

    names: assistants that are rated alone, one case for each question and turn; or pairs: [(a, b),
    ...], two assistants that are compared, with a prompt for each order of the two. prompts: rows
    of mtbench.read_prompts; judge: its name, for the reference answers. A case whose answers were
    refused has no prompts.
    """
    questions = read_questions(bench)
    references = mtbench.read_references(bench, judge)
    groups = pairs or [(name,) for name in names]
    answers = {}
    for group in groups:
        for name in group:
            if name not in answers:
                answers[name] = mtbench.answers_to(bench, name, questions)
    keys = ("model_1", "model_2") if pairs else ("model",)
    for group in groups:
        for i, question in enumerate(questions):
            reference = mtbench.reference_for(question, references)
            texts = [answers[name][i] for name in group]
            orders = [texts, texts[::-1]] if pairs else [texts]
            for turn in range(1, len(question["turns"]) + 1):
                refused = any(None in own[:turn] for own in texts)
                filled = []
                if not refused:
                    filled = [mtbench.fill_prompt(prompts, question, turn, order, reference)
                              for order in orders]
                row = {"question_id": question["question_id"], **dict(zip(keys, group)),
                       "turn": turn, "answers": mtbench.answers_hash(texts, turn)}
                yield Case(row, filled)


# ------------------------------------------------------------------------------------------------
# compare: the scores of one assistant


def summary(scores, questions):
    """
    Sum up one assistant's scores: the overall mean with its interval, and means by group.

    scores (questions, turns): from 0 to 1, NaN where no rating is. "worst" and "best": the mean if
    all failed ratings had been 0, or 1. A question may name its "group". Returns {"overall", "low",
    "high", "worst", ..., "categories", "groups", "kinds"}.
    """
    rated = ~np.isnan(scores)
    turn_counts = np.array([len(question["turns"]) for question in questions])
    turns = range(scores.shape[1])
    exists = np.array(turns) < turn_counts[:, None]                  # (questions, turns)

    mean, low, high = bootstrap(np.nansum(scores, axis=1), rated.sum(axis=1))
    worst, best = mean_bounds(scores[exists], 0, 1)
    row = {"overall": mean, "low": low, "high": high, "worst": worst, "best": best,
           "rating": None if mean is None else 1 + 9 * mean,
           "failed": int((exists & ~rated).sum())}
    for turn in turns:
        row[f"turn{turn + 1}"] = mean_of(scores[:, turn])
    for key, name in (("category", "categories"), ("group", "groups")):
        labels = np.array([question.get(key, "") for question in questions])
        row[name] = {label: mean_of(scores[labels == label])
                     for label in dict.fromkeys(labels.tolist()) if label}
    row["kinds"] = by_kind(scores, questions)
    return row


def by_kind(scores, questions):
    """
    Average scores (questions, turns) by kind of turn: {"doubt": 0.93, ...}, sorted by name.

    A question may name the kinds of its turns: {"kinds": ["question", "doubt"]}.
    """
    scores_of = {}
    for row, question in zip(scores, questions):
        for score, kind in zip(row, question.get("kinds", ())):
            scores_of.setdefault(kind, []).append(score)
    return {kind: mean_of(np.array(scores_of[kind])) for kind in sorted(scores_of)}


# ------------------------------------------------------------------------------------------------
# compare: pairs of assistants


# exercise 8: a win in both orders
def outcome(row):
    """
    Score model 1 in a judgment: 1.0 for a win, 0.0 for a loss, 0.5 for a tie, NaN if it failed.

    "g1_winner" is the verdict with model 1's answer shown first, "g2_winner" with model 2's: each
    "model_1", "model_2", "tie" or "error". It failed if either is an error. A win or a loss counts
    only if both orders agree; all else is a tie. Old files have one "winner" instead, for both.
    """
    winners = row.get("g1_winner", row.get("winner")), row.get("g2_winner", row.get("winner"))
    if "error" in winners:
        return np.nan
    if winners == ("model_1", "model_1"):
        return 1.0
    if winners == ("model_2", "model_2"):
        return 0.0
    return 0.5


def pairwise(rows, longer):
    """
    Compare model 1 with model 2, from all judgments of the pair.

    rows: judgments (mtbench.py), one for each question and turn; longer (n): by how many characters
    model 1's answer was longer. Returns the counts of wins, ties and losses, and
    "win_rate", "loss_rate": their shares;
    "adjusted": the share of wins and half the ties, with its interval over questions and "p", the
    p-value of no difference;
    "flips": the share of rows whose two orders disagree in any way (win against tie, too);
    "first": of all games with a winner, the share won by the answer that was shown first;
    "worst", "best": "adjusted" if all failed judgments had been losses, or wins;
    "controlled": "adjusted" at equal length (length_controlled_interval).
    """
    outcomes = np.array([outcome(row) for row in rows])
    judged = ~np.isnan(outcomes)
    names = [str(row["question_id"]) for row in rows]
    _, question = np.unique(names, return_inverse=True)              # (n,) numbers of questions
    sums = np.bincount(question, np.where(judged, outcomes, 0))
    counts = np.bincount(question, judged)
    adjusted, low, high = bootstrap(sums, counts)
    seen = counts > 0
    p = permutation(sums[seen] / counts[seen] - 0.5) if seen.any() else None

    # game 1 shows model 1 first, game 2 shows model 2 first
    comparisons = order_disagreement = games_won = first_position_wins = 0
    for row, ok in zip(rows, judged):
        if not ok or "g1_winner" not in row:
            continue
        comparisons += 1
        order_disagreement += row["g1_winner"] != row["g2_winner"]
        for winner, shown_first in ((row["g1_winner"], "model_1"), (row["g2_winner"], "model_2")):
            games_won += winner != "tie"
            first_position_wins += winner == shown_first

    n = int(judged.sum())
    wins = int((outcomes == 1).sum())
    losses = int((outcomes == 0).sum())
    worst, best = mean_bounds(outcomes, 0, 1)
    controlled = length_controlled_interval(outcomes[judged], np.asarray(longer)[judged],
                                            question[judged])
    return {"wins": wins, "ties": n - wins - losses, "losses": losses,
            "win_rate": ratio(wins, n), "loss_rate": ratio(losses, n),
            "adjusted": adjusted, "low": low, "high": high, "p": p,
            "flips": ratio(order_disagreement, comparisons),
            "first": ratio(first_position_wins, games_won),
            "failed": len(rows) - n, "worst": worst, "best": best, "controlled": controlled}


def agreement(rows, votes):
    """
    Compare a judge with humans who voted on the same pairs of answers.

    rows: judgments of pairs; votes: [(question, turn, model a, model b, "a" | "b" | "tie"), ...].
    Returns {"all", "without_ties"}: agreement over three labels, and over the votes for which
    neither side says "tie", as label_agreement gives it.
    """
    verdicts = {}
    for row in rows:
        score = outcome(row)
        if not np.isnan(score):
            question, turn, (one, two) = mtbench.judgment_key(row)
            # votes may name the two in either order
            verdicts[question, turn, one, two] = {1.0: "a", 0.0: "b"}.get(score, "tie")
            verdicts[question, turn, two, one] = {1.0: "b", 0.0: "a"}.get(score, "tie")
    labels = []
    for question, turn, one, two, label in votes:
        if (question, turn, one, two) in verdicts:
            labels.append((question, verdicts[question, turn, one, two], label))
    decided = [row for row in labels if "tie" not in row]
    return {"all": label_agreement(labels), "without_ties": label_agreement(decided)}


def pairwise_results(bench, judge_model, names, questions, edited=False):
    """
    Compare all pairs of these assistants that were judged: [{"model_1", "model_2", **pairwise}].

    A UserError if an answer has changed since it was judged, unless `edited` lets that count.
    """
    index_of = {question["question_id"]: i for i, question in enumerate(questions)}
    path = mtbench.judgments_path(bench, judge_model, "pair")
    pairs = {}
    for row in mtbench.read_judgments(path):
        question, turn, pair = mtbench.judgment_key(row)
        known = question in index_of and 1 <= turn <= len(questions[index_of[question]]["turns"])
        if known and set(pair) <= set(names):
            pairs.setdefault(pair, []).append(row)
    rows = [row for rows in pairs.values() for row in rows]
    outdated = mtbench.edited_judgments(bench, rows, edited)
    if outdated:
        named = mtbench.name_questions(row["question_id"] for row in outdated)
        raise UserError(f"{len(outdated)} judgments of pairs are about other answers than those "
                        f"there are now ({named}); `evaluate.py judge` asks for just those, and "
                        "--edited scores them as they are")
    results = []
    for (one, two), rows in pairs.items():
        answers_one = mtbench.answers_to(bench, one, questions)
        answers_two = mtbench.answers_to(bench, two, questions)
        longer = []
        for row in rows:
            i, turn = index_of[row["question_id"]], row.get("turn", 1) - 1
            # a refused answer is None, and has no characters
            length_one = len(answers_one[i][turn] or "")
            longer.append(length_one - len(answers_two[i][turn] or ""))
        results.append({"model_1": one, "model_2": two, **pairwise(rows, longer)})
    return results


# ------------------------------------------------------------------------------------------------
# the commands


def parse_assistant(text):
    """Read NAME=URL as (name, URL, None); NAME=DIR, or DIR alone, as (name, None, DIR)."""
    name, _, address = text.partition("=")
    if address.startswith(("http://", "https://")):
        return name, address, None
    name, _, directory = text.rpartition("=")
    return name or Path(directory).name, None, directory


def command_answer(args):
    """Let every assistant answer every bench, and write BENCH/model_answer/NAME.jsonl."""
    benches = {bench: read_questions(bench) for bench in args.bench}
    assistants = [parse_assistant(text) for text in args.models]
    addresses = [address for _, address, _ in assistants if address]
    if len(set(addresses)) > 1:
        raise UserError("one address at a time: OPENAI_API_KEY and --price are for one")
    require_one_budget(args.max_dollars, len(addresses) * len(benches), "bench and model")
    names = [name for name, _, _ in assistants]
    if len(set(names)) < len(names):
        raise UserError(f"two of {', '.join(names)} have one name: NAME=DIR tells them apart")

    if hasattr(args, "temperature"):
        if args.temperature is None and len(addresses) < len(assistants):
            raise UserError("--temperature none is for models at an address")
        for questions in benches.values():
            for question in questions:
                question["required_temperature"] = args.temperature

    for name, address, directory in assistants:
        began = time.time()
        if not address:
            from data.machine import load_checkpoint
            model, tokenizer = load_checkpoint(directory)
        reasons, spent = [], ""
        for bench, questions in benches.items():
            path = mtbench.answers_path(bench, name)
            if address:
                answers, cut_short, spent = answer_endpoint(
                    Endpoint(address, name, args.price), questions, args.limit, path,
                    client_settings(args), args.in_flight)
            else:
                answers, cut_short = answer(model, tokenizer, questions, args.limit, seed=args.seed)
            write_jsonl(path, mtbench.answer_rows(name, questions, answers, cut_short))
            for ends in cut_short:
                reasons += ends.values()
        line = (f"{name}: answers to {sum(map(len, benches.values()))} questions in "
                f"{time.time() - began:.0f} s")
        if reasons:
            line += f"; not ended by itself: {tally(reasons)}"
        print(line + spent, flush=True)


def make_pairs(mode, names, baseline=None):
    """
    List the pairs (a, b) of assistants to compare; [] if each is rated alone (mode "single").

    "pairwise-all": every pair; "pairwise-baseline": every assistant against the baseline.
    """
    if mode == "single":
        return []
    if mode == "pairwise-all":
        pairs = list(combinations(dict.fromkeys(names), 2))
    elif baseline:
        pairs = [(name, baseline) for name in names if name != baseline]
    else:
        raise UserError("--mode pairwise-baseline needs --baseline NAME")
    if not pairs:
        raise UserError(f"--mode {mode} of {' '.join(names)} makes no pair")
    return pairs


def judge_bench(bench, names, pairs, prompts, settings, clients, stop):
    """
    Have a judge judge one bench, write its file of judgments, and return the list of failures.

    names, pairs, prompts: as for judgment_cases; settings: JudgeSettings; clients: ClientSettings.
    Prompts with a judgment, in the file or the journal, are not sent again.
    """
    model = settings.endpoint.model
    kind, read = ("pair", verdict) if pairs else ("single", rating)
    parse = partial(read, fastchat=settings.fastchat)
    path = mtbench.judgments_path(bench, model, kind)
    cases = list(judgment_cases(bench, names, pairs, prompts, model))
    requests = {}
    for case in cases:
        for filled in case.prompts:
            requests[mtbench.text_hash(*filled)] = prompt_messages(filled)
    systems = {row["name"]: row.get("system_prompt") or "" for row in prompts}
    judge = Judge(path, settings, clients, stop, systems)
    try:
        new = judge.ask(requests, parse)
    finally:
        # also when the run stops: what is there is written
        rows = judge.rows(cases, parse)
        if rows:
            write_jsonl(path, mtbench.merge_judgments(mtbench.read_judgments(path), rows))
        judge.journal.close()

    failed = [row for row in rows if "failure" in row]
    failures = [row["failure"] for row in failed]
    print(f"{path}: {len(rows):,} judgments of {len(requests):,} prompts, {new:,} of which had "
          f"too few before; failed: {tally(failures) or 'none'}{judge.ledger.summary()}",
          flush=True)
    if "unparsed" in failures:
        row = failed[failures.index("unparsed")]
        text = row.get("judgment") or row.get("g1_judgment") or row.get("g2_judgment") or ""
        print(f"such as: {text[-200:]!r}; --again asks for these once more")
    return failures


def command_judge(args):
    """Have a judge rate the answers of every bench, or compare them in pairs."""
    require_one_budget(args.max_dollars, len(args.bench), "bench")
    prompts = mtbench.read_prompts(args.prompts)
    settings = JudgeSettings(Endpoint(args.judge, args.judge_model, args.price), args.repeats,
                             args.max_tokens, args.in_flight, args.temperature, args.again,
                             args.fastchat)
    stop = threading.Event()
    pairs = make_pairs(args.mode, args.names, args.baseline)
    failures = []
    # make looks for the file of the first bench: written last, it means that all are there
    for bench in reversed(args.bench):
        failures += judge_bench(bench, args.names, pairs, prompts, settings, client_settings(args),
                                stop)
    raise_if_incomplete(failures, "judgments")


def score_arms(bench, judge_model, names, beside=(), edited=False):
    """
    Read and sum up the ratings of some assistants: ({name: scores}, {name: summary}).

    beside: [(column, bench), ...], further benches whose means become columns; edited: as for
    read_scores.
    """
    questions = read_questions(bench)
    scores = read_scores(bench, judge_model, names, questions, edited)
    arms = {name: summary(scores[name], questions) for name in scores}
    for column, other in beside:
        other_scores = read_scores(Path(other), judge_model, names, read_questions(Path(other)),
                                   edited)
        for name, arm in arms.items():
            if column in arm:
                raise UserError(f"--beside {column}=... is a column already: take another name")
            arm[column] = mean_of(other_scores[name])
    return scores, arms


def command_score(args):
    """Write results.json, and print its tables."""
    require_apart([args.out], [args.bench, args.beside, args.votes])
    questions = read_questions(args.bench)
    pairs_file = mtbench.judgments_path(args.bench, args.judge_model, "pair")
    ratings_file = mtbench.judgments_path(args.bench, args.judge_model, "single")
    scores, arms = {}, {}
    # a bench may have been judged in pairs alone
    if ratings_file.exists() or not pairs_file.exists():
        scores, arms = score_arms(args.bench, args.judge_model, args.names, args.beside,
                                  args.edited)
    differences = {}
    for name in scores:
        if args.against in scores and name != args.against:
            difference = paired(scores[args.against], scores[name])
            if difference:
                differences[f"{args.against}-{name}"] = difference
    results = {"questions": len(questions), "arms": arms, "paired": differences,
               "duels": pairwise_results(args.bench, args.judge_model, args.names, questions,
                                         args.edited)}
    if args.votes:
        votes = list(mtbench.read_votes(args.votes))
        results["votes"] = agreement(mtbench.read_judgments(pairs_file), votes)
    write_json(args.out, results)
    lines = arm_lines(results) + pair_lines(results["duels"]) + vote_lines(results.get("votes"))
    print("\n".join([*lines, "", f"all numbers: {args.out}"]))


def command_stats(args):
    """Write statistics of some files of dialogues, and print them side by side."""
    require_apart([args.out, f"{args.out}.journal"],
                  [args.files, args.human, args.tokenizer, args.bench])
    stop = threading.Event()
    embed = vectors
    judge = None
    if args.judge or args.embedder:
        names = {"judge_model": args.judge_model, "embed_model": args.embed_model, "seed": None}
        journal, client_for = open_journal(args.out, names, args.judge or args.embedder,
                                           client_settings(args),
                                           bool(args.price or args.embed_price), stop)
    if args.embedder:
        # --price is the judge's, if there is one
        price = args.embed_price or (None if args.judge else args.price)
        client = client_for(Endpoint(args.embedder, args.embed_model, price))
        embed = dataset_stats.remote_embedder(client, args.embed_model, journal, args.in_flight,
                                              stop)
    if args.judge:
        client = client_for(Endpoint(args.judge, args.judge_model, args.price))
        judge = partial(dataset_stats.judge_sessions, most=args.judged, client=client,
                        model=args.judge_model, journal=journal, in_flight=args.in_flight,
                        stop=stop)
    numbers_of, threshold = dataset_stats.compare_files(args.files, args.human, args.tokenizer,
                                                        args.bench, embed, judge)
    write_json(args.out, numbers_of)
    print("\n".join(["", *column_lines(numbers_of), "", "turns count as related from a "
                     f"cosine of {threshold:.3f} up", f"all numbers: {args.out}"]))


def command_card(args):
    """Write the report card of a simulated user, and print it."""
    require_apart([args.out, f"{args.out}.journal"], [args.user, args.human, args.twin, args.beside,
                                                      args.simulated, args.tokenizer])
    stop = threading.Event()
    settings = AskSettings(user_settings(args), Endpoint(args.teacher, args.model, args.price),
                           args.user_model, args.user_price, args.tokenizer, args.in_flight)
    names = {"judge_model": None, "embed_model": None, "seed": args.seed}
    journal, client_for = open_journal(args.out, names, args.teacher, client_settings(args),
                                       bool(args.price or args.user_price), stop)
    try:
        simulated = card.read_simulated(args.simulated)
        users = card.card_users(args.user, args.twin, args.teacher, args.beside)
        report = card.make_card(users, args.human, args.dialogues, simulated, settings, client_for,
                                journal, stop)
    finally:
        journal.close()
    write_json(args.out, report)
    print("\n".join([*card_lines(report), "", f"all numbers: {args.out}"]))


def arguments():
    """Read the command line: an argparse.Namespace with the name of the command."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    answering = commands.add_parser("answer", help="let assistants answer a bench")
    add = answering.add_argument
    add("models", nargs="+", metavar="NAME=DIR", help="checkpoint directories, or NAME=URL for the "
        "model NAME at an OpenAI-compatible address")
    add("--limit", type=positive_int, default=1024, help="longest answer (1024 tokens)")
    add("--seed", type=natural_int, default=0)
    add("--temperature", type=temperature_or_none, default=argparse.SUPPRESS,
        help="of all answers; none: the model's own (default: by the category, as FastChat)")

    judging = commands.add_parser("judge", help="let a judge rate answers, or compare them")
    add = judging.add_argument
    add("--judge", type=url, required=True, metavar="URL",
        help="OpenAI-compatible address; its key is read from OPENAI_API_KEY")
    add("--mode", default="single", choices=["single", "pairwise-baseline", "pairwise-all"],
        help="rate each alone (%(default)s), or pairs")
    add("--baseline", metavar="NAME", help="the assistant that all others are compared with")
    add("--prompts", metavar="FILE", help="FastChat's judge_prompts.jsonl (default: our own)")
    add("--repeats", type=positive_int, default=1, help="judgments of each; the median counts")
    add("--max-tokens", type=positive_int, default=2048, help="longest judgment (2048)")
    add("--temperature", type=temperature_or_none, default=0, help="the judge's (0); none: its own")
    add("--again", action="store_true", help="ask again where a judgment could not be read")
    add("--fastchat", action="store_true", help="read the marks in judgments as FastChat does")

    scoring = commands.add_parser("score", help="compare what was judged")
    add = scoring.add_argument
    add("--bench", type=Path, required=True, help="directory of the bench")
    add("--against", default="socratic",
        help="the assistant from whose ratings the others' are subtracted")
    add("--beside", nargs="+", default=[], metavar="COLUMN=BENCH", type=name_and_value,
        help="further benches, one column each")
    add("--edited", action="store_true",
        help="score judgments of answers that were edited since, too, and name the questions")
    add("--votes", metavar="FILE", help="human votes: does the judge agree?")
    add("--out", default="results.json")

    for command in (judging, scoring):
        command.add_argument("names", nargs="+", help="assistants, as in model_answer/")
        command.add_argument("--judge-model", required=True, help="the judge's name there")
    for command in (answering, judging):
        add = command.add_argument
        add("--bench", type=Path, nargs="+", required=True, help="directories")
        add("--in-flight", type=positive_int, default=16, help="questions at a time")
        money_flags(command)
    dataset_stats.add_stats_arguments(
        commands.add_parser("stats", help="what the dialogues of some files are like"))
    card.add_card_arguments(
        commands.add_parser("card", help="how human-like is a user, and does it listen?"))
    return parser.parse_args()


def main():
    """Run the command that the command line names."""
    args = arguments()
    commands = {"answer": command_answer, "judge": command_judge, "score": command_score,
                "stats": command_stats, "card": command_card}
    commands[args.command](args)


if __name__ == "__main__":
    run(main)
