"""An agent of several seeds is several agents: parameters, noise, updates and answers are those of each alone."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch

import qmp_envs
from qmp_collect import Batch, OwnPolicy, QMPCollector, QSwitch, TaskReplayBuffer, Transitions
from qmp_collect.runs.scripts import load_script
from qmp_collect.runs.seeds import SeedReplay, stack_agents, state_of_seed, states_of_seeds

SEEDS, T, O, A, B = [4, 1, 9, 2, 7], 2, 3, 2, 8  # noqa: E741
CPU = torch.device("cpu")
NAMES = ["sac_qmp_separate", "sac_qmp_multihead", "sac_shared", "mcal_qmp", "pcgrad_qmp", "uds_qmp", "decaf", "dnc"]
SCRIPTS = {name: load_script(name) for name in NAMES}
separate, multihead, shared, mcal, pcgrad, uds, decaf, dnc = SCRIPTS.values()
every = pytest.mark.parametrize("script", SCRIPTS.values(), ids=NAMES)
JOINT = (multihead, shared)  # learn from batches of all tasks together


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def maker(script, **settings):
    args = script.Args(hidden_dim=8, learning_rate=1e-2, batch_size=6, **settings)
    dims = (O, A) if script is shared else (T, O, A)
    return lambda num_seeds: script.Agent(args, *dims, CPU, num_seeds=num_seeds)


def batch_of(script, seed, number):
    draw = torch.Generator().manual_seed(100 * seed + number)
    rows = (B,) if script in JOINT else (T, B)
    shapes = [(*rows, O), (*rows, A), rows, (*rows, O), rows]
    obs, actions, rewards, next_obs, ends = (torch.randn(shape, generator=draw) for shape in shapes)
    ids = torch.randint(T, rows, generator=draw)
    return Batch(obs, actions.tanh(), rewards, next_obs, (ends > 1).to(obs.dtype), ids, ids)


def batches_of(script, number):
    return [batch_of(script, seed, number) for seed in SEEDS]


def stacked(batches):
    """As `SeedReplay` does it: of joint batches, task ids are counted on."""
    if batches[0].rewards.ndim == 1:
        batches = [batch._replace(task_ids=batch.task_ids + T * place) for place, batch in enumerate(batches)]
    return Batch(*map(torch.cat, zip(*batches, strict=True)))


def learn(agent, batch, number=0):
    """All that an agent learns by; the second of DnC's steps ends with a distillation."""
    if hasattr(agent, "update_critics"):
        return agent.update_critics(batch) | agent.update_actor(batch.obs)
    if hasattr(agent, "distill"):
        agent.distill(batch)
        if number == 1:
            agent.conquer()
    return {name: loss.clone() for name, loss in agent.update(batch).items()}


def answers(agent, obs, labels):
    """All that it is asked for, by name."""
    found = {"own": agent.own_policy(obs, labels), "mean": agent.mean_policy(obs, labels)}
    if hasattr(agent, "policies"):
        proposal = agent.policies(obs)
        found |= {name: field for name, field in proposal._asdict().items() if field is not None}
        found["values"] = agent.q_functions(obs, proposal.means, labels)
    return found


def of_seed(losses, place):
    """What an agent of its own would say."""
    return {n: v[place : place + 1] if v.ndim == 2 else v[place * T : (place + 1) * T] for n, v in losses.items()}


def states_of(agent):
    return [state_of_seed(agent.state_dict(), place, len(SEEDS), agent.TWINS) for place in range(len(SEEDS))]


def assert_close(a, b, rtol=1e-9, atol=1e-11):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_close(a[name], b[name], rtol, atol)
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    else:
        assert a == b


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("script", "settings"),
    [(separate, {"switch_critic_of": of, "entropy_term": True}) for of in ("task", "next", "proposer")]
    + [(multihead, {"switch_critic": critic, "entropy_term": True}) for critic in ("q1", "min")]
    + [(mcal, {"critic": critic}) for critic in ("mn", "mh")]
    + [(pcgrad, {"surgery": surgery}) for surgery in ("trunk", "all")]
    + [(shared, {}), (uds, {}), (decaf, {}), (dnc, {"kl_coefficient": 0.1})],
)
def test_every_seed_is_a_run_of_its_own(script, settings):
    make = maker(script, **settings)
    agent = stack_agents(make, SEEDS, CPU)
    obs = torch.randn(len(SEEDS) * 2 * T, O, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(SEEDS) * T).unflatten(0, (-1, T)).repeat(1, 2).flatten()
    losses = []
    for number in range(3):
        losses.append(learn(agent, stacked(batches_of(script, number)), number))
        answered = answers(agent, obs, labels)
    for place, seed in enumerate(SEEDS):
        rows = slice(place * 2 * T, (place + 1) * 2 * T)
        torch.manual_seed(seed)
        alone = make(1)
        for number in range(3):
            assert_close(of_seed(losses[number], place), learn(alone, batch_of(script, seed, number), number))
            expected = answers(alone, obs[rows], labels[rows] % T)
        assert_close(states_of(agent)[place], alone.state_dict())
        assert_close({name: answer[rows] for name, answer in answered.items()}, expected)


@every
def test_states_are_taken_apart_and_put_together(script):
    agent = stack_agents(maker(script), SEEDS, CPU)
    learn(agent, stacked(batches_of(script, 0)))
    parts = states_of(agent)
    maker(script)(1).load_state_dict(parts[3])  # is an ordinary agent's
    assert_close(states_of_seeds(parts, agent.TWINS), agent.state_dict())


@every
def test_a_poisoned_seed_changes_no_bit_of_another(script):
    """Its parameters, moments and batches are NaN: what the others learn and answer stays the same."""
    obs, found = torch.ones(len(SEEDS) * T, O), []
    for poison in (False, True):
        agent = stack_agents(maker(script), SEEDS, CPU)
        learn(agent, stacked(batches_of(script, 0)))
        batches = batches_of(script, 1)
        if poison:
            parts = states_of(agent)
            nan = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x * (np.nan if x.ndim else 1), parts[1])
            agent.load_state_dict(states_of_seeds([parts[0], nan, *parts[2:]], agent.TWINS))
            broken = [f * np.nan if f.is_floating_point() else f for f in batches[1]]
            batches[1], obs = Batch(*broken), obs.clone()
            obs[T : 2 * T] = np.nan
        losses = learn(agent, stacked(batches), 1)
        labels = torch.arange(len(SEEDS) * T)
        found.append((losses, answers(agent, obs, labels), states_of(agent)))
    (losses, answered, states), (losses_2, answered_2, states_2) = found
    rows = labels // T != 1
    for name, answer in answered.items():
        assert not answered_2[name][~rows].isfinite().any()
        assert torch.equal(answer[rows], answered_2[name][rows])
    for place in (0, 2, 3, 4):
        learnt = ((states[place], of_seed(losses, place)), (states_2[place], of_seed(losses_2, place)))
        pairs = zip(*map(torch.utils._pytree.tree_leaves, learnt), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@every
def test_three_seeds_collect_and_learn_as_three_runs(script):
    """The whole loop, in float32: what each seed stores, draws from its replay and learns is what it would alone."""
    seeds, tasks = SEEDS[:3], 3
    args = script.Args(hidden_dim=8, env_id="Maze3-v0", batch_size=6)
    task_set = qmp_envs.TASK_SETS["Maze3-v0"]

    def run(seeds):
        n = len(seeds)
        envs = gym.make_vec("Maze3-v0", num_envs=n * tasks, autoreset_mode="SameStep", max_episode_steps=7)
        spaces = envs.single_observation_space, envs.single_action_space
        dims = tuple(space.shape[0] for space in spaces)
        dims = dims if script is shared else (tasks, *dims)
        agent = stack_agents(lambda num_seeds: script.Agent(args, *dims, CPU, num_seeds), seeds, CPU)
        buffer = SeedReplay([TaskReplayBuffer(100, tasks, *spaces, seed=seed) for seed in seeds])
        rows = np.arange(n * tasks)
        qmp = hasattr(agent, "policies")
        collector = QMPCollector(
            envs, *([agent.policies, agent.q_functions] if qmp else [None, None]), own_policy=agent.own_policy,
            switch=QSwitch() if qmp else OwnPolicy(), task_ids=rows, own_ids=rows % tasks, num_tasks=n * tasks,
            buffer=buffer, backend="torch", warmup_steps=8, own_probability=0.3, seed=seeds,
        )  # fmt: skip
        for number in range(3):
            collector.collect(n_step=n * tasks * 10)
            if script is uds:
                batch = uds.SharedReplay(args, buffer, task_set, CPU, n).sample()
            else:
                batch = buffer.sample_joint(6) if script in JOINT else buffer.sample(6)
            learn(agent, batch, number)
            assert len(buffer) == buffer.sizes.sum() / n
        envs.close()
        states = [state_of_seed(agent.state_dict(), place, n, agent.TWINS) for place in range(n)]
        mixtures = [torch.from_numpy(stats.mixture) for stats in collector.stats().by_group()]
        return states, [replay.state_dict()["rows"] for replay in buffer.buffers], mixtures

    together = run(seeds)
    for place, seed in enumerate(seeds):
        for mine, alone in zip(together, run([seed]), strict=True):
            assert_close(mine[place], alone[0], rtol=1e-3, atol=1e-5)


def test_for_graphs_all_seeds_draw_from_the_one_generator():
    make = maker(separate)
    agent = stack_agents(make, SEEDS, CPU, own_noise=False)
    like = torch.zeros(len(SEEDS) * T, B, A)
    torch.manual_seed(3)
    drawn = agent.actor.noise(like)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randn(len(SEEDS) * T, B, A))
    torch.manual_seed(SEEDS[1])  # the parameters are those of each seed alone, as with generators of their own
    assert_close(states_of(agent)[1], make(1).state_dict())


def test_a_poisoned_buffer_changes_no_bit_of_what_others_draw():
    def drawn(poison):
        spaces = gym.spaces.Box(-9, 9, (O,), np.float32), gym.spaces.Box(-1, 1, (A,), np.float32)
        replay = SeedReplay([TaskReplayBuffer(20, T, *spaces, seed=seed) for seed in SEEDS])
        n = 10 * len(SEEDS) * T
        rng, labels = np.random.default_rng(0), np.arange(n) % (len(SEEDS) * T)
        obs, actions, next_obs = (rng.random((n, size), np.float32) for size in (O, A, O))
        ends = np.zeros(n, bool)
        replay.add(Transitions(obs, actions, rng.random(n), next_obs, ends, ends, labels, labels % T, labels))
        if poison:
            replay.buffers[1]._rows.fill_(np.nan)  # it takes none
        return replay.sample(6), replay.sample_joint(6)

    for clean, poisoned in zip(drawn(False), drawn(True), strict=True):
        of_seed = np.arange(len(clean.obs)) // (len(clean.obs) // len(SEEDS))
        assert poisoned.obs[of_seed == 1].isnan().all()
        for field, same in zip(clean, poisoned, strict=True):
            assert torch.equal(field[of_seed != 1], same[of_seed != 1])
