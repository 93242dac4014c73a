"""
Run tests in a copy of the project: each time in a process of its own, with limits of time and
memory, which may start no process and write nowhere but in the copy.

This guards against accidents, not against an attacker: whoever writes tests is trusted to want them
to run. torch is imported once, here; the processes are forks, which import the copy's own files.
"""

import gc
import json
import os
import resource
import selectors
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

# limits of one run of tests: seconds of computing, which no busy machine shortens, and seconds by the
# clock, for tests that wait; bytes of memory, and of a file
SECONDS, CLOCK_SECONDS, MEMORY, FILE_SIZE = 60, 300, 8 << 30, 256 << 20
# events of Python's audit hooks that start a process
STARTS = ("os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.exec",
          "subprocess.Popen")
# those that change files; their arguments begin with so many paths
CHANGES = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2,
           "os.symlink": 2, "os.truncate": 1, "os.chmod": 1, "os.chown": 1, "os.utime": 1}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Job(NamedTuple):
    """Tests to run: in a directory, some files; of an exercise, or all of them for None."""
    directory: Path
    files: tuple
    number: int | None
    module: str             # of the exercise, such as data.measure.intervals
    name: str = ""


class Outcome(NamedTuple):
    """What came of a Job. status: "passed", or a sentence that says why it is not."""
    status: str
    message: str = ""       # of the first test that failed, in full
    loaded: str = ""        # the file from which the module of the exercise was loaded
    seconds: float = 0.0
    ran: int = 0            # tests

    @property
    def passed(self):
        """Whether at least one test ran, and all of them passed."""
        return self.status == "passed"


# ------------------------------------------------------------------------------------------------
# inside the process


class Recorder:
    """A plugin of pytest: it selects the tests of an exercise, and notes what came of them."""

    def __init__(self, number):
        self.number = number
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.message = ""

    def pytest_collection_modifyitems(self, items):
        """Keep the tests that are marked with this exercise's number."""
        if self.number is not None:
            items[:] = [item for item in items if self.number in numbers_marked(item)]

    def pytest_collectreport(self, report):
        """A file that cannot be imported counts as a failed test."""
        if report.failed:
            self.note(report)

    def pytest_runtest_logreport(self, report):
        """Note each test once: when it was called, or where it failed or was skipped before."""
        if report.when == "call" or not report.passed:
            self.note(report)

    def note(self, report):
        """Count a report, and keep the text of the first failure."""
        # an expected failure counts as skipped: nothing was shown
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        self.counts[outcome] += 1
        if outcome == "failed" and not self.message:
            self.message = report.longreprtext


def numbers_marked(item):
    """The numbers of the exercises that a test is marked with."""
    return {number for mark in item.iter_markers("exercise") for number in mark.args}


def guard(directory, violations):
    """From now on this process starts no other, and changes files below `directory` alone."""
    home, owner = str(directory), os.getpid()

    def refuse(what):
        # the first will do: tests may try again and again
        if not violations:
            violations.append(what)
        raise PermissionError(what)

    def inside(path):
        if isinstance(path, int):
            return True
        path = os.path.abspath(os.path.join(home, os.fsdecode(path)))
        return path.startswith((home + os.sep, "/dev/")) or path == home

    def hook(event, arguments):
        if os.getpid() != owner:
            return
        if event in STARTS:
            refuse("they start another process")
        paths = ()
        if event == "open" and arguments[2] and arguments[2] & WRITING:
            paths = arguments[:1]
        elif event in CHANGES:
            paths = arguments[:CHANGES[event]]
        for path in paths:
            if path is not None and not inside(path):
                refuse(f"they write outside their folder, {os.fsdecode(path)}")
    sys.addaudithook(hook)


def limit(which, amount, spare=0):
    """
    Limit this process, where its system can; never above a limit that it has already. With some to
    spare, a signal of its own says that the limit is reached.
    """
    try:
        _, most = resource.getrlimit(which)
        hard = amount + spare
        if most != resource.RLIM_INFINITY:
            hard = min(hard, most)
        resource.setrlimit(which, (min(amount, hard), hard))
    except (OSError, ValueError):
        pass


def address_space():
    """How many bytes of addresses this process has taken already; 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def run_child(job, pipe):
    """Run a job's tests in this process, a fork; write what came of them into a pipe."""
    import pytest
    import torch
    os.setsid()
    directory = job.directory.resolve()
    os.chdir(directory)
    scratch = directory / "runs"
    scratch.mkdir(exist_ok=True)
    with open(scratch / "output.txt", "w", encoding="utf-8") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    # libraries for graphics cards take gigabytes of addresses before a test runs
    limit(resource.RLIMIT_AS, address_space() + MEMORY)
    limit(resource.RLIMIT_CPU, SECONDS, spare=10)
    limit(resource.RLIMIT_FSIZE, FILE_SIZE)
    os.environ |= {"TMPDIR": str(scratch), "HOME": str(scratch),
                   "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    tempfile.tempdir = str(scratch)
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    # what was imported before the fork stays: pytest need not look through it for garbage
    gc.freeze()
    # the copy's modules, not those of this program
    here = str(Path(__file__).resolve().parents[2])
    sys.path[:] = [str(directory)] + [path for path in sys.path
                                      if os.path.abspath(path) != here]
    for name in list(sys.modules):
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.split(".")[0] in ("tests", "data") or os.path.dirname(file) == here:
            if name != "__main__":
                del sys.modules[name]
    recorder, violations, owner = Recorder(job.number), [], os.getpid()
    guard(directory, violations)
    code = pytest.main(["-x", "-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={directory}",
                 f"--confcutdir={directory / 'tests'}", f"--basetemp={scratch / 'temporary'}",
                 *job.files], plugins=[recorder])
    # a fork of a test that came this far is not the process that was asked
    if os.getpid() != owner:
        os._exit(1)
    loaded = getattr(sys.modules.get(job.module), "__file__", "") or ""
    result = {"counts": recorder.counts, "message": recorder.message[-9_000:], "loaded": loaded,
              "violations": violations, "interrupted": code in (pytest.ExitCode.INTERRUPTED,
                                                                pytest.ExitCode.INTERNAL_ERROR)}
    # less than a pipe holds, so that nobody waits
    os.write(pipe, json.dumps(result).encode())


# ------------------------------------------------------------------------------------------------
# outside


def judge(job, data, seconds, ended_by):
    """
    Make the Outcome of a job from what its process wrote, which may be nothing, and from the signal
    that ended it, if any.
    """
    try:
        result = json.loads(data)
    except ValueError:
        why = "the process that ran them died, or ended before they did"
        if ended_by == signal.SIGXCPU:
            why = (f"the tests did not finish in {SECONDS} seconds: is there a loop that never ends, "
                   "or one over thousands of things?")
        elif seconds >= CLOCK_SECONDS:
            why = (f"the tests did not finish in {CLOCK_SECONDS} seconds: do they wait for something "
                   "that never comes?")
        return Outcome(why, seconds=seconds)
    counts, loaded = result["counts"], result["loaded"]
    ran = counts["passed"] + counts["failed"]
    status = "passed"
    if result["violations"]:
        status = result["violations"][0]
    elif counts["failed"]:
        status = "a test fails"
    elif result["interrupted"]:
        status = "something interrupts them"
    elif counts["skipped"]:
        status = "a test is skipped, so it shows nothing"
    elif not counts["passed"]:
        status = "it holds no function test_*"
    elif loaded and not Path(loaded).resolve().is_relative_to(job.directory.resolve()):
        status = f"they tested another copy, {loaded}"
    return Outcome(status, result["message"], loaded, seconds, ran)


def run_jobs(jobs, at_once=1):
    """Run jobs, `at_once` of them in parallel; yield (job, Outcome) as they end."""
    # threads of torch do not survive a fork: there must be none
    os.environ["OMP_NUM_THREADS"] = "1"
    import pytest  # noqa: F401, imported here once for all forks
    import torch
    waiting, running = list(jobs)[::-1], {}
    if len(waiting) > 1:
        # its first call imports sympy, which takes seconds in each fork
        torch.testing.assert_close(0.0, 0.0)
    try:
        with selectors.DefaultSelector() as selector:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop()
                    read, child = start_job(job)
                    selector.register(read, selectors.EVENT_READ)
                    running[read] = job, child, time.monotonic()
                ready = {key.fd for key, _ in selector.select(timeout=0.5)}
                for read, (job, child, began) in list(running.items()):
                    seconds = time.monotonic() - began
                    if read not in ready and seconds < CLOCK_SECONDS:
                        continue
                    data = os.read(read, 65_536) if read in ready else b""
                    selector.unregister(read)
                    os.close(read)
                    ended_by = end_group(child)
                    del running[read]
                    yield job, judge(job, data, seconds, ended_by)
    finally:
        # where somebody interrupts us
        for _, child, _ in running.values():
            end_group(child)


def start_job(job):
    """Start the process of a job: (the end of a pipe from which its result comes, its id)."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            run_child(job, write)
        except BaseException:
            # into the copy's runs/output.txt
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(write)
    return read, child


def end_group(child):
    """
    End a process that we started, with all that it started, and wait for it. Returns the signal that
    ended it, ours or an earlier one, or None.
    """
    for end in (os.killpg, os.kill):
        try:
            end(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
