"""The tool of the exercises, on a tiny made project: what students, teachers and accidents do to it."""

import ast
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tests.exercises import exercises as ex
from tests.exercises import grading, sandbox

LETTERS = '''"""A made project."""

import functools


# exercise 1: the letters of a word
@functools.lru_cache
def letters(word):
    """
    Sort the different letters of a word.

        letters("hello")  ->  "ehlo"
            """
    # a set has each letter once
    found = set(word)
    ordered = sorted(found)
    return "".join(ordered)


def after(word):
    return letters(word)
'''
COUNT = '''"""Counting."""


class Counter:
    # exercise 12: how many words
    def words(self, text):
        """Count the words of a text."""
        return len(text.split())
'''
ANSWER = ["    found = set(word)", "    ordered = sorted(found)", '    return "".join(ordered)']
TESTS = '''
import pytest
from letters import letters
from data.count import Counter

@pytest.mark.exercise(1)
def test_letters():
    assert letters("hello") == "ehlo"

@pytest.mark.exercise(12)
def test_words():
    assert Counter().words("a b c") == 3
'''
TRAPS = '''
from types import SimpleNamespace as Trap
TRAPS = [Trap(exercise=1, confuses="keeps letters that come twice", right="set(word)", wrong="list(word)"),
         Trap(exercise=1, confuses="sorts from z to a", right="sorted(found)", wrong="sorted(found)[::-1]"),
         Trap(exercise=12, confuses="counts letters", right="text.split()", wrong="text"),
         Trap(exercise=12, confuses="counts spaces", right="len(text.split())", wrong="text.count(' ')")]
'''
HINTS = """# Hints

## 1. the letters of a word

core, 5 minutes

1. Each letter once.
2. Then in order,
   from a to z.

## 12. how many words

core, 2 minutes

1. What stands between words?
2. Texts can split themselves.
"""
CONFTEST = '''
def pytest_configure(config):
    config.addinivalue_line("markers", "exercise(number): of an exercise")
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The made project; the tool is about it instead of ours."""
    root = tmp_path / "made"
    for name, text in {"letters.py": LETTERS, "data/count.py": COUNT, "README.md": "made\n",
                       "tests/conftest.py": CONFTEST, "tests/test_made.py": TESTS, "tests/traps.py": TRAPS,
                       "tests/exercises/hints.md": HINTS}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for module in (ex, grading):
        monkeypatch.setattr(module, "ROOT", root)
        monkeypatch.setattr(module, "FOLDER", root / "runs" / "exercises")
    monkeypatch.setattr(grading, "SCRATCH", root / "runs" / "exercises" / "scratch")
    # run_jobs sets it
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return root


@pytest.fixture
def tool(root, run_command):
    """tool("check", 1) runs a command; returns (exit status, what it printed, its sentence)."""
    def run(*words):
        done = run_command(ex.main, *words)
        sentence = done.stderr.removeprefix("exercises.py: ").strip()
        assert "\n" not in sentence and (done.returncode == 0) == (not sentence), done.stderr
        return done.returncode, done.stdout, sentence
    return run


def solve():
    """Write the answer of exercise 1 into its copy."""
    _, own = ex.begun(1)
    (own.copy / own.path).write_text(ex.with_body(own, ANSWER))


# ------------------------------------------------------------------------------------------------
# marks and blanks


def test_a_blank_keeps_all_but_the_body(root):
    exercise = ex.exercise_of(1)
    assert (exercise.name, exercise.title, exercise.size) == ("letters", "the letters of a word", 3)
    before, after = LETTERS.split("    # a set has each letter once\n")
    stub = "    # your code here, then: make check N=1\n    raise NotImplementedError(\"exercise 1\")\n"
    assert ex.blank(exercise) == before + stub + after[after.index("\n\n\n"):].removeprefix("\n")
    method = ex.exercise_of(12)
    assert (method.name, method.path) == ("Counter.words", "data/count.py")
    assert ex.blank(method).endswith('        """Count the words of a text."""\n'
                                     "        # your code here, then: make check N=12\n"
                                     '        raise NotImplementedError("exercise 12")\n')


@pytest.mark.parametrize("old, new, said", [
    ("a word\n@", "a word\n\n@", "letters.py, line 6: no function begins below '# exercise 1'"),
    ("a word\n@", "a word\nX = 1\n@", "letters.py, line 6: no function begins below '# exercise 1'"),
    ("found)\n\n", "found)\n# exercise 3: last\n", "no function begins below '# exercise 3'"),
    ("\n\ndef after", "\n\n# exercise 1: again\ndef after", "exercise 1: after of letters.py has no docstring"),
    ("\n\ndef after(word):\n", '\n\n# exercise 12: again\ndef after(word):\n    """Do it."""\n',
     "exercise 12 is marked twice, in letters.py and data/count.py"),
    ("\n\ndef after(word):\n", '\n\n# exercise 1: again\ndef after(word):\n    """Do it."""\n',
     "exercise 1 is marked twice, in letters.py and letters.py"),
    ("def letters(word)", "def letters(word", "letters.py, line 8: "),
    ("    return letters(word)\n", '    return "\udcff"\n', "letters.py is no UTF-8")])
def test_a_mark_that_marks_nothing_is_one_sentence(root, tool, old, new, said):
    text = LETTERS.replace("join(ordered)", "join(found)").replace(old, new)
    (root / "letters.py").write_bytes(text.encode(errors="surrogateescape"))
    status, _, sentence = tool("list")
    assert status == 1 and said in sentence


@pytest.mark.parametrize("words, said", [
    (["start", "7"], "there is no exercise 7; `make exercises` lists those there are, 1 to 12"),
    (["start"], "which exercise? N= is no number"), (["hint", "six"], "N=six is no number"),
    (["check", "²"], "N=² is no number"), (["check", "7"], "there is no exercise 7"),
    (["check", "1"], "no runs/exercises/01/letters.py; make exercise N=1 makes it"),
    (["diff", "1"], "make exercise N=1 makes it"), (["hunt", "1"], "which tests? make hunt N=1 TESTS=my_tests.py"),
    (["hunt", "1", "--tests", "nowhere.py"], "there is no file nowhere.py"),
    (["hunt", "all"], "make hunt N=all TESTS=DIR: a directory"), (["verify", "7"], "there is no exercise 7")])
def test_what_is_not_there_is_one_sentence(tool, words, said):
    status, _, sentence = tool(*words)
    assert status == 1 and said in sentence


def test_of_a_project_without_exercises_nothing_can_be_begun(root, tool):
    for name in ("letters.py", "data/count.py"):
        (root / name).write_text("")
    assert tool("start", 1)[2] == "there is no exercise 1; `make exercises` lists those there are: none"


# ------------------------------------------------------------------------------------------------
# a student's work


def test_a_second_start_refuses_and_again_loses_nothing(root, tool, monkeypatch):
    status, printed, _ = tool("start", 1)
    copy = root / "runs/exercises/01"
    assert status == 0 and "the reference answer has 3 lines of code (core, 5 minutes)" in printed
    assert "    from letters import letters\n" in printed and "make hunt N=1 TESTS=my_tests.py" in printed
    assert "runs/exercises/01/letters.py, line 14" in printed and 'letters("hello")  ->  "ehlo"' in printed
    assert (copy / "data/count.py").read_text() == COUNT and not (copy / "tests/traps.py").exists()
    # twice within a second, too
    monkeypatch.setattr("time.strftime", lambda form: "now")
    for work in ("mine", "mine, too"):
        (copy / "letters.py").write_text(work)
        status, printed, sentence = tool("start", 1)
        assert status == 1 and "runs/exercises/01 holds your work: go on in runs/exercises/01/letters.py;" in sentence
        assert "AGAIN=1" in sentence and 'letters("hello")  ->  "ehlo"' in printed, "the task is told again"
        assert (copy / "letters.py").read_text() == work
        assert tool("start", 1, "--again")[0] == 0
        assert "NotImplementedError" in (copy / "letters.py").read_text()
    assert (root / "runs/exercises/01-now/letters.py").read_text() == "mine"
    assert (root / "runs/exercises/01-now-2/letters.py").read_text() == "mine, too"


def test_hints_come_one_at_a_time(tool):
    first, second, third = (tool("hint", 1)[1] for _ in range(3))
    assert "1 of 2: Each letter once." in first and "2 of 2" not in first and "no more" not in first
    assert "1 of 2" in second and "2 of 2: Then in order,\n   from a to z." in second and "no more" in second
    assert third == second


def test_a_blank_fails_and_the_answer_passes_until_it_changes(root, tool):
    tool("start", 1)
    status, printed, sentence = tool("check", 1)
    assert status == 1 and sentence == "exercise 1 is not solved: a test fails"
    assert "NotImplementedError: exercise 1" in printed and "tested: runs/exercises/01/letters.py" in printed
    solve()
    status, printed, _ = tool("check", 1)
    assert status == 0 and "exercise 1 is solved: 1 tests pass" in printed
    head, *lines = tool("list")[1].splitlines()[:3]
    assert [line[head.index("state"):] for line in lines] == ["solved  core, 5 minutes", "-       core, 2 minutes"]
    assert "-    # a set" not in tool("diff", 1)[1] and "+    # a set" in tool("diff", 1)[1]
    copy = root / "runs/exercises/01/letters.py"
    copy.write_text(copy.read_text().replace("set(word)", "list(word)"))
    assert " begun " in tool("list")[1].splitlines()[1]
    assert tool("diff", 1)[2] == "exercise 1 is not solved yet; make diff N=1 SHOW=1 shows the source all the same"
    assert "+    found = set(word)" in tool("diff", 1, "--show")[1]
    status, printed, sentence = tool("check", 1)
    assert status == 1 and "'ehllo' == 'ehlo'" in printed
    # the source itself is never what was tested
    assert (root / "letters.py").read_text() == LETTERS


@pytest.mark.parametrize("old, new, said", [
    ("raise NotImplementedError", "return (", "runs/exercises/01/letters.py, line 15: '(' was never closed"),
    ("# exercise 1: the letters of a word\n", "", "has lost its line '# exercise 1: the letters of a word'"),
    ('raise NotImplementedError("exercise 1")', "import os\n    os._exit(0)", "the process that ran them died"),
    ('raise NotImplementedError("exercise 1")', "import pytest\n    pytest.skip()", "a test is skipped"),
    ('raise NotImplementedError("exercise 1")', "import pytest\n    pytest.exit()", "something interrupts them"),
    ('raise NotImplementedError("exercise 1")', "raise KeyboardInterrupt", "something interrupts them"),
    ('"exercise 1")', '"\udcff")', "runs/exercises/01/letters.py is no UTF-8")])
def test_an_answer_that_is_none_does_not_pass(root, tool, old, new, said):
    tool("start", 1)
    copy = root / "runs/exercises/01/letters.py"
    copy.write_bytes(copy.read_text().replace(old, new).encode(errors="surrogateescape"))
    status, _, sentence = tool("check", 1)
    assert status == 1 and said in sentence


def test_changed_tests_are_kept_and_do_not_count(root, tool):
    tool("start", 1)
    tests = root / "runs/exercises/01/tests"
    for change in ("easy", "easier"):
        (tests / "test_made.py").write_text(change)
        assert tool("check", 1)[0] == 1
    assert (tests / "test_made.py").read_text() == TESTS
    assert (tests / "test_made.py.changed").read_text() == "easy"
    assert (tests / "test_made.py.changed-2").read_text() == "easier"


def test_without_tests_nothing_is_solved(root, tool):
    (root / "tests/test_made.py").write_text(TESTS.replace("exercise(1)", "exercise(11)"))
    tool("start", 1)
    assert tool("check", 1)[2] == "no test is marked with exercise 1: our fault"


def test_the_list_needs_no_packages():
    """It is what one looks at first. -S: python without what was installed."""
    done = subprocess.run([sys.executable, "-S", "-m", "tests.exercises.exercises", "list"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "two speakers in turn" in done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------
# a student's tests

GOOD = 'from letters import letters\n\ndef test_it():\n    assert letters("hello") == "ehlo"\n'


def test_a_hunt_says_what_slipped_through(root, tool):
    tests = root / "mine.py"
    tests.write_text(GOOD)
    status, printed, _ = tool("hunt", 1, "--tests", tests)
    assert status == 0 and "2 of 2 wrong answers caught" in printed
    tests.write_text(GOOD.replace('"hello") == "ehlo"', '"he") == "eh"'))
    status, printed, sentence = tool("hunt", 1, "--tests", tests)
    assert status == 1 and "1 of 2 wrong answers caught" in printed
    assert sentence == "1 wrong answer passes these tests; SHOW=1 says which" and "slipped" not in printed
    status, printed, sentence = tool("hunt", 1, "--tests", tests, "--show")
    assert "slipped through: keeps letters that come twice" in printed and "caught: sorts from z to a" in printed
    assert status == 1 and not list((root / "runs/exercises/scratch").iterdir()), "scratch is cleared"


@pytest.mark.parametrize("tests, shown", [
    (GOOD.replace('"hello"', "7"), ["mine.py:4: in test_it", "TypeError: 'int' object is not iterable"]),
    (GOOD.replace('== "ehlo"', "== 7"), ["mine.py:4: in test_it", 'assert letters("hello") == 7']),
    ("from letters import letters\nletters(7)\n", ["mine.py:2: in <module>", "TypeError: 'int'"]),
    ("from letters import words\n", ["mine.py:1: in <module>", "cannot import name 'words'"])])
def test_a_test_that_fails_on_the_source_does_not_show_it(root, tool, tests, shown):
    (root / "mine.py").write_text(tests)
    status, printed, sentence = tool("hunt", 1, "--tests", root / "mine.py")
    assert status == 1 and RIGHT + "a test fails" in sentence and all(text in printed for text in shown), printed
    assert not any(line.strip() in printed for line in ANSWER) and "test_hunt" not in printed, printed


def test_a_hunt_without_tests_says_how_they_are_written(tool):
    status, printed, sentence = tool("hunt", 12)
    assert status == 1 and sentence == "which tests? make hunt N=12 TESTS=my_tests.py"
    assert "    from data.count import Counter\n" in printed and "need not be solved" in printed


def within(statements):
    """A test that would be good but for some statements before its assertion."""
    body = "".join(f"    {line}\n" for line in statements.split("\n"))
    return GOOD.replace("def test_it():\n", "def test_it():\n" + body)


COPIED = '''
from letters import letters

def answer(text):
    seen = set(text)
    in_order = sorted(seen)
    return "".join(in_order)

def test_it():
    for text in ("hello", "she"):
        assert letters(text) == answer(text)
'''
RIGHT = "must pass on the source, and does not: "


BAD = {
    "hangs": (within("while True: pass"), RIGHT + "the tests did not finish in 2 seconds: is there a loop"),
    "forks": (within("import os\nif os.fork() == 0: os._exit(0)"), RIGHT + "they start another process"),
    "starts": (within("import subprocess\nsubprocess.run(['true'])"), RIGHT + "they start another process"),
    "writes outside": (within("open('{outside}', 'w').close()"), RIGHT + "they write outside their folder"),
    "deletes outside": (within("import os\nos.remove('{root}/README.md')"), RIGHT + "they write outside"),
    "swallows the refusal": (within("try: open('{outside}', 'w')\nexcept OSError: pass"), RIGHT + "they write outside"),
    "swallows very many": (within("for i in range(20_000):\n    try: open('{outside}', 'w')\n    except OSError: pass"),
                           RIGHT + "they write outside their folder"),
    "takes all memory": (within("'x' * (1 << 44)"), RIGHT + "a test fails"),
    "fills the disk": (within("open('large', 'w').truncate(1 << 40)"), RIGHT + "a test fails"),
    "ends the process": (within("import os; os._exit(0)"), RIGHT + "the process that ran them died"),
    "exits": ("import sys; sys.exit(0)", RIGHT + "something interrupts them"),
    "only skips": (within("import pytest; pytest.skip('later')"), RIGHT + "a test is skipped"),
    "expects to fail": ("import pytest\n" + GOOD.replace("def", "@pytest.mark.xfail\ndef"),
                        RIGHT + "a test is skipped"),
    "stops after a pass": (GOOD + "\ndef test_other():\n    import pytest; pytest.exit('done')\n",
                           RIGHT + "something interrupts them"),
    "is empty": ("", RIGHT + "it holds no function test_*"),
    "is wrong": (GOOD.replace("ehlo", "helo"), RIGHT + "a test fails"),
    "tests another copy": ("import sys; sys.path.insert(0, '{root}')\n" + GOOD, RIGHT + "they tested another copy"),
    "asserts nothing": (within("return"), "2 wrong answers pass these tests"),
    "never calls it": ("def test_it():\n    assert 1 + 1 == 2\n", "2 wrong answers pass these tests"),
    "is no Python": ("def test_it(:\n", "cannot be read as Python: invalid syntax"),
    "reads the source": ("import inspect, letters\n\ndef test_it():\n"
                         "    assert 'sorted(found)' in inspect.getsource(letters)\n",
                         "must pass on the same answer in other words, and does not: a test fails"),
    "copies the answer": (COPIED, "holds most of the answer itself")}


@pytest.mark.parametrize("tests, said", BAD.values(), ids=BAD)
def test_tests_that_show_nothing_are_one_sentence_and_no_pass(root, tool, monkeypatch, tests, said):
    monkeypatch.setattr(sandbox, "SECONDS", 2)
    outside = root.parent / "outside.txt"
    (root / "mine.py").write_text(tests.replace("{outside}", str(outside)).replace("{root}", str(root)))
    status, _, sentence = tool("hunt", 1, "--tests", root / "mine.py")
    assert status == 1 and said in sentence
    assert not outside.exists() and (root / "README.md").exists()


def test_tests_that_wait_for_ever_end_by_the_clock(root, tool, monkeypatch):
    monkeypatch.setattr(sandbox, "CLOCK_SECONDS", 3)
    (root / "mine.py").write_text(within("import time; time.sleep(50)"))
    sentence = tool("hunt", 1, "--tests", root / "mine.py")[2]
    assert RIGHT + "the tests did not finish in 3 seconds: do they wait for something" in sentence


def test_a_busy_machine_takes_no_seconds_from_an_answer(root, tool, monkeypatch):
    """Of computing there are two seconds; tests that wait longer, as those do that others keep waiting, pass."""
    monkeypatch.setattr(sandbox, "SECONDS", 2)
    (root / "mine.py").write_text(within("import time; time.sleep(2.5)"))
    assert tool("hunt", 1, "--tests", root / "mine.py")[0] == 0


def test_an_interrupted_hunt_leaves_no_process_behind(root, monkeypatch):
    children, start_job = [], sandbox.start_job

    def start(job):
        read, child = start_job(job)
        children.append(child)
        return read, child
    monkeypatch.setattr(sandbox, "start_job", start)
    files = {"quick.py": GOOD, "slow.py": within("import time; time.sleep(50)")}
    for name, text in files.items():
        (root / "tests" / name).write_text(text)
    jobs = sandbox.run_jobs([sandbox.Job(root, (f"tests/{name}",), None, "letters") for name in files], 2)
    _, outcome = next(jobs)
    assert outcome.passed
    jobs.close()
    assert len(children) == 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_the_same_answer_in_other_words_does_the_same():
    source = '''
def f(a, *rest, key=abs, **more):
    """Do it."""
    sign = lambda a: -a
    def add(x, b=2):
        nonlocal total
        total += x + b
    total = 0
    for i, x in enumerate(rest):
        add(x, b=i)
    try:
        from math import inf as found
        rest = [sign(y) for y in rest if (z := y) is not None]
    except ValueError as error:
        found = error
    return a, rest, total, f"{sign(total)!r} {z}", key(sign(a)), more, found'''
    other = source[:source.index("    sign")] + "".join(
        f"    {line}\n" for line in grading.renamed(ast.parse(source).body[0]))
    spaces = {}, {}
    for text, space in zip((source, other), spaces):
        exec(text, space)
    one, two = (space["f"](3, 4, 5, key=lambda x: x + 1, b=6) for space in spaces)
    assert one == two == (3, [-4, -5], 10, "-10 5", -2, {"b": 6}, float("inf")) and "rest_" in other


# ------------------------------------------------------------------------------------------------
# for teachers, and for us


def rows_of(path):
    """A JUnit file as {name: why it failed, or None}, and what its head counts."""
    suite = ElementTree.parse(path).getroot()
    rows = {case.get("name"): case.find("failure") for case in suite}
    return ({name: row if row is None else row.get("message") for name, row in rows.items()},
            (int(suite.get("tests")), int(suite.get("failures"))))


def test_a_grader_gets_a_row_for_each_exercise(root, tool):
    tool("start", 1)
    solve()
    status, printed, sentence = tool("check", "all")
    assert (status, sentence) == (1, "1 of 2 exercises are solved") and "runs/exercises/check.xml" in printed
    assert rows_of(root / "runs/exercises/check.xml") == ({
        "01 the letters of a word": None,
        "12 how many words": "not begun"}, (2, 1))
    tool("start", 12)
    (root / "runs/exercises/12/data/count.py").write_text(COUNT)
    assert tool("check", "all")[0] == 0 and rows_of(root / "runs/exercises/check.xml")[1] == (2, 0)

    (root / "theirs").mkdir()
    (root / "theirs/test_01.py").write_text(GOOD)
    status, _, sentence = tool("hunt", "all", "--tests", root / "theirs", "--show")
    rows, counts = rows_of(root / "runs/exercises/hunt.xml")
    assert (status, sentence, counts) == (1, "in 1 of 2 exercises all wrong answers are caught", (2, 1))
    assert rows["01 the letters of a word"] is None and "there is no file" in rows["12 how many words"]
    # our own file marks tests of several exercises, of which each hunt takes its own
    for name in ("test_01.py", "test_12.py"):
        (root / "theirs" / name).write_text(TESTS)
    assert tool("hunt", "all", "--tests", root / "theirs")[0] == 0


def test_verify_is_content_with_sound_exercises(root, tool):
    status, printed, _ = tool("verify")
    assert status == 0 and "10 runs of tests" in printed and "all traps are caught" in printed


@pytest.mark.parametrize("name, old, new, said", [
    ("tests/test_made.py", '"hello") == "ehlo"', '"he") == "eh"', "1: its tests pass on: trap: keeps letters"),
    ("tests/test_made.py", 'assert letters("hello")', 'letters("hello")\n    assert letters("")',
     "1: its tests fail on a right answer (source): a test fails"),
    ("tests/test_made.py", "from letters import letters\n", "import letters\nassert letters.letters('a')\n",
     "1: its tests fail on a right answer"),
    ("tests/test_made.py", "exercise(1)", "exercise(11)", "no test is marked with exercise 1"),
    ("tests/traps.py", "set(word)", "set(words)", "trap 'keeps letters that come twice' of exercise 1: its right text "
                                                  "stands 0 times in letters"),
    ("tests/traps.py", "list(word)", "list(word", "of exercise 1 is no Python: "),
    ("tests/traps.py", "sorts from z to a", "keeps letters that come twice", "of exercise 1 is there twice"),
    ("tests/traps.py", "12, confuses=\"counts l", "13, confuses=\"counts l", "exercises that are not marked: [13]"),
    ("tests/traps.py", "12, confuses=\"counts l", "1, confuses=\"counts l", "its right text stands 0 times"),
    ("tests/exercises/hints.md", "## 12. ", "## 13. ", "marked are [1, 12], but hints.md has [1, 13]"),
    ("tests/exercises/hints.md", "the letters", "some letters", "1: hints.md has another title, or an empty hint"),
    ("tests/exercises/hints.md", "1. Each letter once.", "1.", "1: hints.md has another title, or an empty hint")])
def test_verify_names_what_is_unsound(root, tool, name, old, new, said):
    text = (root / name).read_text()
    assert text.count(old) == 1
    (root / name).write_text(text.replace(old, new))
    status, _, sentence = tool("verify", 1)
    assert status == 1 and said in sentence
