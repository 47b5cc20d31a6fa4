"""Success rates of a scripted policy, of uniform random actions and of zero actions on every Kitchen10 task.

    python benchmark/solvability/kitchen.py --episodes 50 --out benchmark/solvability/kitchen.json

The scripted policy sees what a learner sees, the observation, and moves the fingers by resolved-rate inverse
kinematics: in front of the part, beside it, then against it in the direction its joint has to go. Only the right
hinge door, which has to be pulled, is gripped. The settings below were found by random search.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import numpy.typing as npt

from qmp_envs.kitchen import KITCHENS, ROBOT, kitchen_model

ENV_ID = "Kitchen10-v0"
TASK_SET = KITCHENS[ENV_ID]
ARM = 7
STEP = 0.16  # rad or m per step of an action of 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to handle a part. Lengths in m, angles in rad.

    Attributes:
        point: what is touched, in the frame of the part; None for its site.
        side: distance from there, against the direction of motion, at which to start.
        front: how far in front of the part to come to a halt before that.
        deep: how far the fingertips reach beyond the point.
        up: the same, upwards.
        push: how far beyond the point the fingers try to be: sets the force.
        yaw, pitch: the hand's attitude; upright and pointing along y at 0.
        turn: how far the hand turns with a hinge, as a share.
        grip: whether to pull instead of to push.
        tip: where the fingertips are, along the hand's last link.
        speed: at most this far per step.
        attitude: weight of the hand's attitude against that of its position.
        gain: steps' worth of motion that is ordered at once, since the servos lag.
    """

    point: tuple[float, float, float] | None = None
    side: float = 0.06
    front: float = 0.08
    deep: float = 0.0
    up: float = 0.0
    push: float = 0.06
    yaw: float = 0.0
    pitch: float = 0.0
    turn: float = 0.0
    grip: bool = False
    tip: float = 0.25
    speed: float = 0.12
    attitude: float = 0.1
    gain: float = 3.0


DOOR = Plan()
KNOB_ON = Plan(point=(0.0, 0.038, 0.038), side=0.063, deep=0.016, push=0.08, up=0.027, pitch=0.05)
KNOB_OFF = Plan(
    point=(0.0, 0.0514, 0.038),
    side=0.05,
    front=0.07,
    deep=-0.0145,
    push=0.115,
    up=-0.025,
    yaw=-0.23,
    pitch=-0.1,
    tip=0.2464,
    speed=0.125,
    gain=3.85,
)
PLANS = {
    "slide_cabinet_open": DOOR,
    "slide_cabinet_close": DOOR,
    "hinge_cabinet_open": Plan(
        grip=True,
        front=0.055,
        deep=0.017,
        push=0.072,
        yaw=-0.11,
        pitch=0.21,
        turn=0.22,
        tip=0.244,
        speed=0.116,
        attitude=0.03,
        gain=3.25,
    ),
    "hinge_cabinet_close": DOOR,
    "bottom_burner_on": KNOB_ON,
    "bottom_burner_off": KNOB_OFF,
    "top_burner_on": KNOB_ON,
    "top_burner_off": KNOB_OFF,
    "light_switch_on": Plan(
        side=0.034, front=0.09, deep=-0.01, push=0.08, up=0.02, tip=0.2565, speed=0.126, attitude=0.05, gain=2.8
    ),
    "light_switch_off": Plan(
        side=0.034,
        front=0.088,
        deep=-0.01,
        push=0.072,
        up=0.02,
        yaw=-0.13,
        pitch=-0.025,
        tip=0.2565,
        speed=0.126,
        attitude=0.03,
        gain=2.9,
    ),
}


def turned(axis: str, angle: float) -> npt.NDArray[np.float64]:
    """Rotation about the world's x or z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, -s, 0], [s, c, 0], [0, 0, 1]])


class ScriptedPolicy:
    """Handles one part, from observations alone."""

    def __init__(self, task: int) -> None:
        self.model = kitchen_model()
        self.data = mujoco.MjData(self.model)
        self.task = TASK_SET.tasks[task]
        self.plan = PLANS[self.task.name]
        self.link = self.model.body("panda0_link7").id
        # The joint that has the way to go; the others of a part stay or follow.
        way = np.subtract(self.task.goal, self.task.start)
        self.joint = self.task.joints[int(np.abs(way).argmax())]
        self.sign = np.sign(way[np.abs(way).argmax()])
        self.body = int(self.model.jnt_bodyid[self.joint])
        self.point = self.plan.point or self.model.site(self.task.site).pos
        self.home: npt.NDArray[np.float64] | None = None
        self.phase = 0
        self.waited = 0

    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """An action (9,) for an observation (60,)."""
        model, data, plan = self.model, self.data, self.plan
        data.qpos[:] = observation[: model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        if self.home is None:
            self.home = data.qpos[:ARM].copy()

        point = data.xpos[self.body] + data.xmat[self.body].reshape(3, 3) @ self.point
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacobian, None, point, self.body)
        along = self.sign * jacobian[:, model.jnt_dofadr[self.joint]]
        along /= np.linalg.norm(along)
        wanted = turned("x", plan.pitch) @ turned("z", plan.yaw + plan.turn * data.qpos[self.joint])
        wanted = wanted @ np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
        forward = wanted[:, 2]

        target = point + plan.deep * forward + np.array([0.0, 0.0, plan.up])
        if plan.grip:
            phases = [(target - (plan.front + plan.deep) * forward, 1, 0.03), (target, 1, 0.02), (target, -1, None)]
        else:
            beside = target - plan.side * along
            phases = [(beside - (plan.front + plan.deep) * forward, -1, 0.03), (beside, -1, 0.02)]
        target, fingers, close = [*phases, (target + plan.push * along, -1, None)][self.phase]

        position = data.xpos[self.link] + data.xmat[self.link].reshape(3, 3) @ (0.0, 0.0, plan.tip)
        offset = target - position
        distance = float(np.linalg.norm(offset))
        self.waited += 1
        if (distance < close) if close is not None else (self.phase < len(phases) and self.waited > 5):
            self.phase, self.waited = self.phase + 1, 0

        attitude = data.site("end_effector").xmat.reshape(3, 3)
        twist = 0.5 * np.cross(attitude, wanted, axis=0).sum(axis=1)
        moved, spun = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, moved, spun, position, self.link)
        motion = self.solve(
            np.vstack((moved[:, :ARM], plan.attitude * spun[:, :ARM])),
            np.concatenate(
                (offset * min(1.0, plan.speed / max(distance, 1e-9)), plan.attitude * twist.clip(-0.3, 0.3))
            ),
        )
        motion *= plan.gain / STEP
        return np.concatenate((motion / max(1.0, np.abs(motion).max()), [fingers, fingers]))

    def solve(self, matrix: npt.NDArray[np.float64], vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Joint motions (7,) inside the joints' ranges with ``matrix @ motions`` near ``vector``."""
        joints = self.data.qpos[:ARM]
        low, high = self.model.jnt_range[:ARM].T - joints + np.array([[0.05], [-0.05]])
        assert self.home is not None
        usual = 0.3 * (self.home - joints)
        free, motion = np.ones(ARM, dtype=np.bool_), np.zeros(ARM)
        while free.any():
            part = matrix[:, free]
            residual = vector - matrix[:, ~free] @ motion[~free] - part @ usual[free]
            damped = part.T @ part + 0.02**2 * np.eye(int(free.sum()))
            motion[free] = usual[free] + np.linalg.solve(damped, part.T @ residual)
            out = free & ((motion < low) | (motion > high))
            if not out.any():
                break
            motion[out] = motion[out].clip(low[out], high[out])
            free &= ~out
        return motion


def successes(
    task: int, episodes: int, seed: int, act: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
) -> npt.NDArray[np.int64]:
    """Steps until success, (episodes,), of policies side by side; 0 where the horizon came first."""
    envs = gym.make_vec(ENV_ID, num_envs=episodes, task_ids=[task] * episodes, autoreset_mode="NextStep")
    observations, _ = envs.reset(seed=seed)
    steps = np.zeros(episodes, dtype=np.int64)
    ended = np.zeros(episodes, dtype=np.bool_)
    for step in range(1, TASK_SET.horizon + 1):
        actions = act(observations)
        observations, _, terminations, truncations, infos = envs.step(actions)
        steps[infos["success"] & ~ended] = step
        ended |= terminations | truncations
        if ended.all():
            break
    envs.close()
    return steps


def scripted(task: int, episodes: int) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]:
    """Side by side, a policy per episode."""
    policies = [ScriptedPolicy(task) for _ in range(episodes)]
    return lambda observations: np.stack([policy(row) for policy, row in zip(policies, observations, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50, help="per task and policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    args = parser.parse_args()
    tasks = {}
    rng = np.random.default_rng(args.seed)
    shape = (args.episodes, ROBOT)
    for task, name in enumerate(TASK_SET.task_names):
        start = time.perf_counter()
        steps = successes(task, args.episodes, args.seed, scripted(task, args.episodes))
        untrained = {
            "random": successes(task, args.episodes, args.seed, lambda _: rng.uniform(-1.0, 1.0, shape)),
            "zero": successes(task, args.episodes, args.seed, lambda _: np.zeros(shape)),
        }
        tasks[name] = {
            "scripted": float((steps > 0).mean()),
            "scripted_steps": float(np.median(steps[steps > 0])) if steps.any() else None,
            **{kind: float((found > 0).mean()) for kind, found in untrained.items()},
        }
        print(name, tasks[name], f"{time.perf_counter() - start:.0f} s", flush=True)
    if args.out is not None:
        versions = {"mujoco": mujoco.__version__, "gymnasium": gym.__version__}
        record = {"env_id": ENV_ID, "episodes": args.episodes, "seed": args.seed, **versions, "tasks": tasks}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
