"""Speed, as ratios within one run: acting, physics and learning against their bounds and against plain loops.

    python benchmark/speed.py                          # everything, one to two minutes on two idle cores
    python benchmark/speed.py --only physics --repeats 21

An absolute time says as much about the machine as about the code. So each measurement alternates between this
project's way and another way to get the same result, A B A B ..., and what counts is the ratio of the medians. Its
range is that of the single A B pairs: a wide one means that the machine was busy, and that the ratio is worth little.
Where there are several other ways, the fastest one is compared with. The raw samples are written as JSON.

On a busy machine, ``--cpu-time`` counts what this process computes instead of what a clock shows; for sides that leave
other processes and the GPU alone.

Both sides use as many torch threads, and the environments one core. With ``--device cuda`` networks and replay buffers
are on the GPU, and a sample ends when the GPU has nothing left to do.
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
import numpy as np
import torch
import tyro
from baselines import SeparateNetworks, SeparateSACs
from numpy.typing import NDArray

import qmp_collect
from qmp_collect import QMPCollector, TaskReplayBuffer, highest
from qmp_collect.runs.acceleration import accelerate
from qmp_collect.runs.precision import set_matmul_precision
from qmp_collect.runs.provenance import provenance
from qmp_envs.maze import MAZES

ROOT = Path(__file__).parents[1]
ENV_ID = "Maze10-v0"
TASKS = MAZES[ENV_ID].num_tasks
OBS_DIM, ACTION_DIM = 4, 2


@dataclass
class Args:
    only: tuple[Literal["reference", "act", "physics", "meta_world", "round", "update", "replay", "graphs"], ...] = ()
    """sections to measure (none: all that the device has a part in)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where networks and replay buffers are"""
    repeats: int = 11
    """samples of each side"""
    threads: int = 0
    """CPU threads of torch (0: leave torch's choice)"""
    round_scale: float = 0.04
    """part of a whole training round that a sample of it takes, env steps and gradient steps alike"""
    out: Path | None = None
    """the JSON file (default: benchmark/results/speed.json or speed_cuda.json, with --quick none)"""
    cpu_time: bool = False
    """count CPU time of this process instead of wall-clock time"""
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
    repeats: int | None = None  # samples of each side; default: the script's


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
    """Interleaved samples of all sides, after one of each as warm-up (where the ratios mean something)."""
    sides = (comparison.ours, *comparison.others)
    warmups, repeats = (0, 2) if args.quick else (1, comparison.repeats or args.repeats)
    samples = [[_sample(side, args) for side in sides] for _ in range(warmups + repeats)]
    columns = np.array(samples[warmups:]).T
    return Result(comparison, columns[0], list(columns[1:]))


def _sample(side: Side, args: Args) -> float:
    torch.set_float32_matmul_precision(side.precision or script_precision())
    calls = 1 if args.quick else side.calls
    clock = time.process_time if args.cpu_time else time.perf_counter
    _wait()
    start = clock()
    for _ in range(calls):
        side.run()
    _wait()
    return (clock() - start) / (calls * side.units)


def _wait() -> None:
    """Until the device has done what it was given."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


# ----------------------------------------------------------------------------- what is measured


@functools.cache
def script(name: str = "sac_qmp_separate") -> ModuleType:
    """A training script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "cleanrl_scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclass looks for its module
    spec.loader.exec_module(module)
    return module


@functools.cache
def script_precision() -> str:
    """The matmul precision that the scripts choose on this device."""
    set_matmul_precision("auto", torch.get_default_device())
    return torch.get_float32_matmul_precision()


def script_args(*argv: str, name: str = "sac_qmp_separate") -> Any:
    """The script's settings: the paper's for Maze10, and ``argv`` on top."""
    return script(name).parse_args(["--env-id", ENV_ID, *argv])


def make_agent(num_tasks: int = TASKS, *argv: str, name: str = "sac_qmp_separate") -> Any:
    torch.manual_seed(1)
    device = torch.get_default_device()
    return script(name).Agent(script_args(*argv, name=name), num_tasks, OBS_DIM, ACTION_DIM, device)


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
        device=torch.get_default_device(),
        seed=1,
    )


def make_buffer(rows_per_task: int, num_tasks: int = TASKS) -> TaskReplayBuffer:
    """A replay buffer of the script's capacity with random content."""
    rng = np.random.default_rng(1)
    m = rows_per_task * num_tasks
    space, actions = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,)), gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,))
    device = torch.get_default_device()
    buffer = TaskReplayBuffer(script_args().buffer_size, num_tasks, space, actions, device=device, seed=1)
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


@torch.no_grad()
def forward_qmp(agent: Any, inputs: torch.Tensor, task_ids: torch.Tensor) -> None:
    """What the collector asks for a step with QMP."""
    agent.q_functions(inputs, agent.policies(inputs).means, task_ids)


@torch.no_grad()
def forward_own(agent: Any, inputs: torch.Tensor, task_ids: torch.Tensor) -> None:
    """What the collector asks for a step of own policies."""
    agent.own_policy(inputs, task_ids)


def act(args: Args) -> Iterator[Comparison]:
    """What `QMPCollector.act` adds to the forward passes that it asks for."""
    agent = make_agent()
    for switch in ("qmp", "own"):
        for envs_per_task in (1, 8):
            collector = make_collector(agent, envs_per_task, switch)
            obs, _ = collector.reset()
            inputs, task_ids = torch.tensor(obs), torch.tensor(collector.task_ids)
            forward = functools.partial(forward_qmp if switch == "qmp" else forward_own, agent, inputs, task_ids)
            yield Comparison(
                f"{switch} act, {_per_task(envs_per_task)}",
                "cost",
                1.5,
                Side("QMPCollector.act", functools.partial(collector.act, obs), calls=100),
                (Side("forward passes", forward, calls=100),),
                unit="vector step",
            )
    if args.device == "cuda":
        for envs_per_task in (1, 8, 64):
            collector = make_collector(agent, envs_per_task, "qmp")
            obs, _ = collector.reset()
            yield Comparison(
                f"choice on the device, {_per_task(envs_per_task)}",
                "cost",
                1.0,
                Side("chosen there", functools.partial(act_choosing, collector, obs, from_numbers=0), calls=100),
                (Side("chosen here", functools.partial(act_choosing, collector, obs, from_numbers=2**62), calls=100),),
                unit="vector step",
            )


def act_choosing(collector: QMPCollector, obs: NDArray[Any], from_numbers: int) -> None:
    """Act; the device chooses if there are so many numbers."""
    highest.MANY, usual = from_numbers, highest.MANY
    collector.act(obs)
    highest.MANY = usual


class Physics(NamedTuple):
    """A native task set to be compared with its physics alone."""

    env_id: str
    num_envs: int
    target: float
    steps: int  # control steps in a sample
    hold: int = 1  # control steps for which an action is held; only where controls are the actions


PHYSICS = (
    Physics("Maze10-v0", 10, 0.4, steps=500, hold=20),  # held, so that the balls get somewhere and hit walls
    Physics("Maze10-v0", 80, 0.7, steps=500, hold=20),
    Physics("Reacher5-v0", 10, 0.75, steps=100),
    Physics("Walker4-v0", 10, 0.85, steps=40),
    Physics("MetaWorldCDS-v0", 10, 0.75, steps=100),
    Physics("Kitchen10-v0", 10, 0.9, steps=5),
)


def physics(args: Args) -> Iterator[Comparison]:
    """A vector step (physics, observations, rewards, autoreset) against nothing but MuJoCo's step, on one core.

    The bound steps the same states with the same controls: it is put where the environment was whenever the action
    changes, and left alone in a native loop until the next change. That is what the physics cost if Python, NumPy and
    the vector environment were free. The mean over all sub-environments is compared, because a ball that
    touches a wall takes several times as long as one that rolls. Episodes begin spread over the horizon, so that a
    sample has its share of resets; the physics steps that the walker's resets make count as physics.
    """
    full = mujoco.mjtState.mjSTATE_FULLPHYSICS
    for env_id, n, target, steps, hold in PHYSICS[:1] if args.quick else PHYSICS:
        threads = {"nthread": 0} if env_id.startswith("Kitchen") else {}
        same_step = gym.vector.AutoresetMode.SAME_STEP
        vector: Any = gym.make_vec(env_id, num_envs=n, autoreset_mode=same_step, **threads).unwrapped
        engine, horizon = vector._engine, vector.max_episode_steps
        rng = np.random.default_rng(1)
        shape = (-(-steps // hold), n, *vector.single_action_space.shape)
        actions = rng.uniform(-1, 1, shape).astype(np.float32).repeat(hold, axis=0)[: 20 if args.quick else steps]
        vector.reset(seed=1)
        for action in actions[::-1]:  # away from the starts
            vector.step(action)
        start = vector.get_state()
        start["elapsed"] = np.linspace(0, horizon, n, endpoint=False, dtype=np.int64)
        # (model, state, controls): from this state, each of the controls for so many physics steps
        stretches: list[tuple[mujoco.MjModel, NDArray[np.float64], NDArray[np.float64]]] = []

        def run(row: int, controls: NDArray[np.float64], engine: Any = engine, stretches: Any = stretches) -> None:
            """The physics of a reset, of those task sets that have one, are physics too."""
            stretches.append((engine.models[row], engine.state[row].copy(), controls[:: engine.frame_skip]))
            type(engine).run(engine, row, controls)

        engine.run = run
        vector.set_state(start)
        for t, action in enumerate(actions):
            states = engine.state.copy()
            vector.step(action)
            if t % hold == 0:
                stretches += zip(engine.models, states, engine.control[:, :1].copy(), strict=True)
        del engine.run
        data, nstep, spec = mujoco.MjData(engine.models[0]), hold * engine.frame_skip, engine._control_spec

        def vector_steps(vector: Any = vector, actions: Any = actions, start: Any = start) -> None:
            vector.set_state(start)
            for action in actions:
                vector.step(action)

        def bare_steps(stretches: Any = stretches, data: Any = data, nstep: int = nstep, spec: int = spec) -> None:
            for model, state, controls in stretches:
                mujoco.mj_setState(model, data, state, full)
                for control in controls:
                    mujoco.mj_setState(model, data, control, spec)
                    mujoco.mj_step(model, data, nstep=nstep)

        yield Comparison(
            f"{env_id} step, {n} sub-environments",
            "speedup",
            target,
            Side("vector step", vector_steps, units=n * len(actions)),
            (Side("bare mj_step", bare_steps, units=n * len(actions)),),
            unit="env step",
        )
        vector.close()


def meta_world(args: Args) -> Iterator[Comparison]:
    """MT10 and MT50: made and reset, against Meta-World's own vector environments; a step, against its physics.

    Meta-World makes its 50 goals of each task beforehand, by as many resets; this package makes each when it is needed.
    All in one process.
    """
    import metaworld

    from qmp_envs import sawyer
    from qmp_envs.meta_world import META_WORLD

    def ours(env_id: str, num_envs: int) -> None:
        sawyer._model.cache_clear()  # as in a process that has made none before
        envs = gym.make_vec(env_id, num_envs=num_envs, vector_strategy="sync")
        envs.reset(seed=1)
        envs.close()

    def theirs(env_id: str, **kwargs: Any) -> None:
        envs = gym.make_vec(f"Meta-World/{env_id}", vector_strategy="sync", seed=1, **kwargs)
        envs.reset(seed=1)
        envs.close()

    made: list[tuple[str, int, Callable[[], None]]] = [
        ("MT10", 10, functools.partial(theirs, "MT10", num_goals=50)),
        ("MT50", 50, functools.partial(theirs, "MT50", num_goals=50)),
    ]
    if args.quick:  # two tasks of MT10, with a goal each
        metaworld._N_GOALS = 1
        tasks = META_WORLD["MetaWorldMT10-v0"].task_names[:2]
        made = [("MT10", 2, functools.partial(theirs, "custom-mt-envs", envs_list=list(tasks)))]
    for num_envs, target in ((2, 0.2),) if args.quick else ((10, 0.45), (80, 0.65)):
        yield from mt10_steps(num_envs, target, 4 if args.quick else 400 // num_envs)
    for benchmark, num_envs, other in made:
        yield Comparison(
            f"{benchmark} made and reset",
            "speedup",
            5,
            Side("this package", functools.partial(ours, f"MetaWorld{benchmark}-v0", num_envs)),
            (Side("Meta-World", other),),
            unit=f"{num_envs} sub-environments",
            repeats=3,
        )


def mt10_steps(num_envs: int, target: float, num_steps: int) -> Iterator[Comparison]:
    """A batched step against its physics alone, and against Meta-World's Python in a loop; without resets."""
    full = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
    inputs = mujoco.mjtState.mjSTATE_CTRL.value | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    make = functools.partial(gym.make_vec, "MetaWorldMT10-v0", num_envs=num_envs, max_episode_steps=10**6)
    batched: Any = make(vector_strategy="batched", nthread=0).unwrapped
    sync = make(vector_strategy="sync")
    actions = np.random.default_rng(1).uniform(-1, 1, (num_steps, num_envs, 4)).astype(np.float32)
    for envs in (batched, sync):
        envs.reset(seed=1)
    simulations = batched._simulations
    stretches = []
    for action in actions:
        states = [_state(x.model, x.data, full) for x in simulations]
        batched.step(action)
        stretches += [(x, state, _state(x.model, x.data, inputs)) for x, state in zip(simulations, states, strict=True)]
    bare = {id(x): mujoco.MjData(x.model) for x in simulations}

    def vector_steps(envs: Any) -> None:
        for action in actions:
            envs.step(action)

    def bare_steps() -> None:
        for x, state, control in stretches:
            data = bare[id(x)]
            mujoco.mj_setState(x.model, data, state, full)
            mujoco.mj_setState(x.model, data, control, inputs)
            mujoco.mj_step(x.model, data, nstep=x.frame_skip)

    units = len(stretches)
    ours = Side("vector step", functools.partial(vector_steps, batched), units=units)
    for against, aim, other in (
        ("", target, Side("bare mj_step", bare_steps, units=units)),
        (", against sync", 2.5, Side("sync", functools.partial(vector_steps, sync), units=units)),
    ):
        name = f"MT10 step, {num_envs} sub-environments{against}"
        yield Comparison(name, "speedup", aim, ours, (other,), unit="env step")


def _state(model: mujoco.MjModel, data: mujoco.MjData, spec: int) -> NDArray[np.float64]:
    state = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, state, spec)
    return state


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


def graphs(args: Args) -> Iterator[Comparison]:
    """Update and acting at the paper's settings for Maze10: compiled, recorded as CUDA graphs or both, or neither."""
    for name in ("sac_qmp_separate", "sac_qmp_multihead"):
        batch_size = script_args(name=name).batch_size
        buffer = make_buffer(2_000)
        data = buffer.sample(batch_size) if name == "sac_qmp_separate" else buffer.sample_joint(batch_size)
        inputs, task_ids = torch.zeros(TASKS, OBS_DIM), torch.arange(TASKS)
        plain = make_agent(name=name)
        for way in ("--compile", "--cudagraphs", "--compile --cudagraphs"):
            agent = make_agent(TASKS, *way.split(), name=name)
            chosen = {"compile": agent.args.compile, "cudagraphs": agent.args.cudagraphs}
            accelerate(agent, "update", "policies", "q_functions", **chosen)
            updates = [functools.partial(a.update, data) for a in (agent, plain)]
            forwards = [functools.partial(forward_qmp, a, inputs, task_ids) for a in (agent, plain)]
            for what, (ours, other) in (("update", updates), ("forward passes of QMP", forwards)):
                for _ in range(10):  # what is compiled and recorded, is so in the first calls
                    ours()
                yield Comparison(
                    f"{name}, {what}, {way}",
                    "speedup",
                    1,
                    Side(way, ours, calls=20),
                    (Side("neither", other, calls=20),),
                )


ON_CUDA = ("reference", "act", "round", "update", "replay", "graphs")
SECTIONS: dict[str, Callable[[Args], Iterator[Comparison]]] = {
    "reference": reference,
    "act": act,
    "physics": physics,
    "meta_world": meta_world,
    "round": training_round,
    "update": update,
    "replay": replay,
    "graphs": graphs,
}


# ----------------------------------------------------------------------------- report


def machine(args: Args) -> dict[str, Any]:
    """What a ratio could still depend on."""
    return {
        **provenance(vars(args)),
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
    if "graphs" in args.only and args.device != "cuda":
        raise SystemExit("--only graphs: CUDA graphs need --device cuda")
    torch.set_default_device(args.device)
    report: dict[str, Any] = {"machine": machine(args), "quick": args.quick, "comparisons": []}
    for key, value in report["machine"].items():
        print(f"{key}: {value}")
    out = args.out
    if out is None and not args.quick:
        out = ROOT / "benchmark" / "results" / ("speed.json" if args.device == "cpu" else "speed_cuda.json")
    sections = ON_CUDA if args.device == "cuda" else [name for name in SECTIONS if name != "graphs"]
    for section in args.only or sections:
        print(f"\n{section}: {(SECTIONS[section].__doc__ or '').splitlines()[0]}")
        for comparison in SECTIONS[section](args):
            result = measure(comparison, args)
            print(result.line(), flush=True)
            report["comparisons"].append(result.as_json(section))
            if out is not None:  # after each, so that an interrupted run keeps what it measured
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(report, indent=1) + "\n")
    if out is not None:
        print(f"\nraw samples: {out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
