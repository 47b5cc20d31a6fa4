"""The fastest arithmetic that is still float32."""

from __future__ import annotations

import torch


def set_matmul_precision(precision: str, device: torch.device) -> None:
    """``torch.set_float32_matmul_precision``, where ``"auto"`` is the fastest setting that rounds no input.

    On a CPU, ``"medium"`` has oneDNN multiply instead of MKL, which is about twice as fast on AVX512 processors
    that are not Intel's. Only with AMX would it round to bfloat16.
    """
    if precision == "auto":
        avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cpu._is_amx_tile_supported()
        precision = "medium" if device.type == "cpu" and avx512 else "highest"
    torch.set_float32_matmul_precision(precision)


def flush_denormals() -> None:
    """Have this thread take numbers below 1.2e-38 for 0, which processors are slow with.

    They come up in long runs: of a unit that no input activates any more, Adam's averages of gradients decay by a
    factor a step, until they are the smallest numbers that there are, which rounding never lets become 0. In a run of
    Reacher5 they had made a gradient step on a CPU twice as slow (benchmark/denormals.py). PyTorch's other threads are
    not told.
    """
    torch.set_flush_denormal(True)
