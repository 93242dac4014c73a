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
]
