"""The scripts' updates against plain loops over ordinary networks, and the tables of hyperparameters."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from script_files import load_script
from torch import Tensor

import qmp_collect
from qmp_collect import Batch

T, O, A, B, H = 3, 5, 2, 16, 24  # noqa: E741
LR, GAMMA, TAU = 1e-2, 0.99, 0.005
separate = load_script("sac_qmp_separate")
multihead = load_script("sac_qmp_multihead")
both = pytest.mark.parametrize("script", [separate, multihead], ids=["separate", "multihead"])


def make_agent(script: ModuleType, **settings: Any) -> Any:
    torch.manual_seed(0)
    return script.Agent(script.Args(hidden_dim=H, learning_rate=LR, **settings), T, O, A, "cpu")


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.data, layer.bias.data = weight.detach().T.clone(), bias.detach().flatten().clone()
    return layer


class PlainSAC(nn.Module):
    """An ordinary SAC with a head per task (one task: an ordinary SAC), copied from row ``row`` of stacked layers."""

    def __init__(self, agent: Any, row: int, twin_rows: tuple[int, int], tasks: int) -> None:
        super().__init__()

        def layers(net: Any, names: tuple[str, ...], index: int, split: bool) -> nn.ModuleList:
            found = nn.ModuleList()
            for name in names:
                weight, bias = getattr(net, name).weight[index], getattr(net, name).bias[index, 0]
                parts = tasks if split else 1
                heads = zip(weight.chunk(parts, 1), bias.chunk(parts), strict=True)
                found.append(nn.ModuleList(linear(*head) for head in heads))
            return found

        self.trunk = layers(agent.actor, ("fc1", "fc2"), row, False)
        self.mean, self.log_std = layers(agent.actor, ("fc_mean", "fc_logstd"), row, True)
        self.q, self.q_target = (
            nn.ModuleList(layers(net, ("fc1", "fc2"), r, False) + layers(net, ("fc_q",), r, True) for r in twin_rows)
            for net in (agent.qf, agent.qf_target)
        )
        self.log_alpha = nn.Parameter(agent.log_alpha.detach().flatten()[row : row + tasks].clone())
        policy = [*self.trunk.parameters(), *self.mean.parameters(), *self.log_std.parameters()]
        self.optimizers = [torch.optim.Adam(p, lr=LR) for p in (self.q.parameters(), policy, [self.log_alpha])]

    def act(self, obs: Tensor, heads: list[int], noise: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.trunk[1][0](F.relu(self.trunk[0][0](obs))))
        mean = torch.stack([self.mean[h](row) for h, row in zip(heads, x, strict=True)])
        std = torch.stack([self.log_std[h](row).clamp(-20, 2).exp() for h, row in zip(heads, x, strict=True)])
        pre_tanh = mean + std * noise
        action = torch.tanh(pre_tanh)
        log_prob = torch.distributions.Normal(mean, std).log_prob(pre_tanh) - torch.log1p(-action.square())
        return action, log_prob.sum(-1)

    def value(self, net: Any, obs: Tensor, actions: Tensor, heads: list[int]) -> Tensor:
        x = F.relu(net[1][0](F.relu(net[0][0](torch.cat([obs, actions], -1)))))
        return torch.stack([net[2][h](row)[0] for h, row in zip(heads, x, strict=True)])

    def update(self, data: Batch, heads: list[int], noise: list[Tensor]) -> None:
        alpha = self.log_alpha.detach().exp()[heads]
        with torch.no_grad():
            next_actions, next_log_prob = self.act(data.next_obs, heads, noise[0])
            q1, q2 = (self.value(q, data.next_obs, next_actions, heads) for q in self.q_target)
            value = torch.minimum(q1, q2) - alpha * next_log_prob
            target = data.rewards + GAMMA * (1 - data.terminations) * value
        self.step(0, sum(F.mse_loss(self.value(q, data.obs, data.actions, heads), target) for q in self.q))
        actions, log_prob = self.act(data.obs, heads, noise[1])
        q1, q2 = (self.value(q, data.obs, actions, heads) for q in self.q)
        self.step(1, (alpha * log_prob - torch.minimum(q1, q2)).mean())
        self.step(2, -(self.log_alpha[heads] * (log_prob.detach() - A)).mean())
        for target_p, p in zip(self.q_target.parameters(), self.q.parameters(), strict=True):
            target_p.data = (1 - TAU) * target_p.data + TAU * p.data

    def step(self, which: int, loss: Any) -> None:
        self.zero_grad()
        loss.backward()
        self.optimizers[which].step()


def batch(*shape: int) -> Batch:
    ids = torch.randint(T, shape) if len(shape) == 1 else torch.arange(T)[:, None].expand(shape)
    return Batch(
        obs=torch.randn(*shape, O),
        actions=torch.rand(*shape, A) * 2 - 1,
        rewards=torch.randn(shape),
        next_obs=torch.randn(*shape, O),
        terminations=(torch.rand(shape) < 0.2).to(torch.get_default_dtype()),
        task_ids=ids,
        behavior_ids=ids,
    )


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The standard normal numbers that updates draw, in order."""
    drawn: list[Tensor] = []

    def randn_like(x: Tensor) -> Tensor:
        drawn.append(torch.randn(x.shape, dtype=x.dtype))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", randn_like)
    return drawn


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def difference(plain: PlainSAC, other: PlainSAC) -> float:
    pairs = zip(plain.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.usefixtures("float64")
def test_stacked_update_is_a_loop_over_separate_sacs(noise: list[Tensor]) -> None:
    agent = make_agent(separate)
    sacs = [PlainSAC(agent, t, (t, T + t), 1) for t in range(T)]
    for _ in range(10):
        data = batch(T, B)
        noise.clear()
        losses = agent.update(data)
        for t, sac in enumerate(sacs):
            sac.update(Batch(*(field[t] for field in data)), [0] * B, [n[t] for n in noise])
    assert all(loss.shape == (T,) for loss in losses.values())
    for t, sac in enumerate(sacs):
        assert difference(sac, PlainSAC(agent, t, (t, T + t), 1)) < 1e-12


@pytest.mark.usefixtures("float64")
def test_multihead_update_is_a_plain_multihead_sac(noise: list[Tensor]) -> None:
    agent = make_agent(multihead)
    sac = PlainSAC(agent, 0, (0, 1), T)
    for _ in range(10):
        data = batch(B)
        noise.clear()
        losses = agent.update(data)
        sac.update(data, data.task_ids.tolist(), noise)
    assert {name: tuple(loss.shape) for name, loss in losses.items()} == {
        **dict.fromkeys(("qf_loss", "qf_value", "actor_loss", "alpha_loss", "entropy"), (1, 1)), "alpha": (T,),
    }  # fmt: skip
    assert difference(sac, PlainSAC(agent, 0, (0, 1), T)) < 1e-12


@both
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("critic", ["q1", "min"])
def test_answers_to_the_collector(script: ModuleType, critic: str, noise: list[Tensor]) -> None:
    """Row i has task i mod T; every row is asked about by itself."""
    agent, n = make_agent(script, switch_critic=critic, entropy_term=True), 2 * T
    if script is separate:
        policy = [(PlainSAC(agent, t, (t, T + t), 1), [0]) for t in range(T)]
    else:
        policy = [(PlainSAC(agent, 0, (0, 1), T), [t]) for t in range(T)]
    obs, candidates, ids = torch.randn(n, O), torch.rand(n, T, A) * 2 - 1, torch.arange(n) % T
    with torch.no_grad():
        values, proposal = agent.q_functions(obs, candidates, ids), agent.policies(obs)
        own, mean = agent.own_policy(obs, ids), agent.mean_policy(obs, ids)
        drawn, own_drawn = noise[:2]
        if script is separate:  # there, the leading axis is the task
            drawn, own_drawn = drawn.transpose(0, 1), own_drawn.transpose(0, 1).reshape(n, A)
        for i in range(n):
            row = obs[i : i + 1]
            sac, head = policy[i % T]
            twins = [sac.value(q, row.expand(T, O), candidates[i], head * T) for q in sac.q]
            close(values[i], twins[0] if critic == "q1" else torch.minimum(*twins))
            close(own[i], sac.act(row, head, own_drawn[i])[0][0])
            close(mean[i], sac.act(row, head, torch.zeros(A))[0][0])
            for j, (other, other_head) in enumerate(policy):
                action, _ = other.act(row, other_head, drawn[i, j])
                close(proposal.actions[i, j], action[0])
                close(proposal.means[i, j], other.act(row, other_head, torch.zeros(A))[0][0])


@both
def test_proposals_have_entropies_only_where_they_are_used(script: ModuleType) -> None:
    obs = torch.randn(T, O)
    assert make_agent(script).policies(obs).entropies is None
    assert make_agent(script, entropy_term=True).policies(obs).entropies.shape == (T, T)


@both
def test_tanh_is_applied_once(script: ModuleType) -> None:
    """With hardly any noise, what is trained on, executed and evaluated is tanh(mean), near the ends of the range."""
    agent = make_agent(script)
    agent.actor.fc_logstd.bias.data.fill_(-20)
    agent.actor.fc_logstd.weight.data.zero_()
    agent.actor.fc_mean.bias.data.fill_(3.0)
    agent.actor.fc_mean.weight.data.zero_()
    obs, ids = torch.randn(T, O), torch.arange(T)
    trained = agent.actor.get_action(obs.unsqueeze(1)) if script is separate else agent.actor.get_action(obs, ids)
    found = [trained[0], trained[2], *agent.policies(obs)[:2], agent.own_policy(obs, ids), agent.mean_policy(obs, ids)]
    for actions in found:
        torch.testing.assert_close(actions, torch.full_like(actions, math.tanh(3.0)))


@both
@pytest.mark.usefixtures("float64")
def test_log_probability_is_exact_where_tanh_saturates(script: ModuleType, noise: list[Tensor]) -> None:
    agent = make_agent(script)
    agent.actor.fc_logstd.weight.data.zero_()
    agent.actor.fc_mean.weight.data.zero_()
    agent.actor.fc_mean.bias.data.fill_(15.0)
    agent.actor.fc_logstd.bias.data.fill_(-20)
    obs, ids = torch.randn(T, O), torch.arange(T)
    with torch.no_grad():
        log_prob = agent.actor.get_action(*((obs.unsqueeze(1),) if script is separate else (obs, ids)))[1]
    slope = -torch.log(4 / (torch.exp(torch.tensor(15.0)) + torch.exp(torch.tensor(-15.0))) ** 2)
    expected = 20 - 0.5 * noise[0].square() - 0.5 * math.log(2 * math.pi) + slope
    torch.testing.assert_close(log_prob, expected.sum(-1), rtol=0, atol=1e-6)


@both
@pytest.mark.usefixtures("float64")
def test_entropies_are_those_of_squashed_gaussians(script: ModuleType) -> None:
    """Against the mean of 400 000 log-probabilities, from narrow policies to the widest, inside and at the border."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400_000, generator=generator)
    for log_std in (-20.0, -3.0, -1.0, 0.0, 1.0, 2.0):
        for mean in (0.0, 0.7, 4.0):
            squashed = torch.distributions.Normal(mean, math.exp(log_std))
            x = mean + math.exp(log_std) * draws
            samples = -squashed.log_prob(x) + 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))
            found = script.entropies(torch.full((1, 1), mean), torch.full((1, 1), log_std))
            error = 5 * float(samples.std()) / math.sqrt(len(draws)) + 3e-4
            assert found.item() == pytest.approx(float(samples.mean()), abs=error)
    # Of a standard deviation of 0.3 in one dimension, to seven digits, by an integral on a far finer grid; twice, and
    # the sum over dimensions.
    z = torch.linspace(-9, 9, 200_001)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    slope = torch.log1p(-torch.tanh(0.2 + 0.3 * z).square())
    one = math.log(0.3) + 0.5 * math.log(2 * math.pi * math.e) + float(torch.trapezoid(density * slope, z))
    found = script.entropies(torch.full((4, 2), 0.2), torch.full((4, 2), math.log(0.3)))
    assert found.tolist() == pytest.approx([2 * one] * 4, abs=1e-7)


@both
@torch.no_grad()
def test_proposed_entropies_belong_to_the_policies_and_are_the_same_at_every_call(script: ModuleType) -> None:
    """Equation 3 asks for the entropy, not for the log-probability of one sample."""
    agent, obs = make_agent(script, entropy_term=True), torch.randn(2 * T, O)
    first, second = agent.policies(obs).entropies, agent.policies(obs).entropies
    assert torch.equal(first, second)
    for j in range(T):
        if script is separate:
            mean, log_std = (x[j] for x in agent.actor(obs.expand(T, *obs.shape)))
        else:
            mean, log_std = agent.actor(obs, torch.full((2 * T,), j))
        torch.testing.assert_close(first[:, j], script.entropies(mean, log_std), rtol=0, atol=1e-5)
    torch.manual_seed(0)
    many = torch.stack([sample_log_prob(agent, script, obs) for _ in range(4000)])
    assert (first + many.mean(0)).abs().max() < 5 * many.std(0).max() / math.sqrt(4000)


def sample_log_prob(agent: Any, script: ModuleType, obs: Tensor) -> Tensor:
    """(N, T) log-probabilities of fresh samples of all policies, as training uses them."""
    if script is separate:
        found: Tensor = agent.actor.get_action(obs.expand(T, *obs.shape))[1].t()
    else:
        found = agent.actor.get_action(obs)[1]
    return found


@both
def test_initial_networks(script: ModuleType) -> None:
    torch.manual_seed(0)
    agent = script.Agent(script.Args(hidden_dim=128), T, O, A, "cpu")
    for net, dims in ((agent.actor, (O, A)), (agent.qf, (O + A, 1))):
        for name, layer in net.named_children():
            in_dim, out_dim = dims[0] if name == "fc1" else 128, 128 if name in ("fc1", "fc2") else dims[1]
            assert not layer.bias.any()
            for weight in (head for one in layer.weight for head in one.split(out_dim, 1)):
                std = math.sqrt(2 / (in_dim + out_dim))
                assert weight.shape == (in_dim, out_dim)
                assert float(weight.detach().square().mean().sqrt()) == pytest.approx(std, rel=0.25)
                if net is agent.actor:
                    assert float(weight.detach().abs().max()) <= math.sqrt(3) * std
                    assert float(weight.detach().abs().max()) >= math.sqrt(3) * std * 0.9
    for target, online in zip(agent.qf_target.parameters(), agent.qf.parameters(), strict=True):
        assert torch.equal(target, online)
        assert not target.requires_grad
    assert (agent.log_alpha == 0).all()


@both
def test_actor_step_leaves_no_gradient_in_the_critics(script: ModuleType) -> None:
    agent = make_agent(script)
    agent.update(batch(T, B) if script is separate else batch(B))
    before = [p.detach().clone() for p in agent.qf.parameters()]
    q_gradients = [p.grad.clone() for p in agent.qf.parameters()]
    agent.q_optimizer.step = lambda: None
    agent.update(batch(T, B) if script is separate else batch(B))
    assert all(torch.equal(p, q) for p, q in zip(agent.qf.parameters(), before, strict=True))
    assert any(not torch.equal(p.grad, g) for p, g in zip(agent.qf.parameters(), q_gradients, strict=True))


# Rows: min buffer, env steps and gradient steps per round, batch, hidden, learning rate, run length in thousands
TABLE = {
    "Reacher5": ((10_000, 200, 200, 32, 256, 3e-4, 2_000), (10_000, 200, 200, 32, 512, 1e-3, 2_000)),
    "Maze3": ((3_000, 600, 100, 256, 256, 3e-4, 3_600), (3_000, 600, 100, 256, 834, 3e-4, 3_600)),
    "Maze10": ((3_000, 600, 100, 256, 256, 3e-4, 12_000), (3_000, 600, 100, 256, 834, 3e-4, 12_000)),
    "MetaWorldCDS": ((10_000, 500, 50, 256, 256, 1.5e-3, 10_000), (5_000, 500, 50, 256, 512, 1.5e-3, 10_000)),
    "MetaWorldMT10": ((500, 500, 50, 2560, 256, 1.5e-3, 40_000), (5_000, 500, 50, 2560, 400, 1.5e-3, 40_000)),
    "Walker4": ((2_500, 1000, 1500, 256, 256, 3e-4, 8_000), (10_000, 1000, 1500, 256, 512, 3e-4, 8_000)),
    "Kitchen10": ((200, 200, 50, 1280, 256, 3e-4, 5_000), (2_000, 200, 50, 1280, 512, 3e-4, 5_000)),
    "MetaWorldMT50": ((1_500, 500, 50, 1280, 400, 3e-4, 30_000), (1_500, 500, 50, 1280, 400, 3e-4, 30_000)),
}


@both
@pytest.mark.parametrize("env_id", TABLE)
def test_preset(script: ModuleType, env_id: str) -> None:
    args = script.Args(**script.PRESETS[env_id])
    found = (
        args.min_buffer_size, args.env_steps_per_round, args.gradient_steps_per_round, args.batch_size,
        args.hidden_dim, args.learning_rate, args.total_timesteps // 1_000,
    )  # fmt: skip
    assert found == TABLE[env_id][script is multihead]
    assert (args.gamma, args.tau, args.buffer_size, args.horizon) == (0.99, 0.005, 1_000_000, 1)
    assert args.own_probability == (0.7 if env_id == "MetaWorldMT10" else 0.0)
    assert args.warmup_rounds == (100 if script is multihead and env_id.startswith("Maze") else 0)


@both
def test_command_line(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    args = script.parse_args(["--env-id", "Maze3", "--batch-size", "7", "--switch", "own"])
    assert (args.env_id, args.total_timesteps, args.batch_size, args.switch) == ("Maze3-v0", 3_600_000, 7, "own")
    assert script.parse_args(["--env_id=Maze3-v0"]).total_timesteps == 3_600_000
    assert script.parse_args([]).env_id == "Maze10-v0"
    with pytest.raises(SystemExit, match="expected one of Maze"):
        script.parse_args(["--env-id", "Labyrinth"])
    with pytest.raises(SystemExit):
        script.parse_args(["--env-id", "Maze3", "--help"])
    assert "3600000" in capsys.readouterr().out


@pytest.mark.usefixtures("float64")
@torch.no_grad()
def test_negative_controls_score_with_other_critics() -> None:
    agent, n = make_agent(separate), 2 * T
    obs, candidates, ids = torch.randn(n, O), torch.rand(n, T, A) * 2 - 1, torch.arange(n) % T
    # Q of every critic for every candidate of every row: (critic, N, T)
    every = torch.stack(
        [
            agent.qf(obs.expand(T, n, O), candidates[:, j].expand(T, n, A), twins=1)[0]  # (critic, N)
            for j in range(T)
        ],
        dim=-1,
    )
    critics = {
        "task": lambda i, j: i % T,
        "next": lambda i, j: (i + 1) % T,
        "proposer": lambda i, j: j,
    }
    for of, critic in critics.items():
        agent.args.switch_critic_of = of
        values = agent.q_functions(obs, candidates, ids)
        close(values, torch.tensor([[every[critic(i, j), i, j] for j in range(T)] for i in range(n)]))


def test_switch_flags() -> None:
    def switch(**settings: Any) -> Any:
        agent = make_agent(separate, **settings)
        return separate.make_switch(agent.args, agent, separate.qmp_envs.TASK_SETS["Maze3-v0"])

    assert switch() == qmp_collect.QSwitch(score="mean")
    assert switch(switch_samples=10) == qmp_collect.QSwitch(score="sample", samples=10)
    assert switch(switch="softmax", switch_temperature=0.1, switch_score="sample") == qmp_collect.SoftmaxQSwitch(
        0.1, score="sample"
    )
    assert switch(switch_margin=0.5, switch_hysteresis=0.25, switch_relative=True) == qmp_collect.QSwitch(
        score="mean", margin=0.5, hysteresis=0.25, relative=True
    )
    assert switch(switch="uniform") == qmp_collect.UniformSwitch()
    assert switch(switch="own") == qmp_collect.OwnPolicy()
    assert torch.equal(switch(entropy_term=True).entropy_weight(), torch.ones(T))
    with pytest.raises(SystemExit, match="no hand-made mixture"):
        switch(switch="domain")


def test_flags_of_gates_and_commitments() -> None:
    horizon = lambda **settings: separate.make_horizon(separate.Args(horizon=7, **settings))  # noqa: E731
    assert horizon() == 7
    assert horizon(horizon_rule="uniform") == qmp_collect.UniformHorizon(1, 7)
    assert horizon(horizon_rule="levy") == qmp_collect.LevyHorizon(2.0, cap=7)
    assert horizon(horizon_rule="until-own") == qmp_collect.UntilOwnIsBetter(cap=7)
    mask = lambda **settings: separate.make_candidate_mask(separate.Args(**settings))  # noqa: E731
    assert mask() is None
    assert mask(success_gate=0.25, own_share_floor=0.5) == qmp_collect.all_of(
        qmp_collect.SuccessGate(0.25, episodes=20), qmp_collect.OwnShareFloor(0.5, steps=1000)
    )
