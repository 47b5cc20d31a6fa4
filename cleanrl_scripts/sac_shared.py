"""Multi-task SAC in which all tasks are one: Fully-Shared-Behaviors.

A single SAC agent for T tasks: one policy, twin critics, one temperature, one replay buffer. Nothing tells the networks
which task a transition is from: every task is collected by the same policy, and the critics regress a mixture of all
tasks' rewards (QMP paper, section 6.2). Where the same state asks for different actions in different tasks, no such
policy can be right in all of them.

    python cleanrl_scripts/sac_shared.py --env-id Maze10         # the paper's hyperparameters
    python cleanrl_scripts/sac_shared.py --resume runs/RUN_NAME  # continue exactly where it stopped
"""

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
    exp_name: str = os.path.basename(__file__)[: -len(".py")]
    """name of the experiment, part of the run's name"""

    # Algorithm
    envs_per_task: int = 1
    """parallel environments of each task"""
    buffer_size: int = 1_000_000
    """replay capacity of all tasks together"""
    min_buffer_size: int = 3_000
    """transitions of all tasks together before learning starts, collected by the policy"""
    env_steps_per_round: int = 600
    """env steps of each task in a round"""
    gradient_steps_per_round: int = 100
    """gradient steps in a round, times the number of tasks"""
    batch_size: int = 256
    """size of a batch of all tasks"""
    hidden_dim: int = 512
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


_METAWORLD = {"hidden_dim": 512, "learning_rate": 1e-3}
PRESETS = presets.tuned(  # paper, appendix H.3
    presets.JOINT,
    Maze={"hidden_dim": 834},
    Reacher5={"hidden_dim": 600},
    MetaWorldCDS=_METAWORLD,
    MetaWorldMT10=_METAWORLD,
)


def parse_args(argv: list[str] | None = None) -> Args:
    return settings.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. Twin critics are stacked, and so are seeds: a layer of all is one batched matrix product.
class StackedLinear(nn.Module):
    """Several linear layers side by side: (m, B, in) -> (m, B, out)."""

    def __init__(self, num_layers, in_dim, out_dim, init):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_layers, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(num_layers, 1, out_dim))
        for weight in self.weight.data:  # one by one, so that the fans are those of one layer
            init(weight)

    def forward(self, x):
        if self.weight.shape[-1] == 1:  # matrix libraries are several times slower at products with one column
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class SoftQNetwork(nn.Module):
    """Twin critics of all tasks: first the seeds' first critics, then their second ones."""

    def __init__(self, obs_dim, action_dim, hidden_dim, num_seeds):
        super().__init__()
        self.num_seeds = num_seeds
        self.fc1 = StackedLinear(2 * num_seeds, obs_dim + action_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc2 = StackedLinear(2 * num_seeds, hidden_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc_q = StackedLinear(2 * num_seeds, hidden_dim, 1, nn.init.xavier_normal_)

    def forward(self, obs, actions):
        """(N, O) and (N, A) -> (2, N)."""
        x = torch.cat([obs, actions], -1).view(self.num_seeds, -1, obs.shape[-1] + actions.shape[-1])
        x = F.relu_(self.fc1(x.repeat(2, 1, 1)))
        x = F.relu_(self.fc2(x))
        return self.fc_q(x).view(2, -1)


LOG_STD_MIN, LOG_STD_MAX = -20, 2


class Actor(nn.Module):
    """The policy of all tasks: a Gaussian squashed by one tanh."""

    def __init__(self, obs_dim, action_dim, hidden_dim, num_seeds):
        super().__init__()
        self.num_seeds = num_seeds
        self.fc1 = StackedLinear(num_seeds, obs_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc2 = StackedLinear(num_seeds, hidden_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc_mean = StackedLinear(num_seeds, hidden_dim, action_dim, nn.init.xavier_uniform_)
        self.fc_logstd = StackedLinear(num_seeds, hidden_dim, action_dim, nn.init.xavier_uniform_)

    def forward(self, obs):
        """(N, O) -> mean and log standard deviation before the tanh, (N, A) each."""
        x = F.relu_(self.fc1(obs.view(self.num_seeds, -1, obs.shape[-1])))
        x = F.relu_(self.fc2(x))
        mean, log_std = (fc(x).flatten(0, 1) for fc in (self.fc_mean, self.fc_logstd))
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def noise(self, like):
        """Of an agent of several seeds, each has a generator of its own instead (qmp_collect.runs.seeds)."""
        return torch.randn_like(like)

    def get_action(self, obs, with_log_prob=True):
        """(N, O) -> sampled action (N, A), its log-probability (N,) or None, mean action (N, A)."""
        mean, log_std = self(obs)
        noise = self.noise(mean)
        x = mean + log_std.exp() * noise
        if not with_log_prob:  # acting: these small operations cost a fifth of a forward pass of a few rows
            return torch.tanh(x), None, torch.tanh(mean)
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), exact at any x
        return torch.tanh(x), log_prob.sum(-1), torch.tanh(mean)


class Agent:
    """The SAC of all tasks: how it learns, and how it answers the collector.

    Of S seeds there are S of them, and rows lie seed by seed.
    """

    PARTS = ("actor", "qf", "qf_target", "actor_optimizer", "q_optimizer", "a_optimizer")
    TWINS = ("qf", "qf_target", "q_optimizer")  # have two of everything

    def __init__(self, args, obs_dim, action_dim, device, num_seeds=1):
        self.args, self.num_seeds = args, num_seeds
        dims = (obs_dim, action_dim, args.hidden_dim, num_seeds)
        self.actor = Actor(*dims).to(device)
        self.qf = SoftQNetwork(*dims).to(device)
        self.qf_target = SoftQNetwork(*dims).to(device).requires_grad_(False)
        self.qf_target.load_state_dict(self.qf.state_dict())
        self.log_alpha = torch.zeros(num_seeds, 1, device=device, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def of_seeds(self, x):
        """Each seed's rows: (..., N) -> (..., S, N / S)."""
        return x.unflatten(-1, (self.num_seeds, -1))

    def update(self, data):
        """One gradient step on each seed's batch of all tasks, fields (N, ...). Returns what to log, (S, 1) each."""
        alphas = self.log_alpha.detach().exp()
        alpha = alphas.expand(-1, len(data.rewards) // self.num_seeds).flatten()
        with torch.no_grad():
            next_actions, next_log_prob, _ = self.actor.get_action(data.next_obs)
            next_value = self.qf_target(data.next_obs, next_actions).amin(0) - alpha * next_log_prob
            target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        qf_value = self.qf(data.obs, data.actions)
        qf_loss = self.of_seeds((qf_value - target).square()).mean(-1, keepdim=True)
        self.q_optimizer.zero_grad()
        qf_loss.sum().backward()
        self.q_optimizer.step()

        actions, log_prob, _ = self.actor.get_action(data.obs)
        actor_loss = self.of_seeds(alpha * log_prob - self.qf(data.obs, actions).amin(0)).mean(-1, keepdim=True)
        self.actor_optimizer.zero_grad()
        actor_loss.sum().backward(inputs=list(self.actor.parameters()))  # spares the critics' weight gradients
        self.actor_optimizer.step()

        # The factor is log(alpha), as in the authors' separate agents, and not alpha, as in their shared ones.
        entropy = self.of_seeds(-log_prob.detach())
        alpha_loss = (self.log_alpha * (entropy - self.target_entropy)).mean(-1, keepdim=True)
        self.a_optimizer.zero_grad()
        alpha_loss.sum().backward()
        self.a_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        return {
            "qf_loss": qf_loss.mean(0),
            "qf_value": self.of_seeds(qf_value).mean((0, -1)).unsqueeze(-1),
            "actor_loss": actor_loss,
            "alpha_loss": alpha_loss,
            "alpha": alphas,
            "entropy": entropy.mean(-1, keepdim=True),
        }

    # What the collector asks; whose rows they are makes no difference
    def own_policy(self, obs, task_ids):
        """A sample of the policy in each row: (N, O) -> (N, A)."""
        return self.actor.get_action(obs, with_log_prob=False)[0]

    def mean_policy(self, obs, task_ids):
        """The mean action of the policy in each row, for evaluation: (N, O) -> (N, A)."""
        return torch.tanh(self.actor(obs)[0])

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
    agent = run.make_agent(lambda num_seeds: Agent(args, *dims, device, num_seeds))
    round_steps = num_tasks * args.env_steps_per_round
    capacity = args.buffer_size // num_tasks
    rows = min(capacity, run.storable(round_steps, num_tasks * args.envs_per_task))
    of_tasks = rows, num_tasks, obs_space, action_space
    buffer = run.make_buffer(lambda seed: qmp_collect.TaskReplayBuffer(*of_tasks, device=device, seed=seed))
    run.accelerate(agent, "update", "own_policy")

    run.check_learning_starts(
        args.min_buffer_size, num_tasks * capacity, per_round=round_steps, round_steps=round_steps
    )
    collector = qmp_collect.QMPCollector(
        envs,
        policies=None,
        q_functions=None,
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

            # ALGO LOGIC: collect with the policy
            if not run.updates_due:  # else a run is resumed that was stopped between its gradient steps
                n_step = run.num_seeds * round_steps
                if not run.collected(collector.collect(n_step=n_step, stop=run.stop, resume=run.interrupted)):
                    continue  # a resumed run collects the rest of the round
                if len(buffer) >= args.min_buffer_size:
                    run.updates_due = num_tasks * args.gradient_steps_per_round

            # ALGO LOGIC: training
            losses = {}
            while run.update_due():
                losses = agent.update(buffer.sample_joint(args.batch_size))
            run.end_round(losses)
        run.save_videos(agent.mean_policy)
    envs.close()
    eval_envs.close()
