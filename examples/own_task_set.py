"""A task set of your own, with the training scripts as they are: `--import own_task_set` opens `--env-id` to it.

    python cleanrl_scripts/sac_qmp_separate.py --import examples.own_task_set --env-id Compass4

Four hooks on arrays of all N sub-environments make it; resets, seeds, checkpoints and infos come with the base class.
"""

import gymnasium as gym
import numpy as np

import qmp_envs
from qmp_envs import BatchedVectorEnv, TaskSet

GOALS = np.array([[0, 4], [4, 0], [0, -4], [-4, 0]], np.float64)
COMPASS = TaskSet(
    env_id="Compass4-v0",
    task_names=("north", "east", "south", "west"),
    horizon=30,
    success_rule="the point is within 0.5 of the task's goal; the episode ends there",
    min_reward=-1.5,
    reward_version="distance",
    source="an example",
)


class CompassVectorEnv(BatchedVectorEnv):
    def __init__(self, env_id, num_envs=1, **kwargs):
        box = gym.spaces.Box(-5, 5, (2,))
        super().__init__(COMPASS, box, gym.spaces.Box(-1, 1, (2,)), num_envs=num_envs, **kwargs)
        self._episode["position"] = np.zeros((num_envs, 2))  # what an episode is made of is saved with it

    def _start(self, rows):
        self._episode["position"][rows] = [self.rngs[i].uniform(-0.5, 0.5, 2) for i in rows]

    def _advance(self, actions):
        position = self._episode["position"]
        np.clip(position + 0.5 * actions.clip(-1, 1), -5, 5, out=position)

    def _judge(self):
        distance = np.linalg.norm(self._episode["position"] - GOALS[self.task_ids], axis=1)
        return -distance / 7, distance < 0.5, {"success": distance < 0.5}

    def _observe(self):
        return self._episode["position"].astype(np.float32)


qmp_envs.register(COMPASS, CompassVectorEnv)

if __name__ == "__main__":
    import subprocess
    import sys
    from pathlib import Path

    here = Path(__file__).parent
    script = here.parent / "cleanrl_scripts" / "sac_qmp_separate.py"
    flags = "--import own_task_set --env-id Compass4 --hidden-dim 32 --batch-size 64 --learning-rate 3e-3"
    flags += " --min-buffer-size 100 --env-steps-per-round 50 --gradient-steps-per-round 10"
    flags += " --total-timesteps 800 --eval-every 400 --run-dir-root"
    subprocess.run([sys.executable, script, *flags.split(), Path.cwd() / "runs"], cwd=here, check=True)
