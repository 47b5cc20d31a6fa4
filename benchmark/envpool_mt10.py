"""What MT10 costs in EnvPool: CPU time per transition with 10 and 80 sub-environments, one thread a task.

    pip install envpool==1.2.5 && python benchmark/envpool_mt10.py

To be run where EnvPool is installed, which brings three packages of assets; nothing of this package is needed. EnvPool
has one pool per task, so ten of them are stepped side by side. To be compared with
``speed.py --only meta_world --cpu-time`` on the same machine at the same time.
"""

from __future__ import annotations

import time

import envpool
import numpy as np

TASKS = (
    "Reach", "Push", "PickPlace", "DoorOpen", "DrawerOpen", "DrawerClose", "ButtonPressTopdown", "PegInsertSide",
    "WindowOpen", "WindowClose",
)  # fmt: skip


def trial(envs_per_task: int, steps: int) -> float:
    """Seconds of CPU per transition, of all threads."""
    pools = [
        envpool.make_gymnasium(f"MetaWorld/{task}-v3", num_envs=envs_per_task, num_threads=1, seed=1) for task in TASKS
    ]
    for pool in pools:
        pool.reset()
    shape = (steps, len(TASKS), envs_per_task, 4)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    start = time.process_time()
    for step in actions:
        for pool, action in zip(pools, step, strict=True):
            pool.send(action)
        for pool in pools:
            pool.recv()
    used = (time.process_time() - start) / (steps * len(TASKS) * envs_per_task)
    for pool in pools:
        pool.close()
    return used


if __name__ == "__main__":
    for _ in range(5):
        for envs_per_task, steps in ((1, 200), (8, 40)):
            print(f"{10 * envs_per_task} sub-environments: {1e6 * trial(envs_per_task, steps):.0f} us", flush=True)
