"""`tipl film`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.errors import TiplError
from tipl.evaluation import film as films
from tipl.policies.policy import Policy

__all__ = ["film"]


def film(
    policies: Positional[tuple[Path, ...]],
    /,
    out: Path,
    labels: tuple[str, ...] = (),
    seed: int = 0,
) -> None:
    """Film policies of one task side by side: an animated GIF, and a strip of stills.

    Each acts by its mean from the same start. MuJoCo needs a renderer, and says which to install
    if there is none.

    Args:
        policies: directories of policies (`tipl optimize`)
        out: the GIF to write; the stills are beside it, with the ending .png
        labels: one for each policy (default: the names of the directories)
        seed: of the episode's start
    """
    films.check_gif_name(out)
    labels = labels or tuple(path.resolve().name for path in policies)
    if not policies or len(labels) != len(policies):
        raise TiplError(
            f"{len(policies)} policies and {len(labels)} labels were given; expected one policy "
            "or more, and a label for each, or no labels"
        )
    loaded = [Policy.load(path) for path in policies]
    gif, png = films.save_filmstrip(out, [films.film(one, seed) for one in loaded], labels)
    print(f"{gif}: the animation; {png}: stills of it")
