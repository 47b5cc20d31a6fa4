"""What a script does with its settings: when it evaluates, collects and learns, how often, and with what.

Each script runs once, small, between spies on everything that its main block talks to. Expectations are written out.
`benchmark/reliability/mutants.py` damages the scripts line by line and has these tests notice it.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from script_files import load_script

import qmp_collect
from qmp_collect import QMPCollector, TaskReplayBuffer, Transitions
from qmp_collect.runs import training

RunScript = Callable[..., None]
# A buffer for each task, and one for all of them
SEPARATE = ("sac_qmp_separate", "sac_qmp_helper", "uds_qmp", "decaf", "dnc", "mcal_qmp", "point_reaching")
JOINT = ("sac_qmp_multihead", "sac_shared", "pcgrad_qmp")
SCRIPTS = (*SEPARATE, *JOINT)
every_script = pytest.mark.parametrize("name", SCRIPTS)

# Five rounds of 20 steps a task. Written for T tasks: 3 on the small maze, 1 in the plane.
FLAGS: dict[str, Any] = {
    "env_steps_per_round": 20, "gradient_steps_per_round": 4, "batch_size": 12, "hidden_dim": 4, "envs_per_task": 2,
    "buffer_size": 90, "min_buffer_size": 30, "eval_episodes": 6, "eval_envs_per_task": 2, "torch_threads": 1,
    "seed": 7, "switch": "qmp", "horizon": 5, "own_probability": 0.8, "own_probability_final": 0.2, "warmup_rounds": 2,
    "distill_steps": 2, "horizon_rule": "uniform", "own_share_floor": 0.5, "switch_margin": 0.125,
    "own_fraction": 0.25, "helper": "script_files:left", "demonstration_rounds": 2, "clone_steps": 2,
}  # fmt: skip


def tasks_of(name: str) -> int:
    return 1 if name == "point_reaching" else 3


def command(name: str, root: Path, **changes: Any) -> list[str]:
    """The settings above, as far as the script has them, for its number of tasks."""
    tasks, known = tasks_of(name), vars(load_script(name).Args())
    env_id = "PointReach" if tasks == 1 else "Maze3"
    of_tasks = {"total_timesteps": 100 * tasks, "eval_every": 26 * tasks, "distill_every": 33 * tasks}
    found = FLAGS | of_tasks | {"env_id": env_id, "run_dir_root": root} | changes
    return [f"--{flag.replace('_', '-')}={value}" for flag, value in found.items() if flag in known]


class Spies:
    """What happened, in order, and what the collector and the buffer were made of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.evaluated: list[dict[str, Any]] = []
        self.collector: dict[str, Any] = {}
        self.agent: Any = None
        self.capacity = 0
        self.own_fractions: set[Any] = set()  # that batches were drawn with
        self.on_store: Callable[[], None] = lambda: None
        self.on_evaluation: Callable[[], None] = lambda: None  # whenever an evaluated policy is asked
        self._evaluate, self._start = qmp_collect.evaluate, training.TrainingRun.start
        monkeypatch.setattr(qmp_collect, "evaluate", self.evaluate)
        monkeypatch.setattr(qmp_collect, "QMPCollector", self.make_collector)
        monkeypatch.setattr(qmp_collect, "TaskReplayBuffer", self.make_buffer)
        monkeypatch.setattr(training.TrainingRun, "start", lambda run, *args, **parts: self.start(run, *args, **parts))
        monkeypatch.setattr(gym, "make_vec", functools.partial(gym.make_vec, max_episode_steps=4))

    def make_collector(self, envs: Any, *args: Any, **settings: Any) -> QMPCollector:
        collector = QMPCollector(envs, *args, **settings)
        self.collector = {"envs": envs, **settings}
        collect = collector.collect

        def spied(**what: Any) -> Any:
            self.events.append(("collect", what["n_step"], what.get("resume", False)))
            return collect(**what)

        collector.collect = spied  # type: ignore[method-assign]
        return collector

    def make_buffer(self, capacity: int, *args: Any, **settings: Any) -> TaskReplayBuffer:
        self.capacity = capacity
        buffer = Uneven(capacity, *args, **settings)
        buffer.on_store = lambda: self.on_store()
        buffer.own_fractions = self.own_fractions
        return buffer

    def start(self, run: Any, collector: Any, **parts: Any) -> AbstractContextManager[Any]:
        self.agent = parts["agent"]
        for name in ("update", "update_critics", "update_actor", "distill", "conquer", "clone"):
            if hasattr(self.agent, name):
                setattr(self.agent, name, self.spy_on(getattr(self.agent, name)))
        return self._start(run, collector, **parts)

    def spy_on(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def spied(*data: Any) -> Any:
            shapes = [tuple(x.rewards.shape if isinstance(x, tuple) else x.shape[:-1]) for x in data]
            self.events.append((method.__name__, *shapes))
            answer = method(*data)
            if method.__name__ == "conquer":
                for policies, centroid in zip(
                    self.agent.actor.parameters(), self.agent.centroid.parameters(), strict=True
                ):
                    assert torch.equal(policies, centroid.expand_as(policies))
            return answer

        return spied

    def evaluate(self, envs: Any, own_policy: Any, **settings: Any) -> Any:
        obs = torch.rand(envs.num_envs, *envs.single_observation_space.shape)
        ids = torch.as_tensor(envs.unwrapped.task_ids)
        with torch.no_grad():
            actions = [own_policy(obs, ids) for _ in range(2)]
            means = getattr(self.agent, "policies", lambda obs: None)(obs)
        if means is not None:
            assert torch.allclose(means.means[torch.arange(len(ids)), ids], actions[0], atol=1e-6)

        def asked(*inputs: Any) -> Any:
            self.on_evaluation()
            return own_policy(*inputs)

        stats = self._evaluate(envs, asked, **settings)
        self.events.append(("evaluate", settings["seed"]))
        self.evaluated.append(
            {
                "apart from training": envs is not self.collector["envs"],
                "the same action twice": torch.equal(*actions),
                "inside the range": bool((actions[0].abs() <= 1).all()),
                "episodes": np.bincount(stats.episode_task_ids).tolist(),
            }
        )
        return stats


class Uneven(TaskReplayBuffer):
    """What the first of task 0's two sub-environments collects is lost: task 0 has 10 of a round, any other task 20."""

    on_store: Callable[[], None]
    own_fractions: set[Any]

    def sample(self, batch_size: int, *, own_fraction: Any = None) -> qmp_collect.Batch:
        self.own_fractions.add(own_fraction)
        return super().sample(batch_size, own_fraction=own_fraction)

    def sample_joint(self, batch_size: int, *, own_fraction: Any = None) -> qmp_collect.Batch:
        self.own_fractions.add(own_fraction)
        return super().sample_joint(batch_size, own_fraction=own_fraction)

    def add(self, transitions: Transitions) -> None:
        self.on_store()
        kept = transitions.env_ids > 0
        super().add(Transitions(**{name: field[kept] for name, field in vars(transitions).items()}))


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> Spies:
    return Spies(monkeypatch)


# The gradient steps of a round, and the round in which they begin, which is that in which 30 transitions are there: of
# each task (10, 20, 30 of task 0) or of all together (50).
UPDATES: dict[str, tuple[int, list[tuple[Any, ...]]]] = {
    "sac_qmp_separate": (3, [("update", (3, 12))] * 4),
    "sac_qmp_helper": (3, [("update", (3, 12))] * 4),
    "uds_qmp": (3, [("update", (3, 24))] * 4),  # 12 own ones and 6 of each other task
    "decaf": (3, [("update", (3, 12))] * 4),
    "dnc": (3, [("update", (3, 12))] * 4),
    "mcal_qmp": (3, [("update_critics", (3, 12)), *[("update_actor", (3, 4))] * 3] * 4),
    "point_reaching": (3, [("update", (1, 12))] * 4),
    "sac_qmp_multihead": (1, [("update", (12,))] * 12),
    "sac_shared": (1, [("update", (12,))] * 12),
    "pcgrad_qmp": (1, [("update", (3, 4))] * 12),
}
CLONING = [("clone", (3, 12))] * 2  # before all others
NO_CLONING = {"demonstration_rounds": 0, "clone_steps": 0}
DISTILLATION = [("distill", (3, 4)), ("distill", (3, 4)), ("conquer",)]


def eval_seed(step: int) -> int:
    """Of a run with seed 7."""
    return int(np.random.SeedSequence(7, spawn_key=(1, step)).generate_state(1)[0])


def expected_events(name: str) -> Iterator[tuple[Any, ...]]:
    tasks, (first, updates) = tasks_of(name), UPDATES[name]
    yield ("evaluate", eval_seed(0))
    for number in range(1, 6):
        if name == "dnc" and number in (3, 5):  # steps 120 and 240: the first rounds after 99 and 198
            yield from DISTILLATION
        yield ("collect", 20 * tasks, False)
        if name == "sac_qmp_helper" and number == first:
            yield from CLONING
        if number >= first:
            yield from updates
        if number > 1:  # the first rounds' ends from 26, 52 and 78 steps a task on; the run's
            yield ("evaluate", eval_seed(20 * number * tasks))


@pytest.mark.parametrize("name", ["sac_qmp_separate", "sac_shared"])
def test_replay_claims_what_the_run_can_bring(name: str, spies: Spies, run_script: RunScript, tmp_path: Path) -> None:
    # 3 environments of each task: a round of 60 steps is 7 vector steps of 9, so 21 rows a task; five rounds.
    run_script(name, *command(name, tmp_path, envs_per_task=3, total_timesteps=300, buffer_size=999))
    assert spies.capacity == 105


@every_script
def test_what_happens_when(name: str, spies: Spies, run_script: RunScript, tmp_path: Path) -> None:
    run_script(name, *command(name, tmp_path))
    tasks, known = tasks_of(name), vars(load_script(name).Args())
    assert spies.events == list(expected_events(name))
    expected = {"apart from training": True, "the same action twice": True, "inside the range": True}
    assert spies.evaluated == [expected | {"episodes": [6] * tasks}] * 5
    assert spies.capacity == (30 if name in JOINT else 90)
    assert spies.own_fractions == {0.25 if "switch" in known else None, *([0.0] if "clone_steps" in known else [])}

    collector = spies.collector
    assert collector["envs"].num_envs == 2 * tasks
    assert collector["seed"] == 7
    if "switch" not in known:
        assert collector["switch"] == qmp_collect.OwnPolicy()
        return
    switch = collector["switch"]
    if "demonstration_rounds" in known:
        assert (switch.guide, switch.steps(119), switch.steps(120)) == (3, np.inf, 0)
        switch = switch.then
    assert isinstance(switch, qmp_collect.QSwitch)
    if "horizon_rule" in known:
        assert collector["horizon"] == qmp_collect.UniformHorizon(1, 5)
        assert collector["candidate_mask"] == qmp_collect.all_of(qmp_collect.OwnShareFloor(0.5, steps=1000))
        assert switch.margin == 0.125
    else:
        assert collector["horizon"] == 5
    assert collector["warmup_steps"] == 40 * tasks
    own_probability = [collector["own_probability"](share * tasks) for share in (0, 25, 50, 100, 200)]
    assert own_probability == pytest.approx([0.8, 0.65, 0.5, 0.2, 0.2])


def stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_while_learning(name: str, spies: Spies) -> None:
    """In the third round, after its first gradient step of any kind."""
    collect = ("collect", 20 * tasks_of(name), False)

    class Events(list[tuple[Any, ...]]):
        def append(self, event: tuple[Any, ...]) -> None:
            super().append(event)
            if self.count(collect) == 3 and self[-2] == collect:
                stop_this_process()

    spies.events = Events()


def stop_while_collecting(name: str, spies: Spies) -> None:
    """In the fourth round, after nine of its ten vector steps: an evaluation and a distillation fall due amid it."""
    steps = iter(range(1, 1000))
    spies.on_store = lambda: stop_this_process() if next(steps) == 39 else None


def stop_while_evaluating(name: str, spies: Spies) -> None:
    """In the second evaluation, which follows the second round: three episodes of four steps make twelve of each."""
    calls = iter(range(1, 1000))
    spies.on_evaluation = lambda: stop_this_process() if next(calls) == 15 else None


@every_script
@pytest.mark.parametrize("stop", [stop_while_learning, stop_while_collecting, stop_while_evaluating])
def test_a_run_that_was_stopped_does_the_rest(
    name: str, stop: Callable[[str, Spies], None], spies: Spies, run_script: RunScript, tmp_path: Path
) -> None:
    """Both runs together do what one would have done, in its order; an unfinished evaluation is made anew."""
    stop(name, spies)
    with pytest.raises(SystemExit) as ended:
        run_script(name, *command(name, tmp_path))
    assert ended.value.code == 75
    (run_dir,) = tmp_path.iterdir()
    done = len(spies.events)
    run_script(name, "--resume", run_dir)
    expected, tasks = list(expected_events(name)), tasks_of(name)
    if stop is stop_while_collecting:
        fourth = [number for number, event in enumerate(expected) if event[0] == "collect"][3]
        expected.insert(fourth + 1, ("collect", 20 * tasks, True))
        assert done == fourth + 1
    elif stop is stop_while_evaluating:
        assert spies.events[done - 1] == ("evaluate", eval_seed(40 * tasks))
        assert sum(spies.evaluated[1]["episodes"]) < 6 * tasks
        expected.insert(done, spies.events[done - 1])
    assert 0 < done < len(expected)
    assert spies.events == expected


def test_a_distillation_that_was_stopped_makes_its_other_steps(
    spies: Spies, run_script: RunScript, tmp_path: Path
) -> None:
    class Events(list[tuple[Any, ...]]):
        def append(self, event: tuple[Any, ...]) -> None:
            super().append(event)
            if event == DISTILLATION[0] and self.count(event) == 1:
                stop_this_process()

    spies.events = Events()
    with pytest.raises(SystemExit) as ended:
        run_script("dnc", *command("dnc", tmp_path))
    assert (ended.value.code, spies.events[-1]) == (75, DISTILLATION[0])
    (run_dir,) = tmp_path.iterdir()
    run_script("dnc", "--resume", run_dir)
    assert spies.events == list(expected_events("dnc"))


class Accepted(Exception):  # noqa: N818
    """The settings were accepted: the run was about to start."""


@pytest.fixture
def settings_only(spies: Spies, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(run: training.TrainingRun, *_: Any, **__: Any) -> None:
        raise Accepted(run)

    monkeypatch.setattr(training.TrainingRun, "start", start)


@pytest.mark.usefixtures("settings_only")
@pytest.mark.parametrize("name", [name for name in SCRIPTS if "switch" in vars(load_script(name).Args())])
def test_without_a_final_value_the_own_probability_is_constant(
    name: str, spies: Spies, run_script: RunScript, tmp_path: Path
) -> None:
    with pytest.raises(Accepted):
        run_script(name, *command(name, tmp_path, own_probability_final=None, switch="own", **NO_CLONING))
    assert spies.collector["switch"] == qmp_collect.OwnPolicy()
    assert [spies.collector["own_probability"](step) for step in (0, 100, 1000)] == [0.8, 0.8, 0.8]


@pytest.mark.usefixtures("settings_only")
@every_script
def test_a_run_that_could_never_learn_is_refused(name: str, run_script: RunScript, tmp_path: Path) -> None:
    """The most that a buffer can hold and that a run can bring it are enough; one more is refused."""
    joint = name in JOINT
    for setting, most, message in (
        ({"buffer_size": 50}, 48 if joint else 50, "holds only"),  # 3 tasks' 16 rows
        # Five rounds, the last of which goes beyond the end of the run
        ({"total_timesteps": 90 * tasks_of(name), "buffer_size": 999}, 300 if joint else 100, "bring the buffer only"),
    ):
        with pytest.raises(Accepted):
            run_script(name, *command(name, tmp_path, **setting, min_buffer_size=most))
        with pytest.raises(SystemExit, match=rf"--min-buffer-size {most + 1}: .*{message} {most}, .*never start"):
            run_script(name, *command(name, tmp_path, **setting, min_buffer_size=most + 1))


@pytest.mark.usefixtures("settings_only")
@every_script
def test_a_run_of_less_than_a_round_is_refused(name: str, run_script: RunScript, tmp_path: Path) -> None:
    """It would be as long as a round, whatever was asked for."""
    round_steps = 20 * tasks_of(name)
    flags = {"min_buffer_size": 1, "env_steps_per_round": 20, **NO_CLONING}
    with pytest.raises(Accepted):
        run_script(name, *command(name, tmp_path, **flags, total_timesteps=round_steps))
    with pytest.raises(SystemExit, match=rf"--total-timesteps {round_steps - 1}: less than a round, .* {round_steps} "):
        run_script(name, *command(name, tmp_path, **flags, total_timesteps=round_steps - 1))


@pytest.mark.usefixtures("settings_only")
@every_script
def test_a_replay_is_no_larger_than_what_a_run_stores(
    name: str, spies: Spies, run_script: RunScript, tmp_path: Path
) -> None:
    with pytest.raises(Accepted):
        run_script(name, *command(name, tmp_path, buffer_size=1_000_000))
    assert spies.capacity == 100


@pytest.mark.usefixtures("settings_only")
@every_script
def test_shares_of_a_run(name: str, run_script: RunScript, tmp_path: Path) -> None:
    """What is 0 on the command line is a share of the run; an evaluation environment for each episode."""
    zeros = {"eval_every": 0, "checkpoint_every": 0, "eval_envs_per_task": 0, "distill_every": 0}
    with pytest.raises(Accepted) as accepted:
        run_script(name, *command(name, tmp_path, total_timesteps=3000, **zeros))
    args = vars(accepted.value.args[0].args)
    assert (args["eval_every"], args["checkpoint_every"], args["eval_envs_per_task"]) == (30, 150, 6)
    assert args.get("distill_every", 273) == 273  # an eleventh, rounded up


@pytest.mark.usefixtures("settings_only")
@every_script
def test_actions_of_another_range_are_refused(
    name: str, run_script: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_vec = gym.make_vec

    def wider(*args: Any, **settings: Any) -> Any:
        envs = make_vec(*args, **settings)
        envs.single_action_space = gym.spaces.Box(-2.0, 2.0, (2,))
        return envs

    monkeypatch.setattr(gym, "make_vec", wider)
    with pytest.raises(SystemExit, match=r"expected actions in \[-1, 1\], .*-2.0, 2.0"):
        run_script(name, *command(name, tmp_path))
