"""Speed, as ratios within one run: acting, physics and learning against their bounds and against plain loops.

    python benchmark/speed.py                          # everything, one to two minutes on two idle cores
    python benchmark/speed.py --only maze --repeats 21

An absolute time says as much about the machine as about the code. So each measurement alternates between this
project's way and another way to get the same result, A B A B ..., and what counts is the ratio of the medians. Its
range is that of the single A B pairs: a wide one means that the machine was busy, and that the ratio is worth little.
Where there are several other ways, the fastest one is compared with. The raw samples are written as JSON.

Everything runs on the CPU, with as many torch threads on both sides; the environments use one core on both sides.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import mujoco
import mujoco.rollout
import numpy as np
import torch
import tyro
from baselines import SeparateNetworks, SeparateSACs
from numpy.typing import NDArray

import qmp_collect
from qmp_collect import QMPCollector, TaskReplayBuffer
from qmp_collect.precision import set_matmul_precision
from qmp_collect.provenance import provenance
from qmp_envs.maze import MAZES, maze_xml

ROOT = Path(__file__).parents[1]
ENV_ID = "Maze10-v0"
TASKS = MAZES[ENV_ID].num_tasks
OBS_DIM, ACTION_DIM = 4, 2


@dataclass
class Args:
    only: tuple[Literal["reference", "act", "maze", "round", "update", "replay"], ...] = ()
    """sections to measure (none: all)"""
    repeats: int = 11
    """samples of each side"""
    threads: int = 0
    """CPU threads of torch (0: leave torch's choice)"""
    round_scale: float = 0.04
    """part of a whole training round that a sample of it takes, env steps and gradient steps alike"""
    out: Path | None = None
    """the JSON file (default: benchmark/results/speed.json, with --quick none)"""
    quick: bool = False
    """smoke test: two tiny samples of each side; the ratios mean nothing"""


class Side(NamedTuple):
    """One way to do something."""

    label: str
    run: Callable[[], object]
    calls: int = 1  # of `run` in a sample
    units: int = 1  # of work in a call: times are per unit
    precision: str | None = None  # torch's matmul precision; default: the script's


@dataclass(frozen=True)
class Comparison:
    """This project's way against others; a ``speedup`` is theirs / ours, a ``cost`` ours / theirs."""

    name: str
    kind: Literal["speedup", "cost"]
    target: float
    ours: Side
    others: tuple[Side, ...]
    unit: str = "call"


@dataclass
class Result:
    """Seconds per unit of each side, ``(repeats,)``, and what follows from them."""

    comparison: Comparison
    ours: NDArray[np.float64]
    others: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def rival(self) -> int:
        """Index of the fastest other side."""
        return int(np.argmin([np.median(samples) for samples in self.others]))

    @property
    def ratio(self) -> float:
        return self._ratio(float(np.median(self.ours)), float(np.median(self.others[self.rival])))

    @property
    def ratio_range(self) -> tuple[float, float]:
        """Smallest and largest ratio of a pair of neighbouring samples."""
        pairs = [self._ratio(a, b) for a, b in zip(self.ours, self.others[self.rival], strict=True)]
        return min(pairs), max(pairs)

    @property
    def met(self) -> bool:
        target = self.comparison.target
        return self.ratio >= target if self.comparison.kind == "speedup" else self.ratio <= target

    def _ratio(self, ours: float, other: float) -> float:
        return other / ours if self.comparison.kind == "speedup" else ours / other

    def line(self) -> str:
        c, rival = self.comparison, self.comparison.others[self.rival]
        low, high = self.ratio_range
        sign, verdict = (">=" if c.kind == "speedup" else "<="), ("met" if self.met else "MISSED")
        times = f"{_seconds(np.median(self.ours))} vs {_seconds(np.median(self.others[self.rival]))} per {c.unit}"
        return (
            f"  {c.name:<38} {_number(self.ratio):>6} [{_number(low)}, {_number(high)}]"
            f"  target {sign} {c.target:g}: {verdict}  ({c.ours.label} {times}: {rival.label})"
        )

    def as_json(self, section: str) -> dict[str, Any]:
        c = self.comparison
        sides = [
            {"label": side.label, "seconds_per_unit": samples.tolist()}
            for side, samples in zip((c.ours, *c.others), (self.ours, *self.others), strict=True)
        ]
        return {
            "section": section,
            "name": c.name,
            "kind": c.kind,
            "unit": c.unit,
            "target": c.target,
            "ratio": self.ratio,
            "ratio_range": self.ratio_range,
            "met": self.met,
            "ours": sides[0],
            "others": sides[1:],
            "fastest_other": c.others[self.rival].label,
        }


def measure(comparison: Comparison, args: Args) -> Result:
    """Interleaved samples of all sides, after one of each as warm-up."""
    sides = (comparison.ours, *comparison.others)
    samples = [[_sample(side, args.quick) for side in sides] for _ in range(1 + (2 if args.quick else args.repeats))]
    columns = np.array(samples[1:]).T
    return Result(comparison, columns[0], list(columns[1:]))


def _sample(side: Side, quick: bool) -> float:
    torch.set_float32_matmul_precision(side.precision or script_precision())
    calls = 1 if quick else side.calls
    start = time.perf_counter()
    for _ in range(calls):
        side.run()
    return (time.perf_counter() - start) / (calls * side.units)


# ----------------------------------------------------------------------------- what is measured


@functools.cache
def script() -> ModuleType:
    """sac_qmp_separate.py as a module."""
    spec = importlib.util.spec_from_file_location("script", ROOT / "cleanrl_scripts" / "sac_qmp_separate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["script"] = module  # where its dataclass looks for its module
    spec.loader.exec_module(module)
    return module


@functools.cache
def script_precision() -> str:
    """The matmul precision that the script chooses on a CPU."""
    set_matmul_precision(script_args().matmul_precision, torch.device("cpu"))
    return torch.get_float32_matmul_precision()


def script_args(*argv: str) -> Any:
    """The script's settings: the paper's for Maze10, and ``argv`` on top."""
    return script().parse_args(["--env-id", ENV_ID, *argv])


def make_agent(num_tasks: int = TASKS, *argv: str) -> Any:
    torch.manual_seed(1)
    return script().Agent(script_args(*argv), num_tasks, OBS_DIM, ACTION_DIM, torch.device("cpu"))


def make_envs(envs_per_task: int) -> gym.vector.VectorEnv[Any, Any, Any]:
    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.make_vec(ENV_ID, num_envs=TASKS * envs_per_task, autoreset_mode=mode)


def make_collector(agent: Any, envs_per_task: int, switch: str, buffer: TaskReplayBuffer | None = None) -> QMPCollector:
    """The collector as the script makes it."""
    return QMPCollector(
        make_envs(envs_per_task),
        agent.policies,
        agent.q_functions,
        own_policy=agent.own_policy,
        buffer=buffer,
        switch=script().make_switch(script_args("--switch", switch), agent, MAZES[ENV_ID]),
        backend="torch",
        device="cpu",
        seed=1,
    )


def make_buffer(rows_per_task: int, num_tasks: int = TASKS) -> TaskReplayBuffer:
    """A replay buffer of the script's capacity with random content."""
    rng = np.random.default_rng(1)
    m = rows_per_task * num_tasks
    space, actions = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,)), gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,))
    buffer = TaskReplayBuffer(script_args().buffer_size, num_tasks, space, actions, seed=1)
    obs, next_obs = rng.normal(size=(2, m, OBS_DIM)).astype(np.float32)
    ids, no = np.arange(m) % num_tasks, np.zeros(m, np.bool_)
    action = rng.uniform(-1, 1, (m, ACTION_DIM)).astype(np.float32)
    buffer.add(qmp_collect.Transitions(obs, action, -rng.random(m), next_obs, no, no, ids, ids, ids))
    return buffer


def _per_task(envs_per_task: int) -> str:
    return f"{TASKS} tasks, {envs_per_task} env{'s' if envs_per_task > 1 else ''} per task"


def reference(args: Args) -> Iterator[Comparison]:
    """QMP acting: all candidates at once, against a call per environment and policy as in the authors' code."""
    agent = make_agent()
    networks = SeparateNetworks(agent, OBS_DIM, ACTION_DIM)
    for envs_per_task, target, calls in ((1, 35, 4), (8, 80, 1)):
        collector = make_collector(agent, envs_per_task, "qmp")
        obs, _ = collector.reset()
        actions = collector.act(obs)
        chosen = collector.observe(*collector.envs.step(actions)).behavior_ids
        agreement = np.mean(chosen == networks.act(obs, collector.task_ids)[1])
        assert agreement >= 0.9, f"both ways must choose the same policies, they do in {agreement:.0%} of the rows"
        yield Comparison(
            f"QMP act, {_per_task(envs_per_task)}",
            "speedup",
            target,
            Side("QMPCollector.act", functools.partial(collector.act, obs), calls=25 * calls),
            # Single rows are what oneDNN ("medium") is slow at: the loop gets torch's default, which suits it best.
            (
                Side(
                    "loop over environments and policies",
                    functools.partial(networks.act, obs, collector.task_ids),
                    calls,
                    precision="highest",
                ),
            ),
            unit="vector step",
        )


def act(args: Args) -> Iterator[Comparison]:
    """What `QMPCollector.act` adds to the forward passes that it asks for."""
    agent = make_agent()
    for switch in ("qmp", "own"):
        for envs_per_task in (1, 8):
            collector = make_collector(agent, envs_per_task, switch)
            obs, _ = collector.reset()
            inputs, task_ids = torch.from_numpy(obs.copy()), torch.from_numpy(collector.task_ids.copy())

            def forward(
                qmp: bool = switch == "qmp", inputs: torch.Tensor = inputs, task_ids: torch.Tensor = task_ids
            ) -> None:
                with torch.no_grad():
                    if qmp:
                        agent.q_functions(inputs, agent.policies(inputs).means, task_ids)
                    else:
                        agent.own_policy(inputs, task_ids)

            yield Comparison(
                f"{switch} act, {_per_task(envs_per_task)}",
                "cost",
                1.5,
                Side("QMPCollector.act", functools.partial(collector.act, obs), calls=100),
                (Side("forward passes", forward, calls=100),),
                unit="vector step",
            )


HOLD = 20  # steps that a random action is held, so that the balls get somewhere and hit walls


def maze(args: Args) -> Iterator[Comparison]:
    """A vector step (physics, observations, rewards, autoreset) against nothing but MuJoCo's step, on one core.

    The bound steps the same states with the same controls: it is put where the environment was whenever the action
    changes, and left alone in a native loop until the next change. That is what the physics cost if Python, NumPy and
    the vector environment were free. The mean over all sub-environments is compared, because a ball that
    touches a wall takes several times as long as one that rolls.
    """
    holds = 1 if args.quick else 25
    model = mujoco.MjModel.from_xml_string(maze_xml(MAZES[ENV_ID].layout))
    data, pool = mujoco.MjData(model), mujoco.rollout.Rollout(nthread=0)
    physics = mujoco.mjtState.mjSTATE_FULLPHYSICS
    for envs_per_task, target in ((1, 0.4), (8, 0.7)):
        envs = make_envs(envs_per_task)
        n = envs.num_envs
        rng = np.random.default_rng(1)
        actions = rng.uniform(-1, 1, (holds, n, ACTION_DIM)).astype(np.float32)
        envs.reset(seed=1)
        for action in rng.uniform(-1, 1, (25, n, ACTION_DIM)).astype(np.float32):  # away from the starts
            for _ in range(HOLD):
                envs.step(action)
        start: dict[str, Any] = envs.unwrapped.get_state()  # type: ignore[attr-defined]
        states = np.empty((holds, n, mujoco.mj_stateSize(model, physics)))
        for hold, action in enumerate(actions):
            states[hold] = envs.unwrapped.get_state()["physics"]  # type: ignore[attr-defined]
            for _ in range(HOLD):
                envs.step(action)
        states = states.reshape(-1, states.shape[-1])
        controls = actions.reshape(-1, 1, ACTION_DIM).repeat(HOLD, axis=1).astype(np.float64)
        visited = np.empty((len(states), HOLD, states.shape[-1]))

        def vector_steps(
            envs: Any = envs.unwrapped, actions: NDArray[np.float32] = actions, start: dict[str, Any] = start
        ) -> None:
            envs.set_state(start)
            for action in actions:
                for _ in range(HOLD):
                    envs.step(action)

        def bare_steps(states: NDArray[np.float64] = states, controls: NDArray[np.float64] = controls[:, 0]) -> None:
            for state, control in zip(states, controls, strict=True):
                mujoco.mj_setState(model, data, state, physics)
                data.ctrl[:] = control
                mujoco.mj_step(model, data, nstep=HOLD)

        # The same loop, wholly native, but it keeps every state.
        rollout = functools.partial(
            pool.rollout,
            [model] * len(states),
            [data],
            states,
            controls,
            skip_checks=True,
            nstep=HOLD,
            state=visited,
        )
        units = len(states) * HOLD
        yield Comparison(
            f"maze step, {n} sub-environments",
            "speedup",
            target,
            Side("vector step", vector_steps, units=units),
            (Side("bare mj_step", bare_steps, units=units), Side("bare rollout", rollout, units=units)),
            unit="env step",
        )


def training_round(args: Args) -> Iterator[Comparison]:
    """A round of training, collection and updates, with sharing against without, at the paper's settings for Maze10.

    A sample is `round_scale` of a round: as many env steps and gradient steps fewer.
    """
    settings = script_args()
    scale = 0.01 if args.quick else args.round_scale
    env_steps = max(1, round(scale * settings.env_steps_per_round * TASKS))
    gradient_steps = max(1, round(scale * settings.gradient_steps_per_round))
    for envs_per_task in (1, 8):
        rounds = {}
        for switch in ("qmp", "own"):
            agent, buffer = make_agent(), make_buffer(settings.min_buffer_size)
            collector = make_collector(agent, envs_per_task, switch, buffer)

            def one_round(
                agent: Any = agent, buffer: TaskReplayBuffer = buffer, collector: QMPCollector = collector
            ) -> None:
                collector.collect(n_step=env_steps)
                for _ in range(gradient_steps):
                    agent.update(buffer.sample(settings.batch_size))

            rounds[switch] = Side(f"--switch {switch}", one_round)
        yield Comparison(
            f"training round, {_per_task(envs_per_task)}",
            "cost",
            1.06,
            rounds["qmp"],
            (rounds["own"],),
            unit=f"{env_steps} env steps and {gradient_steps} updates",
        )


BATCHES = ((5, 32), (10, 256))  # tasks, batch size of each: the paper's Reacher and Maze10


def update(args: Args) -> Iterator[Comparison]:
    """The update of all tasks in stacked networks, against one SAC after the other.

    The loop comes in two kinds: as CleanRL and the reference write a SAC, and with every trick of the stacked one.
    """
    for (num_tasks, batch_size), target in zip(BATCHES, (5, 2.5), strict=True):
        agent = make_agent(num_tasks)
        data = make_buffer(batch_size, num_tasks).sample(batch_size)
        networks = SeparateNetworks(agent, OBS_DIM, ACTION_DIM)
        values = agent.update(data)["qf_value"]
        calls = 4 if batch_size == 32 else 1
        for tuned, kind in ((False, "usual loop"), (True, "tuned loop")):
            # Small products may be faster at torch's default than at the script's choice: both are tried.
            sides = []
            for precision in dict.fromkeys(("highest", script_precision())):
                loop = SeparateSACs(networks, agent.args, ACTION_DIM, tuned=tuned)
                torch.testing.assert_close(loop.update(data), values, rtol=0.0, atol=1e-3)  # the same maths
                label = f"{kind} over SACs, {precision} precision"
                sides.append(Side(label, functools.partial(loop.update, data), calls, precision=precision))
            yield Comparison(
                f"update, {num_tasks} tasks x {batch_size}, {kind}",
                "speedup",
                target,
                Side("stacked", functools.partial(agent.update, data), calls=4 * calls),
                tuple(sides),
            )


def replay(args: Args) -> Iterator[Comparison]:
    """Sampling a batch of all tasks, as part of the update on it."""
    for num_tasks, batch_size in BATCHES:
        agent = make_agent(num_tasks)
        buffer = make_buffer(2_000 if args.quick else 100_000, num_tasks)
        data = buffer.sample(batch_size)
        yield Comparison(
            f"sampling, {num_tasks} tasks, batch {batch_size} each",
            "cost",
            0.03,
            Side("TaskReplayBuffer.sample", functools.partial(buffer.sample, batch_size), calls=20),
            (Side("stacked update", functools.partial(agent.update, data), calls=2),),
        )


SECTIONS: dict[str, Callable[[Args], Iterator[Comparison]]] = {
    "reference": reference,
    "act": act,
    "maze": maze,
    "round": training_round,
    "update": update,
    "replay": replay,
}


# ----------------------------------------------------------------------------- report


def machine() -> dict[str, Any]:
    """What a ratio could still depend on."""
    return {
        **provenance(),
        "torch_threads": torch.get_num_threads(),
        "matmul_precision": script_precision(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _seconds(seconds: float) -> str:
    unit, size = next((u, s) for u, s in (("s", 1.0), ("ms", 1e-3), ("us", 0.0)) if seconds >= s)
    return f"{seconds / (size or 1e-6):.3g} {unit}"


def _number(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


def main(args: Args) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    report: dict[str, Any] = {"machine": machine(), "quick": args.quick, "comparisons": []}
    for key, value in report["machine"].items():
        print(f"{key}: {value}")
    for section in args.only or SECTIONS:
        print(f"\n{section}: {(SECTIONS[section].__doc__ or '').splitlines()[0]}")
        for comparison in SECTIONS[section](args):
            result = measure(comparison, args)
            print(result.line(), flush=True)
            report["comparisons"].append(result.as_json(section))
    out = args.out
    if out is None and not args.quick:
        out = ROOT / "benchmark" / "results" / "speed.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nraw samples: {out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
