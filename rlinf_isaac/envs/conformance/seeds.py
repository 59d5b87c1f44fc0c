"""An episode is a function of its seed and its actions. Paired comparisons, resuming and replayed videos rest on it."""

from __future__ import annotations

from rlinf_isaac.envs.conformance.bench import ROWS, SEED, Bench, Look, Played, differing, first_difference, play
from rlinf_isaac.ground.errors import Problem

STEPS = 8


def same_start(bench: Bench) -> Look:
    """A seed gives the same start whenever it is used.

    Otherwise two checkpoints meet different starts under the same seeds: what is compared is luck, too.
    """
    seeds = [SEED, SEED + 1]
    if not bench.env.identity.seeded:
        cause = "an environment of RLinf takes no seed for an episode: checkpoints meet different episodes, unpaired"
        cure = "play more episodes; or, for pairs, name the simulator itself, whose reset takes a seed (env.kind)"
        return Look(cause, (Problem("env-unseeded", cause, cure, "warning"),))
    one, other = (play(bench.env, seeds, bench.actions(0)) for _ in range(2))
    for i, seed in enumerate(seeds):
        if paths := differing(one.rows[i][0], other.rows[i][0]):
            cause = f"reset(seed={seed}) gives another start when it is called again: {', '.join(paths[:4])}"
            cure = "draw everything in reset from the generator that the seed begins (gymnasium: self.np_random)"
            return Look(cause, (Problem("env-unseeded", cause, cure),))
    return Look("two seeds, twice each")


def other_starts(bench: Bench) -> Look:
    """Different seeds give different starts.

    Otherwise an evaluation of a hundred seeds plays one episode a hundred times, and its interval is wrong.
    """
    starts = []
    for seed in range(SEED, SEED + 6, ROWS):
        starts += [rows[0] for rows in play(bench.env, [seed, seed + 1], bench.actions(0)).rows]
    if all(not differing(starts[0], each) for each in starts):
        cause = f"{len(starts)} seeds give the same start"
        cure = "let reset draw from its seed; if every start is meant to be the same, evaluate one episode"
        return Look(cause, (Problem("env-same-start", cause, cure, "warning"),))
    return Look(f"{len(starts)} seeds")


def same_episode(bench: Bench) -> Look:
    """The same seed and actions give the same episode, after other episodes, and at another time.

    Otherwise no difference between two checkpoints can be told from noise of the simulator.
    """
    first = _episode(bench)
    play(bench.env, [SEED + 10, SEED + 11], bench.actions(STEPS, seed=5))
    again = _episode(bench)
    if difference := first_difference(first, 0, again, 0):
        cause = f"the same seed and actions do not give the same episode again: {difference}"
        cure = "take out what depends on time, threads, a global generator, or the episode before"
        return Look(cause, (Problem("env-not-deterministic", cause, cure),))
    return Look(f"an episode of {STEPS} steps, again after another one")


def own_rows(bench: Bench) -> Look:
    """An episode is the same in another row, and whatever the other row plays.

    Rows of one process may share what is global: a generator, a module's variable, the simulator itself.
    """
    first = _episode(bench)
    for slot, neighbour in ((0, 300), (1, 400)):
        other = _episode(bench, slot, neighbour)
        if difference := first_difference(first, 0, other, slot):
            where = "in another row" if slot else "while the other row plays something else"
            cause = f"an episode is not the same {where}: {difference}"
            cure = "keep all state in the object of the environment, none in the module and none in global generators"
            return Look(cause, (Problem("env-rows-leak", cause, cure),))
    return Look("another neighbour, another row")


def other_process(bench: Bench) -> Look:
    """An episode is the same in a new process, and as the first one there.

    Otherwise a resumed evaluation, or one on another machine, does not go on with the same episodes.
    """
    first = _episode(bench)
    with bench.another(rows=1) as env:
        alone = play(env, [SEED], bench.actions(STEPS)[:1])
    if difference := first_difference(first, 0, alone, 0):
        cause = f"the first episode of a new environment is not the one that an older environment plays: {difference}"
        cure = "let it warm up in its constructor, and let nothing depend on the process or on the number of rows"
        return Look(cause, (Problem("env-other-process", cause, cure),))
    return Look("first episode of a new environment with one row")


def _episode(bench: Bench, slot: int = 0, neighbour: int = 100) -> Played:
    """The same episode in this row, with the episode of another seed beside it."""
    seeds = [SEED + neighbour] * ROWS
    seeds[slot] = SEED
    actions = bench.actions(STEPS, seed=neighbour)
    actions[slot] = bench.actions(STEPS)[0]
    return play(bench.env, seeds, actions)
