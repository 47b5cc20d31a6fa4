"""EnvPool: a pool per task, side by side in one `ConcatVectorEnv`. All pools work at the same time.

The same class joins whatever makes many environments of one task: Brax, ManiSkill, Gymnasium. Each part is a task.
"""

import envpool
import numpy as np

from qmp_collect import ConcatVectorEnv, QMPCollector

EPISODES = (50, 80)  # what makes the tasks different here: how long an episode lasts
pools = [
    envpool.make_gymnasium("Pendulum-v1", num_envs=4, max_episode_steps=length, seed=task)
    for task, length in enumerate(EPISODES)
]
envs = ConcatVectorEnv(pools)
print("tasks of the sub-environments:", envs.task_ids)

# Stand-ins for learners: noisy pushes to one side or the other, and critics that like a push against the motion.
rng = np.random.default_rng(0)
policies = [lambda obs, m=m: rng.normal(m, 1, (len(obs), 1)).clip(-2, 2).astype(np.float32) for m in (-1, 1)]
q_functions = [lambda obs, actions, w=w: -((actions[:, 0] + w * obs[:, 2]) ** 2) for w in (0.5, 2)]

collector = QMPCollector(envs, policies, q_functions)  # no seed: pools are seeded when they are made
stats = collector.collect(n_step=4_000)
print("length of episodes by task:", stats.per_task(stats.lens), " return:", stats.per_task(stats.returns).round())
print("who acted (row: task, column: policy):", stats.mixture.round(2), sep="\n")
envs.close()
