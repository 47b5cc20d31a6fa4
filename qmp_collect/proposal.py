"""What policies propose: its form, its checks, and what of it is scored."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qmp_collect.backends import Backend
from qmp_collect.switch import QScored


class Proposal(NamedTuple):
    """What a policy proposes: ``(M, ...)`` for one policy, ``(N, K, ...)`` for batched ones.

    With ``means``, the switch scores the means and the chosen policy's *sampled* action is executed (QMP, section
    4.2); without, it scores the samples themselves, as it does those of a policy without means beside others with.

    Attributes:
        actions: sampled actions, ``(M, *A)`` or ``(N, K, *A)``.
        means: deterministic actions, same shape, or ``None``.
        entropies: of the action distributions in the states asked about, ``(M,)`` or ``(N, K)``, in nats, or ``None``.
            Where there is no closed form, an average of ``-log_prob`` over many samples: that of one sample has a
            standard deviation of a nat or more, and prefers policies whose sample happened to be improbable.
    """

    actions: Any
    means: Any = None
    entropies: Any = None


def as_proposal(output: Any) -> Proposal:
    return output if isinstance(output, Proposal) else Proposal(output)


def is_integer(actions: Any) -> bool:
    return any(kind in str(actions.dtype) for kind in ("int", "long", "bool"))


def broken_actions(actions: NDArray[Any], axes: int = 1) -> NDArray[np.bool_]:
    """Which actions are not finite: of ``(N, *A)``, or of ``(N, K, *A)`` with two ``axes``."""
    shape = actions.shape[:axes]
    if actions.dtype.kind != "f" or (finite := np.isfinite(actions)).all():
        return np.zeros(shape, np.bool_)
    broken: NDArray[np.bool_] = ~finite.reshape(*shape, -1).all(axis=-1)
    return broken


def stack_field(backend: Backend, proposals: list[Proposal], name: str) -> Any:
    values = [getattr(proposal, name) for proposal in proposals]
    if name == "means" and any(value is not None for value in values):
        # A policy that gives none, such as a scripted one beside Gaussians, is deterministic as far as anybody knows.
        values = [proposal.actions if mean is None else mean for proposal, mean in zip(proposals, values, strict=True)]
    missing = [k for k, value in enumerate(values) if value is None]
    if not missing:
        return backend.stack(values, axis=1)
    return None  # entropies are only missed by who needs them


def scored_actions(proposal: Proposal, scoring: QScored) -> Any:
    if scoring.samples > 1 or scoring.score == "sample":
        return proposal.actions
    if proposal.means is not None:
        return proposal.means
    if scoring.score == "mean":
        raise ValueError(
            'score="mean" needs the policies\' mean actions, but they returned none: return '
            'Proposal(actions, means=...), or use score="sample"'
        )
    return proposal.actions


def entropies_of(proposal: Proposal) -> Any:
    if proposal.entropies is None:
        raise ValueError(
            "entropy_weight needs the policies' entropies, but not all of them returned any: return "
            "Proposal(actions, entropies=...), or use entropy_weight=0"
        )
    return proposal.entropies


def check_shape(name: str, array: Any, expected: tuple[int, ...]) -> None:
    got = getattr(array, "shape", None)
    if got is None:
        hint = ""
        if isinstance(array, tuple | list):
            of_policy = ": return the actions, or Proposal(actions, means=..., entropies=...)"
            of_critic = ": of twin critics return one, or their minimum, or stack them and set the switch's reduce"
            hint = of_policy if "polic" in name else of_critic
        raise TypeError(f"{name} must return an array of shape {expected}, got {type(array).__name__}{hint}")
    got = tuple(got)
    if got == expected:
        return
    hint = ""
    if len(got) >= 2 and (got[1], got[0], *got[2:]) == expected:
        hint = ": its first two axes are swapped, the batch axis comes first"
    elif got == (*expected, 1):
        hint = ": drop the last axis"
    raise ValueError(f"{name} returned shape {got}, expected {expected}{hint}")


def check_values(name: str, array: Any, expected: tuple[int, ...], ensemble: bool) -> None:
    """Raise unless ``array`` has the shape of Q-values, with one more axis in front for those of an ensemble."""
    got = tuple(getattr(array, "shape", ()))
    if not ensemble:
        if len(got) == len(expected) + 1 and got[1:] == expected and got[0] > 1:
            raise ValueError(
                f"{name} returned shape {got}, expected {expected}: if these are the values of {got[0]} critics, say "
                'how to make one of them, as in QSwitch(reduce="min")'
            )
        check_shape(name, array, expected)
    elif not hasattr(array, "shape"):
        raise TypeError(
            f"{name} must return an array of shape {('E', *expected)}, got {type(array).__name__}: stack the values of "
            "the ensemble's members, as in torch.stack([q1, q2])"
        )
    elif len(got) != len(expected) + 1 or got[1:] != expected or got[0] == 0:
        raise ValueError(
            f"{name} returned shape {got}, expected {('E', *expected)}: with reduce set, the values of an ensemble of "
            "E critics, members first"
        )
