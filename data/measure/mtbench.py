"""
The files of a bench, as FastChat's llm_judge lays them out (Zheng et al. 2023, arXiv 2306.05685).

    question.jsonl                      {"question_id", "category", "turns": [text, ...]}
    model_answer/NAME.jsonl             {"question_id", "choices": [{"turns": [text, ...]}], ...}
    reference_answer/JUDGE.jsonl        the same, right answers
    model_judgment/JUDGE_single.jsonl   {"question_id", "model", "turn", "score", ...}
    model_judgment/JUDGE_pair.jsonl     {"question_id", "model_1", "model_2", "turn", "g1_winner",
                                         "g2_winner", ...}

Here, too: prompts for judges, ours and a judge_prompts.jsonl of FastChat's. Not here: who answers
and who judges (evaluate.py).
"""

import hashlib
import string
import time
import uuid
from collections import Counter

from data.formats.files import read_items
from data.program import UserError, require_keys, read_jsonl
from platolm import END_REASONS

# the judge of these gets a right answer to compare with, where there is one
NEEDS_REFERENCE = ("math", "reasoning", "coding")

# how freely an answer to a category is drawn; all others at 0.7 (FastChat, llm_judge/common.py)
TEMPERATURES = {"stem": 0.1, "humanities": 0.1, "extraction": 0.0, "math": 0.0, "coding": 0.0,
                "reasoning": 0.0}


def temperature(question):
    """How freely the answers to a question are drawn."""
    return question.get("required_temperature", TEMPERATURES.get(question["category"], 0.7))


def texts_error(turns):
    """What is wrong with a list of texts, or None."""
    fine = isinstance(turns, list) and turns and all(isinstance(text, str) for text in turns)
    return None if fine else "turns that are no list of texts"


def choices_error(row):
    """What is wrong with a row of answers, or None."""
    try:
        return texts_error(row["choices"][0]["turns"])
    except (LookupError, TypeError):
        return "no choices with turns in them"


# ------------------------------------------------------------------------------------------------
# questions and answers


def read_questions(bench):
    """The questions of a bench: each has a "question_id", a "category" and "turns"."""
    path = bench / "question.jsonl"
    found = list(read_jsonl(path, require_keys("question_id", "category", "turns",
                                  also=lambda row: texts_error(row["turns"]))))
    if not found:
        raise UserError(f"{path} holds no questions")
    twice = [name for name, n in Counter(row["question_id"] for row in found).items() if n > 1]
    if twice:
        raise UserError(f"{path} holds question {twice[0]} twice")
    return found


def safe_file_name(name):
    """The name of a model as that of a file: some have a slash."""
    return name.replace("/", "_")


def answers_path(bench, name):
    """Where the answers of an assistant lie."""
    return bench / "model_answer" / f"{safe_file_name(name)}.jsonl"


def read_answers(path):
    """{question_id: [text, ...]} of a file of answers; of several to a question the last. Where
    an answer was refused stands None."""
    found = {}
    for row in read_jsonl(path, require_keys("question_id", "choices", also=choices_error)):
        ended = row["choices"][0].get("ended", {})
        found[row["question_id"]] = [None if ended.get(str(turn)) in END_REASONS else text for turn, text
                                     in enumerate(row["choices"][0]["turns"], 1)]
    return found


def answers_to(bench, name, questions):
    """The answers of one assistant, in the order of the questions; none may be missing."""
    path = answers_path(bench, name)
    found = read_answers(path)
    missing = [q["question_id"] for q in questions
               if len(found.get(q["question_id"], ())) < len(q["turns"])]
    if missing:
        raise UserError(f"{path} has no answer to {len(missing)} questions, first {missing[0]}")
    return [found[question["question_id"]] for question in questions]


def answer_rows(name, questions, answers, ends):
    """Answers as rows of model_answer/; ends: where the assistant did not end, {turn: why}."""
    return [{"question_id": question["question_id"], "answer_id": uuid.uuid4().hex,
             "model_id": name, "tstamp": time.time(),
             "choices": [{"index": 0, "turns": texts, **({"ended": why} if why else {})}]}
            for question, texts, why in zip(questions, answers, ends)]


def messages_so_far(questions, answers):
    """The talk up to the first question without an answer, as messages."""
    said = [text for pair in zip(questions, answers) for text in pair] + [questions[len(answers)]]
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def read_references(bench, judge):
    """{question_id: [text, ...]}: those of this judge, or else of the first that there is."""
    paths = sorted((bench / "reference_answer").glob("*.jsonl"))
    paths.sort(key=lambda path: path.stem != safe_file_name(judge))
    return read_answers(paths[0]) if paths else {}


def reference(question, references):
    """The right answers to a question, where a judge needs them and has them; else None."""
    if question["category"] not in NEEDS_REFERENCE:
        return None
    return references.get(question["question_id"], question.get("reference")) or None


# ------------------------------------------------------------------------------------------------
# prompts for judges

SINGLE = """\
Below is a talk between a user and an assistant. Judge the last answer of the assistant alone: is \
it right, does it say what was asked for, does it fit what was said before? Give one sentence of \
reason. Then rate it from 1 (useless or wrong) to 10 (could not be better), written as [[7]].

[conversation]
{talk}
[end of conversation]"""

PAIR = """\
Below the same user talks with two assistants, A and B. Compare their last answers: which one is \
right, says what was asked for, fits what was said before? Neither its place nor its length makes \
an answer better. Give one sentence of reason. Then write [[A]] if A's is better, [[B]] if B's is, \
[[C]] if neither is.

[conversation with A]
{talk_a}
[end of conversation]

[conversation with B]
{talk_b}
[end of conversation]"""

RIGHT = """

[the same user, answered rightly]
{reference}
[end of right answers]"""

PROMPTS = [{"name": kind + more, "type": kind, "system_prompt": "", "prompt_template": text + end}
           for kind, text in (("single", SINGLE), ("pairwise", PAIR))
           for more, end in (("", ""), ("-reference", RIGHT))]


def read_prompts(path):
    """The prompts of a judge_prompts.jsonl; ours without a path."""
    if not path:
        return PROMPTS
    return list(read_jsonl(path, require_keys("name", "type", "prompt_template")))


def placeholders(template):
    """The names of what is to be filled in."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError as error:
        raise UserError(f"a judge's prompt cannot be filled in: {error}") from None


def matches_turn(template, turn, with_reference):
    """Whether a prompt is about this turn (from 1), and shows a right answer or does not."""
    names = placeholders(template)
    whole = any(name.startswith("talk") for name in names)
    last = max([int(name[9:]) for name in names if name.startswith("question_")], default=1)
    return (whole or last == turn) and with_reference == any("ref" in name for name in names)


def transcript(questions, answers):
    """A conversation as our prompts show it."""
    return "\n".join(f"user: {q}\nassistant: {a}" for q, a in zip(questions, answers))


def prompt_values(questions, assistants, right):
    """What may be filled into a prompt about the last of some questions: {name: text}."""
    n = len(questions)
    found = {"question": questions[-1], "reference": transcript(questions, right)}
    for i in range(n):
        found[f"question_{i + 1}"] = questions[i]
        found |= {f"ref_answer_{i + 1}": right[i]} if i < len(right) else {}
    for mark, answers in zip(("_a", "_b") if len(assistants) == 2 else ("",), assistants):
        found[f"talk{mark}"], found[f"answer{mark}"] = transcript(questions, answers), answers[n - 1]
        found |= {f"answer{mark}_{i + 1}": answers[i] for i in range(n)}
    return found


def fill_prompt(prompts, question, turn, assistants, right=None):
    """
    What a judge is asked about turn `turn` (from 1) of one assistant, or of two in this order.

    assistants: their answers, [[text, ...], ...]; right: the right ones, or None.
    Returns the prompt's name, its system message ("" for none) and the filled-in text.
    """
    kind = ("single", "pairwise")[len(assistants) - 1]
    right = right if right and len(right) >= turn else None
    for row in prompts:
        if row["type"] == kind and matches_turn(row["prompt_template"], turn, bool(right)):
            words = prompt_values(question["turns"][:turn], assistants, right or ())
            try:
                filled = row["prompt_template"].format_map(words)
            except (LookupError, ValueError, AttributeError) as error:
                raise UserError(f"the judge's prompt {row['name']} has a blank that nobody can fill: "
                              f"{error}") from None
            return row["name"], row.get("system_prompt") or "", filled
    raise UserError(f"none of the judge's prompts is {kind}, about turn {turn}, "
                  f"{'with' if right else 'without'} a right answer")


# ------------------------------------------------------------------------------------------------
# judgments, votes


def judgments_path(bench, judge, kind):
    """Where the judgments of a judge lie; kind: "single" or "pair"."""
    return bench / "model_judgment" / f"{safe_file_name(judge)}_{kind}.jsonl"


def read_judgments(path):
    """The rows of a file of judgments; of several about the same the last."""
    found = {}
    for row in read_jsonl(path, require_keys("question_id", also=judgment_error)) if path.exists() else ():
        found[judgment_key(row)] = row
    return list(found.values())


def judgment_error(row):
    """What is wrong with a row of judgments, or None."""
    if {"model_1", "model_2"} <= set(row):
        return None if {"g1_winner", "g2_winner"} <= set(row) or "winner" in row else "no winner"
    return None if isinstance(row.get("score"), (int, float)) and "model" in row else "no score"


def stale(bench, rows):
    """The judgments whose answers have changed since: what was judged is no longer said."""
    answers = {}

    def said(name):
        if name not in answers:
            path = answers_path(bench, name)
            answers[name] = read_answers(path) if path.exists() else {}
        return answers[name]

    def changed(row):
        question, turn, names = judgment_key(row)
        found = [said(name).get(question) for name in names]
        if None in found:
            return False
        # ours say which answers they are about; of FastChat's the prompt must show them
        if "answers" in row:
            return row["answers"] != answers_hash(found, turn)
        shown = row.get("user_prompt", row.get("g1_user_prompt"))
        return bool(shown) and any(text and text not in shown
                                   for texts in found for text in texts[:turn])
    return [row for row in rows if changed(row)]


def answers_hash(assistants, turn):
    """What tells the answers up to a turn (from 1) from others; assistants: [[text, ...], ...]."""
    return text_hash(*(text or "" for texts in assistants for text in texts[:turn]))


def text_hash(*texts):
    """A short name for some texts: no others have it."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def judged_texts(path, systems):
    """
    What a judge said, on file: (name_of(prompt's name, system message, prompt), [text, ...]), one
    by one. FastChat does not write system messages down: then those of `systems` are taken.
    """
    for row in read_judgments(path):
        for game in ("", "g1_", "g2_"):
            if f"{game}user_prompt" in row and len(row.get("judge", ())) > 1:
                name = row["judge"][1]
                system = row.get("system_prompt", systems.get(name, ""))
                yield (text_hash(name, system, row[f"{game}user_prompt"]),
                       row.get(f"{game}judgments", [row[f"{game}judgment"]]))


def judgment_key(row):
    """What a judgment is about: (question, turn, who)."""
    who = (row["model_1"], row["model_2"]) if "model_1" in row else (row.get("model"),)
    return row["question_id"], row.get("turn", 1), who


def merge_judgments(before, rows):
    """Judgments with new ones; one that says what it said before stays as it was."""
    found = {judgment_key(row): row for row in before}
    for row in rows:
        old = found.get(judgment_key(row), {})
        if any(old.get(key) != value for key, value in row.items() if key != "tstamp") or \
                "failure" in old and "failure" not in row:
            found[judgment_key(row)] = row
    return list(found.values())


VOTES = {"model_a": "a", "model_b": "b", "tie": "tie", "tie (inconsistent)": "tie",
         "tie (bothbad)": "tie"}


def read_votes(path):
    """Human votes as (question, turn, model a, model b, "a" | "b" | "tie"), one by one."""
    for row in read_items(path, require_keys("question_id", "model_a", "model_b", "winner")):
        winner = VOTES.get(str(row["winner"]))
        if not winner:
            raise UserError(f"{path}: a vote for {row['winner']!r}; known are {', '.join(VOTES)}")
        yield row["question_id"], row.get("turn", 1), row["model_a"], row["model_b"], winner
