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
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from tqdm import tqdm

import qmp_collect
import qmp_envs
from qmp_collect import cli, precision, video


@dataclass
class Args:
    exp_name: str = os.path.basename(__file__)[: -len(".py")]
    """name of the experiment, part of the run's name"""
    seed: int = 1
    """seed of networks, environments, replay and switch"""
    torch_deterministic: bool = True
    """ask cuDNN for deterministic algorithms"""
    cuda: bool = True
    """train on the GPU if there is one"""
    track: bool = False
    """also log to Weights & Biases"""
    wandb_project_name: str = "qmp"
    """Weights & Biases project"""
    wandb_entity: str | None = None
    """Weights & Biases entity (team)"""
    capture_video: bool = False
    """at the end, save one evaluation episode of each task as RUN_DIR/videos/TASK.gif"""

    # Run
    run_dir_root: str = "runs"
    """folder in which the run gets its own folder"""
    resume: str | None = None
    """folder of a run to continue with its own settings, of which only --total-timesteps may be changed"""
    checkpoint_every: int = 0
    """env steps between checkpoints (0: a twentieth of the run)"""
    eval_every: int = 0
    """env steps between evaluations (0: a hundredth of the run)"""
    eval_episodes: int = 10
    """evaluation episodes of each task"""
    torch_threads: int = 0
    """CPU threads of torch (0: as torch decides)"""
    matmul_precision: Literal["auto", "highest", "high", "medium"] = "auto"
    """torch.set_float32_matmul_precision (auto: the fastest that really computes in float32)"""
    compile: bool = False
    """use torch.compile"""
    cudagraphs: bool = False
    """record updates and acting as CUDA graphs (needs a GPU and tensordict)"""

    # Algorithm
    env_id: str = "Maze10-v0"
    """task set"""
    total_timesteps: int = 12_000_000
    """env steps of the run, summed over tasks like every other count of env steps"""
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
    hidden_dim: int = 834
    """width of the two hidden layers"""
    learning_rate: float = 3e-4
    """of policies, critics and temperatures"""
    gamma: float = 0.99
    """discount factor"""
    tau: float = 0.005
    """step of the target critics towards the critics"""
    target_entropy_scale: float = 1.0
    """the target entropy is -dim(A) times this"""

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
    horizon: int = 1
    """steps for which a chosen policy keeps acting"""
    own_probability: float = 0.0
    """at each decision, probability of the own policy acting without a question to the switch"""
    own_probability_final: float | None = None
    """where own_probability arrives at the end of the run, linearly"""
    warmup_rounds: int = 100
    """rounds in which only own policies act"""


# fmt: off
MAZE = {"min_buffer_size": 3_000, "env_steps_per_round": 600, "gradient_steps_per_round": 100, "batch_size": 256,
        "hidden_dim": 834, "warmup_rounds": 100}
OTHER = {"hidden_dim": 512, "warmup_rounds": 0}
METAWORLD = {**OTHER, "env_steps_per_round": 500, "gradient_steps_per_round": 50, "learning_rate": 1.5e-3}
PRESETS: dict[str, dict[str, Any]] = {  # the paper's table 4 and appendix H; its code where they are silent
    "Maze3": {**MAZE, "total_timesteps": 3_600_000},
    "Maze5": {**MAZE, "total_timesteps": 6_000_000},
    "Maze10": {**MAZE, "total_timesteps": 12_000_000},
    "MazeMT10": {**MAZE, "total_timesteps": 12_000_000},
    "Maze20": {**MAZE, "total_timesteps": 24_000_000},
    "Reacher5": {**OTHER, "total_timesteps": 2_000_000, "min_buffer_size": 10_000, "env_steps_per_round": 200,
                 "gradient_steps_per_round": 200, "batch_size": 32, "learning_rate": 1e-3},
    "Walker4": {**OTHER, "total_timesteps": 8_000_000, "min_buffer_size": 10_000, "env_steps_per_round": 1_000,
                "gradient_steps_per_round": 1_500, "batch_size": 256},
    "Kitchen10": {**OTHER, "total_timesteps": 5_000_000, "min_buffer_size": 2_000, "env_steps_per_round": 200,
                  "gradient_steps_per_round": 50, "batch_size": 1_280, "eval_episodes": 5},
    "MetaWorldCDS": {**METAWORLD, "total_timesteps": 10_000_000, "min_buffer_size": 5_000, "batch_size": 256},
    "MetaWorldMT10": {**METAWORLD, "total_timesteps": 40_000_000, "min_buffer_size": 5_000, "batch_size": 2_560,
                      "hidden_dim": 400, "own_probability": 0.7},
    "MetaWorldMT50": {**METAWORLD, "total_timesteps": 30_000_000, "min_buffer_size": 1_500, "batch_size": 1_280,
                      "learning_rate": 3e-4, "hidden_dim": 400, "eval_episodes": 5},
}
# fmt: on


def parse_args(argv: list[str] | None = None) -> Args:
    return cli.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)


# ALGO LOGIC: networks. Twin critics are stacked: a layer of both is one batched matrix product.
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
    """Each row's own task's head: (m, B, T, out) -> (m, B, out)."""
    return x.take_along_dim(task_ids.view(1, -1, 1, 1), dim=2).squeeze(2)


class SoftQNetwork(nn.Module):
    """Twin critics, a head for each task."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.num_tasks = num_tasks
        self.fc1 = StackedLinear(2, obs_dim + action_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc2 = StackedLinear(2, hidden_dim, hidden_dim, nn.init.xavier_normal_)
        self.fc_q = StackedLinear(2, hidden_dim, 1, nn.init.xavier_normal_, num_heads=num_tasks)

    def forward(self, obs, actions, task_ids, twins=2):
        """(B, O), (B, A) and (B,) -> (twins, B) by the heads of the rows' tasks."""
        x = torch.cat([obs, actions], -1).repeat(twins, 1, 1)
        x = F.relu_(self.fc1(x))
        x = F.relu_(self.fc2(x))
        return own_head(self.fc_q(x).unflatten(-1, (self.num_tasks, 1)), task_ids).squeeze(-1)


LOG_STD_MIN, LOG_STD_MAX = -20, 2


class Actor(nn.Module):
    """Policies, a head for each task: Gaussians squashed by one tanh, in training, acting and evaluation alike."""

    def __init__(self, num_tasks, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.num_tasks = num_tasks
        self.fc1 = StackedLinear(1, obs_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc2 = StackedLinear(1, hidden_dim, hidden_dim, nn.init.xavier_uniform_)
        self.fc_mean = StackedLinear(1, hidden_dim, action_dim, nn.init.xavier_uniform_, num_heads=num_tasks)
        self.fc_logstd = StackedLinear(1, hidden_dim, action_dim, nn.init.xavier_uniform_, num_heads=num_tasks)

    def forward(self, obs, task_ids=None):
        """(B, O) -> mean and log standard deviation before the tanh, (B, A) of task_ids' heads or (B, T, A) of all."""
        x = F.relu_(self.fc1(obs.unsqueeze(0)))
        x = F.relu_(self.fc2(x))
        heads = [fc(x).unflatten(-1, (self.num_tasks, -1)) for fc in (self.fc_mean, self.fc_logstd)]
        mean, log_std = [head[0] if task_ids is None else own_head(head, task_ids)[0] for head in heads]
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def get_action(self, obs, task_ids=None, with_log_prob=True):
        """Sampled action (B, A), its log-probability (B,) or None, mean action (B, A); (B, T, ...) without task_ids."""
        mean, log_std = self(obs, task_ids)
        noise = torch.randn_like(mean)
        x = mean + log_std.exp() * noise
        if not with_log_prob:  # acting: these small operations cost a fifth of a forward pass of a few rows
            return torch.tanh(x), None, torch.tanh(mean)
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob -= 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), exact at any x
        return torch.tanh(x), log_prob.sum(-1), torch.tanh(mean)


class Agent:
    """The multi-task SAC: how it learns, and how it answers the collector."""

    PARTS = ("actor", "qf", "qf_target", "actor_optimizer", "q_optimizer", "a_optimizer")
    LOSSES = ("qf_loss", "qf_value", "actor_loss", "alpha_loss", "alpha", "entropy")

    def __init__(self, args, num_tasks, obs_dim, action_dim, device):
        self.args, self.num_tasks = args, num_tasks
        dims = (num_tasks, obs_dim, action_dim, args.hidden_dim)
        self.actor = Actor(*dims).to(device)
        self.qf = SoftQNetwork(*dims).to(device)
        self.qf_target = SoftQNetwork(*dims).to(device).requires_grad_(False)
        self.qf_target.load_state_dict(self.qf.state_dict())
        self.log_alpha = torch.zeros(num_tasks, device=device, requires_grad=True)
        self.target_entropy = -action_dim * args.target_entropy_scale
        adam = {"lr": args.learning_rate, "fused": True, "capturable": args.cudagraphs}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)
        self.q_optimizer = torch.optim.Adam(self.qf.parameters(), **adam)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], **adam)

    def update(self, data):
        """One gradient step on a batch of all tasks, fields (B, ...). Returns LOSSES, then every alpha, (6 + T,)."""
        task_ids, alphas = data.task_ids, self.log_alpha.detach().exp()
        alpha = alphas[task_ids]
        with torch.no_grad():
            next_actions, next_log_prob, _ = self.actor.get_action(data.next_obs, task_ids)
            next_value = self.qf_target(data.next_obs, next_actions, task_ids).amin(0) - alpha * next_log_prob
            target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value

        qf_value = self.qf(data.obs, data.actions, task_ids)
        qf_loss = (qf_value - target).square().mean(-1)
        self.q_optimizer.zero_grad()
        qf_loss.sum().backward()
        self.q_optimizer.step()

        actions, log_prob, _ = self.actor.get_action(data.obs, task_ids)
        actor_loss = (alpha * log_prob - self.qf(data.obs, actions, task_ids).amin(0)).mean(-1)
        self.actor_optimizer.zero_grad()
        actor_loss.backward(inputs=list(self.actor.parameters()))  # spares the critics' weight gradients
        self.actor_optimizer.step()

        # The factor is log(alpha), as in the authors' separate agents, and not alpha, as in their shared ones.
        entropy = -log_prob.detach()
        alpha_loss = (self.log_alpha[task_ids] * (entropy - self.target_entropy)).mean(-1)
        self.a_optimizer.zero_grad()
        alpha_loss.backward()
        self.a_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(self.qf.parameters()), self.args.tau)
        losses = (qf_loss.mean(), qf_value.mean(), actor_loss, alpha_loss, alphas.mean(), entropy.mean())
        return torch.cat([torch.stack(losses), alphas]).detach()

    # What the collector asks
    def policies(self, obs):
        """What each policy proposes in each row: (N, O) -> (N, T, A)."""
        actions, log_prob, means = self.actor.get_action(obs, with_log_prob=self.args.entropy_term)
        entropies = -log_prob if self.args.entropy_term else None
        return qmp_collect.Proposal(actions, means, entropies)

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

    def load_state_dict(self, state):
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_alpha.data.copy_(state["log_alpha"])


def make_switch(args, agent, task_set):
    if args.switch == "domain" and task_set.domain_matrix is None:
        raise SystemExit(f"--switch domain: there is no hand-made mixture for {args.env_id}")
    scoring = {
        "score": "sample" if args.switch_samples > 1 else args.switch_score,
        "samples": args.switch_samples,
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


if __name__ == "__main__":
    args = parse_args()
    resume, args.resume = args.resume, None
    if resume is None:
        run_name = f"{args.env_id}__{args.exp_name}__{args.switch}__{args.seed}__{int(time.time())}"
        run_dir = Path(args.run_dir_root) / run_name
        args.eval_every = args.eval_every or max(args.total_timesteps // 100, 1)
        args.checkpoint_every = args.checkpoint_every or max(args.total_timesteps // 20, 1)
    else:
        run_dir = Path(resume)

    # TRY NOT TO MODIFY: seeding
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = args.torch_deterministic

    device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")
    if args.torch_threads:
        torch.set_num_threads(args.torch_threads)
    precision.set_matmul_precision(args.matmul_precision, device)

    # env setup
    task_set = qmp_envs.TASK_SETS[args.env_id]
    num_tasks, task_names = task_set.num_tasks, task_set.task_names
    same_step = gym.vector.AutoresetMode.SAME_STEP
    envs = gym.make_vec(args.env_id, num_envs=num_tasks * args.envs_per_task, autoreset_mode=same_step)
    eval_envs = gym.make_vec(args.env_id, num_envs=num_tasks * args.eval_episodes, autoreset_mode=same_step)
    obs_space, action_space = envs.single_observation_space, envs.single_action_space
    assert action_space == gym.spaces.Box(-1.0, 1.0, action_space.shape), "only actions in [-1, 1] are supported"

    # ALGO LOGIC: initialize agent, replay buffer and collector here
    agent = Agent(args, num_tasks, obs_space.shape[0], action_space.shape[0], device)
    buffer = qmp_collect.TaskReplayBuffer(
        args.buffer_size // num_tasks, num_tasks, obs_space, action_space, device=device, seed=args.seed
    )
    if args.cudagraphs and device.type != "cuda":
        raise SystemExit("--cudagraphs needs a CUDA device")
    for name in ("update", "policies", "q_functions", "own_policy"):
        if args.compile:
            setattr(agent, name, torch.compile(getattr(agent, name)))
        if args.cudagraphs:
            from tensordict.nn import CudaGraphModule

            setattr(agent, name, CudaGraphModule(getattr(agent, name), warmup=5))

    def own_probability(step):
        final = args.own_probability if args.own_probability_final is None else args.own_probability_final
        return args.own_probability + (final - args.own_probability) * min(step / args.total_timesteps, 1.0)

    round_steps = num_tasks * args.env_steps_per_round
    collector = qmp_collect.QMPCollector(
        envs,
        agent.policies,
        agent.q_functions,
        own_policy=agent.own_policy,
        buffer=buffer,
        switch=make_switch(args, agent, task_set),
        horizon=args.horizon,
        own_probability=own_probability,
        warmup_steps=args.warmup_rounds * round_steps,
        backend="torch",
        device=device,
        seed=args.seed,
    )

    # What is to be continued besides agent, buffer and collector; the three know where they are
    run = {"updates_due": 0, "scalars": {}, "next_eval": 0, "next_checkpoint": args.checkpoint_every}
    stateful = {"agent": agent, "buffer": buffer, "collector": collector}
    checkpoint = run_dir / "checkpoint.npz"
    if resume is not None:
        saved = qmp_collect.load_checkpoint(checkpoint)
        run = saved["run"]
        for name, part in stateful.items():
            part.load_state_dict(saved[name])
        qmp_collect.set_rng_state(saved["rng"])

    def save():
        parts = {name: part.state_dict() for name, part in stateful.items()}
        qmp_collect.save_checkpoint(checkpoint, parts | {"run": run, "rng": qmp_collect.rng_state()})

    def evaluate(step):
        stats = qmp_collect.evaluate(
            eval_envs, agent.mean_policy, backend="torch", device=device, seed=10_000 + args.seed + step
        )
        scalars = {}
        for name, values in (("success", stats.successes), ("return", stats.returns)):
            per_task = stats.per_task(values)
            scalars |= {f"eval/{name}": per_task.mean()}
            scalars |= {f"eval/{task}/{name}": value for task, value in zip(task_names, per_task, strict=True)}
        logger.log(step, scalars)
        if step:
            mixture = np.nan_to_num(collector.stats(clear=True).mixture)[..., None]  # since the last evaluation
            image = 255 - mixture * np.array([247, 207, 148])  # white for 0, dark blue for 1
            logger.log_image(step, "qmp/mixture", image.astype(np.uint8).repeat(24, 0).repeat(24, 1))
        shown["eval"] = f"{scalars['eval/success']:.2f}"
        tqdm.write(f"global_step={step}, success={shown['eval']}, return={scalars['eval/return']:.1f}")
        run["next_eval"] = (step // args.eval_every + 1) * args.eval_every

    wandb = {"track": args.track, "wandb_project": args.wandb_project_name, "wandb_entity": args.wandb_entity}
    global_step = start_step = collector.num_steps
    start_time, shown = time.time(), {}
    with (
        qmp_collect.RunLogger(run_dir, vars(args), resume_step=start_step if resume else None, **wandb) as logger,
        tqdm(total=args.total_timesteps, initial=global_step, unit="step", disable=None) as bar,
        qmp_collect.StopSignal() as stop,
    ):
        tqdm.write(f"{run_dir} on {device}; Ctrl-C saves a checkpoint and stops")
        if args.switch != "own" and args.total_timesteps <= args.warmup_rounds * round_steps:
            tqdm.write(f"only own policies act: all {args.total_timesteps} steps are warm-up, see --warmup-rounds")
        if resume is None:
            collector.reset()
            evaluate(global_step)
        while not stop and (global_step < args.total_timesteps or run["updates_due"]):
            # ALGO LOGIC: collect with the mixture
            if not run["updates_due"]:
                stats = collector.collect(n_step=round_steps)
                times = {"act": stats.act_time, "env": stats.env_time, "store": stats.store_time}
                run["scalars"] = stats.scalars(task_names) | {f"time/{name}": t for name, t in times.items()}
                if len(buffer) >= args.min_buffer_size:
                    run["updates_due"] = num_tasks * args.gradient_steps_per_round
                global_step = collector.num_steps
                bar.update(global_step - bar.n)

            # ALGO LOGIC: training
            update_start, losses = time.time(), None
            while run["updates_due"] and not stop:
                losses = agent.update(buffer.sample_joint(args.batch_size))
                run["updates_due"] -= 1
            if run["updates_due"]:
                break  # asked to stop; the resumed run begins with the gradient steps that are missing

            # Of a round's gradient steps the last one is logged: the only time that the host waits for the device.
            if losses is not None:
                tags = [f"losses/{name}" for name in agent.LOSSES] + [f"tasks/{name}/alpha" for name in task_names]
                run["scalars"] |= zip(tags, losses.tolist(), strict=True)
            sps = (global_step - start_step) / (time.time() - start_time)
            logger.log(global_step, run["scalars"] | {"time/update": time.time() - update_start, "time/sps": sps})
            if "charts/success" in run["scalars"]:
                shown["success"] = f"{run['scalars']['charts/success']:.2f}"
            bar.set_postfix(shown, SPS=int(sps))

            if global_step >= min(run["next_eval"], args.total_timesteps):
                evaluate(global_step)
            if global_step >= run["next_checkpoint"]:
                run["next_checkpoint"] = (global_step // args.checkpoint_every + 1) * args.checkpoint_every
                save()
        save()

    if run["updates_due"] or global_step < args.total_timesteps:
        print(f"stopped at step {global_step}; continue with: python {__file__} --resume {run_dir}")
    elif args.capture_video:
        every = torch.arange(num_tasks, device=device)
        for task, name in enumerate(task_names):

            def act(obs, task=task):
                rows = torch.tensor(obs, dtype=torch.float32, device=device).expand(num_tasks, -1)
                return agent.mean_policy(rows, every)[task].cpu().numpy()

            with gym.make(args.env_id, task=task, render_mode="rgb_array") as env, torch.no_grad():
                video.save_episode(env, act, run_dir / "videos" / f"{name}.gif", seed=args.seed)
    envs.close()
    eval_envs.close()
