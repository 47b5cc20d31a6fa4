"""Tables of a study: what its arms' runs say together, with intervals where there are runs enough for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.runs.report import statistics
from qmp_collect.runs.report.arms import SWITCHES, Arm, Study
from qmp_collect.runs.report.runs import Run
from qmp_collect.runs.report.statistics import Interval
from qmp_collect.runs.scripts import did_you_mean

Floats = NDArray[np.float64]

THRESHOLD = 0.9
RESAMPLES = 2_000
LAST = 0.1
FEWEST_FOR_BOOTSTRAP = 3
ALL_PAIRS = 6  # so many arms are compared each with each, more only with their references


class Measured(str):
    """A cell's text, and the numbers that it rounds: the interval is NaN where runs are too few for one."""

    value: Interval

    @staticmethod
    def of(text: str, value: Interval) -> Measured:
        """Both."""
        cell = Measured(text)
        cell.value = value
        return cell


class Table(NamedTuple):
    """Cells as texts, of which the first of a row names it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """Of head and rows."""
        rows = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def final(values: Floats) -> float:
    """Mean of the last 10 % of a run's evaluations, of one at least: ``(P,)``."""
    return float(values[-max(1, round(LAST * len(values))) :].mean())


def scores(arm: Arm, metric: str) -> Floats:
    """The primary statistic of each finished run, ``(R,)``: `final` of the mean over tasks."""
    return np.array([final(run.series(metric)[1]) for run in arm.with_metric(metric)])


def task_scores(arm: Arm, metric: str, tasks: Sequence[str]) -> Floats:
    """`final` of each task of each finished run, ``(R, T)``."""
    runs = arm.with_metric(metric)
    values = [[final(run.series(task_tag(metric, task))[1]) for task in tasks] for run in runs]
    return np.array(values).reshape(len(runs), len(tasks))


def task_tag(metric: str, task: str) -> str:
    """``eval/success`` of one task: ``eval/TASK/success``."""
    group, _, name = metric.rpartition("/")
    return f"{group}/{task}/{name}"


def in_words(metric: str) -> str:
    """A tag as an axis says it: ``eval/any_hit`` is "any hit, own policies"."""
    group, _, name = metric.rpartition("/")
    where = {"eval": "own policies", "charts": "training episodes"}.get(group, group.replace("/", ", "))
    return ", ".join(filter(None, (name.replace("_", " "), where)))


def is_share(study: Study, metric: str) -> bool:
    """Whether a metric counts something out of something, such as success: from 0 to 1, neither return nor length."""
    if metric.rpartition("/")[2] in ("return", "length"):
        return False
    values = [run.series(metric)[1] for run in study.runs if run.has(metric)]
    return bool(values) and all(((v >= 0) & (v <= 1)).all() for v in values)


def results(study: Study, metric: str) -> Table:
    """Each arm's primary statistic: mean with t interval, interquartile mean with bootstrap, every run."""
    tasks = study.tasks(metric)
    rows = []
    for arm, values in _scored(study, metric):
        by_task = task_scores(arm, metric, tasks) if tasks else values
        rows.append(
            [
                arm.label,
                _runs_of(arm, metric),
                interval(values),
                bootstrap(statistics.interquartile_mean, by_task),
                _each(arm, metric, [number(value) for value in values]),
            ]
        )
    return Table(
        f"{metric}: mean of the last 10 % of evaluations",
        ["arm", "runs", "mean over tasks and runs [95 % t interval]", "interquartile mean [bootstrap]", "seed: run"],
        rows,
        f"The interquartile mean is over runs and tasks; its interval resamples whole runs ({RESAMPLES} times). With "
        "few runs it covers less often than the 95 % it says.",
    )


def differences(study: Study, metric: str) -> Table:
    """Pairs of arms: difference of means, and how often a run of the first beats one of the second."""
    tasks = study.tasks(metric)
    rows = []
    for first, second in pairs(study, metric):
        a, b = scores(first, metric), scores(second, metric)
        by_task = [task_scores(arm, metric, tasks) if tasks else scores(arm, metric) for arm in (first, second)]
        rows.append(
            [
                f"{first.label} - {second.label}",
                f"{len(a)}, {len(b)}",
                _two(a, b, signed=True),
                _paired(first, second, metric),
                bootstrap(statistics.probability_of_improvement, a, b),
                bootstrap(statistics.probability_of_improvement, *by_task),
            ]
        )
    return Table(
        f"{metric}: differences between arms",
        ["arms", "runs", "independent runs [Welch]", "paired by seed [t]", "a run is better", "task by task"],
        rows,
        "95 % intervals. Runs of the same seed share first networks and start states, nothing more: the independent "
        "column is the one to read. The last two columns are probabilities of improvement, of a run's mean over tasks "
        "and of its tasks one by one; ties count half.",
    )


def speed(study: Study, metric: str) -> Table:
    """Area under the curve, and steps to 0.9 with the runs that never get there."""
    share = is_share(study, metric)
    rows = []
    for arm, _ in _scored(study, metric):
        curves = [run.series(metric) for run in arm.with_metric(metric)]
        areas = np.array([_area(*curve) for curve in curves])
        row = [arm.label, _runs_of(arm, metric), interval(areas)]
        if share:
            reached = np.array([statistics.steps_to(*curve, THRESHOLD) for curve in curves])
            row += [
                f"{np.isfinite(reached).sum()} of {len(reached)}",
                steps_text(_median(reached)),
                _each(arm, metric, [steps_text(value) for value in reached]),
            ]
        rows.append(row)
    head = ["arm", "runs", "area under the curve [95 % t interval]"]
    note = "The area is the curve's mean height over the run."
    if share:
        head += [f"runs that reach {THRESHOLD}", "median steps", "seed: steps"]
        note += (
            f" Reached means {THRESHOLD} or more, averaged over tasks, in two evaluations in succession; the median "
            "takes runs that never get there for longer than any other."
        )
    return Table(f"{metric}: how fast", head, rows, note)


def efficiency(study: Study, metric: str, parts: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0)) -> Table:
    """Sample efficiency: the mean over tasks and runs at shares of the longest run."""
    scored = _scored(study, metric)
    every = {arm.label: [run.series(metric) for run in arm.with_metric(metric)] for arm, _ in scored}
    longest = max((curve[0][-1] for curves in every.values() for curve in curves), default=0.0)
    rows = []
    for arm, _ in scored:
        cells = [arm.label, _runs_of(arm, metric)]
        for part in parts:
            at = part * longest
            values = [np.interp(at, *curve) for curve in every[arm.label] if curve[0][0] <= at <= curve[0][-1]]
            cells.append(interval(np.array(values), note=_fewer(len(values), len(every[arm.label]))))
        rows.append(cells)
    head = ["arm", "runs", *(f"at {steps_text(part * longest)} steps" for part in parts)]
    note = "Mean over tasks and runs [95 % t interval]; linear between evaluations."
    return Table(f"{metric}: sample efficiency", head, rows, note)


def tasks_table(study: Study, metric: str) -> Table:
    """The primary statistic of each task by itself."""
    tasks = study.tasks(metric)
    rows = []
    for arm, _ in _scored(study, metric):
        values = task_scores(arm, metric, tasks)
        rows.append([arm.label, _runs_of(arm, metric), *(interval(column) for column in values.T)])
    return Table(
        f"{metric}: task by task",
        ["arm", "runs", *tasks],
        rows,
        "Mean over runs of the last 10 % of evaluations [95 % t interval]. A run's tasks are one observation together.",
    )


class Hypothesis(NamedTuple):
    """``QMP > own``, ``own < 0.9``, ``A + QMP & B + QMP > A & B``: arms against others, pair by pair, or a number."""

    arms: tuple[str, ...]
    sign: str
    others: tuple[str, ...] | float

    def __str__(self) -> str:
        others = self.others if isinstance(self.others, float) else " & ".join(self.others)
        return f"{' & '.join(self.arms)} {self.sign} {others}"


class Tested(NamedTuple):
    """What the runs say of a hypothesis: numbers are NaN while there are too few of them."""

    hypothesis: Hypothesis
    runs: str
    difference: Interval
    p: float
    p_holm: float
    verdict: str


def hypothesis(text: str) -> Hypothesis:
    """Read ``ARM > ARM``, ``ARM < NUMBER``, or ``ARM & ARM > ARM & ARM``, the mean over pairs of arms.

    Raises:
        ValueError: for anything else.
    """
    match = re.fullmatch(r"\s*(.+?)\s+([<>])\s+(.+?)\s*", text)
    if match is None:
        raise ValueError(f"hypothesis {text!r}: expected 'ARM > ARM', 'ARM < ARM', or a number for the second")
    arms, others = (tuple(re.split(r"\s+&\s+", side)) for side in (match[1], match[3]))
    try:
        return Hypothesis(arms, match[2], float(match[3]))
    except ValueError:
        return Hypothesis(arms, match[2], others)


def with_labels(study: Study, given: Hypothesis) -> Hypothesis:
    """A hypothesis about a study's arms, which may be named in any case, and by their switch.

    A switch that several arms have stands for all of them that have a partner on the other side, from which they differ
    in the switch alone.

    Raises:
        ValueError: for an arm that there is not, or arms that are no pairs.
    """
    by_label: dict[str, list[Arm]] = {}
    by_switch: dict[str, list[Arm]] = {}
    for arm in study.arms:
        by_label.setdefault(arm.label.casefold(), []).append(arm)
        by_switch.setdefault(str(arm.settings.get("switch")).casefold(), []).append(arm)
    names = {word.casefold(): switch for switch, word in SWITCHES.items()}

    def arms(side: tuple[str, ...]) -> list[Arm]:
        found = []
        for name in side:
            word = name.casefold()
            if word not in by_label and names.get(word, word) not in by_switch:
                labels = [arm.label for arm in study.arms]
                raise ValueError(
                    f"hypothesis '{given}': there is no arm {name!r} in {study.env_id}:{did_you_mean(name, labels)} "
                    f"expected one of {labels}"
                )
            written = [arm for arm in study.arms if arm.label == name]
            found += written or by_label.get(word) or by_switch[names.get(word, word)]
        return found

    first = arms(given.arms)
    if isinstance(given.others, float):
        if len(first) > 1:
            raise ValueError(f"hypothesis '{given}': expected one arm before a number, got {[a.label for a in first]}")
        return Hypothesis((first[0].label,), given.sign, given.others)
    second = arms(given.others)
    pairs = list(zip(first, second, strict=False))
    if (len(given.arms), len(given.others)) == (1, 1) and len(first) + len(second) > 2:
        pairs = [(a, b) for a in first for b in second if a.without_switch == b.without_switch]
    elif len(first) != len(second):
        pairs = []
    if not pairs:
        labels = [[arm.label for arm in side] for side in (first, second)]
        raise ValueError(
            f"hypothesis '{given}': expected as many arms on both sides, pair by pair, or switches of arms that differ "
            f"in nothing else; got {labels[0]} and {labels[1]}"
        )
    return Hypothesis(tuple(a.label for a, _ in pairs), given.sign, tuple(b.label for _, b in pairs))


def tested(of: Sequence[tuple[Study, str]], given: Sequence[Hypothesis]) -> list[list[Tested]]:
    """Holm's procedure over the given list in all of these task sets together, and nothing else.

    Args:
        of: task sets, each with its metric.
        given: what is asked in each of them.

    Returns:
        For each of them, what was found.

    Raises:
        ValueError: see `with_labels`.
    """
    scored = [{arm.label: scores(arm, metric) for arm in study.arms} for study, metric in of]
    asked = [[with_labels(study, one) for one in given] for study, _ in of]
    results = [[_difference(arms, one) for one in ones] for arms, ones in zip(scored, asked, strict=True)]
    # one that cannot be tested yet counts in the list all the same
    adjusted = statistics.holm([1.0 if math.isnan(p) else p for of_set in results for _, p in of_set])
    by_set = adjusted.reshape(len(of), len(given))
    return [_verdicts(*each) for each in zip(scored, asked, results, by_set, strict=True)]


def _verdicts(
    of: Mapping[str, Floats], asked: Sequence[Hypothesis], results: Sequence[tuple[Interval, float]], adjusted: Floats
) -> list[Tested]:
    found = []
    for one, (difference, p), value in zip(asked, results, adjusted, strict=True):
        verdict = "open"
        if not math.isnan(p) and value < 0.05:
            verdict = "confirmed" if (difference.estimate > 0) == (one.sign == ">") else "refuted"
        sides = [one.arms] if isinstance(one.others, float) else [one.arms, one.others]
        runs = ", ".join(str(sum(len(of[label]) for label in side)) for side in sides)
        found.append(Tested(one, runs, difference, p, math.nan if math.isnan(p) else float(value), verdict))
    return found


def _difference(of: Mapping[str, Floats], one: Hypothesis) -> tuple[Interval, float]:
    """What the sides of a hypothesis differ by, and the p-value of no difference."""
    if isinstance(one.others, float):
        values = of[one.arms[0]]
        if len(values) < 2:
            return Interval(math.nan, math.nan, math.nan), math.nan
        return Interval(*(x - one.others for x in statistics.mean(values))), statistics.mean_test(values, one.others)
    pairs = [(of[a], of[b]) for a, b in zip(one.arms, one.others, strict=True)]
    if min(len(arm) for pair in pairs for arm in pair) < 2:
        return Interval(math.nan, math.nan, math.nan), math.nan
    return statistics.pooled_difference(pairs), statistics.pooled_test(pairs)


def hypotheses(metric: str, results: Sequence[Tested], sets: int = 1) -> Table:
    """Of what `tested` returns for one of so many task sets."""
    rows = []
    for one in results:
        able = not math.isnan(one.p)
        cells = [_signed(one.difference), f"{one.p:.3g}", f"{one.p_holm:.3g}"] if able else ["not enough runs", "", ""]
        rows.append([str(one.hypothesis), one.runs, *cells, one.verdict])
    family = f" in {sets} task sets, which is {sets * len(results)} tests together," if sets > 1 else ""
    note = (
        f"On the mean of the last 10 % of evaluations, Welch's test. Family-wise 5 % over this list{family} and "
        "nothing else: whatever else this page shows is exploratory."
    )
    if any(len(one.hypothesis.arms) > 1 for one in results):
        note += (
            " Of several pairs of arms it is the mean of their differences: stratified by pair, whole runs, all taken "
            "to be independent; it is about these pairs, not about others that they would be drawn from."
        )
    head = ["hypothesis", "runs", "difference [95 % interval]", "p, two-sided", "p by Holm", "verdict"]
    return Table(f"{metric}: hypotheses", head, rows, note)


def pooled(title: str, strata: Mapping[str, tuple[Floats, Floats]]) -> Table:
    """What two arms differ by in each of several methods, ``(R,)`` and ``(S,)``, and on average over the methods."""
    every = list(strata.values())
    rows = [[name, f"{len(a)}, {len(b)}", _two(a, b, signed=True), "", ""] for name, (a, b) in strata.items()]
    fewest = min(len(arm) for pair in every for arm in pair)
    if fewest > 1:
        gain = statistics.bootstrap(_mean_gain, *(arm for pair in every for arm in pair), resamples=RESAMPLES)
        cells = [_signed(statistics.pooled_difference(every)), _signed(gain)]
        cells.append(f"{statistics.permutation_test(every):.3g}")
    else:
        cells = [_alone(_mean_gain(*(arm for pair in every for arm in pair)), 1, signed=True), "", ""]
    runs = ", ".join(str(sum(map(len, arms))) for arms in zip(*every, strict=True))
    rows.append([f"mean of the {len(every)} methods", runs, *cells])
    return Table(
        title,
        ["method", "runs", "difference [Welch]", "[bootstrap]", "permutation p"],
        rows,
        "Stratified by method: whole runs are resampled, and their labels shuffled, within each method alone, and "
        "methods count alike. It assumes that all runs are independent, those of one seed too, which share first "
        "networks and start states and nothing more (the analysis seed by seed does not assume it, and has as many "
        "observations as there are seeds); it is about the mean effect in these methods, which may have different "
        "ones, and not about methods that they would be drawn from. Bootstrap intervals of few runs an arm are "
        "somewhat too narrow. The permutation test's hypothesis is that a method's two arms never differ at all.",
    )


def _mean_gain(*arms: Floats) -> float:
    """Of arms in turn with and without."""
    return float(np.mean([arm.mean() for arm in arms[::2]]) - np.mean([arm.mean() for arm in arms[1::2]]))


def pairs(study: Study, metric: str) -> list[tuple[Arm, Arm]]:
    """Arms to compare, later ones with earlier ones: each with each, or with their references if there are many."""
    arms = [arm for arm, _ in _scored(study, metric)]
    if len(arms) <= ALL_PAIRS:
        return [(second, first) for first, second in combinations(arms, 2)]
    both = [(arm, study.reference(arm)) for arm in arms]
    return [(arm, other) for arm, other in both if arm is not other and other in arms]


def interval(values: Floats, signed: bool = False, note: str = "") -> str:
    """Mean of ``(R,)`` runs with its t interval, as far as there are runs for it."""
    if len(values) == 0:
        return "no run"
    if len(values) == 1:
        return _alone(float(values[0]), 1, signed, note)
    return _text(statistics.mean(values), signed, note)


def bootstrap(statistic: statistics.Statistic, *samples: Floats) -> str:
    """A statistic of whole runs with its percentile interval, as far as there are runs for it."""
    fewest = min(len(sample) for sample in samples)
    if fewest < FEWEST_FOR_BOOTSTRAP:
        return _alone(float(statistic(*samples)), fewest)
    return _text(statistics.bootstrap(statistic, *samples, resamples=RESAMPLES))


def number(value: float, signed: bool = False, width: float = 0.0) -> str:
    """Two digits of what is uncertain, half of ``width``, but three decimals at most, and beyond 10 one."""
    digits = 3 if abs(value) < 10 else 1
    if 0.0 < width < math.inf:
        digits = min(digits, max(0, 1 - math.floor(math.log10(width / 2))))
    value = round(value, digits) + 0.0  # there is no -0.0
    return f"{value:{'+' if signed else ''}.{digits}f}"


def steps_text(steps: float) -> str:
    """1.25 M, 40 k; what is never reached is "never"."""
    if math.isinf(steps):
        return "never"
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if steps >= unit:
            return f"{steps / unit:.4g}{name}"
    return f"{steps:.0f}"


def _scored(study: Study, metric: str) -> list[tuple[Arm, Floats]]:
    """Arms with a finished run that has the metric, and their scores."""
    return [(arm, values) for arm in study.arms if len(values := scores(arm, metric))]


def _two(a: Floats, b: Floats, signed: bool = False) -> str:
    if min(len(a), len(b)) < 2:
        return _alone(float(a.mean() - b.mean()), min(len(a), len(b)), signed)
    return _text(statistics.difference(a, b), signed)


def _paired(first: Arm, second: Arm, metric: str) -> str:
    """Where both arms have the same seeds, two at least."""
    seeds = [[str(run.seed) for run in arm.with_metric(metric)] for arm in (first, second)]
    if sorted(seeds[0]) != sorted(seeds[1]) or len(seeds[0]) < 2:
        return "seeds differ" if sorted(seeds[0]) != sorted(seeds[1]) else "1 pair"
    a, b = (scores(arm, metric)[np.argsort(names)] for arm, names in zip((first, second), seeds, strict=True))
    return _signed(statistics.paired_difference(a, b))


def _area(steps: Floats, values: Floats) -> float:
    return float(statistics.area_under_curve(steps, values)) if len(steps) > 1 else float(values[0])


def _median(values: Floats) -> float:
    """With runs at infinity: the middle one, and of two in the middle their mean."""
    ordered = np.sort(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low if low == high else (low + high) / 2)


def _each(arm: Arm, metric: str, texts: Sequence[str]) -> str:
    return ", ".join(f"{_seed(run)}: {text}" for run, text in zip(arm.with_metric(metric), texts, strict=True))


def _seed(run: Run) -> str:
    return "?" if run.seed is None else str(run.seed)


def _runs_of(arm: Arm, metric: str) -> str:
    """The finished runs that count, and those of the arm that do not."""
    counted, all_runs = len(arm.with_metric(metric)), len(arm.runs) + len(arm.unfinished)
    return f"{counted}" + (f" of {all_runs}" if counted < all_runs else "")


def _fewer(counted: int, expected: int) -> str:
    return f" ({counted} runs)" if 0 < counted < expected else ""


def _text(value: Interval, signed: bool = False, note: str = "") -> str:
    estimate, low, high = (number(x, signed, value.high - value.low) for x in value)
    between = f"{low}, {high}" if value.low < value.high else "all equal"  # of which no interval can be estimated
    between = "not finite" if math.isnan(value.low) else between
    return Measured.of(f"{estimate} [{between}]{note}", value)


def _alone(value: float, runs: int, signed: bool = False, note: str = "") -> str:
    text = f"{number(value, signed)} [{runs} run{'s' * (runs > 1)}]{note}"
    return Measured.of(text, Interval(value, math.nan, math.nan))


def _signed(value: Interval) -> str:
    return _text(value, signed=True)
