"""
The exercises: functions of the source whose bodies a student writes anew. The source is the solution.

A line `# exercise 6: its title` above a function marks it. An exercise is a copy of the project in
runs/exercises/06, in which the body of that one function is blank; hints.md has the hints. This file
finds and blanks the functions; sandbox.py runs tests, grading.py says what they show.

    python -m tests.exercises.exercises list
    python -m tests.exercises.exercises start 6 [--again]       also: hint, diff, check, hunt, verify
"""

import argparse
import ast
import difflib
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from data.program import UserError, run

MARK = re.compile(r"^\s*# exercise (\d+): (.+)$")
HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
# called inside a copy, the commands are about the project that it was copied from
if ROOT.parts[-3:-1] == ("runs", "exercises"):
    ROOT = ROOT.parents[2]
FOLDER = ROOT / "runs" / "exercises"


class Exercise(NamedTuple):
    """A marked function: where it stands, in a file of which the text is `source`."""
    number: int
    title: str
    path: str               # from the project's root
    name: str               # "Class.function" for a method
    source: str
    first: int              # line of its first decorator or of its def, counted from 1
    body: int               # line of the first statement after the docstring
    last: int               # its last line
    indent: str             # the spaces before the statements of its body

    @property
    def lines(self):
        """The lines of the whole function."""
        return self.source.splitlines()[self.first - 1:self.last]

    @property
    def size(self):
        """How many lines of code its body has."""
        body = self.source.splitlines()[self.body - 1:self.last]
        return sum(bool(line.strip()) and not line.strip().startswith("#") for line in body)

    @property
    def module(self):
        """The name under which its file is imported."""
        return self.path.removesuffix(".py").replace("/", ".")

    @property
    def copy(self):
        """The directory of the student's copy."""
        return FOLDER / f"{self.number:02}"


# ------------------------------------------------------------------------------------------------
# finding and blanking


def functions_of(tree, prefix=""):
    """Yield (qualified name, function) of every function of a module or class, methods too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


def first_line(function):
    """The line of a function's first decorator or, without any, of its def."""
    return min([function.lineno] + [each.lineno for each in function.decorator_list])


def exercises_in(path, root):
    """List the Exercises of one file; a UserError for a line that marks no function."""
    file = short(root / path)
    try:
        source = (root / path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8: {error}") from None
    marks = []
    for number, line in enumerate(source.splitlines(), 1):
        if match := MARK.match(line):
            marks.append((number, int(match[1]), match[2]))
    if not marks:
        return []
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}: {error.msg}; a test can run once Python "
                        "can read the file") from None
    by_line = {first_line(function): (name, function) for name, function in functions_of(tree)}
    exercises = []
    for line, number, title in marks:
        if line + 1 not in by_line:
            raise UserError(f"{file}, line {line}: no function begins below '# exercise {number}'")
        name, function = by_line[line + 1]
        if not ast.get_docstring(function):
            raise UserError(f"exercise {number}: {name} of {file} has no docstring to work from")
        exercises.append(Exercise(number, title, path, name, source, line + 1,
                                  function.body[0].end_lineno + 1, function.end_lineno,
                                  " " * function.body[0].col_offset))
    return exercises


def all_exercises():
    """Return {number: Exercise} of the project, in order."""
    found = {}
    for file in [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "data").rglob("*.py"))]:
        for exercise in exercises_in(file.relative_to(ROOT).as_posix(), ROOT):
            if exercise.number in found:
                raise UserError(f"exercise {exercise.number} is marked twice, in "
                                f"{found[exercise.number].path} and {exercise.path}")
            found[exercise.number] = exercise
    return dict(sorted(found.items()))


def exercise_of(number):
    """Return one Exercise; a UserError that tells the numbers if there is none such."""
    found = all_exercises()
    if number not in found:
        span = f", {min(found)} to {max(found)}" if found else ": none"
        raise UserError(f"there is no exercise {number}; `make exercises` lists those there are"
                        f"{span}")
    return found[number]


def with_body(exercise, body):
    """The source of its file with another body, a list of lines without their line ends."""
    lines = exercise.source.splitlines()
    return "\n".join(lines[:exercise.body - 1] + body + lines[exercise.last:]) + "\n"


def blank(exercise):
    """The source of its file without its body; decorators, signature and docstring stay."""
    return with_body(exercise, [
        f"{exercise.indent}# your code here, then: make check N={exercise.number}",
        f'{exercise.indent}raise NotImplementedError("exercise {exercise.number}")'])


def copy_project(target):
    """Copy what the tests need of the project into a new directory; the traps stay here."""
    target.mkdir(parents=True)
    for pattern in ("*.py", "*.md", "Makefile", "requirements.txt"):
        for file in ROOT.glob(pattern):
            shutil.copy(file, target)
    for name in ("data", "tests"):
        shutil.copytree(ROOT / name, target / name,
                        ignore=shutil.ignore_patterns("__pycache__", "traps.py"))


# ------------------------------------------------------------------------------------------------
# hints


class Hints(NamedTuple):
    """What hints.md says of an exercise."""
    title: str
    about: str              # level, minutes, what it needs
    hints: list


def all_hints():
    """Return {number: Hints} of hints.md."""
    text = (ROOT / "tests" / "exercises" / "hints.md").read_text(encoding="utf-8")
    sections = re.split(r"^## (\d+)\. (.+)$", text, flags=re.M)
    found = {}
    for number, title, text in zip(sections[1::3], sections[2::3], sections[3::3]):
        about, *hints = re.split(r"^\d+\.(?: |$)", text.strip(), flags=re.M)
        found[int(number)] = Hints(title, about.strip(), [hint.strip() for hint in hints])
    return found


# ------------------------------------------------------------------------------------------------
# the commands


LEGEND = """
state       solved: `make check` passed on the answer as it is now; begun: there is a copy; -: neither
lines       of the source's answer, which do not bind you; helpers and imports are allowed
begin       make exercise N=1; then make check, hint, hunt N=1. Tests in the copy may be read and run
order       the core from 1 to 10, the rest as you like: in each copy all else is solved, also what
            "after 14" names
core        from the mask to the comparison: Python; 3, 4 and 7 need torch, 8 and 9 numpy
network     the parts of a transformer: torch
sampling    from probabilities to texts: torch
paid calls  errors, waiting, a budget: Python
texts       measures of texts, and their statistics: Python; 27 to 31 need numpy
training    the learning rate: Python

In exercise 1 `cd runs/exercises/01 && python platolm.py show data/example.jsonl` prints your masks, with a
python that has the packages (.venv/bin/python of the project). TEACHING.md is for teachers."""


def list_exercises():
    """Print all exercises: number, title, where, size, whether it is solved, level. Needs no package."""
    hints = all_hints()
    print(f"{'N':>3}  {'exercise':<46}{'file':<27}{'lines':>5}  {'state':<8}level, time")
    for number, exercise in all_exercises().items():
        state = "solved" if is_solved(exercise) else "begun" if exercise.copy.exists() else "-"
        about = hints[number].about if number in hints else ""
        print(f"{number:>3}  {exercise.title:<46}{exercise.path:<27}{exercise.size:>5}  {state:<8}{about}")
    print(LEGEND)


def is_solved(exercise):
    """Whether the copy, as it is now, has passed `make check`."""
    solved = exercise.copy / "SOLVED"
    file = exercise.copy / exercise.path
    return solved.exists() and file.exists() and solved.read_text() == file.read_text()


def start(number, again):
    """Make the copy in which exercise `number` is blank, and say what is to do."""
    exercise = exercise_of(number)
    if exercise.copy.exists():
        if not again:
            print_task(exercise)
            raise UserError(f"{short(exercise.copy)} holds your work: go on in "
                            f"{short(exercise.copy / exercise.path)}; make exercise N={number} AGAIN=1 "
                            "moves it aside and begins again")
        aside = unused(exercise.copy.with_name(f"{number:02}-{time.strftime('%Y%m%d-%H%M%S')}"))
        exercise.copy.rename(aside)
        print(f"your old copy is now {short(aside)}")
    # whole before it has its name
    unfinished = exercise.copy.with_name(f"{number:02}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    copy_project(unfinished)
    (unfinished / exercise.path).write_text(blank(exercise), encoding="utf-8")
    unfinished.rename(exercise.copy)
    print_task(exercise)


def print_task(exercise):
    """Print what is to do: where, the signature with its docstring, how to go on."""
    number = exercise.number
    print(f"exercise {number}: {exercise.title}\n")
    print(f"write the body of {exercise.name} in {short(exercise.copy / exercise.path)}, "
          f"line {exercise.body}:\n")
    signature = exercise.lines[:exercise.body - exercise.first]
    print("\n".join(f"    {text}" for text in signature))
    hints = all_hints().get(number)
    print(f"\nthe reference answer has {exercise.size} lines of code"
          + (f" ({hints.about})" if hints else ""))
    print(f"then: make check N={number}; make hint N={number} if you are stuck\n")
    print(how_to_hunt(exercise))


def how_to_hunt(exercise):
    """A text that says how a file of tests for `make hunt` is written."""
    return f"""a hunt: do tests of your own catch wrong answers? The exercise need not be solved. In a file, say
my_tests.py, write functions for pytest that import as the source does:

    from {exercise.module} import {exercise.name.split(".")[0]}

    def test_something():
        assert ...

they must pass on the source and fail on wrong answers: make hunt N={exercise.number} TESTS=my_tests.py"""


def unused(path):
    """The path itself or, where something has it, the path with the first free number behind."""
    path, number = Path(path), 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def short(path):
    """A path as it is typed from the project's root."""
    path = Path(path)
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def begun(number):
    """Return an Exercise and the same one in the student's copy; UserErrors say what is missing."""
    exercise = exercise_of(number)
    file = exercise.copy / exercise.path
    if not file.exists():
        raise UserError(f"no {short(file)}; make exercise N={number} makes it")
    for own in exercises_in(exercise.path, exercise.copy):
        if own.number == number:
            return exercise, own
    raise UserError(f"{short(file)} has lost its line '# exercise {number}: {exercise.title}', "
                    f"below which {exercise.name} has to stand")


def hint(number):
    """Print the next hint; how many were seen stands beside the copy."""
    exercise = exercise_of(number)
    found = all_hints().get(number)
    if not found:
        raise UserError(f"hints.md has no hints for exercise {number}: our fault")
    hints = found.hints
    seen = FOLDER / f"{number:02}.hints"
    count = min(len(hints), 1 + (int(seen.read_text()) if seen.exists() else 0))
    FOLDER.mkdir(parents=True, exist_ok=True)
    seen.write_text(str(count))
    print(f"exercise {number}: {exercise.title}\n")
    for i, text in enumerate(hints[:count], 1):
        print(f"{i} of {len(hints)}: {text}\n")
    if count == len(hints):
        print(f"there are no more; make diff N={number} SHOW=1 shows the source beside your answer")


def diff(number, show):
    """Print how the student's function differs from the source's; unless `show`, once it is solved."""
    exercise, own = begun(number)
    if not (show or is_solved(exercise)):
        raise UserError(f"exercise {number} is not solved yet; make diff N={number} SHOW=1 shows the "
                        "source all the same")
    lines = difflib.unified_diff(own.lines, exercise.lines, "yours", "the source", lineterm="", n=99)
    print("\n".join(lines) or "your answer is the source's, letter for letter")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("command", choices=["list", "start", "hint", "diff", "check", "hunt",
                                            "verify"])
    parser.add_argument("number", nargs="?", help="of the exercise; check, hunt: or all")
    parser.add_argument("--again", action="store_true", help="start: move an old copy aside")
    parser.add_argument("--tests", help="hunt: a file of tests; for all, a directory of them")
    parser.add_argument("--show", action="store_true", help="hunt: name what slipped through; "
                        "diff: also before it is solved")
    args = parser.parse_args()
    if args.command == "list":
        return list_exercises()
    from tests.exercises import grading
    if args.command == "verify":
        return grading.verify([number_of(args.number)] if args.number else None)
    if args.number == "all" and args.command in ("check", "hunt"):
        return grading.grade_all(args.command, args.tests, args.show)
    number = number_of(args.number)
    if args.command == "start":
        return start(number, args.again)
    if args.command == "check":
        return grading.check(number)
    if args.command == "hunt":
        return grading.hunt(number, args.tests, args.show)
    if args.command == "diff":
        return diff(number, args.show)
    hint(number)


def number_of(text):
    """Parse the number of an exercise."""
    if not text or not text.isdecimal():
        raise UserError(f"which exercise? N={text or ''} is no number; `make exercises` lists them")
    return int(text)


if __name__ == "__main__":
    run(main)
