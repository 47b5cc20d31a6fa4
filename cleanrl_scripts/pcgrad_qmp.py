"""Multi-task SAC with shared networks and gradient surgery: PCGrad, and PCGrad + QMP.

The networks of sac_qmp_multihead.py: one policy trunk and twin critic trunks, with linear heads and a temperature for
each task. Before a step, the gradients that the tasks have for a shared trunk are compared: where two of them point
against each other, each loses its component along the other (PCGrad, Yu et al., NeurIPS 2020, algorithm 1; QMP paper,
appendix E.3). With ``--switch own`` every task is collected by its own head, otherwise by the head whose action task
i's critic head values most (QMP, ICLR 2025, algorithm 1).

    python cleanrl_scripts/pcgrad_qmp.py --env-id Maze10               # PCGrad + QMP
    python cleanrl_scripts/pcgrad_qmp.py --env-id Maze10 --switch own  # PCGrad, nothing else changed
    python cleanrl_scripts/pcgrad_qmp.py --resume runs/RUN_NAME        # continue exactly where it stopped
"""

import math
import os
from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from torch.func import functional_call, grad, vmap

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
    """replay capacity of all tasks together"""
    min_buffer_size: int = 3_000
    """transitions of all tasks together before learning starts, collected by the same mixture as later ones"""
    env_steps_per_round: int = 600
    """env steps of each task in a round"""
    gradient_steps_per_round: int = 100
    """gradient steps in a round, times the number of tasks"""
    batch_size: int = 256
    """size of a batch of all tasks, in equal shares"""
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
    surgery: Literal["trunk", "all"] = "trunk"
    """gradients that are compared and projected: of the shared layers, or of the heads as well (authors' code)"""

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


PRESETS = presets.tuned(  # those of sac_qmp_multihead.py: paper, appendices H.3 and H.5
    presets.JOINT,
    Maze={"hidden_dim": 834, "warmup_rounds": 100},
    Reacher5={"learning_rate": 1e-3},
    MetaWorldMT10={"hidden_dim": 400, "own_probability": 0.7},
)


def parse_args(argv: list[str] | None = None) -> Args:
    return settings.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. Twin critics are stacked.
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
        # A product for each of two layers, not one of both: torch.func.vmap copies a stack of weights for every task.
        layers = zip(x, self.weight, self.bias, strict=False)
        return torch.stack([torch.addmm(bias, rows, weight) for rows, weight, bias in layers])


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

    def uniform(self, like):
        """And for what is drawn uniformly."""
        return torch.rand_like(like)

    def get_action(self, obs, task_ids=None, with_log_prob=True):
        """Sampled action (N, A), its log-probability (N,) or None, mean action (N, A); (N, T, ...) without task_ids."""
        mean, log_std = self(obs, task_ids)
        return sample(mean, log_std, self.noise(mean), with_log_prob)


def sample(mean, log_std, noise, with_log_prob=True):
    """Sampled action, its log-probability or None, mean action."""
    x = mean + log_std.exp() * noise
    if not with_log_prob:  # acting: these small operations cost a fifth of a forward pass of a few rows
        return torch.tanh(x), None, torch.tanh(mean)
    log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), exact at any x
    return torch.tanh(x), log_prob.sum(-1), torch.tanh(mean)


# ALGO LOGIC: gradient surgery
def task_gradients(loss, net, data, noise):
    """Each task's gradients of its own loss, (T, ...) by parameter name, in one backward pass; and what `loss` adds."""
    # Tasks have the same weights and rows of their own: a layer's T gradients are one batched product, of B rows each.
    return vmap(grad(loss, has_aux=True), (None, 0, 0))(dict(net.named_parameters()), data, noise)


def pcgrad(gram, order):
    """PCGrad's combination of T gradients, from their inner products (m, T, T): the weight of each in it, (m, T).

    All tasks' gradients are projected side by side. Row i of ``mix`` is what became of gradient i, in terms of the
    original ones; it meets them in the order of row i of ``order`` (m, T, T).
    """
    mix = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).repeat(len(gram), 1, 1)
    for other in order.split(1, dim=-1):
        products = gram.take_along_dim(other, dim=-2)  # row i: the other's with every gradient
        conflict = (mix * products).sum(-1, keepdim=True).clamp(max=0)
        square = products.take_along_dim(other, dim=-1).clamp(min=torch.finfo(gram.dtype).tiny)
        mix.scatter_add_(-1, other, -conflict / square)
    return mix.mean(-2)


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
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def tasks_first(self, x):
        """Tasks before seeds: (S * T, B, ...) -> (T, S * B, ...)."""
        return x.unflatten(0, (self.num_seeds, -1)).transpose(0, 1).flatten(1, 2)

    def mean_of_each(self, x):
        """What each task has of its rows' seeds, on average: (T, ..., S * B) -> (S * T, ...)."""
        return x.unflatten(-1, (self.num_seeds, -1)).mean(-1).movedim(-1, 0).flatten(0, 1)

    def random_order(self, gram):
        """In what order each task's gradient meets the tasks': (m, T, T) -> (m, T, T)."""
        by_seed = self.actor.uniform(gram).unflatten(0, (self.num_seeds, -1))  # as the generators are
        return by_seed.transpose(0, 1).flatten(0, 1).argsort(-1)

    def operate(self, net, gradients):
        """Fill in net's gradients from those of the tasks. Returns the share of pairs in conflict, (S, 1)."""
        in_surgery = [name for name in gradients if self.args.surgery == "all" or name.startswith(("fc1", "fc2"))]
        flat = [gradients[name].flatten(2).transpose(0, 1) for name in in_surgery]
        gram = sum(x @ x.mT for x in flat)  # twin critics are two networks, each with inner products of its own
        weights = pcgrad(gram, self.random_order(gram))
        for name, parameter in net.named_parameters():
            # A head has a gradient from its own task only; 1 / T is also what all weights are where nothing conflicts.
            each = weights if name in in_surgery else torch.full_like(weights, 1 / self.num_tasks)
            parameter.grad = torch.einsum("mt,tm...->m...", each, gradients[name])
        conflicts = (gram < 0).unflatten(0, (-1, self.num_seeds))
        pairs = len(conflicts) * self.num_tasks * max(self.num_tasks - 1, 1)
        return conflicts.sum((0, 2, 3)).unsqueeze(-1) / pairs

    def q_loss(self, parameters, data, noise):
        """Of one task, fields (S * B, ...), as a function of the critics' parameters."""
        alpha = self.log_alpha.detach().exp()[data.task_ids]
        next_actions, next_log_prob, _ = sample(*self.actor(data.next_obs, data.task_ids), noise)
        next_value = self.qf_target(data.next_obs, next_actions, data.task_ids).amin(0) - alpha * next_log_prob
        target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        qf_value = functional_call(self.qf, parameters, (data.obs, data.actions, data.task_ids))
        square = (qf_value - target).square()
        return self.sum_of_seeds(square), (square, qf_value)

    def actor_loss(self, parameters, data, noise):
        """Of one task, fields (S * B, ...), as a function of the policy's parameters."""
        alpha = self.log_alpha.detach().exp()[data.task_ids]
        actions, log_prob, _ = sample(*functional_call(self.actor, parameters, (data.obs, data.task_ids)), noise)
        value = alpha * log_prob - self.qf(data.obs, actions, data.task_ids).amin(0)
        return self.sum_of_seeds(value), (value, log_prob)

    def sum_of_seeds(self, x):
        """Averaged over each seed's rows, which are its own loss: (..., S * B) -> ()."""
        return x.unflatten(-1, (self.num_seeds, -1)).mean(-1).sum()

    def update(self, data):
        """One gradient step of each seed on a batch of each task, fields (S * T, B, ...).

        Returns what to log, (S * T,) of what each task has and (S, 1) of what a seed has.
        """
        first = torch.arange(self.num_seeds, device=data.obs.device).repeat_interleave(self.num_tasks) * self.num_tasks
        data = data._replace(task_ids=data.task_ids + first.unsqueeze(-1))
        of_tasks = type(data)(*map(self.tasks_first, data))
        with torch.no_grad():
            alphas = self.log_alpha.exp()
            noise = self.tasks_first(self.actor.noise(data.actions))
            gradients, (square, qf_value) = task_gradients(self.q_loss, self.qf, of_tasks, noise)
            qf_conflicts = self.operate(self.qf, gradients)
            self.q_optimizer.step()

            noise = self.tasks_first(self.actor.noise(data.actions))
            gradients, (actor_loss, log_prob) = task_gradients(self.actor_loss, self.actor, of_tasks, noise)
            actor_conflicts = self.operate(self.actor, gradients)
            self.actor_optimizer.step()

        # The factor is log(alpha), as in the authors' separate agents, and not alpha, as in their shared ones.
        entropy = self.mean_of_each(-log_prob)
        alpha_loss = self.log_alpha * (entropy - self.target_entropy)
        self.a_optimizer.zero_grad()
        (alpha_loss.sum() / self.num_tasks).backward()
        self.a_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        return {
            "qf_loss": self.mean_of_each(square).mean(-1),
            "qf_value": self.mean_of_each(qf_value).mean(-1),
            "actor_loss": self.mean_of_each(actor_loss),
            "alpha_loss": alpha_loss,
            "alpha": alphas,
            "entropy": entropy,
            "qf_conflicts": qf_conflicts,
            "actor_conflicts": actor_conflicts,
        }

    # What the collector asks
    def policies(self, obs):
        """What each policy proposes in each row: (N, O) -> (N, T, A)."""
        actions, _, means = self.actor.get_action(obs, with_log_prob=False)
        return qmp_collect.Proposal(actions, means)

    def q_functions(self, obs, actions, task_ids):
        """How much each row's own task values the proposals: (N, O) and (N, K, A) -> (N, K)."""
        candidates = actions.shape[1]
        obs, task_ids = (x.repeat_interleave(candidates, dim=0) for x in (obs, task_ids))
        return self.qf(obs, actions.flatten(0, 1), task_ids, twins=1).view(-1, candidates)

    def own_policy(self, obs, task_ids):
        """A sample of each row's own policy: (N, O) -> (N, A)."""
        return self.actor.get_action(obs, task_ids, with_log_prob=False)[0]

    def mean_policy(self, obs, task_ids):
        """The mean action of each row's own policy, for evaluation: (N, O) -> (N, A)."""
        return torch.tanh(self.actor(obs, task_ids)[0])

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
    capacity = args.buffer_size // num_tasks
    rows = min(capacity, run.storable(round_steps, num_tasks * args.envs_per_task))
    of_tasks = rows, num_tasks, obs_space, action_space
    buffer = run.make_buffer(lambda seed: qmp_collect.TaskReplayBuffer(*of_tasks, device=device, seed=seed))
    run.accelerate(agent, "update", "policies", "q_functions", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, num_tasks * capacity, per_round=round_steps, round_steps=round_steps
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

    task_batch_size = max(args.batch_size // num_tasks, 1)
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
                losses = agent.update(buffer.sample(task_batch_size, own_fraction=args.own_fraction))
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
