"""check_callables: what it lets pass, and what it finds wrong with a learner's callables."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import BOX, policy, q_function

from qmp_collect import Proposal, check_callables

OBS = gym.spaces.Box(-2.0, 2.0, (4,), np.float64)
DISCRETE = gym.spaces.Discrete(3, start=1)
T, K = 2, 3


def listed(space=BOX):
    return [policy(k, space) for k in range(K)], [q_function(t, space) for t in range(T)]


def batched(space=BOX):
    policies, qs = listed(space)

    def batched_policies(obs):
        return np.stack([p(obs) for p in policies], 1)

    def batched_qs(obs, *actions_and_tasks):
        *actions, task_ids = actions_and_tasks
        rows = [
            [qs[t](obs[i : i + 1], *(a[i, k][None] for a in actions))[0] for k in range(K if actions else 1)]
            for i, t in enumerate(task_ids)
        ]
        return np.array(rows) if actions else np.array(rows)[:, 0]

    return batched_policies, batched_qs


def check(policies, qs, space=BOX, **kwargs):
    return check_callables(policies, qs, OBS, space, num_tasks=T, **kwargs)


@pytest.mark.parametrize("space", [BOX, DISCRETE], ids=["box", "discrete"])
@pytest.mark.parametrize("form", [listed, batched])
def test_sound_callables_pass(form, space):
    assert check(*form(space), space) is None


@pytest.mark.parametrize("seed", range(3))
def test_policies_that_sample_pass(seed):
    rng = np.random.default_rng(0)
    policies, qs = listed()
    noisy = [lambda obs: Proposal(rng.random((len(obs), 2)), means=policies[0](obs)) for _ in range(K)]
    assert check(noisy, qs, seed=seed) is None


@pytest.mark.parametrize("seed", range(10))
def test_policies_that_sample_integers_pass(seed):
    """Mostly the same of two actions: a few rows often agree by chance, in two calls and in an order of their own."""
    rng = np.random.default_rng(seed)
    policies = [lambda obs: (rng.random(len(obs)) < 0.1).astype(np.int64)] * 2
    q_functions = [lambda obs: np.stack([obs[:, 0], obs[:, 1]], axis=1)] * 2
    space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    check_callables(policies, q_functions, space, gym.spaces.Discrete(2), num_tasks=2, seed=seed)


def test_torch_callables_pass_and_keep_their_parameters():
    torch = pytest.importorskip("torch")
    actors = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Sigmoid()) for _ in range(K)])
    critic = torch.nn.Linear(6, 1)
    before = [p.clone() for p in actors.parameters()]
    qs = [lambda obs, actions: critic(torch.cat([obs, actions], -1))] * T
    assert check(actors, qs, backend="torch") is None
    assert all((a == b).all() and b.grad is None for a, b in zip(before, actors.parameters(), strict=True))
    assert torch.is_grad_enabled()


def replaced(index, function, *, name="policies", space=BOX):
    """The sound listed callables with one replaced."""
    policies, qs = listed(space)
    target = policies if name == "policies" else qs
    target[index] = function
    return policies, qs, space


def leak(torch):
    net = torch.nn.Linear(6, 1)

    def q(obs, actions):
        with torch.enable_grad():
            return net(torch.cat([obs, actions], -1))[:, 0]

    return q


Q1 = q_function(1)
UNSOUND = {
    "shape of actions": (
        lambda: replaced(1, lambda obs: np.zeros((len(obs), 5))),
        ValueError,
        ["policies[1]", "(4, 5)", "(4, 2)"],
    ),
    "shape of Q": (
        lambda: replaced(1, lambda obs, a: np.zeros((len(obs), 2)), name="q_functions"),
        ValueError,
        ["q_functions[1]", "(6, 2)", "(6,)"],
    ),
    "number of Q-functions": (lambda: (listed()[0], listed()[1][:1], BOX), ValueError, ["1", "2 tasks"]),
    "action outside the space": (
        lambda: replaced(2, lambda obs: np.full((len(obs), 2), 1.5)),
        ValueError,
        ["policy 2", "1.5", "Box"],
    ),
    "discrete action outside the space": (
        lambda: replaced(2, lambda obs: np.zeros(len(obs), np.int64), space=DISCRETE),
        ValueError,
        ["policy 2", "0", "Discrete"],
    ),
    "fractional discrete action": (
        lambda: replaced(1, lambda obs: np.full(len(obs), 1.5), space=DISCRETE),
        TypeError,
        ["policies[1]", "float64", "integers"],
    ),
    "NaN action": (
        lambda: replaced(0, lambda obs: np.full((len(obs), 2), np.nan)),
        FloatingPointError,
        ["policy 0", "nan"],
    ),
    "NaN Q": (
        lambda: replaced(1, lambda obs, a: np.where(a[:, 0] >= 0, np.nan, 0.0), name="q_functions"),
        FloatingPointError,
        ["task 1", "nan"],
    ),
    "infinite Q for a foreign action": (
        lambda: replaced(1, lambda obs, a: np.where((a == policy(2)(obs)).all(-1), np.inf, 0.0), name="q_functions"),
        FloatingPointError,
        ["task 1", "policy 2", "inf"],
    ),
    "Q that looks at the rest of the batch": (
        lambda: replaced(1, lambda obs, a: Q1(obs, a) * np.arange(len(obs)), name="q_functions"),
        ValueError,
        ["q_functions", "row|batch"],
    ),
    "policy that looks at its place in the batch": (
        lambda: replaced(1, lambda obs: np.linspace(0, 1, len(obs))[:, None] * np.ones(2)),
        ValueError,
        ["polic", "row|batch"],
    ),
    "batched Q-functions that ignore task_ids": (
        lambda: (
            batched()[0],
            lambda obs, actions, task_ids: actions.sum(-1) * np.arange(len(obs))[:, None],
            BOX,
        ),
        ValueError,
        ["q_functions", "row|batch"],
    ),
    "batched policies transposed": (
        lambda: (lambda obs: batched()[0](obs).swapaxes(0, 1), batched()[1], BOX),
        ValueError,
        ["policies", "(3, 4, 2)", "(4, 3, 2)"],
    ),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_callables_are_named(name):
    build, kind, words = UNSOUND[name]
    with pytest.raises(kind) as error:
        check(*build())
    for word in words:
        assert any(part in str(error.value) for part in word.split("|")), f"{word!r} is missing in: {error.value}"


def test_a_gradient_leak_is_found():
    torch = pytest.importorskip("torch")
    actors = [lambda obs: torch.sigmoid(obs[:, :2])] * K
    critics = [lambda obs, actions: actions.sum(-1), leak(torch)]
    with pytest.raises(ValueError, match=r"grad"):
        check(actors, critics, backend="torch")
    assert check(actors, critics[:1] * 2, backend="torch") is None


@pytest.mark.parametrize(
    ("own_policy", "kind"),
    [
        (lambda obs, task_ids: np.zeros((len(obs), 2)), None),
        (lambda obs, task_ids: np.zeros((len(obs), 3)), ValueError),
        (lambda obs, task_ids: np.full((len(obs), 2), -3.0), ValueError),
        (lambda obs, task_ids: np.full((len(obs), 2), np.inf), FloatingPointError),
        (lambda obs, task_ids: np.linspace(0, 1, 2 * len(obs)).reshape(-1, 2), ValueError),
    ],
    ids=["sound", "shape", "outside", "infinite", "row-dependent"],
)
def test_own_policy_is_checked_too(own_policy, kind):
    if kind is None:
        assert check(*listed(), own_policy=own_policy) is None
    else:
        with pytest.raises(kind, match="own"):
            check(*listed(), own_policy=own_policy)
