"""A learner without PyTorch: tabular Q-learning on two tasks of one chain, collected by the Q-switch.

Run as a program; it fails unless it learned, and unless PyTorch stayed out of it.
"""

import sys

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector, evaluate

STATES, START, LIMIT, GAMMA, T = 9, 4, 20, 0.9, 2


class Chain(gym.Env):
    """Task 0 wants the left end, task 1 the right end. The actions are numbered 5 (left) and 6 (right)."""

    observation_space = gym.spaces.Discrete(STATES)
    action_space = gym.spaces.Discrete(2, start=5)

    def __init__(self, task):
        self.goal = (0, STATES - 1)[task]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.t = START, 0
        return self.state, {}

    def step(self, action):
        self.state = int(np.clip(self.state + 2 * (int(action) - 5) - 1, 0, STATES - 1))
        self.t += 1
        reached = self.state == self.goal
        return self.state, float(reached), reached, self.t == LIMIT, {"success": reached}


class QLearning:
    """A sink that learns from every transition when it arrives."""

    def __init__(self):
        self.q = np.zeros((T, STATES, 2))

    def add(self, transitions):
        columns = (
            transitions.task_ids,
            transitions.obs,
            transitions.actions - 5,
            transitions.rewards,
            transitions.next_obs,
            transitions.terminations,
        )
        for t, s, a, r, s2, ended in zip(*columns, strict=True):
            target = r + GAMMA * (not ended) * self.q[t, s2].max()
            self.q[t, s, a] += 0.5 * (target - self.q[t, s, a])


def main():
    learner, rng = QLearning(), np.random.default_rng(0)

    def greedy(task):
        return lambda obs: 5 + learner.q[task, obs].argmax(-1)

    def exploring(task):
        def act(obs):
            return np.where(rng.random(len(obs)) < 0.5, rng.integers(5, 7, len(obs)), greedy(task)(obs))

        return act

    def chains():
        return gym.vector.SyncVectorEnv([lambda t=t: Chain(t) for t in (0, 1, 1)])

    collector = QMPCollector(
        chains(),
        [exploring(0), exploring(1)],
        [lambda obs, t=t: learner.q[t, obs] for t in range(T)],
        task_ids=[0, 1, 1],
        buffer=learner,
        seed=0,
    )

    def evaluated():
        return evaluate(chains(), [greedy(0), greedy(1)], task_ids=[0, 1, 1], seed=0)

    assert not evaluated().successes[1:].all(), "nothing was learned yet"
    collector.collect(n_step=4000)
    stats = evaluated()
    assert stats.successes.all(), stats
    assert stats.lens.tolist() == [4, 4, 4], stats
    values = GAMMA ** np.array([3.0, 2.0, 1.0, 0.0])  # of the four steps from the start to either end
    np.testing.assert_allclose(learner.q[0, START:0:-1, 0], values, atol=0.01)
    np.testing.assert_allclose(learner.q[1, START:-1, 1], values, atol=0.01)
    assert "torch" not in sys.modules, "something imported PyTorch"


if __name__ == "__main__":
    main()
    print("learned")
