"""
A judge behind an address, who is asked for nothing twice.

What he said stands in model_judgment/JUDGE_KIND.jsonl, or in the journal beside it; who failed has
no judgment, and is asked for again by the next start. Not here: what he is asked and how his words
are read (evaluate.py), the layout of the files (mtbench.py), the client (simulate.py).
"""

from functools import partial

from data import mtbench
from data.errands import errands, kept
from data.journal import Journal
from simulate import Progress, in_dollars, reaching


class Judge:
    """
    args: those of `evaluate.py judge`; path: the file; stop: an event after which nobody is asked.

    texts {name: [text, ...]}: what he said of a prompt; failed {name: why}.
    """

    def __init__(self, path, args, stop):
        self.path, self.args, self.stop = path, args, stop
        self.journal = Journal(f"{path}.journal", {"judge": args.judge_model, "temperature": 0})
        reach, self.ledger = reaching(args, args.judge, self.journal, stop)
        self.client = reach(args.judge, args.judge_model, args.price)
        self.texts, self.failed = {}, {}

    def know(self, names):
        """Find what was said already."""
        self.texts = {name: kept(self.journal, name) for name in names}
        for name, text in mtbench.judged(self.path):
            if self.texts.get(name) == []:
                self.texts[name] = [text]

    def lacking(self, readable):
        """The names of prompts with fewer judgments than wanted, of those that can be read."""
        return [name for name, texts in self.texts.items() if name not in self.failed
                and sum(map(readable, texts)) < self.args.repeats]

    def ask(self, prompts, readable):
        """
        Have him judge the prompts {name: messages} that lack a judgment, as often as is wanted.

        readable(text) tells whether a judgment can be read. Returns how many were asked.
        """
        args = self.args
        self.know(prompts)
        first = self.lacking(readable)
        for _ in range(args.repeats):
            tasks = {name: partial(self.client.chat, args.judge_model, prompts[name],
                                   args.max_tokens, temperature=0)
                     for name in self.lacking(readable)}
            told = Progress(self.path.stem, len(tasks), self.ledger, "judgments")
            self.failed |= errands(self.journal, tasks, args.in_flight, self.stop, told)
            for name in tasks:
                self.texts[name] = kept(self.journal, name)
        return len(first)

    def spent(self):
        """What it has cost so far, in words; nothing where it was free."""
        return f"; {in_dollars(self.ledger.spent)} spent" if self.ledger.spent else ""
