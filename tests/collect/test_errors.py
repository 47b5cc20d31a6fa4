"""Every error a user can run into: its type, and that the message names what was expected, what came, and the mend."""

from __future__ import annotations

import re

import gymnasium as gym
import numpy as np
import pytest
from collect_envs import BOX, CountingEnv, endless, policy, q_function
from gymnasium.vector import SyncVectorEnv

from qmp_collect import FixedSwitch, OwnPolicy, Proposal, QMPCollector, QSwitch, SoftmaxQSwitch, UniformSwitch, evaluate

TASKS = [0, 1, 1]  # N = 3 sub-envs, T = 2 tasks, K = 2 policies, A = (2,)
LISTS = {"policies": [policy(0), policy(1)], "q_functions": [q_function(0), q_function(1)]}
BATCHED = {
    "policies": lambda obs: np.zeros((3, 2, 2), np.float32),
    "q_functions": lambda obs, actions, task_ids: np.zeros((3, 2)),
}


def use(envs=None, *, space=BOX, n_step=3, **overrides):
    """Make a collector and take a step: wherever an error belongs, it comes."""
    envs = endless(3, action_space=space) if envs is None else envs
    arguments = {**LISTS, "task_ids": TASKS, "num_tasks": 2, "seed": 0, **overrides}
    collector = QMPCollector(envs, arguments.pop("policies"), arguments.pop("q_functions"), **arguments)
    collector.collect(n_step=n_step)
    return collector


def instead(index, name, function):
    """The listed callables with one of them replaced."""
    return {name: [function if i == index else f for i, f in enumerate(LISTS[name])]}


def with_space(**spaces):
    class Odd(CountingEnv):
        def __init__(self):
            super().__init__()
            vars(self).update(spaces)

        def _obs(self):
            return self.observation_space.sample()

    return SyncVectorEnv([Odd] * 3)


def modeless():
    envs = endless(3)
    del envs.autoreset_mode
    envs.metadata = {}
    return envs


def zeros(*shape, dtype=np.float32):
    return lambda *_: np.zeros(shape, dtype)


DISCRETE = gym.spaces.Discrete(4)
TABLES = [zeros(1, 4), zeros(2, 4)]  # one env of task 0, two of task 1

# name: (how to use it, the error's type, what its message names)
CASES = {
    # environments
    "no vector env": (lambda: use(CountingEnv()), TypeError, ["VectorEnv", "CountingEnv", "make_vec"]),
    "text in dict observations": (
        lambda: use(with_space(observation_space=gym.spaces.Dict(a=BOX, said=gym.spaces.Text(9)))),
        TypeError,
        ["Dict", "a part is of the space Text", "FilterObservation", "TransformObservation"],
    ),
    "no part": (lambda: use(with_space(observation_space=gym.spaces.Tuple([]))), TypeError, ["expected parts"]),
    "dict actions": (lambda: use(with_space(action_space=gym.spaces.Dict(a=BOX))), TypeError, ["Dict", "action"]),
    "no autoreset mode": (lambda: use(modeless()), ValueError, ["autoreset_mode=", "metadata", "NEXT_STEP"]),
    "unknown autoreset mode": (lambda: use(autoreset_mode="sometimes"), ValueError, ["sometimes"]),
    # tasks
    "task id too large": (lambda: use(task_ids=[0, 1, 2]), ValueError, ["task_ids[2]", "2", "0 to 1"]),
    "task id negative": (lambda: use(task_ids=[0, -1, 1]), ValueError, ["task_ids[1]", "-1", "0 to 1"]),
    "too few task ids": (lambda: use(task_ids=[0, 1]), ValueError, ["3", "(2,)"]),
    "fractional task ids": (lambda: use(task_ids=[0.0, 1.0, 1.0]), ValueError, ["integers", "float64"]),
    "unknown tasks": (lambda: use(task_ids=None), ValueError, ["task_ids", "3 sub-env", "2 tasks"]),
    "policies of no task": (
        lambda: use(task_ids=None, num_tasks=None, q_functions=BATCHED["q_functions"]),
        ValueError,
        ["3 sub-env", "If not all 2 policies are a task's own, say num_tasks="],
    ),
    "nobody tells the tasks": (
        lambda: use(**BATCHED, task_ids=None, num_tasks=None),
        ValueError,
        ["task_ids", "num_tasks"],
    ),
    # callables
    "too few q_functions": (lambda: use(q_functions=[q_function(0)]), ValueError, ["1", "2 tasks", "q_functions"]),
    "too many q_functions": (
        lambda: use(q_functions=[q_function(t) for t in range(3)]),
        ValueError,
        ["3", "2 tasks", "q_functions"],
    ),
    "fewer policies than tasks": (lambda: use(policies=[policy(0)]), ValueError, ["1 polic", "2 tasks"]),
    "a policy that is no callable": (lambda: use(**instead(1, "policies", "act")), TypeError, ["policies[1]", "str"]),
    "a q_function that is no callable": (lambda: use(q_functions=3), TypeError, ["q_functions", "int"]),
    "no policies": (lambda: use(policies=None), TypeError, ["policies", "OwnPolicy", "own_policy"]),
    "no q_functions": (lambda: use(q_functions=None), TypeError, ["q_functions", "QSwitch"]),
    "unknown backend": (lambda: use(backend="tensorflow"), ValueError, ["tensorflow", "numpy", "torch", "jax"]),
    # what callables return
    "listed policy, wrong shape": (
        lambda: use(**instead(1, "policies", zeros(3, 5))),
        ValueError,
        ["policies[1]", "(3, 5)", "(3, 2)"],
    ),
    "listed policy, transposed": (
        lambda: use(**instead(1, "policies", zeros(2, 3))),
        ValueError,
        ["policies[1]", "(2, 3)", "(3, 2)", "swap|transpos"],
    ),
    "listed policy, no array": (
        lambda: use(**instead(1, "policies", lambda obs: [0.0])),
        TypeError,
        ["policies[1]", "list", "(3, 2)"],
    ),
    "own policy's rows only, wrong shape": (
        lambda: use(**instead(1, "policies", zeros(2, 5)), switch=OwnPolicy()),
        ValueError,
        ["policies[1]", "(2, 5)", "(2, 2)"],
    ),
    "batched policies, transposed": (
        lambda: use(**{**BATCHED, "policies": zeros(2, 3, 2)}),
        ValueError,
        ["policies", "(2, 3, 2)", "(3, 2, 2)", "swap|transpos"],
    ),
    "batched policies, too few": (
        lambda: use(**{**BATCHED, "policies": zeros(3, 1, 2)}),
        ValueError,
        ["policies", "(3, 1, 2)", "2"],
    ),
    "batched policies, wrong action": (
        lambda: use(**{**BATCHED, "policies": zeros(3, 2, 7)}),
        ValueError,
        ["policies", "(3, 2, 7)", "(3, 2, 2)"],
    ),
    "batched means, wrong shape": (
        lambda: use(**{**BATCHED, "policies": lambda _: Proposal(np.zeros((3, 2, 2)), means=np.zeros((3, 2)))}),
        ValueError,
        ["means", "(3, 2)", "(3, 2, 2)"],
    ),
    "listed means, wrong shape": (
        lambda: use(policies=[lambda _: Proposal(np.zeros((3, 2)), means=np.zeros((3, 1)))] * 2),
        ValueError,
        ["policies[0]", "means", "(3, 1)", "(3, 2)"],
    ),
    "listed entropies, one axis too many": (  # log-probabilities often come as a column
        lambda: use(
            policies=[lambda _: Proposal(np.zeros((3, 2)), entropies=np.zeros((3, 1)))] * 2,
            switch=QSwitch(entropy_weight=1.0),
        ),
        ValueError,
        ["policies[0]", "entropies", "(3, 1)", "(3,)"],
    ),
    "batched entropies, wrong shape": (
        lambda: use(
            **{**BATCHED, "policies": lambda _: Proposal(np.zeros((3, 2, 2)), entropies=np.zeros(3))},
            switch=QSwitch(entropy_weight=1.0),
        ),
        ValueError,
        ["entropies", "(3,)", "(3, 2)"],
    ),
    "only some policies give the entropies that count": (
        lambda: use(
            policies=[policy(0), lambda obs: Proposal(policy(1)(obs), entropies=np.ones(len(obs)))],
            switch=QSwitch(entropy_weight=0.1),
        ),
        ValueError,
        ["entropy_weight", "not all of them"],
    ),
    # One env of task 0 with two candidates: two rows; two envs of task 1: four.
    "listed q_function, wrong shape": (
        lambda: use(**instead(1, "q_functions", zeros(4, 2))),
        ValueError,
        ["q_functions[1]", "(4, 2)", "(4,)"],
    ),
    "listed q_function, transposed": (
        lambda: use(**instead(1, "q_functions", zeros(1, 4))),
        ValueError,
        ["q_functions[1]", "(1, 4)", "(4,)"],
    ),
    "batched q_functions, transposed": (
        lambda: use(**{**BATCHED, "q_functions": zeros(2, 3)}),
        ValueError,
        ["q_functions", "(2, 3)", "(3, 2)", "swap|transpos"],
    ),
    "batched q_functions, one axis too many": (
        lambda: use(**{**BATCHED, "q_functions": zeros(3, 2, 1)}),
        ValueError,
        ["q_functions", "(3, 2, 1)", "(3, 2)"],
    ),
    "discrete q_function, wrong number of columns": (
        lambda: use(space=DISCRETE, policies=[zeros(3, dtype=np.int64)] * 2, q_functions=[TABLES[0], zeros(2, 5)]),
        ValueError,
        ["q_functions[1]", "(2, 5)", "(2, 4)"],
    ),
    "discrete policy, no integers": (
        lambda: use(space=DISCRETE, policies=[zeros(3), zeros(3, dtype=np.int64)], q_functions=TABLES),
        TypeError,
        ["policies[0]", "float32", "Discrete(4)", "integers"],
    ),
    "discrete proposal outside the space": (
        lambda: use(
            space=DISCRETE,
            policies=[zeros(3, dtype=np.int64), lambda _: np.array([0, 3, -1])],
            q_functions=TABLES,
        ),
        ValueError,
        ["policy 1", "-1", "sub-environment 2", "Discrete(4)"],
    ),
    "own_policy, wrong shape": (
        lambda: use(own_policy=zeros(2, 3), switch=OwnPolicy()),
        ValueError,
        ["own_policy", "(2, 3)", "(3, 2)"],
    ),
    "own_policy as a list": (lambda: use(own_policy=LISTS["policies"]), TypeError, ["own_policy", "task_ids"]),
    "score needs means": (lambda: use(switch=QSwitch(score="mean")), ValueError, ["mean", "Proposal", "sample"]),
    # switches
    "unknown score": (lambda: QSwitch(score="median"), ValueError, ["median", "mean", "sample", "auto"]),
    "no samples": (lambda: QSwitch(samples=0), ValueError, ["samples", "0", "1"]),
    "temperature of zero": (lambda: SoftmaxQSwitch(0.0), ValueError, ["temperature", "0.0", "positive"]),
    "probabilities that do not sum to 1": (
        lambda: FixedSwitch([[0.5, 0.5], [0.5, 0.4]]),
        ValueError,
        ["row 1", "0.9", "sum to 1"],
    ),
    "negative probabilities": (
        lambda: FixedSwitch([[0.5, 0.5], [1.5, -0.5]]),
        ValueError,
        ["row 1", "-0.5", "non-negative"],
    ),
    "probabilities of other policies": (
        lambda: use(switch=FixedSwitch(np.full((2, 3), 1 / 3))),
        ValueError,
        ["(2, 3)", "2 polic"],
    ),
    "probabilities of other tasks": (lambda: use(switch=FixedSwitch([[0.5, 0.5]])), ValueError, ["(1, 2)", "task"]),
    # settings
    "horizon": (lambda: use(horizon=0), ValueError, ["horizon", "0", "1"]),
    "own_probability": (lambda: use(own_probability=1.5), ValueError, ["own_probability", "1.5", "[0, 1]"]),
    "own_probability by schedule": (
        lambda: use(own_probability=lambda step: -0.25),
        ValueError,
        ["own_probability", "-0.25", "[0, 1]"],
    ),
    "warmup_steps": (lambda: use(warmup_steps=-1), ValueError, ["warmup_steps", "-1"]),
    "horizon of half steps": (lambda: use(horizon=1.5), TypeError, ["horizon", "integer", "1.5"]),
    "warmup_steps as text": (lambda: use(warmup_steps="3"), TypeError, ["warmup_steps", "integer", "'3'"]),
    "own_probability as text": (lambda: use(own_probability="half"), TypeError, ["own_probability", "'half'"]),
    "a seed that is none": (lambda: use(seed=-1), ValueError, ["seed", "at least 0", "-1"]),
    "an autoreset mode that is none": (
        lambda: use(autoreset_mode="same"),
        ValueError,
        ["autoreset_mode", "NEXT_STEP", "SAME_STEP", "DISABLED", "'same'"],
    ),
    "episode metrics without reductions": (
        lambda: use(episode_metrics=["distance"]),
        TypeError,
        ["episode_metrics", "dict", "['distance']"],
    ),
    "too many sinks": (lambda: use(buffer=[None] * 3), ValueError, ["3 sinks", "2 tasks"]),
    "a plain callable as a sink": (lambda: use(buffer=print), TypeError, ["add", "builtin_function"]),
    "a list of no sinks": (lambda: use(buffer=[print, print]), TypeError, ["0", "add"]),
    # calls
    "neither n_step nor n_episode": (
        lambda: QMPCollector(endless(2), **LISTS).collect(),
        ValueError,
        ["n_step", "n_episode", "exactly one", "None"],
    ),
    "both n_step and n_episode": (
        lambda: QMPCollector(endless(2), **LISTS).collect(n_step=5, n_episode=6),
        ValueError,
        ["exactly one", "n_step=5", "n_episode=6"],
    ),
    "n_step of zero": (lambda: use(n_step=0), ValueError, ["n_step", "positive", "0"]),
    "negative n_episode": (
        lambda: QMPCollector(endless(2), **LISTS).collect(n_episode=-2),
        ValueError,
        ["n_episode", "positive", "-2"],
    ),
    "evaluation of no episodes": (
        lambda: evaluate(endless(2), LISTS["policies"], episodes_per_env=0),
        ValueError,
        ["positive", "0"],
    ),
    "act before reset": (
        lambda: QMPCollector(endless(2), **LISTS).act(np.zeros((2, 4))),
        RuntimeError,
        ["act", "reset("],
    ),
    "state of other sub-envs": (
        lambda: use().load_state_dict(QMPCollector(endless(2), **LISTS).state_dict()),
        ValueError,
        ["2 sub-env", "3"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    function, kind, words = CASES[name]
    with pytest.raises(kind) as error:
        function()
    assert type(error.value) is kind
    for word in words:
        pattern = word if "|" in word else re.escape(word)
        assert re.search(pattern, str(error.value), re.IGNORECASE), f"{word!r} is missing in: {error.value}"


@pytest.mark.parametrize("name", LISTS)
def test_a_bare_sequential_is_ambiguous(name):
    """It is a list of layers to PyTorch, a callable to Python, and neither is what its user means."""
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="Sequential") as error:
        use(**{name: torch.nn.Sequential(torch.nn.Linear(4, 2))})
    for word in (name, "ambiguous", "[net]", "ModuleList"):
        assert word in str(error.value)


def test_a_mistake_in_numpy_is_not_answered_with_tensors():
    """NumPy is tried before torch where nobody said which; what the library refuses is no reason to try torch."""
    pytest.importorskip("torch")
    given = []

    def mistaken(obs):
        given.append(type(obs))
        return [0.0]

    with pytest.raises(TypeError, match=r"policies\[0\]"):
        use(policies=[mistaken] * 2)
    assert set(given) == {np.ndarray}


def stepping():
    collector = QMPCollector(endless(3), **LISTS, task_ids=TASKS)
    obs, _ = collector.reset(seed=0)
    return collector, obs


@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (4, 3), (3,)], ids=str)
def test_observations_of_the_wrong_shape(shape):
    collector, obs = stepping()
    with pytest.raises(ValueError, match=r"\(3, 4\)") as error:
        collector.act(np.zeros(shape))
    assert str(shape) in str(error.value)
    collector.act(obs)
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        collector.observe(np.zeros(shape), *[np.zeros(3)] * 3, {})


@pytest.mark.parametrize("position", range(3))
def test_outcomes_of_the_wrong_shape(position):
    collector, obs = stepping()
    collector.act(obs)
    rows = [np.zeros(3)] * 3
    rows[position] = np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"\(3,\)") as error:
        collector.observe(obs, *rows, {})
    assert ["rewards", "terminations", "truncations"][position] in str(error.value)
    assert "(3, 1)" in str(error.value)


def test_episode_start_of_the_wrong_shape():
    collector, obs = stepping()
    with pytest.raises(ValueError, match=r"episode_start.*\(3,\).*\(2,\)"):
        collector.act(obs, episode_start=[True, False])


def test_observe_without_act():
    collector, obs = stepping()
    collector.act(obs)
    outcome = obs, *[np.zeros(3)] * 3, {}
    collector.observe(*outcome)
    with pytest.raises(RuntimeError, match=r"observe.*act"):
        collector.observe(*outcome)
    assert collector.num_steps == 3


def test_same_step_without_the_final_observation_names_the_sub_env():
    """An env in another mode than it says would have its resets stored: it must not pass in silence."""
    collector = QMPCollector(endless(3), **LISTS, task_ids=TASKS, autoreset_mode="SameStep")
    obs, _ = collector.reset(seed=0)
    collector.act(obs)
    done = np.array([False, True, False])
    with pytest.raises(ValueError, match="final_obs") as error:
        collector.observe(obs, np.zeros(3), done, ~done & False, {})
    for word in ("1", "SAME_STEP", "autoreset_mode"):
        assert word in str(error.value)
    assert collector.num_steps == 0


@pytest.mark.parametrize("switch", [OwnPolicy(), UniformSwitch()], ids=["own", "uniform"])
def test_a_non_finite_action_is_never_executed(switch):
    """Without scores nobody notices a diverged policy but the collector."""
    broken = instead(1, "policies", lambda obs: np.full((len(obs), 2), np.nan, np.float32))
    with pytest.raises(FloatingPointError, match=r"(?i)policy\s*1\b.*nan.*task\s*\d.*step\s*\d"):
        use(**broken, switch=switch, n_step=300)


def fails(*_):
    raise ArithmeticError("mine")


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (instead(1, "policies", fails), "policies[1], which was called with float64 (3, 4)"),
        (instead(1, "q_functions", fails), "q_functions[1], which was called with float64 (4, 4), float32 (4, 2)"),
        ({"policies": fails}, "policies, which was called with float64 (3, 4)"),
        ({"own_policy": fails, "switch": OwnPolicy()}, "own_policy, which was called with float64 (3, 4), int64 (3,)"),
    ],
)
def test_an_error_of_the_callers_own_is_raised_as_it_is_and_says_whose_it_was(overrides, note):
    with pytest.raises(ArithmeticError) as caught:
        use(**overrides)
    assert (str(caught.value), caught.value.__notes__) == ("mine", [f"raised by {note}"])
