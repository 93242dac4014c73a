"""
Wrong answers to the exercises, each a confusion that people really have. Two kinds of tests must
tell them from the right answer: ours (`make verify`), and those that students write (`make hunt`).
"""

from typing import NamedTuple


class Trap(NamedTuple):
    """A wrong answer: in the function of an exercise, the text `right` becomes `wrong`."""
    exercise: int
    confuses: str
    right: str
    wrong: str


TRAPS = [
    # 1: the mask that makes Socratic
    Trap(1, "the model learns the other role", 'turn["from"] == learn', 'turn["from"] != learn'),
    Trap(1, "everybody's words are learnt, whoever is to be trained",
         '(everything or turn["from"] == learn)', "True"),
    Trap(1, "the role label is learnt, too: the model writes its own prompt",
         'LABEL[turn["from"]]), everything)', 'LABEL[turn["from"]]), learnt)'),
    Trap(1, "the <s> that opens a turn is learnt, as in the authors' code, without being asked for",
         "everything or (compat and learnt)", "everything or learnt"),
    Trap(1, "the end of a turn is not learnt, so the model never stops",
         'add(tokenizer.encode(turn["value"]) + [tokenizer.eos], learnt)',
         'add(tokenizer.encode(turn["value"]), learnt)\n'
         "        add([tokenizer.eos], everything)"),
    Trap(1, "a turn that is marked as not to be learnt is learnt",
         'is_target(turn) and (everything or turn["from"] == learn)',
         'everything or turn["from"] == learn'),
    Trap(1, "a turn that is not to be learnt is not read either",
         "for turn in conversation:", "for turn in filter(is_target, conversation):"),
    Trap(1, "the assistant reads the human's intent", 'if intent and learn == "human":', "if intent:"),
    Trap(1, "the system line stands before every turn", 'before = ""', "before = tokenizer.system"),
    # 2: the shift
    Trap(2, "the mask belongs to the input, not to the target", "zip(ids[1:], mask[1:])",
         "zip(ids[1:], mask)"),
    Trap(2, "targets are the inputs themselves", "zip(ids[1:], mask[1:])",
         "zip(ids, mask)"),
    Trap(2, "what does not count becomes token 0, and is learnt as such",
         "token if counts else IGNORE", "token if counts else 0"),
    Trap(2, "the last token is an input, though nothing follows it", "ids[:-1]", "ids"),
    # 5: when a dialogue has to stop
    Trap(5, "a question of nothing but spaces is a question", "question.strip()", "question"),
    Trap(5, "a label leaks only with the space at its end", "label.strip()", "label"),
    Trap(5, "only the other side's label is a leak", "LABEL.values()", '[LABEL["gpt"]]'),
    Trap(5, "a label in small letters is a leak, too", "mark in question",
         "mark.lower() in question.lower()"),
    Trap(5, "who says what the assistant said repeats a question", "turns[::2]", "turns"),
    Trap(5, "a question is compared with the last one alone", "turns[::2]", "turns[-2::2]"),
    Trap(5, "the first thanks end the dialogue", "earlier and is_courtesy(earlier[-1]) and ", ""),
    Trap(5, "thanks at any time before make these a repetition", "is_courtesy(earlier[-1])",
         "any(map(is_courtesy, earlier))"),
    Trap(5, "the assistant's thanks count as the human's", "is_courtesy(earlier[-1])",
         'is_courtesy(turns[-1]["value"])'),
    # 6: two speakers in turn
    Trap(6, "a last question is asked that nobody will answer",
         "for _ in range(rounds):\n"
         "            question = ask(turns)",
         "while True:\n"
         "            question = ask(turns)\n"
         "            if len(turns) == 2 * rounds:\n"
         "                break"),
    Trap(6, "the dialogue never ends: the limit of rounds is ignored", "for _ in range(rounds):",
         "while True:"),
    Trap(6, "rounds are counted as turns", "range(rounds)", "range(rounds // 2)"),
    Trap(6, "the roles are swapped",
         '"human", "value": question}]\n'
         "            # a question without its answer is never kept\n"
         '            turns = with_question + [{"from": "gpt"',
         '"gpt", "value": question}]\n'
         '            turns = with_question + [{"from": "human"'),
    Trap(6, "a question is kept though its answer never came",
         'with_question = turns + [{"from": "human", "value": question}]\n'
         "            # a question without its answer is never kept\n"
         '            turns = with_question + [{"from": "gpt", "value": answer(with_question)}]',
         'turns = turns + [{"from": "human", "value": question}]\n'
         '            turns = turns + [{"from": "gpt", "value": answer(turns)}]'),
    Trap(6, "the assistant does not see the question", "answer(with_question)", "answer(turns)"),
    Trap(6, "a question is answered, and paid for, before it ends the dialogue",
         "if reason := reason_to_stop(question, turns):",
         'answer(turns + [{"from": "human", "value": question}])\n'
         "            if reason := reason_to_stop(question, turns):"),
    Trap(6, "whoever ends it, and why, it is called an error", "str(end)", '"error"'),
    # 7: one update from micro-batches
    Trap(7, "the loss is a mean of the micro-batches' means",
         "nll(model, ids, targets).sum() / target_count",
         "nll(model, ids, targets).mean() / len(micro_batches)"),
    Trap(7, "the gradients are cleared for every micro-batch", "for ids, targets in micro_batches:",
         "for ids, targets in micro_batches:\n"
         "        model.zero_grad()"),
    Trap(7, "the gradients are never cleared", "\n        optimizer.zero_grad(set_to_none=True)", ""),
    Trap(7, "the optimizers step after every micro-batch", "total += loss.item()",
         "total += loss.item()\n"
         "        for optimizer in optimizers:\n"
         "            optimizer.step()"),
    Trap(7, "every micro-batch is clipped for itself", "loss.backward()",
         "loss.backward()\n"
         "        nn.utils.clip_grad_norm_(model.parameters(), clip)"),
    Trap(7, "the loss is that of the last micro-batch", "total += loss.item()",
         "total = loss.item()"),
    Trap(7, "padding and what is not learnt count as targets", "(targets != IGNORE).sum().item()",
         "targets.numel()"),
    Trap(7, "the targets of other processes do not count", "ranks.sum_over(own_targets)",
         "own_targets"),
    # 10: a user who hears no answer
    Trap(10, "the answers are left out, so that questions follow on questions",
         'heard.append(turn if turn["from"] == "human" else turn | {"value": ""})',
         'heard += [turn] if turn["from"] == "human" else []'),
    Trap(10, "the dialogue itself is emptied, also for those who may hear it",
         'turn | {"value": ""}', 'turn.update(value="") or turn'),
    Trap(10, "what else a turn says of itself is lost", 'turn | {"value": ""}',
         '{"from": "gpt", "value": ""}'),
    Trap(10, "the questions are emptied in place of the answers",
         'turn["from"] == "human"', 'turn["from"] == "gpt"'),
    # 21: which errors go away
    Trap(21, "a wrong key is tried again", "(408, 409, 425, 429)", "(401, 408, 409, 425, 429)"),
    Trap(21, "every error is tried again", "status >= 500", "status >= 400"),
    Trap(21, "no error that the request is blamed for (4xx) goes away",
         "status in (408, 409, 425, 429)", "False"),
    Trap(21, "only the best known errors of servers go away", "status >= 500",
         "status in (500, 502, 503, 504)"),
    Trap(21, "a redirect goes away", "status >= 500", "not 400 <= status < 500"),
    # 22: waiting before the next try
    Trap(22, "there is no end to the tries", "failures == TRIES or ", ""),
    Trap(22, "answers are paid for that give nothing, as often as there are tries",
         "wasted == WASTED or ", ""),
    Trap(22, "the bound of the wait does not grow", "min(60, 2 ** (failures - 2))", "0.5"),
    Trap(22, "the bound of the wait grows for ever", "min(60, 2 ** (failures - 2))",
         "2 ** (failures - 2)"),
    Trap(22, "the wait is the bound itself, so that all come back at once",
         "random.uniform(0, min(60, 2 ** (failures - 2)))", "min(60, 2 ** (failures - 2))"),
    Trap(22, "half of the bound is always waited", "random.uniform(0, min(60, 2 ** (failures - 2)))",
         "min(60, 2 ** (failures - 2)) * random.uniform(0.5, 1)"),
    Trap(22, "a wait that the server asks for is ignored", "wait = failure.wait or ", "wait = "),
    Trap(22, "a server that asks for no wait is asked again at once, over and over",
         "failure.wait or random.uniform(0, min(60, 2 ** (failures - 2)))",
         "random.uniform(0, min(60, 2 ** (failures - 2))) if failure.wait is None else failure.wait"),
    Trap(22, "there is no end to the patience", " or elapsed + wait > self.patience", ""),
    Trap(22, "patience looks at the seconds that are over, not at the wait to come",
         "elapsed + wait > self.patience", "elapsed > self.patience"),
    Trap(22, "what the server said is swallowed", "{more}: {failure}", "{more}"),
    # 23: reserving the worst case
    Trap(23, "what is in flight does not count",
         "self.has_to_wait(self.reservation(price, tokens, model))",
         "self.spent + self.reservation(price, tokens, model).dollars > self.cap"),
    Trap(23, "who is woken has room, whoever was faster", "while self.has_to_wait",
         "if self.has_to_wait"),
    Trap(23, "who finds no room waits, even if nothing is in flight",
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n', ""),
    Trap(23, "whether the run is over is asked before the wait alone",
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n",
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"),
    Trap(23, "what is reserved is what it was before the wait",
         "            while self.has_to_wait(self.reservation(price, tokens, model)):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"
         "            reservation = self.reservation(price, tokens, model)\n",
         "            reservation = self.reservation(price, tokens, model)\n"
         "            while self.has_to_wait(reservation):\n"
         "                if not self.open:\n"
         '                    raise DialogueEnd("budget")\n'
         "                self.changed.wait()\n"
         "            if self.stop.is_set():\n"
         "                raise RunStopped\n"),
    Trap(23, "a call is in flight before it is written down",
         '            self.note({"call": call, "reserved": reservation.dollars})\n'
         "            self.open[call] = reservation\n",
         "            self.open[call] = reservation\n"
         '            self.note({"call": call, "reserved": reservation.dollars})\n'),
    # 24: settling at the real cost
    Trap(24, "what was reserved is booked, not what it cost", "self.spent += cost",
         "self.spent += reservation.dollars"),
    Trap(24, "what a call reserved stays reserved", "\n                del self.open[call]", ""),
    Trap(24, "nobody who waits is woken", "\n                self.changed.notify_all()", ""),
    Trap(24, "only one of those who wait is woken", "notify_all", "notify"),
    Trap(24, "an error that cost nothing counts as an answer without a report", "elif cost:",
         "else:"),
    Trap(24, "what a report has taught is forgotten at the next start", "row |= self.learn_from",
         "self.learn_from"),
    Trap(24, "a full disk leaves the call in flight for ever",
         "            try:\n"
         "                if usage:\n"
         "                    row |= self.learn_from(usage, reservation, cost)\n"
         "                elif cost:\n"
         "                    self.silent[reservation.model] += 1\n"
         "                self.note(row)\n"
         "            finally:\n"
         "                self.spent += cost\n"
         "                del self.open[call]\n"
         "                self.changed.notify_all()\n",
         "            if usage:\n"
         "                row |= self.learn_from(usage, reservation, cost)\n"
         "            elif cost:\n"
         "                self.silent[reservation.model] += 1\n"
         "            self.note(row)\n"
         "            self.spent += cost\n"
         "            del self.open[call]\n"
         "            self.changed.notify_all()\n"),
    # 25: replaying what the journal holds
    Trap(25, "a speaker counts its own calls, though a history holds both sides",
         "    def replay(turns):\n"
         "        if len(turns) < len(history):\n"
         '            return history[len(turns)]["value"]\n',
         "    rest = iter(history)\n\n"
         "    def replay(turns):\n"
         "        for turn in rest:\n"
         '            return turn["value"]\n'),
    Trap(25, "the last turn of the history is bought once more", "len(turns) < len(history)",
         "len(turns) < len(history) - 1"),
    Trap(25, "what is repeated is bought as well, and thrown away", "def replay(turns):",
         "def replay(turns):\n"
         "        text = speak(turns)"),
    Trap(25, "a speaker gives the whole turn, and not its text", 'history[len(turns)]["value"]',
         "history[len(turns)]"),
]
