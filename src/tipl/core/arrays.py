"""The type of arrays whose shape a docstring or comment gives."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
