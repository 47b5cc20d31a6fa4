"""Random programs against the scalar model: no difference, and a difference is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("tyro")

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    path = ROOT / "benchmark" / "reliability" / "collector_programs.py"
    spec = importlib.util.spec_from_file_location("collector_programs", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["collector_programs"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


programs = load()


def test_100_programs():
    result = programs.run_programs(100, seed=1_000_000)
    assert result["first_wrong"] == []
    assert result["rows"] > 2500


def forgets_no_hold(monkeypatch):
    monkeypatch.setattr("qmp_collect.mixture.Mixture.forget", lambda self, rows: None)


def stores_resets(monkeypatch):
    monkeypatch.setattr("qmp_collect.episodes.Episodes.recorded", property(lambda self: np.ones_like(self.ignored)))


def loses_a_hold_in_its_state(monkeypatch):
    from qmp_collect.mixture import Mixture

    state_dict = Mixture.state_dict
    zeros = {"hold_left": np.int64(0)}
    monkeypatch.setattr(
        Mixture, "state_dict", lambda self: (s := state_dict(self)) | {k: s[k] * v for k, v in zeros.items()}
    )


def believes_every_start(monkeypatch):
    monkeypatch.setattr("qmp_collect.loop.moved", lambda obs, before: np.ones(len(obs), np.bool_))


@pytest.mark.parametrize("mutant", [forgets_no_hold, stores_resets, loses_a_hold_in_its_state, believes_every_start])
def test_a_mutant_is_noticed(mutant, monkeypatch):
    mutant(monkeypatch)
    assert any(programs.run_programs(1, seed)["wrong_programs"] for seed in range(600))
