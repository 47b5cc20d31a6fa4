"""Several seeds of a script's agent side by side in one process, each what it is in a run of its own.

An agent of S seeds has the layers of S agents in each of its networks: ``(S * T, ...)``, and ``(2, S * T, ...)`` of
twin critics, seed by seed. Adam treats each number by itself, so one update is S updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qmp_collect.amount import integer
from qmp_collect.replay import Batch, TaskReplayBuffer
from qmp_collect.transitions import Transitions

__all__ = ["SeedNoise", "SeedReplay", "policy_of_seed", "stack_agents", "state_of_seed", "states_of_seeds"]


class SeedNoise:
    """Standard normal numbers like a tensor ``(S * L, ...)``, of each seed from a generator of its own.

    A seed draws what ``torch.randn_like`` draws for it in a run of its own; with `uniform`, what ``torch.rand_like``
    does.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of this shape, type and device."""
        return self._drawn(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) of this shape, type and device."""
        return self._drawn(torch.rand, like)

    def _drawn(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        shape, dtype, device = (len(like) // len(self.generators), *like.shape[1:]), like.dtype, like.device
        return torch.cat([draw(shape, generator=g, dtype=dtype, device=device) for g in self.generators])


def stack_agents(
    make: Callable[[int], Any], seeds: Sequence[int], device: torch.device, *, own_noise: bool = True
) -> Any:
    """An agent of several seeds, each of which begins with the parameters of an agent of its own with that seed.

    Args:
        make: an untrained agent of so many seeds; ``PARTS`` and ``TWINS`` of it name what it consists of.
        seeds: of each.
        device: where it draws its noise.
        own_noise: of each seed from a generator of its own (``actor.noise`` is a `SeedNoise` then), by which it draws
            what it would draw alone. If not, all seeds' noise is one draw from PyTorch's generator of the device, the
            only one that a CUDA graph can advance: as independent, but not what a seed would draw alone.
    """
    states, generators = [], []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for seed in seeds:
            torch.manual_seed(integer("seed", seed, at_least=0))
            states.append(make(1).state_dict())
            generator = torch.Generator(device)
            state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
            generators.append(generator.set_state(state))
    agent = make(len(seeds))
    agent.load_state_dict(states_of_seeds(states, agent.TWINS))
    if own_noise:
        agent.actor.noise = SeedNoise(generators)
        if hasattr(agent.actor, "uniform"):
            agent.actor.uniform = agent.actor.noise.uniform
    return agent


def policy_of_seed(policy: Callable[..., Tensor], seed: int, num_seeds: int) -> Callable[..., Tensor]:
    """Of an agent's ``policy(obs (N, *O), task_ids (N,)) -> (N, *A)``, one seed's; the others answer in vain.

    Args:
        policy: of all seeds.
        seed: the place of this one, from 0.
    """

    def own(obs: Tensor, task_ids: Tensor) -> Tensor:
        actions = policy(obs.repeat(num_seeds, *[1] * (obs.ndim - 1)), task_ids.repeat(num_seeds))
        return actions.view(num_seeds, -1, *actions.shape[1:])[seed]

    return own


def state_of_seed(state: dict[str, Any], seed: int, num_seeds: int, twins: Sequence[str]) -> dict[str, Any]:
    """The state of one of an agent's seeds, in the form of an agent of its own.

    Args:
        state: of all seeds.
        seed: the place of this one, from 0.
        twins: names of the parts that have two of everything.
    """

    def part(tree: Any, copies: int) -> Any:
        if isinstance(tree, dict):
            return {name: part(value, copies) for name, value in tree.items()}
        if not isinstance(tree, Tensor) or not tree.ndim:
            return tree
        return tree.view(copies, num_seeds, -1, *tree.shape[1:])[:, seed].flatten(0, 1)

    return {name: part(tree, 1 + (name in twins)) for name, tree in state.items()}


def states_of_seeds(states: Sequence[dict[str, Any]], twins: Sequence[str]) -> dict[str, Any]:
    """The state of an agent of several seeds, from those of its seeds: what `state_of_seed` took apart."""

    def join(trees: Sequence[Any], copies: int) -> Any:
        first = trees[0]
        if isinstance(first, dict):
            return {name: join([tree[name] for tree in trees], copies) for name in first}
        if not isinstance(first, Tensor) or not first.ndim:
            return first
        return torch.stack([tree.view(copies, -1, *tree.shape[1:]) for tree in trees], 1).flatten(0, 2)

    return {name: join([state[name] for state in states], 1 + (name in twins)) for name in states[0]}


class SeedReplay:
    """A replay buffer of each seed behind one sink and one batch; tasks are numbered seed by seed."""

    block_size = 256  # a call costs one for each seed

    def __init__(self, buffers: Sequence[TaskReplayBuffer]) -> None:
        self.buffers = list(buffers)
        self._size = self.buffers[0].num_tasks

    def __len__(self) -> int:
        """Stored transitions of a seed: of the one that has the fewest."""
        return min(map(len, self.buffers))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Stored transitions of each task of each seed, ``(S * T,)``."""
        return np.concatenate([buffer.sizes for buffer in self.buffers])

    def add(self, transitions: Transitions) -> None:
        """Store transitions of any mix of seeds."""
        of_row = transitions.task_ids // self._size
        for seed, buffer in enumerate(self.buffers):
            if (mine := of_row == seed).any():
                rows = transitions[mine]
                rows.task_ids[:] -= seed * self._size
                buffer.add(rows)

    def sample(self, batch_size: int, **arguments: Any) -> Batch:
        """As `TaskReplayBuffer.sample`, ``(S * T, B, ...)``; task and behaviour ids are those within a seed."""
        return _side_by_side([buffer.sample(batch_size, **arguments) for buffer in self.buffers])

    def sample_joint(self, batch_size: int, **arguments: Any) -> Batch:
        """As `TaskReplayBuffer.sample_joint` of each seed, ``(S * B, ...)``; task ids are counted on, seed by seed."""
        batches = [buffer.sample_joint(batch_size, **arguments) for buffer in self.buffers]
        return _side_by_side([b._replace(task_ids=b.task_ids + s * self._size) for s, b in enumerate(batches)])


def _side_by_side(batches: Sequence[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
