"""One run's records: local JSON files always, TensorBoard events where it is installed, a tracker on request."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat, final

import numpy as np
from numpy.typing import NDArray

from qmp_collect.extras import needs
from qmp_collect.runs.checkpoint import atomic_file
from qmp_collect.runs.provenance import provenance
from qmp_collect.runs.tracker import Tracker

__all__ = ["RunLogger"]

_RESERVED = ("global_step", "wall_time")


@final
class RunLogger:
    """Writes the scalars of a run to every place that keeps them. The local files are the source of truth.

    ``RUN_DIR/config.json`` holds `config`; ``RUN_DIR/provenance.jsonl`` one JSON object per start of the run, with
    command, commit and hardware (see `qmp_collect.runs.provenance`); ``RUN_DIR/metrics.jsonl`` one per `log` call,
    ``{"global_step": n, TAG: value, ..., "wall_time": seconds since 1970}``, with NaN and Infinity as
    Python's json writes them. A row is with the operating system when `log` returns: a kill loses nothing. After
    `sync`, a power cut loses nothing either.

    Everything but ``wall_time`` and tags that start with ``time/`` should follow from the seed alone, so that
    two runs can be compared line by line.

    Attributes:
        rows: rows logged so far, those of a continued run included.
        tensorboard: whether TensorBoard events are written, too.

    Args:
        run_dir: folder of the run, made if it is not there.
        config: the resolved settings; values that JSON can hold, paths and numpy values.
        resume_rows: continue the run in `run_dir` from a checkpoint that was saved when it had so many `rows`: later
            ones are dropped.
        track: also send to Weights & Biases (``WANDB_MODE=offline`` works), or to another module of this name that has
            ``init(project=, name=, config=)``, ``log(values, step=)`` and ``finish()``. The run's id there is drawn
            once and kept in ``RUN_DIR/tracker.json``: a resumed run goes on, and no two runs share one.
        wandb_project, wandb_entity: where to, as in ``wandb.init``.
        run_name: of the run at the tracker; the name of `run_dir` by default.
        tensorboard: also write TensorBoard events into `run_dir`; by default, if it is installed.

    Raises:
        FileExistsError: if `run_dir` has metrics already and `resume_rows` is not given.
        ValueError: if `run_dir` has fewer readable rows than `resume_rows`.
        ImportError: if what `track` or `tensorboard` asks for is not installed.
        TypeError: if the module that `track` names has not the functions of a tracker.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        resume_rows: int | None = None,
        track: bool | str = False,
        wandb_project: str | None = None,
        wandb_entity: str | None = None,
        run_name: str | None = None,
        tensorboard: bool | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        metrics = self.run_dir / "metrics.jsonl"
        last_step = None
        if resume_rows is not None:
            last_step = _keep_rows(metrics, resume_rows)
        elif metrics.exists():
            raise FileExistsError(
                f"{metrics} belongs to an earlier run: pass resume_rows to continue it, or another run_dir"
            )
        self.rows = resume_rows or 0
        document = json.dumps(dict(config), indent=2, default=_plain)
        _replace(self.run_dir / "config.json", document + "\n")
        _append_line(self.run_dir / "provenance.jsonl", json.dumps(provenance(config)))
        self._tracker: Tracker | None = None
        if track:
            self._tracker = Tracker(
                "wandb" if track is True else track,
                self.run_dir,
                json.loads(document),
                project=wandb_project,
                entity=wandb_entity,
                name=run_name,
            )
        self._board: Any = None
        writer = None if tensorboard is False else _summary_writer(required=tensorboard is True)
        self.tensorboard = writer is not None
        if writer is not None:
            _age_events(self.run_dir)
            purge_step = None if last_step is None else last_step + 1
            self._board = writer(str(self.run_dir), purge_step=purge_step)
            if resume_rows is None:
                self._board.add_text("config", _table(json.loads(document)))
        # Made in the way that its name in the folder is on the disk too.
        if not metrics.exists():
            _replace(metrics, "")
        self._metrics = open(metrics, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def log(
        self,
        step: int,
        scalars: Mapping[str, SupportsFloat],
        matrices: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    ) -> None:
        """Record ``{tag: scalar}`` at `step`, a number of stored transitions; scalars are what `float` takes.

        Args:
            matrices: ``(rows, columns)`` each, for ``metrics.jsonl`` alone, as lists of rows, to four decimals.

        Raises:
            ValueError: for a tag named ``global_step`` or ``wall_time``.
        """
        values = {tag: float(value) for tag, value in scalars.items()}
        lists = {tag: np.round(matrix, 4).tolist() for tag, matrix in (matrices or {}).items()}
        if taken := [tag for tag in _RESERVED if tag in values | lists]:
            raise ValueError(f"tag {taken[0]!r} is written by the logger itself: choose another name")
        now = time.time()
        row = {"global_step": int(step), **values, **lists, "wall_time": round(now, 3)}
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        self.rows += 1
        if self._board is not None:
            for tag, value in values.items():
                self._board.add_scalar(tag, value, step, walltime=now)
            self._board.flush()
        if self._tracker is not None:
            self._tracker.log(int(step), values)

    def sync(self) -> None:
        """Wait until all rows are on the disk, before something that counts on them is written, a checkpoint."""
        os.fsync(self._metrics.fileno())

    def log_image(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Record a ``(height, width, channels)`` uint8 image; only TensorBoard and a tracker keep it.

        Raises:
            ValueError: for another shape or dtype.
        """
        if image.ndim != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"{tag}: expected a (height, width, channels) uint8 image, got {image.shape} {image.dtype}"
            )
        if self._board is not None:
            self._board.add_image(tag, image, step, dataformats="HWC")
            self._board.flush()
        if self._tracker is not None:
            self._tracker.log_media(int(step), tag, "Image", image)

    def log_video(self, step: int, tag: str, gif: str | os.PathLike[str]) -> None:
        """Record a film, a GIF file; TensorBoard shows it among the images, where it moves; trackers
        that know films get it as it is.

        Raises:
            OSError: There is no such file.
            ValueError: It is no GIF.
        """
        data = Path(gif).read_bytes()
        if data[:6] not in (b"GIF87a", b"GIF89a"):
            raise ValueError(f"{tag}: expected a GIF file, got {os.fspath(gif)}, which begins with {data[:6]!r}")
        if self._board is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            # As it is: SummaryWriter.add_video would decode and encode it anew, for which it needs moviepy.
            width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            self._board.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
            self._board.flush()
        if self._tracker is not None:
            self._tracker.log_media(int(step), tag, "Video", os.fspath(gif))

    def close(self, failed: bool = False) -> None:
        """Close all files and finish the run at the tracker, as a failed one if it is. Closing twice is fine."""
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        if self._tracker is not None:
            self._tracker.finish(failed)
        self._board = self._tracker = None

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)


def _keep_rows(metrics: Path, rows: int) -> int:
    """Keep the first ``rows``, and nothing of a row that a crash cut off. The step of the last one kept, or -1."""
    kept = metrics.read_text(encoding="utf-8", errors="replace").splitlines()[:rows] if metrics.exists() else []
    steps = []
    for number, line in enumerate(kept, start=1):
        try:
            steps.append(int(json.loads(line)["global_step"]))
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{metrics}: row {number} is no row of metrics ({error}): {line[:80]!r}") from error
    if len(kept) < rows:
        raise ValueError(
            f"{metrics} holds {len(kept)} rows, but the checkpoint was saved after {rows}: a part of the run's history "
            "is lost. Put the file back, or start a new run"
        )
    _replace(metrics, "".join(line + "\n" for line in kept))
    return steps[-1] if steps else -1


def _replace(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


def _append_line(path: Path, line: str) -> None:
    """Beginning a line of its own, even where a kill cut off the one before."""
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())  # a start that a power cut forgets may be one from modified files


def _summary_writer(*, required: bool) -> Any:
    """TensorBoard's writer, ``None`` if it is not installed and need not be."""
    try:
        with needs("train,tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        if required:
            raise
        return None
    return SummaryWriter


def _age_events(run_dir: Path) -> None:
    """Have TensorBoard read earlier event files first, wherever the clock stood when they were written.

    It reads them in the order of their names, which begin with the time, and only then forgets the right steps.
    """
    events = sorted(run_dir.glob("events.out.tfevents.*"))
    if events and events[-1].name >= f"events.out.tfevents.{int(time.time()):010d}":
        for place, file in enumerate(events):
            file.rename(run_dir / f"events.out.tfevents.{place:010d}.{file.name.split('.', 4)[-1]}")


def _plain(value: Any) -> Any:
    """What JSON should hold for a value that it does not know."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"config: expected values that JSON can hold, paths or numpy values, got {type(value).__name__}")


def _table(config: Mapping[str, Any]) -> str:
    return "\n".join(["|setting|value|", "|-|-|", *(f"|{key}|{value}|" for key, value in config.items())])
