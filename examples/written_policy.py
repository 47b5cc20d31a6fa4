"""A policy written as plain Python text, as language models write them: checked, loaded like any module, a candidate.

No model is called here: the two drafts stand in for its answers. What `check_callables` says of a draft is what to send
back. Text of others is code of others: run it where it can do no harm.
"""

import importlib.util
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

from qmp_collect import QMPCollector, check_callables

DRAFTS = [
    """
import numpy as np

def policy(obs):  # swing up, then balance
    cos, sin, velocity = obs[:, 0], obs[:, 1], obs[:, 2]
    return np.where(cos > 0.9, -8 * sin - 2 * velocity, 2 * np.sign(velocity))
""",
    """
import numpy as np

def policy(obs):  # swing up, then balance
    cos, sin, velocity = obs[:, 0], obs[:, 1], obs[:, 2]
    return np.where(cos > 0.9, -8 * sin - 2 * velocity, 2 * np.sign(velocity)).clip(-2, 2)[:, None]
""",
]


def load(text, path):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.policy


# Stand-ins for a learner that knows nothing yet: its policy pushes anyhow, its critic likes what brakes or balances.
rng = np.random.default_rng(0)
policies = [lambda obs: rng.uniform(-2, 2, (len(obs), 1))]
q_functions = [lambda obs, actions: -((actions[:, 0] + 8 * obs[:, 1] + 2 * obs[:, 2]) ** 2)]

envs = gym.make_vec("Pendulum-v1", num_envs=4)
folder, spaces = Path(tempfile.mkdtemp()), (envs.single_observation_space, envs.single_action_space)
for number, text in enumerate(DRAFTS):
    written = load(text, folder / f"written_{number}.py")
    try:
        check_callables([*policies, written], q_functions, *spaces, num_tasks=1)
    except (TypeError, ValueError, FloatingPointError) as error:
        print(f"draft {number} is refused: {error}")
    else:
        policies.append(written)
        print(f"draft {number} is a candidate")

collector = QMPCollector(envs, policies, q_functions, seed=0)
stats = collector.collect(n_episode=4)
print("share of the steps, learner and written policy:", stats.mixture[0].round(2), " return:", stats.returns.mean())
