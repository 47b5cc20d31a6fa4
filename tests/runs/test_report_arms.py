"""Run folders as they are read, and sorted into arms."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("scipy")

from synthetic_runs import evaluations, write_run

from qmp_collect.runs.report.arms import labels, studies, varied
from qmp_collect.runs.report.runs import find_runs, load_run, mixture_over_training


def loaded(root):
    return [load_run(path) for path in find_runs([root])]


def test_reading_needs_no_more_than_scipy():
    modules = "qmp_collect.runs.report.arms, qmp_collect.runs.report.runs, qmp_collect.runs.report.statistics"
    code = f"import sys, {modules}; print({{'torch', 'matplotlib', 'tyro', 'tqdm'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_stands_for_the_runs_inside(tmp_path):
    paths = [write_run(tmp_path / "plan", name, evaluations(0.5)) for name in ("b", "a")]
    assert find_runs([tmp_path]) == sorted(paths)
    assert find_runs([paths[0], tmp_path]) == [paths[0], paths[1]]
    assert find_runs([tmp_path / "absent"]) == [tmp_path / "absent"]


def test_only_what_is_asked_for_is_kept(tmp_path, capsys):
    path = write_run(tmp_path, "run", [*evaluations(0.5), {"global_step": 7, "losses/qf_loss": 1.0}])
    with open(path / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"losses/x": 1}\n{"global_st')
    run = load_run(path, ("eval/",))
    assert run.rows == [{"global_step": 0, "eval/success": 0.5, "eval/left/success": 0.5, "eval/right/success": 0.5}]
    assert run.last_step == 7
    assert run.tasks("eval/success") == ["left", "right"]
    assert run.tasks("eval/return") == []
    assert capsys.readouterr().err.count("skipped a row") == 3


def test_what_counts_as_finished(tmp_path):
    done = load_run(write_run(tmp_path, "done", evaluations(0.5, 1.0)))
    stopped = load_run(write_run(tmp_path, "stopped", evaluations(0.5, 1.0), done=False))
    assert (done.finished, stopped.finished) == (True, False)
    packed = done.path
    (packed / "done.json").unlink()
    (packed / "metrics.jsonl.gz").write_bytes(gzip.compress((packed / "metrics.jsonl").read_bytes()))
    (packed / "metrics.jsonl").unlink()
    assert load_run(packed).finished  # published runs have no done.json, but all their steps
    assert load_run(packed).rows == done.rows


def test_seeds_and_what_changes_nothing_are_one_arm(tmp_path):
    write_run(tmp_path, "1", evaluations(0.5), seed=2)
    write_run(tmp_path, "2", evaluations(0.5), seed=1, torch_threads=8, eval_every=5, run_dir_root="/elsewhere")
    write_run(tmp_path, "3", evaluations(0.5), switch="qmp")
    (study,) = studies(loaded(tmp_path))
    assert [(arm.label, [run.seed for run in arm.runs]) for arm in study.arms] == [("own", [1, 2]), ("QMP", [1])]
    assert not study.excluded


def test_runs_from_before_a_setting_are_what_they_were(tmp_path):
    write_run(tmp_path, "old", evaluations(0.5), seed=1)
    write_run(tmp_path, "wrong", evaluations(0.5), seed=1, switch_critic_of="proposer")
    (study,) = studies(loaded(tmp_path))
    assert [arm.label for arm in study.arms] == ["own, switch critic of task", "own, switch critic of proposer"]
    write_run(tmp_path, "new", evaluations(0.5), seed=2, switch_critic_of="task", own_fraction=None)
    (study,) = studies(loaded(tmp_path))
    assert [len(arm.runs) for arm in study.arms] == [2, 1]


def test_a_setting_that_only_some_runs_have_makes_arms_apart(tmp_path):
    write_run(tmp_path, "old", evaluations(0.5), seed=1)
    write_run(tmp_path, "new", evaluations(0.5), seed=1, novelty=0.5)
    write_run(tmp_path, "other", evaluations(0.5), seed=1, exp_name="dnc", distill=True)
    (study,) = studies(loaded(tmp_path))
    assert [arm.label for arm in study.arms] == ["No-Sharing, novelty 0.5", "No-Sharing", "DnC"]
    assert not study.excluded


def test_sets_are_apart_and_own_policies_first(tmp_path):
    for place, (env_id, switch) in enumerate([("B-v0", "qmp"), ("A-v0", "qmp"), ("B-v0", "own")]):
        write_run(tmp_path, str(place), evaluations(0.5), env_id=env_id, switch=switch)
    found = studies(loaded(tmp_path))
    assert [(study.env_id, [arm.label for arm in study.arms]) for study in found] == [
        ("B-v0", ["own", "QMP"]),
        ("A-v0", ["QMP"]),
    ]


def test_of_two_runs_of_one_seed_the_one_that_got_further_counts(tmp_path):
    write_run(tmp_path, "crashed", evaluations(0.1, 0.1), done=False, total_timesteps=20)
    write_run(tmp_path, "again", evaluations(0.5, 0.5, 0.5))
    write_run(tmp_path, "once more", evaluations(0.9), done=False, total_timesteps=20)
    (study,) = studies(loaded(tmp_path))
    (arm,) = study.arms
    assert [run.path.name for run in arm.runs] == ["again"]
    assert not arm.unfinished
    reasons = {run.path.name: reason for run, reason in study.excluded}
    assert reasons.keys() == {"crashed", "once more"}
    assert reasons["crashed"] == "the same settings and seed as again, which got further"


def test_runs_that_are_set_aside_count_nowhere(tmp_path):
    write_run(tmp_path / "set_aside", "first", evaluations(0.1, 0.1), novelty=1)
    write_run(tmp_path / "ii", "anew", evaluations(0.5, 0.5))
    (study,) = studies(loaded(tmp_path))
    assert [(arm.label, [run.path.name for run in arm.runs]) for arm in study.arms] == [("own", ["anew"])]
    assert [(run.path.name, reason) for run, reason in study.excluded] == [("first", "set aside")]


def arm_labels(*settings):
    runs = [dict(zip(("exp_name", "switch", "horizon", "hidden_dim"), values, strict=True)) for values in settings]
    keys = [key for key in runs[0] if len({run[key] for run in runs}) > 1]
    return labels(runs, keys)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([("sac_qmp_separate", "qmp", 1, 256)], ["QMP"]),
        (
            [("sac_qmp_separate", switch, 1, 256) for switch in ("own", "qmp", "uniform", "domain", "other")],
            ["own", "QMP", "QMP-Uniform", "QMP-Domain", "other"],
        ),
        (  # what follows from the script is not said
            [("sac_qmp_separate", "own", 1, 256), ("sac_qmp_multihead", "qmp", 1, 400), ("dnc", None, 1, 256)],
            ["No-Sharing", "Parameter-Sharing + QMP", "DnC"],
        ),
        (  # what most arms have is not said
            [("sac_qmp_separate", switch, horizon, 256) for switch, horizon in (("own", 1), ("qmp", 1), ("qmp", 10))],
            ["own", "QMP", "QMP, horizon 10"],
        ),
        (  # there is no usual horizon
            [("sac_qmp_separate", "qmp", horizon, 256) for horizon in (1, 5)],
            ["QMP, horizon 1", "QMP, horizon 5"],
        ),
        ([("mine", "qmp", 1, 1), ("yours", "qmp", 1, 1)], ["mine + QMP", "yours + QMP"]),
        (  # a name that is another script's, in words
            [("dnc", None, 1, 1), ("DnC", None, 1, 1), ("decaf", "own", 1, 1)],
            ["DnC, exp name dnc", "DnC, exp name DnC", "DECAF"],
        ),
        (  # a script that had no switch once
            [("mine", None, 1, 1), ("mine", "own", 1, 1), ("mine", "qmp", 1, 1), ("yours", "own", 1, 1)],
            ["mine, switch null", "mine, switch own", "mine + QMP", "yours"],
        ),
    ],
)
def test_labels_say_what_differs(settings, expected):
    assert arm_labels(*settings) == expected


def test_a_script_from_before_it_had_a_switch(tmp_path):
    config = write_run(tmp_path, "before", evaluations(0.1), exp_name="mine") / "config.json"
    config.write_text(
        json.dumps({key: value for key, value in json.loads(config.read_text()).items() if key != "switch"})
    )
    for place, (name, switch) in enumerate([("mine", "own"), ("mine", "qmp"), ("yours", "own")]):
        write_run(tmp_path, str(place), evaluations(0.5), exp_name=name, switch=switch)
    (study,) = studies(loaded(tmp_path))
    assert [arm.label for arm in study.arms] == ["mine, switch own", "yours", "mine + QMP", "mine, no switch"]


def test_the_reference_is_the_same_method_without_sharing(tmp_path):
    arms = [("sac_qmp_separate", "own"), ("sac_qmp_multihead", "qmp"), ("sac_qmp_multihead", "own"), ("dnc", "none")]
    for place, (exp_name, switch) in enumerate(arms):
        write_run(tmp_path, str(place), evaluations(0.5), exp_name=exp_name, switch=switch)
    (study,) = studies(loaded(tmp_path))
    assert varied([*study.runs]) == ["exp_name", "switch"]
    assert {arm.label: study.reference(arm).label for arm in study.arms} == {
        "No-Sharing": "No-Sharing",
        "Parameter-Sharing": "No-Sharing",
        "Parameter-Sharing + QMP": "Parameter-Sharing",
        "DnC + none": "No-Sharing",
    }


@pytest.mark.parametrize("whole", [True, False])
def test_mixtures_whole_and_with_a_tag_for_each_cell(whole, tmp_path):
    matrices = [np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.25, 0.75]])]
    rows = [
        {"global_step": 10 * place, "qmp/mixture": matrix.tolist()}
        if whole
        else {"global_step": 10 * place} | {f"qmp/mixture/{i}/{j}": matrix[i, j] for i in (0, 1) for j in (0, 1)}
        for place, matrix in enumerate(matrices, 1)
    ]
    run = load_run(write_run(tmp_path, "run", rows), ("eval/", "qmp/mixture"))
    steps, values = run.mixtures
    assert steps.tolist() == [10, 20]
    assert values.tolist() == [matrix.tolist() for matrix in matrices]
    assert mixture_over_training(run, np.array([0.0, 20.0])).tolist() == [[[0.875, 0.125], [0.375, 0.625]]]
