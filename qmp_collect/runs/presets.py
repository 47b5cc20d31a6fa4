"""The paper's hyperparameters for each task set, by id without version (paper, table 4).

Where the table is silent or cannot be meant, they are those of the authors' code: the Reacher's 200 environment and
200 gradient steps a round, all of Meta-World MT50, evaluation episodes, and the minimums in `JOINT`. The lengths of
runs are those of the paper's figures, and for Walker4 of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Presets = dict[str, dict[str, Any]]

_MAZE = {"min_buffer_size": 3_000, "env_steps_per_round": 600, "gradient_steps_per_round": 100, "batch_size": 256}
_METAWORLD = {"env_steps_per_round": 500, "gradient_steps_per_round": 50, "learning_rate": 1.5e-3}
_PROCESSES = {"eval_envs_per_task": 1}  # each sub-environment is a process

# fmt: off
# Methods with a replay buffer for each task; all numbers but total_timesteps are of one task.
SEPARATE: Presets = {
    "Maze3": {**_MAZE, "total_timesteps": 3_600_000},
    "Maze5": {**_MAZE, "total_timesteps": 6_000_000},
    "Maze10": {**_MAZE, "total_timesteps": 12_000_000},
    "MazeMT10": {**_MAZE, "total_timesteps": 12_000_000},
    "Maze20": {**_MAZE, "total_timesteps": 24_000_000},
    "Reacher5": {"total_timesteps": 2_000_000, "min_buffer_size": 10_000, "env_steps_per_round": 200,
                 "gradient_steps_per_round": 200, "batch_size": 32},
    "Walker4": {"total_timesteps": 8_000_000, "min_buffer_size": 2_500, "env_steps_per_round": 1_000,
                "gradient_steps_per_round": 1_500, "batch_size": 256},
    "Kitchen10": {"total_timesteps": 5_000_000, "min_buffer_size": 200, "env_steps_per_round": 200,
                  "gradient_steps_per_round": 50, "batch_size": 1_280, "eval_episodes": 5},
    "MetaWorldCDS": {**_METAWORLD, "total_timesteps": 10_000_000, "min_buffer_size": 10_000, "batch_size": 256},
    "MetaWorldMT10": {**_METAWORLD, **_PROCESSES, "total_timesteps": 40_000_000, "min_buffer_size": 500,
                      "batch_size": 2_560},
    "MetaWorldMT50": {**_METAWORLD, **_PROCESSES, "total_timesteps": 30_000_000, "min_buffer_size": 1_500,
                      "batch_size": 1_280, "learning_rate": 3e-4, "hidden_dim": 400, "eval_episodes": 5},
}
# fmt: on


def tuned(presets: Presets, **changes: Mapping[str, Any]) -> Presets:
    """The presets with ``changes`` for the ids that begin with the name of a keyword; later keywords win."""
    return {
        env_id: preset
        | {k: v for name, change in changes.items() if env_id.startswith(name) for k, v in change.items()}
        for env_id, preset in presets.items()
    }


# Methods with one replay buffer for all tasks: the learning starts when the buffers of all tasks together hold so much.
JOINT = tuned(
    SEPARATE,
    Walker4={"min_buffer_size": 10_000},
    Kitchen10={"min_buffer_size": 2_000},
    MetaWorldCDS={"min_buffer_size": 5_000},
    MetaWorldMT10={"min_buffer_size": 5_000},
)
