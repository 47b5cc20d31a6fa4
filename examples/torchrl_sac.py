"""TorchRL: two `SACLoss` modules, each with a replay buffer of its own that `TorchRLSink` fills."""

import gymnasium as gym
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from qmp_collect import Proposal, QMPCollector
from qmp_collect.adapters import TorchRLSink

torch.manual_seed(1)
envs = gym.vector.SyncVectorEnv([lambda g=g: gym.make("Pendulum-v1", g=g) for g in (9.81, 5.0)])


def make_loss():
    head = nn.Sequential(MLP(in_features=3, out_features=2, num_cells=[64, 64]), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(head, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -2.0, "high": 2.0},  # the environment's own actions: nothing to rescale
        return_log_prob=True,
    )
    critic = ValueOperator(MLP(in_features=4, out_features=1, num_cells=[64, 64]), in_keys=["observation", "action"])
    loss = SACLoss(actor, critic, num_qvalue_nets=2, action_spec=None, target_entropy=-1.0)
    loss.make_value_estimator(gamma=0.99)
    return loss


def policy(loss):
    def act(obs):
        with loss.actor_network_params.to_module(loss.actor_network):  # a loss keeps parameters apart from its modules
            distribution = loss.actor_network.get_dist(TensorDict({"observation": obs}, [len(obs)]))
        return Proposal(distribution.sample(), means=distribution.deterministic_sample)

    return act


def q_function(loss):
    def score(obs, actions):
        inputs = TensorDict({"observation": obs, "action": actions}, [len(obs)])
        with loss.qvalue_network_params[0].to_module(loss.qvalue_network):  # the first of the two
            return loss.qvalue_network(inputs)["state_action_value"]

    return score


losses = [make_loss() for _ in range(2)]
targets = [SoftUpdate(loss, eps=0.995) for loss in losses]
optimizers = [torch.optim.Adam(loss.parameters(), 1e-3) for loss in losses]
buffers = [TensorDictReplayBuffer(storage=LazyTensorStorage(10_000), batch_size=64) for _ in losses]
policies, q_functions = [policy(loss) for loss in losses], [q_function(loss) for loss in losses]
sinks = [TorchRLSink(buffer) for buffer in buffers]
collector = QMPCollector(envs, policies, q_functions, buffer=sinks, backend="torch", seed=1)

collector.collect(n_step=400, random=True)
for _ in range(20):
    collector.collect(n_step=20)
    for loss, buffer, optimizer, target in zip(losses, buffers, optimizers, targets, strict=True):
        values = loss(buffer.sample())
        (values["loss_actor"] + values["loss_qvalue"] + values["loss_alpha"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        target.step()
print("who acted (row: task, column: policy):", collector.stats().mixture.round(2), sep="\n")
