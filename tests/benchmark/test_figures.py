"""The paper's figures, from runs as they are published: what is drawn, and what is left out."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))
import figures

TASKS = ("a_b_c", "stay")


def publish(folder: Path, seed: int, height: float, switch: str = "qmp", **settings: Any) -> None:
    """A packed run of 2 M steps; task ``stay`` succeeds always, ``a_b_c`` with this share at the end."""
    config = {"env_id": "Reacher5-v0", "exp_name": "sac_qmp_separate", "switch": switch, "seed": seed}
    config |= {"env_steps_per_round": 200, "gradient_steps_per_round": 200, "total_timesteps": 2_000_000} | settings
    rows = []
    for step, value in ((0, 0.0), (1_000_000, height / 2), (2_000_000, height)):
        row: dict[str, Any] = {"global_step": step}
        for metric in ("any_hit", "success"):
            row |= {f"eval/{metric}": (value + 1) / 2, f"eval/a_b_c/{metric}": value, f"eval/stay/{metric}": 1.0}
        if step and switch != "own":
            row["qmp/mixture"] = [[0.75, 0.25], [0.5, 0.5]]
        rows.append(row)
    path = folder / f"{switch}_seed{seed}_{len(list(folder.glob('*')))}"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


@pytest.fixture
def found(tmp_path: Path) -> list[figures.Schedule]:
    for seed in (11, 12):
        publish(tmp_path / "i", seed, 0.6, "own")
        publish(tmp_path / "i", seed, 1.0)
        publish(tmp_path / "ii", seed, 0.8, env_steps_per_round=1000, gradient_steps_per_round=100)
        publish(tmp_path / "iii", seed, 0.2, "uniform")
        publish(tmp_path / "iii", seed, 0.4, switch_critic_of="proposer")
        publish(tmp_path / "vi", seed, 0.4, horizon=10)
    return figures.schedules([figures.load_run(path) for path in figures.find_runs([tmp_path])])


def labels(axes: Any) -> list[str]:
    return [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]


def test_schedules_are_apart(found: list[figures.Schedule]) -> None:
    assert {schedule.title: len(schedule.runs) for schedule in found} == {
        "Reacher5: 200 environment and 200 gradient steps a round": 10,
        "Reacher5: 1000 environment and 100 gradient steps a round": 2,
    }


def test_figure_7_has_the_papers_numbers(found: list[figures.Schedule]) -> None:
    figure = figures.figure_7(found)
    first, _, second, _ = figure.axes
    assert labels(first) == ["own (2 runs)", "QMP (2 runs)", "the paper's figure"]
    assert labels(second) == ["QMP (2 runs)", "the paper's figure"]
    marks = [line for line in first.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [(list(m.get_xdata()), list(m.get_ydata())) for m in marks] == [
        ([500_000, 2_000_000], [0.69, 0.80]),
        ([500_000, 2_000_000], [0.97, 0.99]),
    ]
    lines = {line.get_label(): line for line in first.lines}
    assert lines["QMP (2 runs)"].get_ydata() == pytest.approx([0.5, 0.75, 1.0])
    assert marks[1].get_color() == lines["QMP (2 runs)"].get_color()


def test_figure_10_has_the_controls(found: list[figures.Schedule]) -> None:
    figure = figures.figure_10(found)
    assert len(figure.axes) == 2
    assert sorted(labels(figure.axes[0])) == [
        "QMP (2 runs)",
        "QMP, switch critic of proposer (2 runs)",
        "QMP-Uniform (2 runs)",
        "own (2 runs)",
        "the paper's figure",
    ]


def test_figures_of_tasks_and_mixtures(found: list[figures.Schedule]) -> None:
    assert [axes.get_title() for axes in figures.figure_8(found).axes] == ["a_b_c", "stay"] * 2
    assert labels(figures.figure_9a(found).axes[0]) == ["1: stay"]
    shares = figures.figure_14(found).axes
    assert [axes.get_title() for axes in shares] == ["0: a_b_c", "1: stay"] * 2
    assert shares[1].lines[-1].get_ydata() == pytest.approx([0.5, 0.5])
    legend = shares[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0: a_b_c", "1: stay"]
    assert figures.figure_15(found).axes[0].images[0].get_array().tolist() == [[0.0, 0.25], [0.5, 0.0]]


def test_nothing_published_is_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures.main(figures.Args(runs=(tmp_path / "reacher5",), out=tmp_path / "figures"))
    assert capsys.readouterr().out.count("no run of it is published") == 6
    publish(tmp_path / "reacher5" / "set_aside", 11, 0.0, "uniform")
    publish(tmp_path / "reacher5" / "i", 11, 1.0)
    figures.main(figures.Args(("7", "10"), runs=(tmp_path / "reacher5",), out=tmp_path / "figures"))
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["figure_7.png"]
    with pytest.raises(SystemExit, match="figure 11: expected one of 7, 8, 9a"):
        figures.main(figures.Args(("11",)))


@pytest.mark.parametrize("folder", ["maze3", "task_sets/Reacher5"])
def test_committed_runs(folder: str) -> None:
    paths = figures.find_runs([figures.ROOT / "benchmark" / "results" / folder])
    found = figures.schedules([figures.load_run(path, figures.PREFIXES) for path in paths])
    drawn: Iterator[str] = (name for name, draw in figures.FIGURES.items() if draw(found) is not None)
    assert list(drawn) == ["7", "8", "9a", "14", "15"]
