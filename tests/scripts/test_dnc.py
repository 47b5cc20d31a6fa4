"""dnc.py: the divergence and its gradient, the distillation, and that the rest is a loop over SACs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from script_files import load_script
from test_update_math import LR, B, O, PlainSAC, T, batch, difference, make_agent, noise  # noqa: F401
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from qmp_collect import Batch
from qmp_collect.runs import load_checkpoint

dnc = load_script("dnc")
separate = load_script("sac_qmp_separate")
BETA = 0.3


class PlainDnC(PlainSAC):
    """An ordinary SAC that pays for its divergence from others."""

    obs: Tensor
    others: list[PlainDnC]

    def policy(self, obs: Tensor) -> Normal:
        x = F.relu(self.trunk[1][0](F.relu(self.trunk[0][0](obs))))
        return Normal(self.mean[0](x), self.log_std[0](x).clamp(-20, 2).exp())

    def step(self, which: int, loss: Tensor) -> None:
        if which == 1:
            for other in self.others:
                with torch.no_grad():
                    given = other.policy(self.obs)
                loss = loss + BETA * kl_divergence(given, self.policy(self.obs)).mean()
        super().step(which, loss)


def plain(agent: object) -> list[PlainDnC]:
    return [PlainDnC(agent, t, (t, T + t), 1) for t in range(T)]


@pytest.mark.usefixtures("float64")
def test_divergence_and_its_gradient() -> None:
    agent, obs = make_agent(dnc), torch.randn(7, O)
    found = agent.divergence(obs[None])
    found.sum().backward()
    sacs = plain(agent)
    for t, sac in enumerate(sacs):
        others = [other.policy(obs) for j, other in enumerate(sacs) if j != t]
        expected = sum(kl_divergence(Normal(p.loc.detach(), p.scale.detach()), sac.policy(obs)).mean() for p in others)
        torch.testing.assert_close(found[t], expected, rtol=0, atol=1e-12)
        expected.backward()
    for name, layer in agent.actor.named_children():
        for t, sac in enumerate(sacs):
            twin = {"fc1": sac.trunk[0], "fc2": sac.trunk[1], "fc_mean": sac.mean, "fc_logstd": sac.log_std}[name][0]
            torch.testing.assert_close(layer.weight.grad[t], twin.weight.grad.T, rtol=0, atol=1e-12)
            torch.testing.assert_close(layer.bias.grad[t, 0], twin.bias.grad, rtol=0, atol=1e-12)
            assert twin.weight.grad.any()


def test_divergence_by_hand() -> None:
    """Two policies N(0, 1) and N(1, 2^2) in one action dimension."""
    agent = dnc.Agent(dnc.Args(hidden_dim=4), 2, O, 1, "cpu")
    for layer in (agent.actor.fc_mean, agent.actor.fc_logstd):
        layer.weight.data.zero_()
    agent.actor.fc_mean.bias.data[1], agent.actor.fc_logstd.bias.data[1] = 1.0, math.log(2)
    # KL(N(1, 4) || N(0, 1)) = log(1/2) + (4 + 1) / 2 - 1/2; KL(N(0, 1) || N(1, 4)) = log 2 + (1 + 1) / 8 - 1/2
    assert agent.divergence(torch.randn(1, 3, O)).tolist() == pytest.approx([2 - math.log(2), math.log(2) - 0.25])


@pytest.mark.usefixtures("float64")
def test_stacked_update_is_a_loop_over_sacs(noise: list[Tensor]) -> None:  # noqa: F811
    agent = make_agent(dnc, batch_size=B, kl_coefficient=BETA)
    sacs = plain(agent)
    for _ in range(4):
        data = batch(T, B)
        noise.clear()
        losses = agent.update(data)
        frozen = copy.deepcopy(sacs)  # all learn at the same time
        obs = torch.cat([data.obs[t, : B // T] for t in range(T)])
        for t, sac in enumerate(sacs):
            sac.obs, sac.others = obs, [other for j, other in enumerate(frozen) if j != t]
            sac.update(Batch(*(field[t] for field in data)), [0] * B, [n[t] for n in noise])
    assert {name for name, loss in losses.items() if loss.shape != (T,)} == {"distill_loss"}
    for t, sac in enumerate(sacs):
        assert difference(sac, PlainSAC(agent, t, (t, T + t), 1)) < 1e-12


def test_without_divergence_it_is_no_sharing() -> None:
    agents = [make_agent(dnc, kl_coefficient=0.0), make_agent(separate)]
    for agent in agents:
        torch.manual_seed(1)
        for _ in range(3):
            agent.update(batch(T, B))
    for part in ("actor", "qf", "qf_target"):
        pairs = zip(*(getattr(agent, part).parameters() for agent in agents), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.usefixtures("float64")
def test_distillation() -> None:
    """Maximum likelihood of the executed actions, by one policy that keeps its weights and its optimizer."""
    agent = make_agent(dnc)
    student = plain(agent)[0]
    weights = [*student.trunk.parameters(), *student.mean.parameters(), *student.log_std.parameters()]
    optimizer = torch.optim.Adam(weights, lr=LR)
    moments = None
    for number in range(2):
        for _ in range(4):
            data = batch(T, 5)
            agent.distill(data)
            actions = torch.cat(list(data.actions))
            x = 0.5 * torch.log((1 + 1e-6 + actions) / (1 + 1e-6 - actions))
            log_prob = student.policy(torch.cat(list(data.obs))).log_prob(x) - torch.log(1 - torch.tanh(x) ** 2)
            optimizer.zero_grad()
            loss = -log_prob.sum(-1).mean()
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(agent.distill_loss, loss.detach().view(1, 1), rtol=0, atol=1e-12)
        critics = copy.deepcopy(agent.qf.state_dict())
        moments = copy.deepcopy(agent.actor_optimizer.state_dict())
        agent.conquer()
        assert agent.distillations == number + 1
        for t in range(T):  # all of them, and no copy of another's Adam
            found = PlainSAC(agent, t, (t, T + t), 1)
            copied = [*found.trunk.parameters(), *found.mean.parameters(), *found.log_std.parameters()]
            assert max((a - b).abs().max().item() for a, b in zip(copied, weights, strict=True)) < 1e-12
        assert all(torch.equal(value, critics[name]) for name, value in agent.qf.state_dict().items())
        for old, new in zip(
            moments["state"].values(), agent.actor_optimizer.state_dict()["state"].values(), strict=True
        ):
            assert all(torch.equal(old[key], new[key]) for key in old)
        agent.update(batch(T, B))  # policies go their own ways, the centroid waits
        assert not torch.equal(agent.actor.fc1.weight[0], agent.actor.fc1.weight[1])
    assert moments is not None
    assert moments["state"]


def test_the_centroid_begins_as_the_first_policy() -> None:
    agent = make_agent(dnc)
    for centroid, policies in zip(agent.centroid.parameters(), agent.actor.parameters(), strict=True):
        assert torch.equal(centroid, policies[:1])
        assert centroid.data_ptr() != policies.data_ptr()


def test_distillation_of_actions_at_the_border() -> None:
    agent, data = make_agent(dnc), batch(T, 4)
    data.actions[:] = torch.where(data.actions > 0, 1.0, -1.0)
    agent.distill(data)
    assert torch.isfinite(agent.distill_loss)
    assert all(torch.isfinite(p).all() for p in agent.centroid.parameters())


def test_fewer_rows_than_tasks() -> None:
    agent = make_agent(dnc, batch_size=T - 1)
    assert agent.share == 1
    assert torch.isfinite(agent.update(batch(T, T - 1))["divergence"]).all()


@pytest.mark.usefixtures("short_episodes")
@pytest.mark.parametrize(("flags", "distillations"), [("", 10), ("--distill-every 24", 5), ("--no-distill", 0)])
def test_schedule(flags: str, distillations: int, run_script: Callable[..., None], tmp_path: Path) -> None:
    """Ten times in a run, never at its end. 11 rounds of 12 steps."""
    tiny = "--env-id Maze3 --total-timesteps 132 --env-steps-per-round 4 --gradient-steps-per-round 1 --batch-size 4"
    tiny += " --min-buffer-size 1 --hidden-dim 4 --distill-steps 1 --eval-every 999 --eval-episodes 1 --torch-threads 1"
    run_script("dnc", *tiny.split(), "--run-dir-root", tmp_path, *flags.split())
    (run_dir,) = tmp_path.iterdir()
    assert load_checkpoint(run_dir / "checkpoint.npz")["agent"]["distillations"] == distillations


@pytest.mark.parametrize(
    ("env_id", "flags", "coefficient"),
    [
        ("Reacher5", "", 1e-3), ("Maze10", "", 1e-3), ("MetaWorldMT10", "", 1e-3), ("MetaWorldCDS", "--distill", 1e-3),
        ("Reacher5", "--no-distill", 1e-3), ("Maze10", "--no-distill", 1e-4), ("Maze3", "--no-distill", 1e-4),
        ("MazeMT10", "--no-distill", 1e-4), ("MetaWorldMT10", "--no-distill", 1e-3),
        ("MetaWorldCDS", "--no-distill", 1e-3), ("Walker4", "--no-distill", 1e-3),
        ("Maze3", "--no-distill --kl-coefficient 0.5", 0.5), ("Maze3", "--no-distill --distill", 1e-3),
        ("Maze3", "--distill-every 9 --no-distill", 1e-4),
    ],
)  # fmt: skip
def test_the_papers_coefficients(env_id: str, flags: str, coefficient: float) -> None:
    """Appendix H.4: with distillation 0.001; regularization only 0.001 on Reacher and Meta-World, 0.0001 on mazes."""
    args = dnc.parse_args(["--env-id", env_id, *flags.split()])
    assert args.kl_coefficient == coefficient
    assert args.distill == ("--no-distill" not in flags or flags.endswith("--distill"))
    assert args.total_timesteps == separate.PRESETS[env_id]["total_timesteps"]


def test_command_line() -> None:
    args = dnc.parse_args(["--env-id", "Maze3", "--no-distill", "--kl-coefficient", "1e-4"])
    assert (args.distill, args.kl_coefficient, args.distill_steps, args.batch_size) == (False, 1e-4, 500, 256)
    assert dnc.parse_args([]).distill
    assert dnc.PRESETS["MetaWorldMT10"] == {
        k: v for k, v in separate.PRESETS["MetaWorldMT10"].items() if k != "own_probability"
    }
