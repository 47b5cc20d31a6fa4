"""How far a run is and how long it takes, from what its parts have cost."""

from __future__ import annotations

import itertools

import pytest

from qmp_collect.runs.pace import Cost, Pace


def test_the_last_ones_weigh_most() -> None:
    cost = Cost()
    assert cost.each is None
    cost.add(10.0, amount=100)
    assert cost.each == pytest.approx(0.1)
    cost.add(30.0, amount=100)
    assert cost.each == pytest.approx((0.8 * 10 + 30) / 180)


def test_of_what_has_not_been_seen_nothing_is_claimed() -> None:
    pace = Pace(total=1000, eval_every=100)
    pace.add_evaluation(5.0)
    pace.add_round(40, collecting=0.4, learning=None)  # a warm-up: what gradient steps cost is not known
    assert pace.left(40, 49, due=1.0) is None
    assert pace.left(40, 50, due=1.0) == pytest.approx(950 * 0.01 + 10 * 5.0)  # or a method without gradient steps


def test_gradient_steps_and_evaluations_count() -> None:
    pace = Pace(total=1000, eval_every=100)
    pace.add_evaluation(5.0)
    pace.add_round(100, collecting=10.0, learning=30.0)
    assert pace.position(100, 200, due=0.5) == pytest.approx(200 - 0.5 * 0.75 * 100)
    assert pace.left(100, 200, due=0.5) == pytest.approx(800 * 0.4 + 0.5 * 100 * 0.3 + 9 * 5.0)
    assert pace.left(1050, 1050, due=1.0, evaluating=2.0) == pytest.approx(3.0)
    assert pace.position(1000, 1100, due=0.0) == 1000


def test_through_a_whole_run_the_bar_only_goes_forward_and_the_time_left_is_true() -> None:
    """Ten rounds of 20 env steps of .01 s and 40 gradient steps of .1 s, evaluations of 2 s; looked at after each."""
    pace = Pace(total=200, eval_every=40)
    clock, seen = 0.0, []  # (time, position, left)

    def look(first: int, now: int, due: float) -> None:
        seen.append((clock, pace.position(first, now, due), pace.left(first, now, due)))

    for first in range(0, 200, 20):
        if first % 40 == 0:
            clock += 2.0
            pace.add_evaluation(2.0)
        for step in range(1, 21):
            clock += 0.01
            look(first, first + step, 1.0)
        for made in range(1, 41):
            clock += 0.1
            look(first, first + 20, 1 - made / 40)
        pace.add_round(20, collecting=0.2, learning=4.0)
    clock += 2.0  # the last evaluation
    positions = [position for _, position, _ in seen]
    assert all(after > before for before, after in itertools.pairwise(positions))
    assert positions[-1] == 200
    assert {left for _, _, left in seen[:60]} == {None}
    assert all(left == pytest.approx(clock - time) for time, _, left in seen[60:])
