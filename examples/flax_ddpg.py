"""Flax: DDPG with all tasks' networks stacked, so that one jitted call proposes, and one scores, for all tasks.

Parameters carry the task axis first and `jax.vmap` runs over it. That is the batched form of callables: (N, *O) goes
in, (N, K, *A) comes out, and Q-functions give (N, K).
"""

import gymnasium as gym
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import qmp_envs  # noqa: F401 (registers Maze3-v0)
from qmp_collect import Proposal, QMPCollector, TaskReplayBuffer

envs = gym.make_vec("Maze3-v0", num_envs=6)  # observations (4,), actions (2,) in [-1, 1]
T = envs.unwrapped.num_tasks
actor, critic = (nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(64), nn.relu, nn.Dense(out)]) for out in (2, 1))
keys, noise = jax.random.split(jax.random.key(0), T), jax.random.key(1)
params = {"actor": jax.vmap(actor.init, (0, None))(keys, jnp.zeros(4))}
params["critic"] = jax.vmap(critic.init, (0, None))(keys, jnp.zeros(6))
target, optimizer = params, optax.adam(1e-3)
opt_state = optimizer.init(params)


def mean(p, obs):  # of one task
    return jnp.tanh(actor.apply(p["actor"], obs))


def value(p, obs, actions):  # of one task
    return critic.apply(p["critic"], jnp.concatenate([obs, actions], -1))[..., 0]


@jax.jit
def propose(params, obs, key):
    means = jax.vmap(mean, (0, None), 1)(params, obs)
    return (means + 0.2 * jax.random.normal(key, means.shape)).clip(-1, 1), means


@jax.jit
def score(params, obs, actions, task_ids):  # each row by its own task's critic
    own = jax.tree.map(lambda x: x[task_ids], params)
    return jax.vmap(lambda p, o, a: value(p, jnp.broadcast_to(o, (T, 4)), a))(own, obs, actions)


@jax.jit
def update(params, target, opt_state, batch):
    def loss(p, old, obs, actions, rewards, next_obs, terminations):
        aim = rewards + 0.99 * (1 - terminations) * value(old, next_obs, mean(old, next_obs))
        td_error = value(p, obs, actions) - aim
        return (td_error**2).mean() - value(jax.lax.stop_gradient(p), obs, mean(p, obs)).mean()

    grads = jax.grad(lambda p: jax.vmap(loss)(p, target, *batch).sum())(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    params = optax.apply_updates(params, updates)
    return params, optax.incremental_update(params, target, 0.005), opt_state


def policies(obs):  # reads the present parameters
    global noise
    noise, key = jax.random.split(noise)
    return Proposal(*propose(params, obs, key))


buffer = TaskReplayBuffer(10_000, T, envs.single_observation_space, envs.single_action_space, seed=0)  # needs PyTorch
collector = QMPCollector(
    envs, policies, lambda obs, actions, ids: score(params, obs, actions, ids), backend="jax", buffer=buffer, seed=0
)
collector.collect(n_step=600, random=True)
for _ in range(100):
    collector.collect(n_step=12)
    batch = [field.numpy() for field in buffer.sample(64)[:5]]
    params, target, opt_state = update(params, target, opt_state, batch)
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
