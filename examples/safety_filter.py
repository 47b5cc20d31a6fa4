"""A safety filter: who may act is decided by the state, or by what each candidate proposes. No action is altered.

The disc in the middle of the square is not to be entered. One candidate, the last, is known to stay outside of it.
`candidate_mask` sees states: near the disc nobody else may act. Commitments and `own_probability` obey it; the warm-up
and `random=True` do not. A switch sees actions too: this one takes only safe ones, and has to be asked at every step.
"""

import gymnasium as gym
import numpy as np

import qmp_envs  # noqa: F401 (registers PointReach-v0)
from qmp_collect import QMPCollector, QSwitch

CENTRE, RADIUS, REACH = np.array([5.0, 5.0]), 1.0, 2**0.5  # of the disc; the longest step
rng = np.random.default_rng(0)


def from_disc(obs, actions=0.0):  # the point is at 10 * obs, an action is added to that
    return np.linalg.norm(10 * obs + actions - CENTRE, axis=-1)


def careful(obs):
    """To the goal; near the disc, along the tangent that leads there."""
    x, y = (10 * obs - CENTRE).T
    tangent = np.stack([-y, x], 1) * np.where(x > y, 1, -1)[:, None] / np.hypot(x, y)[:, None]
    return np.where(from_disc(obs)[:, None] > RADIUS + REACH, (1 - obs).clip(0, 0.1) * 10, tangent)


def own(obs):  # stands in for a learner's policy
    return rng.uniform(-1, 1, obs.shape)


def hasty(obs):
    return np.ones_like(obs)


def q(obs, actions):  # stands in for a learner's critic
    return -np.linalg.norm(1 - obs - actions / 10, axis=-1)


def mask(obs, task_ids):
    return (from_disc(obs) > RADIUS + REACH)[:, None] | np.array([False, False, True])


class Shield:
    needs_scores = True

    def choose(self, candidates):
        vetoed = from_disc(candidates.obs[:, None], candidates.actions) <= RADIUS
        scores = np.where(vetoed, -np.inf, candidates.scores)
        return QSwitch()(scores, candidates.own, candidates.rng)


def outside(step):
    assert (from_disc(step.next_obs) > RADIUS).all(), "the disc was entered"


def allowed(step):
    outside(step)
    acted = mask(step.obs, step.task_ids)[np.arange(len(step.obs)), step.behavior_ids]
    assert acted.all(), "a candidate acted where the mask forbids it"


rules = {
    "mask": {"candidate_mask": mask, "horizon": 5, "own_probability": 0.2, "on_step": allowed},
    "switch": {"switch": Shield(), "on_step": outside},
}
for name, rule in rules.items():
    envs = gym.make_vec("PointReach-v0", num_envs=4)
    collector = QMPCollector(envs, [own, hasty, careful], [q], seed=0, **rule)
    stats = collector.collect(n_episode=10)
    print(f"{name}: own, hasty, careful act {stats.mixture[0].round(2)}, success {stats.successes.mean():.2f}")
