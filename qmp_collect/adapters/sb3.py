"""Stable-Baselines3 beside the collector: replay buffers as sinks, models as policies and Q-functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

from qmp_collect.adapters.common import OnlyOne
from qmp_collect.foreign import is_unit
from qmp_collect.outcome import moved
from qmp_collect.proposal import Proposal
from qmp_collect.records import as_dict
from qmp_collect.transitions import Transitions

__all__ = ["SB3Sink", "sb3_agents"]


class SB3Sink:
    """Stores one task's transitions in a Stable-Baselines3 ``ReplayBuffer`` or ``DictReplayBuffer``, or in
    CleanRL's copy of the first.

    The buffer's samples have ``dones`` at terminations only: a buffer that handles time-outs gets them as
    Stable-Baselines3 marks them (``TimeLimit.truncated`` in the infos), one that does not (CleanRL's scripts make
    theirs so) gets the terminations alone. Its rows have no place for who acted, which the infos say
    (``behavior_id``), for buffers of one's own that keep them.

    An n-step buffer reads an episode on from row to row: where an episode was given up (``reset``, an error, a new
    process without the environment's state), which shows in a row that does not begin where the last one ended, the
    last row becomes a time-out.

    Args:
        learner: A Stable-Baselines3 off-policy model, or a replay buffer of one task, made with ``n_envs=1`` however
            many sub-environments the task has. A model's rows go into the buffer that it has by then (it gets another
            from ``model.load_replay_buffer``) and are counted as its own steps are (``num_timesteps``,
            and what it does after each: DQN updates its target network there), and it gets a silent logger if it has
            none, without which ``model.train`` does not run.
        scale_actions: Whether actions are stored rescaled from ``[low, high]`` to [-1, 1], as Stable-Baselines3's
            learners train on them, or as executed, as CleanRL's do. For a model it is known, and for buffers whose
            two ways agree (Discrete, or [-1, 1] already) it need not be said.

    Raises:
        TypeError: For anything else, an on-policy model or buffer, or one that relabels episodes.
        ValueError: ``scale_actions`` must be said, or contradicts the model or the bounds; a buffer with ``n_envs``
            other than 1 or with ``optimize_memory_usage``. From `add`, for rows of a second task, rows of other
            shapes than the buffer's, and, into an n-step buffer, rows of a second sub-environment (its rows must be
            consecutive).
    """

    def __init__(self, learner: Any, *, scale_actions: bool | None = None) -> None:
        self._learner, self._model = learner, learner if hasattr(learner, "replay_buffer") else None
        self._scale_actions = scale_actions
        self._one_task = OnlyOne(
            "an SB3Sink takes one task's rows, got rows of task {got} after rows of task {first}: give every task a "
            "model or buffer of its own, buffer=[SB3Sink(model) for model in models]"
        )
        self._one_stream = OnlyOne(
            "an n-step replay buffer needs the consecutive rows of one sub-environment, got rows of {got} after rows "
            "of {first}: use one sub-environment per task, or a one-step buffer"
        )
        self._checked: Any = None  # the buffer that was
        self._check(self.replay_buffer)
        if self._model is not None and not hasattr(self._model, "_logger"):
            from stable_baselines3.common.logger import Logger

            self._model.set_logger(Logger(None, []))

    @property
    def replay_buffer(self) -> Any:
        """Where rows go now."""
        return self._learner if self._model is None else self._model.replay_buffer

    def _check(self, buffer: Any) -> None:
        if buffer is self._checked:
            return
        _check_buffer(buffer, self._learner)
        self._bounds = _bounds(buffer.action_space, self._scale_actions, self._model is not None)
        self._one_task = self._one_task.of(buffer)
        self._checked = buffer

    def add(self, transitions: Transitions) -> None:
        """Add M transitions in order; see the class for errors."""
        buffer = self.replay_buffer
        self._check(buffer)
        self._one_task.check(transitions.task_ids)
        n_step = getattr(buffer, "n_steps", 1) > 1
        if n_step:
            self._one_stream.check(transitions.env_ids)
        count, action_space = len(transitions), buffer.action_space
        for name, space in (
            ("obs", buffer.observation_space),
            ("next_obs", buffer.observation_space),
            ("actions", action_space),
        ):
            values = getattr(transitions, name)
            if isinstance(space, Dict):
                _check_parts(name, as_dict(values), space)
                continue
            shape, expected = values.shape, (count, *space.shape)
            if shape != expected:  # the buffer would broadcast some
                raise ValueError(f"transitions.{name} has shape {shape}, the replay buffer expects {expected}")
        actions = self._scaled(transitions.actions)
        dones, timeouts = transitions.terminations, np.zeros(count, np.bool_)
        if buffer.handle_timeout_termination:
            dones, timeouts = dones | transitions.truncations, transitions.truncations & ~dones
        if n_step and count:
            given_up = moved(transitions.obs[1:], transitions.next_obs[:-1]) & ~dones[:-1]
            dones[:-1] |= given_up
            timeouts[:-1] |= given_up
            _end_episode_before(buffer, as_dict(transitions.obs[:1]))
        for row in range(count):  # the buffer takes one transition per call
            one = slice(row, row + 1)
            buffer.add(
                as_dict(transitions.obs[one]),
                as_dict(transitions.next_obs[one]),
                actions[one],
                transitions.rewards[one],
                dones[one],
                [{"TimeLimit.truncated": bool(timeouts[row]), "behavior_id": int(transitions.behavior_ids[row])}],
            )
            if self._model is not None:
                self._model.num_timesteps += 1
                self._model._on_step()

    def _scaled(self, actions: NDArray[Any]) -> NDArray[Any]:
        if self._bounds is None:
            return actions
        low, high = self._bounds
        scaled: NDArray[Any] = 2.0 * ((actions - low) / (high - low)) - 1.0
        return scaled


def _check_buffer(buffer: Any, learner: Any) -> None:
    if not all(hasattr(buffer, name) for name in ("add", "n_envs", "handle_timeout_termination", "action_space")):
        raise TypeError(
            "expected an off-policy model of Stable-Baselines3 or its replay buffer, got "
            f"{type(learner).__name__}"
            + ("" if buffer is learner else f" with the replay_buffer {type(buffer).__name__}")
        )
    if hasattr(buffer, "n_sampled_goal"):
        raise TypeError(
            f"{type(buffer).__name__} relabels whole episodes, which it must have seen uninterrupted: use a "
            "DictReplayBuffer, and add relabelled transitions in a FunctionSink of yours"
        )
    if buffer.n_envs != 1:
        raise ValueError(
            f"expected a replay buffer with n_envs=1, got n_envs={buffer.n_envs}: the rows of all sub-environments are "
            "added one by one"
        )
    if getattr(buffer, "optimize_memory_usage", False):
        raise ValueError(
            "expected a replay buffer with optimize_memory_usage=False, got True: it takes the next row's observation "
            "for a row's successor"
        )
    if getattr(buffer, "n_steps", 1) > 1 and not buffer.handle_timeout_termination:
        raise ValueError(
            "expected an n-step buffer with handle_timeout_termination=True, got False: its returns would run on "
            "over time-outs into the next episode"
        )


def _end_episode_before(buffer: Any, obs: Any) -> None:
    """Make the last row of an n-step buffer a time-out, unless ``obs (1, *O)`` is where it ended."""
    last = (buffer.pos - 1) % buffer.buffer_size
    if not (buffer.full or buffer.pos) or buffer.dones[last].any():
        return
    stored = buffer.next_observations
    pairs = [(obs, stored)] if not isinstance(stored, dict) else [(obs[key], part) for key, part in stored.items()]
    if any(moved(part.astype(like.dtype).reshape(like[last].shape), like[last]).any() for part, like in pairs):
        buffer.dones[last] = buffer.timeouts[last] = 1


def _check_parts(name: str, parts: Any, space: Dict) -> None:
    """`ValueError` unless they are those of a buffer for dict observations."""
    got = {key: part.shape[1:] for key, part in parts.items()} if isinstance(parts, dict) else "an array"
    expected = {key: part.shape for key, part in space.spaces.items()}
    if got != expected:
        raise ValueError(f"transitions.{name} has the parts {got}, the replay buffer expects {expected}")


def _bounds(space: Any, scale: bool | None, is_model: bool) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """``low, high`` where actions are to be rescaled."""
    if is_model and scale is False:
        raise ValueError("scale_actions=False contradicts a Stable-Baselines3 model: it trains on actions in [-1, 1]")
    scale = True if is_model else scale
    if not isinstance(space, Box) or is_unit(space):
        return None
    if scale and not space.is_bounded():
        raise ValueError(f"scale_actions=True needs bounds, got the action space {space}")
    if scale is None and space.is_bounded():
        raise ValueError(
            f"say how actions of {space} are to be stored: SB3Sink(model), or SB3Sink(buffer, scale_actions=True), for "
            "Stable-Baselines3's learners, which train on actions rescaled to [-1, 1]; SB3Sink(buffer, "
            "scale_actions=False) for CleanRL's and others, which train on actions as executed"
        )
    return (space.low, space.high) if scale else None


def sb3_agents(
    models: Sequence[Any], *, epsilon: float | Callable[[], float] | None = None
) -> tuple[list[Callable[..., Any]], list[Callable[..., Any]], list[SB3Sink]]:
    """Policies, Q-functions and sinks of Stable-Baselines3 models, one per task, for `QMPCollector`.

    ``policies, q_functions, sinks = sb3_agents(models)``; after each ``collect``, ``model.train(...)`` as usual.

    SAC, TD3, DDPG and what is built like them (CrossQ): samples are proposed, with the model's ``action_noise`` if it
    has one, means are scored, by the first critic; actions are the environment's own, rescaled where the networks want
    that. DQN: greedy actions, with probability ``epsilon`` random ones, are proposed and scored.

    Args:
        models: One off-policy model per task, with PyTorch networks.
        epsilon: Needed for DQN, whose own schedule only ``model.learn`` advances: a number, or a function of none.

    Raises:
        TypeError: A model whose parts are not known here.
        ValueError: ``epsilon`` is missing, outside [0, 1] or without use; observations that a model normalises itself
            (VecNormalize); exploration noise with a memory, where every policy is asked about all tasks' states.
    """
    policies: list[Callable[..., Any]] = []
    q_functions: list[Callable[..., Any]] = []
    for task, model in enumerate(models):
        name = f"models[{task}], a {type(model).__name__},"
        _check_model(name, model)
        network = model.policy
        if hasattr(model, "q_net") and isinstance(model.action_space, Discrete):
            if epsilon is None:
                raise ValueError(
                    f"{name} explores by chance, by a schedule that only its `learn` advances: pass epsilon=0.1, or a "
                    "function of none that returns the present one"
                )
            # Bound to a module, so that the collector finds its device.
            policies.append(MethodType(_epsilon_greedy(epsilon), network))
            q_functions.append(MethodType(_table, network))
        elif hasattr(getattr(model, "critic", None), "q1_forward") and hasattr(model, "actor"):
            policies.append(MethodType(_noisy(model), network))
            q_functions.append(MethodType(_first_critic, network))
        else:
            raise TypeError(
                f"{name} has neither a Q-network nor an actor and a critic of PyTorch modules: write its callables by "
                "hand, as functions of arrays, and use SB3Sink(model)"
            )
    if epsilon is not None and not any(hasattr(model, "q_net") for model in models):
        raise ValueError("epsilon is for DQN, and none of the models is one: they explore by their samples")
    return policies, q_functions, [SB3Sink(model) for model in models]


def _check_model(name: str, model: Any) -> None:
    if not hasattr(model, "replay_buffer") or not hasattr(model, "policy"):
        raise TypeError(f"{name} is no off-policy model of Stable-Baselines3")
    if model.get_vec_normalize_env() is not None:
        raise ValueError(
            f"{name} normalises observations and rewards by VecNormalize, which nothing here updates: make the model "
            "with a plain environment, and wrap the collector's in gymnasium.wrappers.vector.NormalizeObservation"
        )


def _eval_mode(network: Any) -> None:
    """As Stable-Baselines3 does when it collects; ``model.train`` sets it back."""
    if network.training:
        network.set_training_mode(False)


def _scaling(network: Any, like: Any) -> tuple[Any, Any] | None:
    """Middle and half width of the bounds that ``network`` rescales to [-1, 1], as tensors ``like`` its arrays."""
    space = network.action_space
    if is_unit(space):
        return None
    middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    return like.new_tensor(middle), like.new_tensor(half)


def _noisy(model: Any) -> Callable[..., Proposal]:
    noise = model.action_noise
    if noise is not None and type(noise).__name__ != "NormalActionNoise":
        raise ValueError(
            f"expected action_noise None or NormalActionNoise, got {type(noise).__name__}: noise with a memory belongs "
            "to one stream of states, and here every policy is asked about all tasks' states"
        )

    def act(network: Any, obs: Any) -> Proposal:
        _eval_mode(network)
        sample, mean = network(obs), network(obs, deterministic=True)
        if noise is not None:
            added = np.array([noise() for _ in range(len(sample))])  # its only way to draw
            sample = (sample + sample.new_tensor(added)).clamp(-1, 1)
        if (scaling := _scaling(network, sample)) is not None:
            middle, half = scaling
            sample, mean = middle + half * sample, middle + half * mean
        return Proposal(sample, means=mean)

    return act


def _first_critic(network: Any, obs: Any, actions: Any) -> Any:
    _eval_mode(network)
    if (scaling := _scaling(network, actions)) is not None:
        middle, half = scaling
        actions = (actions - middle) / half
    return network.critic.q1_forward(obs, actions)


def _epsilon_greedy(epsilon: float | Callable[[], float]) -> Callable[..., Any]:
    def act(network: Any, obs: Any) -> Any:
        import torch

        _eval_mode(network)
        chance = float(epsilon() if callable(epsilon) else epsilon)
        if not 0 <= chance <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], got {chance}")
        greedy = network.q_net(obs).argmax(dim=1)
        random = torch.randint_like(greedy, int(network.action_space.n))
        return torch.where(torch.rand(len(greedy), device=greedy.device) < chance, random, greedy)

    return act


def _table(network: Any, obs: Any) -> Any:
    _eval_mode(network)
    return network.q_net(obs)
