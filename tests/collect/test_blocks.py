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


def once(sink, *at):
    """``sink``, which raises at these calls."""
    add, calls = sink.add, iter(range(100))

    def raises(transitions):
        if next(calls) in at:
            raise OSError("the disk is full")
        add(transitions)

    sink.add = raises
    return sink


@pytest.mark.parametrize("at", [(0,), (1, 2), (2,)])  # the last block of the first call comes when it returns
@pytest.mark.parametrize("of_tasks", [False, True])
def test_what_a_sink_refused_comes_again_first_and_no_step_is_lost(at, of_tasks):
    plain = [Recorder(), Recorder()] if of_tasks else Recorder()
    collector(plain).collect(n_step=60)
    blocks = [Blocks(), once(Blocks(), *at)] if of_tasks else once(Blocks(), *at)
    made = collector(blocks)
    for n_step in (24, 15, 15):
        try:
            made.collect(n_step=n_step)
        except OSError:
            with pytest.raises(RuntimeError, match="transitions are counted, but not stored"):
                made.state_dict()
    made.collect(n_step=60 - made.num_steps)
    assert made.state_dict()["num_steps"] == made.stats().n_collected_steps == 60
    pairs = zip(blocks, plain, strict=True) if of_tasks else [(blocks, plain)]
    assert all(same(*pair) for pair in pairs)


def test_in_a_loop_of_ones_own_it_comes_first_too():
    made = collector(blocks := once(Blocks(), 0))
    with pytest.raises(OSError, match="disk"):
        made.collect(n_step=9)
    made.observe(*made.envs.step(made.act(made._next_obs)))
    assert blocks.sizes == [9, 3]


def test_a_loaded_state_knows_nothing_of_it():
    saved = collector(Blocks()).state_dict()
    made = collector(blocks := once(Blocks(), 0))
    with pytest.raises(OSError, match="disk"):
        made.collect(n_step=9)
    made.load_state_dict(saved)
    made.collect(n_step=9)
    assert (blocks.sizes, made.num_steps) == ([9], 9)


@pytest.mark.parametrize("size", [None, 2.5])
def test_a_block_size_that_is_none(size):
    sinks = [Blocks(), Blocks()]
    sinks[1].block_size = size
    with pytest.raises(TypeError, match=f"block_size of sink 1 of buffer must be an integer, got {size}"):
        collector(sinks)


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
