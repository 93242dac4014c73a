"""
The thread that owns an Engine, so that many other threads can have it write at once.

    writer = EngineThread(Engine(model, slots=64))
    row = writer.request(writer.engine.add_row)
    row = writer.request(writer.engine.start, row, ids, stops, limit, uniform)      # is written now

Every step of the engine writes for all of them together.
"""

import queue
import threading
from concurrent.futures import Future


class EngineThread:
    """Calls made in the one thread that may touch the engine; writing: the rows under way."""

    def __init__(self, engine):
        self.engine = engine
        # calls to make: (function, its arguments and keywords, Future)
        self.inbox = queue.Queue()
        # {row that is being written: Future of whoever waits for it}
        self.writing = {}
        self.steps = 0
        # notified after each step
        self.stepped = threading.Condition()
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        """Make calls and let all rows take a step, over and over, in a thread."""
        try:
            while True:
                # with nothing to write, block until a call comes; else make those that are there
                while not self.writing or not self.inbox.empty():
                    function, arguments, keywords, future = self.inbox.get()
                    if function is None:
                        return
                    row = function(*arguments, **keywords)
                    if row and row.busy:
                        self.writing[row] = future
                    else:
                        future.set_result(row)
                for row in self.engine.step():
                    self.writing.pop(row).set_result(row)
                self.notify()
        except Exception as error:
            # every thread that waits, now or later, gets the error instead of waiting for ever
            for pending in {future, *self.writing.values()}:
                if not pending.done():
                    pending.set_exception(error)
            self.notify()
            while True:
                function, _, _, future = self.inbox.get()
                if function is None:
                    return
                future.set_exception(error)

    def notify(self):
        """Wake those who wait for a step."""
        with self.stepped:
            self.steps += 1
            self.stepped.notify_all()

    def submit(self, function, *arguments, **keywords):
        """
        Have the thread call function(*arguments, **keywords); return a Future of what it returns,
        which is done when that is a row that is written, or no row.
        """
        future = Future()
        self.inbox.put((function, arguments, keywords, future))
        return future

    def request(self, function, *arguments, **keywords):
        """Submit a call, and wait for what it returns."""
        return self.submit(function, *arguments, **keywords).result()

    def wait_for_step(self, seen, seconds):
        """Wait for a step after the first `seen`, at most so many seconds; return self.steps."""
        with self.stepped:
            self.stepped.wait_for(lambda: self.steps > seen, seconds)
            return self.steps

    def cancel(self, row):
        """End a row where it is, if it is still being written; its Future gets it as it is."""
        def end():
            future = self.writing.pop(row, None)
            if future:
                row.finish_reason = "cancelled"
                future.set_result(row)
        self.submit(end)

    def close(self):
        """End the thread."""
        self.inbox.put((None, None, None, None))
