"""Films: what is drawn offscreen where a renderer works, and the strips made of any frames."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image, ImageSequence

from tipl.cli import main
from tipl.envs import BatchedMujocoEnv, make_task, make_vec
from tipl.envs.gymnasium_vec import GymnasiumVec
from tipl.envs.mujoco_tasks import MUJOCO_TASKS
from tipl.errors import TiplError
from tipl.evaluation import film as films
from tipl.evaluation import pictures
from tipl.evaluation.film import Film, animation, film, save_filmstrip, still_strip
from tipl.evaluation.pictures import SKY, MujocoPictures, missing_renderer
from tipl.evaluation.returns import evaluate
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task

PENDULUM, CHEETAH = "InvertedPendulum-v4", "HalfCheetah-v4"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def renderer() -> None:
    if complaint := missing_renderer():
        pytest.skip(complaint)


@pytest.fixture
def no_renderer(monkeypatch: pytest.MonkeyPatch) -> str:
    """MUJOCO_GL turns rendering off; returns what is said of it."""
    monkeypatch.setenv("MUJOCO_GL", "off")
    return "MUJOCO_GL is 'off', which turns rendering off; unset it"


def shades(count: int = 6, playing: int | None = None, total: float = 1_234.5) -> Film:
    """A film of 60x40 whose frame f is of the one grey 10 f."""
    frames = np.zeros((count, 40, 60, 3), np.uint8)
    frames += 10 * np.arange(count, dtype=np.uint8)[:, None, None, None]
    return Film(frames, np.linspace(0, 99, count), playing or count, 0.05, total)


def opened(data: bytes) -> list[np.ndarray]:
    """The pages of an image file, [H, W, 3] each."""
    with Image.open(io.BytesIO(data)) as image:
        return [np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(image)]


# --- strips of given frames ------------------------------------------------------------------


def test_an_animation_shows_every_frame_in_its_time_for_ever() -> None:
    data = animation([shades(), shades()], ["left", "right"], width=60)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 6, 0)
        durations = []
        for f in range(6):
            image.seek(f)
            durations.append(image.info["duration"])
    assert durations == [50] * 5 + [1200]
    for f, page in enumerate(opened(data)):
        middles = page[-20, [30, -30]].astype(int)  # of both films
        assert np.abs(middles - 10 * f).max() <= 6  # 32 colours come close


def test_an_animation_has_one_palette() -> None:
    data = animation([shades()], ["only"], width=60)
    assert data[10] & 0x80  # a palette of the whole file
    assert list(local_palettes(data)) == [b""] * 6


def local_palettes(data: bytes) -> Iterator[bytes]:
    """Palettes of single frames, by the GIF format: a walk from block to block."""
    at = 13 + (3 << ((data[10] & 7) + 1))
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            flags = data[at + 9]
            size = 3 << ((flags & 7) + 1) if flags & 0x80 else 0
            yield data[at + 10 : at + 10 + size]
            at += 11 + size
        else:
            at += 2
        while data[at]:
            at += data[at] + 1
        at += 1


@pytest.mark.parametrize(("columns", "grid"), [(None, (1, 3)), (1, (3, 1)), (2, (2, 2))])
def test_films_stand_in_rows(columns: int | None, grid: tuple[int, int]) -> None:
    films, labels = [shades()] * 3, ["a", "b", "c"]
    one = opened(animation(films[:1], labels[:1], width=60))[0].shape
    page = opened(animation(films, labels, columns=columns, width=60))[0].shape
    gap = 2
    assert page[:2] == tuple(n * (size + gap) - gap for n, size in zip(grid, one[:2], strict=True))


def test_each_film_has_its_label_and_return_drawn() -> None:
    plain = opened(animation([shades()], ["untrained"], width=240))
    renamed = opened(animation([shades()], ["trained"], width=240))
    richer = opened(animation([shades(total=9.0)], ["untrained"], width=240))
    bar = plain[0].shape[0] - 160
    for other, rows in ((renamed, slice(0, bar // 2)), (richer, slice(bar // 2, bar))):
        changed = np.abs(plain[0].astype(int) - other[0]).max(axis=(1, 2)) > 60
        assert changed[rows].any()
        assert not np.delete(changed, np.r_[rows]).any()
    assert (plain[0][:bar] != plain[5][:bar]).any()  # the return goes up
    assert plain[0][:bar].min() < 60  # dark ink
    assert np.abs(plain[0][2, 2].astype(int) - SKY).max() <= 6  # on light paper


def test_a_label_that_is_too_long_is_cut_off() -> None:
    long = opened(animation([shades()], ["untrained " * 9], width=240))[0]
    assert np.abs(long[:20, -8:].astype(int) - SKY).max() <= 6


def test_what_is_over_fades() -> None:
    data = animation([shades(playing=3)], ["over"], width=240)
    middles = [int(page[-80, 120, 0]) for page in opened(data)]
    assert max(middles[:3]) < 30
    assert min(middles[3:]) > 140


@pytest.mark.parametrize(
    ("value", "total", "text"),
    [
        (213.4, 4_811.6, "213"),
        (4_811.6, 4_811.6, "4,812"),
        (28.0, 28.0, "28"),
        (3.0, 7.0, "3"),
        (-0.04, -0.3, "0.0"),
        (-0.3, -0.3, "−0.3"),
        (-1_309.2, -1_309.2, "−1,309"),
    ],
)
def test_returns_are_short(value: float, total: float, text: str) -> None:
    from tipl.evaluation.film import _number

    assert _number(value, shades(total=total)) == text


def test_stills_are_moments_from_first_to_last() -> None:
    (page,) = opened(still_strip([shades(9), shades(9)], ["a", "b"], moments=3))
    step, gap = 60, 2
    assert page.shape[1] == 3 * step + 2 * gap
    middles = page[-10, [30 + n * (step + gap) for n in range(3)], 0]
    np.testing.assert_allclose(middles, [0, 40, 80], atol=3)
    row = (page.shape[0] - gap) // 2
    np.testing.assert_array_equal(page[row - 10, :, 0], page[-10, :, 0])


def test_the_same_films_give_the_same_bytes() -> None:
    films = [shades(), shades(playing=2)]
    assert animation(films, ["a", "b"]) == animation(films, ["a", "b"])
    assert still_strip(films, ["a", "b"]) == still_strip(films, ["a", "b"])


def test_both_files_are_written() -> None:
    gif, png = save_filmstrip("strip.gif", [shades()], ["a"])
    assert gif.read_bytes() == animation([shades()], ["a"])
    assert png.read_bytes() == still_strip([shades()], ["a"])
    assert sorted(path.name for path in Path().iterdir()) == ["strip.gif", "strip.png"]


def bad_film(**changes: Any) -> Film:
    arguments = {**vars(shades()), **changes}
    return Film(**arguments)


@pytest.mark.parametrize(
    ("films", "labels", "message"),
    [
        ([], [], "0 films were given with 0 labels"),
        ([shades()], ["a", "b"], "1 films were given with 2 labels"),
        ([shades(), shades(7)], ["a", "b"], "6 frames of 60x40, 0.05 s apart and of 7 frames"),
        ([shades(), bad_film(seconds=0.04)], ["a", "b"], "and of 6 frames of 60x40, 0.04 s"),
    ],
)
def test_what_makes_no_strip_is_refused(films: list[Film], labels: list[str], message: str) -> None:
    for make in (animation, still_strip, lambda *args: save_filmstrip("strip.gif", *args)):
        with pytest.raises(TiplError, match=message):
            make(films, labels)
    assert list(Path().iterdir()) == []


def test_numbers_out_of_range_are_refused() -> None:
    for changes in ({"returns": np.zeros(5)}, {"playing": 0}, {"playing": 7}):
        with pytest.raises(TiplError, match="a film of 6 frames was given with"):
            bad_film(**changes)
    for numbers in ({"columns": 0}, {"width": 0}):
        with pytest.raises(TiplError, match=f"{next(iter(numbers))} is 0; expected at least 1"):
            animation([shades()], ["a"], **numbers)
    with pytest.raises(TiplError, match="moments is 0"):
        still_strip([shades()], ["a"], moments=0)
    with pytest.raises(TiplError, match=r"strip.mp4 was given.*ends in .gif"):
        save_filmstrip("strip.mp4", [shades()], ["a"])
    policy = Policy.initial(PENDULUM)
    for name in ("num_frames", "every", "width", "height"):
        with pytest.raises(TiplError, match=f"{name} is 0"):
            film(policy, **{name: 0})
    with pytest.raises(TiplError, match="seed is -1"):
        film(policy, seed=-1)


class Stage:
    """Stands in for `MujocoPictures` where nothing can be drawn."""

    step_seconds = 0.04

    def __init__(self, env_id: str, width: int, height: int) -> None:
        self.picture = np.zeros((height, width, 3), np.uint8)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def draw(self, state: np.ndarray) -> np.ndarray:
        return self.picture


@pytest.mark.parametrize("env_id", [PENDULUM, "Drawn-v0"])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("drawn")
def test_a_film_closes_its_environments(
    env_id: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.initial(make_task(env_id))
    opened, closed = [], []
    for kind in (BatchedMujocoEnv, GymnasiumVec):
        make, close = kind.__init__, kind.close

        def making(self: Any, *args: Any, make: Any = make, **options: Any) -> None:
            opened.append(self)
            make(self, *args, **options)

        def closing(self: Any, close: Any = close, **options: Any) -> None:
            closed.append(self)
            close(self, **options)

        monkeypatch.setattr(kind, "__init__", making)
        monkeypatch.setattr(kind, "close", closing)
    monkeypatch.setattr(films, "MujocoPictures", Stage)
    if fails:
        monkeypatch.setattr(films, "mean_actions", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        film(policy, num_frames=2, width=8, height=8)
    assert len(opened) == len(closed) == (1 if env_id == PENDULUM else 2)
    assert set(map(id, opened)) == set(map(id, closed))


# --- without a renderer ----------------------------------------------------------------------


def test_without_a_renderer_a_sentence_says_so(no_renderer: str) -> None:
    assert missing_renderer() == no_renderer
    with pytest.raises(TiplError, match="turns rendering off"):
        film(Policy.initial(PENDULUM))


def test_the_command_then_writes_nothing(
    no_renderer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Policy.initial(PENDULUM).save("policy")
    with pytest.raises(SystemExit) as stop:
        main(["film", "policy", "--out", "strip.gif"])
    assert stop.value.code == 2
    assert capfd.readouterr() == ("", f"tipl: {no_renderer}\n")
    assert [path.name for path in Path().iterdir()] == ["policy"]


def test_a_backend_that_fails_says_why_and_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYOPENGL_PLATFORM", "none-of-them")
    assert "Error: " in (pictures._try_backend("egl") or "")
    assert capfd.readouterr() == ("", "")
    assert list(Path().iterdir()) == []


def test_a_crash_is_a_failure_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_PROBE", "import os; os.abort()")
    assert pictures._try_backend("egl") == "exit status -6"


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_try_backend", lambda name: f"no {name} here")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    find = pictures._find_renderer.__wrapped__  # type: ignore[attr-defined]
    _, complaint = find("osmesa")
    assert complaint.startswith("no offscreen renderer works here (osmesa: no osmesa here); ")
    assert "libosmesa6" in complaint
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "(egl: no egl here; osmesa: no osmesa here)" in find("")[1]
    monkeypatch.setenv("DISPLAY", ":0")
    assert "; glfw: no glfw here)" in find("")[1]


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_every_task_has_a_view_and_another_one_gets_one_like_it(env_id: str) -> None:
    task = MUJOCO_TASKS[env_id]
    assert task.view is not None
    found = pictures._view(dataclasses.replace(task, view=None))
    assert abs(found.height - task.view.height) < 0.5
    assert 0.4 < found.distance / task.view.distance < 2.5


# --- with one --------------------------------------------------------------------------------


# tasks that share a model and a view look the same
LOOKS = {
    (task.xml_path, task.view, task.frame_skip): env_id for env_id, task in MUJOCO_TASKS.items()
}


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize("env_id", LOOKS.values())
def test_every_task_is_drawn(env_id: str) -> None:
    envs: Any = make_vec(env_id, 1)
    envs.reset(seed=0)
    with MujocoPictures(MUJOCO_TASKS[env_id], 96, 60) as stage:
        first = stage.draw(envs.state()["simulation"][0])
        for action in np.random.default_rng(0).uniform(-1, 1, (5, *envs.action_space.shape)):
            envs.step(action.astype(np.float32))
        second = stage.draw(envs.state()["simulation"][0])
    assert first.shape == (60, 96, 3)
    assert first.mean() > 150  # a bright stage
    saturation = first.max(axis=2).astype(int) - first.min(axis=2)
    assert 20 < (saturation > 40).sum() < 0.4 * saturation.size  # with a coloured body on it
    assert (first != second).any()
    assert list(Path().iterdir()) == []  # no MUJOCO_LOG.TXT


@pytest.mark.usefixtures("renderer")
def test_the_camera_moves_with_the_cheetah() -> None:
    envs: Any = make_vec(CHEETAH, 1)
    envs.reset(seed=0)
    state = envs.state()["simulation"][0]
    with MujocoPictures(MUJOCO_TASKS[CHEETAH], 96, 60) as stage:
        for position in (0.0, 7.3, 250.0):
            state[1] = position  # after the time
            picture = stage.draw(state).astype(int)
            columns = np.flatnonzero((picture[..., 0] > picture[..., 2] + 40).any(axis=0))
            assert 5 < columns[0] < 40
            assert 56 < columns[-1] < 91


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH])
def test_a_film_is_of_the_first_episode_that_evaluate_runs(env_id: str) -> None:
    policy = Policy.initial(env_id, seed=1)
    shown = film(policy, seed=4, num_frames=3, every=2, width=48, height=30)
    evaluation = evaluate(policy, 1, seed=4)
    assert shown.episodic_return == evaluation.episodic_return[0]
    assert shown.frames.shape == (3, 30, 48, 3)
    assert shown.playing == 3
    assert shown.seconds == pytest.approx(2 * (0.05 if env_id == CHEETAH else 0.04))
    if env_id == PENDULUM:  # 1 a step
        assert shown.returns.tolist() == [0, 2, 4]


@pytest.mark.usefixtures("renderer")
def test_the_physics_are_the_policys() -> None:
    task = get_task(PENDULUM).with_physics({"gravity": 3.0})
    policy = Policy.initial(task, seed=1)
    shown = film(policy, num_frames=2, width=48, height=30)
    length = evaluate(policy, 1).episode_length[0]
    assert shown.episodic_return == length < evaluate(Policy.initial(PENDULUM, 1), 1).mean.value


@pytest.mark.usefixtures("renderer")
def test_after_the_episode_the_last_frame_is_held() -> None:
    policy = Policy.initial(PENDULUM, seed=1)
    length = int(evaluate(policy, 1).episode_length[0])
    shown = film(policy, num_frames=length + 4, width=48, height=30)
    assert shown.playing == length  # the start, and all steps but the one that ends the episode
    assert shown.returns.tolist() == [*range(length), *[length] * 4]
    held = shown.frames[length - 1 :]
    np.testing.assert_array_equal(held, np.broadcast_to(held[:1], held.shape))
    assert (shown.frames[0] != held[0]).any()


@pytest.mark.usefixtures("renderer")
def test_the_command_films_policies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = functools.partial(film, width=240, height=140)
    monkeypatch.setattr(films, "film", small)
    for seed in (1, 2):
        Policy.initial(PENDULUM, seed).save(f"policy-{seed}")
    main(["film", "policy-1", "policy-2", "--out", "strip.gif", "--seed", "3"])
    assert capsys.readouterr().out == "strip.gif: the animation; strip.png: stills of it\n"
    both = [small(Policy.load(f"policy-{seed}"), 3) for seed in (1, 2)]
    expected = animation(both, ["policy-1", "policy-2"])
    assert Path("strip.gif").read_bytes() == expected
    assert len(expected) < 400_000
    main(["film", "policy-1", "--out", "strip.gif", "--seed", "3", "--labels", "before"])
    assert Path("strip.png").read_bytes() == still_strip(both[:1], ["before"])
    words = ["film", "policy-1", "--out", "strip.gif", "--seed", "3", "--labels", "before"]
    main([*words, "--physics", "gravity=2"])
    heavy = small(Policy.load("policy-1").with_physics({"gravity": 2.0}), 3)
    assert Path("strip.png").read_bytes() == still_strip([heavy], ["before"])


# --- environments that draw themselves -------------------------------------------------------


class Drawn(gymnasium.Env[np.ndarray, np.ndarray]):
    """Draws the number of its step as a grey; lasts 5 steps and pays 2 for each."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = Box(-1, 1, (1,))
    action_space = Box(-1, 1, (1,))

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.count = 0

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**kwargs)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.zeros(1, np.float32), 2.0, self.count == 5, False, {}

    def render(self) -> Any:
        return np.full((20, 40, 3), 20 * self.count, np.uint8)


class Undrawn(Drawn):
    def render(self) -> Any:
        return None


class Uninstalled(Drawn):
    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("crayons are not installed")


@pytest.fixture
def drawn() -> Iterator[None]:
    for kind in (Drawn, Undrawn, Uninstalled):
        gymnasium.register(f"{kind.__name__}-v0", f"test_film:{kind.__name__}", max_episode_steps=9)
    yield
    for kind in (Drawn, Undrawn, Uninstalled):
        del gymnasium.registry[f"{kind.__name__}-v0"]


@pytest.mark.usefixtures("drawn", "no_renderer")
def test_other_environments_draw_themselves() -> None:
    shown = film(Policy.initial(make_task("Drawn-v0")), num_frames=7, width=40, height=40)
    assert shown.frames.shape == (7, 40, 40, 3)
    np.testing.assert_array_equal(shown.frames[:, 20, 20, 0], [0, 20, 40, 60, 80, 80, 80])
    np.testing.assert_array_equal(shown.frames[:, 2, 2], [SKY] * 7)  # the paper around it
    assert (shown.seconds, shown.playing, shown.episodic_return) == (0.05, 5, 10.0)
    assert shown.returns.tolist() == [0, 2, 4, 6, 8, 10, 10]


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Undrawn-v0", r"draws pictures of shape \(\)"),
        ("Uninstalled-v0", "cannot be drawn: crayons are not installed"),
    ],
)
def test_environments_that_cannot_are_refused(env_id: str, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        film(Policy.initial(make_task(env_id)))
