"""The colours of figures and films."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

Look: TypeAlias = tuple[str, str]  # colour and line style

# Okabe and Ito's palette, told apart with any kind of colour vision; brown and grey stand for its black and its yellow,
# of which one is lost on a dark page and the other on a white one.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d5a", "#7f7f7f")
STYLES = ("-", "--", ":", "-.")

# Who acts has one colour in every figure.
SWITCH_COLOURS = dict(zip(("own", "qmp", "uniform", "domain", "softmax"), PALETTE, strict=False))
_FREE = PALETTE[len(SWITCH_COLOURS) :]
_MIXED_WITH = ((0, 0.0), (0, 0.4), (255, 0.45))  # nothing, black, white


def looks(lines: Sequence[tuple[str | None, Hashable]]) -> list[Look]:
    """Of each of several lines: the colour says the switch; the style, and beyond four the shade, what else differs.

    Args:
        lines: of each the name of its switch, if it has one, and what else tells it apart: its method, its settings.
    """
    rests = list(dict.fromkeys(rest for switch, rest in lines if switch in SWITCH_COLOURS))
    others = list(dict.fromkeys(line for line in lines if line[0] not in SWITCH_COLOURS))
    found = []
    for switch, rest in lines:
        if switch in SWITCH_COLOURS:
            shade, style = divmod(rests.index(rest), len(STYLES))
            found.append((_shaded(SWITCH_COLOURS[switch], shade), STYLES[style]))
        else:
            style, place = divmod(others.index((switch, rest)), len(_FREE))
            found.append((_FREE[place], STYLES[style % len(STYLES)]))
    return found


def policy_name(policy: int, tasks: Sequence[str]) -> str:
    """Of a task's own policy the task's name; of those beyond, ``helper``, with a number from the second one on."""
    beyond = policy - len(tasks)
    return tasks[policy] if beyond < 0 else f"helper {beyond + 1}" if beyond else "helper"


def policy_look(policy: int) -> Look:
    """Of the line of a policy among others."""
    style, place = divmod(policy, len(PALETTE))
    return PALETTE[place], STYLES[style % len(STYLES)]


def _shaded(colour: str, shade: int) -> str:
    target, share = _MIXED_WITH[shade % len(_MIXED_WITH)]
    parts = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(part + share * (target - part)):02x}" for part in parts)
