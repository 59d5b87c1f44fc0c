"""Kills verbs (SIGKILL) at random lines and moments, repeats the same command until it ends, and compares the end.

    python tests/faults/killer.py --root /tmp/kills sft=20 convert=20 promote=10

The end of an undisturbed run is what every other one has to be: the same bytes in the same files, the same content of
MLflow, and nothing left over (`faults.end_state`). Each verb is attacked with a store that exists before and, where it
does not read one, without. Prints a line per trial, and the figures by verb.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from faults.end_state import EndState, end_state, faults_of_the_store, leavings
from faults.verbs import End, verbs
from faults.workshop import CASES, Case, Workshop


@dataclass
class Figures:
    """What became of the trials of one verb.

    Attributes:
        trials, kills: how many.
        with_store: trials in which the store was there before.
        synced: trials after which `sync` had to end dead runs, because the verb's last seconds did not suffice.
        faults: what was not as it should be.
    """

    trials: int = 0
    kills: int = 0
    with_store: int = 0
    synced: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed: its end, how long it took, and how many lines it executed."""

    state: EndState
    seconds: float
    lines: int


def undisturbed(shop: Workshop, case: Case) -> Undisturbed:
    """Run a verb once from its inputs to its end."""
    shop.prepare(case, store=True)
    end = shop.run(case.arguments, trace=True)
    assert end.status == 0, shop.log
    assert not (faults := [*faults_of_the_store(shop.work), *leavings(shop.work, shop.temporary, [end.session])]), (
        faults
    )
    return Undisturbed(end_state(shop.work), end.seconds, end.lines)


def trial(
    shop: Workshop, case: Case, whole: Undisturbed, chooser: random.Random, *, kills: int, store: bool, figures: Figures
) -> None:
    """Kill a verb so often, let it end, and compare."""
    shop.prepare(case, store=store)
    ends: list[End] = []
    moments = []
    for _ in range(kills):
        if chooser.random() < 0.5:
            when = {"kill_line": chooser.randint(1, whole.lines)}
        else:
            when = {"kill_s": round(chooser.uniform(0.01, whole.seconds), 3)}
        ends.append(shop.run(case.arguments, **when))
        moments.append(str(when) if ends[-1].status == -signal.SIGKILL else f"{when}: too late")
        if ends[-1].status != -signal.SIGKILL:
            break
    if not ends or ends[-1].status == -signal.SIGKILL:
        ends.append(shop.run(case.arguments))
    faults = [f"exit code {ends[-1].status}"] if ends[-1].status else []
    faults += leavings(shop.work, shop.temporary, [end.session for end in ends])
    if any("RUNNING" in fault for fault in faults_of_the_store(shop.work)):
        figures.synced += 1
        shop.run(["sync", "--output", case.output])
    faults += faults_of_the_store(shop.work)
    faults += differences(end_state(shop.work), whole.state)
    figures.trials += 1
    figures.kills += sum(end.status == -signal.SIGKILL for end in ends)
    figures.with_store += store
    figures.faults += [f"{case.verb}, store {store}, {moments}: {fault}" for fault in faults]


def differences(found: EndState, expected: EndState) -> list[str]:
    """Where an end is not that of the undisturbed run."""
    said = []
    for path in found.files.keys() | expected.files.keys():
        if found.files.get(path) != expected.files.get(path):
            said.append(f"file {path} differs")
    for name in found.run.keys() | expected.run.keys():
        one, other = found.run.get(name), expected.run.get(name)
        if one is None or other is None:
            said.append(f"run {name} is {'missing' if one is None else 'too much'}")
            continue
        said += [f"run {name}: {key} is {one[key]}, not {other[key]}" for key in one if one[key] != other[key]]
    if found.models != expected.models:
        said.append(f"LoggedModels are {found.models}, not {expected.models}")
    if found.champion != expected.champion:
        said.append(f"champion is {found.champion}, not {expected.champion}")
    return said


def attack(
    shop: Workshop, case: Case, kills: int, chooser: random.Random, say: Callable[[str], None] = print
) -> Figures:
    """Kill one verb `kills` times, up to three times in each trial."""
    whole, figures = undisturbed(shop, case), Figures()
    while figures.kills < kills:
        store = case.needs_store or figures.trials % 3 != 2
        several = min(chooser.randint(1, 3), kills - figures.kills)
        began, before = time.monotonic(), len(figures.faults)
        trial(shop, case, whole, chooser, kills=several, store=store, figures=figures)
        say(
            f"{case.verb} {figures.kills}/{kills} {time.monotonic() - began:.0f} s {figures.faults[before:] or 'equal'}"
        )
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", metavar="VERB=KILLS", nargs="+", help=f"of {', '.join(CASES)}")
    parser.add_argument("--root", type=Path, required=True, help="directory to work in; short, and empty or new")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    found: dict[str, Figures] = {}
    with verbs() as start:
        shop = Workshop(chosen.root.absolute(), start)
        for text in chosen.attacks:
            verb, _, kills = text.partition("=")
            chooser = random.Random(f"{chosen.seed} {verb}")
            try:
                found[verb] = attack(shop, CASES[verb], int(kills), chooser, lambda line: print(line, flush=True))
            except AssertionError as error:
                found[verb] = Figures(faults=[f"{verb}: {error}"])
    print("| verb | kills | trials | with / without a store | `sync` was needed | faults |\n|---|---|---|---|---|---|")
    for verb, each in found.items():
        stores = f"{each.with_store} / {each.trials - each.with_store}"
        print(f"| {verb} | {each.kills} | {each.trials} | {stores} | {each.synced} | {len(each.faults)} |")
    faults = [fault for each in found.values() for fault in each.faults]
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
