"""What commands make policies of, and what they print of those that they have tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tipl.core.terminal import console
from tipl.errors import TiplError
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

if TYPE_CHECKING:
    from tipl.models.proposals import TriedPolicy


def policy_or_task(
    policy: Path | None, hidden: Sequence[int], task: TaskSpec, seed: int
) -> str | Policy:
    """The policy in a directory, or the id of the task for a fresh one of given hidden units.

    What is impossible waits for nothing heavy.

    Raises:
        TiplError: both were given, there is no policy, or none can be made of such units.
    """
    if policy is None:
        if hidden:
            Policy.initial(task, seed, hidden)
        return task.env_id
    if hidden:
        raise TiplError(
            f"--policy {policy} and --hidden {' '.join(map(str, hidden))} were given, but a policy "
            "has hidden units of its own; give one of them"
        )
    return Policy.load(policy)


def print_tried(made: TriedPolicy) -> None:
    """Prints the proposals that a policy was chosen among, in order, with what they returned."""
    if not made.tried:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("proposal", "return"):
        table.add_column(name, justify="right" if name == "return" else "left")
    for one in made.tried:
        table.add_row(Text(one.name), f"{one.episodic_return:,.1f}")
    console().print(table)


def made_data(made: TriedPolicy, out: Path) -> dict[str, Any]:
    """What is said of a policy that inference has made."""
    tried = [{"name": one.name, "episodic_return": one.episodic_return} for one in made.tried]
    task = made.task.label
    return {"policy": out, "task": task, "env_steps": made.env_steps, "tried": tried}
