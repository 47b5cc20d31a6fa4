"""Divide-and-Conquer: separate SACs whose policies are drawn to each other and, now and then, distilled into one.

T tasks, each with its own policy, twin critics, temperature and replay buffer as in ``sac_qmp_separate.py``, and each
collected by its own policy. A policy pays for its divergence from all others. Ten times in a run a policy is fitted to
the actions in all buffers, and all policies go on from there (QMP, ICLR 2025, section 6.2 and appendix H.4, after Ghosh
et al. 2018). Without the distillation it is the paper's "DnC (regularization only)".

    python cleanrl_scripts/dnc.py --env-id Maze10                                      # DnC
    python cleanrl_scripts/dnc.py --env-id Maze10 --no-distill   # regularization only, with a coefficient of its own
"""

import argparse
import math
import os
from dataclasses import dataclass

import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812

import qmp_collect
import qmp_envs
from qmp_collect.runs import presets, settings, training
from qmp_collect.runs.forms import check_state


@dataclass
class Args(settings.RunArgs):
    LEFT_OPEN = (*settings.RunArgs.LEFT_OPEN, "distill_every")

    exp_name: str = os.path.basename(__file__)[: -len(".py")]
    """name of the experiment, part of the run's name"""

    # Algorithm
    envs_per_task: int = 1
    """parallel environments of each task"""
    buffer_size: int = 1_000_000
    """replay capacity of each task"""
    min_buffer_size: int = 3_000
    """transitions of each task before learning starts, collected by the same mixture as later ones"""
    env_steps_per_round: int = 600
    """env steps of each task in a round"""
    gradient_steps_per_round: int = 100
    """gradient steps of each task in a round"""
    batch_size: int = 256
    """batch size of each task"""
    hidden_dim: int = 256
    """width of the two hidden layers"""
    learning_rate: float = 3e-4
    """of policies, critics and temperatures"""
    gamma: float = 0.99
    """discount factor"""
    tau: float = 0.005
    """step of the target critics towards the critics"""
    target_entropy_scale: float = 1.0
    """the target entropy is -dim(A) times this"""

    # Seeds
    num_seeds: int = 1
    """above 1: so many runs side by side in this process, of seeds from --seed on, each with a folder of its own"""

    # Policies that learn from each other
    kl_coefficient: float = 1e-3
    """weight of the divergence from each other policy in a policy's loss (1e-4 on mazes with --no-distill)"""
    distill: bool = True
    """now and then distill all policies into one"""
    distill_every: int = 0
    """env steps between distillations (0: an eleventh of the run, which makes ten)"""
    distill_steps: int = 500
    """gradient steps of a distillation"""


PRESETS = presets.SEPARATE
REGULARIZATION_PRESETS = presets.tuned(PRESETS, Maze={"kl_coefficient": 1e-4})  # paper, appendix H.4


def parse_args(argv: list[str] | None = None) -> Args:
    mode = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    mode.add_argument("--distill", action=argparse.BooleanOptionalAction, default=True)
    distill = mode.parse_known_args(argv)[0].distill
    return settings.parse_args(Args, PRESETS if distill else REGULARIZATION_PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. All tasks' networks are stacked: a layer of all of them is one batched matrix product.
class StackedLinear(nn.Module):
    """Several linear layers side by side: (m, B, in) -> (m, B, out) by the first m of them."""

    def __init__(self, num_layers, in_dim, out_dim, init):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_layers, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(num_layers, 1, out_dim))
        for weight in self.weight.data:  # one by one, so that the fans are those of one layer
            init(weight)

    def forward(self, x):
        weight, bias = self.weight, self.bias
        if len(x) < len(weight):
            weight, bias = weight[: len(x)], bias[: len(x)]
        if weight.shape[-1] == 1:  # matrix libraries are several times slower at products with one column
            return (x * weight.mT).sum(-1, keepdim=True) + bias
        return torch.baddbmm(bias, x, weight)


class SoftQNetwork(nn.Module):
    """Twin critics of all tasks: first the T first critics, then the T second ones."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.fc1 = StackedLinear(2 * num_tasks, obs_dim + action_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc2 = StackedLinear(2 * num_tasks, hidden_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc_q = StackedLinear(2 * num_tasks, hidden_dim, 1, nn.init.xavier_normal_)

    def forward(self, obs, actions, twins=2):
        """(T, B, O) and (T, B, A) -> (twins, T, B)."""
        x = torch.cat([obs, actions], -1).repeat(twins, 1, 1)
        x = F.relu_(self.fc1(x))
        x = F.relu_(self.fc2(x))
        return self.fc_q(x).view(twins, *obs.shape[:2])


LOG_STD_MIN, LOG_STD_MAX = -20, 2


class Actor(nn.Module):
    """Policies of all tasks: Gaussians squashed by one tanh."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.fc1 = StackedLinear(num_tasks, obs_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc2 = StackedLinear(num_tasks, hidden_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc_mean = StackedLinear(num_tasks, hidden_dim, action_dim, nn.init.xavier_uniform_)
        self.fc_logstd = StackedLinear(num_tasks, hidden_dim, action_dim, nn.init.xavier_uniform_)

    def forward(self, obs):
        """(T, B, O) -> mean and log standard deviation before the tanh, (T, B, A) each."""
        x = F.relu_(self.fc1(obs))
        x = F.relu_(self.fc2(x))
        return self.fc_mean(x), self.fc_logstd(x).clamp(LOG_STD_MIN, LOG_STD_MAX)

    def noise(self, like):
        """Of an agent of several seeds, each has a generator of its own instead (qmp_collect.runs.seeds)."""
        return torch.randn_like(like)

    def get_action(self, obs, with_log_prob=True):
        """(T, B, O) -> sampled action (T, B, A), its log-probability (T, B) or None, mean action (T, B, A)."""
        mean, log_std = self(obs)
        noise = self.noise(mean)
        x = mean + log_std.exp() * noise
        if not with_log_prob:  # acting: these small operations cost a fifth of a forward pass of a few rows
            return torch.tanh(x), None, torch.tanh(mean)
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), exact at any x
        return torch.tanh(x), log_prob.sum(-1), torch.tanh(mean)


class Agent:
    """All tasks' SACs at once: how they learn, and how they answer the collector.

    Of S seeds there are S * T of them, seed by seed, and shapes that are (T, ...) below are (S * T, ...).
    """

    PARTS = ("actor", "centroid", "qf", "qf_target", "actor_optimizer", "c_optimizer", "q_optimizer", "a_optimizer")
    TWINS = ("qf", "qf_target", "q_optimizer")  # have two of everything

    def __init__(self, args, num_tasks, obs_dim, action_dim, device, num_seeds=1):
        self.args, self.num_tasks, self.num_seeds = args, num_tasks, num_seeds
        dims = (num_seeds * num_tasks, obs_dim, action_dim, args.hidden_dim)
        self.actor = Actor(*dims).to(device)
        self.qf = SoftQNetwork(*dims).to(device)
        self.qf_target = SoftQNetwork(*dims).to(device).requires_grad_(False)
        self.qf_target.load_state_dict(self.qf.state_dict())
        self.log_alpha = torch.zeros(num_seeds * num_tasks, 1, device=device, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        # What is distilled into: the first policy, at the beginning.
        self.centroid = Actor(num_seeds, *dims[1:]).to(device)
        first = {name: policies[::num_tasks] for name, policies in self.actor.state_dict().items()}
        self.centroid.load_state_dict(first)
        self.share = max(args.batch_size // num_tasks, 1)  # rows of each task, where all tasks' rows are mixed
        # Adam treats each number by itself, so one optimizer of stacked networks is one optimizer per network.
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.c_optimizer = torch.optim.Adam(self.centroid.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)
        self.distillations, self.distilled = 0, 0  # how many, and how many steps of the one under way
        self.distill_loss = torch.zeros(num_seeds, 1, device=device)

    def update(self, data):
        """One gradient step of each task on its own batch, fields (T, B, ...).

        Returns what to log, (T,) each, and (S, 1) of what each seed has.
        """
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            next_actions, next_log_prob, _ = self.actor.get_action(data.next_obs)
            next_value = self.qf_target(data.next_obs, next_actions).amin(0) - alpha * next_log_prob
            target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        # Averaged over the batch, summed over tasks: a task's gradients are those of a SAC on its own.
        qf_value = self.qf(data.obs, data.actions)
        qf_loss = (qf_value - target).square().mean(-1)
        self.q_optimizer.zero_grad()
        qf_loss.sum().backward()
        self.q_optimizer.step()

        actions, log_prob, _ = self.actor.get_action(data.obs)
        actor_loss = (alpha * log_prob - self.qf(data.obs, actions).amin(0)).mean(-1)
        divergence = self.divergence(self.of_all_tasks(data.obs[:, : self.share]))
        actor_loss = actor_loss + self.args.kl_coefficient * divergence
        self.actor_optimizer.zero_grad()
        actor_loss.sum().backward(inputs=list(self.actor.parameters()))  # spares the critics' weight gradients
        self.actor_optimizer.step()

        # The factor is log(alpha), as in the authors' separate agents, and not alpha, as in their shared ones.
        entropy = -log_prob.detach().mean(-1)
        alpha_loss = self.log_alpha.squeeze(-1) * (entropy - self.target_entropy)
        self.a_optimizer.zero_grad()
        alpha_loss.sum().backward()
        self.a_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        return {
            "qf_loss": qf_loss.mean(0),
            "qf_value": qf_value.mean((0, 2)),
            "actor_loss": actor_loss,
            "alpha_loss": alpha_loss,
            "alpha": alpha.squeeze(-1),
            "entropy": entropy,
            "divergence": divergence,
            "distill_loss": self.distill_loss,
        }

    def of_all_tasks(self, x):
        """Rows of all tasks of each seed: (T, B, ...) -> (1, T * B, ...); of several seeds (S, T * B, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).flatten(1, 2)

    def divergence(self, obs):
        """Of each policy from all others of its seed, KL(other || own) before the tanh, in states (S, M, O): (T,).

        Averaged over states and action dimensions, summed over the others. Only the own policy learns from it.
        """
        states = obs.unsqueeze(1).expand(-1, self.num_tasks, -1, -1).flatten(0, 1)
        mean, log_std = (x.unflatten(0, (self.num_seeds, -1)) for x in self.actor(states))
        other_mean, other_log_std = mean.detach()[:, None], log_std.detach()[:, None]
        mean, log_std = mean[:, :, None], log_std[:, :, None]
        log_ratio = other_log_std - log_std  # (S, T own, T others, M, A); at the own policy all is 0, gradients too
        distance = (other_mean - mean) * torch.exp(-log_std)
        kl = 0.5 * (torch.exp(2 * log_ratio) + distance.square() - 1) - log_ratio
        return kl.mean((3, 4)).sum(2).flatten()

    def distill(self, data):
        """One step of the centroid towards the actions of a batch, (T, B, ...): maximum likelihood."""
        mean, log_std = self.centroid(self.of_all_tasks(data.obs))
        x = torch.atanh(self.of_all_tasks(data.actions) / (1 + 1e-6))  # finite where an action has rounded to 1
        log_prob = -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2)
        loss = -log_prob.sum(-1).mean(-1, keepdim=True)
        self.c_optimizer.zero_grad()
        loss.sum().backward()
        self.c_optimizer.step()
        self.distill_loss.copy_(loss.detach())

    def conquer(self):
        """All policies go on from the centroid. Critics, temperatures and optimizers stay as they are."""
        with torch.no_grad():
            for policies, centroid in zip(self.actor.parameters(), self.centroid.parameters(), strict=True):
                policies.copy_(centroid.repeat_interleave(self.num_tasks, 0))
        self.distillations, self.distilled = self.distillations + 1, 0

    # What the collector asks. Rows lie seed by seed, and row i of a seed has task i mod T.
    def by_task(self, x):
        """Each task's rows: (N, ...) -> (T, N / T, ...); of several seeds (S * T, N / (S * T), ...)."""
        return x.unflatten(0, (self.num_seeds, -1, self.num_tasks)).transpose(1, 2).flatten(0, 1)

    def by_row(self, x):
        """And back: (T, N / T, ...) -> (N, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(1, 2).flatten(0, 2)

    def own_policy(self, obs, task_ids):
        """A sample of each row's own policy: (N, O) -> (N, A)."""
        return self.by_row(self.actor.get_action(self.by_task(obs), with_log_prob=False)[0])

    def mean_policy(self, obs, task_ids):
        """The mean action of each row's own policy, for evaluation: (N, O) -> (N, A)."""
        return self.by_row(torch.tanh(self.actor(self.by_task(obs))[0]))

    def state_dict(self):
        others = ("log_alpha", "distillations", "distilled", "distill_loss")
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return parts | {name: getattr(self, name) for name in others}

    def load_state_dict(self, state):
        check_state(self, state)  # shapes and kinds of everything, before anything is changed
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])
        self.distill_loss.copy_(state["distill_loss"])
        self.distillations, self.distilled = state["distillations"], state["distilled"]


if __name__ == "__main__":
    args = parse_args()
    args.distill_every = args.distill_every or math.ceil(args.total_timesteps / 11)
    task_set = qmp_envs.TASK_SETS[args.env_id]
    num_tasks = task_set.num_tasks
    run = training.TrainingRun(args, task_set.task_names)
    device = run.device

    # env setup. A simulation that diverges ends its episode, which charts/diverged counts: an error would come again
    # whenever the run is resumed.
    env_settings = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP, "on_divergence": "end"}
    num_envs = run.num_seeds * num_tasks * args.envs_per_task
    envs = gym.make_vec(args.env_id, num_envs=num_envs, **env_settings)
    num_envs = run.num_seeds * num_tasks * args.eval_envs_per_task
    eval_envs = gym.make_vec(args.env_id, num_envs=num_envs, **env_settings)
    obs_space, action_space = envs.single_observation_space, envs.single_action_space
    if action_space != gym.spaces.Box(-1.0, 1.0, action_space.shape):
        raise SystemExit(f"--env-id {args.env_id}: expected actions in [-1, 1], its action space is {action_space}")

    # ALGO LOGIC: initialize agent, replay buffer and collector here
    dims = obs_space.shape[0], action_space.shape[0]
    agent = run.make_agent(lambda num_seeds: Agent(args, num_tasks, *dims, device, num_seeds))
    round_steps = num_tasks * args.env_steps_per_round
    capacity = args.buffer_size
    rows = min(capacity, run.storable(round_steps, num_tasks * args.envs_per_task))
    of_tasks = rows, num_tasks, obs_space, action_space
    buffer = run.make_buffer(lambda seed: qmp_collect.TaskReplayBuffer(*of_tasks, device=device, seed=seed))
    run.accelerate(agent, "update", "distill", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, capacity, per_round=args.env_steps_per_round, round_steps=round_steps
    )
    collector = qmp_collect.QMPCollector(
        envs,
        None,
        None,
        own_policy=agent.own_policy,
        buffer=buffer,
        switch=qmp_collect.OwnPolicy(),
        backend="torch",
        device=device,
        seed=run.seed,
        **run.rows(envs.num_envs),
    )

    with run.start(collector, agent=agent, buffer=buffer):
        while run.unfinished():
            # evaluation: every task's own policy, mean actions
            if run.evaluation_due():
                stats = qmp_collect.evaluate(
                    eval_envs,
                    agent.mean_policy,
                    episodes_per_env=args.eval_episodes // args.eval_envs_per_task,
                    backend="torch",
                    device=device,
                    stop=run.stop,
                    seed=run.eval_seed,
                    **run.rows(eval_envs.num_envs),
                )
                run.evaluated(stats)
                continue

            # ALGO LOGIC: collect, each task with its own policy; before that, from time to time, make all policies one
            if not run.updates_due:  # else a run is resumed that was stopped between its gradient steps
                due = run.global_step // args.distill_every > agent.distillations and not run.interrupted
                if args.distill and due:
                    while agent.distilled < args.distill_steps and not run.stop:
                        agent.distill(buffer.sample(agent.share))
                        agent.distilled += 1
                    if run.stop:
                        continue  # a resumed run makes the other steps
                    agent.conquer()
                n_step = run.num_seeds * round_steps
                if not run.collected(collector.collect(n_step=n_step, stop=run.stop, resume=run.interrupted)):
                    continue  # a resumed run collects the rest of the round
                if buffer.sizes.min() >= args.min_buffer_size:
                    run.updates_due = args.gradient_steps_per_round

            # ALGO LOGIC: training
            losses = {}
            while run.update_due():
                losses = agent.update(buffer.sample(args.batch_size))
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
