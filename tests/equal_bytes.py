"""What equal seeds make: small datasets, models, forecasts and runs, and digests of their arrays.

`tests/test_equal_bytes.py` compares them with those of an earlier tipl (commit 2ed6392), in
`data/equal_bytes.json`. Only public names and commands are used here, so that any tipl can be
recorded: `PYTHONPATH=src:tests python tests/equal_bytes.py` adds what this processor makes to the
file. A change that makes other bytes on purpose names what it changes behind the command, which
records that anew, and says so in its message.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from safetensors.numpy import load_file
from threadpoolctl import threadpool_info, threadpool_limits

import tipl
from tipl.cli import main

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]

RECORD = Path(__file__).parent / "data" / "equal_bytes.json"
LIBRARIES = ("gymnasium", "mujoco", "numba", "numpy", "scipy", "stable-baselines3", "torch")
HOST: str = llvmlite.binding.get_host_cpu_name()
PENDULUM = "InvertedPendulum-v4"

SHORT = tipl.PPOConfig(num_steps=128, num_minibatches=2, update_epochs=2)
SMALL: dict[str, Any] = {"num_trials": 4, "total_steps": 512, "seed": 3, "hidden_sizes": (8, 6)}
EAGER: dict[str, Any] = {"min_history": 2, "every": 1, "max_jumps": 4, "budget": 9.0}
OWN: dict[str, Any] = {"target": "own", "every": 1, "margin": 0.0, "horizons": (1,), "budget": 9.0}
DATASETS: dict[str, dict[str, Any]] = {
    "frozen": {"num_trials": 6, "total_steps": 768},
    "running": {"normaliser": "running", "networks": "actor+critic", "initial": "shared"},
    "vary": {"vary": ("gravity=0.7..1.4", "body_mass:pole=0.5..2")},
    "pptb": {"pptb": {"rank": 2, "window": 3, "interval": 2}},
    "jumps": {
        "total_steps": 1024,
        "jumps": {"forecaster": "relex", **EAGER, "horizons": (2, 40), "margin": 0.3},
    },
    "jumps of a model": {"jumps": {"forecaster": PENDULUM, "margin": 0.5}},
    "jumps that are not tested": {
        "total_steps": 1024,
        "jumps": {"forecaster": "line", **EAGER, "horizons": (30,), "gate": False},
    },
}
TRAINING: dict[str, Any] = {"num_steps": 3, "batch_size": 4, "width": 8}
MODELS: dict[str, dict[str, Any]] = {
    "path-joint": {"model": "path", "heads": 2, "rank": 4, "depth": 1},
    "path-path": {"model": "path", "heads": 2, "rank": 3, "depth": 1, "basis": "path"},
    "neuron": {
        "model": "neuron",
        "heads": 2,
        "memory": 16,
        "fresh_widths": (8, 4),
        "fresh_depths": (1, 2),
        "behaviour_weight": 0.1,
        "condition_on_return": True,
    },
    "wnn": {"model": "wnn"},
    "nino": {"model": "nino"},
}


def made(directory: Path) -> Iterator[tuple[str, Arrays]]:
    """Makes everything in a directory, and yields its arrays by the name of what was made."""
    with _quietly():
        for name, options in DATASETS.items():
            yield f"dataset: {name}", _dataset(directory / name, **options)
        yield "dataset: discrete actions", _dataset(directory / "discrete", "CartPole-v1")
        yield (
            "dataset: HalfCheetah",
            _dataset(directory / "cheetah", "HalfCheetah-v4", num_trials=2, total_steps=256),
        )
        main(["paths", "evaluate", str(directory / "jumps"), "--episodes", "1", "--threads", "1"])
        yield "returns of an accelerated run", arrays_in(directory / "jumps" / "evaluation")
        split = tipl.PathDataset.open(directory / "frozen").split(0.34)
        for name, options in MODELS.items():
            model = tipl.train(
                split.train,
                held_out=split.held_out,
                threads=1,
                progress=False,
                **TRAINING,
                **options,
            )
            model.save_pretrained(directory / name)
            yield f"model: {name}", arrays_in(directory / name)
        yield from _forecasts(directory)
        yield from _policies(directory)
        yield from _runs_of_sb3(directory)


def _dataset(directory: Path, env_id: str = PENDULUM, **options: Any) -> Arrays:
    tipl.collect(
        env_id,
        out=directory,
        threads=1,
        progress=False,
        config=_config(**options),
    )
    return arrays_in(directory)


def _config(**options: Any) -> tipl.CollectConfig:
    """Options by name, those of what is within one by theirs."""
    fields = tipl.CollectConfig.__dataclass_fields__
    within = {
        name: fields[name].default_factory(**value)  # type: ignore[misc]
        for name, value in options.items()
        if isinstance(value, dict)
    }
    return tipl.CollectConfig(**(SMALL | {"ppo": SHORT} | options | within))


def _forecasts(directory: Path) -> Iterator[tuple[str, Arrays]]:
    models = [str(directory / name) for name in MODELS]
    out = directory / "forecasts"
    ways = ["--starts", "0", "0.7", "--horizons", "1", "2"]
    main(["forecast", *models, "--paths", str(directory / "frozen"), "--out", str(out), *ways])
    yield "forecasts", arrays_in(out)
    main(["evaluate", str(out), "--episodes", "1", "--threads", "1"])
    yield "returns of forecasts", {"returns": arrays_in(out)["returns: forecasts"]}


def _policies(directory: Path) -> Iterator[tuple[str, Arrays]]:
    out = directory / "policy"
    main(["optimize", PENDULUM, "--out", str(out), "--hidden", "12", "8", "--among", "1"])
    yield "an optimised policy", arrays_in(out)
    policy = tipl.Policy.load(out)
    states = np.random.default_rng(0).normal(size=(5, policy.task.observation_size))
    noisy = policy.act(states, rng=np.random.default_rng(1))
    yield "actions", {"mean": policy.act(states), "drawn": noisy}


def _runs_of_sb3(directory: Path) -> Iterator[tuple[str, Arrays]]:
    """A run of stable-baselines3 that is recorded, and one that jumps."""
    from stable_baselines3 import PPO

    from tipl.integrations.sb3 import ForecastCallback, PathRecorder

    warnings.filterwarnings("ignore", ".*is out of date")  # gymnasium's import asks for it
    options: dict[str, Any] = {"n_steps": 128, "batch_size": 64, "n_epochs": 2, "device": "cpu"}
    recorded = PPO("MlpPolicy", PENDULUM, seed=5, **options)
    recorded.learn(256, callback=PathRecorder(directory / "sb3"))
    # the name of its file, which may grow, was that of a part of 3 checkpoints
    arrays = {key.replace("-00007", "-00002"): a for key, a in arrays_in(directory / "sb3").items()}
    yield "a recorded run of stable-baselines3", arrays
    jumping = PPO("MlpPolicy", PENDULUM, seed=5, **options)
    jumps = ForecastCallback(PENDULUM, **OWN)
    jumping.learn(512, callback=jumps)  # two jumps, of which one is undone
    tensors = jumping.policy.state_dict()
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    yield "a jumping run of stable-baselines3", weights | {"steps": np.array(jumping.num_timesteps)}


def arrays_in(directory: Path) -> Arrays:
    """All tensors in the safetensors files of a directory, by file and name."""
    found: Arrays = {}
    for file in sorted(directory.rglob("*.safetensors")):
        for name, array in sorted(load_file(file).items()):
            found[f"{file.stem}: {name}"] = array
    return found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without words, warnings and threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            threadpool_limits(1),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


# --- digests ---------------------------------------------------------------------------------


def digest(arrays: Arrays) -> str:
    """A sha256 of names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:32]


def outline(arrays: Arrays) -> dict[str, list[float]]:
    """Of each floating-point array some evenly spaced values; of others their digest as one.

    They are enough to see whether another processor has made the same but for rounding.
    """
    return {
        name: [float(f"{value:.7g}") for value in array.ravel()[_spread(array.size)].tolist()]
        for name, array in sorted(arrays.items())
        if array.dtype.kind == "f" and array.size
    }


def _spread(size: int, count: int = 6) -> list[int]:
    return sorted({round(i * (size - 1) / (count - 1)) for i in range(count)})


def fingerprint() -> str:
    """A digest of how this machine computes: equal ones promise equal bytes.

    It is that of a fixed small set of operations, on fixed numbers, by each library that tipl
    computes with, and of what these libraries are and take the processor for.
    """
    rng = np.random.default_rng(7)
    total = hashlib.sha256()
    names = [importlib.metadata.version(library) for library in LIBRARIES]
    names += sorted({str(library.get("architecture")) for library in threadpool_info()})
    names += [torch.backends.cpu.get_cpu_capability(), os.environ.get("NUMBA_CPU_NAME") or HOST]
    total.update(" ".join(names).encode())
    with threadpool_limits(1):
        for dtype in (np.float32, np.float64):
            for rows, inner, columns in ((1, 4, 8), (64, 8, 6), (33, 64, 65), (5, 300, 7)):
                a = rng.standard_normal((rows, inner)).astype(dtype)
                b = rng.standard_normal((inner, columns)).astype(dtype)
                for result in _operations(a, b):
                    total.update(np.ascontiguousarray(result).tobytes())
    return total.hexdigest()[:32]


def _operations(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Iterator[Any]:
    yield from (a @ b, b.T @ a.T, np.matmul(a[None], b[None]))
    yield from (np.tanh(a), np.exp(a), np.log(abs(a)), np.sin(a), np.sqrt(abs(a)))
    yield from (a.sum(axis=0), a.sum(axis=1), a.mean(), a.std(), np.linalg.norm(b, axis=1))
    yield from (np.linalg.svd(a, compute_uv=False), np.linalg.lstsq(a, a[:, :1], rcond=None)[0])
    yield _kernel(a.ravel())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, y = torch.from_numpy(a).requires_grad_(), torch.from_numpy(b)
    product = x @ y
    for result in (
        *(product, torch.nn.functional.linear(x, y.T), torch.bmm(x[None], y[None])),
        *(torch.tanh(x), torch.nn.functional.gelu(x), torch.softmax(product, -1), x.exp()),
        *(torch.nn.functional.layer_norm(product, product.shape[-1:]), x.square().mean()),
    ):
        yield result.detach().numpy()
    product.tanh().square().mean().backward()
    yield x.grad
    torch.set_num_threads(threads)


@numba.njit(fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")  # type: ignore[misc]
def _kernel(values: Any) -> Any:
    """Sums, products and divisions that the compiler may reorder, as in tipl's own kernels."""
    out = np.empty((3, len(values)), values.dtype)
    total = values.dtype.type(0)
    for i in range(len(values)):
        square = values[i] * values[i]
        out[0, i] = values[i] * (3 + square * (2 + square)) / (1 + square * (5 + square))
        out[1, i] = math.exp(-square)
        total += square * out[0, i]
    out[2] = total
    return out


# --- the record ------------------------------------------------------------------------------


def load_record() -> dict[str, Any]:
    """What an earlier tipl has made: `digests` by fingerprint and name, `outlines` by name.

    Of actions there is no digest: they were made by Numba's kernels, whose tanh rounds otherwise
    than NumPy's.
    """
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def record(chosen: Sequence[str]) -> None:
    """Adds what this tipl makes on this processor to the record.

    Args:
        chosen: names of what is made; by default all. Where its values have changed by more than
            rounding, what is recorded of it for other processors is forgotten.
    """
    kept = load_record()
    with tempfile.TemporaryDirectory() as place:
        found = dict(made(Path(place)))
    digests, outlines = kept["digests"], kept["outlines"]
    here = digests.setdefault(fingerprint(), {})
    for name in chosen or found:
        new = outline(found[name])
        if name not in outlines or not _alike(new, outlines[name]):
            outlines[name] = new
            for others in digests.values():
                others.pop(name, None)
        if name != "actions":
            here[name] = digest(found[name])
    RECORD.write_text(_readable(kept), encoding="utf-8")


def _alike(values: dict[str, list[float]], others: dict[str, list[float]]) -> bool:
    """Whether two outlines differ by rounding alone, as far as one can say."""
    return list(values) == list(others) and all(
        np.allclose(numbers, others[name], rtol=0.01, atol=0.01, equal_nan=True)
        for name, numbers in values.items()
    )


def _readable(value: Any, indent: str = "") -> str:
    """JSON with a line for each list."""
    if not isinstance(value, dict):
        return json.dumps(value)
    lines = [f"{indent} {json.dumps(k)}: {_readable(v, indent + ' ')}" for k, v in value.items()]
    end = "}" if indent else "}\n"
    return "{\n" + ",\n".join(lines) + f"\n{indent}{end}"


if __name__ == "__main__":
    record(sys.argv[1:])
