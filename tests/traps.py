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
    # 2: the shift
    Trap(2, "the mask belongs to the input, not to the target", "zip(ids[1:], mask[1:])",
         "zip(ids[1:], mask)"),
    Trap(2, "targets are the inputs themselves", "zip(ids[1:], mask[1:])",
         "zip(ids, mask)"),
]
