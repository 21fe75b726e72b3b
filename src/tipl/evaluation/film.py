"""Policies in motion: films of their episodes, as animated GIFs and as strips of stills."""

from __future__ import annotations

import base64
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

from tipl.core.atomic import write_bytes_atomically
from tipl.core.options import at_least
from tipl.core.ownership import ANIMATION, MARK, PICTURE
from tipl.envs import make_vec
from tipl.envs.gymnasium_vec import GymnasiumVec
from tipl.envs.mujoco_tasks import find_mujoco_task
from tipl.envs.registry import one_line
from tipl.envs.variants import make_one, variant_of
from tipl.errors import TiplError, one_sentence, shown
from tipl.evaluation.film_files import check_filmstrip
from tipl.evaluation.pictures import SKY, MujocoPictures, integration_state
from tipl.evaluation.returns import episode_seed, mean_actions
from tipl.policies.policy import Policy
from tipl.ppo.networks import stacked_actors

_FRAME_SECONDS = 0.04
"""Frames are about this far apart, in the time of the simulation, which is that of the film."""
_LAST_SECONDS = 1.2
"""How long an animation rests before it starts again."""
_PAPER = "#{:02x}{:02x}{:02x}".format(*SKY)
INK = "#1b2431"
_FAINT_INK = "#5d6672"

_Picture = UInt8[np.ndarray, "H W 3"]
_Draw = Callable[[], _Picture]


@dataclass(frozen=True)
class Film:
    """The beginning of an episode of a policy, whose last frame is repeated after its end.

    Raises:
        TiplError: there is no frame, or another number of returns, or `playing` is out of range.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    """RGB, the first of the episode's start"""
    returns: Float64[np.ndarray, " R"]
    """rewards summed up to each frame"""
    playing: int
    """how many frames are of the running episode, 1 to F"""
    seconds: float
    """between frames, in the time of the simulation"""
    episodic_return: float
    """of the whole episode, which may go on after the film"""

    def save(self, path: str | Path, label: str = "") -> tuple[Path, Path]:
        """Writes it as an animated GIF, and stills of it beside: see `save_filmstrip`."""
        return save_filmstrip(path, [self], [label])

    def _repr_html_(self) -> str:
        data = base64.b64encode(animation([self], [""], width=self.frames.shape[2])).decode()
        return f'<img alt="a film of an episode" src="data:image/gif;base64,{data}">'

    def __post_init__(self) -> None:
        count = len(self.frames)
        if len(self.returns) != count or not 1 <= self.playing <= count:
            raise TiplError(
                f"a film of {count} frames was given with {len(self.returns)} returns, "
                f"{self.playing} frames playing; expected a return for each frame, and 1 or more "
                "frames playing: take what tipl.evaluation.film.film returns"
            )


def film(
    policy: Policy | str | Path,
    seed: int = 0,
    *,
    num_frames: int = 68,
    every: int | None = None,
    width: int = 480,
    height: int = 280,
) -> Film:
    """Films the first episode that `evaluate` runs with the same seed: of the mean actions.

    The policy, or that in a directory, runs in its task with its physics. Between two of the F
    frames are `every` environment steps, by default as many as take about 0.04 s; width and height
    are in pixels.

    Raises:
        TiplError: no renderer works here (see `tipl.evaluation.pictures.missing_renderer`), the
            task cannot be made or draws nothing, the seed is below 0, or another number below 1.

    Examples:
        >>> film = tipl.film("runs/policy", num_frames=2, width=64, height=48)
        >>> film.frames.shape
        (2, 48, 64, 3)
        >>> pictures = film.save("runs/film.gif")
    """
    at_least(1, num_frames=num_frames, every=every, width=width, height=height)
    at_least(0, seed=seed)
    policy = Policy.of(policy)
    actor = stacked_actors(policy.params[None], policy.layout)
    normaliser = policy.observation_mean[None], policy.observation_std[None]
    acting = *normaliser, policy.observation_clip, policy.layout.squashed
    with _stage(policy, width, height) as (envs, step_seconds, draw):
        every = every or max(1, round(_FRAME_SECONDS / step_seconds))
        observations, _ = envs.reset(seed=[episode_seed(seed, 0)])
        frames, returns = [draw()], [0.0]
        total, steps, done = 0.0, 0, False
        while not done:
            actions = mean_actions(policy.task, actor, observations, *acting)
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            total += float(rewards[0])
            steps += 1
            done = bool(terminated[0] or truncated[0])
            # the environment has already started its next episode when this one is over
            if not done and steps % every == 0 and len(frames) < num_frames:
                frames.append(draw())
                returns.append(total)
    after = num_frames - len(frames)
    pictures = np.stack(frames + frames[-1:] * after)
    sums = np.array(returns + [total] * after, np.float64)
    return Film(pictures, sums, len(frames), every * step_seconds, total)


@contextmanager
def _stage(policy: Policy, width: int, height: int) -> Iterator[tuple[Any, float, _Draw]]:
    """The environment of a policy, the seconds of its steps, and what draws its present state."""
    task = policy.task
    variant, mujoco_task = variant_of(task), find_mujoco_task(task.env_id)
    if mujoco_task is not None and not (variant and "xml_file" in variant.kwargs):
        factors = {name: np.array([factor]) for name, factor in task.physics}
        with (
            MujocoPictures(mujoco_task, width, height) as pictures,
            closing(make_vec(task, 1, physics=factors)) as simulated,
        ):
            made: Any = simulated
            if variant is None:
                seconds = pictures.step_seconds
                yield made, seconds, lambda: pictures.draw(made.state()["simulation"][0])
            else:
                one = made.envs[0].unwrapped
                yield made, one.dt, lambda: pictures.draw(integration_state(one.model, one.data))
        return
    make_vec(task, 1).close()  # says what is wrong with the id or its spaces
    with warnings.catch_warnings():
        # one that cannot draw shows it when it is to draw
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"render_mode": "rgb_array", "disable_env_checker": True}
        envs = GymnasiumVec([lambda: make_one(task.env_id, variant, **options)])
    with closing(envs):
        step_seconds = 1 / (envs.metadata.get("render_fps") or 1 / _FRAME_SECONDS)
        yield envs, step_seconds, lambda: _rendered(envs, task.env_id, width, height)


def _rendered(envs: GymnasiumVec, env_id: str, width: int, height: int) -> _Picture:
    """What a Gymnasium environment draws of itself, on paper of the given size."""
    try:
        picture = np.asarray((envs.render() or (None,))[0])
    except Exception as error:  # in somebody's code
        raise TiplError(
            f"{shown(env_id)} cannot be drawn: {one_line(error)} (expected an environment with the "
            "render mode 'rgb_array'; install what it needs)"
        ) from error
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise TiplError(
            f"{shown(env_id)} draws pictures of shape {picture.shape}: expected [height, width, "
            "3]; give the environment the render mode 'rgb_array'"
        )
    image = Image.fromarray(picture.astype(np.uint8))
    return np.asarray(ImageOps.pad(image, (width, height), color=_PAPER))


def animation(
    films: Sequence[Film], labels: Sequence[str], *, columns: int | None = None, width: int = 240
) -> bytes:
    """Shows films at the same time, each under its label and return, as an animated GIF.

    It repeats for ever, after a rest. A film whose episode is over fades. All frames share one
    palette. So many films as `columns` says are in a row, by default all; the width of each is in
    pixels.

    Raises:
        TiplError: the films are not of one size, number of frames and seconds between them, not
            one for each label, or none; or a number is below 1.
    """
    _check(films, labels)
    at_least(1, columns=columns, width=width)
    columns, count = columns or len(films), len(films[0].frames)
    labelled = list(zip(films, labels, strict=True))
    (first, *rest), palette = _with_one_palette(
        [_grid([_panel(*one, f, width) for one in labelled], columns) for f in range(count)]
    )
    milliseconds = max(20, round(films[0].seconds * 100) * 10)  # the format counts in hundredths
    return _encoded(
        first,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=[milliseconds] * (count - 1) + [round(1000 * _LAST_SECONDS)],
        loop=0,
        comment=MARK.encode(),
        palette=palette,  # given, it is written once, not with every frame
        transparency=len(palette) // 3 - 1,  # stands where a pixel is as before
    )


def still_strip(films: Sequence[Film], labels: Sequence[str], *, moments: int = 5) -> bytes:
    """Shows moments of each film, from first to last, under its label and episodic return: a PNG.

    For paper, and for readers who do not want things to move.

    Raises:
        TiplError: as `animation`, or `moments` is below 1.
    """
    _check(films, labels)
    at_least(1, moments=moments)
    shown = np.linspace(0, len(films[0].frames) - 1, moments).round().astype(int).tolist()
    rows = [_row(film, label, shown) for film, label in zip(films, labels, strict=True)]
    mark = PngInfo()
    mark.add_text("Software", MARK)
    page = _grid(rows, 1).quantize(128, dither=Image.Dither.NONE)
    return _encoded(page, "PNG", pnginfo=mark)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **options)
    return buffer.getvalue()


def save_filmstrip(
    path: str | Path, films: Sequence[Film], labels: Sequence[str]
) -> tuple[Path, Path]:
    """Writes `animation` to a `.gif`, and `still_strip` beside it to a `.png`; returns their paths.

    Raises:
        TiplError: the name does not end in `.gif`, something else than a film has it, a file cannot
            be written, or the films are as `animation` does not take them.
    """
    gif, png = check_filmstrip(path)
    moving, stills = animation(films, labels), still_strip(films, labels)
    write_bytes_atomically(gif, moving, own=ANIMATION)
    write_bytes_atomically(png, stills, own=PICTURE)
    return gif, png


def _check(films: Sequence[Film], labels: Sequence[str]) -> None:
    if not films or len(films) != len(labels):
        raise TiplError(
            f"{len(films)} films were given with {len(labels)} labels; expected at least one "
            "film, and a label for each"
        )
    first, *others = (
        f"{len(film.frames)} frames of {film.frames.shape[2]}x{film.frames.shape[1]}, "
        f"{film.seconds:g} s apart"
        for film in films
    )
    for other in others:
        if other != first:
            raise TiplError(
                f"films of {first} and of {other} were given for one strip; expected films that "
                "are alike: of one task, filmed with the same numbers"
            )


def _with_one_palette(pages: Sequence[Image.Image]) -> tuple[list[Image.Image], bytes]:
    """Pages in 31 colours that suit them all, without dither: small files, and areas stay calm.

    The palette that comes with them has one more colour, which is nowhere.
    """
    some = _grid(pages[:: max(1, len(pages) // 6)], 1)
    # By coverage, small bodies get colours of their own; k-means gives the large areas theirs.
    suited = some.quantize(31, Image.Quantize.MAXCOVERAGE, kmeans=3)
    colours = bytes(suited.getpalette() or ())
    present = {colours[i : i + 3] for i in range(0, len(colours), 3)}
    nowhere = next(colour for n in range(256) if (colour := bytes((n, 0, n))) not in present)
    reduced = [page.quantize(palette=suited, dither=Image.Dither.NONE) for page in pages]
    return reduced, colours + nowhere


def _grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images of one size, row after row, with thin rules between them."""
    width, height = images[0].size
    gap = max(2, width // 120)
    rows = -(-len(images) // columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    page = Image.new("RGB", size, _PAPER)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        page.paste(image, (column * (width + gap), row * (height + gap)))
    return page


def _panel(film: Film, label: str, f: int, width: int) -> Image.Image:
    """A frame of an animation, under its label and the return up to it."""
    margin, large, small = round(width * 0.04), round(width * 0.062), round(width * 0.052)
    bar = margin + round(1.35 * large) + round(1.5 * small)
    panel = ImageOps.expand(_picture(film, f, width), (0, bar, 0, 0), fill=_PAPER)
    draw = ImageDraw.Draw(panel)
    bold, plain = _font("-Bold", large), _font("", small)
    draw.text((margin, margin), _fitted(label, bold, width - 2 * margin), INK, bold)
    so_far, total = (_number(r, film) for r in (film.returns[f], film.episodic_return))
    text = f"return {so_far} of {total}"
    draw.text((margin, margin + round(1.35 * large)), text, _FAINT_INK, plain)
    return panel


def _row(film: Film, label: str, shown: Sequence[int]) -> Image.Image:
    """Moments of a film side by side, under its label and episodic return."""
    width = film.frames.shape[2]
    margin, large, small = round(width * 0.04), round(width * 0.075), round(width * 0.065)
    pictures = []
    for f in shown:
        picture = _picture(film, f, width)
        time = f"{f * film.seconds:.1f} s"
        ImageDraw.Draw(picture).text((margin, margin // 2), time, _FAINT_INK, _font("", small))
        pictures.append(picture)
    row = ImageOps.expand(_grid(pictures, len(pictures)), (0, 2 * large, 0, 0), fill=_PAPER)
    draw = ImageDraw.Draw(row)
    bold, plain = _font("-Bold", large), _font("", large)
    text = f"episodic return {_number(film.episodic_return, film)}"
    left = row.width - margin - plain.getlength(text)
    draw.text((margin, large // 2), _fitted(label, bold, left - 2 * margin), INK, bold)
    draw.text((left, large // 2), text, INK, plain)
    return row


def _picture(film: Film, f: int, width: int) -> Image.Image:
    """A frame, which says so if the episode is over."""
    picture = Image.fromarray(film.frames[f])
    height = max(1, round(width * picture.height / picture.width))
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if f >= film.playing:
        picture = Image.blend(picture, Image.new("RGB", picture.size, _PAPER), 0.6)
        font, place = _font("", round(width * 0.065)), (round(width * 0.96), round(width * 0.02))
        ImageDraw.Draw(picture).text(place, "episode over", INK, font, anchor="ra")
    return picture


def _number(value: float, film: Film) -> str:
    """A return as short as the film's episodic return allows."""
    total = film.episodic_return
    digits = 0 if abs(total) >= 10 or float(total).is_integer() else 1
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # + 0.0: not -0


@functools.cache
def _font(weight: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{weight}.ttf"
    return ImageFont.truetype(str(path), max(1, size))


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int | float) -> str:
    """The text, cut off where it would be wider."""
    text = one_sentence(text)  # fonts know no control characters
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
