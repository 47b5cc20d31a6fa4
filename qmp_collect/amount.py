"""How much to collect: the target of a call of ``collect``, when to stop short of it, and a bar that shows it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qmp_collect.extras import needs


def exactly_one(n_step: int | None, n_episode: int | None) -> int:
    """The one of the two that is given, a positive integer."""
    if (n_step is None) == (n_episode is None):
        raise ValueError(f"give exactly one of n_step and n_episode, got n_step={n_step}, n_episode={n_episode}")
    name, amount = ("n_step", n_step) if n_step is not None else ("n_episode", n_episode)
    try:
        amount = operator.index(amount)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {amount!r}") from None
    if amount <= 0:
        raise ValueError(f"{name} must be positive, got {amount}")
    return amount


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
