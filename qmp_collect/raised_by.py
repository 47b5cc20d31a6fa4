"""Errors of a caller's functions say which of them it was."""

from __future__ import annotations


def raised_by(error: Exception, name: str) -> None:
    """Give the error a note (from Python 3.11 on) that says whose it is, such as "raised by policies[2]".

    To be called where it is caught, and raised again as it is.
    """
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(f"raised by {name}")
