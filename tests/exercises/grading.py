"""
What tests show: of a student's answer (check), of a student's own tests (hunt), of the exercises
themselves (verify). A JUnit file has a row an exercise, for graders.

A hunt: tests must pass on the source, pass on the source written otherwise, and fail on each of the
exercise's traps (tests/traps.py), wrong answers that confuse something.
"""

import ast
import builtins
import os
import re
import runpy
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from data.program import UserError
from tests.exercises.exercises import (FOLDER, ROOT, all_exercises, all_hints, begun, blank,
                                       copy_project, exercise_of, functions_of, how_to_hunt,
                                       short, unused, with_body)
from tests.exercises.sandbox import Job, run_jobs

SCRATCH = FOLDER / "scratch"


def is_marked(tests, number):
    """Whether a text of tests marks one with @pytest.mark.exercise(number)."""
    marks = re.findall(r"mark\.exercise\(([\d, ]+)\)", tests)
    return any(str(number) in re.split(r"\D+", numbers) for numbers in marks)


def tests_of(number):
    """The files of the project's tests that are marked with an exercise, from its root."""
    files = tuple(f"tests/{file.name}" for file in sorted((ROOT / "tests").glob("test_*.py"))
                  if is_marked(file.read_text(encoding="utf-8"), number))
    if not files:
        raise UserError(f"no test is marked with exercise {number}: our fault")
    return files


def scratch_copy(name, exercise, source):
    """Copy the project into a fresh directory, with `source` as the text of the exercise's file."""
    directory = SCRATCH / f"{os.getpid()}" / name
    copy_project(directory)
    (directory / exercise.path).write_text(source, encoding="utf-8")
    return directory


def clear_scratch():
    """Delete the fresh directories of this process."""
    shutil.rmtree(SCRATCH / f"{os.getpid()}", ignore_errors=True)


# ------------------------------------------------------------------------------------------------
# the traps


def all_traps():
    """List the Traps of the project."""
    return runpy.run_path(str(ROOT / "tests" / "traps.py"))["TRAPS"]


def traps_of(exercise):
    """Return {what a trap confuses: the text of the exercise's file with it} of an exercise."""
    traps = {}
    function = "\n".join(exercise.lines)
    for trap in all_traps():
        if trap.exercise != exercise.number:
            continue
        name = f"trap '{trap.confuses}' of exercise {exercise.number}"
        if trap.confuses in traps:
            raise UserError(f"{name} is there twice")
        if function.count(trap.right) != 1:
            raise UserError(f"{name}: its right text stands {function.count(trap.right)} times in "
                            f"{exercise.name}")
        lines = exercise.source.splitlines()
        wrong = function.replace(trap.right, trap.wrong).splitlines()
        lines[exercise.first - 1:exercise.last] = wrong
        text = "\n".join(lines) + "\n"
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise UserError(f"{name} is no Python: {error}") from None
        traps[trap.confuses] = text
    return traps


def renamed(function):
    """The statements of a function's body without its docstring, with other names for variables."""
    nested = list(ast.walk(ast.Module(function.body, [])))
    parameters = [each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)]
    names = {each.id for each in nested
             if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)} | {*parameters}
    # those that stand in other places, too, where a new one would be missed
    for each in nested:
        if isinstance(each, ast.Global | ast.Nonlocal):
            names -= {*each.names}
        names -= {getattr(each, key, None) for key in ("arg", "asname", "name")}
    used = {each.id for each in nested if isinstance(each, ast.Name)}
    suffix = "_"
    while any(name + suffix in used for name in names):
        suffix += "_"
    for each in nested:
        if isinstance(each, ast.Name) and each.id in names:
            each.id += suffix
    begin = [f"{name}{suffix} = {name}" for name in parameters if name in names] or ["_ = None"]
    return [*begin, *ast.unparse(ast.Module(function.body[1:], [])).split("\n")]


def written_otherwise(exercise):
    """The text of its file with the same answer in another layout and other names, no comments."""
    function = dict(functions_of(ast.parse(exercise.source)))[exercise.name]
    return with_body(exercise, [exercise.indent + line for line in renamed(function)])


def copied_share(exercise, tests):
    """The share of the source's statements, by length, that stand in tests, whatever the names."""
    def without_name(match):
        """Keep the names of what Python has built in, which tell one call from another."""
        return match[0] if hasattr(builtins, match[1]) else ""

    def shapes(nodes):
        """The texts of all statements that are no functions, without the names of variables."""
        return {re.sub(r"\b(?:Name\(id|arg\(arg)='(\w+)'", without_name, ast.dump(each))
                for node in nodes for each in ast.walk(node)
                if isinstance(each, ast.stmt) and not isinstance(each, ast.FunctionDef)}
    answer = shapes(dict(functions_of(ast.parse(exercise.source)))[exercise.name].body[1:])
    return sum(map(len, answer & shapes([tests]))) / sum(map(len, answer))


# ------------------------------------------------------------------------------------------------
# a student's answer


class Row(NamedTuple):
    """A row of a JUnit file: an exercise, why it is not solved ("" if it is), seconds."""
    number: int
    title: str
    failure: str
    seconds: float = 0.0


def restore_tests(exercise):
    """Put the project's tests into a student's copy; changed ones are kept as NAME.changed."""
    for file in (ROOT / "tests").rglob("*.py"):
        if file.name == "traps.py":
            continue
        copy = exercise.copy / file.relative_to(ROOT)
        if copy.exists() and copy.read_bytes() != file.read_bytes():
            aside = unused(f"{copy}.changed")
            copy.rename(aside)
            print(f"{short(copy)} is the project's again; yours is {aside.name}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def check_row(number):
    """Run an exercise's tests in the student's copy: (Row, Outcome)."""
    exercise, _ = begun(number)
    restore_tests(exercise)
    job = Job(exercise.copy, tests_of(number), number, exercise.module)
    (_, outcome), = run_jobs([job])
    if outcome.passed and not outcome.loaded:
        raise UserError(f"the tests of exercise {number} never load {exercise.path}: our fault")
    (exercise.copy / "SOLVED").unlink(missing_ok=True)
    if outcome.passed:
        text = (exercise.copy / exercise.path).read_text(encoding="utf-8")
        (exercise.copy / "SOLVED").write_text(text, encoding="utf-8")
    failure = "" if outcome.passed else outcome.status
    return Row(number, exercise.title, failure, outcome.seconds), outcome


def check(number):
    """Check a student's answer, and say what was tested."""
    row, outcome = check_row(number)
    if outcome.message:
        print(outcome.message)
    if outcome.loaded:
        print(f"tested: {short(outcome.loaded)}")
    if row.failure:
        raise UserError(f"exercise {number} is not solved: {row.failure}")
    print(f"exercise {number} is solved: {outcome.ran} tests pass in {row.seconds:.1f} s; "
          f"make diff N={number} shows the source beside your answer")


# ------------------------------------------------------------------------------------------------
# a student's tests


def own_frames(message, tests):
    """
    What pytest says of a test without the frames of other files, whose lines may be the answer's;
    the student's file by its own name.
    """
    lines, own = [], False
    for line in message.splitlines():
        frame = re.match(r"(\S.*):\d+: in ", line)
        if frame:
            own = frame[1].endswith("test_hunt.py")
        if own or not (frame or line.startswith("    ")):
            lines.append(line)
    return re.sub(r"[^\s'\"]*\btest_hunt\.py", lambda match: str(tests), "\n".join(lines))


def hunt_rows(exercise, tests):
    """
    Run a file of tests on the source, on the source written otherwise, and on each trap.

    Returns (caught, missed): what the traps confuse. A UserError says why the tests do not count.
    """
    file = Path(tests)
    if not file.is_file():
        raise UserError(f"there is no file {tests}")
    try:
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise UserError(f"{tests} cannot be read as Python: {error}") from None
    if copied_share(exercise, tree) > 0.5:
        raise UserError(f"{tests} holds most of the answer itself: such a test accepts whatever "
                        "mistakes the answer has; test what must come out instead")
    # of a file like ours, which marks tests for several exercises, just this one's
    number = exercise.number if is_marked(text, exercise.number) else None
    sources = {"the source": exercise.source,
               "the same answer in other words": written_otherwise(exercise)}
    traps = traps_of(exercise)

    def outcomes_on(kind, texts):
        """Run the tests on some texts of the exercise's file: {name: Outcome}."""
        jobs = []
        for i, (name, source) in enumerate(texts.items()):
            directory = scratch_copy(f"hunt-{exercise.number}-{kind}-{i}", exercise, source)
            shutil.copy(file, directory / "tests" / "test_hunt.py")
            jobs.append(Job(directory, ("tests/test_hunt.py",), number, exercise.module, name))
        return {job.name: outcome for job, outcome in run_jobs(jobs, processes())}

    found = outcomes_on("right", sources)
    for name in sources:
        if not found[name].passed:
            print(own_frames(found[name].message, tests))
            raise UserError(f"{tests} must pass on {name}, and does not: {found[name].status}")
    found = outcomes_on("wrong", traps)
    return ([name for name in traps if not found[name].passed],
            [name for name in traps if found[name].passed])


def hunt(number, tests, show):
    """Say how many of an exercise's traps a file of tests catches."""
    exercise = exercise_of(number)
    if not tests:
        print(how_to_hunt(exercise))
        raise UserError(f"which tests? make hunt N={number} TESTS=my_tests.py")
    try:
        caught, missed = hunt_rows(exercise, tests)
    finally:
        clear_scratch()
    total = len(caught) + len(missed)
    print(f"exercise {number}, {exercise.title}: {len(caught)} of {total} wrong answers caught")
    if show:
        for name in caught:
            print(f"  caught: {name}")
        for name in missed:
            print(f"  slipped through: {name}")
    if missed:
        pass_them = "wrong answer passes" if len(missed) == 1 else "wrong answers pass"
        raise UserError(f"{len(missed)} {pass_them} these tests"
                        + ("" if show else "; SHOW=1 says which"))


# ------------------------------------------------------------------------------------------------
# for teachers and their graders


def grade_all(command, tests, show):
    """
    Check all copies, or hunt with DIR/test_06.py for every exercise; write a JUnit file.

    What is not there counts as not solved, or not caught. A UserError at the end unless all is.
    """
    if command == "hunt" and not (tests and Path(tests).is_dir()):
        raise UserError("make hunt N=all TESTS=DIR: a directory with test_01.py, test_02.py, ...")
    rows, success = [], "solved" if command == "check" else "all caught"
    for number, exercise in all_exercises().items():
        began = time.monotonic()
        failure = ""
        try:
            if command == "check" and not exercise.copy.exists():
                failure = "not begun"
            elif command == "check":
                failure = check_row(number)[0].failure
            else:
                caught, missed = hunt_rows(exercise, Path(tests) / f"test_{number:02}.py")
                if missed:
                    names = f": {', '.join(missed)}" if show else ""
                    failure = f"{len(caught)} of {len(caught) + len(missed)} caught{names}"
        except UserError as error:
            failure = str(error)
        finally:
            clear_scratch()
        rows.append(Row(number, exercise.title, failure, time.monotonic() - began))
        print(f"{number:>3}  {exercise.title:<46}{failure or success}", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_junit(FOLDER / f"{command}.xml", command, rows)
    failed = sum(bool(row.failure) for row in rows)
    print(f"{short(FOLDER / command)}.xml has a row for each")
    if failed:
        count = f"{len(rows) - failed} of {len(rows)}"
        raise UserError(f"{count} exercises are solved" if command == "check" else
                        f"in {count} exercises all wrong answers are caught")


def write_junit(path, suite, rows):
    """Write rows as a JUnit file, which graders read."""
    failed = sum(bool(row.failure) for row in rows)
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(rows)), failures=str(failed))
    for row in rows:
        case = ElementTree.SubElement(root, "testcase", classname=suite, time=f"{row.seconds:.1f}",
                                      name=f"{row.number:02} {row.title}")
        if row.failure:
            ElementTree.SubElement(case, "failure", message=row.failure)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


# ------------------------------------------------------------------------------------------------
# for us


def processes():
    """How many processes of tests run at a time: one a core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def verify_jobs(exercise):
    """Jobs on the source, on the source written otherwise, on the blank, and on every trap."""
    texts = {"source": exercise.source, "otherwise": written_otherwise(exercise),
             "blank": blank(exercise)}
    texts |= {f"trap: {name}": text for name, text in traps_of(exercise).items()}
    files = tests_of(exercise.number)
    for i, (name, text) in enumerate(texts.items()):
        directory = scratch_copy(f"verify-{exercise.number}-{i}", exercise, text)
        yield Job(directory, files, exercise.number, exercise.module, name)


def fault_of(job, outcome):
    """What is wrong with an exercise, by one Job on it; "" if nothing is."""
    if job.name in ("source", "otherwise"):
        if not outcome.passed:
            return f"its tests fail on a right answer ({job.name}): {outcome.status}"
        if not outcome.loaded:
            return "its tests do not load its file"
    elif outcome.passed:
        return f"its tests pass on: {job.name}"
    elif job.name == "blank" and f"NotImplementedError: exercise {job.number}" not in outcome.message:
        return f"its blank fails with another message than its own: {outcome.status}"
    return ""


def verify(numbers=None):
    """
    Verify exercises, by default all: the source passes, also written otherwise, the blank fails
    with its own message, every trap is caught, and hints.md and traps.py know the same exercises.
    """
    began = time.monotonic()
    exercises, hints = all_exercises(), all_hints()
    if list(exercises) != list(hints):
        raise UserError(f"marked are {list(exercises)}, but hints.md has {list(hints)}")
    if strangers := {trap.exercise for trap in all_traps()} - set(exercises):
        raise UserError(f"traps.py has rows of exercises that are not marked: {sorted(strangers)}")
    chosen = [exercise_of(number) for number in numbers or exercises]
    faults = []
    for exercise in chosen:
        title, about, texts = hints[exercise.number]
        if title != exercise.title or not about or "\n" in about or not (texts and all(texts)):
            faults.append(f"{exercise.number}: hints.md has another title, or an empty hint")
        if len(traps_of(exercise)) < 2:
            faults.append(f"{exercise.number}: it has fewer than two traps")
    if faults:
        raise UserError("; ".join(faults))

    count = 0
    for exercise in chosen:
        slowest = 0.0
        try:
            for job, outcome in run_jobs(list(verify_jobs(exercise)), processes()):
                count += 1
                slowest = max(slowest, outcome.seconds)
                fault = fault_of(job, outcome)
                if fault:
                    faults.append(f"{exercise.number}: {fault}")
                    print(outcome.message)
        finally:
            clear_scratch()
        print(f"{exercise.number:>3}  {exercise.title:<46}{len(traps_of(exercise))} traps, "
              f"{slowest:.1f} s at most", flush=True)
    print(f"{count} runs of tests in {(time.monotonic() - began) / 60:.1f} minutes")
    if faults:
        raise UserError("; ".join(faults))
    print("all sources pass, all blanks fail with their own message, all traps are caught")
