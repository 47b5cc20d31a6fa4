"""Every example runs as it is printed, and the learner's buffer holds what its environments did."""

from __future__ import annotations

import functools
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import qmp_envs
from qmp_collect import ConcatVectorEnv

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
NEEDS = {
    "checkpoints": "torch", "cleanrl": "torch", "cloned": "torch", "d3rlpy": "d3rlpy", "envpool": "envpool",
    "flax": "flax", "gymnasium_meta": "metaworld", "jump_start": "torch", "levy": "mujoco",
    "dict": "torch", "own_task": "tyro", "pixels": "torch", "point_maze": "gymnasium_robotics", "ray": "torch",
    "sb3": "stable_baselines3", "sbx": "sbx", "scripted": "metaworld", "skrl": "skrl", "tianshou": "tianshou",
    "torchrl": "torchrl",
}  # fmt: skip

# What other libraries warn of is theirs; nothing here may come from this one.
pytestmark = pytest.mark.filterwarnings("ignore", "error:::qmp_collect")


def flat(obs: Any) -> np.ndarray:
    """A copy, of dicts of arrays all numbers of a row in one."""
    if isinstance(obs, dict):
        return np.concatenate([part.reshape(len(part), -1) for part in obs.values()], axis=1)
    return np.array(obs)


class Recorded:
    """What one vector environment in NEXT_STEP mode did: for each sub-environment its transitions, in order."""

    def __init__(self, envs: Any) -> None:
        self.envs = envs  # keeps it, and so its id, alive
        self.rows: list[list[dict[str, Any]]] = [[] for _ in range(envs.num_envs)]

    def reset(self, obs: Any) -> None:
        self.obs, self.over = flat(obs), np.zeros(self.envs.num_envs, bool)

    def step(self, actions: Any, outcome: Any) -> None:
        after, rewards, terminations, truncations, _ = outcome
        for i in np.flatnonzero(~self.over):
            self.rows[i].append(
                {
                    "obs": self.obs[i].copy(),
                    "actions": actions[i],
                    "rewards": rewards[i],
                    "next_obs": flat(after)[i],
                    "terminations": terminations[i],
                    "truncations": truncations[i],
                }
            )
        self.obs, self.over = flat(after), terminations | truncations

    def of_envs(self, *envs: int) -> dict[str, np.ndarray]:
        """Of sub-environments that never end apart: in the order in which a collector hands them on."""
        rows = [row for step in zip(*(self.rows[i] for i in envs), strict=True) for row in step]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}


class Watch:
    """Records every vector environment and every optimizer that an example makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded: dict[int, Recorded] = {}
        self.optimizers: list[tuple[Any, list[Any]]] = []
        self._patch = monkeypatch
        self._environment(gym.vector.SyncVectorEnv)
        self._environment(ConcatVectorEnv)
        self._environment(qmp_envs.BatchedVectorEnv)
        try:
            import torch
        except ModuleNotFoundError:
            return
        made = torch.optim.Optimizer.__init__

        def make(optimizer: Any, params: Any, defaults: Any) -> None:
            made(optimizer, params, defaults)
            tensors = [p for group in optimizer.param_groups for p in group["params"]]
            self.optimizers.append((optimizer, [(p, p.detach().clone()) for p in tensors]))

        monkeypatch.setattr(torch.optim.Optimizer, "__init__", make)

    def _environment(self, kind: Any) -> None:
        reset, step = kind.reset, kind.step

        @functools.wraps(reset)
        def resetting(envs: Any, **kwargs: Any) -> Any:
            outcome = reset(envs, **kwargs)
            self.recorded.setdefault(id(envs), Recorded(envs)).reset(outcome[0])
            return outcome

        @functools.wraps(step)
        def stepping(envs: Any, actions: Any) -> Any:
            given = np.array(actions)
            outcome = step(envs, actions)
            self.recorded[id(envs)].step(given, outcome)
            return outcome

        self._patch.setattr(kind, "reset", resetting)
        self._patch.setattr(kind, "step", stepping)

    def of(self, envs: Any) -> Recorded:
        return self.recorded[id(envs)]

    def assert_learned(self, count: int) -> None:
        assert len(self.optimizers) >= count
        for optimizer, tensors in self.optimizers:
            for tensor, before in tensors:
                assert bool((tensor != before).any()), f"a tensor {tuple(tensor.shape)} of {optimizer} did not change"


def assert_rows(stored: dict[str, Any], did: dict[str, np.ndarray]) -> None:
    for key, values in stored.items():
        expected = did[key].reshape(np.shape(values))
        np.testing.assert_allclose(np.asarray(values, float), expected.astype(float), atol=1e-5, err_msg=key)


def check_sb3(names: dict[str, Any], watch: Watch) -> None:
    for task, model in enumerate(names["models"]):
        buffer, did = model.replay_buffer, watch.of(names["envs"]).of_envs(task)
        n = buffer.size()
        assert n == len(did["obs"]) == model.num_timesteps > 100
        high = getattr(model.action_space, "high", 1)
        stored = {"obs": buffer.observations, "next_obs": buffer.next_observations, "rewards": buffer.rewards}
        stored |= {"actions": buffer.actions * high, "terminations": buffer.dones * (1 - buffer.timeouts)}
        assert_rows({key: values[:n, 0] for key, values in stored.items()}, did)
        assert model._n_updates > 20
    if hasattr(names["models"][0].policy, "qf_state"):  # SBX: no PyTorch in it
        assert all(int(state.step) > 20 for m in names["models"] for state in (m.policy.qf_state, m.policy.actor_state))
    else:
        watch.assert_learned(len(names["models"]))


def check_task_buffer(names: dict[str, Any], watch: Watch) -> None:
    """`TaskReplayBuffer` tells its rows by sampling: each is one that the environment did."""
    buffer, recorded, collector = names.get("rb") or names["buffer"], watch.of(names["envs"]), names["collector"]
    batch = buffer.sample(300)
    for task in range(collector.num_tasks):
        rows = [row for i in np.flatnonzero(collector.task_ids == task) for row in recorded.rows[i]]
        assert buffer.sizes[task] == min(len(rows), 10_000)
        did = {np.float32(row["obs"]).tobytes() + np.float32(row["actions"]).tobytes(): row for row in rows}
        obs, actions = (np.asarray(field[task], np.float32) for field in (batch.obs, batch.actions))
        found = [did[o.tobytes() + a.tobytes()] for o, a in zip(obs, actions, strict=True)]
        stored = {key: getattr(batch, key)[task].numpy() for key in ("next_obs", "rewards", "terminations")}
        if len(did) == len(rows):  # else several rows began alike
            assert_rows(stored, {key: np.array([row[key] for row in found]) for key in stored})
    if "opt_state" in names:  # Flax
        import jax

        assert int(names["opt_state"][0].count) == 100
        pairs = zip(*(jax.tree.leaves(names[key]) for key in ("params", "target")), strict=True)
        assert all(bool((new != old).any()) for new, old in pairs)
    else:
        watch.assert_learned(1)


def check_torchrl(names: dict[str, Any], watch: Watch) -> None:
    for task, buffer in enumerate(names["buffers"]):
        rows, did = buffer[:], watch.of(names["envs"]).of_envs(task)
        stored = {"obs": rows["observation"], "actions": rows["action"], "next_obs": rows["next", "observation"]}
        stored |= {"rewards": rows["next", "reward"], "terminations": rows["next", "terminated"]}
        stored |= {"truncations": rows["next", "truncated"]}
        assert len(buffer) == len(did["obs"]) >= 400
        assert_rows({key: values.numpy() for key, values in stored.items()}, did)
    watch.assert_learned(2)


def check_tianshou(names: dict[str, Any], watch: Watch) -> None:
    for task, buffer in enumerate(names["buffers"]):
        for part, inner in enumerate(buffer.buffers):
            did, n = watch.of(names["envs"]).of_envs(2 * task + part), len(inner)
            assert n == len(did["obs"]) > 200
            stored = {"obs": inner.obs, "next_obs": inner.obs_next, "rewards": inner.rew, "actions": 2 * inner.act}
            stored |= {"terminations": inner.terminated, "truncations": inner.truncated}
            assert_rows({key: values[:n] for key, values in stored.items()}, did)
    watch.assert_learned(4)


def check_skrl(names: dict[str, Any], watch: Watch) -> None:
    for task, agent in enumerate(names["agents"]):
        did = watch.of(names["envs"]).of_envs(task)
        n = len(did["obs"])
        columns = {"obs": "observations", "next_obs": "next_observations", "actions": "actions", "rewards": "rewards"}
        columns["terminations"] = "terminated"
        stored = {key: agent.memory.get_tensor_by_name(name)[:n, 0].numpy() for key, name in columns.items()}
        assert agent.memory.memory_index == n >= 400
        assert_rows(stored, did)
    watch.assert_learned(4)


def check_d3rlpy(names: dict[str, Any], watch: Watch) -> None:
    for task, buffer in enumerate(names["buffers"]):
        did = watch.of(names["envs"]).of_envs(task)
        episodes = buffer.episodes[: int(did["truncations"].sum())]  # those that have ended
        assert [len(episode) for episode in episodes] == [200] * len(episodes)
        assert len(episodes) > 1
        assert not any(episode.terminated for episode in episodes)
        names_of = {"obs": "observations", "actions": "actions", "rewards": "rewards"}
        stored = {key: np.concatenate([getattr(e, name) for e in episodes]) for key, name in names_of.items()}
        assert_rows(stored, {key: values[: 200 * len(episodes)] for key, values in did.items()})
    watch.assert_learned(2)


def check_own_task_set(names: dict[str, Any], watch: Watch) -> None:
    (run_dir,) = Path("runs").iterdir()
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((run_dir / "config.json").read_text())["env_id"] == "Compass4-v0"
    assert (run_dir / "done.json").exists()
    assert any("south" in key for row in rows for key in row)


def check_envpool(names: dict[str, Any], watch: Watch) -> None:
    stats = names["stats"]
    assert stats.per_task(stats.lens).tolist() == [50, 80]
    assert sum(map(len, watch.of(names["envs"]).rows)) == stats.n_collected_steps


def check_helpers(names: dict[str, Any], watch: Watch) -> None:
    assert names["stats"].mixture[:, : names["T"]].sum() == 0, "every task was left to its helper"
    assert names["stats"].successes.mean() >= 0.8


def check_written(names: dict[str, Any], watch: Watch) -> None:
    assert len(names["policies"]) == 2, "of the learner's policy and two drafts, one is refused"
    assert names["stats"].mixture[0, 1] > 0.5


def check_switch(names: dict[str, Any], watch: Watch) -> None:
    switch, scores = names["EpsilonSwitch"], np.tile([1.0, 2.0, -np.inf], (100, 1))
    for epsilon, chosen in ((0.0, {1}), (1.0, {0, 1})):
        assert set(switch(epsilon)(scores, np.zeros(100, int), np.random.default_rng(0)).tolist()) == chosen
    assert (names["stats"].q_gap > 0.5).all()


def check_levy(names: dict[str, Any], watch: Watch) -> None:
    own, every_step, flights = names["visited"].values()
    assert own < every_step < flights


def check_outside(names: dict[str, Any], watch: Watch) -> None:
    """Of every environment that was made, no point was ever inside of the disc."""
    everywhere = [row["next_obs"] for r in watch.recorded.values() for rows in r.rows for row in rows]
    assert len(everywhere) > 1000
    assert np.hypot(*(10 * np.array(everywhere) - 5).T).min() > 1


def check_steps(names: dict[str, Any], watch: Watch) -> None:
    rows = watch.of(names["envs"].unwrapped).rows
    assert names["stats"].behavior_counts.sum(axis=1).tolist() == [len(of_env) for of_env in rows] == [20] * 10


def check_episodes(names: dict[str, Any], watch: Watch) -> None:
    """The statistics are those of the first episodes of each sub-environment."""
    stats, rows = names["stats"], watch.of(names["envs"]).rows
    returns, per_env = [], stats.n_collected_episodes // len(rows)
    for of_env in rows:
        ends = np.flatnonzero([row["terminations"] or row["truncations"] for row in of_env])[:per_env]
        parts = np.split([row["rewards"] for row in of_env], ends + 1)[:per_env]
        returns += [part.sum() for part in parts]
    assert len(returns) == stats.n_collected_episodes >= 12
    np.testing.assert_allclose(sorted(stats.returns), sorted(returns), rtol=1e-6)


def check_fleet(names: dict[str, Any], watch: Watch) -> None:
    assert names["buffer"].sizes.sum() == names["fleet"].num_steps == 6 * 200
    assert (names["part"].host, names["part"].sequence, names["part"].version) == (1, 5, 5)
    watch.assert_learned(2)


def check_dict(names: dict[str, Any], watch: Watch) -> None:
    batch, recorded = names["buffer"].sample(64), watch.of(names["envs"])
    for t, rows in enumerate(recorded.rows):
        assert names["buffer"].sizes[t] == len(rows) > 100
        stored = {
            (*flat({k: x[t].numpy() for k, x in batch.obs.items()})[i].tolist(),
             *flat({k: x[t].numpy() for k, x in batch.next_obs.items()})[i].tolist())
            for i in range(64)
        }  # fmt: skip
        assert stored <= {(*row["obs"].tolist(), *row["next_obs"].tolist()) for row in rows}
    watch.assert_learned(1)


def check_table(names: dict[str, Any], watch: Watch) -> None:
    values = names["q_tables"][:, 0].max(-1)
    np.testing.assert_allclose(values, 0.9 ** np.array([5, 3, 2, 3]), atol=0.02)  # steps to each goal, less one


CHECKS: dict[str, Callable[[dict[str, Any], Watch], None]] = {
    "sb3": check_sb3, "sbx": check_sb3, "cleanrl": check_task_buffer, "pixels": check_task_buffer,
    "flax": check_task_buffer, "checkpoints": check_task_buffer, "cloned": check_task_buffer, "written": check_written,
    "torchrl": check_torchrl, "tianshou": check_tianshou, "skrl": check_skrl,
    "d3rlpy": check_d3rlpy, "own_task": check_own_task_set, "envpool": check_envpool, "scripted": check_helpers,
    "own_switch": check_switch, "discrete": check_table, "own_environments": check_episodes,
    "point_maze": check_episodes, "gymnasium_meta": check_steps, "jump_start": check_task_buffer, "levy": check_levy,
    "safety": check_outside, "ray": check_fleet, "dict": check_dict,
}  # fmt: skip


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    monkeypatch.chdir(tmp_path)
    return Watch(monkeypatch)


def of(table: dict[str, Any], name: str) -> Any:
    return next((value for prefix, value in table.items() if name.startswith(prefix)), None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, watch: Watch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if module := of(NEEDS, name):
        pytest.importorskip(module)
    if name in ("flax_ddpg", "scripted_helpers", "own_task_set"):
        pytest.importorskip("mujoco")
    if name == "gymnasium_meta_world":  # its num_goals stays for the whole process
        monkeypatch.setattr("metaworld._N_GOALS", 50)
    names = runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    if "collector" in names:
        mixture = names["collector"].stats().mixture
        np.testing.assert_allclose(mixture.sum(axis=1), 1.0)
        assert len(mixture) == names["collector"].num_tasks
    of(CHECKS, name)(names, watch)
    printed = capsys.readouterr().out
    assert printed.strip() or name == "own_task_set"  # which prints in a process of its own
    if name == "sb3_dqn":
        assert "epsilon 0.0: who acted [[1.0, 0.0], [0.0, 1.0]]" in printed


@pytest.mark.parametrize("name", EXAMPLES)
def test_size_and_place_in_the_documentation(name: str) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert 15 <= sum(bool(line.strip()) for line in source.splitlines()) <= 60
    assert source.startswith('"""')
    page = (ROOT / "docs" / "use_with.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"\(\.\./examples/{name}\.py\)\n\n```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks[:1] == [source], f"docs/use_with.md shows another {name}.py"
