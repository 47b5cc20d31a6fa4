"""The fastest matrix products that are still float32."""

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
