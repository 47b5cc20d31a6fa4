"""Random programs of a collector's user against a scalar model: what is stored, counted and held must be the same.

    python benchmark/reliability/collector_programs.py --out benchmark/results/reliability/collector_programs.json

A program is an environment (autoreset mode, episode lengths and ends, tasks), a collector (policies that break now and
then, horizons and other commitments, warm-up, own probability by schedule, switches that see scores or everything,
margins, ensembles, masks and gates, form of the callables) and a dozen calls: ``collect`` by steps or episodes, stopped
or not, random or not; a loop of the user's own with altered actions, steps that nobody chose, whole and partial resets,
by the collector or by other hands; another policy; saving and restoring in a new process's objects.

The model steps one row at a time with Python numbers and shares no code with the collector. All numbers are multiples
of 1/16, so that rows, returns and gaps are compared with ``==``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from qmp_collect import (
    Candidates,
    FixedSwitch,
    JumpStart,
    OwnPolicy,
    OwnShareFloor,
    QMPCollector,
    QSwitch,
    SuccessGate,
    Transitions,
    Until,
    UntilOwnIsBetter,
    all_of,
    lcb,
)
from qmp_collect.runs.provenance import provenance
from qmp_collect.transitions import Sinks

FIELDS = ("obs", "actions", "rewards", "next_obs", "terminations", "truncations", "task_ids", "behavior_ids", "env_ids")
NAN = float("nan")


@dataclass
class Args:
    programs: int = 40_000
    """random programs"""
    seed: int = 0
    """of the first program; each has a seed of its own"""
    out: Path | None = None
    """where to write the result as JSON"""


# ------------------------------------------------------------------ rules that environment and model both follow


def reward_of(row: int, episode: int, t: int, action: float) -> float:
    return 4.0 * row + episode % 7 + t / 4 + action


def success_of(episode: int, t: int) -> bool:
    return t == episode % 3


def action_of(policy: int, row: int, episode: int, t: int) -> float:
    """Policy 4 and above breaks in some states."""
    if policy >= 4 and (episode + 2 * t + policy) % 3 == 0:
        return NAN
    return ((5 * policy + 3 * row + 7 * episode + 11 * t + policy * t) % 16) / 16


def value_of(task: int, episode: int, t: int, action: float, critic: int = 0) -> float:
    """Two quarters are worth the same: ties are frequent. The second critic prefers other actions."""
    return -((int(action * 4) - (task + episode + t + critic) % 4) ** 2) / 4


def allowed_in(policy: int, row: int, episode: int, t: int) -> bool:
    """What a mask that is a function says."""
    return (3 * policy + row + episode + t) % 4 != 0


def over_now(row: int, t: int, held: int) -> bool:
    """What `Until` asks."""
    return held >= 2 and (t + row) % 3 == 0


class Sees:
    """A switch that depends on all that it is shown."""

    needs_scores = True

    def choose(self, candidates: Candidates) -> Any:
        c, chosen = candidates, []
        for row, scores in enumerate(c.scores.tolist()):
            usable = [k for k, score in enumerate(scores) if score > -np.inf]
            turn = c.previous[row] + 1 + c.held[row] + c.episode_steps[row] + c.num_steps + c.own[row]
            chosen.append(usable[int(turn) % len(usable)])
        return np.array(chosen)


class Pattern:
    """A commitment whose length depends on who was chosen, and when."""

    releases = needs_scores = False
    longest = 3

    def lengths(self, candidates: Candidates, chosen: Any) -> Any:
        return 1 + (chosen + candidates.episode_steps) % 3


REDUCTIONS: dict[str, Any] = {
    "first": lambda a, b: a,
    "mean": lambda a, b: (a + b) / 2,
    "min": min,
    "lcb": lambda a, b: (a + b) / 2 - abs(a - b) / 2,
}


class Row(gym.Env[Any, Any]):
    """Observation (row, episode, t); a seed starts the count of episodes anew."""

    def __init__(self, row: int, lengths: tuple[int, ...], ends: tuple[str, ...]) -> None:
        self.row, self.lengths, self.ends = row, lengths, ends
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
        self.episode, self.t, self.executed = -1, 0, NAN

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.episode, self.t = self.episode + 1 if seed is None else 0, 0
        return np.array([self.row, self.episode, 0.0]), {"success": True}  # a trap: a reset's flag counts for nothing

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.executed = float(action[0])
        reward = reward_of(self.row, self.episode, self.t, self.executed)
        success = success_of(self.episode, self.t)
        self.t += 1
        done = self.t == self.lengths[self.episode % len(self.lengths)]
        end = self.ends[self.episode % len(self.ends)]
        obs = np.array([self.row, self.episode, self.t], np.float64)
        return obs, reward, done and end != "truncated", done and end != "terminated", {"success": success}


class Rows(SyncVectorEnv):
    """Gymnasium's own vector environment, which can be saved."""

    def get_state(self) -> dict[str, Any]:
        return {
            "rows": np.array([[env.episode, env.t] for env in self.envs]),
            "obs": None if self._env_obs[0] is None else np.stack(self._env_obs),
            "over": self._autoreset_envs.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        for env, (episode, t) in zip(self.envs, state["rows"].tolist(), strict=True):
            env.episode, env.t = episode, t
        self._env_obs = [None] * self.num_envs if state["obs"] is None else list(state["obs"].copy())
        self._autoreset_envs = state["over"].copy()


# ------------------------------------------------------------------ programs


@dataclass
class Program:
    """Everything that is drawn before the first call."""

    rng: random.Random
    mode: AutoresetMode = AutoresetMode.NEXT_STEP
    lengths: list[tuple[int, ...]] = field(default_factory=list)
    ends: list[tuple[str, ...]] = field(default_factory=list)
    task_ids: list[int] = field(default_factory=list)
    num_tasks: int = 1
    num_policies: int = 1
    horizon: int = 1
    commitment: str = "steps"
    margin: float = 0.0
    hysteresis: float = 0.0
    reduce: str | None = None
    matrix: list[list[bool]] | None = None
    vetoes: bool = False
    success_gate: tuple[float, int] | None = None
    share_floor: tuple[float, int] | None = None
    warmup: int = 0
    own_until: tuple[int, int] = (0, 0)
    switch: str = "q"
    fixed: list[int] = field(default_factory=list)
    guides: list[int] = field(default_factory=list)
    batched: bool = False
    listed: list[Any] = field(default_factory=list)

    @staticmethod
    def draw(seed: int) -> Program:
        r = random.Random(seed)
        n, tasks = r.randint(1, 4), r.randint(1, 3)
        policies = tasks + r.choice([0, 0, 1, 3])
        start = r.randint(0, 30)
        switch = r.choice(["q", "q", "q", "q", "fixed", "own", "sees", "jump"])
        masked = switch != "fixed"  # which draws at random where the mask takes its choice away
        matrix = [[r.random() < 0.7 for _ in range(policies)] for _ in range(tasks)]
        return Program(
            rng=r,
            mode=r.choice(list(AutoresetMode)),
            lengths=[tuple(r.randint(1, 5) for _ in range(r.randint(1, 3))) for _ in range(n)],
            ends=[tuple(r.choice(["terminated", "truncated", "both"]) for _ in range(2)) for _ in range(n)],
            task_ids=[r.randrange(tasks) for _ in range(n)],
            num_tasks=tasks,
            num_policies=policies,
            horizon=r.choice([1, 1, 2, 3, 9]),
            warmup=r.choice([0, 0, 5, 20]),
            own_until=(start, start + r.choice([0, 0, 10])),
            switch=switch,
            commitment=r.choice(["steps"] * 4 + ["until", "pattern"] + ["own_better"] * masked),
            margin=r.choice([0.0, 0.0, 0.25, 0.5]),
            hysteresis=r.choice([0.0, 0.0, 0.25]),
            reduce=r.choice([None, None, *REDUCTIONS]),
            matrix=matrix if masked and r.random() < 0.25 else None,
            vetoes=masked and r.random() < 0.25,
            success_gate=(r.choice([0.0, 0.3, 0.5]), r.randint(1, 4)) if masked and r.random() < 0.2 else None,
            share_floor=(r.choice([0.25, 0.5, 0.75]), r.choice([2, 4])) if masked and r.random() < 0.2 else None,
            fixed=[r.randrange(policies) for _ in range(tasks)],
            guides=[r.randrange(policies) for _ in range(tasks)],
            batched=r.random() < 0.5,
        )

    def policy(self, k: int) -> Any:
        return lambda obs: np.array([[action_of(k, *map(int, o))] for o in obs.tolist()]).reshape(-1, 1)

    def own_only(self, num_steps: int) -> bool:
        return self.own_until[0] <= num_steps < self.own_until[1]

    def make(self, sink: Sink) -> QMPCollector:
        rows = [
            lambda i=i, lengths=lengths, ends=ends: Row(i, lengths, ends)
            for i, (lengths, ends) in enumerate(zip(self.lengths, self.ends, strict=True))
        ]
        envs = Rows(rows, autoreset_mode=self.mode)

        def q(t: int) -> Any:
            def values(obs: Any, actions: Any) -> Any:
                pairs = [(int(o[1]), int(o[2]), a) for o, a in zip(obs.tolist(), actions[:, 0].tolist(), strict=True)]
                critics = (0,) if self.reduce is None else (0, 1)
                found = np.array([[NAN if a != a else value_of(t, e, s, a, c) for e, s, a in pairs] for c in critics])
                return found if self.reduce else found[0]

            return values

        policies: Any = [self.policy(k) for k in range(self.num_policies)]
        qs: Any = [q(t) for t in range(self.num_tasks)]
        if self.batched:
            listed, critics = policies, qs

            def policies(obs: Any) -> Any:
                return np.stack([p(obs) for p in listed], axis=1)

            def qs(obs: Any, actions: Any, ids: Any) -> Any:
                rows = zip(obs, actions, ids, strict=True)
                return np.stack([critics[t](np.repeat(o[None], len(a), 0), a) for o, a, t in rows], axis=-2)

            self.listed = listed

        masks: list[Any] = [] if self.matrix is None else [self.matrix]
        if self.vetoes:
            masks.append(
                lambda obs, ids: np.array(
                    [[allowed_in(k, *map(int, o)) for k in range(self.num_policies)] for o in obs.tolist()]
                )
            )
        if self.success_gate is not None:
            masks.append(SuccessGate(*self.success_gate))
        if self.share_floor is not None:
            masks.append(OwnShareFloor(*self.share_floor))
        commitment: Any = {
            "steps": self.horizon,
            "until": Until(
                lambda c: np.array([over_now(int(o[0]), int(o[2]), h) for o, h in zip(c.obs, c.held, strict=True)]),
                cap=self.horizon + 2,
            ),
            "own_better": UntilOwnIsBetter(cap=self.horizon + 2),
            "pattern": Pattern(),
        }[self.commitment]
        one_hot = np.eye(self.num_policies)[self.fixed]
        reduce: Any = lcb(1) if self.reduce == "lcb" else self.reduce
        scored = QSwitch(reduce=reduce, margin=self.margin, hysteresis=self.hysteresis)
        sees = Sees()
        sees.scoring = scored  # type: ignore[attr-defined]
        switch: Any = {
            "q": scored,
            "own": OwnPolicy(),
            "fixed": FixedSwitch(one_hot),
            "sees": sees,
            "jump": JumpStart(self.guides, 2, then=scored),
        }[self.switch]
        return QMPCollector(
            envs,
            policies,
            qs,
            task_ids=self.task_ids,
            num_tasks=self.num_tasks,
            buffer=sink,
            switch=switch,
            candidate_mask=all_of(*masks) if masks else None,
            horizon=commitment,
            warmup_steps=self.warmup,
            own_probability=lambda steps: float(self.own_only(steps)),
            seed=0,
        )


class Sink:
    """Every stored transition as a tuple of Python numbers, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def add(self, transitions: Transitions) -> None:
        columns = [getattr(transitions, name).tolist() for name in FIELDS]
        self.rows += [tuple(tuple(x) if isinstance(x, list) else x for x in row) for row in zip(*columns, strict=True)]


# ------------------------------------------------------------------ the model


class ModelRow:
    """One sub-environment and what is known of it."""

    def __init__(self, row: int) -> None:
        self.row, self.episode, self.t = row, -1, 0
        self.over = False  # its episode has ended and no other has begun
        self.held, self.left, self.age = -1, 0, 0
        self.ret, self.length, self.success = 0.0, 0, False
        self.quota: int | None = None

    def reset(self, seeded: bool = False) -> None:
        self.episode, self.t, self.over = 0 if seeded else self.episode + 1, 0, False
        self.begin()

    def begin(self) -> None:
        self.held, self.left, self.age, self.ret, self.length, self.success = -1, 0, 0, 0.0, 0, False


class Model:
    """What a user who steps one environment at a time, and keeps books by hand, ends up with."""

    def __init__(self, program: Program) -> None:
        self.p = program
        self.rows = [ModelRow(i) for i in range(len(program.lengths))]
        self.stored: list[tuple[Any, ...]] = []
        self.episodes: list[tuple[int, float, int, bool]] = []
        self.num_steps = self.num_episodes = 0
        self.started, self.seed_left = False, True
        self.recent: list[list[bool]] = [[] for _ in range(program.num_tasks)]
        self.own_share = [1.0] * program.num_tasks
        self.clear()

    def clear(self) -> None:
        self.episodes = []
        self.counts = [[0] * self.p.num_policies for _ in range(self.p.num_tasks)]
        self.steps = [0] * self.p.num_tasks
        self.decisions, self.gaps = [0] * self.p.num_tasks, [0.0] * self.p.num_tasks

    def reset(self, mask: list[bool] | None = None, by_user: bool = False) -> None:
        """The collector's own first reset is seeded, and the user's, if nothing was reset before."""
        seeded = self.rows[0].episode < 0 if by_user else self.seed_left and not self.started
        for row in self.rows:
            if mask is None or mask[row.row]:
                row.reset(seeded)
        self.seed_left = self.seed_left and by_user
        self.started = True

    def allowed(self, row: ModelRow) -> list[bool]:
        """What the masks leave to this row."""
        p, own = self.p, self.p.task_ids[row.row]
        found = [True] * p.num_policies
        for k in range(p.num_policies):
            if p.matrix is not None:
                found[k] = found[k] and p.matrix[own][k]
            if p.vetoes:
                found[k] = found[k] and allowed_in(k, row.row, row.episode, row.t)
            if p.success_gate is not None and k != own and k < p.num_tasks:
                above, episodes = p.success_gate
                recent = self.recent[k][-episodes:]
                found[k] = found[k] and sum(recent) > above * len(recent)
            if p.share_floor is not None and k != own:
                found[k] = found[k] and self.own_share[own] >= p.share_floor[0]
        if not any(found):
            found[own] = True
        return found

    def choose(self, row: ModelRow, steps: int) -> tuple[int, float, float | None]:
        """(policy, action, gap of a counted decision)."""
        p, own = self.p, self.p.task_ids[row.row]

        def action(k: int) -> float:
            return action_of(k, row.row, row.episode, row.t)

        if p.switch == "own" or steps < p.warmup:
            row.held, row.left, row.age = own, 0, 1
            return own, action(own), None
        allowed = self.allowed(row)
        scored = p.switch != "fixed" or p.commitment == "own_better"
        adjusts = p.switch != "fixed"
        values = [0.0 if not scored else self.value(own, row, action(k), p.reduce) for k in range(p.num_policies)]
        usable = [value if value == value else -float("inf") for value in values]
        if adjusts:
            usable[own] += p.margin
            if row.held >= 0:
                usable[row.held] += p.hysteresis
        usable = [value if ok else -float("inf") for value, ok in zip(usable, allowed, strict=True)]
        deciding = row.left == 0 or not allowed[row.held]
        if not deciding and p.commitment == "until":
            deciding = over_now(row.row, row.t, row.age)
        if not deciding and p.commitment == "own_better":
            deciding = usable[own] > usable[row.held]
        gap = None
        if not deciding:
            chosen = row.held
            row.left, row.age = row.left - 1, row.age + 1
        else:
            chosen = own
            if not (p.own_only(steps) and allowed[own]):
                chosen = self.switched(row, own, steps, usable)
                if p.switch != "fixed" and allowed[own] and values[chosen] == values[chosen]:
                    gap = values[chosen] - values[own]
            lengths = {"steps": p.horizon, "pattern": 1 + (chosen + row.length) % 3}
            if p.commitment == "own_better" and chosen == own:
                lengths["own_better"] = 1
            row.left, row.age = lengths.get(p.commitment, p.horizon + 2) - 1, 1
        if action(chosen) != action(chosen):  # it breaks here: the own policy acts, or who may, and the hold ends
            able = [k for k in range(p.num_policies) if allowed[k] and action(k) == action(k)]
            chosen, row.left, row.age = own if allowed[own] or not able else able[0], 0, 1
        row.held = chosen
        return chosen, action(chosen), gap

    def value(self, own: int, row: ModelRow, action: float, reduce: str | None) -> float:
        if action != action:
            return NAN
        critics = [value_of(own, row.episode, row.t, action, c) for c in (0, 1)]
        return critics[0] if reduce is None else REDUCTIONS[reduce](*critics)

    def switched(self, row: ModelRow, own: int, steps: int, usable: list[float]) -> int:
        p = self.p
        if max(usable) == -float("inf"):
            return own
        if p.switch == "fixed":
            return p.fixed[own]
        if p.switch == "sees":
            left = [k for k, value in enumerate(usable) if value > -float("inf")]
            return left[(row.held + 1 + row.age + row.length + steps + own) % len(left)]
        if p.switch == "jump":
            guide = p.guides[own]
            if row.length < 2 and usable[guide] > -float("inf"):
                return guide
        return own if usable[own] == max(usable) else usable.index(max(usable))

    def step(self, executed: list[float], kind: str, noise: float = 0.0) -> None:
        """One vector step; ``executed`` is what the environment was really given, ``kind`` who chose it."""
        steps = self.num_steps
        acted: list[list[bool]] = [[] for _ in range(self.p.num_tasks)]
        ended: list[tuple[int, bool]] = []
        for row in self.rows:
            task = self.p.task_ids[row.row]
            if row.over:
                assert self.p.mode is AutoresetMode.NEXT_STEP
                row.reset()
                continue
            recorded = row.quota is None or row.quota > 0
            if kind == "policies":
                behavior, action, gap = self.choose(row, steps)
                action += noise
            else:
                behavior, action, gap = -1, executed[row.row], None
                row.held, row.left, row.age = -1, 0, 0
            obs = (row.row, row.episode, row.t)
            lengths, ends = self.p.lengths[row.row], self.p.ends[row.row]
            reward = reward_of(*obs, action)
            row.ret, row.length = row.ret + reward, row.length + 1
            row.success = row.success or success_of(row.episode, row.t)
            row.t += 1
            done, end = row.t == lengths[row.episode % len(lengths)], ends[row.episode % len(ends)]
            after = (row.row, row.episode, row.t)
            if recorded:
                terminated, truncated = done and end != "truncated", done and end != "terminated"
                self.stored.append((obs, (action,), reward, after, terminated, truncated, task, behavior, row.row))
                self.num_steps += 1
                self.steps[task] += 1
                if behavior >= 0:
                    self.counts[task][behavior] += 1
                    acted[task].append(behavior == task)
                if gap is not None:
                    self.decisions[task] += 1
                    self.gaps[task] += gap
            if done:
                if recorded:
                    self.num_episodes += 1
                    self.episodes.append((task, row.ret, row.length, row.success))
                    ended.append((task, row.success))
                    if row.quota is not None:
                        row.quota -= 1
                row.begin()
                row.over = True
                if self.p.mode is AutoresetMode.SAME_STEP:
                    row.reset()
        for task, success in ended:
            self.recent[task].append(success)
        for task, own in enumerate(acted):
            if own and self.p.share_floor is not None:
                kept = (1.0 - 1.0 / self.p.share_floor[1]) ** len(own)
                self.own_share[task] = self.own_share[task] * kept + (1.0 - kept) * sum(own) / len(own)

    def fresh(self) -> bool:
        waiting = self.p.mode is AutoresetMode.NEXT_STEP and any(row.over for row in self.rows)
        return self.started and not waiting and not any(row.length for row in self.rows)


# ------------------------------------------------------------------ running a program


class Run:
    """A program's calls, made to the collector and to the model in turn."""

    def __init__(self, seed: int) -> None:
        self.p = Program.draw(seed)
        self.sink, self.model = Sink(), Model(self.p)
        self.collector = self.p.make(self.sink)
        self.log: list[str] = []

    @property
    def envs(self) -> Rows:
        return self.collector.envs  # type: ignore[return-value]

    def executed(self) -> list[float]:
        return [env.executed for env in self.envs.envs]

    def run(self) -> int:
        """The number of rows compared. `AssertionError` for the first difference."""
        r = self.p.rng
        calls = [self.collect] * 3 + [self.loop] * 2 + [self.reset, self.restore, self.clear, self.another_policy]
        for _ in range(r.randint(4, 12)):
            r.choice(calls)()
            self.compare()
        return len(self.sink.rows)

    def compare(self) -> None:
        c, m = self.collector, self.model
        assert self.sink.rows == m.stored, "rows"
        assert (c.num_steps, c.num_episodes) == (m.num_steps, m.num_episodes), "counters"
        s = c.stats()
        columns = (s.episode_task_ids, s.returns, s.lens, s.successes)
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == m.episodes, "episodes"
        assert s.steps_per_task.tolist() == m.steps, "steps per task"
        width = s.behavior_counts.shape[1]  # of a batched callable K is known after its first answer
        assert [row[:width] for row in m.counts] == s.behavior_counts.tolist(), "behaviours"
        assert not any(any(row[width:]) for row in m.counts), "behaviours"
        assert (s.decisions.tolist(), s.q_gap_sum.tolist()) == (m.decisions, m.gaps), "decisions"

    def collect(self) -> None:
        r, m = self.p.rng, self.model
        amount = {"n_step": r.randint(1, 25)} if r.random() < 0.6 else {"n_episode": r.randint(1, 3)}
        kind, limit = r.choice(["policies"] * 3 + ["random"]), r.choice([None, None, r.randint(0, 6)])
        if "n_episode" in amount:
            if not m.fresh():
                m.reset()
            for row in m.rows:
                row.quota = amount["n_episode"]
        elif not m.started:
            m.reset()
        first, asked, real_step = (m.num_steps, m.num_episodes), [0], self.envs.step

        def stepping(actions: Any) -> Any:
            waiting = [row.over for row in m.rows]
            if self.p.mode is AutoresetMode.DISABLED and any(waiting):
                m.reset(waiting)
            outcome = real_step(actions)
            m.step(self.executed(), kind)
            return outcome

        def stop() -> bool:
            asked[0] += 1
            return limit is not None and asked[0] > limit

        resume = False
        while True:
            self.log.append(f"collect({amount}, {kind}, stop after {limit}, resume={resume})")
            self.envs.step = stepping  # type: ignore[method-assign]
            stats = self.collector.collect(**amount, random=kind == "random", stop=stop, resume=resume)
            self.envs.step = real_step  # type: ignore[method-assign]
            steps, episodes = m.num_steps - first[0], m.num_episodes - first[1]
            got = steps if "n_step" in amount else episodes
            enough = amount.get("n_step", amount.get("n_episode", 0) * len(m.rows))
            assert (stats.n_collected_steps, stats.n_collected_episodes) == (steps, episodes), "a call's own counts"
            assert stats.unfinished == (got < enough), "unfinished"
            assert limit is not None or got >= enough, "too little"
            resume = stats.unfinished > 0 and "n_step" in amount and r.random() < 0.5
            if not resume:
                break
            asked[0], limit = 0, r.choice([None, r.randint(0, 6)])
        if "n_episode" in amount:
            m.started = False
            for row in m.rows:
                row.quota = None

    def reset(self) -> None:
        self.log.append("reset()")
        self.model.reset()
        self.collector.reset()

    def loop(self) -> None:
        """A loop of the user's own, from wherever the collector is."""
        r, m, c = self.p.rng, self.model, self.collector
        start: np.ndarray | None = None
        if not m.started:
            by_user, new = r.random() < 0.5, m.rows[0].episode < 0
            m.reset(by_user=by_user)
            if not by_user:
                obs, _ = c.reset()
            else:
                obs, _ = self.envs.reset(seed=0 if new else None)
                start = np.ones(len(m.rows), np.bool_)
        else:
            obs = c.obs
        self.log.append("loop:")
        done = np.array([row.over for row in m.rows])
        for _ in range(r.randint(1, 12)):
            say = r.random() < 0.3
            if say and start is None:
                start = done.copy()  # repeats what the environment knows
            must = self.p.mode is AutoresetMode.DISABLED and done.any()
            if must or r.random() < 0.15:
                mask = done.copy()
                if r.random() < 0.5 or not mask.any():
                    mask |= np.array([r.random() < 0.3 for _ in m.rows])
                if mask.any():
                    by_collector = r.random() < 0.5
                    self.log.append(f"  reset of {mask.tolist()} by the {'collector' if by_collector else 'user'}")
                    options = {"reset_mask": mask.copy()}
                    by_collector = by_collector and start is None
                    if by_collector:
                        obs, _ = c.reset(options=options)
                    else:
                        obs, _ = self.envs.reset(options=options)
                        start = mask | (False if start is None else start)
                    m.reset(mask.tolist(), by_user=not by_collector)
            kind = r.choice(["policies"] * 4 + ["random", "nobody"])
            if kind == "nobody" and start is None:
                actions = np.array([[r.randrange(16) / 16] for _ in m.rows])
                outcome = self.envs.step(actions.copy())
                m.step(self.executed(), kind)
                c.observe(*outcome, actions=actions)
            else:
                kind = "random" if kind == "nobody" else kind
                noise = r.choice([0.0, 0.0, 0.25])
                actions = c.act(obs, episode_start=start, random=kind == "random") + noise
                outcome = self.envs.step(actions.copy())
                m.step(self.executed(), kind, noise)
                c.observe(*outcome, actions=actions if noise else None)
            self.log.append(f"  step by {kind}")
            obs, start = outcome[0], None
            done = outcome[2] | outcome[3]

    def restore(self) -> None:
        self.log.append("save and restore")
        state = self.collector.state_dict()
        self.collector = self.p.make(self.sink)
        if self.p.rng.random() < 0.5:  # restored over something that has run
            rows, sinks, self.collector._sinks = len(self.sink.rows), self.collector._sinks, Sinks(None)
            self.collector.collect(n_step=3)
            self.collector._sinks = sinks
            assert len(self.sink.rows) == rows
        self.collector.load_state_dict(state)

    def another_policy(self) -> None:
        """One more candidate, if there are few and no switch has a column for each."""
        p, r = self.p, self.p.rng
        if p.switch == "fixed" or p.num_policies > 5:
            return
        tasks = [t for t in range(p.num_tasks) if r.random() < 0.7]
        self.log.append(f"add_policy(tasks={tasks})")
        policy, p.num_policies = p.policy(p.num_policies), p.num_policies + 1
        if p.batched:
            p.listed.append(policy)
        self.collector.add_policy(None if p.batched else policy, tasks=None if p.matrix is None else tasks)
        if p.matrix is not None:
            for t, row in enumerate(p.matrix):
                row.append(t in tasks)
        for counts in self.model.counts:
            counts.append(0)

    def clear(self) -> None:
        self.log.append("stats(clear=True)")
        self.collector.stats(clear=True)
        self.model.clear()


def run_programs(programs: int, seed: int) -> dict[str, Any]:
    """Counts of programs, rows and differences, and the calls of the first programs that differ."""
    rows, wrong, shown = 0, 0, []
    for number in range(programs):
        run = Run(seed + number)
        try:
            rows += run.run()
        except Exception as error:
            wrong += 1
            if len(shown) < 5:
                shown.append({"seed": seed + number, "error": f"{type(error).__name__}: {error}", "calls": run.log})
    return {"programs": programs, "first_seed": seed, "rows": rows, "wrong_programs": wrong, "first_wrong": shown}


def main(args: Args) -> int:
    start = time.time()
    result = run_programs(args.programs, args.seed)
    print(f"{result['programs']} programs, {result['rows']} rows compared, {result['wrong_programs']} programs wrong")
    for failure in result["first_wrong"]:
        print(json.dumps(failure, indent=1))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"provenance": provenance(), **result, "seconds": round(time.time() - start)}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["wrong_programs"] else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
