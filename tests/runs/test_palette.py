"""One colour per switch, whatever else is drawn."""

from __future__ import annotations

from qmp_collect.runs.palette import SWITCH_COLOURS, looks


def test_the_colour_says_the_switch_and_the_style_the_rest():
    blue, red, free = "#0072b2", "#d55e00", "#56b4e9"
    lines = [("own", "separate"), ("own", "multihead"), (None, "dnc"), ("qmp", "separate"), ("qmp", "multihead")]
    assert looks(lines) == [(blue, "-"), (blue, "--"), (free, "-"), (red, "-"), (red, "--")]
    assert looks(lines[3:]) == [(red, "-"), (red, "--")]


def test_lines_of_one_switch_are_told_apart():
    sweep = looks([("qmp", horizon) for horizon in range(12)])
    assert len(set(sweep)) == 12
    assert len({colour for colour, _ in sweep}) == 3
    assert not {colour for colour, _ in looks([(None, k) for k in range(12)])} & set(SWITCH_COLOURS.values())
