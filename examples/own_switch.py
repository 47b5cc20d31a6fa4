"""A switch of your own: any object that maps scores to policies. Here, others act only if they are better by a margin.

`scores` is (M, K), a row for each sub-environment that decides; `own` is (M,), the row's own policy; so is the answer.
A candidate that must not be chosen scores -inf. The margin is in units of Q-values.
"""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector


@dataclass(frozen=True)
class MarginSwitch:
    margin: float
    needs_scores = True  # False spares the calls of the Q-functions: the scores are zeros then

    def __call__(self, scores, own, rng):
        rows, best = np.arange(len(own)), scores.argmax(axis=1)
        return np.where(scores[rows, best] > scores[rows, own] + self.margin, best, own)


# Stand-ins for learners: the policies push a pendulum to different sides, the critics like the push that brakes it.
rng = np.random.default_rng(0)
policies = [lambda obs, m=m: rng.normal(m, 1, (len(obs), 1)).clip(-2, 2) for m in (-1, 0, 1)]
q_functions = [lambda obs, actions, w=w: -((actions[:, 0] + w * obs[:, 2]) ** 2) for w in (0.5, 1, 2)]

for margin in (0.0, 2.0, 8.0, np.inf):
    envs = gym.make_vec("Pendulum-v1", num_envs=3)
    collector = QMPCollector(envs, policies, q_functions, switch=MarginSwitch(margin), seed=0)
    stats = collector.collect(n_step=1_500)
    own = stats.mixture.diagonal().round(2)
    print(f"margin {margin:3}: own policy acts {own}, value gained {stats.q_gap.round(2)}")
