"""Other libraries' objects given where ours are expected: right, or refused at once with what to write."""

from __future__ import annotations

import functools
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import CountingEnv, Recorder, make_envs

from qmp_collect import QMPCollector

WIDE, UNIT = gym.spaces.Box(-2.0, 2.0, (2,), np.float32), gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def zeros(obs):
    return np.zeros((len(obs), 2), np.float32)


def value(obs, actions):
    return actions[:, 0]


def collector(policies=(zeros, zeros), q_functions=(value, value), space=WIDE, **options):
    return QMPCollector(make_envs({"action_space": space}, {"action_space": space}), policies, q_functions, **options)


@pytest.fixture(scope="module")
def sb3():
    return pytest.importorskip("stable_baselines3")


def sb3_model(sb3, name="SAC", space=WIDE, **options):
    options = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, **options}
    if name != "PPO":
        options |= {"buffer_size": 50}
    return getattr(sb3, name)("MlpPolicy", CountingEnv(action_space=space), **options)


def foreign_module(monkeypatch, package, code):
    """Code that claims to be another library's."""
    module = types.ModuleType(f"{package}.module")
    module.__dict__["__name__"] = f"{package}.module"
    exec(code, module.__dict__)
    return module


@pytest.mark.parametrize(
    ("package", "adapter"),
    [
        ("stable_baselines3", r"SB3Sink\(model\)"),
        ("sbx", r"SB3Sink\(model\)"),
        ("cleanrl_utils", r"SB3Sink\(buffer, scale_actions=False\)"),
        ("torchrl", r"TorchRLSink\(buffer\)"),
        ("tianshou", r"TianshouSink\(buffer, policy\)"),
    ],
)
def test_a_librarys_buffer_is_refused_with_its_adapter(monkeypatch, package, adapter):
    module = foreign_module(monkeypatch, package, "class Buffer:\n    def add(self, data): pass")
    for buffer in ([Recorder(), module.Buffer()], (Recorder(), type("Own", (module.Buffer,), {})())):
        with pytest.raises(TypeError, match=rf"sink 1 of buffer is {package}'s .*: write .*{adapter}"):
            collector(buffer=buffer)

    class OwnAdd(module.Buffer):
        def add(self, transitions):
            pass

    collector(buffer=OwnAdd())


def test_real_buffers_are_refused(sb3):
    from stable_baselines3.common.buffers import ReplayBuffer

    with pytest.raises(TypeError, match="sink 0 of buffer is stable_baselines3's ReplayBuffer"):
        collector(buffer=[ReplayBuffer(4, WIDE, WIDE, device="cpu") for _ in range(2)])
    with pytest.raises(TypeError, match=r"sink 0 of buffer is stable_baselines3's SAC: write .*SB3Sink\(model\)"):
        collector(buffer=[sb3_model(sb3)] * 2)
    data = pytest.importorskip("torchrl.data")
    for buffer in (data.TensorDictReplayBuffer(storage=data.LazyTensorStorage(4)), data.ReplayBuffer()):
        with pytest.raises(TypeError, match=r"sink 0 of buffer is torchrl's .*TorchRLSink\(buffer\)"):
            collector(buffer=buffer)


class SixArguments:
    def add(self, obs, next_obs, action, reward, done, infos):
        pass


class KeywordsOnly:
    def add(self, **row):
        pass


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (set(), "a set, whose add stores whatever comes"),
        (SixArguments(), "SixArguments with add.*cannot be called as add"),
        (KeywordsOnly(), "KeywordsOnly with add.*cannot be called as add"),
        (Recorder, "Recorder with add.*cannot be called as add"),  # the class, not an instance
        ({}, "a dict without a method add"),
        ((Recorder() for _ in range(2)), "generator without a method add"),
    ],
)
def test_what_cannot_store_transitions_is_refused(buffer, message):
    with pytest.raises(TypeError, match=message + ".*FunctionSink"):
        collector(buffer=buffer)


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG"])
def test_networks_of_scaled_actions_are_refused_where_bounds_differ(sb3, name):
    import torch

    model = sb3_model(sb3, name)
    for fn in (
        model.policy,
        model.actor,
        functools.partial(model.actor),
        torch.compile(model.actor),
        model.policy._predict,
    ):
        with pytest.raises(TypeError, match=r"policies\[1\] is .*scaled to \[-1, 1\].*sb3_agents\(models\).*predict"):
            collector([zeros, fn])
    for fn in (model.critic, model.critic.q1_forward, functools.partial(model.critic.q1_forward)):
        with pytest.raises(TypeError, match=r"q_functions\[0\] is .*scaled to \[-1, 1\].*sb3_agents\(models\)"):
            collector(q_functions=[fn, value])
    with pytest.raises(TypeError, match=r"policies\[0\] is a Stable-Baselines3 `predict`.*predict\(obs\)\[0\]"):
        collector([model.predict, zeros], space=UNIT)
    with pytest.raises(TypeError, match=r"policies\[0\] is a whole model, a .*sb3_agents"):
        collector([model, model])


def test_networks_of_scaled_actions_work_where_bounds_agree(sb3):
    models = [sb3_model(sb3, space=UNIT) for _ in range(2)]
    collector([m.policy for m in models], [m.critic.q1_forward for m in models], space=UNIT).collect(n_step=8)
    collector([m.actor for m in models], [m.critic.q1_forward for m in models], space=UNIT).collect(n_step=8)


def test_functions_of_numpy_and_torch_stand_side_by_side(sb3):
    models = [sb3_model(sb3, seed=seed) for seed in range(2)]
    rows = Recorder()
    collector(
        [lambda obs, m=m: m.predict(obs)[0] for m in models],
        [lambda obs, actions, m=m: m.critic.q1_forward(obs, actions / 2) for m in models],
        buffer=rows,
    ).collect(n_step=40)
    assert 1 < max(np.abs(t.actions).max() for t in rows.parts) <= 2


def test_several_return_values_of_a_policy_are_named():
    with pytest.raises(TypeError, match=r"policies\[0\] must return an array .*got tuple: .*Proposal\(actions, means"):
        collector([lambda obs: (zeros(obs), None)] * 2).collect(n_step=2)


def test_tianshous_networks_are_refused(monkeypatch):
    tianshou = foreign_module(monkeypatch, "tianshou", "class Net:\n    def __call__(self, *args): pass")
    with pytest.raises(TypeError, match=r"policies\[0\] is Tianshou's Net, .*map_action"):
        collector([tianshou.Net(), zeros], space=UNIT)
    with pytest.raises(TypeError, match=r"q_functions\[1\] is Tianshou's Net.*action_scaling"):
        collector(q_functions=[value, tianshou.Net()])
    collector(q_functions=[value, tianshou.Net()], space=UNIT)


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG"])
def test_sb3_agents_propose_and_score_as_the_models_do(sb3, name):
    import torch

    from qmp_collect.adapters import sb3_agents

    space = gym.spaces.Box(np.array([0.0, -4.0], np.float32), np.array([2.0, 4.0], np.float32))
    model = sb3_model(sb3, name, space)
    (policy,), (q_function,), (sink,) = sb3_agents([model])
    obs = np.random.default_rng(0).normal(size=(5, *model.observation_space.shape)).astype(np.float32)
    expected = model.predict(obs, deterministic=True)[0]
    with torch.no_grad():
        proposal = policy(torch.as_tensor(obs))
        np.testing.assert_allclose(proposal.means.numpy(), expected, rtol=1e-5, atol=1e-5)
        scaled = torch.as_tensor((expected - [1, 0]) / [1, 4], dtype=torch.float32)
        given = q_function(torch.as_tensor(obs), torch.as_tensor(expected))
        np.testing.assert_allclose(given.numpy(), model.critic.q1_forward(torch.as_tensor(obs), scaled), atol=1e-5)
    assert bool((proposal.actions == proposal.means).all()) is (name != "SAC")
    assert sink.replay_buffer is model.replay_buffer


def test_sb3_agents_add_the_models_own_noise(sb3):
    import torch
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

    from qmp_collect.adapters import sb3_agents

    model = sb3_model(sb3, "TD3", action_noise=NormalActionNoise(np.array([0.5, 0.0]), np.zeros(2)))
    (policy,), _, _ = sb3_agents([model])
    with torch.no_grad():
        actions, means, _ = policy(torch.zeros(3, *model.observation_space.shape))
    np.testing.assert_allclose(actions[:, 0].numpy(), (means[:, 0] + 2 * 0.5).clamp(max=2).numpy(), rtol=1e-5)
    assert torch.equal(actions[:, 1], means[:, 1])
    model = sb3_model(sb3, "TD3", action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2)))
    with pytest.raises(ValueError, match="NormalActionNoise, got OrnsteinUhlenbeckActionNoise"):
        sb3_agents([model])


def test_sb3_dqn_explores_and_moves_its_target_network(sb3):
    import torch

    from qmp_collect.adapters import sb3_agents

    model = sb3_model(sb3, "DQN", gym.spaces.Discrete(3), target_update_interval=10)
    with pytest.raises(ValueError, match=r"models\[0\], a DQN, explores by chance.*pass epsilon=0\.1"):
        sb3_agents([model])
    chance = [0.0]
    (policy,), (q_function,), (sink,) = sb3_agents([model], epsilon=lambda: chance[0])
    obs = torch.randn(200, *model.observation_space.shape)
    with torch.no_grad():
        assert (
            policy(obs).tolist()
            == q_function(obs).argmax(1).tolist()
            == model.predict(obs.numpy(), deterministic=True)[0].tolist()
        )
        chance[0] = 1.0
        assert sorted(set(policy(obs).tolist())) == [0, 1, 2]
        next(model.q_net.parameters()).add_(1)
    QMPCollector(make_envs({"action_space": gym.spaces.Discrete(3)}), [policy], [q_function], buffer=[sink]).collect(
        n_step=10
    )
    same = zip(model.q_net.parameters(), model.q_net_target.parameters(), strict=True)
    assert model.num_timesteps == 10
    assert all(torch.equal(a, b) for a, b in same)


def test_sb3_agents_refuse_what_they_do_not_know(sb3):
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from qmp_collect.adapters import sb3_agents

    with pytest.raises(TypeError, match=r"models\[0\], a PPO, is no off-policy model"):
        sb3_agents([sb3_model(sb3, "PPO", n_steps=2, batch_size=2)])
    with pytest.raises(ValueError, match="epsilon is for DQN"):
        sb3_agents([sb3_model(sb3)], epsilon=0.1)
    envs = VecNormalize(DummyVecEnv([lambda: CountingEnv(action_space=WIDE)]))
    with pytest.raises(ValueError, match="by VecNormalize, which nothing here updates"):
        sb3_agents([sb3.SAC("MlpPolicy", envs, buffer_size=50, device="cpu")])


def test_nothing_is_imported_to_tell():
    assert "tianshou" not in sys.modules
