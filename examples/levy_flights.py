"""Exploration as in MT-Levy: now and then a related task's policy takes over, for a Levy flight.

Most flights are a step or two long, a few are long: their lengths follow a power law. Which tasks are related is a
matrix. Related policies are equally likely here; `switch=QSwitch()` lets the acting task's critic choose.
"""

import gymnasium as gym
import numpy as np

import qmp_envs  # noqa: F401 (registers Maze3-v0)
from qmp_collect import LevyHorizon, OwnPolicy, QMPCollector, UniformSwitch

RELATED = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)  # row: task, column: policy

# Stand-ins for learners: each drifts to a side of its own.
rng = np.random.default_rng(0)
policies = [lambda obs, m=m: rng.normal(m, 0.5, (len(obs), 2)).clip(-1, 1) for m in ((1, 0), (0, 1), (-1, -1))]
rules = {
    "own policies": {"switch": OwnPolicy()},
    "another one at every step": {"switch": UniformSwitch(), "candidate_mask": RELATED},
    "Levy flights": {"switch": UniformSwitch(), "candidate_mask": RELATED, "horizon": LevyHorizon(1.5, cap=100)},
}
visited = {}
for name, rule in rules.items():
    places = set()  # cells of the maze that a task's ball has been in

    def note(step, places=places):
        places.update(zip(step.task_ids.tolist(), *step.obs[:, :2].round().T.tolist(), strict=True))

    envs = gym.make_vec("Maze3-v0", num_envs=3)
    collector = QMPCollector(envs, policies, None, on_step=note, seed=0, **rule)
    stats = collector.collect(n_step=3_000)
    visited[name] = len(places)
assert not stats.mixture[~RELATED].any(), "a policy acted in a task that it is not related to"
print("cells visited:", visited)
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
