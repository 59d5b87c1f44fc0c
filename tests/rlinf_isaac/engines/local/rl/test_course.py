from __future__ import annotations

import pytest

from rlinf_isaac.engines.local.rl.course import Checkpoint, Course, CourseLog, Iteration, parse


@pytest.fixture
def went_back():
    """Checkpoints at 2 and 4; the fifth iteration is a collapse, and the sixth begins from checkpoint 2."""
    return [
        Iteration(0, 0, held_out=(True, False), saved=True),
        Iteration(1, 0, 3, 8),
        Iteration(2, 1, 4, 8, saved=True),
        Iteration(3, 2, 5, 8),
        Iteration(4, 3, 2, 8, held_out=(False, False), saved=True),
        Iteration(5, 4, 0, 8, back_to=2, reason="it fell"),
        Iteration(6, 2, 6, 8),
    ]


def test_a_line_is_read_as_it_was_written(went_back):
    assert [parse(each.as_line()) for each in went_back] == went_back


def test_the_line_to_an_iteration_leaves_out_what_was_abandoned(went_back):
    course = Course(went_back)
    assert course.line(6) == [6, 2, 1, 0]
    assert course.line(5) == [5, 4, 3, 2, 1, 0]
    assert (course.depth(5), course.depth(6)) == (5, 3)
    assert course.abandoned(went_back[5]) == [3, 4, 5]
    assert course.rollbacks == [went_back[5]]


def test_the_next_iteration_begins_from_the_newest_weights_or_where_it_went_back_to(went_back):
    assert Course().weights == 0
    assert Course(went_back[:5]).weights == 4
    assert Course(went_back[:6]).weights == 2
    assert Course(went_back).weights == 6


def test_weights_have_the_episodes_of_all_iterations_that_began_from_them(went_back):
    known = Course(went_back).checkpoints()
    assert known == {
        0: Checkpoint(0, 3, 8, (True, False)),
        2: Checkpoint(2, 5 + 6, 16, ()),
        4: Checkpoint(4, 0, 8, (False, False)),
    }


def test_of_iterations_that_were_not_recorded_each_followed_the_one_before():
    assert Course([Iteration(5, 4)]).line(5) == [5, 4, 3, 2, 1, 0]


def test_a_collapse_is_not_played_again_and_what_follows_it_is(went_back, tmp_path):
    log = CourseLog(tmp_path / "course.jsonl")
    assert log.position() == 0
    for each in went_back:
        log.append(each)
    assert log.position() == 5
    assert log.rewind(5).iterations == went_back[:6]
    log.append(Iteration(6, 2, ended="collapsed"))
    assert log.position() == 6
    assert log.rewind(0).iterations == [], "a training that begins anew evaluates its start anew"


def test_a_training_that_ended_at_its_target_has_a_checkpoint_to_go_on_from(tmp_path):
    log = CourseLog(tmp_path / "course.jsonl")
    log.append(Iteration(3, 2, ended="target", saved=True))
    assert log.position() == 0
