"""What surrounds a training script: settings, run folder, logs, checkpoints, stop signals, presets, plots.

The collector needs none of this. Here, and nowhere else in `qmp_collect`, torch and the task sets may be imported at will;
`import qmp_collect.runs` itself brings neither.
"""

from qmp_collect.runs.checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from qmp_collect.runs.logger import RunLogger
from qmp_collect.runs.stop import StopSignal

__all__ = ["RunLogger", "StopSignal", "load_checkpoint", "rng_state", "save_checkpoint", "set_rng_state"]
