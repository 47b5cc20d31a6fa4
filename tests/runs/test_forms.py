"""A state of another form is refused before anything changes, and the place is named."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from qmp_collect.runs.forms import check_form, check_state


class Agent:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.1, fused=True)
        self.count, self.log_alpha = 0, torch.zeros(2)

    def learn(self) -> Agent:
        self.net(torch.ones(1, 3)).square().sum().backward()
        self.optimizer.step()
        return self

    def state_dict(self):
        parts = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, "count": self.count, "log_alpha": self.log_alpha}


def places(tree, path=()):
    """Of every leaf."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        yield path
        return
    for key, value in items:
        yield from places(value, (*path, key))


def put(tree, path, change):
    if not path:
        return change(tree)
    if isinstance(tree, tuple):
        return tuple(put(value, path[1:], change) if index == path[0] else value for index, value in enumerate(tree))
    tree[path[0]] = put(tree[path[0]], path[1:], change)
    return tree


def altered(leaf):
    """The leaf in other forms."""
    if isinstance(leaf, torch.Tensor):
        yield from (leaf.double(), leaf.reshape(-1)[:1].repeat(7), leaf.numpy(), None)
        yield leaf[None]
    elif isinstance(leaf, bool):
        yield from (int(leaf), "yes")
    else:
        yield from (str(leaf) + "x", [leaf])


@pytest.mark.parametrize("learned", [False, True])
def test_every_leaf_of_another_form_is_refused(learned):
    saved = Agent().learn().state_dict()
    agent = Agent().learn() if learned else Agent()
    check_state(agent, saved, "agent")
    before = copy.deepcopy(agent.state_dict())
    leaves, refused = 0, 0
    for path in places(saved):
        leaf = saved
        for key in path:
            leaf = leaf[key]
        for other in altered(leaf):
            if "lr" in path and isinstance(other, float):
                continue
            leaves += 1
            with pytest.raises(ValueError, match="agent"):
                check_state(agent, put(copy.deepcopy(saved), path, lambda _, other=other: other), "agent")
            refused += 1
    assert leaves == refused > 50
    check_form(agent.state_dict(), before)


@pytest.mark.parametrize("key", ["net", "optimizer", "count"])
def test_a_missing_part_is_refused(key):
    saved = Agent().learn().state_dict()
    del saved[key]
    with pytest.raises(ValueError, match="expected the entries"):
        check_state(Agent(), saved)
    with pytest.raises(ValueError, match="expected the entries"):
        check_state(Agent(), Agent().state_dict() | {"more": 1})


def test_moments_that_fused_adam_would_write_beyond_are_refused():
    saved = Agent().learn().state_dict()
    saved["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"agent\['optimizer'\]\['state'\]\[0\]\['exp_avg'\]: expected .*\(2, 3\), got"
    ):
        check_state(Agent(), saved, "agent")
    saved = Agent().learn().state_dict()
    del saved["optimizer"]["state"][1]
    with pytest.raises(ValueError, match="expected no entries or 2, got 1"):
        check_state(Agent(), saved, "agent")


def test_an_optimizer_may_have_no_moments_yet_and_another_learning_rate_but_no_other_options():
    check_state(Agent().learn(), Agent().state_dict())
    saved = Agent().learn().state_dict()
    saved["optimizer"]["param_groups"][0]["lr"] = 0.05
    check_state(Agent(), saved)
    saved["optimizer"]["param_groups"][0]["betas"] = (0.5, 0.999)
    with pytest.raises(ValueError, match=r"'betas'\]: expected \(0.9, 0.999\), got \(0.5, 0.999\)"):
        check_state(Agent(), saved)


def test_growing_entries_are_free_in_their_rows_only():
    class Steps:
        growing = ("steps",)

        def __init__(self, count, dtype=np.float16, width=2):
            self.state = {"steps": np.zeros((count, width), dtype), "kind": np.zeros(3)}

        def state_dict(self):
            return self.state

    check_state(Steps(0), Steps(9).state)
    for other in (Steps(9, np.float32), Steps(9, width=3)):
        with pytest.raises(ValueError, match=r"state\['steps'\]: expected an array of float16"):
            check_state(Steps(0), other.state)
    with pytest.raises(ValueError, match="kind"):
        check_state(Steps(0), Steps(9).state | {"kind": np.zeros(4)})


@pytest.mark.parametrize(
    ("got", "expected"),
    [(1, True), (1.0, 1), ((1,), [1]), ([1], [1, 2]), (np.float32(1), np.float64(1)), (np.zeros(2), torch.zeros(2))],
)
def test_forms_that_differ(got, expected):
    with pytest.raises(ValueError, match="state"):
        check_form(got, expected)


def test_a_part_that_knows_better_is_asked():
    class Part:
        def check_state(self, state):
            raise ValueError(f"no {state}")

    with pytest.raises(ValueError, match="no 3"):
        check_state(Part(), 3)
