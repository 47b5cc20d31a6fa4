"""QMPCollector: data collection that shares behaviour between the tasks of any multi-task off-policy learner.

QMP (Q-switch Mixture of Policies, ICLR 2025) lets every task's policy propose an action and the acting task's own
Q-function choose. `QMPCollector` is that loop for any learner and any Gymnasium vector environment.

Needs NumPy and Gymnasium. What needs PyTorch (`TaskReplayBuffer`) is imported when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmp_collect.check import check_callables
from qmp_collect.collector import QMPCollector
from qmp_collect.commitment import Commitment, LevyHorizon, UniformHorizon, Until, UntilOwnIsBetter
from qmp_collect.concat import ConcatVectorEnv
from qmp_collect.evaluation import evaluate
from qmp_collect.extras import needs
from qmp_collect.masks import OwnShareFloor, SuccessGate, all_of
from qmp_collect.proposal import Proposal
from qmp_collect.records import as_dict
from qmp_collect.stats import CollectStats
from qmp_collect.switch import (
    Candidates,
    CandidateSwitch,
    FixedSwitch,
    JumpStart,
    OwnPolicy,
    QSwitch,
    SoftmaxQSwitch,
    Switch,
    UniformSwitch,
    lcb,
)
from qmp_collect.transitions import Transitions, TransitionSink

if TYPE_CHECKING:
    from qmp_collect.replay import Batch as Batch
    from qmp_collect.replay import TaskReplayBuffer as TaskReplayBuffer

__version__ = "0.1.0"

# Without what needs PyTorch, so that a star import does not.
__all__ = [
    "CandidateSwitch",
    "Candidates",
    "CollectStats",
    "Commitment",
    "ConcatVectorEnv",
    "FixedSwitch",
    "JumpStart",
    "LevyHorizon",
    "OwnPolicy",
    "OwnShareFloor",
    "Proposal",
    "QMPCollector",
    "QSwitch",
    "SoftmaxQSwitch",
    "SuccessGate",
    "Switch",
    "TransitionSink",
    "Transitions",
    "UniformHorizon",
    "UniformSwitch",
    "Until",
    "UntilOwnIsBetter",
    "all_of",
    "as_dict",
    "check_callables",
    "evaluate",
    "lcb",
]

# What surrounds a training script has moved to a room of its own.
_IN_RUNS = ("RunLogger", "StopSignal", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state")


def __getattr__(name: str) -> Any:
    if name in ("Batch", "TaskReplayBuffer"):
        with needs("train"):
            from qmp_collect import replay

        return getattr(replay, name)
    if name in _IN_RUNS:
        raise AttributeError(f"qmp_collect.{name} has moved: write `from qmp_collect.runs import {name}`")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
