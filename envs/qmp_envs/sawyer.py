"""Meta-World's own simulations, one class per task, made quick to load and to step. Needs the package ``metaworld``.

Dynamics, rewards, success and resets are Meta-World's code: nothing here computes any of them. What is replaced is
how positions are looked up, and work whose results nobody reads.
"""

from __future__ import annotations

import copy
import math
import threading
from functools import cache
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv

from qmp_envs.arguments import Renderer
from qmp_envs.assets import delete
from qmp_envs.pictures import picture_of
from qmp_envs.sketch import Camera, Marker

Array = npt.NDArray[np.float64]

# All that the next step depends on, the constraint solver's warm start included.
STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
GRIP_DOWN = (1.0, 0.0, 1.0, 0.0)  # orientation of the hand, not normalised, as Meta-World sets it


@cache
def _model(path: str) -> mujoco.MjModel:
    """The model without the meshes that are for the eye only: they take most of the time to compile."""
    spec = mujoco.MjSpec.from_file(path)
    meshes = [geom for geom in spec.geoms if geom.type == mujoco.mjtGeom.mjGEOM_MESH]
    # Rewards and observations look up some of the others by their names.
    delete(spec, [geom for geom in meshes if geom.contype == geom.conaffinity == 0 and not geom.name])
    used = {geom.meshname for geom in spec.geoms}
    delete(spec, [mesh for mesh in spec.meshes if mesh.name not in used])
    for material in spec.materials:
        material.textures = [""] * len(material.textures)
    delete(spec, spec.textures)
    return spec.compile()


_CAMERA = Camera(lookat=(0.0, 0.68, 0.15), distance=1.25, azimuth=140.0, elevation=-28.0)
_GOAL = (0.20, 0.95, 0.55, 0.75)


@cache
def _whole(path: str) -> tuple[mujoco.MjModel, mujoco.MjData, threading.Lock]:
    """The whole model, for pictures, and what belongs to whoever draws one: all simulations of a scene share it."""
    model = mujoco.MjModel.from_xml_path(path)
    return model, mujoco.MjData(model), threading.Lock()


class Sawyer(SawyerXYZEnv):
    """What is common to all tasks. `simulation` derives it from a task's class as well.

    The methods to use are `start`, `advance`, `state`, `resume` and `picture`; Gymnasium's ``reset`` and ``step`` of
    the class are not.
    """

    rand_vec: Array  # of the running episode; `goal` is something else in Meta-World's code

    def __init__(self) -> None:
        super().__init__()
        self._set_task_called = True
        self._partially_observable = False
        del self.sawyer_observation_space  # a cached property: the one above is that of a hidden goal
        self._low, self._high = self.sawyer_observation_space.low, self.sawyer_observation_space.high
        self._pristine = (self.model.body_pos.copy(), self.model.site_pos.copy())

    # ------------------------------------------------------------------ what this package calls

    def start(self, rng: np.random.Generator | None = None, rand_vec: Array | None = None) -> Array:
        """Start an episode as Meta-World does, whatever was before: the observation (39,).

        Exactly one of the arguments is given: where to draw a new goal from, or the goal itself, in the form of the
        "random vector" of Meta-World's tasks: placements of objects and of the target.
        """
        self.model.body_pos[:], self.model.site_pos[:] = self._pristine
        self._rng = rng
        if rand_vec is not None:
            self.rand_vec = rand_vec.copy()
        # Twice, as Meta-World does: the second time, what the goal has moved in the model is there from the start.
        for _ in range(2):
            mujoco.mj_resetData(self.model, self.data)
            observation = self.reset_model()
            self._rng = None
        self._prev_obs = observation[:18].copy()
        return self.observation()

    def advance(self, action: npt.NDArray[np.float32]) -> tuple[Array, float, dict[str, Any]] | None:
        """A control step with an action (4,) in [-1, 1]: observation (39,), reward, info; None if it diverged."""
        data = self.data
        # The float32 product is Meta-World's.
        target = data.mocap_pos[0] + action[:3] * self.action_scale
        data.mocap_pos[0] = np.minimum(np.maximum(target, self.mocap_low), self.mocap_high)
        data.mocap_quat[0] = GRIP_DOWN
        data.ctrl[:] = action[3], -action[3]
        before = data.time
        mujoco.mj_step(self.model, data, nstep=self.frame_skip)
        if data.time <= before:  # MuJoCo has reset a simulation that it could not go on with
            return None
        mujoco.mj_forward(self.model, data)
        observation = np.minimum(np.maximum(self._get_obs(), self._low), self._high)
        reward, info = self.evaluate_state(observation, action)
        return observation, reward, info

    def observation(self) -> Array:
        """(39,) as at the start of an episode: of the last frame, and the same one as the one before."""
        observation = np.concatenate((self._prev_obs, self._prev_obs, self._get_pos_goal()))
        clipped: Array = np.clip(observation, self._low, self._high)
        return clipped

    def state(self) -> dict[str, Any]:
        """What `resume` needs."""
        physics = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, physics, STATE)
        # The one thing that a reward keeps from an earlier step (bin-picking).
        first_distance = getattr(self, "_target_to_obj_init", None)
        return {
            "rand_vec": self.rand_vec.copy(),
            "physics": physics,
            "previous": self._prev_obs.copy(),
            "first_distance": None if first_distance is None else float(first_distance),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue where `state` was called, bit for bit."""
        # The reset restores what a task keeps in attributes, some of which are views of the simulation's arrays.
        self.start(rand_vec=np.asarray(state["rand_vec"]))
        self.rewind(state["physics"])
        self._prev_obs = np.array(state["previous"])
        if state["first_distance"] is not None:
            self._target_to_obj_init = state["first_distance"]

    def rewind(self, physics: Array) -> None:
        """Be where MuJoCo's state was ``physics``, earlier in the same episode."""
        mujoco.mj_setState(self.model, self.data, physics, STATE)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, physics, STATE)  # the warm start was overwritten

    def picture(self, renderer: Renderer = "numpy") -> npt.NDArray[np.uint8]:
        """The current state, (H, W, 3); the goal's position is a green ball."""
        model, data, turn = _whole(self.fullpath)
        with turn:
            model.body_pos[:] = self.model.body_pos
            data.qpos[:] = self.data.qpos
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            goal = Marker(self._get_pos_goal(), 0.02, _GOAL)
            return picture_of(model, renderer).draw(data, _CAMERA, [goal])

    # ------------------------------------------------------------------ what Meta-World's code calls

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = copy.deepcopy(_model(self.fullpath))  # goals move bodies and sites of the model
        self._hand = model.body("hand").id
        self._claws = (model.body("rightclaw").id, model.body("leftclaw").id)
        self._fingers = (model.site("rightEndEffector").id, model.site("leftEndEffector").id)
        self._pads = (model.geom("leftpad_geom").id, model.geom("rightpad_geom").id)
        return model, mujoco.MjData(model)

    def _get_state_rand_vec(self) -> Array:
        if self._rng is not None:  # several times in a row, until the task accepts it
            space = self._random_reset_space
            assert space is not None
            self.rand_vec = self._rng.uniform(space.low, space.high)
        return self.rand_vec.copy()

    def _get_curr_obs_combined_no_goal(self) -> Array:
        positions = self.data.xpos
        observation = np.zeros(18)
        observation[:3] = positions[self._hand]
        between = positions[self._claws[0]] - positions[self._claws[1]]
        observation[3] = min(math.sqrt(between.dot(between)) / 0.1, 1.0)
        places, turns = self._get_pos_objects(), self._get_quat_objects()
        for i in range(len(places) // 3):
            observation[4 + 7 * i : 7 + 7 * i] = places[3 * i : 3 * i + 3]
            observation[7 + 7 * i : 11 + 7 * i] = turns[4 * i : 4 * i + 4]
        return observation

    @property
    def tcp_center(self) -> Array:
        positions = self.data.site_xpos
        centre: Array = (positions[self._fingers[0]] + positions[self._fingers[1]]) / 2.0
        return centre

    def touching_object(self, object_geom_id: int) -> bool:
        contact, forces = self.data.contact, self.data.efc_force
        of_object = (contact.geom == object_geom_id).any(axis=1)
        if not of_object.any():
            return False
        return all(
            sum(forces[contact.efc_address[of_object & (contact.geom == pad).any(axis=1)]].tolist()) > 0
            for pad in self._pads
        )


def simulation(task_name: str) -> Sawyer:
    """A new simulation of one of Meta-World's tasks, e.g. ``"reach-v3"``."""
    return _simulation_class(task_name)()


@cache
def _simulation_class(task_name: str) -> type[Sawyer]:
    task_class = ALL_V3_ENVIRONMENTS[task_name]
    return type(task_class.__name__, (Sawyer, task_class), {})
