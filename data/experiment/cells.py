"""
Experiments beside `make all`: each is a list of cells, a cell is the default with some of the
Makefile's variables changed. Every stage of a cell is a file target of make, so a killed run goes
on, what cells share is made once, and what is finished is not made again.

    python -m data.experiment.cells controls [--preset tiny]
    python -m data.experiment.cells seeds --seeds 3
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.experiment.contrasts import DESCRIBED, FURTHER, PRIMARY
from data.program import UserError, positive_int, run


class Cell(NamedTuple):
    """One run: its name, the make variables that differ from the default, the files it needs."""
    name: str
    variables: dict
    files: tuple


# GROWTH=0: nothing is ever new, so old logs know as much as a simulator: a difference is a leak.
# USER=people: people's own program in Socratic's place must give the ceiling. FOLLOW=0: people who
# never ask about what was named: a Socratic who does has it from the base.
CONTROLS = [Cell("GROWTH=0", {"GROWTH": 0, "ARMS": "socratic human"}, ("probes.json",)),
            Cell("USER=people", {"USER": "people", "ARMS": "socratic today"}, ("probes.json",)),
            Cell("FOLLOW=0", {"FOLLOW": 0, "ARMS": "socratic"}, ("reach.json",))]
ALL_ARMS = "today socratic heard-replay self-chat role-play replay human blind replay-open oracle"
# the two-sided 97.5 % points of Student's t, by degrees of freedom
T_975 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def seed_cells(count):
    """A cell for each seed: another draw of stalls, logs, base and training, with all arms."""
    return [Cell(f"seed {seed}", {"SEED": seed, "ARMS": ALL_ARMS},
                 ("gates.json", "reach.json", "contrasts.json")) for seed in range(count)]


def make(preset, variables, targets, quiet=False):
    """Call make with some variables; targets are its own names. Return what it printed if quiet."""
    words = ["make", "--no-print-directory", f"PRESET={preset}"]
    words += [f"{name}={value}" for name, value in variables.items()]
    # a make of its own, with jobs of its own, also where a make has called this program
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    result = subprocess.run([*words, *targets], stdout=subprocess.PIPE if quiet else None,
                            env=environment, text=True)
    if result.returncode:
        raise UserError(f"stopped at: {' '.join([*words, *targets])}")
    return result.stdout


def results(preset, cell):
    """Make the files of a cell, and read them: {"probes.json": {...}}."""
    # the directory's name is make's to know
    directory = Path(make(preset, cell.variables, ["where"], quiet=True).strip())
    print(f"-- {cell.name}: {directory}", flush=True)
    make(preset, cell.variables, [str(directory / name) for name in cell.files])
    return {name: json.loads((directory / name).read_text()) for name in cell.files}


def share_right(probes, arm):
    """The share of people's turns that an arm's assistant answers rightly, talk left out."""
    counted = np.array(probes["turns"]["class"]) != "talk"
    return float(np.array(probes["arms"][arm]["people"])[counted].mean())


def controls(preset):
    """Run the controls; print what each must show, and whether it does."""
    growth, people, follow = [results(preset, cell) for cell in CONTROLS]
    probes = growth["probes.json"]
    leak = share_right(probes, "socratic") - share_right(probes, "human")
    probes = people["probes.json"]
    gap = share_right(probes, "socratic") - share_right(probes, "today")
    copied = follow["reach.json"]["socratic"]["copied"]
    print()
    for text, value, passed in [
            ("GROWTH=0: socratic - human, at most .03 (else a leak)", leak, leak <= 0.03),
            ("USER=people: people's own program - today, within .03", gap, abs(gap) <= 0.03),
            ("FOLLOW=0: copy rate, at most .05 (else the base taught it)", copied, copied <= 0.05)]:
        print(f"{'as it must be' if passed else 'NOT AS IT MUST BE':<18}{value:>+7.3f}  {text}")


def t_interval(values):
    """Return the mean of some numbers and its 95 % interval by Student's t; None for one number."""
    mean, n = float(np.mean(values)), len(values)
    if n - 1 not in T_975:
        return mean, None, None
    half = T_975[n - 1] * float(np.std(values, ddof=1)) / n ** 0.5
    return mean, mean - half, mean + half


def seeds(preset, count):
    """Run all arms with some seeds; print the paired differences, their mean and t interval."""
    runs = [results(preset, cell)["contrasts.json"] for cell in seed_cells(count)]
    print(f"\n{'stalls right, of both':<24}" + "".join(f"seed {seed:<4}" for seed in range(count))
          + "means:  people  script  houses  asides")
    for arm in [*ALL_ARMS.split(), "floor"]:
        arms = [run["arms"][arm] for run in runs]
        values = "".join(f"{each['headline']['right']:<9.3f}" for each in arms)
        means = [np.mean([each["stalls"]["right"] for each in arms]),
                 np.mean([each["script"] for each in arms]),
                 np.mean([each["houses"]["right"] for each in arms]),
                 np.mean([each["asides"]["right"] for each in arms])]
        print(f"{arm:<24}{values}      " + "".join(f"{mean:>8.3f}" for mean in means))
    print("\ndifference of socratic to")
    roles = {"primary": [PRIMARY], "further": FURTHER, "by construction": DESCRIBED}
    for role, pairs in roles.items():
        for a, b in pairs:
            values = [run["arms"][a]["headline"]["right"] - run["arms"][b]["headline"]["right"]
                      for run in runs]
            mean, low, high = t_interval(values)
            between = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
            print(f"{b:<24}" + "".join(f"{value:<+9.3f}" for value in values)
                  + f"mean {mean:+.3f}{between}  {role}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("experiment", choices=["controls", "seeds"])
    parser.add_argument("--preset", default="tiny", help="a row of sizes in the Makefile")
    parser.add_argument("--seeds", type=positive_int, default=3, help="how many")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if args.experiment == "controls":
        controls(args.preset)
    else:
        seeds(args.preset, args.seeds)


if __name__ == "__main__":
    run(main)
