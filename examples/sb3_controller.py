"""Your controller and your SAC: one task, one Stable-Baselines3 model, and a scripted controller that helps it collect.

The controller is what one has at hand: it swings a pendulum up by pumping energy into it, with a noisy hand, and does
not know how to hold it there. It acts in the steps in which the SAC's own critic prefers what it proposes.
"""

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC

from qmp_collect import Proposal, QMPCollector, evaluate
from qmp_collect.adapters import sb3_agents

STEPS = 600  # 5_000 see the pendulum stand
rng = np.random.default_rng(0)


def controller(obs):
    """(M, 3) -> (M, 1): push with the motion while there is too little energy to stand, else against it."""
    cos, _, velocity = obs.T
    push = (2 * np.sign(velocity) * np.sign(10 - 0.5 * velocity**2 - 10 * cos))[:, None]
    return Proposal((push + rng.normal(0, 0.5, push.shape)).clip(-2, 2), push)  # what is executed, what is scored


envs = gym.make_vec("Pendulum-v1", num_envs=1)
model = SAC("MlpPolicy", gym.make("Pendulum-v1"), policy_kwargs={"net_arch": [64, 64]}, seed=0, device="cpu")
models = [model]
policies, q_functions, sinks = sb3_agents(models)
collector = QMPCollector(envs, [*policies, controller], q_functions, buffer=sinks, seed=0)  # the one line

collector.collect(n_step=200, random=True)
while collector.num_steps < STEPS:
    stats = collector.collect(n_step=40)
    model.train(gradient_steps=20, batch_size=64)
print("share of the steps, own and controller:", collector.stats().mixture[0].round(2))

# The SAC alone, without noise: what it has learned from both.
stats = evaluate(gym.make_vec("Pendulum-v1", num_envs=1), policies, episodes_per_env=2, seed=1)
print("return:", stats.returns.round())
