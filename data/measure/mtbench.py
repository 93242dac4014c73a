"""
The files of a bench, as FastChat's llm_judge lays them out (Zheng et al. 2023, arXiv 2306.05685).

    question.jsonl                      {"question_id", "category", "turns": [text, ...]}
    model_answer/NAME.jsonl             {"question_id", "choices": [{"turns": [text, ...]}], ...}
    reference_answer/JUDGE.jsonl        the same, with right answers
    model_judgment/JUDGE_single.jsonl   {"question_id", "model", "turn", "score", ...}
    model_judgment/JUDGE_pair.jsonl     {"question_id", "model_1", "model_2", "turn", "g1_winner",
                                         "g2_winner", ...}

Turns are counted from 1. The module also holds the prompts for judges, ours and those of a
judge_prompts.jsonl of FastChat's.
"""

import hashlib
import string
import time
import uuid
from typing import NamedTuple

import numpy as np

from data.formats.files import read_items
from data.program import UserError, read_jsonl, require_keys
from platolm import END_REASONS

# categories whose judge is shown a reference answer, if there is one
NEEDS_REFERENCE = ("math", "reasoning", "coding")

# sampling temperature by category; 0.7 for all others (FastChat, llm_judge/common.py)
TEMPERATURES = {"stem": 0.1, "humanities": 0.1, "extraction": 0.0, "math": 0.0, "coding": 0.0,
                "reasoning": 0.0}


def temperature(question):
    """The temperature at which answers to a question are sampled: its own, or its category's."""
    if "required_temperature" in question:
        return question["required_temperature"]
    return TEMPERATURES.get(question["category"], 0.7)


def text_hash(*texts):
    """A key of 24 hexadecimal digits for some texts; other texts have another key."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


# ------------------------------------------------------------------------------------------------
# questions and answers


def texts_error(turns):
    """Say what is wrong with a value that should be a list of texts; None if nothing is."""
    if isinstance(turns, list) and turns and all(isinstance(text, str) for text in turns):
        return None
    return "turns that are no list of texts"


def choices_error(row):
    """Say what is wrong with a row of model_answer/; None if nothing is."""
    try:
        return texts_error(row["choices"][0]["turns"])
    except (LookupError, TypeError):
        return "no choices with turns in them"


def read_questions(bench):
    """Read the questions of a bench directory: [{"question_id", "category", "turns", ...}, ...]."""
    path = bench / "question.jsonl"
    check = require_keys("question_id", "category", "turns",
                         also=lambda row: texts_error(row["turns"]))
    questions = list(read_jsonl(path, check))
    if not questions:
        raise UserError(f"{path} holds no questions")
    seen = set()
    for question in questions:
        if question["question_id"] in seen:
            raise UserError(f"{path} holds question {question['question_id']} twice")
        seen.add(question["question_id"])
    return questions


def safe_file_name(name):
    """A model's name as a file name: some models have a slash in theirs."""
    return name.replace("/", "_")


def answers_path(bench, name):
    """The file of an assistant's answers."""
    return bench / "model_answer" / f"{safe_file_name(name)}.jsonl"


def read_answers(path):
    """
    Read a file of answers: {question_id: [text or None, ...]}, one for each turn.

    None stands for an answer that the server refused. If a question occurs twice, its last row
    counts.
    """
    answers = {}
    for row in read_jsonl(path, require_keys("question_id", "choices", also=choices_error)):
        choice = row["choices"][0]
        ended = choice.get("ended", {})
        texts = []
        for turn, text in enumerate(choice["turns"], 1):
            refused = ended.get(str(turn)) in END_REASONS
            texts.append(None if refused else text)
        answers[row["question_id"]] = texts
    return answers


def answers_to(bench, name, questions):
    """An assistant's answers in the order of the questions; a UserError if one is missing."""
    path = answers_path(bench, name)
    answers = read_answers(path)
    missing = [question["question_id"] for question in questions
               if len(answers.get(question["question_id"], ())) < len(question["turns"])]
    if missing:
        raise UserError(f"{path} has no answer to {len(missing)} questions, first {missing[0]}")
    return [answers[question["question_id"]] for question in questions]


def answer_rows(name, questions, answers, cut_short):
    """
    Make the rows of model_answer/NAME.jsonl.

    answers: [[text, ...], ...], by question; cut_short: for each question the answers that the
    assistant did not end itself, {turn: reason}.
    """
    rows = []
    for question, texts, reasons in zip(questions, answers, cut_short):
        choice = {"index": 0, "turns": texts}
        if reasons:
            choice["ended"] = reasons
        rows.append({"question_id": question["question_id"], "answer_id": uuid.uuid4().hex,
                     "model_id": name, "tstamp": time.time(), "choices": [choice]})
    return rows


def messages_so_far(questions, answers):
    """The conversation up to the first question without an answer: [{"role", "content"}, ...]."""
    messages = []
    for question, text in zip(questions, answers):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": text})
    return messages + [{"role": "user", "content": questions[len(answers)]}]


def read_references(bench, judge):
    """
    Read the reference answers of a bench: {question_id: [text, ...]}.

    Those of this judge if it has a file, or else those of the first file by name; {} without one.
    """
    paths = sorted((bench / "reference_answer").glob("*.jsonl"))
    paths.sort(key=lambda path: path.stem != safe_file_name(judge))
    return read_answers(paths[0]) if paths else {}


def reference_for(question, references):
    """The reference answers [text, ...] that a judge of this question is shown, or None."""
    if question["category"] not in NEEDS_REFERENCE:
        return None
    own = question.get("reference")
    return references.get(question["question_id"], own) or None


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

PROMPTS = []
for kind, template in (("single", SINGLE), ("pairwise", PAIR)):
    for ending, addition in (("", ""), ("-reference", RIGHT)):
        PROMPTS.append({"name": kind + ending, "type": kind, "system_prompt": "",
                        "prompt_template": template + addition})


def read_prompts(path):
    """Read the rows of a judge_prompts.jsonl: {"name", "type", "prompt_template", ...}, or ours."""
    if not path:
        return PROMPTS
    return list(read_jsonl(path, require_keys("name", "type", "prompt_template")))


def placeholders(template):
    """The set of names between braces in a prompt's template."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name}
    except ValueError as error:
        raise UserError(f"a judge's prompt cannot be filled in: {error}") from None


def matches_turn(template, turn, with_reference):
    """
    Whether a template is about a turn, and shows a reference answer just if with_reference is true.

    Templates that show the whole conversation ({talk}) fit any turn; others name their last
    question, {question_2}, or are about the first turn.
    """
    names = placeholders(template)
    if with_reference != any("ref" in name for name in names):
        return False
    if any(name.startswith("talk") for name in names):
        return True
    numbers = [int(name.removeprefix("question_")) for name in names
               if name.startswith("question_")]
    return max(numbers, default=1) == turn


def transcript(questions, answers):
    """A conversation as our prompts show it, a line for each turn."""
    return "\n".join(f"user: {question}\nassistant: {text}"
                     for question, text in zip(questions, answers))


def prompt_values(questions, assistants, reference):
    """
    The texts that a template about the last of some questions may ask for: {placeholder: text}.

    assistants: the answers of one assistant or of two, [[text, ...], ...]; reference: the right
    answers [text, ...], or ().
    """
    n = len(questions)
    values = {"question": questions[-1], "reference": transcript(questions, reference)}
    for i in range(n):
        values[f"question_{i + 1}"] = questions[i]
        if i < len(reference):
            values[f"ref_answer_{i + 1}"] = reference[i]
    marks = ("_a", "_b") if len(assistants) == 2 else ("",)
    for mark, answers in zip(marks, assistants):
        values[f"talk{mark}"] = transcript(questions, answers)
        values[f"answer{mark}"] = answers[n - 1]
        for i in range(n):
            values[f"answer{mark}_{i + 1}"] = answers[i]
    return values


class FilledPrompt(NamedTuple):
    """What a judge is sent: the prompt's name, its system message ("" for none), and its text."""
    name: str
    system: str
    text: str


def fill_prompt(prompts, question, turn, assistants, reference=None):
    """
    Fill in the first of some prompts that fits a turn of a question, as a FilledPrompt.

    assistants: the answers of one assistant, or of two in the order in which they are shown,
    [[text, ...], ...]; reference: the right answers [text, ...], or None. A UserError if no prompt
    fits, or if it has a placeholder that is not known.
    """
    kind = "single" if len(assistants) == 1 else "pairwise"
    # a right answer to the first turn alone says nothing about the second
    if not reference or len(reference) < turn:
        reference = ()
    for row in prompts:
        template = row["prompt_template"]
        if row["type"] != kind or not matches_turn(template, turn, bool(reference)):
            continue
        values = prompt_values(question["turns"][:turn], assistants, reference)
        try:
            text = template.format_map(values)
        except (LookupError, ValueError, AttributeError) as error:
            raise UserError(f"the judge's prompt {row['name']} has a placeholder that cannot be "
                            f"filled: {error}") from None
        return FilledPrompt(row["name"], row.get("system_prompt") or "", text)
    raise UserError(f"none of the judge's prompts is {kind}, about turn {turn}, "
                    f"{'with' if reference else 'without'} a right answer")


# ------------------------------------------------------------------------------------------------
# judgments


def judgments_path(bench, judge, kind):
    """The file of a judge's judgments; kind: "single" or "pair"."""
    return bench / "model_judgment" / f"{safe_file_name(judge)}_{kind}.jsonl"


def judgment_key(row):
    """What a judgment is about: (question, turn, (model,) or (model 1, model 2))."""
    if "model_1" in row:
        names = row["model_1"], row["model_2"]
    else:
        names = (row.get("model"),)
    return row["question_id"], row.get("turn", 1), names


def judgment_error(row):
    """Say what is wrong with a row of judgments; None if nothing is."""
    if "model_1" in row and "model_2" in row:
        has_winners = "g1_winner" in row and "g2_winner" in row
        return None if has_winners or "winner" in row else "no winner"
    has_score = isinstance(row.get("score"), (int, float)) and "model" in row
    return None if has_score else "no score"


def read_judgments(path):
    """Read a file of judgments, [] if there is none; of several about the same the last counts."""
    if not path.exists():
        return []
    rows = read_jsonl(path, require_keys("question_id", also=judgment_error))
    return list({judgment_key(row): row for row in rows}.values())


def merge_judgments(before, rows):
    """
    Add new judgments to those of a file.

    A row that differs from the old one in nothing but its time leaves the old one as it is.
    """
    merged = {judgment_key(row): row for row in before}
    for row in rows:
        key = judgment_key(row)
        old = merged.get(key, {})
        changed = any(old.get(name) != value for name, value in row.items() if name != "tstamp")
        succeeded = "failure" in old and "failure" not in row
        if changed or succeeded:
            merged[key] = row
    return list(merged.values())


def answers_hash(assistants, turn):
    """A key for the answers up to a turn; assistants: [[text or None, ...], ...]."""
    texts = []
    for answers in assistants:
        texts += [text or "" for text in answers[:turn]]
    return text_hash(*texts)


def outdated_judgments(bench, rows):
    """
    Find the judgments, of some rows, whose answers have changed since they were judged.

    A judgment is tied to the exact texts of the answers up to its turn: ours carry a hash of them,
    FastChat's the prompt that showed them. One whose answers are not there now is not listed.
    """
    answers_of = {}
    changed = []
    for row in rows:
        question, turn, names = judgment_key(row)
        for name in names:
            if name not in answers_of:
                path = answers_path(bench, name)
                answers_of[name] = read_answers(path) if path.exists() else {}
        answers = [answers_of[name].get(question) for name in names]
        if None in answers:
            # without the answers themselves nothing can be compared
            continue
        if "answers" in row:
            if row["answers"] != answers_hash(answers, turn):
                changed.append(row)
            continue
        shown = row.get("user_prompt", row.get("g1_user_prompt"))
        texts = [text for own in answers for text in own[:turn] if text]
        if shown and any(text not in shown for text in texts):
            changed.append(row)
    return changed


def name_questions(ids):
    """Name some questions in a few words: "questions 81, 90 and 3 more"."""
    ids = list(dict.fromkeys(map(str, ids)))
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"question{'s' * (len(ids) > 1)} {', '.join(ids[:10])}{more}"


def edited_judgments(bench, rows, edited):
    """
    As outdated_judgments, but with `edited` the judgments count as they are: [], and it is said.
    """
    outdated = outdated_judgments(bench, rows)
    if not edited or not outdated:
        return outdated
    ids = [row["question_id"] for row in outdated]
    print(f"note: {len(outdated)} judgments are about other answers than those there are now, and "
          f"are scored all the same: {name_questions(ids)}")
    return []


def judged_texts(path, systems):
    """
    Yield a judge's texts from a file of judgments: (key of the FilledPrompt, [text, ...]).

    FastChat's files have no system messages: theirs are then taken from systems {prompt's name:
    system message}.
    """
    for row in read_judgments(path):
        if len(row.get("judge", ())) < 2:
            continue
        name = row["judge"][1]
        system = row.get("system_prompt", systems.get(name, ""))
        for game in ("", "g1_", "g2_"):
            if f"{game}user_prompt" in row:
                texts = row.get(f"{game}judgments", [row[f"{game}judgment"]])
                # a judgment that failed is empty; FastChat calls it $ERROR$
                texts = [text for text in texts if text not in ("", "$ERROR$")]
                yield text_hash(name, system, row[f"{game}user_prompt"]), texts


def to_unit_scale(ratings):
    """Map ratings from 1 to 10 onto scores from 0 to 1."""
    return (np.asarray(ratings, dtype=float) - 1) / 9


def read_scores(bench, judge_model, names, questions, edited=False):
    """
    Read the ratings of some assistants: {name: scores (questions, turns) from 0 to 1}.

    NaN where a judgment failed, or where a question has fewer turns. A UserError if an answer has
    not been judged, or has changed since (unless `edited` lets such judgments count).
    """
    path = judgments_path(bench, judge_model, "single")
    if not path.exists():
        raise UserError(f"no {path}; `evaluate.py judge` writes it")
    rows = [row for row in read_judgments(path) if row["model"] in names]
    outdated = {judgment_key(row) for row in edited_judgments(bench, rows, edited)}
    ratings = {}
    for row in rows:
        key = judgment_key(row)
        if key not in outdated:
            # -1 stands for a judgment that failed
            ratings[key] = np.nan if row["score"] < 0 else row["score"]
    most_turns = max(len(question["turns"]) for question in questions)
    scores = {}
    for name in names:
        table = np.full((len(questions), most_turns), np.nan)
        missing = []
        for i, question in enumerate(questions):
            for turn in range(len(question["turns"])):
                key = question["question_id"], turn + 1, (name,)
                if key not in ratings:
                    missing.append(question["question_id"])
                table[i, turn] = ratings.get(key, np.nan)
        if missing:
            raise UserError(f"{len(missing)} answers of {name} have not been judged as they are "
                            f"now ({name_questions(missing)}); `evaluate.py judge` asks for just "
                            "those, and --edited scores what was judged before they changed")
        scores[name] = to_unit_scale(table)
    return scores


# ------------------------------------------------------------------------------------------------
# human votes

VOTES = {"model_a": "a", "model_b": "b", "tie": "tie", "tie (inconsistent)": "tie",
         "tie (bothbad)": "tie"}


def read_votes(path):
    """Yield human votes: (question, turn, model a, model b, "a" | "b" | "tie")."""
    for row in read_items(path, require_keys("question_id", "model_a", "model_b", "winner")):
        winner = VOTES.get(str(row["winner"]))
        if not winner:
            raise UserError(f"{path}: a vote for {row['winner']!r}; known are {', '.join(VOTES)}")
        yield row["question_id"], row.get("turn", 1), row["model_a"], row["model_b"], winner
