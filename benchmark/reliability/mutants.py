"""Which one-line faults do the tests notice? Each is put into a copy of the checkout, where fast tests run.

    python benchmark/reliability/mutants.py                  # all; exit code 1 if one survives, or is out of date
    python benchmark/reliability/mutants.py --only dnc.py    # those whose file or lines contain this; writes no file

A fault is caught if a test fails. One whose line is no longer there exactly once, or with which pytest cannot even
collect its tests, says nothing about the tests, and is as bad as one that survives. In the end, in the same
process, the tests have to pass without a fault.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium
import pytest
import tyro

ROOT = Path(__file__).parents[2]


@dataclass
class Args:
    only: str = ""
    """only faults whose file, old line or new line contains this"""
    jobs: int = 2
    """faults at a time, one core each"""
    out: Path = ROOT / "benchmark" / "results" / "reliability" / "mutants.json"
    """the JSON file"""


@dataclass(frozen=True)
class Mutant:
    """A line ``old``, without its indentation, that becomes ``new``; the tests that have to notice, as for pytest."""

    file: str
    old: str
    new: str
    tests: str


SEPARATE = ("sac_qmp_separate", "sac_qmp_helper", "uds_qmp", "decaf", "dnc", "mcal_qmp", "point_reaching")
JOINT = ("sac_qmp_multihead", "sac_shared", "pcgrad_qmp")
EVERY = (*SEPARATE, *JOINT)
SEPARATE_TASKS = SEPARATE[:-1]  # with one task, any and all tasks are the same
SEVERAL_TASKS = (*SEPARATE_TASKS, *JOINT)
SHARING = tuple(name for name in EVERY if name not in ("dnc", "sac_shared"))  # with a switch
PLAIN_SWITCH = ("uds_qmp", "decaf", "mcal_qmp", "pcgrad_qmp")
STACKED_ACTOR = (*SEPARATE, "sac_shared")
TRUSTING = ("sac_qmp_separate", "sac_qmp_multihead", "sac_qmp_helper")

# What every script does with its settings: scripts, old line, new line. tests/scripts/test_protocol.py
PROTOCOL: list[tuple[tuple[str, ...], str, str]] = [
    # Evaluation
    (EVERY, "agent.mean_policy,", "agent.own_policy,"),  # sampled instead of mean actions
    (EVERY, "seed=run.eval_seed,", "seed=args.seed,"),  # the training seed
    (EVERY, "episodes_per_env=args.eval_episodes // args.eval_envs_per_task,", "episodes_per_env=1,"),
    (EVERY, "num_envs = num_tasks * args.eval_envs_per_task", "num_envs = num_tasks"),
    (EVERY, "eval_envs,", "envs,"),
    # The collector
    (EVERY, "num_envs = num_tasks * args.envs_per_task", "num_envs = num_tasks"),
    (EVERY, "seed=args.seed,", "seed=1,"),
    (SEVERAL_TASKS, "round_steps = num_tasks * args.env_steps_per_round", "round_steps = args.env_steps_per_round"),
    (SHARING, "own_probability=run.linear(args.own_probability, args.own_probability_final),", "own_probability=0.0,"),
    (
        SHARING,
        "own_probability=run.linear(args.own_probability, args.own_probability_final),",
        "own_probability=run.linear(args.own_probability, None),",
    ),
    (tuple(name for name in SHARING if name not in TRUSTING), "horizon=args.horizon,", "horizon=1,"),
    (TRUSTING, "horizon=make_horizon(args),", "horizon=args.horizon,"),
    (TRUSTING, "candidate_mask=make_candidate_mask(args),", "candidate_mask=None,"),
    (SHARING, "warmup_steps = args.warmup_rounds * round_steps", "warmup_steps = args.warmup_rounds"),
    (SHARING, "warmup_steps=warmup_steps,", "warmup_steps=0,"),
    (
        PLAIN_SWITCH,
        'switch=qmp_collect.QSwitch() if args.switch == "qmp" else qmp_collect.OwnPolicy(),',
        "switch=qmp_collect.QSwitch(),",
    ),
    # Stops: during an evaluation, during a collection, which then must go on where it was
    (EVERY, "stop=run.stop,", "stop=None,"),
    (
        EVERY,
        "if not run.collected(collector.collect(n_step=round_steps, stop=run.stop, resume=run.interrupted)):",
        "if not run.collected(collector.collect(n_step=round_steps, stop=run.stop)):",
    ),
    (
        ("dnc",),
        "due = run.global_step // args.distill_every > agent.distillations and not run.interrupted",
        "due = run.global_step // args.distill_every > agent.distillations",
    ),
    (("dnc",), "while agent.distilled < args.distill_steps and not run.stop:", "while agent.distilled < 500:"),
    # Learning
    (JOINT, "capacity = args.buffer_size // num_tasks", "capacity = args.buffer_size"),
    (SEPARATE_TASKS, "capacity = args.buffer_size", "capacity = args.buffer_size // num_tasks"),
    (EVERY, "rows = min(capacity, run.storable(round_steps, envs.num_envs))", "rows = capacity"),
    (
        JOINT,
        "run.updates_due = num_tasks * args.gradient_steps_per_round",
        "run.updates_due = args.gradient_steps_per_round",
    ),
    (
        SEPARATE_TASKS,
        "run.updates_due = args.gradient_steps_per_round",
        "run.updates_due = num_tasks * args.gradient_steps_per_round",
    ),
    (
        ("sac_qmp_helper",),
        "if demonstrated and buffer.sizes.min() >= args.min_buffer_size:",
        "if demonstrated and buffer.sizes.max() >= args.min_buffer_size:",
    ),
    (
        ("sac_qmp_helper",),
        "agent.clone(buffer.sample(args.batch_size, own_fraction=0.0))",
        "agent.clone(buffer.sample(args.batch_size))",
    ),
    (  # learning starts when any buffer is full enough
        tuple(name for name in SEPARATE_TASKS if name != "sac_qmp_helper"),
        "if buffer.sizes.min() >= args.min_buffer_size:",
        "if buffer.sizes.max() >= args.min_buffer_size:",
    ),
    (JOINT, "if len(buffer) >= args.min_buffer_size:", "if buffer.sizes.min() >= args.min_buffer_size:"),
    (
        SEPARATE_TASKS,
        "args.min_buffer_size, capacity, per_round=args.env_steps_per_round, round_steps=round_steps",
        "args.min_buffer_size, capacity, per_round=round_steps, round_steps=round_steps",
    ),
    (
        JOINT,
        "args.min_buffer_size, num_tasks * capacity, per_round=round_steps, round_steps=round_steps",
        "args.min_buffer_size, args.buffer_size, per_round=round_steps, round_steps=round_steps",
    ),
    (
        EVERY,
        "if action_space != gym.spaces.Box(-1.0, 1.0, action_space.shape):",
        "if action_space == gym.spaces.Discrete(2):",
    ),
    # Batches, and what only one script has
    (
        ("sac_qmp_separate", "decaf"),
        "losses = agent.update(buffer.sample(args.batch_size, own_fraction=args.own_fraction))",
        "losses = agent.update(buffer.sample(args.batch_size // num_tasks, own_fraction=args.own_fraction))",
    ),
    (
        ("sac_qmp_separate", "decaf"),
        "losses = agent.update(buffer.sample(args.batch_size, own_fraction=args.own_fraction))",
        "losses = agent.update(buffer.sample(args.batch_size))",
    ),
    (
        ("dnc",),
        "losses = agent.update(buffer.sample(args.batch_size))",
        "losses = agent.update(buffer.sample(args.batch_size // num_tasks))",
    ),
    (
        ("sac_qmp_multihead",),
        "losses = agent.update(buffer.sample_joint(args.batch_size, own_fraction=args.own_fraction))",
        "losses = agent.update(buffer.sample_joint(args.batch_size * num_tasks, own_fraction=args.own_fraction))",
    ),
    (
        ("sac_shared",),
        "losses = agent.update(buffer.sample_joint(args.batch_size))",
        "losses = agent.update(buffer.sample_joint(args.batch_size * num_tasks))",
    ),
    (("pcgrad_qmp",), "task_batch_size = max(args.batch_size // num_tasks, 1)", "task_batch_size = args.batch_size"),
    (("uds_qmp",), "self.share = args.batch_size // max(self.others, 1)  # of each other task", "self.share = 1"),
    (("mcal_qmp",), "actor_batch_size = max(args.batch_size // num_tasks, 1)", "actor_batch_size = args.batch_size"),
    (
        ("mcal_qmp",),
        "for _ in range(num_tasks):  # the step of each task's critics is followed by one of the policy",
        "for _ in range(1):",
    ),
    (("dnc",), "agent.conquer()", "agent.distillations += 1"),  # policies are never overwritten
    (("dnc",), "policies.copy_(centroid.expand_as(policies))", "policies.copy_(policies)"),
    (("dnc",), "agent.distill(buffer.sample(agent.share))", "agent.distill(buffer.sample(args.batch_size))"),
    (("dnc",), "agent.distilled += 1", "agent.distilled += args.distill_steps"),
    (
        ("dnc",),
        "due = run.global_step // args.distill_every > agent.distillations and not run.interrupted",
        "due = run.global_step // args.distill_every >= agent.distillations and not run.interrupted",
    ),
    (
        ("dnc",),
        "args.distill_every = args.distill_every or math.ceil(args.total_timesteps / 11)",
        "args.distill_every = args.distill_every or math.ceil(args.total_timesteps / 10)",
    ),
]

# Copies that drift. tests/scripts/test_duplicates.py
DRIFT: list[tuple[tuple[str, ...], str, str]] = [
    (EVERY, "LOG_STD_MIN, LOG_STD_MAX = -20, 2", "LOG_STD_MIN, LOG_STD_MAX = -5, 2"),
    (STACKED_ACTOR, "mean, log_std = self(obs)", "mean, log_std = self(obs.float())"),
    (EVERY, "gamma: float = 0.99", "gamma: float = 0.98"),
    (EVERY, "run.save_videos(agent.mean_policy)", "run.save_videos(agent.own_policy)"),
]

TRAINING, STATS, EPISODES = "qmp_collect/runs/training.py", "qmp_collect/stats.py", "qmp_collect/episodes.py"
EVALUATION, PRESETS = "qmp_collect/evaluation.py", "qmp_collect/runs/presets.py"
STATISTICS = "qmp_collect/runs/report/statistics.py"
PROTOCOL_TESTS = "tests/scripts/test_protocol.py -k dnc"
METRICS_TESTS = "tests/collect/test_episode_metrics.py tests/collect/test_evaluation.py tests/collect/test_collector.py"
MATH_TESTS = "tests/scripts/test_update_math.py"

OTHERS: list[Mutant] = [
    # What surrounds the loop
    Mutant(
        TRAINING, "return stream_seed(self.args.seed, 1, self.global_step)", "return self.args.seed", PROTOCOL_TESTS
    ),
    Mutant(
        TRAINING,
        "return stream_seed(self.args.seed, 1, self.global_step)",
        "return stream_seed(self.args.seed, 1)",
        PROTOCOL_TESTS,
    ),
    Mutant(TRAINING, "return (step // every + 1) * every", "return step + every", PROTOCOL_TESTS),  # it drifts
    Mutant(
        "qmp_collect/runs/schedule.py",
        "return lambda step: first + change * min(step / total_timesteps, 1.0)",
        "return lambda step: first + change * step / total_timesteps",
        "tests/scripts/test_protocol.py -k decaf",
    ),
    Mutant(
        "qmp_collect/runs/schedule.py",
        "change = 0.0 if last is None else last - first",
        "change = -first if last is None else last - first",
        "tests/scripts/test_protocol.py -k decaf",
    ),
    Mutant(
        TRAINING,
        "reached = step >= min(self._next_eval, self.args.total_timesteps) and step != self._evaluated_at",
        "reached = step >= self._next_eval and step != self._evaluated_at",
        PROTOCOL_TESTS,
    ),
    Mutant(TRAINING, "return reached and not self._amid_round", "return reached", PROTOCOL_TESTS),
    Mutant(
        TRAINING,
        "return self.updates_due > 0 or self.interrupted",
        "return self.updates_due > 0",
        PROTOCOL_TESTS,
    ),
    Mutant(
        TRAINING,
        "self.interrupted = stats.unfinished > 0 and stats.n_collected_steps > 0",
        "self.interrupted = False",
        PROTOCOL_TESTS,
    ),
    Mutant(TRAINING, "self.updates_due -= 1", "self.updates_due -= 2", PROTOCOL_TESTS),
    Mutant(TRAINING, "if needed > capacity:", "if needed >= capacity:", PROTOCOL_TESTS),
    Mutant(TRAINING, "if needed > rounds * per_round:", "if needed >= rounds * per_round:", PROTOCOL_TESTS),
    Mutant(
        TRAINING,
        "rounds = -(-self.args.total_timesteps // round_steps)",
        "rounds = self.args.total_timesteps // round_steps",
        PROTOCOL_TESTS,
    ),
    Mutant(
        TRAINING,
        "args.eval_every = args.eval_every or max(args.total_timesteps // 100, 1)",
        "args.eval_every = args.eval_every or max(args.total_timesteps // 10, 1)",
        PROTOCOL_TESTS,
    ),
    # Statistics
    Mutant(
        STATS, "np.bincount(self.episode_task_ids, minlength=num_tasks),", "len(values) / num_tasks,", METRICS_TESTS
    ),
    Mutant(STATS, "return _mean(self.q_gap_sum, self.decisions)", "return self.q_gap_sum", METRICS_TESTS),
    Mutant(
        STATS,
        'self._add("q_gap_sum", np.bincount(task_ids, weights=gaps, minlength=self._num_tasks))',
        "pass",
        METRICS_TESTS,
    ),
    Mutant(
        STATS,
        "cells = (task_ids * width + behavior_ids)[behavior_ids >= 0]",
        "cells = (behavior_ids * width + task_ids)[behavior_ids >= 0]",
        METRICS_TESTS,
    ),
    Mutant(
        STATS,
        'found["qmp/foreign_fraction"] = 1.0 - _nanmean(own)',
        'found["qmp/foreign_fraction"] = _nanmean(own)',
        METRICS_TESTS,
    ),
    # Evaluation
    Mutant(
        EVALUATION,
        "return collector.collect(n_episode=episodes_per_env, stop=stop)",
        "return collector.collect(n_episode=1, stop=stop)",
        METRICS_TESTS,
    ),
    Mutant(EVALUATION, "seed=seed,", "seed=None,", METRICS_TESTS),
    Mutant(EVALUATION, "success_key=success_key,", 'success_key="success",', METRICS_TESTS),
    Mutant(EVALUATION, "episode_metrics=episode_metrics,", "episode_metrics=None,", METRICS_TESTS),
    # Episodes
    Mutant(EPISODES, "self.lens += 1", "self.lens += 2", METRICS_TESTS),
    Mutant(EPISODES, "column[rows] = 0", "column[rows] = column[rows]", METRICS_TESTS),
    Mutant(EPISODES, "self.quota[rows] -= 1", "self.quota[rows] -= 0", METRICS_TESTS),
    Mutant(
        EPISODES,
        "self.successes |= reported & (np.abs(flags) > 0)  # a NaN is no success",
        "self.successes = reported & (flags != 0)",
        METRICS_TESTS,
    ),
    Mutant(EPISODES, "new = np.where(first, new, np.maximum(old, new))", "new = np.maximum(old, new)", METRICS_TESTS),
    Mutant(
        EPISODES,
        'name: self.values[name][rows] / (self.reports[name][rows] if reduction == "mean" else 1)',
        'name: self.values[name][rows] / (self.lens[rows] if reduction == "mean" else 1)',
        METRICS_TESTS,
    ),
    # Settings
    Mutant(
        PRESETS,
        '"Maze10": {**_MAZE, "total_timesteps": 12_000_000},',
        '"Maze10": {**_MAZE, "total_timesteps": 3_600_000},',
        f"{MATH_TESTS} -k preset",
    ),
    Mutant(PRESETS, 'Walker4={"min_buffer_size": 10_000},', "Walker4={},", MATH_TESTS),
    Mutant(
        "cleanrl_scripts/dnc.py",
        "return settings.parse_args(Args, PRESETS if distill else REGULARIZATION_PRESETS, qmp_envs.TASK_SETS, argv)",
        "return settings.parse_args(Args, PRESETS, qmp_envs.TASK_SETS, argv)",
        "tests/scripts/test_dnc.py -k papers",
    ),
    # What is published
    Mutant(
        "benchmark/comparison.py",
        "means.append([values[:, steps > start * steps[-1]].mean(axis=1) for start in (0.75, 0.0)])",
        "means.append([values[:, steps > start * steps[-1]].mean(axis=1) for start in (0.5, 0.0)])",
        "tests/benchmark/test_comparison.py",
    ),
    Mutant(
        STATISTICS,
        "half: Floats = quantile * np.sqrt(_moments(runs)[1] / len(runs))",
        "half: Floats = 1.96 * np.sqrt(_moments(runs)[1] / len(runs))",
        "tests/runs/test_statistics.py -k half_width",
    ),
    # Losses: the discount of what comes after a termination, and the entropy in the target
    *(
        Mutant(
            f"cleanrl_scripts/{name}.py",
            "target = data.rewards + (1 - data.terminations) * self.args.gamma * next_value",
            "target = data.rewards + self.args.gamma * next_value",
            tests,
        )
        for name, tests in {
            "sac_qmp_separate": f"{MATH_TESTS} -k stacked_update",
            "sac_qmp_multihead": f"{MATH_TESTS} -k multihead_update",
            "sac_shared": "tests/scripts/test_sac_shared.py -k plain_sac",
            "pcgrad_qmp": "tests/scripts/test_pcgrad_qmp.py -k backward_pass",
            "mcal_qmp": "tests/scripts/test_mcal_qmp.py -k updates_are",
            "uds_qmp": "tests/scripts/test_uds_qmp.py -k stacked_update",
            "decaf": "tests/scripts/test_decaf.py -k stacked_update",
            "dnc": "tests/scripts/test_dnc.py -k stacked_update",
            "point_reaching": "tests/scripts/test_point_reaching.py -k parents",
        }.items()
    ),
    # The entropy of equation 3
    *(
        Mutant(f"cleanrl_scripts/{name}.py", old, new, f"{MATH_TESTS} -k entrop")
        for name in ("sac_qmp_separate", "sac_qmp_multihead")
        for old, new in (
            (
                "return (log_std + 0.5 * math.log(2 * math.pi * math.e) + squashing).sum(-1)",
                "return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)",  # before the tanh
            ),
            (
                "noise = torch.linspace(-6, 6, 65, dtype=mean.dtype, device=mean.device)",
                "noise = torch.randn(1, dtype=mean.dtype, device=mean.device)",  # one sample
            ),
            ("x = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * noise", "x = log_std.exp().unsqueeze(-1) * noise"),
        )
    ),
]


def mutants() -> Iterator[Mutant]:
    for scripts, old, new in PROTOCOL:
        for name in scripts:
            yield Mutant(f"cleanrl_scripts/{name}.py", old, new, f"tests/scripts/test_protocol.py -k {name}")
    for scripts, old, new in DRIFT:
        for name in scripts:
            yield Mutant(f"cleanrl_scripts/{name}.py", old, new, "tests/scripts/test_duplicates.py")
    yield from OTHERS


def copy_checkout(to: Path) -> Path:
    """What git knows of, and new files that it does not ignore; results are left out."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if not name.startswith("benchmark/results/") and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


class FirstFailure:
    """A pytest plugin: the name of the first test that failed, or of the file that could not be collected."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def run_tests(folder: Path, words: str) -> tuple[int, str]:
    """pytest's exit code, and the test that failed first or the end of what it said; the checkout is imported anew."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]
    for name, spec in list(gymnasium.registry.items()):
        if "qmp_envs" in f"{spec.entry_point}{spec.vector_entry_point}":
            del gymnasium.registry[name]
    importlib.invalidate_caches()
    failure, said = FirstFailure(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *words.split()], plugins=[failure])
    return int(code), failure.name or said.getvalue()[-1500:]


def trial(folder: Path, mutant: Mutant) -> dict[str, str]:
    """The mutant's fields, its outcome, and the test that noticed."""
    text = (folder / mutant.file).read_text()
    lines = text.split("\n")
    places = [number for number, line in enumerate(lines) if line.strip() == mutant.old]
    if len(places) != 1:
        return asdict(mutant) | {"outcome": f"out of date: the line is there {len(places)} times", "noticed_by": ""}
    (place,) = places
    lines[place] = lines[place].replace(mutant.old, mutant.new)
    (folder / mutant.file).write_text("\n".join(lines))
    code, noticed_by = run_tests(folder, mutant.tests)
    (folder / mutant.file).write_text(text)
    outcome = {0: "survived", 1: "caught"}.get(code, f"pytest could not run: exit code {code}: {noticed_by}")
    return asdict(mutant) | {"outcome": outcome, "noticed_by": noticed_by if code == 1 else ""}


def trials(tests: str, together: list[Mutant]) -> list[dict[str, str]]:
    """Faults that the same tests have to notice, and in the end, in the same process, the tests without any."""
    with tempfile.TemporaryDirectory() as root:
        folder = copy_checkout(Path(root).resolve())
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(folder / "envs")])
        os.environ["OMP_NUM_THREADS"] = "1"
        sys.dont_write_bytecode = True  # it is matched by time and size: a fault may change neither
        sys.path[:0] = [str(folder), str(folder / "envs")]
        os.chdir(folder)
        results = []
        for mutant in together:
            results.append(trial(folder, mutant))
            print(f"{results[-1]['outcome']}: {mutant.file}: {mutant.old} -> {mutant.new}", flush=True)
        code, what = run_tests(folder, tests)
        imported = [m for name, m in sys.modules.items() if name.split(".")[0] in ("qmp_collect", "qmp_envs")]
        if not all(str(getattr(m, "__file__", None) or folder).startswith(str(folder)) for m in imported):
            code, what = -1, "another checkout was imported"
        os.chdir("/")
    if code:
        for result in results:
            result["outcome"] = f"pytest fails without a fault: {what}"
    return results


def main(args: Args) -> None:
    from qmp_collect.runs.provenance import provenance  # not above: trials import this file

    machine = provenance()
    groups: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants():
        if any(args.only in text for text in (mutant.file, mutant.old, mutant.new)):
            groups[mutant.tests].append(mutant)

    # A process for each group, which begins with what is slow to import and without anything of this checkout.
    processes = multiprocessing.get_context("forkserver")
    slow = ["torch.utils.tensorboard", "torch._dynamo", "torch.func", "gymnasium", "mujoco", "pytest", "tyro", "tqdm"]
    processes.set_forkserver_preload(slow)
    results: list[dict[str, str]] = []
    with ProcessPoolExecutor(args.jobs, mp_context=processes, max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(trials, *group) for group in groups.items()]):
            results += done.result()
            outcomes = Counter(result["outcome"].split(":")[0] for result in results)
            if not args.only:
                report = {"machine": machine, "faults": sum(map(len, groups.values())), **outcomes, "tried": results}
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{len(results)} faults: " + ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    raise SystemExit(0 if outcomes["caught"] == len(results) else 1)


if __name__ == "__main__":
    main(tyro.cli(Args))
