"""
Many questions to servers, each of them asked once: judgments, answers, votes on a dialogue.

    failed = errands(journal, {name: lambda: client.chat(...), ...}, in_flight=16)
    texts = kept(journal, name)

What was answered stands in the journal; who calls leaves out what is kept there. What failed is
told apart by why (one of platolm.ENDS), is never taken for an answer, and may be asked again.
Not here: the client, and dialogues, in which one answer leads to the next question (simulate.py).
"""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

from data.api.journal import OPEN
from data.api.protocol import Unanswered
from data.program import Problem
from platolm import End

# so many in a row without an answer, and nobody is there any more
HOPELESS = 5


def kept(journal, name):
    """What was answered to a question, all tries that count: [text, ...]."""
    return [row["value"] for row in journal.turns(name)]


def errands(journal, tasks, in_flight, stop=None, progress=None):
    """
    Run tasks {name: function that gives a text, mostly a Said}, so many at a time.

    Each text is written into the journal as one more turn of its name. Returns {name: why} of the
    tasks that failed. A server that does not answer at all is a Problem.
    """
    stop, failed, unanswered = stop or threading.Event(), {}, 0

    def one(name, task):
        # where money or patience is at an end, nobody begins
        if stop.is_set() or "budget" in failed.values():
            raise End("budget")
        said = task()
        how = getattr(said, "how", {})
        journal.write({"id": name, "turn": len(journal.places.get(name, ())), "from": "server",
                       "value": said, **how}, paid=how.get("cost", 0) > 0)

    with ThreadPoolExecutor(in_flight) as pool:
        names = {pool.submit(one, name, task): name for name, task in tasks.items()}
        try:
            for done in as_completed(names):
                unanswered = outcome(done, names[done], failed, unanswered)
                if progress:
                    progress.ended()
        except BaseException:
            # who sleeps need not wait for the end of it
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def outcome(done, name, failed, unanswered):
    """Note down how a task failed, if it did; how many in a row got no answer."""
    try:
        done.result()
    except End as end:
        failed[name] = str(end)
    except Unanswered as problem:
        failed[name] = "error"
        if unanswered + 1 == HOPELESS:
            raise Problem(f"{HOPELESS} questions in a row got no answer; what was answered is "
                          f"kept, start again to go on: {problem}") from None
        return unanswered + 1
    return 0


def nothing_missing(failures, what):
    """A Problem where something failed for lack of money or of a server: that can be mended."""
    missing = [why for why in failures if why in OPEN]
    if missing:
        more = "; the next call at its worst did not fit: more --max-dollars, or shorter answers" \
            if "budget" in missing else ""
        raise Problem(f"{len(missing)} {what} are missing ({counted(missing)}); the same command "
                      f"asks for them again, and for no others{more}")


def counted(words):
    """["a", "b", "a"] -> "2 a, 1 b"."""
    return ", ".join(f"{n} {word}" for word, n in Counter(words).most_common())
