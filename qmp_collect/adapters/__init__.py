"""Other libraries' learners and replay buffers beside the collector. None is imported before it is used.

| library | sink | learners |
|---|---|---|
| Stable-Baselines3 | `SB3Sink(model)` | `sb3_agents(models)` gives policies, Q-functions and sinks |
| CleanRL (its copy of that buffer) | `SB3Sink(buffer, scale_actions=False)` | the scripts' own networks, as they are |
| TorchRL | `TorchRLSink(buffer)` | |
| Tianshou | `TianshouSink(buffer, policy)` | |
| any other | `FunctionSink(function)` | |
"""

from __future__ import annotations

from qmp_collect.adapters.common import FunctionSink
from qmp_collect.adapters.sb3 import SB3Sink, sb3_agents
from qmp_collect.adapters.tianshou import TianshouSink
from qmp_collect.adapters.torchrl import TorchRLSink

__all__ = ["FunctionSink", "SB3Sink", "TianshouSink", "TorchRLSink", "sb3_agents"]
