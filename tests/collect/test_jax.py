"""JAX callables, given JAX arrays, choose what the same NumPy callables choose."""

from __future__ import annotations

import numpy as np
import pytest
from collect_envs import Recorder, make_envs

from qmp_collect import Proposal, QMPCollector

jax = pytest.importorskip("jax")

T = 3


def callables(xp, form):
    """Deterministic policies and critics in the array library ``xp``; actions in [0, 1]."""

    def policy(obs, k):
        mean = (xp.sin(obs[:, :2] * (k + 1)) + 1) / 2
        return Proposal(mean / 2, means=mean)

    def q(obs, actions, t):
        return xp.cos(obs.sum(-1) + 3 * t * actions[..., 0] - actions[..., 1] * 5)

    if form == "listed":
        return (
            [lambda obs, k=k: policy(obs, k) for k in range(T)],
            [lambda obs, actions, t=t: q(obs, actions, t) for t in range(T)],
        )
    stacked = [lambda obs, k=k: policy(obs, k) for k in range(T)]

    def policies(obs):
        proposals = [propose(obs) for propose in stacked]
        return Proposal(*(xp.stack([p[i] for p in proposals], 1) for i in range(2)))

    return policies, lambda obs, actions, ids: q(obs[:, None], actions, ids[:, None])


@pytest.mark.parametrize("form", ["listed", "batched"])
def test_jax_chooses_what_numpy_chooses(form):
    rows = {}
    for backend, xp in (("numpy", np), ("jax", jax.numpy)):
        given = []
        policies, q_functions = callables(xp, form)

        def spy(obs, inner=policies if form == "batched" else policies[0], given=given):
            given.append(type(obs))
            return inner(obs)

        policies = spy if form == "batched" else [spy, *policies[1:]]
        recorder = Recorder()
        envs = make_envs(*[{}] * T, mode="NextStep")
        QMPCollector(envs, policies, q_functions, num_tasks=T, buffer=recorder, backend=backend, seed=0).collect(
            n_step=60
        )
        assert all(issubclass(kind, np.ndarray if backend == "numpy" else jax.Array) for kind in given)
        rows[backend] = recorder
    for field in ("obs", "behavior_ids", "env_ids"):
        np.testing.assert_array_equal(rows["jax"].column(field), rows["numpy"].column(field))
    np.testing.assert_allclose(rows["jax"].column("actions"), rows["numpy"].column("actions"), atol=1e-6)
    assert len(set(rows["jax"].column("behavior_ids").tolist())) == T
