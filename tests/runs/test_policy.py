"""Trained policies as files, the scripts' whereabouts, and the `qmp` command."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qmp_envs
from qmp_collect import evaluate
from qmp_collect.runs import __main__ as command
from qmp_collect.runs import save_checkpoint
from qmp_collect.runs.enjoy import _own_probability, film_mixture
from qmp_collect.runs.policy import FILE, build_agent, load_policy, save_policy
from qmp_collect.runs.scripts import load_script, own_script, script_path, scripts
from qmp_collect.runs.settings import of_the_run
from qmp_collect.runs.who_acted import WhoActed

NAMES = ("5_6_to_5_3", "5_6_to_1_2", "5_6_to_4_1")
SCRIPTS = sorted(scripts())


def saved(script: str, folder: Path, env_id: str = "Maze3-v0", **changed: Any) -> tuple[Any, Path]:
    """An agent with random parameters, and the file of its policy."""
    module = load_script(script)
    settings = of_the_run(module.Args(env_id=env_id, hidden_dim=8, **changed))
    torch.manual_seed(3)
    agent = build_agent(script, settings, torch.device("cpu"))
    names = qmp_envs.TASK_SETS[env_id].task_names
    facts = {"script": script, "settings": settings, "task_names": names, "global_step": 77}
    save_policy(folder / FILE, agent.actor.state_dict(), **facts)
    return agent, folder / FILE


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_policy_that_was_saved_acts_as_it_did(script: str, tmp_path: Path) -> None:
    env_id = "PointReach-v0" if script == "point_reaching" else "Maze3-v0"
    agent, _ = saved(script, tmp_path, env_id)
    policy = load_policy(tmp_path)
    num_tasks = len(policy.task_names)
    assert (policy.script, policy.env_id, policy.global_step) == (script, env_id, 77)
    with gym.make(env_id) as env:
        obs = np.random.default_rng(0).normal(size=(2 * num_tasks, *env.observation_space.shape)).astype(np.float32)
    tasks = np.arange(2 * num_tasks) % num_tasks  # the rows that the scripts know
    with torch.no_grad():
        expected = agent.mean_policy(torch.as_tensor(obs), torch.as_tensor(tasks)).numpy()
    np.testing.assert_allclose(policy(obs, tasks), expected, atol=1e-6)
    # Any other rows, and one task's alone
    order = np.random.default_rng(1).permutation(len(obs))[:3]
    np.testing.assert_allclose(policy(obs[order], tasks[order]), expected[order], atol=1e-6)
    last = num_tasks - 1
    np.testing.assert_allclose(policy.of_task(last)(obs[tasks == last]), expected[tasks == last], atol=1e-6)
    with pytest.raises(IndexError, match=f"from 0 to {last}, got"):
        policy(obs[:1], [num_tasks])
    with pytest.raises(IndexError):
        policy.of_task(num_tasks)


def test_it_is_evaluated_as_it_is(tmp_path: Path) -> None:
    saved("sac_qmp_separate", tmp_path)
    stats = evaluate(gym.make_vec("Maze3-v0", num_envs=3, max_episode_steps=4), load_policy(tmp_path), seed=0)
    assert stats.lens.tolist() == [4, 4, 4]


def test_any_reader_of_safetensors_can_use_it(tmp_path: Path) -> None:
    agent, path = saved("sac_qmp_separate", tmp_path)
    tensors = load_file(path)
    assert tensors.keys() == agent.actor.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in agent.actor.state_dict().items())


def resaved(path: Path, **changed: Any) -> None:
    """With other facts."""
    facts = {"script": "sac_shared", "settings": {}, "task_names": [], "global_step": 1} | changed
    tensors = load_file(path)
    save_file(tensors, path, metadata={name: json.dumps(fact) for name, fact in facts.items()})


def test_files_that_are_not_a_policy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="that it writes with its first checkpoint"):
        load_policy(tmp_path)
    _, path = saved("sac_qmp_separate", tmp_path)
    settings = of_the_run(load_script("sac_qmp_separate").Args(env_id="Maze3-v0", hidden_dim=8))
    good = {"script": "sac_qmp_separate", "settings": settings, "task_names": NAMES}
    for changed, said in (
        ({"script": "../evil"}, "there is no script '../evil'.*load_policy\\(..., script='PATH/evil.py'\\)"),
        ({"script": str(scripts()["sac_qmp_separate"])}, "there is no script '/"),
        ({"script": "sac_shared"}, "another script or version"),
        ({"settings": settings | {"hidden_dim": 16}}, "policy"),
        ({"settings": settings | {"hidden_dim": "8"}}, "hidden_dim is '8'"),
        ({"settings": settings | {"hidden_dim": -8}}, "--hidden-dim -8: expected a number from 1"),
        ({"settings": settings | {"hidden_dim": 10**6}}, r"policy\['fc1.weight'\]: expected .*1000000"),  # 12 TB
        ({"settings": settings | {"env_id": "evil:Maze3-v0"}}, "env_id is"),
        ({"settings": []}, "expected an object, got list"),
        ({"task_names": [*NAMES[:2], "../escape"]}, "expected"),
        ({"global_step": "1"}, "no number"),
    ):
        resaved(path, **(good | changed))
        with pytest.raises(ValueError, match=said):
            load_policy(tmp_path)
    for content in (b"", b"no policy", path.read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=FILE):
            load_policy(path)


def test_a_file_that_is_nested_without_end(tmp_path: Path) -> None:
    _, path = saved("sac_qmp_separate", tmp_path)
    save_file(load_file(path), path, metadata={"script": "[" * 100_000})
    with pytest.raises(ValueError, match=FILE):
        load_policy(path)


@pytest.mark.parametrize("tasks", [0, [0], [[0], [1]], [0, 1, 2]])
def test_a_task_for_each_row(tasks: Any, tmp_path: Path) -> None:
    """A column of tasks gave every row everybody's action."""
    saved("sac_qmp_separate", tmp_path)
    with pytest.raises(ValueError, match=r"expected task_ids of shape \(2,\)"):
        load_policy(tmp_path)(np.zeros((2, 4)), tasks)


def test_one_observation_is_no_row(tmp_path: Path) -> None:
    saved("sac_qmp_separate", tmp_path)
    with pytest.raises(
        ValueError, match=r"expected rows of observations, got shape \(4,\); of one obs pass obs\[None\]"
    ):
        load_policy(tmp_path)(np.zeros(4), [0])


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        ({}, 0, 0.0),
        ({"own_probability": 0.7}, 60, 0.7),
        ({"own_probability": 1.0, "own_probability_final": 0.5}, 30, 0.75),
        ({"own_probability": 1.0, "own_probability_final": 0.5}, 90, 0.5),
        ({"warmup_rounds": 1, "env_steps_per_round": 10}, 29, 1.0),
        ({"warmup_rounds": 1, "env_steps_per_round": 10}, 30, 0.0),
    ],
)
def test_films_are_of_what_training_collects(settings: dict[str, Any], step: int, expected: float) -> None:
    """With the own probability of the run's present step, as it has on MT10, and its warm-up."""
    args = load_script("sac_qmp_separate").Args(**{"total_timesteps": 60, **settings})
    assert _own_probability(args, 3, step) == pytest.approx(expected)


def test_a_script_that_lies_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file is given, or nothing is executed."""
    file = tmp_path / "mine" / "my_sac.py"
    file.parent.mkdir()
    file.write_text("import beside\n" + script_path("sac_qmp_separate").read_text())
    (file.parent / "beside.py").write_text("")
    try:
        module = load_script(file)
        settings = of_the_run(module.Args(env_id="Maze3-v0", hidden_dim=8))
        agent, facts = build_agent(file, settings, torch.device("cpu")), {"settings": settings, "task_names": NAMES}
        save_policy(tmp_path / FILE, agent.actor.state_dict(), script="my_sac", global_step=7, **facts)
        line = rf"there is no script 'my_sac' in .*: qmp enjoy {tmp_path} --script PATH/my_sac\.py, or load_policy\("
        with pytest.raises(ValueError, match=line):
            load_policy(tmp_path)
        obs = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        with torch.no_grad():
            expected = agent.mean_policy(torch.as_tensor(obs), torch.arange(3)).numpy()
        np.testing.assert_allclose(load_policy(tmp_path, script=file)(obs, range(3)), expected, atol=1e-6)
        assert own_script(module.Args) == file
        assert own_script(load_script("sac_qmp_separate").Args) is None
        with pytest.raises(SystemExit, match="no training script: it has no Args and no Agent"):
            command.main(["enjoy", str(tmp_path), "--script", str(file.with_name("beside.py"))])
        with pytest.raises(FileNotFoundError, match=r"there is no script .*nowhere\.py"):
            load_policy(tmp_path, script=tmp_path / "nowhere.py")
    finally:
        sys.modules.pop("beside", None)


def test_pictures_are_written_through_no_link(tmp_path: Path) -> None:
    """A folder of somebody else's may hold one in their place."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "film.gif").symlink_to(tmp_path / "precious")
    (tmp_path / "strip.png").symlink_to(tmp_path / "precious")
    episode = WhoActed(1, ("a", "b"), [np.zeros((20, 20, 3), np.uint8)] * 3, [0, 1, 0])
    episode.save_gif(tmp_path / "film.gif", 25)
    episode.save_strip(tmp_path / "strip.png")
    assert (tmp_path / "precious").read_text() == "mine"
    for name, kind in (("film.gif", "GIF"), ("strip.png", "PNG")):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind


def test_a_film_says_whose_colour_is_whose(tmp_path: Path) -> None:
    """Around each frame is the colour of who acts, beneath it a bar of who acted, beside it a legend."""
    white, actors = np.full((60, 80, 3), 255, np.uint8), [0, 0, 2, 2, 2, 0]
    episode = WhoActed(0, ("a", "b", "c"), [white] * 6, actors)
    assert episode.legend == [(0, "of a (own) 50%"), (2, "of c 50%")]
    assert WhoActed(1, ("a", "b"), [white] * 2, [2, 2]).legend == [(1, "of b (own) 0%"), (2, "helper 100%")]
    episode.save_gif(tmp_path / "film.gif", 12.5)  # a frame a step
    blue, green = (0, 114, 178), (0, 158, 115)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 6
        for step, colour in enumerate([blue, blue, green, green, green, blue]):
            film.seek(step)
            picture = film.convert("RGB")
            assert np.allclose(picture.getpixel((2, 2)), colour, atol=6)
            assert np.allclose(picture.getpixel((13, 77)), blue, atol=6)  # the bar, between the first two steps
            assert np.allclose(picture.getpixel((57, 77)), green, atol=6)
    scene = {"ball": (232, 83, 38), "its goal": (38, 150, 96)}
    for steps in (actors, list(range(20))):  # few policies, and more than the picture is high for
        names = tuple(map(str, range(20)))
        WhoActed(0, names, [white] * len(steps), steps, scene).save_gif(tmp_path / "scene.gif", 12.5)
        with Image.open(tmp_path / "scene.gif") as film:
            shown = np.asarray(film.convert("RGB"))[:, 100:].astype(int)  # the legend
        assert all((abs(shown - colour) <= 6).all(axis=2).sum() > 40 for colour in scene.values())
    episode.save_strip(tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as strip:  # six pictures of 88 pixels, one bar beneath all of them
        last = [strip.getpixel((88 * step + 20, strip.height - 2)) for step in range(6)]
        assert last == [blue, blue, green, green, green, blue]
        assert strip.getpixel((88 * 2 + 44, strip.height - 2)) == (0, 0, 0)  # the step of the third picture


def test_a_link_in_the_place_of_the_folder_of_pictures(tmp_path: Path) -> None:
    saved("sac_qmp_separate", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "enjoy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="is a link to elsewhere: say with --out"):
        command.main(["enjoy", str(tmp_path), "--episodes", "1", "--gifs"])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_mixture_of_what_is_no_run(tmp_path: Path) -> None:
    for tree in ({"weights": np.zeros(3)}, {"run": None, "collector": {"num_steps": 0}, "agent": {}}):
        save_checkpoint(tmp_path / "checkpoint.npz", tree)
        with pytest.raises(ValueError, match="its checkpoint is of another version, or of no run"):
            film_mixture(tmp_path, tmp_path / "out", seed=0, max_steps=3)
    assert not (tmp_path / "out").exists()


def test_each_task_has_its_own_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks, of whose names that which follows the dot tells them apart."""
    facts = dataclasses.replace(qmp_envs.TASK_SETS["PointReach-v0"], env_id="Dotted-v0", task_names=("to.1", "to.2"))
    monkeypatch.setattr(qmp_envs, "_OWN", dict(qmp_envs._OWN))
    qmp_envs.register_envs(facts, [functools.partial(gym.make, "PointReach-v0")] * 2)
    try:
        agent, _ = saved("sac_qmp_separate", tmp_path, "Dotted-v0")
        settings = of_the_run(load_script("sac_qmp_separate").Args(env_id="Dotted-v0", hidden_dim=8))
        run = {"script": "sac_qmp_separate", "settings": settings}
        tree = {"run": run, "collector": {"num_steps": 9}, "agent": agent.state_dict()}
        save_checkpoint(tmp_path / "checkpoint.npz", tree)
        paths = film_mixture(tmp_path, tmp_path / "out", seed=0, max_steps=3)
        with pytest.raises(ValueError, match="max_steps must be 1 or more, got 0"):
            film_mixture(tmp_path, tmp_path / "out", seed=0, max_steps=0)
    finally:
        del gym.registry["Dotted-v0"]
    named = ["mixture_to.1.gif", "mixture_to.1.png", "mixture_to.2.gif", "mixture_to.2.png"]
    assert [path.name for path in paths] == named
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == named


def test_scripts_that_are_not_there() -> None:
    assert script_path("dnc").name == "dnc.py"
    with pytest.raises(ValueError, match="did you mean sac_qmp_separate"):
        script_path("sac_separate")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["train"])
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in SCRIPTS)
    assert "MCAL + QMP" in listed
    for argv, said in (
        (["train", "sac_qmp"], "did you mean"),
        (["nothing"], "there is no such command"),
    ):
        with pytest.raises(SystemExit, match=said):
            command.main(argv)
    with pytest.raises(SystemExit, match=r"qmp enjoy: there is no nowhere: expected the folder of a run"):
        command.main(["enjoy", "nowhere"])


@pytest.mark.parametrize(
    ("missing", "argv", "extra"), [("matplotlib", ["plot"], "report"), ("torch", ["train", "dnc", "--help"], "train")]
)
def test_what_is_not_installed_is_named_with_its_extra(missing: str, argv: list[str], extra: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom qmp_collect.runs.__main__ import main; main({argv!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert done.stderr.endswith(f": pip install 'qmp-collect[{extra}]' brings it\n")


def test_whoever_stops_reading_gets_no_traceback() -> None:
    qmp = f"{sys.executable} -m qmp_collect.runs suite plan comparison"
    done = subprocess.run(f"{qmp} | head -1", shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_train_enjoy_and_who_acted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["qmp"])  # which the command changes
    monkeypatch.setattr(gym, "make_vec", functools.partial(gym.make_vec, max_episode_steps=20))
    tiny = (
        "--env-id Maze3 --total-timesteps 60 --env-steps-per-round 20 --gradient-steps-per-round 1 --eval-every 60 "
        "--min-buffer-size 20 --batch-size 8 --hidden-dim 8 --eval-episodes 1 --matmul-precision highest"
    )
    for switch in ("qmp", "own"):
        root = str(tmp_path / switch)
        command.main(["train", "sac_qmp_separate", *tiny.split(), "--switch", switch, "--run-dir-root", root])
    (run_dir,), (own,) = (tmp_path / "qmp").iterdir(), (tmp_path / "own").iterdir()
    capsys.readouterr()
    command.main(["enjoy", str(run_dir), "--episodes", "1", "--mixture", "--max-steps", "12"])
    shown = capsys.readouterr().out
    assert all(f"\n{name}" in shown for name in (*NAMES, "mean"))
    pictures = {path.name for path in (run_dir / "enjoy").iterdir()}
    assert pictures == {f"mixture_{name}.{kind}" for name in NAMES for kind in ("gif", "png")}
    with Image.open(run_dir / "enjoy" / f"mixture_{NAMES[0]}.gif") as film:
        assert film.n_frames >= 2
    torch.manual_seed(7)
    first, again = (film_mixture(run_dir, tmp_path / name, seed=3, max_steps=6, speed=0.25) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]  # one seed, one film
    with Image.open(first[0]) as film:
        assert film.n_frames == 3  # of 100 steps a second, every second one is shown at a quarter of the speed
    with pytest.raises(ValueError, match="speed must be a positive number, got 0"):
        film_mixture(run_dir, tmp_path, seed=3, max_steps=6, speed=0)
    with pytest.raises(SystemExit, match="there is no mixture to show"):
        command.main(["enjoy", str(own), "--episodes", "1", "--mixture"])
