"""A switch of your own: any object that maps scores to policies. Here, now and then any of them, and else the best.

`scores` is (N, K), a row for each sub-environment; `own` is (N,), the row's own policy; so is the answer. A candidate
that must not be chosen scores -inf. A method `choose(candidates)` instead is shown much more than scores.
"""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector


@dataclass(frozen=True)
class EpsilonSwitch:
    epsilon: float
    needs_scores = True  # False spares the calls of the Q-functions: the scores are zeros then

    def __call__(self, scores, own, rng):
        drawn = np.where(scores > -np.inf, rng.random(scores.shape), -np.inf)
        return np.where(rng.random(len(own)) < self.epsilon, drawn.argmax(axis=1), scores.argmax(axis=1))


# Stand-ins for learners: the policies push a pendulum to different sides, the critics like the push that brakes it.
rng = np.random.default_rng(0)
policies = [lambda obs, m=m: rng.normal(m, 1, (len(obs), 1)).clip(-2, 2) for m in (-1, 0, 1)]
q_functions = [lambda obs, actions, w=w: -((actions[:, 0] + w * obs[:, 2]) ** 2) for w in (0.5, 1, 2)]

for epsilon in (1.0, 0.2, 0.0):
    envs = gym.make_vec("Pendulum-v1", num_envs=3)
    collector = QMPCollector(envs, policies, q_functions, switch=EpsilonSwitch(epsilon), seed=0)
    stats = collector.collect(n_step=1_500)
    own = stats.mixture.diagonal().round(2)
    print(f"epsilon {epsilon}: own policy acts {own}, value gained {stats.q_gap.round(2)}")
