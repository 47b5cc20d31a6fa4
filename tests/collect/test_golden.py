"""What a collector with default settings stores, byte for byte: digests of runs of 28 November 2026 (commit 4e45926).

They change only if what is stored changes, which no addition to the collector may do.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from collect_envs import FIELDS, Recorder, make_envs, policy, q_function

from qmp_collect import FixedSwitch, OwnPolicy, QMPCollector, QSwitch, SoftmaxQSwitch, UniformSwitch

THIRDS = np.full((2, 3), 1 / 3)
SETTINGS = {
    "default": {},
    "horizon": {"horizon": 3},
    "own-probability": {"own_probability": 0.5, "horizon": 2},
    "softmax": {"switch": SoftmaxQSwitch(0.3)},
    "uniform": {"switch": UniformSwitch(), "horizon": 2},
    "fixed": {"switch": FixedSwitch(THIRDS), "own_probability": 0.2},
    "own": {"switch": OwnPolicy()},
    "samples": {"switch": QSwitch(samples=2), "warmup_steps": 30},
}
DIGESTS = {
    "default/NextStep": "7a09daf7b5c01121",
    "default/SameStep": "a766912f0d9869b3",
    "default/Disabled": "bc8c99d99292bc1f",
    "horizon/NextStep": "ecff3859b9bf9d2d",
    "horizon/SameStep": "b9799ce82a805c18",
    "horizon/Disabled": "45fb593799f06530",
    "own-probability/NextStep": "4aa145f392144713",
    "own-probability/SameStep": "7b61433e04cfbc19",
    "own-probability/Disabled": "322c63cc7aef1893",
    "softmax/NextStep": "16f1782a57eed26e",
    "softmax/SameStep": "a8275ff00c4e5e92",
    "softmax/Disabled": "d03a5591dcfcd196",
    "uniform/NextStep": "4facd34f98672ff2",
    "uniform/SameStep": "4eaab323e4d0f8dd",
    "uniform/Disabled": "c9cd2711b007420d",
    "fixed/NextStep": "e262354c0102a2a0",
    "fixed/SameStep": "c1071fa11183b551",
    "fixed/Disabled": "09afb14e73b5143a",
    "own/NextStep": "87d0bf389ec77643",
    "own/SameStep": "57fb4a9fc260bf95",
    "own/Disabled": "15f22b2ff7e73956",
    "samples/NextStep": "cd05498a221d0720",
    "samples/SameStep": "da3e40a4a01248d1",
    "samples/Disabled": "cb6a574806149662",
}


def digest(sink: Recorder) -> str:
    """Of every stored field, in order, with its dtype and shape."""
    found = hashlib.sha256()
    for field in FIELDS:
        column = sink.column(field)
        found.update(f"{field} {column.dtype} {column.shape}".encode() + np.ascontiguousarray(column).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_stored_is_what_was_stored_before(name, mode):
    envs, sink = make_envs({"lengths": (7,)}, {"lengths": (4, 5)}, {"lengths": (10,)}, mode=mode), Recorder()
    policies, q_functions = [policy(k) for k in range(3)], [q_function(t) for t in range(2)]
    collector = QMPCollector(envs, policies, q_functions, task_ids=[0, 1, 0], buffer=sink, seed=5, **SETTINGS[name])
    collector.collect(n_step=200)
    collector.collect(n_episode=2)
    collector.load_state_dict(collector.state_dict())
    collector.collect(n_step=50)
    assert digest(sink) == DIGESTS[f"{name}/{mode}"]
