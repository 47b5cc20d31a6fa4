"""Multi-task SAC with separate networks: No-Sharing, QMP, and every switch ablation.

T tasks, each with its own policy, twin critics, temperature and replay buffer. With ``--switch own`` they never meet:
T independent SACs. Otherwise they share behaviour and nothing else: every step of task i is executed by one of the T
policies, by default the one whose action task i's critic values most (QMP, ICLR 2025, algorithm 1).

    python cleanrl_scripts/sac_qmp_separate.py --env-id Maze10               # QMP with the paper's hyperparameters
    python cleanrl_scripts/sac_qmp_separate.py --env-id Maze10 --switch own  # No-Sharing, nothing else changed
    python cleanrl_scripts/sac_qmp_separate.py --resume runs/RUN_NAME        # continue exactly where it stopped
"""

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Literal

import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch.utils._pytree import tree_map

import qmp_collect
import qmp_envs
from qmp_collect.runs import presets, settings, training
from qmp_collect.runs.forms import check_state
from qmp_collect.runs.schedule import linear


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

    # Many machines
    hosts: int = 0
    """collect on so many hosts of a Ray cluster, --envs-per-task environments of every task on each; 0: here"""

    # Behaviour sharing
    switch: Literal["qmp", "own", "uniform", "domain", "softmax"] = "qmp"
    """which policy acts: highest value, own, uniform, hand-made mixture, softmax of the values"""
    switch_score: Literal["mean", "sample"] = "mean"
    """score the policies' mean actions or their samples; what is executed is a sample"""
    switch_samples: int = 1
    """above 1: score a policy by the mean value of that many samples"""
    switch_temperature: float = 1.0
    """of --switch softmax"""
    switch_critic: Literal["q1", "min"] = "q1"
    """score with the first critic or with the smaller value of both"""
    switch_critic_of: Literal["task", "proposer", "next"] = "task"
    """whose critic scores: the acting task's; negative controls: that of the policy that proposes, of the next task"""
    entropy_term: bool = False
    """add alpha times the proposing policy's entropy to its score"""
    switch_margin: float = 0.0
    """by how much another policy's score must exceed the own one's"""
    switch_hysteresis: float = 0.0
    """by how much a score must exceed that of the policy that acted last"""
    switch_relative: bool = False
    """margin and hysteresis are in units of the running standard deviation of the task's own scores"""
    success_gate: float | None = None
    """a task's policy acts elsewhere only while more than this share of its own last 20 episodes succeed"""
    own_share_floor: float | None = None
    """nobody else acts in a task while its own policy acts in less than this share of its last 1000 steps or so"""
    horizon: int = 1
    """steps for which a chosen policy keeps acting; with another --horizon-rule than fixed, at most"""
    horizon_rule: Literal["fixed", "uniform", "levy", "until-own"] = "fixed"
    """always so many steps, a random number (equally likely, or n ** -2), until the own policy scores higher"""
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


def entropies(mean, log_std):
    """Of Gaussians squashed by a tanh, (..., A) -> (...): the Gaussian's plus E[log(1 - tanh(x)^2)].

    The expectation is a sum over a grid of the noise, which converges as fast as for any smooth function under a
    Gaussian: to 3e-4 per dimension at the widest policy that there is, and to 1e-7 below a standard deviation of 2.
    """
    noise = torch.linspace(-6, 6, 65, dtype=mean.dtype, device=mean.device)
    x = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * noise
    squashing = 2 * (math.log(2) - x - F.softplus(-2 * x)) @ torch.softmax(-0.5 * noise.square(), 0)
    return (log_std + 0.5 * math.log(2 * math.pi * math.e) + squashing).sum(-1)


class Agent:
    """All tasks' SACs at once: how they learn, and how they answer the collector.

    Of S seeds there are S * T of them, seed by seed, and shapes that are (T, ...) below are (S * T, ...).
    """

    PARTS = ("actor", "qf", "qf_target", "actor_optimizer", "q_optimizer", "a_optimizer")
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
        # Adam treats each number by itself, so one optimizer of stacked networks is one optimizer per network.
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def update(self, data):
        """One gradient step of each task on its own batch, fields (T, B, ...). Returns what to log, (T,) each."""
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
        }

    # What the collector asks. Rows lie seed by seed, and row i of a seed has task i mod T.
    def by_task(self, x):
        """Each task's rows: (N, ...) -> (T, N / T, ...); of several seeds (S * T, N / (S * T), ...)."""
        return x.unflatten(0, (self.num_seeds, -1, self.num_tasks)).transpose(1, 2).flatten(0, 1)

    def by_row(self, x):
        """And back: (T, N / T, ...) -> (N, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(1, 2).flatten(0, 2)

    def by_policy(self, x):
        """Policies before rows, and back: (N, T, ...) <-> (T, N, ...); of several seeds (S * T, N / S, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(1, 2).flatten(0, 1)

    def next_task(self, x, step):
        """(T, ...) rolled by some tasks, within each seed."""
        return x.unflatten(0, (self.num_seeds, -1)).roll(step, 1).flatten(0, 1)

    def policies(self, obs):
        """What each policy proposes in each row: (N, O) -> (N, T, A)."""
        mean, log_std = self.actor(self.by_policy(obs.unsqueeze(1).expand(-1, self.num_tasks, -1)))
        actions = torch.tanh(mean + log_std.exp() * self.actor.noise(mean))
        entropy = self.by_policy(entropies(mean, log_std)) if self.args.entropy_term else None
        return qmp_collect.Proposal(self.by_policy(actions), self.by_policy(torch.tanh(mean)), entropy)

    def q_functions(self, obs, actions, task_ids):
        """How much each row's own task values the proposals: (N, O) and (N, K, A) -> (N, K)."""
        twins = 1 if self.args.switch_critic == "q1" else 2
        if self.args.switch_critic_of == "proposer":  # argmax_j Q_j(s, a_j): values of different tasks, not QMP
            obs = self.by_policy(obs.unsqueeze(1).expand(-1, self.num_tasks, -1))
            return self.by_policy(self.qf(obs, self.by_policy(actions), twins).amin(0))
        obs, actions = self.by_task(obs), self.by_task(actions)
        wrong = self.args.switch_critic_of == "next"
        if wrong:
            obs, actions = self.next_task(obs, 1), self.next_task(actions, 1)  # task i's rows go to the critic of i + 1
        obs = obs.unsqueeze(2).expand(*actions.shape[:3], -1)
        values = self.qf(obs.flatten(1, 2), actions.flatten(1, 2), twins).amin(0)
        values = self.next_task(values, -1) if wrong else values
        return self.by_row(values.view(actions.shape[:3]))

    def own_policy(self, obs, task_ids):
        """A sample of each row's own policy: (N, O) -> (N, A)."""
        return self.by_row(self.actor.get_action(self.by_task(obs), with_log_prob=False)[0])

    def mean_policy(self, obs, task_ids):
        """The mean action of each row's own policy, for evaluation: (N, O) -> (N, A)."""
        return self.by_row(torch.tanh(self.actor(self.by_task(obs))[0]))

    def state_dict(self):
        return {name: getattr(self, name).state_dict() for name in self.PARTS} | {"log_alpha": self.log_alpha}

    def acting_weights(self):
        """What a host needs to act, on the CPU."""
        parts = {name: getattr(self, name).state_dict() for name in ("actor", "qf")}
        return tree_map(lambda tensor: tensor.detach().cpu(), parts | {"log_alpha": self.log_alpha})

    def set_acting_weights(self, weights):
        self.actor.load_state_dict(weights["actor"])
        self.qf.load_state_dict(weights["qf"])
        self.log_alpha.data.copy_(weights["log_alpha"])

    def load_state_dict(self, state):
        check_state(self, state)  # shapes and kinds of everything, before anything is changed
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])


def make_switch(args, agent, task_set):
    if args.switch == "domain" and task_set.domain_matrix is None:
        raise SystemExit(f"--switch domain: there is no hand-made mixture for {args.env_id}")
    scoring = {
        "score": "sample" if args.switch_samples > 1 else args.switch_score,
        "samples": args.switch_samples,
        "margin": args.switch_margin,
        "hysteresis": args.switch_hysteresis,
        "relative": args.switch_relative,
        "entropy_weight": (lambda: agent.log_alpha.detach().exp().flatten()) if args.entropy_term else 0.0,
    }
    switches = {
        "qmp": lambda: qmp_collect.QSwitch(**scoring),
        "own": qmp_collect.OwnPolicy,
        "uniform": qmp_collect.UniformSwitch,
        "domain": lambda: qmp_collect.FixedSwitch(task_set.domain_matrix),
        "softmax": lambda: qmp_collect.SoftmaxQSwitch(args.switch_temperature, **scoring),
    }
    return switches[args.switch]()


def make_candidate_mask(args):
    gates = []
    if args.success_gate is not None:
        gates.append(qmp_collect.SuccessGate(args.success_gate, episodes=20))
    if args.own_share_floor is not None:
        gates.append(qmp_collect.OwnShareFloor(args.own_share_floor, steps=1000))
    return qmp_collect.all_of(*gates) if gates else None


def make_horizon(args):
    rules = {
        "fixed": lambda: args.horizon,
        "uniform": lambda: qmp_collect.UniformHorizon(1, args.horizon),
        "levy": lambda: qmp_collect.LevyHorizon(2.0, cap=args.horizon),
        "until-own": lambda: qmp_collect.UntilOwnIsBetter(cap=args.horizon),
    }
    return rules[args.horizon_rule]()


# A simulation that diverges ends its episode, which charts/diverged counts: an error would come again whenever the run
# is resumed.
ENV_SETTINGS = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP, "on_divergence": "end"}


def make_collector(args, agent, envs, hosts=1, **of_run):
    """Who acts in ``envs``, as the flags say; steps are counted by each of the hosts for itself."""
    task_set = qmp_envs.TASK_SETS[args.env_id]
    probability = linear(args.own_probability, args.own_probability_final, args.total_timesteps)
    return qmp_collect.QMPCollector(
        envs,
        agent.policies,
        agent.q_functions,
        own_policy=agent.own_policy,
        switch=make_switch(args, agent, task_set),
        candidate_mask=make_candidate_mask(args),
        horizon=make_horizon(args),
        own_probability=lambda steps: probability(steps * hosts),
        warmup_steps=args.warmup_rounds * args.env_steps_per_round * task_set.num_tasks // hosts,
        backend="torch",
        **of_run,
    )


def make_host(shard, args):
    """On a host: environments of its own, and networks that are given what the learner publishes."""
    if args.import_ is not None:
        settings.import_own(args.import_)
    torch.set_num_threads(1)
    num_tasks = qmp_envs.TASK_SETS[args.env_id].num_tasks
    envs = gym.make_vec(args.env_id, num_envs=num_tasks * args.envs_per_task, **ENV_SETTINGS)
    dims = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    agent = Agent(args, num_tasks, *dims, torch.device("cpu"))
    collector = make_collector(args, agent, envs, shard.hosts, buffer=shard.buffer, seed=shard.seed)
    return collector, agent.set_acting_weights


if __name__ == "__main__":
    args = parse_args()
    task_set = qmp_envs.TASK_SETS[args.env_id]
    num_tasks = task_set.num_tasks
    run = training.TrainingRun(args, task_set.task_names)
    device = run.device

    # env setup; hosts make those that they train in
    num_envs = run.num_seeds * num_tasks * args.eval_envs_per_task
    eval_envs = gym.make_vec(args.env_id, num_envs=num_envs, **ENV_SETTINGS)
    num_envs = run.num_seeds * num_tasks * args.envs_per_task
    envs = eval_envs if args.hosts else gym.make_vec(args.env_id, num_envs=num_envs, **ENV_SETTINGS)
    obs_space, action_space = envs.single_observation_space, envs.single_action_space
    if action_space != gym.spaces.Box(-1.0, 1.0, action_space.shape):
        raise SystemExit(f"--env-id {args.env_id}: expected actions in [-1, 1], its action space is {action_space}")

    # ALGO LOGIC: initialize agent, replay buffer and collector here
    dims = obs_space.shape[0], action_space.shape[0]
    agent = run.make_agent(lambda num_seeds: Agent(args, num_tasks, *dims, device, num_seeds))
    round_steps = num_tasks * args.env_steps_per_round
    capacity = args.buffer_size
    rows = min(capacity, run.storable(round_steps, num_tasks * args.envs_per_task * max(args.hosts, 1)))
    of_tasks = rows, num_tasks, obs_space, action_space
    buffer = run.make_buffer(lambda seed: qmp_collect.TaskReplayBuffer(*of_tasks, device=device, seed=seed))
    run.accelerate(agent, "update", "policies", "q_functions", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, capacity, per_round=args.env_steps_per_round, round_steps=round_steps
    )
    warmup_steps = args.warmup_rounds * round_steps
    if args.switch != "own" and args.total_timesteps <= warmup_steps:
        print(f"only own policies act: all {args.total_timesteps} steps are warm-up, see --warmup-rounds")
    if args.hosts:
        collector = run.fleet(partial(make_host, args=args), agent.acting_weights, buffer)
    else:
        of_run = {"buffer": buffer, "device": device, "seed": run.seed, **run.rows(envs.num_envs)}
        collector = make_collector(args, agent, envs, **of_run)

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
                losses = agent.update(buffer.sample(args.batch_size, own_fraction=args.own_fraction))
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
