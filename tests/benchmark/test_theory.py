"""The check of Theorem 5.1 checks what it says: exact values, the right policies, the cases that are known by hand."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("theory", ROOT / "benchmark" / "theory.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["theory"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


theory = load()
SMALL = theory.Kind(states=6, actions=3, tasks=3, gamma=0.8, alpha=0.3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def backup(policy, transitions, rewards, gamma, alpha, sweeps):
    """Soft values of one policy by plain loops."""
    states, actions = rewards.shape
    q = np.zeros((states, actions))
    for _ in range(sweeps):
        v = [
            sum(policy[s, a] * (q[s, a] - alpha * math.log(policy[s, a])) for a in range(actions))
            for s in range(states)
        ]
        q = np.array(
            [
                [
                    rewards[s, a] + gamma * sum(transitions[s, a, t] * v[t] for t in range(states))
                    for a in range(actions)
                ]
                for s in range(states)
            ]
        )
    return q


def test_exact_evaluation_is_the_limit_of_brute_force(rng):
    transitions, rewards = theory.random_mdps(SMALL, 2, rng)
    policies = rng.dirichlet(np.ones(3), rewards.shape[:-1])
    values = theory.evaluate(policies, transitions, rewards, 0.8, 0.3)
    for m, t in itertools.product(range(2), range(3)):
        q = backup(policies[m, t], transitions[m, 0], rewards[m, t], 0.8, 0.3, sweeps=130)
        assert values.q[m, t] == pytest.approx(q, abs=1e-10)
    assert values.v == pytest.approx(theory.soft_value(policies, values.q, 0.3), abs=1e-12)


def test_optimal_values_are_the_limit_of_soft_value_iteration(rng):
    transitions, rewards = theory.random_mdps(SMALL, 1, rng)
    best = theory.optimal(transitions, rewards, 0.8, 0.3)
    q = np.zeros_like(rewards[0, 0])
    for _ in range(130):
        q = rewards[0, 0] + 0.8 * transitions[0, 0] @ (0.3 * np.log(np.exp(q / 0.3).sum(-1)))
    assert best.q[0, 0] == pytest.approx(q, abs=1e-8)


def test_hand_solved_mdp():
    """Two states. In 0, "stay" earns 1, "leave" earns 0 and leads to 1, which is for ever and earns nothing.

    The policy tosses a coin in 0, so its entropy there is log 2, and is certain in 1. With gamma = 1/2, alpha = 1:
    V(1) = 0 and V(0) = (1 + V(0) / 2 + 0) / 2 + log 2, so V(0) = (2 + 4 log 2) / 3.
    """
    transitions = np.zeros((2, 2, 2))
    transitions[0, 0, 0] = transitions[0, 1, 1] = transitions[1, :, 1] = 1.0
    rewards = np.array([[1.0, 0.0], [0.0, 0.0]])
    policy = np.array([[0.5, 0.5], [1.0, 0.0]])
    q, v = theory.evaluate(policy, transitions, rewards, 0.5, 1.0)
    expected = (2 + 4 * math.log(2)) / 3
    assert v == pytest.approx([expected, 0.0])
    assert q == pytest.approx(np.array([[1 + expected / 2, 0.0], [0.0, 0.0]]))


def test_a_partial_step_divides_the_log_probabilities():
    policy = np.array([[0.2, 0.8]])
    q = np.array([[0.6, 0.0]])
    half = theory.partial_step(policy, q, 0.3, np.array([0.5]))  # odds sqrt(1/4) times sqrt(exp(2))
    assert half == pytest.approx(np.array([[math.e, 2.0]]) / (math.e + 2.0))
    assert theory.partial_step(policy, q, 0.3, np.array([0.0])) == pytest.approx(policy)
    full = theory.partial_step(policy, q, 0.3, np.array([1.0]))
    assert full == pytest.approx(np.exp(q / 0.3) / np.exp(q / 0.3).sum())


def test_q_switch_is_the_argmax_of_every_task_and_state(rng):
    policies, q = rng.dirichlet(np.ones(3), (2, 4, 5)), rng.standard_normal((2, 4, 5, 3))
    mixtures = theory.q_switch(policies, q, 0.7)
    for m, t, s in itertools.product(range(2), range(4), range(5)):
        scores = [sum(p * (x - 0.7 * math.log(p)) for p, x in zip(policies[m, k, s], q[m, t, s], strict=True))
                  for k in range(4)]  # fmt: skip
        assert mixtures[m, t, s] == pytest.approx(policies[m, scores.index(max(scores)), s])


def test_ties_go_to_the_own_policy():
    policies = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two tasks, one state
    assert np.array_equal(theory.q_switch(policies, np.zeros((2, 1, 2)), 0.5), policies)


def test_the_critic_at_hand_can_lose_to_sac():
    """Why the third statement needs an assumption, worked by hand. All policies are certain, so entropies are 0.

    In 0, "work" (action 0) earns 1 and stays, "visit" (1) earns 0 and leads to 1. In 1, action 0 earns 0, action 1
    earns 10, and both lead back. The old policy visits and earns nothing. SAC's step finds the 10. The other task's
    policy works, which under the old values (all 0) is the better action in 0; under the new ones it is not.
    """
    transitions = np.zeros((2, 2, 2))
    transitions[0, 0, 0] = transitions[0, 1, 1] = transitions[1, :, 0] = 1.0
    rewards = np.array([[1.0, 0.0], [0.0, 10.0]])
    work, visit, nothing, ten = [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]
    old, new, other = (np.array(policy) for policy in ([visit, nothing], [visit, ten], [work, nothing]))
    q_old, q_new = (theory.evaluate(policy, transitions, rewards, 0.9, 0.1).q for policy in (old, new))
    assert q_old == pytest.approx(np.array([[1.0, 0.0], [0.0, 10.0]]))
    assert q_new[0] == pytest.approx([1 + 0.9 * 9 / 0.19, 9 / 0.19])  # V(0) = 0.9 (10 + 0.9 V(0))

    candidates = np.stack([new, other])
    by_old, by_new = (theory.q_switch(candidates, np.stack([q, q]), 0.1)[0] for q in (q_old, q_new))
    assert np.array_equal(by_old, [work, ten])
    assert np.array_equal(by_new, new)
    value = theory.evaluate(by_old, transitions, rewards, 0.9, 0.1).v[0]
    assert value == pytest.approx(10.0)
    assert value < theory.evaluate(new, transitions, rewards, 0.9, 0.1).v[0] == pytest.approx(9 / 0.19)


@pytest.mark.parametrize(
    "change",
    [{}, {"gamma": 0.99, "alpha": 0.01}, {"gamma": 0.1}, {"tasks": 1}, {"states": 25, "branching": 1}, {"alpha": 2.0}],
)
def test_theorem(change):
    result = theory.check(replace(SMALL, **change), number=40, count=3, seed=5)
    new, old = result["switches"]["new"], result["switches"]["old"]
    assert result["sac_worse_than_old"] == 0
    assert sum(new["worse_pairs"]) == new["worse_than_old"] == 0
    assert old["worse_than_old"] == old["worse_pairs_with_condition"] == 0
    assert min(new["gap_closed"]) >= 0.0


def test_the_assumption_is_needed_and_switches_differ():
    result = theory.check(replace(SMALL, gamma=0.95), number=40, count=3, seed=5)
    old = result["switches"]["old"]
    assert sum(old["worse_pairs"]) > 0
    assert 0 < old["steps_with_condition"] < result["steps"]
    assert np.mean(result["switches"]["new"]["gap_closed"]) > np.mean(old["gap_closed"]) > 0


def test_no_state_coverage_no_loss():
    result = theory.check(replace(SMALL, actions_matter=False), number=40, count=3, seed=5)
    old = result["switches"]["old"]
    assert sum(old["worse_pairs"]) == 0
    assert old["gap_closed"] == pytest.approx(result["switches"]["new"]["gap_closed"])  # both switches choose alike


def test_an_exact_step_leaves_nothing_to_the_mixture(rng):
    transitions, rewards = theory.random_mdps(SMALL, 3, rng)
    policies = rng.dirichlet(np.ones(3), rewards.shape[:-1])
    q = theory.evaluate(policies, transitions, rewards, 0.8, 0.3).q
    exact = theory.partial_step(policies, q, 0.3, np.ones(policies.shape[:-1]))
    assert np.array_equal(theory.q_switch(exact, q, 0.3), exact)


def test_the_decomposition_of_the_docstring(rng):
    transitions, rewards = theory.random_mdps(SMALL, 3, rng)
    policies = rng.dirichlet(np.ones(3), rewards.shape[:-1])
    model, alpha, gamma = (transitions, rewards, 0.8, 0.3), 0.3, 0.8
    old = theory.evaluate(policies, *model)
    policies = theory.partial_step(policies, old.q, alpha, rng.random(policies.shape[:-1]))
    mixture = theory.q_switch(policies, old.q, alpha)

    def occupancy(policy):
        return np.linalg.inv(np.eye(6) - gamma * np.einsum("...sa,...sat->...st", policy, transitions))

    def score(policy):
        return theory.soft_value(policy, old.q, alpha)

    gain = (occupancy(mixture) @ (score(mixture) - score(policies))[..., None])[..., 0]
    coverage = ((occupancy(mixture) - occupancy(policies)) @ (score(policies) - old.v)[..., None])[..., 0]
    difference = theory.evaluate(mixture, *model).v - theory.evaluate(policies, *model).v
    assert (gain >= 0).all()
    assert difference == pytest.approx(gain + coverage, abs=1e-12)
    assert not np.allclose(coverage, 0)


def test_files(tmp_path, monkeypatch, capsys):
    sizes = (4, 5, 6)
    monkeypatch.setattr(theory, "SIZES", sizes)
    kinds = [theory.Kind(states=size, gamma=gamma) for size in sizes for gamma in theory.GAMMAS]
    kinds += [theory.Kind(similarity=similarity) for similarity in theory.SIMILARITIES]
    monkeypatch.setattr(theory, "KINDS", kinds)
    theory.main(theory.Args(mdps=2, rounds=1, out=tmp_path / "a" / "theory.json", figure=tmp_path / "b" / "theory.png"))
    report = json.loads((tmp_path / "a" / "theory.json").read_text())
    assert [result["kind"]["states"] for result in report["results"]] == [kind.states for kind in kinds]
    assert {"command", "commit", "versions"} < report["machine"].keys()
    assert (tmp_path / "b" / "theory.png").read_bytes()[:4] == b"\x89PNG"
    assert len(capsys.readouterr().out.splitlines()) == len(kinds) + 4
