"""The comparison of all methods: which runs are missing, and what the table says of those that are there."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("tyro")
pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))
import comparison

from qmp_collect.runs.suite.manifest import Run


@pytest.fixture
def args(tmp_path: Path) -> comparison.Args:
    return comparison.Args(seeds=(1, 2), runs=tmp_path)


def keep(args: comparison.Args) -> None:
    """All missing runs: success 0, in the second half 0.2 seed - 0.1 without QMP and 0.4 seed with it."""
    for method, switch, seed in list(comparison.missing(args)):
        folder = args.runs / comparison.name(method, switch, seed)
        folder.mkdir()
        end = 0.4 * seed if switch == "qmp" else 0.2 * seed - 0.1
        rows = [{"global_step": step, "eval/success": end * (step > 40)} for step in range(0, 90, 10)]
        (folder / "config.json").write_text("{}")
        (folder / "metrics.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def test_runs_are_made_seed_by_seed_and_once(args: comparison.Args) -> None:
    names = [comparison.name(*run) for run in comparison.missing(args)]
    assert len(names) == len(set(names)) == 2 * 16
    assert all("_seed1" in name for name in names[:16])
    (args.runs / "sac_qmp_separate_own_seed1").mkdir()
    assert [comparison.name(*run) for run in comparison.missing(args)] == names[1:]
    assert {"dnc_seed2", "dnc_seed2_regularisation", "decaf_own_seed2", "mcal_qmp_qmp_seed2_multihead"} < set(names)


def test_what_is_missing_is_made_and_kept(args: comparison.Args, monkeypatch: pytest.MonkeyPatch) -> None:
    args.work, args.seeds = args.runs / "work", (3,)
    (args.runs / "dnc_seed3").mkdir()
    made = []

    class Executor:
        def __init__(self, runs: list[Run], root: Path, jobs: int) -> None:
            made.extend(runs)

        def execute(self) -> int:
            for run in made[:-1]:
                run.dir.mkdir(parents=True)
                config = {"exp_name": Path(run.argv[0]).stem, "switch": run.flag("--switch"), "seed": 3}
                (run.dir / "config.json").write_text(json.dumps(config | {"total_timesteps": 10}))
                (run.dir / "metrics.jsonl").write_text('{"global_step": 10, "eval/success": 0.0}\n')
                start = {"command": "python x.py --seed 3", "commit": "0" * 40, "modified": False}
                (run.dir / "provenance.jsonl").write_text(json.dumps(start) + "\n")
                (run.dir / "done.json").write_text('{"total_timesteps": 10}')
            return 75

    monkeypatch.setattr(comparison, "LocalExecutor", Executor)
    assert comparison.make(args) == 75
    assert len(made) == 15
    assert [run.dir for run in made] == [args.work / run.name for run in made]
    assert [comparison.name(*run) for run in comparison.missing(args)] == ["pcgrad_qmp_qmp_seed3"]


def test_table(args: comparison.Args) -> None:
    keep(args)
    rows = comparison.table(args).splitlines()
    assert len(rows) == 2 + len(comparison.METHODS) + 1
    # Seeds' means: 0.1 and 0.3 without QMP, 0.4 and 0.8 with it; over the whole run half of that. With two seeds
    # Student's t is 12.7 standard errors: of 0.1, 0.2 and, for the gains of 0.3 and 0.5, 0.1.
    numbers = "0.20 ± 1.27 | 0.60 ± 2.54 | +0.40 ± 1.27 | 0.10 ± 0.64 | 0.30 ± 1.27 | +0.20 ± 0.64"
    assert rows[2] == f"| No-Sharing | {numbers} |"
    assert rows[6] == "| DnC | 0.20 ± 1.27 |  |  | 0.10 ± 0.64 |  |  |"
    assert rows[-1] == f"| mean of the 6 with QMP | {numbers} |"


def test_pooled_over_methods(args: comparison.Args) -> None:
    """Six methods alike, of gains 0.4 on average. Welch: the variance of each arm's mean is 0.01 or 0.04, of the mean
    of six differences 0.05 / 6; its degrees of freedom are 6 times those of one method, 8.82, for which t is 2.269."""
    keep(args)
    rows = comparison.pooled(args, 0).rows
    assert [row[0] for row in rows[:-1]] == [method.label for method in comparison.METHODS if len(method.switches) == 2]
    assert rows[0][:2] == ["No-Sharing", "2, 2"]
    assert rows[-1][:3] == ["mean of the 6 methods", "12, 12", "+0.40 [+0.19, +0.61]"]
    low, high = map(float, rows[-1][3].partition("[")[2][:-1].split(", "))
    assert 0.19 < low < 0.4 < high < 0.61
    assert float(rows[-1][4]) < 0.02
    assert comparison.pooled(args, 1).rows[-1][2] == "+0.20 [+0.10, +0.30]"


def test_figure(args: comparison.Args) -> None:
    keep(args)
    panels = comparison.draw(args).axes
    assert [panel.get_title() for panel in panels] == [method.label for method in comparison.METHODS]
    without, with_qmp = panels[0].lines
    assert with_qmp.get_ydata()[-1] == pytest.approx(0.6)
    assert without.get_ydata()[-1] == pytest.approx(0.2)
    assert len(panels[4].lines) == 1


def test_the_last_quarter_is_the_last_quarter(args: comparison.Args) -> None:
    """Nine evaluations from 0 to 80: those at 70 and 80 lie beyond 60. Success counts up in thousandths."""
    method = comparison.METHODS[0]
    for seed in args.seeds:
        for switch in method.switches:
            folder = args.runs / comparison.name(method, switch, seed)
            folder.mkdir()
            rows = [{"global_step": step, "eval/success": step / 1000 * seed} for step in range(0, 90, 10)]
            (folder / "config.json").write_text("{}")
            (folder / "metrics.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for late, whole in comparison.scores(args, method):
        assert late == pytest.approx([0.075, 0.15])
        assert whole == pytest.approx([0.045, 0.09])  # of the eight after the start
