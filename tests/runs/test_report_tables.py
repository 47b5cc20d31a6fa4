"""Tables of a study, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("tyro")

from synthetic_runs import evaluations, write_run

from qmp_collect.runs.report import tables
from qmp_collect.runs.report.arms import studies
from qmp_collect.runs.report.runs import find_runs, load_run
from qmp_collect.runs.report.statistics import Interval


def study_of(root):
    (study,) = studies([load_run(path) for path in find_runs([root])])
    return study


def hypotheses(study, given):
    return tables.hypotheses("eval/success", tables.tested([(study, "eval/success")], given)[0]).rows


@pytest.fixture
def two_arms(tmp_path):
    """Own policies end at .4 and .6, QMP at .8 and 1; each has 20 evaluations, of which the last two are counted."""
    for switch, ends in (("own", (0.4, 0.6)), ("qmp", (0.8, 1.0))):
        for seed, end in enumerate(ends, 1):
            # mean of the last two: end; the tasks lie a tenth to either side
            values = [(0.0, 0.0)] * 18 + [(end - 0.2, end), (end, end + 0.2)]
            write_run(tmp_path, f"{switch}{seed}", evaluations(*values), switch=switch, seed=seed)
    return study_of(tmp_path)


@pytest.mark.parametrize(("count", "expected"), [(1, 1.0), (4, 4.0), (14, 14.0), (15, 14.5), (20, 19.5), (101, 96.5)])
def test_the_last_tenth(count, expected):
    assert tables.final(np.arange(1.0, count + 1)) == expected


def test_results(two_arms):
    table = tables.results(two_arms, "eval/success")
    # t(0.975, 1) = 12.706 times the standard error, .1; the tasks' scores: .3 .5 .5 .7 and .7 .9 .9 1.1
    assert table.rows == [
        ["own", "2", "0.5 [-0.8, 1.8]", "0.500 [2 runs]", "1: 0.400, 2: 0.600"],
        ["QMP", "2", "0.9 [-0.4, 2.2]", "0.900 [2 runs]", "1: 0.800, 2: 1.000"],
    ]


def test_differences(two_arms):
    # Welch: standard error sqrt(.01 + .01), 2 degrees of freedom, t = 4.303. In pairs both gains are .4.
    # By tasks: of the four pairs of runs, left task .3 .5 against .7 .9, right .5 .7 against .9 1.1: always better.
    assert tables.differences(two_arms, "eval/success").rows == [
        ["QMP - own", "2, 2", "+0.40 [-0.21, +1.01]", "+0.400 [all equal]", "1.000 [2 runs]", "1.000 [2 runs]"]
    ]


def test_how_fast(tmp_path):
    write_run(tmp_path, "a", evaluations(0.0, 0.9, 0.95, 1.0), seed=1)
    write_run(tmp_path, "b", evaluations(0.0, 0.0, 0.9, 0.8), seed=2)
    write_run(tmp_path, "c", evaluations(0.0, 0.0, 0.9, 0.9), seed=3)
    (row,) = tables.speed(study_of(tmp_path), "eval/success").rows
    # areas over 30 steps: .9 / 2 + .925 + .975, .45 + .85, .45 + .9, each over 3
    mean, deviation = np.mean([2.35 / 3, 1.3 / 3, 1.35 / 3]), np.std([2.35 / 3, 1.3 / 3, 1.35 / 3], ddof=1)
    half = 4.30265 * deviation / math.sqrt(3)
    area = f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"
    assert row == ["own", "3", area, "2 of 3", "20", "1: 10, 2: never, 3: 20"]


@pytest.mark.parametrize(
    ("reached", "expected"), [([1.0, math.inf, math.inf], math.inf), ([1.0, 3.0], 2.0), ([1.0, math.inf], math.inf)]
)
def test_runs_that_never_get_there_are_longer_than_any(reached, expected):
    assert tables._median(np.array(reached)) == expected


def test_sample_efficiency(tmp_path):
    write_run(tmp_path, "a", evaluations(0.0, 0.4, 1.0), seed=1)
    write_run(tmp_path, "b", evaluations(0.0, 0.4, 1.0), seed=2)
    table = tables.efficiency(study_of(tmp_path), "eval/success", parts=(0.25, 0.5, 1.0))
    assert table.head[2:] == ["at 5 steps", "at 10 steps", "at 20 steps"]
    assert table.rows == [
        ["own", "2", "0.200 [all equal]", "0.400 [all equal]", "1.000 [all equal]"],
    ]


def test_one_run_has_no_intervals_and_unfinished_ones_do_not_count(tmp_path):
    write_run(tmp_path, "a", evaluations((1.0, 1.0), (0.0, 1.0)), seed=1)
    write_run(tmp_path, "b", evaluations((0.0, 0.0)), seed=2, done=False, total_timesteps=10)
    study = study_of(tmp_path)
    assert tables.results(study, "eval/success").rows == [
        ["own", "1 of 2", "0.500 [1 run]", "0.500 [1 run]", "1: 0.500"]
    ]
    assert tables.tasks_table(study, "eval/success").rows == [["own", "1 of 2", "0.000 [1 run]", "1.000 [1 run]"]]
    assert tables.differences(study, "eval/success").rows == []
    write_run(tmp_path, "c", evaluations((0.0, 0.0), (1.0, 1.0)), switch="qmp", seed=2)
    assert tables.differences(study_of(tmp_path), "eval/success").rows == [
        ["QMP - own", "1, 1", "+0.500 [1 run]", "seeds differ", "1.000 [1 run]", "0.750 [1 run]"]
    ]


def test_a_share_is_a_share(tmp_path):
    rows = [a | b for a, b in zip(evaluations(0.5), evaluations(0.5, metric="return"), strict=True)]
    rows[0] |= {"eval/stages": 3.0}
    write_run(tmp_path, "a", rows)
    shares = {
        name: tables.is_share(study_of(tmp_path), f"eval/{name}") for name in ("success", "return", "stages", "x")
    }
    assert shares == {"success": True, "return": False, "stages": False, "x": False}


def test_holm_over_the_given_list(two_arms):
    given = [tables.hypothesis(text) for text in ("QMP > own", "own < 5", "QMP > 5", "own > 0.5")]
    rows = hypotheses(two_arms, given)
    # against 5, t is 45 and 41 with one degree of freedom: p = 2 / (pi 45) and 2 / (pi 41) roughly
    assert [row[-1] for row in rows] == ["open", "open", "open", "open"]
    assert [row[1] for row in rows] == ["2, 2", "2", "2", "2"]
    assert rows[1][2] == "-4.5 [-5.8, -3.2]"
    raw = [float(row[3]) for row in rows]
    assert raw[1:] == pytest.approx([0.0141, 0.0155, 1.0])
    assert float(rows[1][4]) == pytest.approx(4 * raw[1], rel=1e-2)
    two = hypotheses(two_arms, given[1:3])
    assert [row[-1] for row in two] == ["confirmed", "refuted"]


def test_holm_over_several_task_sets(tmp_path):
    """Two hypotheses in two sets are four tests."""
    for env_id, shift in (("Toy-v0", 0.0), ("Other-v0", 0.5)):
        for switch, ends in (("own", (0.1, 0.2, 0.3)), ("qmp", (0.5, 0.6, 0.8))):
            for seed, end in enumerate(ends):
                settings = {"env_id": env_id, "switch": switch, "seed": seed}
                write_run(tmp_path, f"{env_id}{switch}{seed}", evaluations(end + shift * (switch == "own")), **settings)
    sets = studies([load_run(path) for path in find_runs([tmp_path])])
    given = [tables.hypothesis(text) for text in ("QMP > own", "QMP > 0.5")]
    assert sorted(study.env_id for study in sets) == ["Other-v0", "Toy-v0"]
    found = tables.tested([(study, "eval/success") for study in sets], given)
    alone = [tables.tested([(study, "eval/success")], given)[0] for study in sets]
    raw = sorted(one.p for of_set in found for one in of_set)
    assert [[one.p for one in of_set] for of_set in found] == [[one.p for one in of_set] for of_set in alone]
    assert min(one.p_holm for of_set in found for one in of_set) == pytest.approx(4 * raw[0])
    assert min(one.p_holm for of_set in alone for one in of_set) == pytest.approx(2 * raw[0])
    note = tables.hypotheses("eval/success", found[0], 2).note
    assert "over this list in 2 task sets, which is 4 tests together, and nothing else" in note


def test_hypotheses_that_cannot_be_tested(two_arms, tmp_path):
    for text in ("QMP = own", "QMP >", ""):
        with pytest.raises(ValueError, match="expected 'ARM > ARM'"):
            tables.hypothesis(text)
    with pytest.raises(
        ValueError, match=r"no arm 'qnp' in Toy-v0: did you mean QMP\? expected one of \['own', 'QMP'\]"
    ):
        hypotheses(two_arms, [tables.hypothesis("qnp > own")])
    (row,) = hypotheses(two_arms, [tables.hypothesis("qmp > OWN")])
    assert row[0] == "QMP > own"
    write_run(tmp_path / "one", "a", evaluations(0.5))
    (row,) = hypotheses(study_of(tmp_path / "one"), [tables.hypothesis("own > 0.4")])
    assert row == ["own > 0.4", "1", "not enough runs", "", "", "open"]


def test_a_hypothesis_over_several_methods(tmp_path):
    """The mean of their differences, 0.25 and 0.5; an arm without a partner is in no pair."""
    ends = {
        ("sac_qmp_separate", "own", 1): (0.25, 0.5),
        ("sac_qmp_separate", "qmp", 1): (0.5, 0.75),
        ("sac_qmp_multihead", "own", 1): (0.0, 0.25),
        ("sac_qmp_multihead", "qmp", 1): (0.625, 0.625),
        ("sac_qmp_multihead", "qmp", 5): (0.0, 0.0),
    }
    for (script, switch, horizon), values in ends.items():
        for seed, end in enumerate(values):
            settings = {"exp_name": script, "switch": switch, "horizon": horizon, "seed": seed}
            write_run(tmp_path, f"{script}{switch}{horizon}{seed}", evaluations(0.0, end), **settings)
    study = study_of(tmp_path)
    text = "No-Sharing + QMP & Parameter-Sharing + QMP > No-Sharing & Parameter-Sharing"
    given = [tables.hypothesis(one) for one in ("qmp > own", text, "QMP < own")]
    rows = hypotheses(study, given)
    assert [row[0] for row in rows] == [text, text, text.replace(">", "<")]
    assert [row[1] for row in rows] == ["4, 4"] * 3
    # variances of means: 1/64 four times but for one that is 0, over 2^2; t(0.975, 3) = 3.182
    half = 3.182446 * math.sqrt(3 / 64) / 2
    assert tables.tested([(study, "eval/success")], given[:1])[0][0].difference == pytest.approx(
        (0.375, 0.375 - half, 0.375 + half), abs=1e-6
    )
    for wrong, said in (
        ("qmp > 0.5", "expected one arm before a number"),
        ("No-Sharing & Parameter-Sharing > No-Sharing + QMP", "as many arms on both sides, pair by pair"),
        ("QMP > uniform", "no arm 'uniform'"),
    ):
        with pytest.raises(ValueError, match=said):
            hypotheses(study, [tables.hypothesis(wrong)])


def test_hypotheses_about_arms_that_go_by_one_name(tmp_path):
    for exp_name, value in (("dnc", 0.2), ("DnC", 0.9)):
        for seed in (1, 2):
            write_run(tmp_path, f"{exp_name}{seed}", evaluations(value), exp_name=exp_name, switch=None, seed=seed)
    study = study_of(tmp_path)
    asked = ("DnC, exp name dnc > 0.5", "DnC, exp name DnC > 0.5")
    rows = hypotheses(study, [tables.hypothesis(text) for text in asked])
    assert [(row[0], row[2]) for row in rows] == [(asked[0], "-0.300 [all equal]"), (asked[1], "+0.400 [all equal]")]
    efficiency = tables.efficiency(study, "eval/success").rows
    assert [row[-1] for row in efficiency] == ["0.200 [all equal]", "0.900 [all equal]"]
    with pytest.raises(ValueError, match="there is no arm 'DnC'"):
        hypotheses(study, [tables.hypothesis("DnC > 0.5")])
    with pytest.raises(ValueError, match=r"expected one arm before a number, got \['DnC, exp name .*, 'DnC, exp name"):
        hypotheses(study, [tables.hypothesis("dnc, exp name dnc > 0.5")])


def test_many_arms_are_compared_with_their_references(tmp_path):
    for place, exp_name in enumerate(["sac_qmp_separate", "sac_qmp_multihead", "uds_qmp", "mcal_qmp"]):
        for switch in ("own", "qmp"):
            write_run(tmp_path, f"{place}{switch}", evaluations(0.5), exp_name=exp_name, switch=switch)
    study = study_of(tmp_path)
    names = [(a.label, b.label) for a, b in tables.pairs(study, "eval/success")]
    assert ("MCAL + QMP", "MCAL") in names
    assert ("MCAL", "No-Sharing") in names
    assert len(names) == 7


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.5123, 0.5145, "0.513 [0.512, 0.514]"),
        (0.41, 0.53, "0.470 [0.410, 0.530]"),
        (0.3, 0.7, "0.50 [0.30, 0.70]"),
        (-3.0, 4.0, "0.5 [-3.0, 4.0]"),
        (180.0, 240.0, "210 [180, 240]"),
        (1234.5, 1234.5, "1234.5 [all equal]"),
    ],
)
def test_digits_are_those_that_the_interval_allows(low, high, text):
    cell = tables._text(Interval((low + high) / 2, low, high))
    assert (cell, cell.value) == (text, ((low + high) / 2, low, high))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (-0.0001, "0.000"), (9.9999, "10.000"), (-123.456, "-123.5"), (1e6, "1000000.0")],
)
def test_numbers(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("steps", "text"), [(0, "0"), (900, "900"), (20_000, "20 k"), (1_250_000, "1.25 M"), (math.inf, "never")]
)
def test_steps(steps, text):
    assert tables.steps_text(steps) == text


def test_markdown():
    table = tables.Table("t", ["a", "b"], [["x|y", "1"]])
    assert table.markdown() == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
