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

from data.api.journal import RESUMABLE
from data.api.protocol import RetriesExhausted
from data.program import UserError
from platolm import DialogueEnd

# so many in a row without an answer, and nobody is there any more
HOPELESS = 5


def journalled_texts(journal, name):
    """What was answered to a question, all tries that count: [text, ...]."""
    return [row["value"] for row in journal.turns(name)]


def ask_all(journal, tasks, in_flight, stop=None, progress=None):
    """
    Run tasks {name: function that gives a text, mostly a Said}, so many at a time.

    Each text is written into the journal as one more turn of its name. Returns {name: why} of the
    tasks that failed. A server that does not answer at all is a Problem.
    """
    stop, failed, unanswered = stop or threading.Event(), {}, 0

    def one(name, task):
        # where money or patience is at an end, nobody begins
        if stop.is_set() or "budget" in failed.values():
            raise DialogueEnd("budget")
        said = task()
        how = getattr(said, "meta", {})
        journal.write({"id": name, "turn": len(journal.offsets.get(name, ())), "from": "server",
                       "value": said, **how}, paid=how.get("cost", 0) > 0)

    with ThreadPoolExecutor(in_flight) as pool:
        names = {pool.submit(one, name, task): name for name, task in tasks.items()}
        try:
            for done in as_completed(names):
                unanswered = record_outcome(done, names[done], failed, unanswered)
                if progress:
                    progress.count_done()
        except BaseException:
            # who sleeps need not wait for the end of it
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def record_outcome(done, name, failed, unanswered):
    """Note down how a task failed, if it did; how many in a row got no answer."""
    try:
        done.result()
    except DialogueEnd as end:
        failed[name] = str(end)
    except RetriesExhausted as problem:
        failed[name] = "error"
        if unanswered + 1 == HOPELESS:
            raise UserError(f"{HOPELESS} questions in a row got no answer; what was answered is "
                          f"kept, start again to go on: {problem}") from None
        return unanswered + 1
    return 0


def raise_if_incomplete(failures, what):
    """A Problem where something failed for lack of money or of a server: that can be mended."""
    missing = [why for why in failures if why in RESUMABLE]
    if missing:
        more = "; the next call at its worst did not fit: more --max-dollars, or shorter answers" \
            if "budget" in missing else ""
        raise UserError(f"{len(missing)} {what} are missing ({tally(missing)}); the same command "
                      f"asks for them again, and for no others{more}")


def tally(words):
    """["a", "b", "a"] -> "2 a, 1 b"."""
    return ", ".join(f"{n} {word}" for word, n in Counter(words).most_common())
