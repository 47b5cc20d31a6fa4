"""decaf.py: mixtures of Q-functions, who learns from whom, and that it is a loop over plain networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from script_files import load_script
from test_update_math import GAMMA, LR, TAU, A, B, O, PlainSAC, T, batch, linear, make_agent, noise  # noqa: F401
from torch import Tensor

decaf = load_script("decaf")
WEIGHT_LAYERS = ("fc1_weights", "fc2_weights", "fc_weights")


def mlp(net: Any, names: tuple[str, ...], row: int) -> nn.Sequential:
    first, second, last = (linear(getattr(net, n).weight[row], getattr(net, n).bias[row, 0]) for n in names)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


class PlainDecaf:
    """T policies as in `PlainSAC`; for each task and twin a Q-function and a network of weights, and copies of both."""

    def __init__(self, agent: Any) -> None:
        self.sacs = [PlainSAC(agent, t, (t, T + t), 1) for t in range(T)]
        self.q, self.w, self.q_target, self.w_target = (
            [[mlp(net, names, twin * T + t) for t in range(T)] for twin in range(2)]
            for net in (agent.qf, agent.qf_target)
            for names in (("fc1", "fc2", "fc_q"), WEIGHT_LAYERS)
        )
        critics = [p for nets in (self.q, self.w) for twin in nets for net in twin for p in net.parameters()]
        self.critic_optimizer = torch.optim.Adam(critics, lr=LR)

    def value(self, q: Any, w: Any, twin: int, task: int, obs: Tensor, actions: Tensor) -> Tensor:
        x = torch.cat([obs, actions], -1)
        weights = w[twin][task](x).softmax(-1)
        total = torch.zeros(len(obs))
        for j in range(T):
            value = q[twin][j](x)[:, 0] if j == task else q[twin][j](x.detach())[:, 0].detach()
            total = total + weights[:, j] * value
        return total

    def update(self, data: Any, noise: list[Tensor]) -> None:  # noqa: F811
        loss = torch.zeros(())
        for t, sac in enumerate(self.sacs):
            with torch.no_grad():
                next_actions, log_prob = sac.act(data.next_obs[t], [0] * B, noise[0][t])
                both = [self.value(self.q_target, self.w_target, c, t, data.next_obs[t], next_actions) for c in (0, 1)]
                value = torch.minimum(*both) - sac.log_alpha.exp() * log_prob
                target = data.rewards[t] + GAMMA * (1 - data.terminations[t]) * value
            for c in (0, 1):
                loss = loss + F.mse_loss(self.value(self.q, self.w, c, t, data.obs[t], data.actions[t]), target)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        for t, sac in enumerate(self.sacs):
            alpha = sac.log_alpha.detach().exp()
            actions, log_prob = sac.act(data.obs[t], [0] * B, noise[1][t])
            both = [self.value(self.q, self.w, c, t, data.obs[t], actions) for c in (0, 1)]
            sac.step(1, (alpha * log_prob - torch.minimum(*both)).mean())
            sac.step(2, -(sac.log_alpha * (log_prob.detach() - A)).mean())
        for targets, nets in ((self.q_target, self.q), (self.w_target, self.w)):
            for c in (0, 1):
                for target_net, net in zip(targets[c], nets[c], strict=True):
                    for target_p, p in zip(target_net.parameters(), net.parameters(), strict=True):
                        target_p.data = (1 - TAU) * target_p.data + TAU * p.data

    def parameters(self) -> list[Tensor]:
        critics = (self.q, self.w, self.q_target, self.w_target)
        policies = [[sac.trunk, sac.mean, sac.log_std] for sac in self.sacs]
        nets = [net for each in critics for twin in each for net in twin] + [net for each in policies for net in each]
        return [p for net in nets for p in net.parameters()] + [sac.log_alpha for sac in self.sacs]


@pytest.mark.usefixtures("float64")
def test_stacked_update_is_a_loop_over_plain_networks(noise: list[Tensor]) -> None:  # noqa: F811
    agent = make_agent(decaf)
    plain = PlainDecaf(agent)
    for _ in range(4):
        data = batch(T, B)
        noise.clear()
        losses = agent.update(data)
        plain.update(data, noise)
    assert all(loss.shape == (T,) for loss in losses.values())
    for expected, found in zip(plain.parameters(), PlainDecaf(agent).parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("twins", [1, 2])
def test_values_are_convex_combinations(twins: int) -> None:
    agent, data = make_agent(decaf), batch(T, B)
    plain = PlainDecaf(agent)
    values, weights = agent.qf(data.obs, data.actions, twins)
    assert values.shape == (twins, T, B)
    assert weights.shape == (twins, T, B, T)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(twins, T, B))
    for c in range(twins):
        for t in range(T):
            x = torch.cat([data.obs[t], data.actions[t]], -1)
            every = torch.stack([plain.q[c][j](x)[:, 0] for j in range(T)], -1)
            expected = (torch.softmax(plain.w[c][t](x), -1) * every).sum(-1)
            torch.testing.assert_close(values[c, t], expected, rtol=0, atol=1e-12)


def test_only_the_own_q_function_and_weights_learn() -> None:
    agent, data = make_agent(decaf), batch(T, B)
    values, _ = agent.qf(data.obs, data.actions)
    values[:, 1].square().sum().backward()
    for name, p in agent.qf.named_parameters():
        for row in range(2 * T):
            assert bool(p.grad[row].any()) == (row % T == 1), (name, row)


def test_logged_weight_is_the_own_ones() -> None:
    """A network of weights that prefers Q-function 2: softmax of (0, 0, 1)."""
    agent = make_agent(decaf)
    agent.qf.fc_weights.weight.data.zero_()
    agent.qf.fc_weights.bias.data[..., 2] = 1.0
    assert agent.update(batch(T, B))["own_weight"].tolist() == pytest.approx([0.2119416, 0.2119416, 0.5761169])


def test_target_copies_follow_all_of_their_sources() -> None:
    """Q-functions and weights of every task: a peer in a target mixture is no copy from the start."""
    agent = make_agent(decaf)
    start = {name: p.clone() for name, p in agent.qf_target.named_parameters()}
    agent.update(batch(T, B))
    online = dict(agent.qf.named_parameters())
    for name, p in agent.qf_target.named_parameters():
        torch.testing.assert_close(p, start[name] + TAU * (online[name] - start[name]))
        assert all(not torch.equal(p[row], start[name][row]) for row in range(2 * T)), name


def test_the_switch_scores_with_the_mixture() -> None:
    agent, obs, candidates = make_agent(decaf), torch.randn(2 * T, O), torch.rand(2 * T, T, A) * 2 - 1
    found = agent.q_functions(obs, candidates, torch.arange(2 * T) % T)
    plain = PlainDecaf(agent)
    for i in range(2 * T):
        expected = plain.value(plain.q, plain.w, 0, i % T, obs[i].expand(T, O), candidates[i])
        torch.testing.assert_close(found[i], expected)


def test_one_task() -> None:
    agent = decaf.Agent(decaf.Args(hidden_dim=8), 1, O, A, "cpu")
    data = decaf.qmp_collect.Batch(*(field[:1] for field in batch(T, B)))
    assert agent.update(data)["own_weight"].tolist() == [1.0]


def test_command_line() -> None:
    assert decaf.parse_args([]).switch == "own"
    assert decaf.PRESETS == load_script("sac_qmp_separate").PRESETS
