"""More policies than tasks: Meta-World's scripted policies beside the learners' own. They propose, but own no task.

The own policies come first, policy t being task t's; then as many helpers as you like: scripted, frozen, a person's.
Each callable gets the arrays that it needs, so that NumPy scripts stand beside PyTorch modules.
"""

import warnings

import gymnasium as gym
import numpy as np
import torch
from metaworld.policies import ENV_POLICY_MAP
from torch import nn

import qmp_envs  # noqa: F401 (registers MetaWorldMT10-v0)
from qmp_collect import FixedSwitch, QMPCollector

warnings.filterwarnings("ignore", "Constant")  # the scripts' remark that their actions will be clipped
torch.manual_seed(0)
envs = gym.make_vec("MetaWorldMT10-v0", num_envs=10, vector_strategy="sync", max_episode_steps=120)
names = envs.unwrapped.task_names
T = len(names)


def scripted(name):
    script = ENV_POLICY_MAP[name]()  # knows one state at a time
    return lambda obs: np.stack([script.get_action(row) for row in obs.astype(np.float64)]).clip(-1, 1)


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), nn.Tanh())


own = [network(39, 4) for _ in names]
critics = [network(39 + 4, 1) for _ in names]
policies = [*own, *(scripted(name) for name in names)]
q_functions = [lambda obs, actions, q=q: q(torch.cat([obs, actions], -1)) for q in critics]

# The critics are untrained, and so the helpers act by chance here; a trained one leaves to them what they do better.
stats = QMPCollector(envs, policies, q_functions, seed=0).collect(n_step=100)
print("shape of who acted:", stats.mixture.shape, " share of the helpers:", stats.mixture[:, T:].sum(1).mean().round(2))

# Leave every task to its own helper, T + t: what such a helper can do.
collector = QMPCollector(envs, policies, None, switch=FixedSwitch(np.eye(T, 2 * T, T)), seed=0)
stats = collector.collect(n_episode=1)
print(
    "success with one's own helper:", dict(zip(names, stats.per_task(stats.successes).round(1).tolist(), strict=True))
)
envs.close()
