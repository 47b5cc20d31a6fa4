"""How much to collect: the target of a call of ``collect``, when to stop short of it, and a bar that shows it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

from qmp_collect.extras import needs


def exactly_one(n_step: int | None, n_episode: int | None) -> int:
    """The one of the two that is given, a positive integer."""
    if (n_step is None) == (n_episode is None):
        raise ValueError(f"give exactly one of n_step and n_episode, got n_step={n_step}, n_episode={n_episode}")
    return integer("n_step", n_step) if n_step is not None else integer("n_episode", n_episode)


def integer(name: str, value: Any, at_least: int = 1) -> int:
    """``value``, an integer in any type, as Python's.

    Raises:
        TypeError: It is none.
        ValueError: It is below ``at_least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < at_least:
        least = "positive (at least 1)" if at_least == 1 else f"at least {at_least}"
        raise ValueError(f"{name} must be {least}, got {number}")
    return number


def number(name: str, value: Any) -> float:
    """``value``, a real number in any type, as Python's.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def asks_to_stop(stop: Any) -> Callable[[], bool]:
    """``stop``, a function of nothing or anything whose truth may change, as a question.

    Raises:
        TypeError: It is an event, which is always true.
    """
    if hasattr(stop, "is_set"):
        raise TypeError(f"stop is a {type(stop).__name__}, which is always true: pass its method is_set")
    return (lambda: bool(stop())) if callable(stop) else (lambda: bool(stop))


@contextmanager
def progress_bar(total: int, unit: str, shown: bool) -> Iterator[Callable[[int], None]]:
    """What to tell how much is done."""
    if not shown:
        yield lambda done: None
        return
    with needs("train"):
        from tqdm import tqdm

    with tqdm(total=total, unit=unit) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show
