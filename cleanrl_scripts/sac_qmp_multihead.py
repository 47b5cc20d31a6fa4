"""Multi-task SAC with shared networks, one head per task: Parameter-Sharing, and Parameter-Sharing + QMP.

One policy trunk and twin critic trunks for all T tasks, with linear heads and a temperature for each task; batches mix
all tasks. With ``--switch own`` every task is collected by its own head. Otherwise the tasks share behaviour as well:
every step of task i is executed by one of the T policy heads, by default the one whose action task i's critic head
values most (QMP, ICLR 2025, algorithm 1).

    python cleanrl_scripts/sac_qmp_multihead.py --env-id Maze10               # QMP with the paper's hyperparameters
    python cleanrl_scripts/sac_qmp_multihead.py --env-id Maze10 --switch own  # Parameter-Sharing, nothing else changed
    python cleanrl_scripts/sac_qmp_multihead.py --resume runs/RUN_NAME        # continue exactly where it stopped
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
    """replay capacity of all tasks together"""
    min_buffer_size: int = 3_000
    """transitions of all tasks together before learning starts, collected by the same mixture as later ones"""
    env_steps_per_round: int = 600
    """env steps of each task in a round"""
    gradient_steps_per_round: int = 100
    """gradient steps in a round, times the number of tasks"""
    batch_size: int = 256
    """size of a batch of all tasks"""
    hidden_dim: int = 512
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


PRESETS = presets.tuned(  # paper, appendices H.3 and H.5; MT10's width is that of the authors' MT50
    presets.JOINT,
    Maze={"hidden_dim": 834, "warmup_rounds": 100},
    Reacher5={"learning_rate": 1e-3},
    MetaWorldMT10={"hidden_dim": 400, "own_probability": 0.7},
)


def parse_args(argv: list[str] | None = None) -> Args:
    return settings.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. Twin critics are stacked, and so are seeds: a layer of all is one batched matrix product.
class StackedLinear(nn.Module):
    """Several linear layers side by side: (m, B, in) -> (m, B, heads * out) by the first m of them."""

    def __init__(self, num_layers, in_dim, out_dim, init, num_heads=1):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_layers, in_dim, num_heads * out_dim))
        self.bias = nn.Parameter(torch.zeros(num_layers, 1, num_heads * out_dim))
        for weight in self.weight.data:  # one by one, so that the fans are those of one layer and of one head
            for head in weight.split(out_dim, dim=1):
                init(head)

    def forward(self, x):
        if len(x) < len(self.weight):
            return torch.baddbmm(self.bias[: len(x)], x, self.weight[: len(x)])
        return torch.baddbmm(self.bias, x, self.weight)


def own_head(x, task_ids):
    """Each row's own task's head: (m, N, T, out) -> (m, N, out)."""
    return x.take_along_dim((task_ids % x.shape[2]).view(1, -1, 1, 1), dim=2).squeeze(2)


class SoftQNetwork(nn.Module):
    """Twin critics, a head for each task: first the seeds' first critics, then their second ones."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim, num_seeds):
        super().__init__()
        self.num_tasks, self.num_seeds = num_tasks, num_seeds
        self.fc1 = StackedLinear(2 * num_seeds, obs_dim + action_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc2 = StackedLinear(2 * num_seeds, hidden_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc_q = StackedLinear(2 * num_seeds, hidden_dim, 1, nn.init.xavier_normal_, num_heads=num_tasks)

    def forward(self, obs, actions, task_ids, twins=2):
        """(N, O), (N, A) and (N,) -> (twins, N) by the heads of the rows' tasks."""
        x = torch.cat([obs, actions], -1).view(self.num_seeds, -1, obs.shape[-1] + actions.shape[-1])
        x = F.relu_(self.fc1(x.repeat(twins, 1, 1)))
        x = F.relu_(self.fc2(x))
        return own_head(self.fc_q(x).view(twins, -1, self.num_tasks, 1), task_ids).squeeze(-1)


LOG_STD_MIN, LOG_STD_MAX = -20, 2


class Actor(nn.Module):
    """Policies, a head for each task: Gaussians squashed by one tanh, in training, acting and evaluation alike."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim, num_seeds):
        super().__init__()
        self.num_tasks, self.num_seeds = num_tasks, num_seeds
        self.fc1 = StackedLinear(num_seeds, obs_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc2 = StackedLinear(num_seeds, hidden_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc_mean = StackedLinear(num_seeds, hidden_dim, action_dim, nn.init.xavier_uniform_, num_heads=num_tasks)
        self.fc_logstd = StackedLinear(num_seeds, hidden_dim, action_dim, nn.init.xavier_uniform_, num_heads=num_tasks)

    def forward(self, obs, task_ids=None):
        """(N, O) -> mean and log standard deviation before the tanh, (N, A) of task_ids' heads or (N, T, A) of all."""
        x = F.relu_(self.fc1(obs.view(self.num_seeds, -1, obs.shape[-1])))
        x = F.relu_(self.fc2(x))
        heads = [fc(x).view(1, len(obs), self.num_tasks, -1) for fc in (self.fc_mean, self.fc_logstd)]
        mean, log_std = [head[0] if task_ids is None else own_head(head, task_ids)[0] for head in heads]
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def noise(self, like):
        """Of an agent of several seeds, each has a generator of its own instead (qmp_collect.runs.seeds)."""
        return torch.randn_like(like)

    def get_action(self, obs, task_ids=None, with_log_prob=True):
        """Sampled action (N, A), its log-probability (N,) or None, mean action (N, A); (N, T, ...) without task_ids."""
        mean, log_std = self(obs, task_ids)
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
    """The multi-task SAC: how it learns, and how it answers the collector.

    Of S seeds there are S of them. Rows lie seed by seed then, and task_ids count on: those of seed s begin at s * T.
    """

    PARTS = ("actor", "qf", "qf_target", "actor_optimizer", "q_optimizer", "a_optimizer")
    TWINS = ("qf", "qf_target", "q_optimizer")  # have two of everything

    def __init__(self, args, num_tasks, obs_dim, action_dim, device, num_seeds=1):
        self.args, self.num_tasks, self.num_seeds = args, num_tasks, num_seeds
        dims = (num_tasks, obs_dim, action_dim, args.hidden_dim, num_seeds)
        self.actor = Actor(*dims).to(device)
        self.qf = SoftQNetwork(*dims).to(device)
        self.qf_target = SoftQNetwork(*dims).to(device).requires_grad_(False)
        self.qf_target.load_state_dict(self.qf.state_dict())
        self.log_alpha = torch.zeros(num_seeds * num_tasks, device=device, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        # Adam treats each number by itself, so one optimizer of stacked networks is one optimizer per network.
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def mean(self, x, dims=-1):
        """Over each seed's rows, and other dims: (..., N) -> (..., S, 1)."""
        return x.unflatten(-1, (self.num_seeds, -1)).mean(dims, keepdim=True)

    def update(self, data):
        """One gradient step on each seed's batch of all tasks, fields (N, ...).

        Returns what to log, (S, 1) each, and (S * T,) of what each task has.
        """
        task_ids, alphas = data.task_ids, self.log_alpha.detach().exp()
        alpha = alphas[task_ids]
        with torch.no_grad():
            next_actions, next_log_prob, _ = self.actor.get_action(data.next_obs, task_ids)
            next_value = self.qf_target(data.next_obs, next_actions, task_ids).amin(0) - alpha * next_log_prob
            target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        qf_value = self.qf(data.obs, data.actions, task_ids)
        qf_loss = self.mean((qf_value - target).square())
        self.q_optimizer.zero_grad()
        qf_loss.sum().backward()
        self.q_optimizer.step()

        actions, log_prob, _ = self.actor.get_action(data.obs, task_ids)
        actor_loss = self.mean(alpha * log_prob - self.qf(data.obs, actions, task_ids).amin(0))
        self.actor_optimizer.zero_grad()
        actor_loss.sum().backward(inputs=list(self.actor.parameters()))  # spares the critics' weight gradients
        self.actor_optimizer.step()

        # The factor is log(alpha), as in the authors' separate agents, and not alpha, as in their shared ones.
        entropy = -log_prob.detach()
        alpha_loss = self.mean(self.log_alpha[task_ids] * (entropy - self.target_entropy))
        self.a_optimizer.zero_grad()
        alpha_loss.sum().backward()
        self.a_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        return {
            "qf_loss": qf_loss.mean(0),
            "qf_value": self.mean(qf_value, (0, -1))[0],
            "actor_loss": actor_loss,
            "alpha_loss": alpha_loss,
            "alpha": alphas,
            "entropy": self.mean(entropy),
        }

    # What the collector asks
    def policies(self, obs):
        """What each policy proposes in each row: (N, O) -> (N, T, A)."""
        mean, log_std = self.actor(obs)
        actions = torch.tanh(mean + log_std.exp() * self.actor.noise(mean))
        return qmp_collect.Proposal(
            actions, torch.tanh(mean), entropies(mean, log_std) if self.args.entropy_term else None
        )

    def q_functions(self, obs, actions, task_ids):
        """How much each row's own task values the proposals: (N, O) and (N, K, A) -> (N, K)."""
        candidates = actions.shape[1]
        obs, task_ids = (x.repeat_interleave(candidates, dim=0) for x in (obs, task_ids))
        twins = 1 if self.args.switch_critic == "q1" else 2
        return self.qf(obs, actions.flatten(0, 1), task_ids, twins).amin(0).view(-1, candidates)

    def own_policy(self, obs, task_ids):
        """A sample of each row's own policy: (N, O) -> (N, A)."""
        return self.actor.get_action(obs, task_ids, with_log_prob=False)[0]

    def mean_policy(self, obs, task_ids):
        """The mean action of each row's own policy, for evaluation: (N, O) -> (N, A)."""
        return torch.tanh(self.actor(obs, task_ids)[0])

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
        "entropy_weight": (lambda: agent.log_alpha.detach().exp()) if args.entropy_term else 0.0,
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
    capacity = args.buffer_size // num_tasks
    rows = min(capacity, run.storable(round_steps, num_tasks * args.envs_per_task * max(args.hosts, 1)))
    of_tasks = rows, num_tasks, obs_space, action_space
    buffer = run.make_buffer(lambda seed: qmp_collect.TaskReplayBuffer(*of_tasks, device=device, seed=seed))
    run.accelerate(agent, "update", "policies", "q_functions", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, num_tasks * capacity, per_round=round_steps, round_steps=round_steps
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
                if len(buffer) >= args.min_buffer_size:
                    run.updates_due = num_tasks * args.gradient_steps_per_round

            # ALGO LOGIC: training
            losses = {}
            while run.update_due():
                losses = agent.update(buffer.sample_joint(args.batch_size, own_fraction=args.own_fraction))
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
