"""What is not installed is named together with what installs it; the requirements are those that were tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from qmp_collect.extras import needs

tomllib = pytest.importorskip("tomllib")  # Python 3.11
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITHOUT = ("torch", "tqdm", "tyro", "tensorboard", "matplotlib", "wandb", "PIL", "submitit", "ray")
# Statement -> package that it misses, extra that brings it
MISSED = {
    "qmp_collect.TaskReplayBuffer": ("torch", "train"),
    "collector('torch')": ("torch", "train"),
    "collector('numpy').collect(n_step=2, progress=True)": ("tqdm", "train"),
    "import qmp_collect.runs.settings": ("tqdm", "train"),
    "import qmp_collect.runs.plot": ("tyro", "report"),
    "from qmp_collect.runs.suite.slurm import submit; submit([], None, None)": ("submitit", "suite"),
    "runs.RunLogger('.', {}, tensorboard=True)": ("torch", "train,tensorboard"),
    "runs.RunLogger('.', {}, resume_rows=0, track=True)": ("wandb", "track"),
    "from qmp_collect.fleet import RayFleet; RayFleet(None, hosts=2)": ("ray", "ray"),
    "from qmp_collect.runs.video import save_episode; save_episode(None, None, None, seed=0)": ("PIL", "train"),
}
PROGRAM = f"""
import json, sys
sys.modules |= dict.fromkeys({WITHOUT!r})  # as if they were not installed
import gymnasium, numpy, qmp_collect
from qmp_collect import runs

def collector(backend):
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=2)
    policies = [lambda obs: numpy.zeros((len(obs), 1), numpy.float32)] * 2
    return qmp_collect.QMPCollector(envs, policies, None, num_tasks=2, switch=qmp_collect.OwnPolicy(), backend=backend)

said = {{}}
for statement in {list(MISSED)!r}:
    try:
        exec(statement)
    except ModuleNotFoundError as error:
        said[statement] = error.name.partition(".")[0], str(error)
print(json.dumps(said))
"""


def test_what_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert {statement: name for statement, (name, _) in said.items()} == {s: name for s, (name, _) in MISSED.items()}
    for statement, (_, extra) in MISSED.items():
        assert said[statement][1].count(f"pip install 'qmp-collect[{extra}]'") == 1


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), needs("train"):
        raise KeyError


@pytest.mark.parametrize(
    ("extra", "package", "allowed", "refused"),
    [
        (None, "gymnasium", ("1.1.1", "1.4.0"), ("1.1.0", "1.0.0")),  # 1.1.0 cannot make Meta-World's environments
        # From 3.5 on, contacts begin at the sum of two margins: other physics with the same seed. 4.0 has no CDS.
        ("envs", "mujoco", ("3.3.0", "3.4.0"), ("3.5.0", "3.8.1", "4.0.0")),
        ("train", "torch", ("2.8.0", "2.13.0"), ("2.7.1",)),  # advisories
    ],
)
def test_versions(extra: str | None, package: str, allowed: tuple[str, ...], refused: tuple[str, ...]) -> None:
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    (requirement,) = (found for line in lines if (found := Requirement(line)).name == package)
    assert [v for v in (*allowed, *refused) if requirement.specifier.contains(v)] == list(allowed)
