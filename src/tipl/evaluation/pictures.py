"""Pictures of the MuJoCo tasks, rendered offscreen: a bright stage on which the body stands out.

MuJoCo draws with OpenGL, through EGL, OSMesa, GLFW or CGL. Which of them works on a machine shows
only when it is tried, and what does not work may print or crash: it is tried in another process.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

import mujoco  # type: ignore[import-untyped]
import numpy as np
from jaxtyping import Float64, UInt8

from tipl.core.processes import leash
from tipl.envs.batched_mujoco import silent_mujoco
from tipl.envs.mujoco_tasks import MujocoTask, View
from tipl.errors import TiplError

SKY = (242, 245, 249)
"""Colour of what lies behind everything, RGB."""

_SKY = tuple(value / 255 for value in SKY)
_FLOOR = ((0.93, 0.94, 0.96), (0.80, 0.83, 0.87))  # the two colours of its squares, RGB
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_OFF = ("disable", "disabled", "off", "false", "0")  # what MuJoCo takes MUJOCO_GL to deny
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    if not renderer.render().any():
        raise RuntimeError("the picture is black")
"""
_ADVICE = (
    "install Debian's libegl1 and libgl1-mesa-dri, or libosmesa6 (other systems have the same "
    "under similar names), and set MUJOCO_GL to egl or osmesa, or leave it unset"
)


def missing_renderer() -> str | None:
    """Says why the MuJoCo tasks cannot be drawn here, and what to do; None if they can be.

    The answer is found in a process of its own, in a second or two, and kept. `MUJOCO_GL` is
    honoured; without it EGL, OSMesa and, where there is a display, GLFW are tried in this order.
    """
    return _find_renderer(_setting())[1]


class MujocoPictures:
    """Draws the states of a MuJoCo task, an entry of `tipl.envs.mujoco_tasks`.

    Use it as a context manager: what it holds on the graphics side is freed at the end. Only the
    thread that made it may draw. Width and height are in pixels; `step_seconds` is how long a step
    of the environment takes, in the simulation's time.

    Raises:
        TiplError: no renderer works here.
    """

    def __init__(self, task: MujocoTask, width: int, height: int) -> None:
        backend, complaint = _find_renderer(_setting())
        if complaint:
            raise TiplError(complaint)
        with silent_mujoco():
            self._view = _view(task)
            self._model = _staged_model(task, self._view, width, height)
        self.step_seconds = self._model.opt.timestep * task.frame_skip
        self._data = mujoco.MjData(self._model)
        self._scene = mujoco.MjvScene(self._model, maxgeom=1_000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = True
        self._camera = mujoco.MjvCamera()
        self._camera.azimuth, self._camera.elevation = 90, self._view.elevation
        self._camera.distance = self._view.distance
        self._gl = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._size = (width, height)

    def __enter__(self) -> MujocoPictures:
        return self

    def __exit__(self, *error: object) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def draw(self, state: Float64[np.ndarray, " S"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of an integration state: of `BatchedMujocoEnv.state()["simulation"]`."""
        with silent_mujoco():
            mujoco.mj_setState(self._model, self._data, state, _STATE)
            mujoco.mj_forward(self._model, self._data)
        body = self._view.follows
        x, y = (0, 0) if body is None else self._data.body(body).subtree_com[:2]
        self._camera.lookat[:] = x, y, self._view.height
        shown = mujoco.MjvOption(), None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        mujoco.mjv_updateScene(self._model, self._data, *shown)
        width, height = self._size
        picture = np.empty((height, width, 3), np.uint8)
        area = mujoco.MjrRect(0, 0, width, height)
        self._gl.make_current()
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, area, self._context)
        return picture[::-1].copy()  # OpenGL has its first row at the bottom


def integration_state(model: Any, data: Any) -> Float64[np.ndarray, " S"]:
    """What `MujocoPictures` draws, of a simulation that is not batched."""
    state = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return state


def _view(task: MujocoTask) -> View:
    """The view of a task; where nobody chose one, of all that moves, from far enough."""
    if task.view is not None:
        return task.view
    model = mujoco.MjModel.from_xml_path(str(task.xml_path))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    moves = model.geom_bodyid > 0
    centres, radii = data.geom_xpos[moves], model.geom_rbound[moves, None]
    low, high = (centres - radii).min(axis=0), (centres + radii).max(axis=0)
    distance = 1.5 * float(np.linalg.norm(high - low))
    return View(float(low[2] + high[2]) / 2, distance, follows=model.body(1).name or None)


def _staged_model(task: MujocoTask, view: View, width: int, height: int) -> Any:
    """The model of a task with its bodies as they are, on a bright stage."""
    spec = mujoco.MjSpec.from_file(str(task.xml_path))
    spec.compiler.settotalmass = -1  # deprecated, so the compiler would warn; nothing moves here
    spec.stat.extent = view.distance  # what reaches of shadows and of haze are measured by
    visual = spec.visual
    visual.global_.offwidth, visual.global_.offheight = width, height
    visual.quality.shadowsize = 2048
    visual.rgba.haze[:] = *_SKY, 1.0
    visual.map.zfar, visual.map.haze = 7, 0.7  # squares far away would only flicker
    visual.headlight.ambient[:], visual.headlight.diffuse[:] = 0.6, 0.1
    for part in (*spec.lights, *spec.textures):
        if part in spec.lights or part.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(part)
    _paint(spec)
    _light(spec, view)
    return spec.compile()


def _paint(spec: Any) -> None:
    """Gives a model the sky and the floor of the stage."""
    kinds, builtin = mujoco.mjtTexture, mujoco.mjtBuiltin
    sky = spec.add_texture(name="stage sky", type=kinds.mjTEXTURE_SKYBOX, width=8, height=48)
    sky.builtin = builtin.mjBUILTIN_FLAT
    sky.rgb1[:] = sky.rgb2[:] = _SKY
    squares = spec.add_texture(name="stage squares", type=kinds.mjTEXTURE_2D, width=64, height=64)
    squares.builtin = builtin.mjBUILTIN_CHECKER
    squares.rgb1[:], squares.rgb2[:] = _FLOOR
    floor = spec.add_material(name="stage floor", texuniform=True, texrepeat=(0.45, 0.45))
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = squares.name
    floor.specular = 0.0
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            geom.material, geom.rgba[:], geom.size[:2] = floor.name, 1.0, 0.0  # 0: without end


def _light(spec: Any, view: View) -> None:
    """Puts a lamp above what the camera looks at."""
    body = spec.body(view.follows) if view.follows else spec.worldbody
    lamp = body.add_light(name="stage lamp", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    if view.follows:
        lamp.mode = mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
    lamp.pos[:], lamp.dir[:] = (0, -0.5, 2), (0, 0.2, -1)
    lamp.diffuse[:], lamp.specular[:], lamp.castshadow = 0.4, 0.1, True


def _setting() -> str:
    return os.environ.get("MUJOCO_GL", "").lower().strip()


@functools.cache
def _find_renderer(setting: str) -> tuple[str, str | None]:
    """The first backend that works, of those that a value of MUJOCO_GL allows, or why none does.

    A backend is a module of mujoco that makes OpenGL contexts.
    """
    if setting in _OFF:
        return "", f"MUJOCO_GL is {setting!r}, which turns rendering off; unset it"
    failures = []
    for backend in _backends(setting):
        failure = _try_backend(backend)
        if failure is None:
            return backend, None
        failures.append(f"{backend}: {failure}")
    return "", f"no offscreen renderer works here ({'; '.join(failures)}); {_ADVICE}"


def _backends(setting: str) -> tuple[str, ...]:
    """The backends to try, in order."""
    if setting in ("egl", "osmesa", "glfw", "cgl"):
        return (setting,)
    if sys.platform != "linux":
        return ("cgl", "glfw") if sys.platform == "darwin" else ("glfw",)
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ("egl", "osmesa", "glfw") if display else ("egl", "osmesa")


def _try_backend(backend: str) -> str | None:
    """Draws a ball in another process; says what went wrong, None if nothing did."""
    try:
        with tempfile.TemporaryDirectory() as directory:  # MuJoCo logs errors where it runs
            done = subprocess.run(
                leash([sys.executable, "-c", _PROBE]), cwd=directory, timeout=60,
                env=os.environ | {"MUJOCO_GL": backend},
                capture_output=True, text=True, errors="replace",
            )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()
    errors = [line for line in lines if re.match(r"[\w.]+Error: ", line)]
    return (errors or lines[-1:])[0][:200]  # the first error is the cause of those that follow
