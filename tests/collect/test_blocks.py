"""Sinks that ask for blocks: the same rows in the same order, and all of them whenever anybody may look."""

from __future__ import annotations

import numpy as np
import pytest
from collect_envs import FIELDS, EngineError, Recorder, endless, policy, q_function

from qmp_collect import QMPCollector


class Blocks(Recorder):
    block_size = 8

    def __init__(self):
        super().__init__()
        self.sizes = []

    def add(self, transitions):
        super().add(transitions)
        self.sizes.append(len(transitions))


def collector(buffer, **kwargs):
    policies, q_functions = [policy(k) for k in range(3)], [q_function(t) for t in range(2)]
    return QMPCollector(endless(3), policies, q_functions, task_ids=[0, 1, 0], buffer=buffer, seed=0, **kwargs)


def same(a, b):
    return all(np.array_equal(a.column(name), b.column(name)) for name in FIELDS)


def test_rows_are_those_of_any_other_sink_in_their_order():
    plain, blocks = Recorder(), Blocks()
    collector(plain).collect(n_step=24)
    made = collector(blocks)
    assert made.collect(n_step=15).n_collected_steps == 15
    assert blocks.sizes == [9, 6]  # what is left comes when collect returns
    made.collect(n_step=9)
    assert blocks.sizes == [9, 6, 9]
    assert same(blocks, plain)


def test_each_task_has_its_own():
    plain, blocks = [Recorder(), Recorder()], [Blocks(), Blocks()]
    collector(plain).collect(n_step=24)
    collector(blocks).collect(n_step=24)
    assert [sink.sizes for sink in blocks] == [[6, 6, 4], [3, 3, 2]]
    assert all(map(same, blocks, plain))


def test_nothing_waits_where_somebody_may_look():
    blocks = Blocks()
    own = collector(blocks)
    obs, _ = own.reset()
    own.observe(*own.envs.step(own.act(obs)))
    assert blocks.sizes == [3]
    seen = []
    collector(blocks := Blocks(), on_step=lambda rows: seen.append(len(blocks))).collect(n_step=9)
    assert seen == [3, 6, 9]


def test_one_sink_that_wants_rows_at_once_has_them_at_once():
    sinks = [Blocks(), Recorder()]
    collector(sinks).collect(n_step=9)
    assert sinks[0].sizes == [2, 2, 2]


def test_what_was_collected_before_an_error_is_there(monkeypatch):
    made = collector(blocks := Blocks())
    step, calls = made.envs.step, iter(range(2))

    def fails(actions):
        if next(calls, None) is None:
            raise EngineError
        return step(actions)

    monkeypatch.setattr(made.envs, "step", fails)
    with pytest.raises(EngineError):
        made.collect(n_step=30)
    assert blocks.sizes == [6]
    assert made.num_steps == 6
