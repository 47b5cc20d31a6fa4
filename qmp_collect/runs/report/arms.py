"""Sorting runs into arms: those that differ in nothing but their seeds, with labels that say what tells arms apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qmp_collect.runs.provenance import OF_THE_STARTER
from qmp_collect.runs.report.runs import Run

# Settings that change neither what is learned nor what the measured numbers mean: runs that differ in them are one arm.
INCIDENTAL = frozenset(
    {
        *OF_THE_STARTER,
        "seed",
        "capture_video",
        "checkpoint_every",
        "eval_every",
        "eval_episodes",
        "eval_envs_per_task",
        "torch_threads",
        "torch_deterministic",
        "matmul_precision",
        "cuda",
        "compile",
        "cudagraphs",
    }
)

# What runs did that were made before a script had the setting. Whatever else some runs of a script have and others have
# not makes arms of their own, which is seen, where taking it for the same might not be.
BEFORE: dict[str, Any] = {
    "switch_critic_of": "task",
    "switch_margin": 0.0,
    "switch_hysteresis": 0.0,
    "switch_relative": False,
    "success_gate": None,
    "own_share_floor": None,
    "horizon_rule": "fixed",
    "own_fraction": None,
    "hosts": 0,
}

# A folder of this name holds runs that are published and count nowhere.
SET_ASIDE = "set_aside"

_METHODS = {
    "sac_qmp_separate": "No-Sharing",
    "sac_qmp_multihead": "Parameter-Sharing",
    "sac_qmp_helper": "SAC",
    "sac_shared": "Fully-Shared-Behaviors",
    "uds_qmp": "Data-Sharing",
    "pcgrad_qmp": "PCGrad",
    "mcal_qmp": "MCAL",
    "decaf": "DECAF",
    "dnc": "DnC",
}
SWITCHES = {
    "qmp": "QMP",
    "own": "own",
    "uniform": "QMP-Uniform",
    "domain": "QMP-Domain",
    "softmax": "QMP-Softmax",
}


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone, and in what is `INCIDENTAL`.

    Attributes:
        label: what tells it from the other arms of its task set.
        settings: of its first run, but for what is `INCIDENTAL`.
        runs: the finished ones, by seed.
        unfinished: the others.
    """

    label: str
    settings: dict[str, Any]
    runs: list[Run]
    unfinished: list[Run]

    @property
    def without_switch(self) -> dict[str, Any]:
        """Its settings but for the switch: equal in arms that differ in that alone."""
        return {key: value for key, value in self.settings.items() if key != "switch"}

    def shown(self, metric: str) -> list[Run]:
        """The runs behind a mean curve: the finished ones, or those that there are while none is."""
        return [run for run in self.runs or self.unfinished if run.has(metric)]

    def with_metric(self, metric: str) -> list[Run]:
        """The finished runs that have a metric: those that count in every table."""
        return [run for run in self.runs if run.has(metric)]


@dataclass(frozen=True)
class Study:
    """All runs of one task set.

    Attributes:
        env_id: the task set.
        arms: its arms, those of own policies first, then in the order of methods and switches.
        excluded: runs that are in no arm, each with the reason.
    """

    env_id: str
    arms: list[Arm]
    excluded: list[tuple[Run, str]]

    @property
    def runs(self) -> list[Run]:
        """Every run that is in an arm."""
        return [run for arm in self.arms for run in (*arm.runs, *arm.unfinished)]

    def reference(self, arm: Arm) -> Arm:
        """What an arm is compared with: its method with own policies, if that is another arm, else the first arm."""
        rest = arm.without_switch
        same = [other for other in self.arms if _own(other.settings) and other.without_switch == rest]
        return same[0] if same and same[0] is not arm else self.arms[0]

    def tasks(self, metric: str) -> list[str]:
        """Names of the tasks that any run logged a metric for."""
        return list(dict.fromkeys(task for run in self.runs for task in run.tasks(metric)))


def studies(runs: Sequence[Run]) -> list[Study]:
    """Runs by task set, sorted into arms."""
    return [_study(env_id, [run for run in runs if run.env_id == env_id]) for env_id in _seen(r.env_id for r in runs)]


def _study(env_id: str, every: list[Run]) -> Study:
    runs = [run for run in every if SET_ASIDE not in run.path.parts]
    excluded = [(run, "set aside") for run in every if SET_ASIDE in run.path.parts]
    keys = varied(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: _place(run.config)):
        groups.setdefault(tuple(_value(settings_of(run), key) for key in keys), []).append(run)
    texts = labels([settings_of(members[0]) for members in groups.values()], keys)
    arms = []
    for label, members in zip(texts, groups.values(), strict=True):
        best: dict[str, Run] = {}
        for run in sorted(members, key=lambda run: (not run.finished, -run.last_step)):
            seed = setting_text(run.seed)
            if seed in best:
                excluded.append((run, f"the same settings and seed as {best[seed].path.name}, which got further"))
            else:
                best[seed] = run
        kept = sorted(best.values(), key=_by_seed)
        arms.append(
            Arm(label, settings_of(kept[0]), [r for r in kept if r.finished], [r for r in kept if not r.finished])
        )
    return Study(env_id, arms, excluded)


def settings_of(run: Run) -> dict[str, Any]:
    """A run's settings but for what is `INCIDENTAL`, with what was so `BEFORE`."""
    return {key: value for key, value in (BEFORE | run.config).items() if key not in INCIDENTAL}


def varied(runs: Sequence[Run]) -> list[str]:
    """Settings that tell arms apart: runs that have one differ in it, or only some runs of a script have it."""
    every = [settings_of(run) for run in runs]
    found = []
    for key in _seen(key for settings in every for key in settings):
        values = {setting_text(settings[key]) for settings in every if key in settings}
        scripts = [
            {settings.get("exp_name") for settings in every if (key in settings) is has} for has in (True, False)
        ]
        if len(values) > 1 or scripts[0] & scripts[1]:
            found.append(key)
    return found


def labels(settings: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """A short text for each of several settings, different wherever they are in ``keys``.

    Script and switch have names, as in the paper. Further settings are named as far as the arms would not be told apart
    without, and where most arms share a value only the others say it.
    """
    keys = sorted(keys, key=lambda key: {"exp_name": 0, "switch": 1}.get(key, 2))
    values = {key: [_value(config, key) for config in settings] for key in keys}
    telling: list[str] = []
    for key in keys:
        if _count(values, [*telling, key]) > _count(values, telling):
            telling.append(key)
    usual = {key: max(set(values[key]), key=values[key].count) for key in telling}
    usual = {key: value for key, value in usual.items() if 2 * values[key].count(value) > len(settings)}
    texts = []
    for config in settings:
        switch = config.get("switch")
        script = str(config.get("exp_name", "run"))
        parts = [method_name(script, None if switch is None else str(switch), "exp_name" in telling)]
        for key in telling:
            if key not in ("exp_name", "switch") and _value(config, key) != usual.get(key):
                parts.append(_setting(config, key))
        texts.append(", ".join(parts))
    # Two scripts may go by the same name, and own policies by that of a script without a switch.
    for text in {text for text in texts if texts.count(text) > 1}:
        alike = [place for place, other in enumerate(texts) if other == text]
        for key in ("exp_name", "switch"):
            if key in values and len({values[key][place] for place in alike}) > 1:
                for place in alike:
                    texts[place] += f", {_setting(settings[place], key)}"
    return texts


def _setting(settings: dict[str, Any], key: str) -> str:
    name = key.replace("_", " ")
    return f"{name} {_value(settings, key)}" if key in settings else f"no {name}"


def method_name(exp_name: str, switch: str | None, with_method: bool) -> str:
    """Script and switch in words: "QMP", or "Parameter-Sharing + QMP" where there are several methods."""
    method = _METHODS.get(exp_name, exp_name)
    if switch is None:
        return method
    name = SWITCHES.get(switch, switch)
    if not with_method:
        return name
    return method if switch == "own" else f"{method} + {name}"


def _count(values: dict[str, list[str]], keys: list[str]) -> int:
    """Groups that the values of ``keys`` make."""
    return len(set(zip(*(values[key] for key in keys), strict=True))) if keys else 1


def _own(config: dict[str, Any]) -> bool:
    return config.get("switch") == "own"


def _place(config: dict[str, Any]) -> tuple[bool, int, int]:
    """Own policies first, then in the order of the methods and switches that have a name."""
    exp_name, switch = config.get("exp_name"), config.get("switch")
    return not _own(config), [*_METHODS, exp_name].index(exp_name), [*SWITCHES, switch].index(switch)


def _by_seed(run: Run) -> tuple[bool, Any, str]:
    number = isinstance(run.seed, int)
    return not number, run.seed if number else 0, setting_text(run.seed)


def _value(settings: dict[str, Any], key: str) -> str:
    return setting_text(settings[key]) if key in settings else ""


def setting_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _seen(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
