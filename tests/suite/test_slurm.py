"""The Slurm executor: what it would submit, and how its jobs end, are requeued and go on."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from fake_runs import FAILS, UNTIL_STOPPED, fake_run, starts, wait_until

from qmp_collect.runs.folder import lock_of
from qmp_collect.runs.suite import slurm
from qmp_collect.runs.suite.slurm import Job, Slurm, submit
from qmp_collect.runs.suite.status import standing

pytest.importorskip("submitit")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands named as Slurm's, of which sbatch keeps the script."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/submitted.sh\necho Submitted batch job 12\n')
    (commands / "srun").write_text("#!/bin/sh\n")
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return tmp_path


def test_what_is_submitted(cluster: Path) -> None:
    runs = [replace(fake_run(cluster, name, hours=2.0), device="cuda") for name in "abc"]
    slurm_settings = Slurm(partition="gpu", cores=4, mem_gb=6.0, save_seconds=90, flags=("--qos=long", "exclusive"))
    assert Job(runs[0], cluster)() == "done"  # one of them is finished already
    jobs = submit(runs, cluster, cluster / "m.submitit", jobs=20, settings=slurm_settings)
    assert [job.job_id for job in jobs] == ["12_0", "12_1"]
    lines = (cluster / "submitted.sh").read_text().splitlines()
    assert {
        "#SBATCH --array=0-1%2",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --exclusive",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=m",
        "#SBATCH --mem=6GB",
        "#SBATCH --nodes=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --partition=gpu",
        "#SBATCH --qos=long",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=185",
    } < set(lines)
    assert not [line for line in lines if "account" in line]
    (pickled, *_) = sorted((cluster / "m.submitit").glob("*_submitted.pkl"))
    job = pickle.loads(pickled.read_bytes()).function
    assert vars(job) == {"run": runs[1], "root": cluster, "slim": False, "_process": None}
    assert submit(runs[:1], cluster, cluster / "m.submitit") == []
    with pytest.raises(SystemExit, match=r"--slurm\.flags signal: the suite says that itself"):
        submit(runs, cluster, cluster / "m.submitit", settings=Slurm(flags=("signal=USR1@9",)))


def test_a_job_that_has_to_end_saves_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    """On submitit's imitation of a cluster, with the signal that it has Slurm send."""
    run = fake_run(tmp_path, "a", f"if not step:\n    step = 2\n    {UNTIL_STOPPED}")
    (job,) = submit([run], tmp_path, tmp_path / "m.submitit", cluster="local")
    wait_until(lambda: starts(tmp_path) == ["a 0"])
    controller = int(job.job_id)
    (worker,) = map(int, Path(f"/proc/{controller}/task/{controller}/children").read_text().split())
    os.kill(worker, signal.SIGUSR2)
    assert job.result() == "done"
    assert starts(tmp_path) == ["a 0", "a 2"]
    assert standing(run).state == "done"


def test_jobs_whose_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a failed, its log ends with\none line\nit went wrong"):
        Job(fake_run(tmp_path, "a", FAILS), tmp_path)()
    assert standing(fake_run(tmp_path, "a")).state == "failed"
    with pytest.raises(RuntimeError, match="b failed"):
        Job(fake_run(tmp_path, "b", "stop.append(True)"), tmp_path)()
    assert len(starts(tmp_path)) == 4
    other = slurm.Process(fake_run(tmp_path, "c", UNTIL_STOPPED), tmp_path)
    wait_until(lambda: lock_of(tmp_path / "runs" / "c"))
    assert Job(fake_run(tmp_path, "c"), tmp_path)() == "elsewhere"
    other.stop()
    other.wait()
    assert other.outcome() == "stopped"
