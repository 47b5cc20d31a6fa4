"""Run folders written by hand, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SETTINGS = {"env_id": "Toy-v0", "exp_name": "sac_qmp_separate", "switch": "own", "horizon": 1, "torch_threads": 1}
START = {
    "command": "python cleanrl_scripts/sac.py --env-id Toy --run-dir-root /home/me/runs --token hunter2",
    "commit": "0123456789abcdef",
    "modified": False,
    "cpu": "Abacus 1",
    "cores": 2,
    "gpu": None,
    "versions": {"python": "3.11.7", "numpy": "2.0.0"},
}


def write_run(
    root: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    *,
    done: bool = True,
    start: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A live run folder; its length is the last row's step if it is done, else twice that."""
    path = root / name
    path.mkdir(parents=True)
    last = rows[-1]["global_step"] if rows else 0
    config = SETTINGS | {"seed": 1, "total_timesteps": last if done else 2 * last + 1} | settings
    (path / "config.json").write_text(json.dumps(config))
    (path / "provenance.jsonl").write_text(json.dumps(START | (start or {})) + "\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        (path / "done.json").write_text(json.dumps({"global_step": last}))
    return path


def evaluations(*values: float | tuple[float, ...], metric: str = "success", every: int = 10) -> list[dict[str, Any]]:
    """Rows at steps 0, 10, ...: a value for both tasks alike, or one for each, of tasks ``left`` and ``right``."""
    rows = []
    for place, value in enumerate(values):
        left, right = value if isinstance(value, tuple) else (value, value)
        rows.append(
            {
                "global_step": every * place,
                f"eval/{metric}": (left + right) / 2,
                f"eval/left/{metric}": left,
                f"eval/right/{metric}": right,
                "wall_time": 1.0,
            }
        )
    return rows
