"""
AlpacaEval's files: its questions as a bench, our answers as its outputs, its annotations as a rate.

    python -m data.measure.alpacaeval bench alpaca_eval.json --out bench/question.jsonl
    python -m data.measure.alpacaeval outputs NAME --bench bench --out outputs.json
    python -m data.measure.alpacaeval read annotations.json

The judging itself is done by AlpacaEval's own program.
"""

import argparse
from pathlib import Path

import numpy as np

from data.formats.files import read_items
from data.measure.mtbench import answers_to, read_questions
from data.program import (UserError, require_apart, require_keys, run, write_json,
                          write_jsonl)


def questions(rows):
    """Make rows {"instruction", "dataset"} questions of one turn."""
    result = []
    for number, row in enumerate(rows, 1):
        dataset = row.get("dataset", "alpaca")
        result.append({"question_id": number, "category": dataset, "turns": [row["instruction"]],
                       "dataset": dataset})
    return result


def outputs(name, questions, answers):
    """Make first answers rows of AlpacaEval's outputs; one that was refused is empty."""
    rows = []
    for question, texts in zip(questions, answers):
        rows.append({"instruction": question["turns"][0], "output": texts[0] or "",
                     "generator": name, "dataset": question.get("dataset", question["category"])})
    return rows


def win_rate(annotations):
    """
    Turn annotations into the numbers of AlpacaEval's leaderboard, in percent.

    "preference" is 1 for the reference and 2 for the model, between them for how likely it is; 1.5
    (in older files 0) is a draw; null or NaN is a failure, and left out.
    """
    wins = []
    for row in annotations:
        preference = row.get("preference")
        if preference is None or preference != preference:
            continue
        is_number = type(preference) in (int, float)
        if not is_number or preference != 0 and not 1 <= preference <= 2:
            raise UserError(f"a preference is {preference!r}, not a number from 1 to 2")
        wins.append(0.5 if preference == 0 else preference - 1)
    if not wins:
        raise UserError("no annotation has a preference")
    wins = np.array(wins)
    standard_error = wins.std(ddof=1) / len(wins) ** 0.5 if len(wins) > 1 else 0.0
    return {"win_rate": 100 * wins.mean(), "standard_error": 100 * standard_error,
            "n_wins": int((wins > 0.5).sum()), "n_wins_base": int((wins < 0.5).sum()),
            "n_draws": int((wins == 0.5).sum()), "n_total": len(wins),
            "failed": len(annotations) - len(wins)}


def main():
    """Write a bench or outputs, or read annotations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    commands = parser.add_subparsers(dest="command", required=True)
    bench = commands.add_parser("bench", help="its questions as a bench")
    bench.add_argument("file", help="JSON array of instructions")
    answering = commands.add_parser("outputs", help="answers of a bench as its outputs")
    answering.add_argument("name", help="an assistant, as in model_answer/")
    answering.add_argument("--bench", type=Path, required=True)
    for command in (bench, answering):
        command.add_argument("--out", required=True)
    reading = commands.add_parser("read", help="win rate and standard error of its annotations")
    reading.add_argument("file", help="annotations.json")
    args = parser.parse_args()
    if args.command != "read":
        require_apart([args.out], [args.file if args.command == "bench" else args.bench])
    if args.command == "bench":
        write_jsonl(args.out, questions(read_items(args.file, require_keys("instruction"))))
    elif args.command == "outputs":
        rows = read_questions(args.bench)
        answers = answers_to(args.bench, args.name, rows)
        write_json(args.out, outputs(args.name, rows, answers))
    else:
        numbers = win_rate(list(read_items(args.file, None)))
        print("{win_rate:.2f} % [standard error {standard_error:.2f}]: {n_wins} won, {n_wins_base} "
              "lost, {n_draws} drawn of {n_total}; {failed} failed".format(**numbers))


if __name__ == "__main__":
    run(main)
