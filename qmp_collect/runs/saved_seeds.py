"""What several seeds of one process save: all of them together, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from qmp_collect.runs.checkpoint import check_rng_state, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from qmp_collect.runs.folder import NEXT
from qmp_collect.runs.forms import check_form, check_state
from qmp_collect.runs.replay_files import FOLDER, ReplayFiles
from qmp_collect.runs.saved import FILE, Collector, save_finite
from qmp_collect.runs.seeds import SeedNoise, SeedReplay, state_of_seed, states_of_seeds


class _OfSeeds(Protocol):
    """A part that has a state for each seed, in the form of a run of its own."""

    def states(self) -> list[Any]: ...

    def check_states(self, states: Sequence[Any]) -> None: ...

    def load_states(self, states: Sequence[Any]) -> None: ...


class SavedSeeds:
    """Each seed's parts, in the checkpoint of its folder, and what is of all of them, in that of the folder above.

    The latter is written last, and with it a save is made: until then the seeds' new checkpoints wait beside the old
    ones, as ``checkpoint.next.npz``. Of a process that was killed meanwhile, `read` takes those that belong to the last
    save that was made, whichever of both names they have.

    Args:
        folder: of all seeds.
        members: by seed, its folder.
        collector: of all seeds.
        agent: of all seeds, as `qmp_collect.runs.seeds.stack_agents` makes it.
        buffers: by name, what else each seed saves.
    """

    def __init__(
        self,
        folder: Path,
        members: Mapping[int, Path],
        collector: Collector,
        agent: Any,
        buffers: Mapping[str, SeedReplay],
    ) -> None:
        self._file, self._members, self._collector = folder / FILE, dict(members), collector
        self._replays = {
            name: [ReplayFiles(path / FOLDER, own) for path, own in zip(members.values(), part.buffers, strict=True)]
            for name, part in buffers.items()
        }
        self._parts: dict[str, _OfSeeds] = {
            "agent": _Agents(agent, len(members)),
            **({"noise": _Noise(agent.actor.noise)} if isinstance(agent.actor.noise, SeedNoise) else {}),
            **{name: _Replays(name, replays) for name, replays in self._replays.items()},
        }
        self._number = 0  # of the last save

    def save(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Write all parts, and what there is to say of each seed's run.

        Raises:
            FloatingPointError: A seed's agent is not finite. It is kept beside its last checkpoint that was, and the
                last save of all seeds stays the last.
        """
        mark = {"seeds": list(self._members), "save": self._number + 1}
        steps = self._collector.num_steps // len(self._members)
        states = {name: part.states() for name, part in self._parts.items()}
        for place, (seed, folder) in enumerate(self._members.items()):
            own = {name: of_seeds[place] for name, of_seeds in states.items()}
            # Of the collector, which is that of all, how far it is: for those who look at this seed alone.
            tree = {"collector": {"num_steps": steps}, **own, "run": {**runs[place], **mark}}
            try:
                save_finite(folder / NEXT, tree, ["agent"])
            except FloatingPointError as error:
                raise FloatingPointError(f"seed {seed}: {error}") from error
        save_checkpoint(self._file, {"collector": self._collector.state_dict(), "run": mark, "rng": rng_state()})
        self._number += 1
        for folder in self._members.values():
            os.replace(folder / NEXT, folder / FILE)
        for replays in self._replays.values():
            for replay in replays:
                replay.remove_unused()

    def read(self) -> list[dict[str, Any]]:
        """What was saved of each seed, by name, with what is of all of them. No part is changed yet.

        Raises:
            OSError, ValueError: A file cannot be read, is damaged, or is of another save.
        """
        shared = load_checkpoint(self._file)
        mark = shared["run"]
        if mark["seeds"] != list(self._members):
            raise ValueError(f"its checkpoint is of the seeds {mark['seeds']}, expected {list(self._members)}")
        trees = [_of_save(folder, mark) | {name: shared[name] for name in ("collector", "rng")} for folder in
                 self._members.values()]  # fmt: skip
        self._number = int(mark["save"])
        return trees

    def restore(self, trees: Sequence[Mapping[str, Any]]) -> None:
        """Put everything back in place, if all of it fits; as `SavedParts.restore`."""
        shared = trees[0]
        check_rng_state(shared["rng"])
        for name, part in self._parts.items():
            part.check_states([tree[name] for tree in trees])
        self._collector.load_state_dict(shared["collector"])
        for name, part in self._parts.items():
            part.load_states([tree[name] for tree in trees])
        set_rng_state(shared["rng"])


def _of_save(folder: Path, mark: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a seed that belongs to this save."""
    problems = []
    for name in (NEXT, FILE):
        try:
            tree = dict(load_checkpoint(folder / name))
            run = dict(tree["run"])
            found = {key: run.pop(key, None) for key in mark}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, LookupError, TypeError) as error:
            problems.append(f"; {error}")
            continue
        if found == mark:
            if name == NEXT:  # whoever saved was killed before it had its name
                os.replace(folder / NEXT, folder / FILE)
            return tree | {"run": run}
    raise ValueError(
        f"{folder} has no checkpoint of the last save of all seeds, number {mark['save']}: put back the folder as it "
        f"was, with the others{''.join(problems)}"
    )


class _Agents:
    """A stacked agent."""

    def __init__(self, agent: Any, num_seeds: int) -> None:
        self._agent, self._num_seeds = agent, num_seeds

    def states(self) -> list[Any]:
        state = self._agent.state_dict()
        return [state_of_seed(state, seed, self._num_seeds, self._agent.TWINS) for seed in range(self._num_seeds)]

    def check_states(self, states: Sequence[Any]) -> None:
        for state in states[1:]:
            check_form(state, states[0], "agent")
        check_state(self._agent, states_of_seeds(states, self._agent.TWINS), "agent")

    def load_states(self, states: Sequence[Any]) -> None:
        self._agent.load_state_dict(states_of_seeds(states, self._agent.TWINS))


class _Noise:
    """The generators of a stacked agent's noise."""

    def __init__(self, noise: SeedNoise) -> None:
        self._generators = noise.generators

    def states(self) -> list[Any]:
        return [{"device_type": g.device.type, "state": g.get_state()} for g in self._generators]

    def check_states(self, states: Sequence[Any]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            check_form(state, {"device_type": "", "state": generator.get_state()}, "noise")
            if state["device_type"] != generator.device.type:
                raise ValueError(
                    f"the generators of its noise are of {state['device_type']}, which {generator.device.type} cannot "
                    "go on with: continue it on the same kind of device"
                )
            torch.Generator(generator.device).set_state(state["state"])

    def load_states(self, states: Sequence[Any]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state["state"])


class _Replays:
    """A replay buffer of each seed."""

    def __init__(self, name: str, files: Sequence[ReplayFiles]) -> None:
        self._name, self._files = name, list(files)

    def states(self) -> list[Any]:
        return [files.state_dict() for files in self._files]

    def check_states(self, states: Sequence[Any]) -> None:
        for files, state in zip(self._files, states, strict=True):
            check_state(files, state, self._name)

    def load_states(self, states: Sequence[Any]) -> None:
        for files, state in zip(self._files, states, strict=True):
            files.load_state_dict(state)
