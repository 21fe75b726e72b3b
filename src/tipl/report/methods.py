"""Methods: what tables and figures call each one, how it is drawn, and what it is.

Models stand here by the entries of `tipl.models.kinds`, rivals by those of
`tipl.experiments.rivals`, and whatever else is compared by an entry below.

The name of a result's method may go on behind that of its entry: with the options of a model
("PathTransformer (joint basis)"), or with how jumps are tested ("RELEX, gated").
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tipl.models.kinds import all_kinds
from tipl.report.palette import ACCENT, BLUE, GOLD, GREEN, GREY, PALETTE, PURPLE

DASHES = ("-", "--", ":", "-.")  # tells methods of one colour apart


@dataclass(frozen=True)
class Method:
    """One method, the same in all tables and figures."""

    name: str  # what they call it, or how its name begins
    colour: str  # of its lines and dots
    sentence: str = ""  # what it does
    key: str = ""  # short name in files and directories, where it has one
    dashes: str | None = None  # by default solid, or what tells it from others of its colour
    drawn: bool = True  # whether curves over the horizon have room for it, beside tables
    ours: bool = False  # whether tipl trains it to be used, and tables set it off
    elsewhere: bool = False  # whether its forecasts do not aim at the true later weights


_KNOWN = (
    Method("PPO", BLUE, "PPO with CleanRL's hyperparameters, left alone. All others are this PPO "
           "and something that replaces its weights now and then.", "ppo"),
    Method("true later checkpoint", BLUE),
    Method("untrained", GREY),
    Method("random walk", GREY, dashes="--"),
    Method("NeuronTransformer (elite)", GOLD, ours=True, elsewhere=True),
    Method("best stored policy, copied", PURPLE, "The best policy of the stored training paths "
           "replaces the untrained network, and PPO goes on from there. It fits one architecture "
           "only.", "copy", drawn=False),
    Method("PPTB", GREY, "Path trimming and boosting: every 10 iterations the minor directions of "
           "the path are cut, and its first two are followed further (rank 16, boost 0.1).",
           "pptb"),
    Method("RELEX, gated", GREEN, "Jumps to RELEX's extrapolation of the trial's own path, which "
           "needs no training. Each one is tested by episodes first, and undone if the next "
           "rollout is worse.", "relex"),
    Method("NiNo", GOLD, "Jumps five checkpoints ahead by a neural-graph nowcaster, at fixed "
           "intervals and without a test, as in its paper; undone if the next rollout is worse.",
           "nino"),
    Method("NeuronTransformer, gated", ACCENT, "Jumps to the NeuronTransformer's forecast, from "
           "the untrained network on. Each one is tested by episodes first, and undone if the next "
           "rollout is worse.", "ours", ours=True),
    Method("NeuronTransformer, no gate", ACCENT, "The same forecast of the untrained network, once "
           "and without a test.", "ours-blind", dashes="--", ours=True),
)  # fmt: skip
_METHODS = {method.name: method for method in _KNOWN}


def register_method(method: Method) -> None:
    """Makes a method known to tables and figures; one of the same name is replaced."""
    _METHODS[method.name] = method


def method_of(name: str) -> Method:
    """The method of which a name speaks: the one with the longest name that it begins with.

    An unheard-of one has one of three colours, chosen by a checksum of its name, so that it is the
    same everywhere.
    """
    models = (
        Method(begin, PALETTE.get(colour, colour), kind.summary, ours=not kind.rival)
        for kind in all_kinds()
        for begin, colour in kind.colours.items()
    )
    known = [m for m in (*_METHODS.values(), *models) if name.startswith(m.name)]
    if known:
        return max(known, key=lambda method: len(method.name))
    return Method(
        name, (GREEN, PURPLE, GOLD)[zlib.crc32(name.encode(errors="backslashreplace")) % 3]
    )


def method_with_key(key: str) -> Method:
    """The method with a key."""
    return next(method for method in _METHODS.values() if method.key == key)


def drawn_methods(names: Sequence[str]) -> list[str]:
    """Those for which curves over the horizon have room, each once."""
    return [name for name in dict.fromkeys(names) if method_of(name).drawn]


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How the lines of methods in one figure are drawn: Matplotlib's keywords by name."""
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        method = method_of(name)
        same = sum(style["color"] == method.colour for style in styles.values())
        dashes = method.dashes or DASHES[same % len(DASHES)]
        styles[name] = {"color": method.colour, "linestyle": dashes}
    return styles
