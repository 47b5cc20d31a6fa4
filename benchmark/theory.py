"""Theorem 5.1 on finite MDPs: does the Q-switch mixture improve on SAC's own improvement step?

    python benchmark/theory.py      # half a minute on one core; a table, benchmark/results/theory.json, docs/theory.png

**Setting.** One task: finite states and actions, discount gamma < 1, temperature alpha >= 0. Of a policy p, the soft
values are V(s) = sum_a p(a|s) (Q(s,a) - alpha log p(a|s)) and Q(s,a) = r(s,a) + gamma sum_s' P(s'|s,a) V(s'). For any
policy p and any Q write

    G(p, Q)(s) = sum_a p(a|s) (Q(s,a) - alpha log p(a|s)),    so V^p = G(p, Q^p).

``old`` is the task's policy, ``new`` what SAC's improvement step makes of it: G(new, Q^old) >= G(old, Q^old) in every
state, which is to say that the divergence from exp(Q^old / alpha) has not grown. The candidates are ``new`` and the
other tasks' policies, which may be anything. The mixture acts in state s as the candidate with the highest G(., Q)(s);
which Q is meant decides what is true.

**Lemma.** V^p - V^q = D^p (G(p, Q^q) - V^q) for all policies p and q, where D^p = (I - gamma P^p)^-1 has no negative
entry: subtract V^q = (I - gamma P^p)^-1 (V^q - gamma P^p V^q) from V^p = D^p (r^p + alpha H^p). So if p improves on q
in every state *judged by q's own values*, then V^p >= V^q and Q^p >= Q^q everywhere.

1. *SAC's step*: Q^new >= Q^old (p = new, q = old). Haarnoja et al. 2018, lemma 2.
2. *The theorem*, whose switch scores with Q^new: Q^mix >= Q^new >= Q^old. ``new`` is among the candidates, therefore
   G(mix, Q^new) >= G(new, Q^new) = V^new; lemma with p = mix, q = new. Nothing else is assumed.
3. *The critic at hand*. A learner that has just improved its policy still holds Q^old, and scores with that. Then
   Q^mix >= Q^old as before, but against ``new`` the lemma, once for each of them, gives

       V^mix - V^new = D^mix (G(mix, Q^old) - G(new, Q^old))  +  (D^mix - D^new) (G(new, Q^old) - V^old).
                       what the switch gains: >= 0               state coverage: of either sign

   The mixture visits other states than ``new``, and may give up some in which SAC's step improved much: it cannot
   know, Q^old does not. A proof of Q^mix >= Q^new from here has to assume that the second term, if negative, is small
   against the first. It is exactly zero if transitions do not depend on actions. In general it is enough that in every
   state

       G(mix, Q^old) - G(new, Q^old)  >=  gamma (P^new - P^mix) (V^new - V^old),                       (condition C)

   because (D^mix - D^new) x = gamma D^mix (P^mix - P^new) D^new x, and D^new (G(new, Q^old) - V^old) = V^new - V^old.

If SAC's step were exact, ``new`` being proportional to exp(Q^old / alpha), no candidate could beat it under Q^old, and
mix = new. So the step here is partial, as that of a network is: new is proportional to
old^(1 - eta) exp(eta Q^old / alpha), with another eta, uniform in [0, 1], in every state of every task. On that path
the divergence falls monotonically.

What is counted: state-action pairs in which Q^mix < Q^new, on random MDPs whose tasks share their transitions and part
of their rewards; for three switches: scoring with Q^new (2), with Q^old (3), and with Q^old alone, without the entropy:
the authors' code and this repository's default leave it out. Policies are evaluated by solving the linear equations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from qmp_collect.runs.palette import PALETTE, SWITCH_COLOURS
from qmp_collect.runs.provenance import provenance

ROOT = Path(__file__).parents[1]
Floats = NDArray[np.float64]
TOLERANCE = 1e-9  # values are of the order of 1 / (1 - gamma), and the linear equations are solved to about 1e-13
SWITCHES = {
    "new": "Q of the new policy (Theorem 5.1)",
    "old": "Q of the old policy (critic at hand)",
    "plain": "Q of the old policy, no entropy",
}


@dataclass
class Args:
    mdps: int = 100
    """random MDPs of each kind"""
    rounds: int = 5
    """improvement steps in each MDP; every one is checked"""
    seed: int = 1
    """of everything"""
    out: Path = ROOT / "benchmark" / "results" / "theory.json"
    """the JSON file"""
    figure: Path = ROOT / "docs" / "theory.png"
    """the figure; its ending says the format"""


@dataclass(frozen=True)
class Kind:
    """A distribution of multi-task MDPs."""

    states: int = 20
    actions: int = 4
    tasks: int = 4
    gamma: float = 0.95
    alpha: float = 0.1
    branching: int = 3
    """successors of a state-action pair, uniform Dirichlet probabilities"""
    similarity: float = 0.5
    """correlation of two tasks' rewards, which are standard normal"""
    actions_matter: bool = True
    """whether transitions depend on actions"""


GAMMAS = (0.5, 0.8, 0.9, 0.95, 0.99)
SIZES = (5, 20, 50)
SIMILARITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
KINDS = list(
    dict.fromkeys(
        [Kind(states=size, gamma=gamma) for size in SIZES for gamma in GAMMAS]
        + [Kind(states=size, actions_matter=False) for size in SIZES]
        + [Kind(similarity=similarity) for similarity in SIMILARITIES]
    )
)


# ------------------------------------------------------------------ exact soft policy iteration; leading axes broadcast
class Values(NamedTuple):
    q: Floats
    """(..., S, A)"""
    v: Floats
    """(..., S)"""


def entropy(policy: Floats) -> Floats:
    """Of each state's distribution: (..., S, A) -> (..., S)."""
    return -(policy * np.log(np.where(policy > 0, policy, 1.0))).sum(-1)


def soft_value(policy: Floats, q: Floats, alpha: float) -> Floats:
    """G(policy, q): (..., S, A) -> (..., S)."""
    return (policy * q).sum(-1) + alpha * entropy(policy)


def evaluate(policy: Floats, transitions: Floats, rewards: Floats, gamma: float, alpha: float) -> Values:
    """Soft values of a policy (..., S, A) under transitions (..., S, A, S) and rewards (..., S, A)."""
    policy_transitions = np.einsum("...sa,...sat->...st", policy, transitions)
    system = np.eye(policy.shape[-2]) - gamma * policy_transitions
    v = np.linalg.solve(system, soft_value(policy, rewards, alpha)[..., None])[..., 0]
    return Values(rewards + gamma * np.einsum("...sat,...t->...sa", transitions, v), v)


def partial_step(policy: Floats, q: Floats, alpha: float, eta: Floats) -> Floats:
    """SAC's improvement, by a fraction eta (..., S) of the way: policy^(1 - eta) exp(eta q / alpha), normalised."""
    eta = eta[..., None]
    with np.errstate(divide="ignore"):
        logits = np.where(eta < 1, (1 - eta) * np.log(policy), 0.0) + eta * q / alpha
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def q_switch(policies: Floats, q: Floats, alpha: float) -> Floats:
    """Each task's mixture (..., T, S, A) of all tasks' policies, scored with the task's own q; ties go to its own."""
    scores = soft_value(policies[..., None, :, :, :], q[..., :, None, :, :], alpha)  # (..., T, K, S)
    tasks = np.arange(policies.shape[-3])
    own = scores[..., tasks, tasks, :]  # (..., T, S)
    choice = np.where(own >= scores.max(-2), tasks[:, None], scores.argmax(-2))
    return np.take_along_axis(policies[..., None, :, :, :], choice[..., None, :, None], axis=-3)[..., 0, :, :]


def optimal(transitions: Floats, rewards: Floats, gamma: float, alpha: float) -> Values:
    """Values of the best policy, by soft policy iteration with exact steps."""
    policy = np.full(rewards.shape, 1 / rewards.shape[-1])
    values = evaluate(policy, transitions, rewards, gamma, alpha)
    while True:
        policy = partial_step(policy, values.q, alpha, np.ones(policy.shape[:-1]))
        better = evaluate(policy, transitions, rewards, gamma, alpha)
        if (better.v - values.v).max() < TOLERANCE:
            return better
        values = better


# ------------------------------------------------------------------ the check
def random_mdps(kind: Kind, number: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Transitions (M, 1, S, A, S), the same for all tasks, and rewards (M, T, S, A)."""
    s, a = kind.states, kind.actions
    successors = rng.random((number, 1, s, a, s)).argsort(-1)[..., : kind.branching]
    transitions = np.zeros((number, 1, s, a, s))
    np.put_along_axis(transitions, successors, rng.dirichlet(np.ones(kind.branching), successors.shape[:-1]), -1)
    if not kind.actions_matter:
        transitions[:] = transitions[..., :1, :]
    common, own = rng.standard_normal((number, 1, s, a)), rng.standard_normal((number, kind.tasks, s, a))
    return transitions, np.sqrt(kind.similarity) * common + np.sqrt(1 - kind.similarity) * own


def rounds(kind: Kind, number: int, count: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Soft policy iteration of all tasks at once; of every step, what the mixtures made of it.

    Yields arrays that begin with (M, T): ``old``, ``new`` and each switch's mixture as `Values`, the best values, and
    whether condition C held in all states. The mixtures only watch: as in QMP, each task goes on from its own policy.
    """
    transitions, rewards = random_mdps(kind, number, rng)
    model = (transitions, rewards, kind.gamma, kind.alpha)
    best = optimal(*model)
    policies = rng.dirichlet(np.ones(kind.actions), rewards.shape[:-1])
    for _ in range(count):
        old = evaluate(policies, *model)
        policies = partial_step(policies, old.q, kind.alpha, rng.random(policies.shape[:-1]))
        new = evaluate(policies, *model)
        mixed = {
            "new": q_switch(policies, new.q, kind.alpha),
            "old": q_switch(policies, old.q, kind.alpha),
            "plain": q_switch(policies, old.q, 0.0),
        }
        mixtures = {name: evaluate(mixture, *model) for name, mixture in mixed.items()}
        gain = soft_value(mixed["old"], old.q, kind.alpha) - soft_value(policies, old.q, kind.alpha)
        improved = np.einsum("...sat,...t->...sa", transitions, new.v - old.v)
        given_up = kind.gamma * ((policies - mixed["old"]) * improved).sum(-1)
        yield {"old": old, "new": new, "best": best, "mixtures": mixtures, "condition": (gain >= given_up).all(-1)}


def check(kind: Kind, number: int, count: int, seed: int) -> dict[str, Any]:
    """Violations of Q^mix >= Q^new and its relatives; lists have one entry for each of ``number`` MDPs."""
    rng = np.random.default_rng([seed, KINDS.index(kind) if kind in KINDS else len(KINDS)])
    steps = list(rounds(kind, number, count, rng))
    new = np.stack([step["new"].q for step in steps], 1)  # (M, rounds, T, S, A)
    old = np.stack([step["old"].q for step in steps], 1)
    best = np.stack([step["best"].q for step in steps], 1)
    condition = np.stack([step["condition"] for step in steps], 1)  # (M, rounds, T)

    switches = {}
    for name in SWITCHES:
        mixture = np.stack([step["mixtures"][name].q for step in steps], 1)
        worse = mixture < new - TOLERANCE
        switches[name] = {
            "worse_pairs": worse.mean((1, 2, 3, 4)).tolist(),
            "worse_steps": worse.any((-1, -2)).mean((1, 2)).tolist(),
            "gap_closed": ((mixture - new).sum((1, 2, 3, 4)) / (best - new).sum((1, 2, 3, 4))).tolist(),
            "largest_loss": float((new - mixture).max()),
            "worse_than_old": int((mixture < old - TOLERANCE).sum()),
        }
        if name == "old":
            switches[name] |= {
                "steps_with_condition": int(condition.sum()),
                "worse_pairs_with_condition": int(worse[condition].sum()),
            }
    return {
        "kind": asdict(kind),
        "steps": condition.size,
        "pairs": new.size,
        "sac_worse_than_old": int((new < old - TOLERANCE).sum()),
        "switches": switches,
    }


# ------------------------------------------------------------------ table and figure
def table(results: list[dict[str, Any]]) -> str:
    head = f"{'':34}   pairs with Q^mix < Q^new, by switch    steps with C"
    lines = [head, f"{'S':>3} {'gamma':>6} {'similarity':>11} {'actions':>10}{'':12}{'new':>9}{'old':>9}{'plain':>9}"]
    for result in results:
        kind, switches = result["kind"], result["switches"]
        shares = "".join(f"{np.mean(switches[name]['worse_pairs']):>9.2%}" for name in SWITCHES)
        with_c = switches["old"]["steps_with_condition"] / result["steps"]
        moves = "move" if kind["actions_matter"] else "do not"
        row = f"{kind['states']:>3} {kind['gamma']:>6} {kind['similarity']:>11} {moves:>10}{'':12}"
        lines.append(f"{row}{shares}{with_c:>16.1%}: {switches['old']['worse_pairs_with_condition']} worse pairs")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    def curve(axes: Any, kinds: list[Kind], x: str, switch: str, what: str, **style: Any) -> None:
        """Mean over the MDPs, with its 95 % interval."""
        chosen = [next(result for result in results if result["kind"] == asdict(kind)) for kind in kinds]
        values = np.array([result["switches"][switch][what] for result in chosen])  # (kinds, M)
        half = 1.96 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        axes.errorbar([getattr(kind, x) for kind in kinds], values.mean(1), half, capsize=2, linewidth=1.6, **style)

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = {"new": PALETTE[5], "old": PALETTE[6], "plain": SWITCH_COLOURS["qmp"]}  # the default switch's own colour
    for size, line in zip(SIZES, (":", "--", "-"), strict=True):
        for name in SWITCHES:
            label = f"{SWITCHES[name]}" if size == SIZES[-1] else None
            kinds = [Kind(states=size, gamma=gamma) for gamma in GAMMAS]
            curve(left, kinds, "gamma", name, "worse_pairs", color=colors[name], linestyle=line, label=label)
    left.set_xlabel(f"discount (dotted, dashed, solid: {', '.join(map(str, SIZES))} states)")
    left.set_ylabel("state-action pairs in which the\nmixture is worse than SAC's step")
    left.legend(frameon=False, fontsize=7, title="the switch scores with", title_fontsize=7, loc=(0.42, 0.3))
    for name in SWITCHES:
        kinds = [Kind(similarity=similarity) for similarity in SIMILARITIES]
        curve(right, kinds, "similarity", name, "gap_closed", color=colors[name])
    right.set_xlabel(f"correlation of tasks' rewards ({Kind().states} states, discount {Kind().gamma})")
    right.set_ylabel("part of SAC's distance to the optimum\nthat the mixture closes")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    figure.supxlabel("mean over random MDPs with 95 % interval", fontsize=7, color="0.4")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def main(args: Args) -> None:
    results = [check(kind, args.mdps, args.rounds, args.seed) for kind in KINDS]
    print(table(results))
    settings = {"mdps": args.mdps, "rounds": args.rounds, "seed": args.seed}
    report = {"machine": provenance(vars(args)), "settings": settings, "tolerance": TOLERANCE, "results": results}
    rounded = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.6g}"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    draw(results, args.figure)
    print(args.out, args.figure, sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Args))
