"""
AlpacaEval's files: its questions as a bench, our answers as its outputs, its verdicts as a number.

    python -m data.measure.alpacaeval bench alpaca_eval.json --out bench/question.jsonl
    python -m data.measure.alpacaeval outputs NAME --bench bench --out outputs.json
    python -m data.measure.alpacaeval read annotations.json

Not here: the answering (evaluate.py); the judging, which is AlpacaEval's own.
"""

import argparse
from pathlib import Path

import numpy as np

from data.formats.files import read_items
from data.measure.mtbench import answers_to, read_questions
from data.program import UserError, require_keys, run, write_jsonl, write_json


def questions(rows):
    """Rows {"instruction", "dataset"} as questions of one turn."""
    return [{"question_id": number, "category": row.get("dataset", "alpaca"),
             "turns": [row["instruction"]], "dataset": row.get("dataset", "alpaca")}
            for number, row in enumerate(rows, 1)]


def outputs(name, questions, answers):
    """First answers as AlpacaEval reads them; one that was refused is empty."""
    return [{"instruction": question["turns"][0], "output": answer[0] or "", "generator": name,
             "dataset": question.get("dataset", question["category"])}
            for question, answer in zip(questions, answers)]


def win_rate(notes):
    """
    Annotations as the numbers of its leaderboard, in percent. "preference": 1 the reference, 2 the
    model, between them how likely; 1.5, or 0 in older files, a draw; null or NaN a failure, left
    out.
    """
    given = [note["preference"] for note in notes if note.get("preference") is not None
             and np.isfinite(note["preference"])]
    if not given:
        raise UserError("no annotation has a preference")
    wins = np.array([0.5 if p == 0 else p - 1 for p in given])
    spread = wins.std(ddof=1) / len(wins) ** 0.5 if len(wins) > 1 else 0.0
    return {"win_rate": 100 * wins.mean(), "standard_error": 100 * spread,
            "n_wins": int((wins > 0.5).sum()), "n_wins_base": int((wins < 0.5).sum()),
            "n_draws": int((wins == 0.5).sum()), "n_total": len(wins),
            "failed": len(notes) - len(wins)}


def main():
    """Write a bench or outputs, or read annotations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("bench", help="its questions as a bench")
    one.add_argument("file", help="JSON array of instructions")
    two = commands.add_parser("outputs", help="answers of a bench as its outputs")
    two.add_argument("name", help="an assistant, as in model_answer/")
    two.add_argument("--bench", type=Path, required=True)
    for command in (one, two):
        command.add_argument("--out", required=True)
    three = commands.add_parser("read", help="win rate and standard error of its annotations")
    three.add_argument("file", help="annotations.json")
    args = parser.parse_args()
    if args.command == "bench":
        write_jsonl(args.out, questions(read_items(args.file, require_keys("instruction"))))
    elif args.command == "outputs":
        asked = read_questions(args.bench)
        write_json(args.out, outputs(args.name, asked, answers_to(args.bench, args.name, asked)))
    else:
        found = win_rate(list(read_items(args.file, None)))
        print("{win_rate:.2f} % [standard error {standard_error:.2f}]: {n_wins} won, {n_wins_base} "
              "lost, {n_draws} drawn of {n_total}; {failed} failed".format(**found))


if __name__ == "__main__":
    run(main)
