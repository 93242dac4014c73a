"""
Many independent requests to servers, each made once: judgments, answers, embeddings, turns.

    failures = ask_all(journal, {name: lambda: client.chat(...), ...}, in_flight=16)
    texts = journalled_texts(journal, name)

Every text that comes back stands in the journal; the caller leaves out the names that are there
already. A failure is never taken for an answer, and the next start asks again.
"""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

from data.api.journal import MENDABLE
from data.api.limiter import RunStopped
from data.api.protocol import GIVE_UP_AFTER, Refused, RetriesExhausted
from data.program import UserError
from platolm import DialogueEnd


def journalled_texts(journal, name):
    """List the texts that the journal holds under a name, in the order in which they came."""
    return [row["value"] for row in journal.turns(name)]


def ask_all(journal, tasks, in_flight, stop=None, progress=None):
    """
    Run tasks {name: function that returns a text, mostly a Reply}, in_flight at a time.

    Each text is written to the journal as one more turn of its name. Returns the failures as
    {name: reason}, a reason being one of platolm.END_REASONS. UserError if GIVE_UP_AFTER tasks in
    a row get no answer or are refused; stop: an event that is set when the run breaks off.
    """
    stop = stop or threading.Event()
    failures = {}
    unanswered = 0

    def run_task(name, task):
        # once the money is spent, or the run is over, no task begins
        if stop.is_set() or "budget" in failures.values():
            raise DialogueEnd("budget")
        text = task()
        meta = getattr(text, "meta", {})
        journal.write({"id": name, "turn": len(journal.offsets.get(name, ())), "from": "server",
                       "value": text, **meta}, paid=meta.get("cost", 0) > 0)

    with ThreadPoolExecutor(in_flight) as pool:
        names = {pool.submit(run_task, name, task): name for name, task in tasks.items()}
        try:
            for future in as_completed(names):
                unanswered = record_outcome(future, names[future], failures, unanswered)
                if progress:
                    progress.count_done()
        except BaseException:
            # wakes the workers that sleep before a retry
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def record_outcome(future, name, failures, unanswered):
    """
    Enter a finished task in failures {name: reason} if it failed.

    Returns the number of tasks in a row that got no answer, `unanswered` being the number before
    this one; UserError when it reaches GIVE_UP_AFTER.
    """
    try:
        future.result()
        return 0
    except RunStopped:
        # another task has the error that says why
        return unanswered
    except DialogueEnd as end:
        failures[name] = str(end)
        if not isinstance(end, Refused):
            return unanswered
        reason = end.why
    except RetriesExhausted as error:
        failures[name] = "error"
        reason = error
    if unanswered + 1 == GIVE_UP_AFTER:
        raise UserError(f"{GIVE_UP_AFTER} questions in a row got no answer; what was answered "
                        f"is kept, start again to go on: {reason}") from None
    return unanswered + 1


def raise_if_incomplete(reasons, what):
    """
    Raise UserError if any of the failures' reasons is one that a new start can mend.

    what: the name of the missing things, in the plural, as in "3 judgments are missing".
    """
    missing = [reason for reason in reasons if reason in MENDABLE]
    if not missing:
        return
    hint = ""
    if "budget" in missing:
        hint = ("; the next call at its worst did not fit: more --max-dollars, or shorter "
                "answers")
    raise UserError(f"{len(missing)} {what} are missing ({tally(missing)}); the same command asks "
                    f"for them again, and for no others{hint}")


def tally(words):
    """["a", "b", "a"] -> "2 a, 1 b"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
