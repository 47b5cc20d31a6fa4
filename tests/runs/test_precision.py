"""Arithmetic that a training run asks for."""

from __future__ import annotations

import torch

from qmp_collect.runs.precision import flush_denormals

SMALLEST = 2.0**-149  # of float32


def test_a_moment_that_decays_arrives_at_0() -> None:
    """Adam's average of gradients that have become 0 stays at a denormal number for good, unless it is flushed."""
    parameter = torch.nn.Parameter(torch.ones(16))
    found = []
    for flush in (False, True):
        adam = torch.optim.Adam([parameter], fused=True)
        for step in range(1200):  # 0.9 ** 830 is below the smallest normal number
            if flush and step == 600:
                flush_denormals()
            parameter.grad = torch.full((16,), float(step == 0))
            adam.step()
        found.append(adam.state[parameter]["exp_avg"].double().unique().tolist())
    (stays,), flushed = found
    assert 0 < stays <= 5 * SMALLEST
    assert flushed == [0.0]
