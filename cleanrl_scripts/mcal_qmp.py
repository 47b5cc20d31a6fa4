"""Multi-task SAC with one policy network and a critic for each task: MCAL, and MCAL + QMP.

Multi-Critic Actor Learning (Mysore et al., 2022; QMP paper, appendix E.5): a policy trunk that all T tasks share, with
linear heads and one temperature for all, learns from critics that do not mix the tasks' values. With ``--critic mn``
these are T pairs of networks, with ``--critic mh`` the heads of one pair. Each gradient step of the critics is followed
by T of the policy. With ``--switch own`` every task is collected by its own head, otherwise by the head whose action
task i's critic values most (QMP, ICLR 2025, algorithm 1).

    python cleanrl_scripts/mcal_qmp.py --env-id Maze10               # MCAL-MN + QMP
    python cleanrl_scripts/mcal_qmp.py --env-id Maze10 --critic mh   # MCAL-MH + QMP
    python cleanrl_scripts/mcal_qmp.py --env-id Maze10 --switch own  # MCAL-MN, nothing else changed
    python cleanrl_scripts/mcal_qmp.py --resume runs/RUN_NAME        # continue exactly where it stopped
"""

import math
import os
from dataclasses import dataclass
from typing import Literal

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
    """gradient steps of each task's critics in a round; of the policy, times the number of tasks"""
    batch_size: int = 256
    """size of the batch of each task's critics, and of the policy's batch of all tasks"""
    critic: Literal["mn", "mh"] = "mn"
    """critics of the tasks: multi-network or multi-head"""
    hidden_dim: int = 256
    """width of the two hidden layers"""
    learning_rate: float = 3e-4
    """of policy, critics and temperature"""
    gamma: float = 0.99
    """discount factor"""
    tau: float = 0.005
    """step of the target critics towards the critics"""
    target_entropy_scale: float = 1.0
    """the target entropy is -dim(A) times this"""

    # Seeds
    num_seeds: int = 1
    """above 1: so many runs side by side in this process, of seeds from --seed on, each with a folder of its own"""

    # Behaviour sharing
    switch: Literal["qmp", "own"] = "qmp"
    """which policy acts: highest value, own"""
    horizon: int = 1
    """steps for which a chosen policy keeps acting"""
    own_probability: float = 0.0
    """at each decision, probability of the own policy acting without a question to the switch"""
    own_probability_final: float | None = None
    """where own_probability arrives at the end of the run, linearly"""
    warmup_rounds: int = 0
    """rounds in which only own policies act"""
    own_fraction: float | None = None
    """share of a batch that the tasks' own policies collected, as far as there is such data (none: as it comes)"""


PRESETS = presets.tuned(presets.SEPARATE, MetaWorldMT10={"own_probability": 0.7})  # paper, appendix H.5


def parse_args(argv: list[str] | None = None) -> Args:
    return settings.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. Layers of several tasks are stacked: all of them are one batched matrix product.
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
    """Twin critics of all tasks: first the T first critics, then the T second ones, on T trunks each or on one."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim, num_seeds, critic):
        super().__init__()
        self.trunks = num_seeds * (num_tasks if critic == "mn" else 1)
        self.fc1 = StackedLinear(2 * self.trunks, obs_dim + action_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc2 = StackedLinear(2 * self.trunks, hidden_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc_q = StackedLinear(2 * num_seeds * num_tasks, hidden_dim, 1, nn.init.xavier_normal_)

    def forward(self, obs, actions, twins=2):
        """(T, B, O) and (T, B, A) -> (twins, T, B)."""
        x = torch.cat([obs, actions], -1).repeat(twins, 1, 1)
        x = x.view(twins * self.trunks, -1, x.shape[-1])  # one trunk takes the rows of all tasks
        x = F.relu_(self.fc1(x))
        x = F.relu_(self.fc2(x))
        return self.fc_q(x.view(twins * len(obs), -1, x.shape[-1])).view(twins, *obs.shape[:2])


LOG_STD_MIN, LOG_STD_MAX = -20, 2


class Actor(nn.Module):
    """Policies, a head for each task: Gaussians squashed by one tanh."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim, num_seeds):
        super().__init__()
        self.num_tasks, self.num_seeds = num_tasks, num_seeds
        self.fc1 = StackedLinear(num_seeds, obs_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc2 = StackedLinear(num_seeds, hidden_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc_mean = StackedLinear(num_seeds * num_tasks, hidden_dim, action_dim, nn.init.xavier_uniform_)
        self.fc_logstd = StackedLinear(num_seeds * num_tasks, hidden_dim, action_dim, nn.init.xavier_uniform_)

    def forward(self, obs):
        """(T, B, O), or (1, B, O) for all heads -> mean and log standard deviation before the tanh, (T, B, A) each.

        Of S seeds (S * T, B, O), or (S, B, O) for all heads of each.
        """
        x = F.relu_(self.fc1(obs.reshape(self.num_seeds, -1, obs.shape[-1])))
        x = F.relu_(self.fc2(x))
        x = x.view(self.num_seeds, -1, obs.shape[1], x.shape[-1]).expand(-1, self.num_tasks, -1, -1).flatten(0, 1)
        return self.fc_mean(x), self.fc_logstd(x).clamp(LOG_STD_MIN, LOG_STD_MAX)

    def noise(self, like):
        """Of an agent of several seeds, each has a generator of its own instead (qmp_collect.runs.seeds)."""
        return torch.randn_like(like)

    def get_action(self, obs, with_log_prob=True):
        """As above -> sampled action (T, B, A), its log-probability (T, B) or None, mean action (T, B, A)."""
        mean, log_std = self(obs)
        noise = self.noise(mean)
        x = mean + log_std.exp() * noise
        if not with_log_prob:  # acting: these small operations cost a fifth of a forward pass of a few rows
            return torch.tanh(x), None, torch.tanh(mean)
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), exact at any x
        return torch.tanh(x), log_prob.sum(-1), torch.tanh(mean)


class Agent:
    """Policy and critics of all tasks: how they learn, and how they answer the collector.

    Of S seeds there are S of them, seed by seed, and shapes that are (T, ...) below are (S * T, ...).
    """

    PARTS = ("actor", "qf", "qf_target", "actor_optimizer", "q_optimizer", "a_optimizer")
    TWINS = ("qf", "qf_target", "q_optimizer")  # have two of everything

    def __init__(self, args, num_tasks, obs_dim, action_dim, device, num_seeds=1):
        self.args, self.num_tasks, self.num_seeds = args, num_tasks, num_seeds
        dims = (num_tasks, obs_dim, action_dim, args.hidden_dim, num_seeds)
        self.actor = Actor(*dims).to(device)
        self.qf = SoftQNetwork(*dims, args.critic).to(device)
        self.qf_target = SoftQNetwork(*dims, args.critic).to(device).requires_grad_(False)
        self.qf_target.load_state_dict(self.qf.state_dict())
        self.log_alpha = torch.zeros(num_seeds, 1, device=device, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        # Adam treats each number by itself, so one optimizer of stacked networks is one optimizer per network.
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def alpha(self):
        """Of each task's rows, (T, 1): that of its seed."""
        return self.log_alpha.detach().exp().repeat_interleave(self.num_tasks, 0)

    def mean(self, x):
        """Over each seed's tasks: (T,) -> (S, 1)."""
        return x.unflatten(0, (self.num_seeds, -1)).mean(-1, keepdim=True)

    def update_critics(self, data):
        """One gradient step of each task's critics on its own batch, fields (T, B, ...). Returns what to log."""
        with torch.no_grad():
            next_actions, next_log_prob, _ = self.actor.get_action(data.next_obs)
            next_value = self.qf_target(data.next_obs, next_actions).amin(0) - self.alpha() * next_log_prob
            target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        # Averaged over the batch, summed over tasks: separate critics' gradients are those of a SAC on its own.
        qf_value = self.qf(data.obs, data.actions)
        qf_loss = (qf_value - target).square().mean(-1)
        self.q_optimizer.zero_grad()
        qf_loss.sum().backward()
        self.q_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        return {"qf_loss": qf_loss.mean(0), "qf_value": qf_value.mean((0, 2))}

    def update_actor(self, obs):
        """One gradient step of policy and temperature on all tasks' observations (T, B, O). Returns what to log."""
        alpha = self.log_alpha.detach().exp()
        actions, log_prob, _ = self.actor.get_action(obs)
        actor_loss = (self.alpha() * log_prob - self.qf(obs, actions).amin(0)).mean(-1)
        self.actor_optimizer.zero_grad()
        loss = self.mean(actor_loss).sum()
        loss.backward(inputs=list(self.actor.parameters()))  # spares the critics' weight gradients
        self.actor_optimizer.step()

        entropy = -log_prob.detach().mean(-1)
        alpha_loss = self.log_alpha * (self.mean(entropy) - self.target_entropy)
        self.a_optimizer.zero_grad()
        alpha_loss.sum().backward()
        self.a_optimizer.step()
        return {"actor_loss": actor_loss, "alpha_loss": alpha_loss, "alpha": alpha, "entropy": entropy}

    # What the collector asks. Rows lie seed by seed, and row i of a seed has task i mod T.
    def by_task(self, x):
        """Each task's rows: (N, ...) -> (T, N / T, ...); of several seeds (S * T, N / (S * T), ...)."""
        return x.unflatten(0, (self.num_seeds, -1, self.num_tasks)).transpose(1, 2).flatten(0, 1)

    def by_row(self, x):
        """And back: (T, N / T, ...) -> (N, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(1, 2).flatten(0, 2)

    def by_policy(self, x):
        """Rows before policies: (T, N, ...) -> (N, T, ...); of several seeds (S * T, N / S, ...) -> (N, T, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(1, 2).flatten(0, 1)

    def policies(self, obs):
        """What each policy proposes in each row: (N, O) -> (N, T, A)."""
        actions, _, means = self.actor.get_action(obs.unflatten(0, (self.num_seeds, -1)), with_log_prob=False)
        return qmp_collect.Proposal(self.by_policy(actions), self.by_policy(means))

    def q_functions(self, obs, actions, task_ids):
        """How much each row's own task values the proposals: (N, O) and (N, K, A) -> (N, K)."""
        obs, actions = self.by_task(obs), self.by_task(actions)
        obs = obs.unsqueeze(2).expand(*actions.shape[:3], -1)
        values = self.qf(obs.flatten(1, 2), actions.flatten(1, 2), twins=1)
        return self.by_row(values.view(actions.shape[:3]))

    def own_policy(self, obs, task_ids):
        """A sample of each row's own policy: (N, O) -> (N, A)."""
        return self.by_row(self.actor.get_action(self.by_task(obs), with_log_prob=False)[0])

    def mean_policy(self, obs, task_ids):
        """The mean action of each row's own policy, for evaluation: (N, O) -> (N, A)."""
        return self.by_row(torch.tanh(self.actor(self.by_task(obs))[0]))

    def state_dict(self):
        return {name: getattr(self, name).state_dict() for name in self.PARTS} | {"log_alpha": self.log_alpha}

    def load_state_dict(self, state):
        check_state(self, state)  # shapes and kinds of everything, before anything is changed
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])


if __name__ == "__main__":
    args = parse_args()
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
    run.accelerate(agent, "update_critics", "update_actor", "policies", "q_functions", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, capacity, per_round=args.env_steps_per_round, round_steps=round_steps
    )
    warmup_steps = args.warmup_rounds * round_steps
    if args.switch != "own" and args.total_timesteps <= warmup_steps:
        print(f"only own policies act: all {args.total_timesteps} steps are warm-up, see --warmup-rounds")
    collector = qmp_collect.QMPCollector(
        envs,
        agent.policies,
        agent.q_functions,
        own_policy=agent.own_policy,
        buffer=buffer,
        switch=qmp_collect.QSwitch() if args.switch == "qmp" else qmp_collect.OwnPolicy(),
        horizon=args.horizon,
        own_probability=run.linear(args.own_probability, args.own_probability_final),
        warmup_steps=warmup_steps,
        backend="torch",
        device=device,
        seed=run.seed,
        **run.rows(envs.num_envs),
    )

    actor_batch_size = max(args.batch_size // num_tasks, 1)
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

            # ALGO LOGIC: collect with the mixture
            if not run.updates_due:  # else a run is resumed that was stopped between its gradient steps
                n_step = run.num_seeds * round_steps
                if not run.collected(collector.collect(n_step=n_step, stop=run.stop, resume=run.interrupted)):
                    continue  # a resumed run collects the rest of the round
                if buffer.sizes.min() >= args.min_buffer_size:
                    run.updates_due = args.gradient_steps_per_round

            # ALGO LOGIC: training
            losses = {}
            while run.update_due():
                losses = agent.update_critics(buffer.sample(args.batch_size, own_fraction=args.own_fraction))
                for _ in range(num_tasks):  # the step of each task's critics is followed by one of the policy
                    losses |= agent.update_actor(buffer.sample(actor_batch_size, own_fraction=args.own_fraction).obs)
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
