"""The plot command on synthetic runs: literal means, spreads, matrices; figures that hold the right lines."""

from __future__ import annotations

import gzip
import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

from qmp_collect.runs import plot
from qmp_collect.runs.plot import (
    Args,
    Group,
    align,
    group_runs,
    load_run,
    main,
    mixture_over_training,
    plot_curves,
    plot_mixture,
)
from qmp_collect.runs.report.runs import find_runs


def write_run(folder, rows, *, env_id="Maze10-v0", exp_name="sac", switch="q", seed=0):
    path = folder / f"{env_id}__{exp_name}__{switch}__{seed}"
    path.mkdir()
    config = {"env_id": env_id, "exp_name": exp_name, "switch": switch, "seed": seed, "gamma": 0.99}
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def curve(*values, every=10):
    return [{"global_step": every * (n + 1), "eval/success": v, "wall_time": 1.0} for n, v in enumerate(values)]


def test_series_has_the_rows_with_the_tag_in_order_of_steps(tmp_path):
    rows = [{"global_step": 5, "loss": 9.0}, *curve(0.1, 0.2), {"global_step": 20, "eval/success": 0.25}]
    steps, values = load_run(write_run(tmp_path, rows)).series("eval/success")
    assert steps.tolist() == [10, 20]
    assert values.tolist() == [0.1, 0.25]


def test_a_tag_that_was_not_logged_lists_those_that_were(tmp_path):
    run = load_run(write_run(tmp_path, curve(0.1)))
    with pytest.raises(ValueError, match=r"no values of 'eval/return'; it logged \['eval/success'\]"):
        run.series("eval/return")


def test_a_run_still_being_written_can_be_read(tmp_path, capsys):
    path = write_run(tmp_path, curve(0.1))
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"global_st')
    assert load_run(path).rows == curve(0.1)
    assert "cut off" in capsys.readouterr().err


def test_runs_are_grouped_by_environment_script_and_switch(tmp_path):
    keys = [("q", 0), ("own", 0), ("q", 1)]
    runs = [load_run(write_run(tmp_path, curve(0.1), switch=switch, seed=seed)) for switch, seed in keys]
    groups = group_runs(runs)
    assert groups == {
        Group("Maze10-v0", "sac", "q"): [runs[0], runs[2]],
        Group("Maze10-v0", "sac", "own"): [runs[1]],
    }
    with pytest.raises(ValueError, match="are both seed 1"):
        group_runs([*runs, runs[2]])


def test_settings_tell_groups_apart(tmp_path):
    runs = [load_run(write_run(tmp_path, curve(0.1), seed=seed)) for seed in (0, 1)]
    runs[1].config["gamma"] = 0.9
    groups = group_runs(runs, by=["gamma"])
    assert [group.settings for group in groups] == ["gamma 0.99", "gamma 0.9"]
    with pytest.raises(ValueError, match="no setting 'horizon'; it has "):
        group_runs(runs, by=["horizon"])


def test_a_packed_run_reads_like_the_plain_one(tmp_path):
    path = write_run(tmp_path, curve(0.1, 0.2))
    plain = load_run(path)
    (path / "metrics.jsonl.gz").write_bytes(gzip.compress((path / "metrics.jsonl").read_bytes()))
    (path / "metrics.jsonl").unlink()
    assert load_run(path) == plain


def test_align_interpolates_within_the_common_range():
    first = np.array([10.0, 20.0, 30.0]), np.array([0.0, 1.0, 3.0])
    second = np.array([5.0, 15.0, 25.0]), np.array([0.0, 10.0, 20.0])
    steps, values = align([first, second])
    assert steps.tolist() == [10, 15, 20, 25]
    assert values.tolist() == [[0.0, 0.5, 1.0, 2.0], [5.0, 10.0, 15.0, 20.0]]
    with pytest.raises(ValueError, match="starts at 30, one ends at 20"):
        align([(np.array([30.0]), np.zeros(1)), (np.array([20.0]), np.zeros(1))])


@pytest.mark.parametrize(
    ("spread", "low", "high"),
    [
        ("range", [0.0, 0.2], [0.4, 0.8]),
        ("std", [-0.0, 0.2], [0.4, 0.8]),
        ("ci", [0.0, 0.0], [0.69686, 1.0]),  # 4.303 deviations by the root of 3, and success is never negative
    ],
)
def test_curves_hold_mean_and_spread(spread, low, high, tmp_path):
    values = [(0.0, 0.2), (0.2, 0.5), (0.4, 0.8)]  # three evenly spaced seeds: deviation equals their distance
    runs = [load_run(write_run(tmp_path, curve(*v), seed=seed)) for seed, v in enumerate(values)]
    figure = plot_curves(group_runs(runs), {("sac", "q", ""): "QMP"}, "eval/success", spread)
    (axes,) = figure.axes
    (line,) = axes.lines
    assert line.get_label() == "QMP (3 seeds)"
    assert line.get_xdata().tolist() == [10, 20]
    assert line.get_ydata() == pytest.approx([0.2, 0.5])
    corners = axes.collections[0].get_paths()[0].vertices
    for step, bottom, top in zip((10, 20), low, high, strict=True):
        heights = corners[corners[:, 0] == step, 1]
        assert (heights.min(), heights.max()) == pytest.approx((bottom, top), abs=1e-4)


def test_one_panel_per_environment_and_one_colour_per_switch(tmp_path):
    for env_id in ("Maze10-v0", "Reacher5-v0"):
        for switch in ("own", "qmp"):
            write_run(tmp_path, curve(0.1, 0.2), env_id=env_id, switch=switch)
    groups = group_runs([load_run(path) for path in sorted(tmp_path.iterdir(), reverse=True)])
    figure = plot_curves(groups, {("sac", "qmp", ""): "QMP", ("sac", "own", ""): "No sharing"}, "eval/success", "range")
    assert [axes.get_title() for axes in figure.axes] == ["Reacher5-v0", "Maze10-v0"]
    assert figure.axes[0].get_ylabel() == "success, own policies"
    for axes in figure.axes:
        assert [(line.get_label(), line.get_color()) for line in axes.lines] == [
            ("QMP (1 seed)", "#d55e00"),
            ("No sharing (1 seed)", "#0072b2"),
        ]
        assert len(axes.collections) == 0  # one seed has no spread


def test_a_short_run_ends_the_mean_and_is_told(tmp_path, capsys):
    runs = [load_run(write_run(tmp_path, curve(*[0.5] * n), seed=n)) for n in (2, 4)]
    figure = plot_curves(group_runs(runs), {("sac", "q", ""): "QMP"}, "eval/success", "range")
    assert figure.axes[0].lines[0].get_xdata().tolist() == [10, 20]
    assert "end of its shortest run, step 20" in capsys.readouterr().err


def mixture_rows(*matrices, every=10):
    return [
        {"global_step": every * (n + 1)}
        | {f"qmp/mixture/{i}/{j}": share for i, row in enumerate(matrix) for j, share in enumerate(row)}
        for n, matrix in enumerate(matrices)
    ]


A, B, C = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], [[0.0, 0.0, 1.0], [0.25, 0.5, 0.25]]


def test_mixture_is_averaged_within_windows(tmp_path):
    run = load_run(write_run(tmp_path, mixture_rows(A, B, C, C)))
    mixture = mixture_over_training(run, np.array([0.0, 20.0, 40.0, 60.0]))
    assert mixture.shape == (3, 2, 3)
    assert mixture[0].tolist() == [[0.75, 0.25, 0.0], [0.0, 0.75, 0.25]]  # the row at the border, 20, is in
    assert mixture[1].tolist() == C
    assert np.isnan(mixture[2]).all()


def test_whole_mixtures_and_those_of_earlier_versions_are_averaged_alike(tmp_path):
    cells = load_run(write_run(tmp_path, mixture_rows(A, B, C, C)))
    rows = [{"global_step": 10 * (n + 1), "qmp/mixture": matrix} for n, matrix in enumerate((A, B, C, C))]
    whole = load_run(write_run(tmp_path, rows, seed=1))
    borders = np.array([0.0, 20.0, 40.0, 60.0])
    np.testing.assert_array_equal(mixture_over_training(whole, borders), mixture_over_training(cells, borders))
    rows[0]["qmp/mixture"] = [[np.nan] * 3, A[1]]
    known = mixture_over_training(load_run(write_run(tmp_path, rows, seed=2)), np.array([0.0, 20.0, 40.0]))
    assert known.tolist() == [[B[0], [0.0, 0.75, 0.25]], C]


def test_committed_mixtures_can_be_drawn(tmp_path):
    results = Path(__file__).parents[2] / "benchmark" / "results"
    main(Args((results / "maze3" / "qmp_seed1",), tmp_path / "figure.png", mixture=True, windows=2))
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("rows", [[], curve(0.3)[:1], [{"global_step": 0}]], ids=["nothing", "one value", "no value"])
def test_a_run_that_just_began_does_not_cost_the_others_their_figure(mixture, rows, tmp_path, capsys):
    logged = [row | {"qmp/mixture": A} for row in curve(0.1, 0.2, 0.3)]
    paths = [write_run(tmp_path, logged, seed=seed) for seed in range(2)]
    paths.append(write_run(tmp_path, rows, seed=2))
    main(Args(tuple(paths), tmp_path / "figure.png", mixture=mixture))
    assert (tmp_path / "figure.png").exists()
    assert "skipped" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no run has anything to draw: .*'eval/typo'"):
        main(Args(tuple(paths), tmp_path / "figure.png", metric="eval/typo"))


def test_a_run_that_nobody_may_look_into_does_not_cost_the_others_their_figure(tmp_path, capsys):
    """As another user's; for a name that is too long the system has an error as well, whoever asks."""
    path, other = write_run(tmp_path, curve(0.1, 0.2)), tmp_path / ("x" * 300)
    assert find_runs([path, other]) == [path, other]
    main(Args((path, other), tmp_path / "figure.png"))
    assert f"{other}: skipped: [Errno " in capsys.readouterr().err
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize(("mixture", "drawn"), [(False, "eval/success"), (True, "qmp/mixture")])
def test_what_a_run_has_too_little_of_is_named(mixture, drawn, tmp_path, capsys):
    logged = [row | {"qmp/mixture": A} for row in curve(0.1, 0.2, 0.3)]
    paths = [write_run(tmp_path, logged[: 3 - 2 * seed], seed=seed) for seed in range(2)]
    main(Args(tuple(paths), tmp_path / "figure.png", mixture=mixture))
    assert f"{paths[1]}: skipped, it has only one value of {drawn} yet" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["[1]", "3", '{"a": 1}', '{"global_step": "x"}'])
def test_lines_that_are_no_rows_are_skipped(line, tmp_path, capsys):
    path = write_run(tmp_path, curve(0.1))
    with open(path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    assert load_run(path).rows == curve(0.1)
    assert "skipped a row" in capsys.readouterr().err


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("config.json", None),
        ("metrics.jsonl.gz", b"no gzip"),
        ("metrics.jsonl.gz", gzip.compress(b'{"global_step": 1}' * 99, mtime=0)[:-9]),  # the test's name holds it
    ],
)
def test_a_damaged_run_does_not_cost_the_others_their_figure(file, content, mixture, tmp_path, capsys):
    logged = [row | {"qmp/mixture": A} for row in curve(0.1, 0.2, 0.3)]
    paths = [write_run(tmp_path, logged, seed=seed) for seed in range(2)]
    (paths[1] / file).unlink(missing_ok=True)
    if content is not None:
        (paths[1] / file).write_bytes(content)
    main(Args(tuple(paths), tmp_path / "figure.png", mixture=mixture))
    assert f"{paths[1]}: skipped: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least one run directory"):
        main(Args((paths[1],), tmp_path / "other.png"))


@pytest.mark.parametrize("value", [None, "0.3", [1.0], True, {"a": 1}])
def test_values_that_are_no_numbers_are_skipped_and_said(value, tmp_path, capsys):
    run = load_run(write_run(tmp_path, [*curve(0.1, 0.2), {"global_step": 30, "eval/success": value}]))
    assert run.series("eval/success")[1].tolist() == [0.1, 0.2]
    assert "skipped 1 values that are no numbers" in capsys.readouterr().err


@pytest.mark.parametrize("step", [math.nan, math.inf, True, "10", None])
def test_steps_that_are_none(step, tmp_path, capsys):
    run = load_run(write_run(tmp_path, [*curve(0.1), {"global_step": step, "eval/success": 0.9}]))
    assert (run.rows, run.last_step) == (curve(0.1), 10)
    assert "skipped a row" in capsys.readouterr().err


def test_mixtures_of_different_sizes_are_refused_by_name(tmp_path):
    run = load_run(
        write_run(tmp_path, [{"global_step": step, "qmp/mixture": matrix} for step, matrix in ((1, A), (2, [[1.0]]))])
    )
    with pytest.raises(ValueError, match=rf"{run.path} logged qmp/mixture in different sizes"):
        _ = run.mixtures


def test_gaps_in_a_line_are_told(tmp_path, capsys):
    """A value that is not finite breaks the line of all seeds."""
    runs = [load_run(write_run(tmp_path, curve(0.1, x, 0.3), seed=seed)) for seed, x in enumerate((0.2, math.nan))]
    plot_curves(group_runs(runs), {("sac", "q", ""): "QMP"}, "eval/success", "range")
    assert f"{runs[1].path}: 1 of 3 values of eval/success are not finite: gaps" in capsys.readouterr().err


def test_seeds_with_other_settings_are_told(tmp_path, capsys):
    """Their average is drawn as one method, over so many seeds."""
    paths = [write_run(tmp_path, curve(0.1, 0.2), seed=seed) for seed in range(2)]
    main(Args(tuple(paths), tmp_path / "figure.png"))
    assert "differ" not in capsys.readouterr().err
    config = json.loads((paths[1] / "config.json").read_text())
    (paths[1] / "config.json").write_text(json.dumps(config | {"gamma": 0.5, "total_timesteps": 7}))
    main(Args(tuple(paths), tmp_path / "figure.png"))
    assert "its runs differ in gamma; --by tells them apart" in capsys.readouterr().err
    main(Args(tuple(paths), tmp_path / "figure.png", by=("gamma",)))
    assert "differ" not in capsys.readouterr().err


def test_mixture_skips_values_that_are_not_finite(tmp_path):
    run = load_run(write_run(tmp_path, mixture_rows([[np.nan, np.nan, np.nan], A[1]], C)))
    assert mixture_over_training(run, np.array([0.0, 20.0])).tolist() == [[C[0], [0.125, 0.75, 0.125]]]
    with pytest.raises(ValueError, match="logged no qmp/mixture"):
        mixture_over_training(load_run(write_run(tmp_path, curve(0.1), seed=1)), np.array([0.0, 20.0]))


def test_mixture_figure_has_one_matrix_per_window_averaged_over_seeds(tmp_path):
    runs = [
        load_run(write_run(tmp_path, mixture_rows(A, C), seed=0)),
        load_run(write_run(tmp_path, mixture_rows(B), seed=1)),  # stopped early: counts in the first window only
    ]
    figure = plot_mixture(group_runs(runs), {("sac", "q", ""): "QMP"}, 2)
    first, second = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert first.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.75, 0.25]]
    assert second.tolist() == C
    assert [axes.get_title() for axes in figure.axes[:2]] == ["steps 0.0 to 10.0", "steps 10.0 to 20.0"]


@pytest.mark.parametrize(
    "options", [[], ["--mixture", "--windows", "2"], ["--metric", "qmp/mixture/0/1", "--labels", "L"]]
)
def test_the_command_writes_a_figure(options, tmp_path, monkeypatch, capsys):
    rows = [row | extra for row, extra in zip(mixture_rows(A, B), curve(0.1, 0.9), strict=True)]
    paths = [write_run(tmp_path, rows, seed=seed) for seed in range(2)]
    out = tmp_path / "figures" / "figure.png"
    monkeypatch.setattr(sys, "argv", ["plot", *map(str, [*paths, "--out", out, *options])])
    runpy.run_path(plot.__file__, run_name="__main__")
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_figure_without_a_format_is_a_png_and_is_said_where_it_lies(tmp_path, capsys):
    main(Args((write_run(tmp_path, curve(0.1, 0.9)),), tmp_path / "success"))
    assert capsys.readouterr().out == f"{tmp_path / 'success.png'}\n"
    assert (tmp_path / "success.png").read_bytes().startswith(b"\x89PNG")


def test_refused_arguments(tmp_path):
    path = write_run(tmp_path, curve(0.1))
    with pytest.raises(ValueError, match="at least one run directory"):
        main(Args((), tmp_path / "figure.png"))
    with pytest.raises(ValueError, match="expected 1 labels"):
        main(Args((path,), tmp_path / "figure.png", labels=("a", "b")))
    with pytest.raises(ValueError, match="at least one run directory"):
        main(Args((tmp_path / "absent",), tmp_path / "figure.png"))


def test_folders_without_metrics_are_skipped(tmp_path, capsys):
    (tmp_path / "failed").mkdir()
    main(Args((write_run(tmp_path, curve(0.1)), tmp_path / "failed"), tmp_path / "figure.png"))
    assert "failed: skipped" in capsys.readouterr().err
    assert (tmp_path / "figure.png").exists()


def test_a_folder_stands_for_the_runs_in_it_and_files_beside_them_for_nothing(tmp_path, capsys):
    first, second = write_run(tmp_path, curve(0.1), seed=1), write_run(tmp_path, curve(0.5), seed=2)
    (tmp_path / "own_seed1.log").touch()
    for paths in ((tmp_path,), (first, second, tmp_path / "own_seed1.log")):
        main(Args(paths, tmp_path / "figure.svg"))
        said = capsys.readouterr()
        assert (said.out, said.err) == (f"{tmp_path / 'figure.svg'}\n", "")
    one = (tmp_path / "figure.svg").read_text()
    assert "2 seeds" in one
