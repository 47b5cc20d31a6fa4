"""Methods of an agent, compiled or recorded as CUDA graphs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only


def accelerate(agent: object, *methods: str, compile: bool, cudagraphs: bool) -> None:
    """Replace these methods of ``agent`` by compiled ones, or by ones recorded as CUDA graphs, or by both."""
    for name in methods:
        if compile:
            setattr(agent, name, torch.compile(getattr(agent, name)))
        if cudagraphs:
            # What tensordict would otherwise say of itself, line by line, at every start.
            os.environ.setdefault("TD_LOGGING_LEVEL", "WARNING")
            os.environ.setdefault("EXCLUDE_TD_FROM_PYTREE", "1")
            from tensordict.nn import CudaGraphModule

            setattr(agent, name, CudaGraphModule(_detached(getattr(agent, name)), warmup=5))


def _detached(method: Callable[..., Any]) -> Callable[..., Any]:
    """What is recorded must not return anything that keeps an autograd graph alive."""

    def call(*args: Any) -> Any:
        return tree_map_only(torch.Tensor, torch.Tensor.detach, method(*args))

    return call
