"""What trained forecasters have in common that read the actors of a task, of any hidden sizes."""

from __future__ import annotations

from tipl.errors import TiplError
from tipl.forecast.base import TrainedForecaster
from tipl.policies.layout import ParamLayout, actor_layout

__all__ = ["AnyArchitectureForecaster"]


class AnyArchitectureForecaster(TrainedForecaster):
    """Reads networks of any hidden sizes; without a layout, those that it was trained on."""

    def _check_layout(self, layout: ParamLayout) -> None:
        expected = actor_layout(self.task, layout.hidden_sizes)
        if layout != expected:
            raise TiplError(
                f"weights laid out as {layout} were given, but {self.name} reads the actors of "
                f"{self.task.env_id} alone: {expected}; give policies of this task, without a "
                "critic"
            )

    def _check_size(self, size: int, layout: ParamLayout | None) -> None:
        layout = layout or actor_layout(self.task, self.hidden_sizes)
        if size != layout.size:
            raise TiplError(
                f"a history of {size} parameters was given, but networks with hidden layers of "
                f"{layout.hidden_sizes} units have {layout.size}; give the layout of the weights"
            )
