"""SBX (Stable-Baselines in JAX): two SAC models. `SB3Sink(model)` stores; the callables are jitted functions of states.

SBX trains on actions of [-1, 1], as Stable-Baselines3 does: its callables translate, and the sink does so by itself.
"""

import gymnasium as gym
import jax
from sbx import SAC

from qmp_collect import Proposal, QMPCollector
from qmp_collect.adapters import SB3Sink

GRAVITY = (9.81, 5.0)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in GRAVITY])
high = envs.single_action_space.high  # the bounds are -high and high
models = [
    SAC("MlpPolicy", gym.make("Pendulum-v1", g=g), policy_kwargs={"net_arch": [64, 64]}, seed=task)
    for task, g in enumerate(GRAVITY)
]


@jax.jit
def propose(actor, obs, key):
    distribution = actor.apply_fn(actor.params, obs)
    return high * distribution.sample(seed=key), high * distribution.mode()


@jax.jit
def first_critic(critic, obs, actions):
    return critic.apply_fn(critic.params, obs, actions / high)[0]  # (M, 1) of (2, M, 1)


def policy(model):
    def act(obs):
        model.policy.reset_noise()  # a new key; without it the same noise comes at every step
        return Proposal(*propose(model.policy.actor_state, obs, model.policy.noise_key))

    return act


def q_function(model):  # reads the model's present state: `train` replaces it
    return lambda obs, actions: first_critic(model.policy.qf_state, obs, actions)


policies, q_functions = [policy(model) for model in models], [q_function(model) for model in models]
sinks = [SB3Sink(model) for model in models]
collector = QMPCollector(envs, policies, q_functions, buffer=sinks, backend="jax", seed=0)

collector.collect(n_step=400, random=True)
for _ in range(6):
    collector.collect(n_step=40)
    for model in models:
        model.train(gradient_steps=10, batch_size=64)
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
