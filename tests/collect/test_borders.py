"""Arrays of all kinds at the collector's borders: libraries, dtypes, devices' memory, and numbers that are none."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import Recorder, endless, make_envs
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from qmp_collect import OwnPolicy, Proposal, QMPCollector, QSwitch, check_callables, evaluate
from qmp_collect.backends import host, pack, to_numpy, unpack

CONVERTERS = [
    pytest.param(np.asarray, id="numpy"),
    pytest.param(lambda x: _import("torch").as_tensor(x), id="torch"),
    pytest.param(lambda x: _import("jax").numpy.asarray(x), id="jax"),
]


def _import(name: str) -> Any:
    return pytest.importorskip(name)


class Native(VectorEnv):
    """Two rows of two-step episodes whose every answer is made by ``convert``; SAME_STEP, if asked for, as in 0.29."""

    num_envs, single_action_space = 2, Box(-1.0, 1.0, (2,))
    single_observation_space = Box(-9.0, 9.0, (3,))
    observation_space, action_space = batch_space(single_observation_space, 2), batch_space(single_action_space, 2)

    def __init__(self, convert=np.asarray, mode=AutoresetMode.NEXT_STEP, old_names=False):
        self.convert, self.mode, self.old_names = convert, mode, old_names
        self.metadata = {"autoreset_mode": mode}
        self.t, self.over = 0, False

    def obs(self, t):
        return np.array([[0, t, 0.5], [1, t, 0.5]], np.float32)

    def reset(self, *, seed=None, options=None):
        self.t, self.over = 0, False
        return self.convert(self.obs(0)), {}

    def step(self, actions):
        if self.over:
            obs, infos = self.reset()
            return obs, *map(self.convert, (np.zeros(2), np.zeros(2, bool), np.zeros(2, bool))), infos
        self.t += 1
        done = np.full(2, self.t == 2)
        self.over = done[0] and self.mode is AutoresetMode.NEXT_STEP
        obs, infos = self.obs(self.t), {"success": self.convert(done), "_success": self.convert(np.ones(2, bool))}
        if done[0] and self.mode is AutoresetMode.SAME_STEP:
            name = "final_observation" if self.old_names else "final_obs"
            final = [{"success": self.convert(np.array([row == 1]))} for row in range(2)]
            infos = {
                name: self.convert(obs),
                "final_info": final if self.old_names else {"success": self.convert(np.array([[False], [True]]))},
            }
            self.t, obs = 0, self.obs(0)
        rewards = self.convert(np.array([1, 2], np.int32))
        return self.convert(obs), rewards, self.convert(done), self.convert(np.zeros(2, bool)), infos


def fixed(value, dtype=np.float32):
    return lambda obs: np.full((len(obs), 2), value, dtype)


def total(obs, actions):
    return actions.sum(-1)


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize(
    ("mode", "old_names", "successes"),
    [
        (AutoresetMode.NEXT_STEP, False, [True, True]),
        (AutoresetMode.SAME_STEP, False, [False, True]),
        (AutoresetMode.SAME_STEP, True, [False, True]),
    ],
)
def test_environments_may_answer_in_any_arrays(convert, mode, old_names, successes):
    sink = Recorder()
    collector = QMPCollector(Native(convert, mode, old_names), [fixed(0.5)] * 2, [total] * 2, buffer=sink, seed=0)
    stats = collector.collect(n_step=8)
    assert stats.successes.tolist() == successes * 2
    assert stats.returns.tolist() == [2.0, 4.0] * 2
    rows = sink.of_env(1)
    assert rows["obs"][:, 1].tolist() == [0, 1, 0, 1]
    assert rows["next_obs"][:, 1].tolist() == [1, 2, 1, 2]
    assert rows["terminations"].tolist() == [False, True] * 2
    assert all(type(rows[name]) is np.ndarray for name in rows)


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
@pytest.mark.parametrize("final_info", [None, {}, {"other": np.ones(2)}, "absent"], ids=str)
def test_what_a_vector_wrapper_reports_is_of_the_step(final_info, mode):
    """An array without a mask, which the environment within knows nothing of: neither then nor in its last infos."""

    class Judge(gym.vector.VectorWrapper):
        def step(self, actions):
            obs, rewards, terminations, truncations, infos = self.env.step(actions)
            infos = {name: infos[name] for name in infos if name == "final_obs"}
            infos |= {"success": terminations & [False, True], "place": rewards * terminations}
            if final_info != "absent" and "final_obs" in infos:
                infos["final_info"] = final_info
            return obs, rewards, terminations, truncations, infos

    metrics = {"place": "last"}
    collector = QMPCollector(
        Judge(Native(mode=mode)), [fixed(0.5)] * 2, [total] * 2, episode_metrics=metrics, seed=0
    )  # fmt: skip
    stats = collector.collect(n_step=8)
    assert stats.successes.tolist() == [False, True] * 2
    assert stats.metrics["place"].tolist() == [1.0, 2.0] * 2


def test_what_a_reset_reports_is_not_of_the_step():
    class Reports(Native):  # of its rows, each in its mask; the last step reported nothing
        def step(self, actions):
            *outcome, infos = super().step(actions)
            if "final_info" in infos:
                return *outcome, infos | {"final_info": {}, "success": np.ones(2, bool), "_success": np.ones(2, bool)}
            return *outcome, {"success": np.zeros(2, bool), "_success": np.ones(2, bool)}

    envs = Reports(mode=AutoresetMode.SAME_STEP)
    assert collected_successes(envs) == [False] * 4


def collected_successes(envs):
    return QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, seed=0).collect(n_step=8).successes.tolist()


def test_last_observations_of_another_kind_than_those_of_a_reset():
    class Whole(Native):  # integers where an episode begins, and only there
        def obs(self, t):
            return super().obs(t)[:, :2].astype(np.int64) if t == 0 else super().obs(t)[:, :2] + 0.25

        single_observation_space = Box(-9.0, 9.0, (2,))
        observation_space = batch_space(single_observation_space, 2)

    sink = Recorder()
    envs = Whole(mode=AutoresetMode.SAME_STEP)
    QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, buffer=sink, seed=0).collect(n_step=8)
    assert sink.of_env(1)["next_obs"].tolist() == [[1.25, 1.25], [1.25, 2.25]] * 2
    assert sink.of_env(1)["obs"].tolist() == [[1.0, 0.0], [1.25, 1.25]] * 2


@pytest.mark.parametrize("wrapper", ["NumpyToTorch", "JaxToTorch", "JaxToNumpy"])
def test_gymnasiums_array_wrappers(wrapper):
    for name in ("torch", "jax", "array_api_compat"):
        _import(name)
    import jax.numpy as jnp

    envs = Native(jnp.asarray if "Jax" in wrapper else np.asarray)
    envs = getattr(gym.wrappers.vector, wrapper)(envs)
    assert (
        QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, seed=0).collect(n_step=8).returns.tolist() == [2.0, 4.0] * 2
    )


def test_tensors_that_require_gradients():
    torch = _import("torch")

    def convert(x):
        x = torch.as_tensor(x)
        return x.requires_grad_() if x.is_floating_point() else x

    stats = QMPCollector(Native(convert), [fixed(0.5)] * 2, [total] * 2, task_ids=torch.arange(2)).collect(n_step=8)
    assert stats.successes.tolist() == [True] * 4


class Listed(gym.vector.VectorWrapper):
    """Infos as a list of dicts."""

    def step(self, actions):
        *outcome, _infos = self.env.step(actions)
        return *outcome, [{}] * self.num_envs


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_infos_that_are_no_dict(mode):
    envs = Listed(make_envs({"lengths": (1,)}, {"lengths": (1,)}, mode=mode))
    with pytest.raises(TypeError, match=r"infos must be a dict of arrays.*list"):
        QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, seed=0).collect(n_step=4)


@pytest.mark.parametrize("said", ["NextStep", "Disabled"])
def test_a_last_observation_of_nan_is_told_as_that(said):
    class Broken(Native):
        def step(self, actions):
            obs, *outcome, infos = super().step(actions)
            if self.t == 2:
                obs[1, 2] = np.nan
                infos["final_obs"] = obs.copy()
            return obs, *outcome, infos

    collector = QMPCollector(Broken(), [fixed(0.5)] * 2, [total] * 2, autoreset_mode=said, seed=0)
    with pytest.raises(FloatingPointError, match=r"the environment returned the observation \[1.0, 2.0, nan\]"):
        collector.collect(n_step=8)


@pytest.mark.parametrize("said", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_an_environment_that_resets_in_the_same_step_and_says_otherwise(said):
    """Its resets would be stored as successors, and its episodes' first steps dropped."""
    envs = Native(mode=AutoresetMode.SAME_STEP)
    collector = QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, autoreset_mode=said, seed=0)
    with pytest.raises(ValueError, match="that is how SAME_STEP works, not"):
        collector.collect(n_step=8)
    assert collector.num_steps == 2


def test_a_final_observation_that_its_mask_does_not_vouch_for():
    class Masked(Native):
        def step(self, actions):
            *outcome, infos = super().step(actions)
            return *outcome, infos | {"_final_obs": np.array([True, False])}

    with pytest.raises(ValueError, match="sub-environment 1 ended its episode, but infos"):
        QMPCollector(Masked(mode=AutoresetMode.SAME_STEP), [fixed(0.5)] * 2, [total] * 2).collect(n_step=8)


# ---- rewards ----


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int64, np.float64),
        (np.bool_, np.float64),
        (np.float16, np.float64),
        (object, np.float64),
    ],
)
def test_rewards_are_floating_point_numbers(given, stored):
    collector = QMPCollector(endless(2), [fixed(0.5)] * 2, [total] * 2, seed=0)
    obs, _ = collector.reset()
    collector.act(obs)
    none = np.zeros(2, bool)
    rewards = collector.observe(obs, np.array([0, 1], given), none, none, {}).rewards
    assert (rewards.dtype, rewards.tolist()) == (stored, [0.0, 1.0])


# ---- integers ----


class Counting(gym.Env):
    """Three integers, in whatever space it is told."""

    def __init__(self, space, value=(1, 2, 3)):
        self.observation_space, self.action_space = space, Box(-1.0, 1.0, (2,))
        self.value = value

    def reset(self, *, seed=None, options=None):
        return np.array(self.value, self.observation_space.dtype).reshape(self.observation_space.shape), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
@pytest.mark.parametrize("form", ["module", "function"])
def test_elements_of_a_box_reach_policy_and_learner_as_the_same_numbers(dtype, form):
    torch = _import("torch")
    from qmp_collect import TaskReplayBuffer

    seen, layer = [], torch.nn.Linear(3, 2)

    class Policy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, obs):
            seen.append((obs.dtype, obs.tolist()))
            return torch.tanh(self.layer(obs))

    policy = Policy()
    space = Box(0, 10, (3,), dtype)
    buffer = TaskReplayBuffer(10, 1, space, Box(-1.0, 1.0, (2,)))
    given = [policy if form == "module" else lambda obs: policy(obs)]
    backend = None if form == "module" else "torch"
    collector = QMPCollector(
        SyncVectorEnv([lambda: Counting(space)]),
        given,
        None,
        num_tasks=1,
        switch=OwnPolicy(),
        buffer=buffer,
        backend=backend,
    )
    collector.collect(n_step=2)
    policy(buffer.sample_joint(1).obs)
    assert seen == [(torch.float32, [[1.0, 2.0, 3.0]])] * 3


@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float32"), ("jax", "float32"), ("torch", "torch.float32")])
def test_integers_of_a_box_are_numbers_in_every_backend(backend, dtype):
    _import(backend)
    seen = set()

    def policy(obs):
        seen.add(str(obs.dtype))
        return to_numpy(obs)[:, :2]

    q = lambda obs, actions: seen.add(str(obs.dtype)) or actions[:, 0]  # noqa: E731
    envs = SyncVectorEnv([lambda: Counting(Box(0, 10, (3,), np.uint8))] * 2)
    QMPCollector(envs, [policy] * 2, [q] * 2, backend=backend).collect(n_step=4)
    assert seen == {dtype}


def test_elements_of_discrete_spaces_stay_integers():
    torch = _import("torch")
    seen = set()

    def policy(obs):
        seen.add(obs.dtype)
        return torch.zeros(len(obs), 2)

    for space, value in ((Discrete(5), 3), (MultiDiscrete([5, 5, 5]), (1, 2, 3))):
        envs = SyncVectorEnv([lambda space=space, value=value: Counting(space, value)] * 2)
        QMPCollector(envs, [policy] * 2, None, switch=OwnPolicy(), backend="torch").collect(n_step=2)
    assert seen == {torch.int64}


def test_check_callables_gives_what_the_collector_gives():
    _import("torch")
    import torch

    net, q = torch.nn.Linear(3, 2), lambda obs, actions: actions.sum(-1)
    check_callables([net, net], [q, q], Box(0, 10, (3,), np.int64), Box(-100.0, 100.0, (2,)), num_tasks=2)


# ---- several kinds of callables in one list ----


def test_arrays_that_step_backwards_beside_tensors():
    torch = _import("torch")

    def backwards(obs):
        return obs[:, 1::-1]

    def batched(obs):
        return np.stack([backwards(obs), fixed(0.5)(obs)], 1)[:, ::-1]

    sink, net = Recorder(), torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.nn.init.zeros_(net[0].weight), torch.nn.init.constant_(net[0].bias, -1.0)
    for policies, q_functions, own in (
        (torch.nn.ModuleList([net, net]), [total] * 2, [-1.0, -1.0]),
        ([net, backwards], [total] * 2, [0.0, 1.0]),
        (batched, lambda obs, actions, task_ids: torch.as_tensor(actions).sum(-1), [0.0, 1.0]),
    ):
        collector = QMPCollector(Native(), policies, q_functions, task_ids=[0, 1], buffer=sink, seed=0)
        collector.collect(n_step=2)
        assert sink.of_env(1)["actions"][-1].tolist() == own


def test_every_callable_of_a_list_has_the_backend_that_it_needs():
    torch = _import("torch")
    seen = {}

    class Net(torch.nn.Module):
        def __init__(self, inputs, dtype, value):
            super().__init__()
            self.layer = torch.nn.Linear(inputs, 1, dtype=dtype)
            torch.nn.init.zeros_(self.layer.weight)
            torch.nn.init.constant_(self.layer.bias, value)

        def forward(self, *inputs):
            return self.layer(torch.cat(inputs, -1)).repeat(1, 2 if len(inputs) == 1 else 1)

    def scripted(obs):
        seen["scripted"] = type(obs)
        return np.full((len(obs), 2), 0.75).astype(np.float32)

    class Bare(torch.nn.Module):  # without parameters: goes where the other modules are
        def forward(self, obs):
            seen["bare"] = obs.dtype
            return torch.full((len(obs), 2), 0.125)

    def q(obs, actions):
        seen["q"] = type(obs)
        return (actions.sum(-1) - 10 * obs[:, 2]).astype(np.float64)

    policies = [Net(4, torch.float32, 0.25), Net(4, torch.float64, 0.5), scripted, Bare()]
    sink = Recorder()
    collector = QMPCollector(endless(2), policies, [q, Net(6, torch.float32, 0.0)], buffer=sink, seed=0)
    collector.collect(n_step=2)
    assert seen == {"scripted": np.ndarray, "bare": torch.float32, "q": np.ndarray}
    assert sink.column("behavior_ids").tolist() == [2, 1]  # task 1's critic values all alike
    assert sink.column("actions").tolist() == [[0.75, 0.75], [0.5, 0.5]]
    own = evaluate(make_envs({"lengths": (1,)}, {"lengths": (1,)}), [scripted, policies[0]])
    assert own.returns.tolist() == [0 + 1.5, 16 + 0.5]


# ---- arrays that are used again, or used up ----


@pytest.mark.parametrize("reuse", [False, True])
def test_expected_q_averages_entropies_over_its_own_samples(reuse):
    """The entropy that a policy states differs from call to call; a policy may answer in the same arrays each time."""
    from qmp_collect.callables import Callables

    actions, entropies, calls = np.zeros((2, 2, 1), np.float32), np.zeros((2, 2), np.float32), []

    def policy(obs):
        calls.append(None)
        actions[:], entropies[:] = len(calls), [[10 * len(calls), 0]] * 2
        return Proposal(actions, None, entropies) if reuse else Proposal(actions.copy(), None, entropies.copy())

    q = lambda obs, actions, ids: actions[..., 0]  # noqa: E731
    asked = Callables(policy, q, None, action_space=Box(-9, 9, (1,)), task_ids=np.arange(2), num_tasks=2)
    executed, scores, _ = asked.candidates(np.zeros((2, 3)), QSwitch(samples=3, entropy_weight=2.0))
    assert executed[0, 0, 0] == 1.0  # the fresh sample; calls 2, 3 and 4 are scored
    assert scores.tolist() == [[3.0 + 2.0 * 30.0, 3.0]] * 2


def test_an_entropy_weight_of_another_shape():
    def policies(obs):
        return Proposal(np.zeros((2, 2, 2)), None, np.zeros((2, 2)))

    q = lambda obs, actions, ids: actions.sum(-1)  # noqa: E731
    for weight in (np.ones((2, 1)), np.ones(3)):
        collector = QMPCollector(endless(2), policies, q, num_tasks=2, switch=QSwitch(entropy_weight=weight))
        with pytest.raises(ValueError, match=r"entropy_weight.*\(2,\).*got shape"):
            collector.collect(n_step=2)


@pytest.mark.filterwarnings("ignore:Some donated buffers")
@pytest.mark.parametrize("form", ["listed", "batched"])
def test_jitted_callables_may_donate_what_they_are_given(form):
    jax = _import("jax")
    jnp = jax.numpy
    action = jax.jit(lambda obs: (jnp.abs(obs[:, :2]) % 1, obs * 2), donate_argnums=0)
    value = jax.jit(
        lambda obs, actions, ids: (actions.sum(-1) * (1 + 0 * ids[:, None]), obs * 2, actions * 2, ids * 2),
        donate_argnums=(0, 1, 2),
    )
    rows = {}
    for donating in (False, True):
        policies: Any = [lambda obs: action(obs)[0]] * 2
        qs: Any = [lambda obs, actions: value(obs, actions[:, None], jnp.zeros(len(obs), int))[0][:, 0]] * 2
        if form == "batched":
            policies, qs = (lambda obs: jnp.stack([action(obs)[0]] * 2, 1)), lambda *given: value(*given)[0]
        if not donating:
            policies = [lambda obs: jnp.abs(obs[:, :2]) % 1] * 2
            qs = [lambda obs, actions: actions.sum(-1)] * 2
        sink = Recorder()
        envs = make_envs({}, {}, mode="NextStep")
        QMPCollector(envs, policies, qs, num_tasks=2, backend="jax", buffer=sink, seed=0).collect(n_step=12)
        rows[donating] = sink.column("actions")
    np.testing.assert_array_equal(rows[True], rows[False])


# ---- numbers that are none ----


class Spoiling(gym.Env):
    """NaN at step ``at``: in the reward, the observation, the reset that follows, or an infinite reward."""

    observation_space, action_space = Box(-9.0, 9.0, (2,)), Box(-1.0, 1.0, (2,))

    def __init__(self, what=None, at=3):
        self.what, self.at, self.n = what, at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        spoilt = self.what == "reset" and self.n == self.at
        self.n += spoilt  # once only
        return np.full(2, np.nan if spoilt else 0.0, np.float32), {}

    def step(self, action):
        self.n += 1
        hit = self.n == self.at
        obs = np.full(2, np.nan if hit and self.what == "obs" else 0.5, np.float32)
        reward = {"reward": np.nan, "infinite": np.inf}.get(self.what if hit else "", 1.0)
        return obs, reward, False, self.n % 3 == 0, {}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize(
    ("what", "said"), [("reward", "reward nan"), ("infinite", "reward inf"), ("obs", "observation"), ("reset", "reset")]
)
def test_what_an_environment_spoils_is_named_as_its_own_and_not_stored(what, said, mode):
    envs = SyncVectorEnv([Spoiling, lambda: Spoiling(what)], autoreset_mode=AutoresetMode(mode))
    sink = Recorder()
    collector = QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, buffer=sink, seed=0)
    with pytest.raises(FloatingPointError, match=rf"environment returned the .*{said}.* sub-environment 1 \(task 1\)"):
        collector.collect(n_step=40)
    stored = 6 if what == "reset" and mode != "SameStep" else 4
    assert collector.num_steps == len(sink) == stored
    for name in ("obs", "next_obs", "rewards"):
        assert np.isfinite(sink.column(name)).all()
    collector.collect(n_step=4)  # from fresh episodes
    assert collector.num_steps == stored + 4


def test_a_row_beyond_its_quota_is_not_judged():
    envs = SyncVectorEnv([lambda: Spoiling("obs", at=5), lambda: Spoiling(None)], autoreset_mode="SameStep")
    steps = iter(range(99))
    envs.envs[1].step = lambda action: (np.zeros(2, np.float32), 1.0, next(steps) == 8, False, {})
    assert evaluate(envs, [fixed(0.5)] * 2).lens.tolist() == [3, 9]


def test_in_a_row_beyond_its_quota_the_switch_chooses_as_ever():
    """Row 0's quota is its first step. By its scores, whatever others' are; an own one that is broken can be chosen."""
    seen = []

    def switch(scores, own, rng):
        seen.append(scores.tolist())
        return own

    def q_0(obs, actions):
        return np.where((obs[:, 1] == 2) & (actions[:, 0] == 0.25), np.nan, -total(obs, actions))

    def q_1(obs, actions):
        return np.where(actions[:, 0] == 0.25, np.nan, -total(obs, actions))

    envs = make_envs({"lengths": (1,)}, {"lengths": (3,)})
    QMPCollector(envs, [fixed(0.25), fixed(0.5)], [q_0, q_1], switch=switch, seed=0).collect(n_episode=1)
    assert seen == [[[-0.5, -1.0], [-np.inf, -1.0]]] * 2 + [[[0.0, -1.0], [-np.inf, -1.0]]]


def test_infinite_observations_pass():
    envs = endless(2)
    collector = QMPCollector(envs, [fixed(0.5)] * 2, [total] * 2, seed=0)
    obs, _ = collector.reset()
    collector.act(obs)
    none = np.zeros(2, bool)
    assert np.isinf(collector.observe(np.full_like(obs, np.inf), np.zeros(2), none, none, {}).next_obs).all()


def test_a_callers_own_broken_observation_is_not_blamed_on_the_policy():
    torch = _import("torch")
    for switch in (QSwitch(), OwnPolicy()):
        policies = [torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)]
        q = lambda obs, actions: actions.sum(-1)  # noqa: E731
        collector = QMPCollector(endless(2), policies, [q, q], switch=switch, seed=0)
        obs, _ = collector.reset()
        obs[1] = np.nan
        with pytest.raises(FloatingPointError, match=r"sub-environment 1.*observation that it was given is not finite"):
            collector.act(obs)


def test_half_precision_actions_are_judged_like_others():
    jax = _import("jax")
    for bad in (0.5, np.nan):
        policy = lambda obs, bad=bad: jax.numpy.full((len(obs), 2), bad, jax.numpy.bfloat16)  # noqa: E731
        sink = Recorder()
        collector = QMPCollector(
            endless(2), [policy] * 2, None, switch=OwnPolicy(), backend="jax", buffer=sink, num_tasks=2
        )
        if np.isnan(bad):
            with pytest.raises(FloatingPointError, match="policy 0 proposed"):
                collector.collect(n_step=2)
        else:
            collector.collect(n_step=2)
            assert sink.column("actions").tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("obs", 1e300, r"obs\[1\] is inf as float32"),
        ("rewards", np.nan, r"rewards\[1\] is nan"),
        ("next_obs", 2**24 + 1, r"next_obs has the integer 16777217"),
    ],
)
def test_a_float32_buffer_refuses_what_it_cannot_hold(field, value, said):
    _import("torch")
    from dataclasses import replace

    from qmp_collect import TaskReplayBuffer, Transitions

    buffer = TaskReplayBuffer(5, 1, Box(-np.inf, np.inf, (3,), np.float64), Box(-1.0, 1.0, (2,)))
    none, ids = np.zeros(2, bool), np.zeros(2, np.int64)
    good = Transitions(
        np.zeros((2, 3)), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 3)), none, none, ids, ids, np.arange(2)
    )
    bad = np.zeros(getattr(good, field).shape, np.int64 if isinstance(value, int) else np.float64)
    bad[1] = value
    with pytest.raises(ValueError, match=said):
        buffer.add(replace(good, **{field: bad}))
    assert len(buffer) == 0
    buffer.add(good)
    assert len(buffer) == 2


# ---- transfers ----


def test_packed_bytes_are_the_numbers_that_were_packed():
    torch = _import("torch")
    tensors = [
        torch.tensor([[1.5, -2.5]]),
        torch.tensor([2**60 + 1]),
        torch.tensor([True, False, True]),
        torch.tensor(3.25, dtype=torch.float64),
        torch.tensor([0.5, -1.0], dtype=torch.bfloat16),
        torch.zeros(0, 3),
        torch.arange(6, dtype=torch.int16).reshape(2, 3).T,
    ]
    for got, expected in zip(unpack(*pack(tensors)), host(*tensors), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(got, expected)


def test_a_policy_that_returns_what_cleanrls_actors_return():
    policy = lambda obs: (np.zeros((len(obs), 2)), np.zeros(len(obs)), np.zeros((len(obs), 2)))  # noqa: E731
    with pytest.raises(TypeError, match=r"policies\[0\] must return an array.*got tuple: .*Proposal\(actions, means"):
        QMPCollector(endless(2), [policy] * 2, [total] * 2).collect(n_step=2)


def test_the_number_of_tasks_is_an_integer():
    for num_tasks in (2.0, "2"):
        with pytest.raises(TypeError, match="integer"):
            QMPCollector(endless(2), [fixed(0.5)] * 2, [total] * 2, num_tasks=num_tasks)


def test_statistics_have_a_column_for_every_policy_that_is_known():
    def three(obs):
        return np.zeros((2, 3, 2), np.float32)

    q = lambda obs, actions, ids: actions.sum(-1)  # noqa: E731
    collector = QMPCollector(endless(2), three, q, num_tasks=2, seed=0)
    collector.collect(n_step=2)
    assert collector.collect(n_step=2, stop=True).behavior_counts.shape == (2, 3)
    collector.stats(clear=True)
    assert collector.stats().behavior_counts.shape == (2, 3)
