"""Training a NeuronTransformer: it learns, it is the same twice, and it says what it cost."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from path_data import make_arrays, make_metadata, write_parts
from tipl.collection.collect import collect
from tipl.envs import make_vec
from tipl.errors import TiplError
from tipl.evaluation import behaviour
from tipl.evaluation.behaviour import Elite, best_checkpoint
from tipl.forecast.base import Forecaster
from tipl.models import learning_paths as own
from tipl.models import loop
from tipl.models.learning_paths import (
    LearningPaths,
    ReturnScale,
    batch_count,
    change_scales,
    draw_horizons,
    learning_paths,
)
from tipl.models.network import LEAK, ActionError, Network
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer import losses as elite
from tipl.models.neuron_transformer import training as neuron_transformer
from tipl.models.neuron_transformer.forecaster import (
    NeuronTransformerForecaster,
    context_checkpoints,
)
from tipl.models.neuron_transformer.losses import (
    EliteLoss,
    OwnLoss,
    draw_checkpoints,
    fresh_networks,
)
from tipl.models.neuron_transformer.net import (
    Conditions,
    NeuronTransformer,
    NeuronTransformerConfig,
)
from tipl.models.train import train
from tipl.paths import PathDataset, create_dataset
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig

Array = np.ndarray[Any, np.dtype[Any]]

TASK = get_task("InvertedPendulum-v4")
T = 11  # checkpoints
SMALL: dict[str, Any] = {
    "model": "neuron", "width": 16, "heads": 2, "rounds": 1, "batch_size": 8, "num_steps": 3,
    "fresh_widths": (8,), "fresh_depths": (1, 2), "learning_rate": 1e-2, "memory": 64,
    "context": 4, "behaviour_weight": 0.5, "threads": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def short_rollouts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "NUM_ROLLOUTS", 8)
        patch.setattr(behaviour, "STEPS_OF_ROLLOUT", 50)
        patch.setattr(elite, "VISIT_EVERY", 25)
        patch.setattr(own, "STEPS_OF_ANCHOR", 32)
        patch.setattr(own, "STATES_OF_ANCHOR", 16)
        yield


def collected(directory: Path, num_trials: int, hidden_sizes: tuple[int, ...]) -> PathDataset:
    ppo = PPOConfig(num_steps=32, num_minibatches=2, update_epochs=4, learning_rate=1e-2)
    return collect(
        TASK.env_id, out=directory, num_trials=num_trials, hidden_sizes=hidden_sizes, ppo=ppo,
        total_steps=32 * (T - 1), seed=3, threads=1, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return collected(tmp_path_factory.mktemp("training") / "paths", 5, (8, 8))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    """Paths of the same task, of networks of another shape."""
    return collected(tmp_path_factory.mktemp("training") / "others", 3, (6,))


def random_walks(
    directory: Path,
    hidden_sizes: tuple[int, ...] = (8, 8),
    step: float = 0.1,
    diverged: int | None = None,
    **changes: Any,
) -> PathDataset:
    """Paths whose arrays take random steps, each array of another size; nothing is run."""
    task = changes.get("task", TASK)
    layout = actor_layout(task, hidden_sizes)
    if changes.get("networks") == "actor+critic":
        layout += ParamLayout.critic(task.observation_size, hidden_sizes)
    fields = {"layout": layout, "hidden_sizes": hidden_sizes, "num_checkpoints": T} | changes
    metadata = make_metadata(**fields)
    arrays = make_arrays(metadata)
    arrays["params"][:] = np.random.default_rng(0).normal(0, step, arrays["params"].shape)
    for n, array in enumerate(layout.unflatten(arrays["params"]).values()):
        array *= 1 + n
    arrays["params"][:] = arrays["params"].cumsum(axis=1)
    arrays["diverged"][:] = False
    if diverged is not None:
        arrays["diverged"][diverged, -1] = True
        arrays["params"][diverged, -1, 0] = np.nan
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


def learn(*datasets: PathDataset, **options: Any) -> NeuronTransformerForecaster:
    forecaster = train(datasets, **SMALL | options)
    assert isinstance(forecaster, NeuronTransformerForecaster)
    return forecaster


def weights_of(forecaster: NeuronTransformerForecaster) -> dict[str, bytes]:
    return {
        f"{target}.{name}": tensor.numpy().tobytes()
        for target, model in forecaster.models.items()
        for name, tensor in model.state_dict().items()
    }


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- learning --------------------------------------------------------------------------------


class Counting:
    """Environments whose steps are counted."""

    steps = 0

    def __init__(self, env_id: str, num_envs: int, physics: Any = None) -> None:
        self.envs, self.num_envs = make_vec(env_id, num_envs, physics=physics), num_envs

    def step(self, actions: Array) -> Any:
        Counting.steps += self.num_envs
        return self.envs.step(actions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.envs, name)


@dataclasses.dataclass
class Trained:
    model: NeuronTransformerForecaster
    env_steps: int
    sizes_learned: set[tuple[tuple[int, ...], bool]]  # of histories, and of single checkpoints


@pytest.fixture(scope="module")
def trained(paths: PathDataset, others: PathDataset) -> Trained:
    """A model of two targets from two datasets, and what its training did."""
    sizes_learned: set[tuple[tuple[int, ...], bool]] = set()
    network = LearningPaths.network

    def spy(self: LearningPaths, trials: Tensor, checkpoints: Tensor) -> Network:
        if torch.is_grad_enabled():
            sizes_learned.add((self.layout.hidden_sizes, checkpoints.shape[1] > 1))
        return network(self, trials, checkpoints)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "make_vec", Counting)
        patch.setattr(LearningPaths, "network", spy)
        Counting.steps = 0
        model = learn(paths, others, held_out=[paths], num_steps=60)
    return Trained(model, Counting.steps, sizes_learned)


@pytest.mark.parametrize(("target", "at_most"), [("own", 0.75), ("elite", 0.5)])
def test_a_short_training_does_better_than_standing_still(
    trained: Trained, target: str, at_most: float
) -> None:
    curve = trained.model.settings["curves"][target]
    assert list(curve) == ["step", "train_loss", "held_out_loss", "standing_still_loss"]
    assert curve["step"] == [25, 50, 60]
    assert 0 < curve["held_out_loss"][-1] < at_most * curve["standing_still_loss"][-1]


def test_several_datasets_of_different_networks_are_learned_from(
    trained: Trained, paths: PathDataset, others: PathDataset
) -> None:
    expected = itertools.product([(8, 8), (6,)], [True, False])
    assert trained.sizes_learned == set(expected)
    assert trained.model.training_trials == {
        paths.metadata.digest: [0, 1, 2, 3, 4],
        others.metadata.digest: [0, 1, 2],
    }
    assert trained.model.hidden_sizes == (8, 8)
    for dataset in (paths, others):
        forecast = trained.model.forecast(dataset.params()[:, :4], 2, layout=dataset.layout)
        assert np.isfinite(forecast).all()


def test_a_model_remembers_how_it_was_trained(
    trained: Trained, paths: PathDataset, others: PathDataset, tmp_path: Path
) -> None:
    model, settings = trained.model, trained.model.settings
    options = {name: SMALL[name] for name in SMALL if name not in ("threads", "progress")}
    config = NeuronTrainConfig(**options | {"num_steps": 60})
    assert settings["train"] == dataclasses.asdict(config)
    assert settings.keys() == {
        "curves", "env_steps", "elite", "train", "datasets", "high_return", "steps_per_checkpoint",
        "activation", "squashed",
    }  # fmt: skip
    assert (model.task, model.num_checkpoints, model.targets) == (TASK, T, ("elite", "own"))
    assert [m.config.context for m in model.models.values()] == [1, 4]
    assert [m.config.memory for m in model.models.values()] == [64, 0]
    known = paths.episodic_return().astype(np.float64)  # of all checkpoints
    known = known[np.isfinite(known)]
    np.testing.assert_allclose(model.return_scale, (known.mean(), known.std()))
    both = np.concatenate([d.episodic_return().ravel() for d in (paths, others)])
    assert settings["high_return"] == np.nanpercentile(both, 99)
    best = {d.metadata.digest: best_checkpoint(d) for d in (paths, others)}
    expected = max(best.items(), key=lambda item: item[1].mean_return)
    elite = dataclasses.asdict(expected[1]) | {"dataset": expected[0]}
    del elite["policy"], elite["env_steps"]
    assert settings["elite"] == elite
    model.save_pretrained(tmp_path / "model")
    copy = Forecaster.from_pretrained(tmp_path / "model")
    assert copy.settings["curves"] == settings["curves"]


def test_environment_steps_are_counted(
    trained: Trained, paths: PathDataset, others: PathDataset
) -> None:
    """Those of the search for each dataset's best policy, too."""
    elites = [best_checkpoint(dataset) for dataset in (paths, others)]
    search = sum(found.env_steps for found in elites)
    assert min(search, trained.env_steps) > 0
    assert trained.model.settings["env_steps"] == trained.env_steps + search


def test_the_model_of_the_elite_remembers_what_it_does(
    trained: Trained, paths: PathDataset, others: PathDataset, tmp_path: Path
) -> None:
    best = [best_checkpoint(dataset) for dataset in (paths, others)]
    policy = max(best, key=lambda found: found.mean_return).policy
    readout = trained.model.models["elite"].readout
    assert readout is not None
    network = Network.from_flat(torch.from_numpy(policy.params)[None, None], policy.layout)
    wanted = network.outputs(readout.observations[None, None])[0, 0]
    expected = ActionError(TASK).fitting(wanted)
    torch.testing.assert_close(readout.outputs, expected, rtol=1e-5, atol=1e-5)
    assert len(set(rows_of(readout.observations))) > 50
    trained.model.save_pretrained(tmp_path / "model")
    copy = Forecaster.from_pretrained(tmp_path / "model")
    assert isinstance(copy, NeuronTransformerForecaster)
    assert weights_of(copy) == weights_of(trained.model)


def test_a_model_without_memory_forecasts_output_layers_as_others(paths: PathDataset) -> None:
    model = learn(paths, targets=("elite",), memory=0).models["elite"]
    assert model.config.memory == 0
    assert model.readout is None


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_policy_of_all_datasets_is_the_elite(
    paths: PathDataset, others: PathDataset, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    returns = {paths.directory: 10.0 - best, others.directory: 9.0 + best}
    wanted = [paths, others][best]

    def found(dataset: PathDataset, seed: int) -> Elite:
        assert seed == 4
        return Elite(dataset.policy(1, 2), 1, 2, returns[dataset.directory], 8, 100)

    seen: list[Array] = []
    visited = behaviour.raw_observations

    def spy(params: Array, *args: Any, **options: Any) -> Array:
        seen.append(params)
        return visited(params, *args, **options)

    monkeypatch.setattr(neuron_transformer, "best_checkpoint", found)
    for module in (behaviour, elite):
        monkeypatch.setattr(module, "raw_observations", spy)
    settings = learn(paths, others, targets=("elite",), num_steps=1, seed=4).settings
    assert settings["elite"] == {
        "dataset": wanted.metadata.digest, "trial": 1, "checkpoint": 2,
        "mean_return": 10.0 - best + best, "episodes": 8,
    }  # fmt: skip
    np.testing.assert_array_equal(seen[0], [wanted.params()[1, 2]] * 8)


# --- the same twice, and blind to what it must not see ---------------------------------------


@pytest.fixture(scope="module")
def part(paths: PathDataset) -> PathDataset:
    return paths.select([0, 3, 4])


@pytest.fixture(scope="module")
def short(part: PathDataset) -> dict[str, bytes]:
    torch.manual_seed(1)
    return weights_of(learn(part, seed=5))


def test_equal_seeds_give_equal_weights(part: PathDataset, short: dict[str, bytes]) -> None:
    torch.manual_seed(2)
    assert weights_of(learn(part, seed=5)) == short
    other = weights_of(learn(part, seed=6))
    assert other.keys() == short.keys()
    equal = {name for name in short if other[name] == short[name]}
    assert {name.split(".")[1] for name in equal} == {"change_scale", "log_std_scale"}


def test_held_out_trials_do_not_change_the_weights(
    paths: PathDataset, part: PathDataset, short: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_INTERVAL", 1)
    curves = []
    for trial in (1, 2):
        model = learn(part, held_out=paths.select([trial]), seed=5)
        assert weights_of(model) == short
        assert model.training_trials == {paths.metadata.digest: [0, 3, 4]}
        curves.append(model.settings["curves"]["own"])
    for name in ("held_out_loss", "standing_still_loss"):
        assert all(math.isfinite(loss) for curve in curves for loss in curve[name])
        assert not set(curves[0][name]) & set(curves[1][name])
    assert curves[0]["train_loss"] == curves[1]["train_loss"]


def test_diverged_trials_are_left_out(tmp_path: Path) -> None:
    walks = random_walks(tmp_path / "walks", diverged=1)
    models = [learn(dataset, targets=("own",)) for dataset in (walks, walks.select([0, 2, 3, 4]))]
    assert weights_of(models[0]) == weights_of(models[1])


# --- datasets that do not go together --------------------------------------------------------


HOPPER = get_task("Hopper-v4")
UNLIKE: list[tuple[dict[str, Any], str]] = [
    ({"task": HOPPER}, r"of Hopper-v4 and those in \S+ of Inv\S+; give datasets of one task"),
    ({"num_checkpoints": 7}, r"have 7 checkpoints and those in \S+ 11; collect both alike"),
    ({"normaliser": "running"}, r"normaliser='running' .* with the frozen normaliser"),
    ({"vary": {"gravity": [0.5, 2.0]}}, r"and 1 varied physics; .* in one physics: collect"),
]
CRITIC = ({"networks": "actor+critic"}, r"networks='actor\+critic', .* learns from actors with")


@pytest.mark.parametrize(("changes", "message"), [*UNLIKE, CRITIC])
def test_datasets_that_differ_are_refused(
    tmp_path: Path, paths: PathDataset, changes: dict[str, Any], message: str
) -> None:
    unlike = random_walks(tmp_path / "unlike", **changes)
    with pytest.raises(TiplError, match=rf"/unlike .*{message}"):
        learn(paths, unlike)


@pytest.mark.parametrize(("changes", "message"), UNLIKE)
def test_held_out_paths_that_differ_are_refused(
    tmp_path: Path, paths: PathDataset, changes: dict[str, Any], message: str
) -> None:
    unlike = random_walks(tmp_path / "unlike", **changes)
    with pytest.raises(TiplError, match=rf"/unlike .*{message}"):
        learn(paths, held_out=unlike)


def test_datasets_without_or_beyond_number_are_refused(
    paths: PathDataset, others: PathDataset
) -> None:
    with pytest.raises(TiplError, match=r"2 datasets were given, .*train with model='neuron'"):
        train([paths, others], progress=False)
    with pytest.raises(TiplError, match=r"no dataset was given .*; expected one at least"):
        learn()
    with pytest.raises(TiplError, match=r"of 38 parameters were .* of 122; .*same architecture"):
        learn(paths, held_out=others)


# --- fresh networks --------------------------------------------------------------------------


def layout_of(sizes: tuple[int, ...], has_log_std: bool = True) -> ParamLayout:
    if has_log_std:
        return ParamLayout.actor(sizes[0], sizes[-1], sizes[1:-1])
    return ParamLayout.mlp("actor", sizes)


@pytest.mark.parametrize("has_log_std", [True, False])
@pytest.mark.parametrize("sizes", [(4, 7, 7, 3), (5, 2, 6), (3, 3, 4)])  # wider, narrower, equal
def test_fresh_networks_are_orthogonal(sizes: tuple[int, ...], has_log_std: bool) -> None:
    layout = layout_of(sizes, has_log_std)
    networks = fresh_networks(3, layout, generator())
    assert networks.flat().shape == (3, 1, layout.size)
    for layer, weight in enumerate(networks.weights):
        assert weight.shape[2:] == (sizes[layer + 1], sizes[layer])
        gain = 0.01 if layer == len(sizes) - 2 else math.sqrt(2)
        narrow = weight if weight.shape[2] <= weight.shape[3] else weight.mT
        expected = (gain**2 * torch.eye(narrow.shape[2])).expand(3, 1, -1, -1)
        torch.testing.assert_close(narrow @ narrow.mT, expected, rtol=1e-5, atol=1e-6)
    zeros = [*networks.biases, *([] if networks.log_std is None else [networks.log_std])]
    assert not torch.cat(zeros, dim=-1).any()


@pytest.mark.parametrize("sizes", [(3, 2, 1), (2, 3, 1)])
def test_fresh_networks_point_in_all_directions(sizes: tuple[int, ...]) -> None:
    """Each entry is as often positive as negative, and of the size that orthogonality gives."""
    count = 4000
    networks = fresh_networks(count, layout_of(sizes, False), generator())
    for weight, gain in zip(networks.weights, (math.sqrt(2), 0.01), strict=True):
        entries = weight[:, 0] / gain
        size = 1 / math.sqrt(max(weight.shape[2:]))
        assert entries.mean(dim=0).abs().max() < 5 * size / math.sqrt(count)
        spread = entries.square().mean(dim=0).sqrt()
        torch.testing.assert_close(spread, torch.full_like(spread, size), rtol=0.05, atol=0)


def test_fresh_networks_differ() -> None:
    networks = [
        fresh_networks(2, layout_of((4, 3, 1)), generator(seed)).flat() for seed in (0, 0, 1)
    ]
    assert torch.equal(networks[0], networks[1])
    assert not torch.isclose(networks[0][0, 0, :12], networks[0][1, 0, :12]).any()
    assert not torch.isclose(networks[0][..., :12], networks[2][..., :12]).any()


# --- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("more", [1, 8])  # checkpoints than the history
def test_histories_are_in_order_and_end_before_the_path_does(length: int, more: int) -> None:
    num_checkpoints, count = length + more, 400
    drawn = draw_checkpoints(count, length, num_checkpoints, generator())
    assert drawn.shape == (count, length)
    assert (drawn.diff(dim=1) > 0).all()
    assert drawn.min() == 0
    assert set(drawn[:, -1].tolist()) == set(range(length - 1, num_checkpoints - 1))
    if more == 1:
        return
    as_forecast = [
        tuple(row) == context_checkpoints(range(row[-1] + 1), length)
        for row in drawn.tolist()
        if row[-1] > 2 ** max(length - 2, 0)  # later than the last that it looks back to
    ]
    if length == 1:
        share = (drawn == 0).float().mean()
        assert 0.45 < share < 0.66  # half of them, and 1 in 8 of the others
    else:
        assert 0.42 < np.mean(as_forecast) < 0.75
        assert set(drawn[:, 0].tolist()) > set(range(4))


def test_histories_are_drawn_by_their_generator() -> None:
    first, again, other = (draw_checkpoints(9, 3, 50, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    first, again, other = (draw_horizons(first, 50, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_horizons_are_small_or_large_but_inside_the_path() -> None:
    checkpoints = torch.arange(100).repeat(200, 1)  # of paths of 101 checkpoints
    horizons = draw_horizons(checkpoints, 101, generator())
    assert horizons.dtype == torch.int64
    left = 100 - checkpoints
    assert (horizons >= 1).all()
    assert (horizons <= left).all()
    assert (horizons[:, -1] == 1).all()
    from_start = draw_horizons(torch.zeros(4000, 1).long(), 101, generator())
    shares = [(from_start == 100), (from_start <= 10), (from_start == 1)]
    # a quarter at the end; of the others half up to the square root, log(1.5) / log(100) at 1
    expected = [0.25, 0.75 * math.log(10.5) / math.log(100), 0.75 * math.log(1.5) / math.log(100)]
    np.testing.assert_allclose([share.float().mean() for share in shares], expected, atol=0.03)


@pytest.mark.parametrize(
    ("sizes", "length", "count"),
    [
        ((4, 8, 8, 1), 1, 32),
        ((400, 64, 64, 20), 1, 32),  # inputs and outputs do not count
        ((4, 16, 128, 1), 1, 16),
        ((4, 256, 1), 1, 8),
        ((4, 64, 64, 1), 4, 16),
        ((4, 256, 256, 1), 4, 4),
        ((4, 4096, 1), 4, 2),
    ],
)
def test_batches_have_fewer_networks_where_they_are_wider(
    sizes: tuple[int, ...], length: int, count: int
) -> None:
    assert batch_count(32, layout_of(sizes), length) == count
    assert batch_count(1, layout_of(sizes), length) == 2


def test_datasets_are_drawn_as_often_as_they_have_trials() -> None:
    data, _ = straight_paths()
    trials = [0, 1] * 3
    many = dataclasses.replace(
        data, params=data.params[trials], returns=data.returns[trials],
        observations=data.observations[trials],
    )  # fmt: skip
    rng = generator()
    share = np.mean([own.draw_dataset([data, many], rng) is many for _ in range(1000)])
    assert 0.7 < share < 0.8  # 6 of 8


# --- scales of changes -----------------------------------------------------------------------


def naive_scales(dataset: PathDataset) -> tuple[Array, Array]:
    """Root mean squares `[T, 3, 2]` and `[T]`, by a loop over all starts."""
    arrays = dataset.layout.unflatten(dataset.params().astype(np.float64))
    length, last = dataset.num_checkpoints, len(dataset.metadata.hidden_sizes)
    groups = [[0], list(range(1, last)) or [last], [last]]
    table, log_std = np.zeros((length, 3, 2)), np.ones(length)
    for horizon, group, kind in itertools.product(range(1, length), range(3), range(2)):
        squares = []
        for layer in groups[group]:
            array = arrays[f"actor.{layer}.{('weight', 'bias')[kind]}"]
            fan_in = array.shape[-1] if kind == 0 and layer > 0 else 64
            changes = [array[:, t + horizon] - array[:, t] for t in range(length - horizon)]
            squares.append(np.mean(np.square(changes)) * (fan_in / 64) ** 2)
        table[horizon, group, kind] = np.sqrt(np.mean(squares))
    if "log_std" in arrays:
        for horizon in range(1, length):
            array = arrays["log_std"]
            changes = [array[:, t + horizon] - array[:, t] for t in range(length - horizon)]
            log_std[horizon] = np.sqrt(np.mean(np.square(changes)))
    table[0], log_std[0] = table[1], log_std[1]
    return table, log_std


@pytest.mark.parametrize("hidden_sizes", [(5,), (5, 3), (5, 3, 2)])
def test_scales_are_root_mean_squares_of_changes(
    tmp_path: Path, hidden_sizes: tuple[int, ...]
) -> None:
    walks = random_walks(tmp_path / "walks", hidden_sizes, num_checkpoints=9, diverged=2)
    usable = walks.select([0, 1, 3, 4])
    found = change_scales([walks])
    for scales, expected in zip(found, naive_scales(usable), strict=True):
        np.testing.assert_allclose(scales, expected, rtol=1e-5)
    more = random_walks(tmp_path / "more", (4, 4), step=0.5, num_checkpoints=9)
    both = zip(naive_scales(usable), naive_scales(more), strict=True)
    for scales, (one, other) in zip(change_scales([walks, more]), both, strict=True):
        np.testing.assert_allclose(scales, np.sqrt((one**2 + other**2) / 2), rtol=1e-5)


def test_scales_between_measured_horizons_are_interpolated(tmp_path: Path) -> None:
    walks = random_walks(tmp_path / "walks", (6, 6), num_checkpoints=60)
    for scales, expected in zip(change_scales([walks]), naive_scales(walks), strict=True):
        np.testing.assert_allclose(scales[1:30], expected[1:30], rtol=0.25)  # from fewer starts
        # no horizon has the scale of the one before, as it would have from a step function
        assert (scales[1:].diff(dim=0) != 0).all()


@pytest.mark.parametrize("discrete", [False, True])
def test_scales_of_paths_that_never_move_are_positive(tmp_path: Path, discrete: bool) -> None:
    changes: dict[str, Any] = {"step": 0.0}
    if discrete:
        changes["task"] = dataclasses.replace(
            TASK, action_low=(), action_high=(), action_size=2, first_action=0
        )
    scales, log_std = change_scales([random_walks(tmp_path / "walks", **changes)])
    assert (scales > 0).all()
    assert (log_std == 1).all() if discrete else (log_std > 0).all()


# --- the error of actions --------------------------------------------------------------------


TWO = dataclasses.replace(TASK, action_size=2, action_low=(-3.0, 0.0), action_high=(3.0, 1.0))
DISCRETE = dataclasses.replace(TWO, action_low=(), action_high=(), first_action=0)
UNBOUNDED = dataclasses.replace(TASK, action_low=(-np.inf,), action_high=(np.inf,))


def outputs(*rows: list[float]) -> Tensor:
    """One network's outputs `[1, 1, S, A]`."""
    return torch.tensor([[rows]])


def test_equal_actions_have_no_error() -> None:
    """Nor have those outside the bounds."""
    for task in (TWO, DISCRETE):
        actions = 10 * torch.randn(3, 4, 5, 2, generator=generator())
        error = ActionError(task)(actions, actions)
        assert error.shape == (3, 4)
        assert not error.any()


def test_actions_count_in_units_of_half_their_range() -> None:
    error = ActionError(TWO)(outputs([1.5, 0.5], [0.0, 0.5]), outputs([0.0, 0.5], [0.0, 0.25]))
    # half a unit of the first action in one state, half a unit of the second in the other
    np.testing.assert_allclose(error, [[(0.5**2 + 0.5**2) / 4]], rtol=1e-6)


def test_actions_without_bounds_count_as_they_are() -> None:
    error = ActionError(UNBOUNDED)(outputs([1e4], [0.0]), outputs([1e4 - 2], [0.0]))
    np.testing.assert_allclose(error, [[2.0]])


def test_beyond_the_bounds_actions_are_nearly_equal_but_show_a_way_back() -> None:
    far, wanted = outputs([12.0, 0.5]).requires_grad_(), outputs([6.0, 0.5])
    error = ActionError(TWO)(far, wanted)
    np.testing.assert_allclose(error.detach(), [[(LEAK * 2) ** 2 / 2]], rtol=1e-5)
    assert error.item() < 0.01  # where 2 units apart inside the bounds are an error of 2
    error.sum().backward()
    assert far.grad is not None
    assert far.grad[0, 0, 0].tolist() == pytest.approx([LEAK**2 * 2 / 3, 0])
    # an action at the bound is nearly one that is wanted beyond it, 2 and 4 units
    inside = ActionError(TWO)(outputs([-3.0, 1.0]), outputs([-9.0, 3.0]))
    assert inside.item() == pytest.approx(LEAK**2 * (2**2 + 4**2) / 2)


def test_discrete_actions_count_by_their_probabilities() -> None:
    logits = outputs([0.0, math.log(3.0)], [7.0, 7.0])  # 1/4 and 3/4; halves
    error = ActionError(DISCRETE)(logits, outputs([5.0, 5.0], [-1.0, -1.0]))
    np.testing.assert_allclose(error, [[0.25**2 / 2]], rtol=1e-5)


def test_outputs_to_fit_are_never_far_outside_the_bounds() -> None:
    given = torch.tensor([[1.5, 0.25], [9.0, 3.0], [-4.0, -1.0]])
    # 6 above, 2 above, 1 below and 1 below, of which the leak is left
    expected = [[1.5, 0.25], [3 + 6 * LEAK, 1 + 2 * LEAK], [-3 - LEAK, -LEAK]]
    found = ActionError(TWO).fitting(given)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    low, high = map(torch.from_numpy, TWO.action_bounds)
    torch.testing.assert_close(found.clamp(low, high), given.clamp(low, high))
    without = torch.tensor([[1e4], [-7.0]])
    assert torch.equal(ActionError(UNBOUNDED).fitting(without), without)


def test_logits_to_fit_have_a_mean_of_zero() -> None:
    logits = torch.randn(3, 4, 5, 2, generator=generator()) + 9
    found = ActionError(DISCRETE).fitting(logits)
    torch.testing.assert_close(found.mean(dim=-1), torch.zeros(3, 4, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.softmax(dim=-1), logits.softmax(dim=-1))


# --- the loss of `own` -----------------------------------------------------------------------


def config(**changes: Any) -> NeuronTrainConfig:
    options = {name: SMALL[name] for name in SMALL if name not in ("threads", "progress")}
    return NeuronTrainConfig(**options | changes)


def new_model(*scales: Tensor, memory: int = 0) -> NeuronTransformer:
    sizes = NeuronTransformerConfig(4, 1, T, 8, rounds=1, heads=2, memory=memory)
    return NeuronTransformer(sizes, *scales)


@pytest.mark.parametrize("behaviour_weight", [0.0, 0.5, 4.0])
def test_standing_still_costs_one_of_each_error(
    paths: PathDataset, others: PathDataset, behaviour_weight: float
) -> None:
    datasets = [paths, others]
    learning = [learning_paths(dataset, ReturnScale(0.0, 1.0), 0) for dataset in datasets]
    loss = OwnLoss(learning, config(behaviour_weight=behaviour_weight), TASK)
    model, rng = new_model(*change_scales(datasets)), generator()
    with torch.no_grad():
        mean = np.mean([loss(model, rng, still=True).item() for _ in range(150)])
    assert mean == pytest.approx(1 + behaviour_weight, rel=0.3)


def test_what_is_learned_from_is_all_that_the_trials_did(paths: PathDataset) -> None:
    data = learning_paths(paths.select([3, 1]), ReturnScale(20.0, 4.0), 0)
    np.testing.assert_array_equal(data.params, paths.params()[[3, 1]])
    assert data.layout == layout_of((4, 8, 8, 1))
    returns = paths.episodic_return()[[3, 1]]
    np.testing.assert_allclose(data.returns, (returns - 20) / 4, rtol=1e-6)
    assert data.anchors.tolist() == [1, 2, 4, 5, 6, 8, 9, 10]  # not the untrained network
    assert data.observations.shape == (2, 8, 16, 4)
    assert data.env_steps == 2 * 8 * 32
    by_itself = behaviour.visited_observations(
        np.concatenate(paths.params()[[3, 1]][:, data.anchors.numpy()]), paths.layout, TASK, 32,
        noise=0.2, seed=0,
    )  # fmt: skip
    np.testing.assert_array_equal(data.observations.flatten(0, 1), by_itself[:, ::2])


def test_what_is_too_large_for_the_memory_is_read_as_it_is_drawn(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = learning_paths(paths.select([3, 1]), ReturnScale(20.0, 4.0), 0)
    monkeypatch.setattr(own, "IN_MEMORY", 0)
    monkeypatch.setattr(own, "BLOCK", 1)
    monkeypatch.setattr(PathDataset, "params", _of_few(PathDataset.params, 1))
    stored = learning_paths(paths.select([3, 1]), ReturnScale(20.0, 4.0), 0)
    assert tuple(stored.params.shape) == tuple(in_memory.params.shape)
    assert torch.equal(stored.observations, in_memory.observations)
    one, other = (
        OwnLoss([data], config(behaviour_weight=0.5), TASK) for data in (in_memory, stored)
    )
    monkeypatch.undo()
    model = new_model(*change_scales([paths]))
    with torch.no_grad():
        assert [one(model, generator(n)) for n in range(4)] == [
            other(model, generator(n)) for n in range(4)
        ]
    monkeypatch.setattr(own, "IN_MEMORY", 0)
    monkeypatch.setattr(own, "LARGEST_WEIGHT", 1e-3)
    with pytest.raises(TiplError, match=r"trial \d of .* has the weight"):
        learning_paths(paths, ReturnScale(20.0, 4.0), 0)


def _of_few(read: Any, most: int) -> Any:
    """A way to read that fails if it is asked for more than a few trials at once."""

    def reading(paths: PathDataset, *args: Any) -> Any:
        assert paths.num_trials <= most
        return read(paths, *args)

    return reading


def test_no_policy_is_run_where_actions_do_not_count(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def visited_observations(*_: Any, **__: Any) -> None:
        pytest.fail("policies were run")

    monkeypatch.setattr(own, "visited_observations", visited_observations)
    small = SMALL | {"targets": ("own",), "behaviour_weight": 0.0}
    model = train(paths.select([0, 1]), held_out=paths.select([2]), **small)
    assert model.settings["env_steps"] == 0
    with pytest.raises(pytest.fail.Exception):
        train(paths.select([0, 1]), **small | {"behaviour_weight": 0.1})


def straight_paths() -> tuple[LearningPaths, Tensor]:
    """Two paths that go straight on, and their changes with each checkpoint `[2, P]`."""
    layout = actor_layout(TASK, (5, 3))
    # so small that all actions are inside their bounds
    start, step = 0.05 * torch.randn(2, 2, 1, layout.size, generator=generator())
    params = start + step * torch.arange(float(T))[:, None]
    anchors = torch.tensor([2, 5, 10])
    observations = torch.randn(2, 3, 16, 4, generator=generator())
    returns = torch.randn(2, T, generator=generator())
    return LearningPaths(params, layout, returns, anchors, observations), step[:, 0]


def test_policies_are_compared_where_the_nearest_anchor_was() -> None:
    data, _ = straight_paths()
    trials = torch.tensor([0, 1, 0, 1, 1])
    seen = data.observations_near(trials, torch.tensor([0, 3, 4, 7, 10]))
    assert torch.equal(seen, data.observations[trials, [0, 0, 1, 1, 2]])


@pytest.mark.parametrize("condition_on_return", [False, True])
def test_who_knows_the_paths_has_no_loss(condition_on_return: bool) -> None:
    data, step = straight_paths()
    lengths, returns = set[int](), list[Tensor]()

    class Oracle(NeuronTransformer):
        off = 0.0

        def forward(self, start: Network, asked: Conditions) -> Network:
            length = asked.horizon.shape[1]
            lengths.add(length)
            candidates = data.params[:, asked.checkpoint.long()]  # [2, B, L, P]
            matches = (candidates == start.flat()).all(dim=(-2, -1))  # [2, B]
            assert (matches.sum(dim=0) == 1).all()  # they are the checkpoints that they are said
            assert (asked.horizon >= 1).all()
            assert (asked.checkpoint + asked.horizon <= T - 1).all()
            trials = matches.int().argmax(dim=0)
            later = (asked.checkpoint + asked.horizon).long()
            truth = data.returns[trials[:, None], later]  # of the checkpoint that is forecast
            hidden = asked.later_return.isnan()
            assert torch.equal(hidden.all(dim=1), hidden.any(dim=1))  # of a path all or none
            assert torch.equal(asked.later_return[~hidden], truth[~hidden])
            returns.append(asked.later_return.flatten())
            change = step[trials][:, None] * asked.horizon[..., None]
            return Network.from_flat(change * (1 + self.off), data.layout)

    loss = OwnLoss([data], config(condition_on_return=condition_on_return), TASK)
    oracle, rng = Oracle(new_model().config), generator()
    assert max(loss(oracle, rng).item() for _ in range(40)) < 1e-6
    assert lengths == {1, 2, 3, 4}
    hidden = torch.cat(returns).isnan().float().mean()
    assert 0.4 < hidden < 0.6 if condition_on_return else hidden == 1
    oracle.off = 0.1
    assert min(loss(oracle, rng).item() for _ in range(10)) > 1e-3


# --- the loss of `elite` ---------------------------------------------------------------------


def elite_loss(paths: PathDataset, policy: Policy | None = None, **changes: Any) -> EliteLoss:
    data = [learning_paths(paths, ReturnScale(0.0, 1.0), 0, anchors=0)]
    return EliteLoss(policy or paths.policy(2, 9), TASK, data, config(**changes))


class Carrier(NeuronTransformer):
    """Moves networks by typical changes, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(new_model().config)
        self.given: list[tuple[Network, Conditions]] = []
        self.made: list[Tensor] = []

    def forward(self, start: Network, asked: Conditions) -> Network:
        change = (start - start) + self.scales(start, asked.horizon).map(lambda a: 0.1 * a)
        self.given.append((start, asked))
        self.made.append((start + change).flat())
        return change


def test_networks_of_all_kinds_are_carried(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elite, "VISITING_STEPS", 10)
    loss = elite_loss(paths, fresh_widths=(3, 5), fresh_depths=(1, 3), batch_size=4)
    assert len(loss.observations) == loss.env_steps == 8 * 50
    carrier, rng = Carrier(), generator()
    for _ in range(300):
        loss(carrier, rng)
    kinds: list[str] = []
    stored = {row.tobytes() for row in paths.params().reshape(-1, paths.layout.size)}
    before = torch.empty(0)
    for (start, asked), made in zip(carrier.given, carrier.made, strict=True):
        assert not asked.checkpoint.any()
        assert (asked.horizon == T - 1).all()
        assert asked.later_return.isnan().all()
        sizes = tuple(bias.shape[-1] for bias in start.biases[:-1])
        if torch.equal(start.flat(), before):
            kinds.append("carried")
        elif all(row.tobytes() in stored for row in start.flat().numpy()):
            kinds.append("stored")
        else:
            kinds.append(f"fresh {sizes}")
        before = made
    shares = {kind: kinds.count(kind) / len(kinds) for kind in kinds}
    fresh = {f"fresh {(width,) * depth}" for width in (3, 5) for depth in (1, 3)}
    assert shares.keys() == {"carried", "stored", *fresh}
    assert 0.09 < shares["carried"] < 0.21
    assert 0.23 < shares["stored"] < 0.37
    assert len(loss.visited) == 11 * 4 * 10  # before every 25th batch but the first
    assert loss.env_steps == 8 * 50 + 11 * 4 * 10


def test_who_acts_as_the_elite_has_no_error(paths: PathDataset) -> None:
    loss = elite_loss(paths)
    copies = loss.elite.map(lambda a: a.expand(3, *a.shape[1:]))
    np.testing.assert_array_equal(copies.flat()[0, 0], paths.params()[2, 9])
    seen = loss.draw_seen((3, 1, elite.STATES), generator())
    assert loss.error(copies, copies, seen).item() < 1e-10
    assert copies.log_std is not None
    wider = dataclasses.replace(copies, log_std=copies.log_std + 1)
    assert loss.error(copies, wider, seen).item() == pytest.approx(elite.LOG_STD_WEIGHT)
    other = copies.map(lambda a: 2 * a)
    assert loss.error(copies, other, seen).item() > 1e-3


def rows_of(observations: Tensor) -> list[bytes]:
    return [row.tobytes() for row in observations.reshape(-1, 4).numpy()]


def test_networks_are_compared_where_the_elite_goes(paths: PathDataset) -> None:
    loss = elite_loss(paths)
    seen = loss.draw_seen((3, 1, elite.STATES), generator())
    assert seen.shape == (3, 1, elite.STATES, 4)
    assert set(rows_of(seen)) <= set(rows_of(loss.observations))
    assert len(set(rows_of(seen))) > 150  # of 400: each network has its own


def test_the_memory_is_renewed_as_often_as_networks_are_run(paths: PathDataset) -> None:
    """Before batches 0, 25 and 50; half of it, once they have been run, is where they went."""
    loss, model, rng = elite_loss(paths, memory=40), new_model(memory=40), generator()
    loss.elite = loss.elite.map(lambda a: 100 * a)  # whose outputs are far outside the bounds
    readout = model.readout
    assert readout is not None
    remembered: list[Tensor] = []
    for _ in range(51):
        loss(model, rng)
        remembered.append(readout.observations.clone())
        given = loss.elite.outputs(remembered[-1][None, None])[0, 0]
        assert given.abs().max() > 2 * TASK.action_high[0]
        expected = loss.action_error.fitting(given)
        torch.testing.assert_close(readout.outputs, expected, rtol=1e-4, atol=1e-4)
    renewed = [n for n in range(1, 51) if not torch.equal(remembered[n], remembered[n - 1])]
    assert renewed == [25, 50]
    seen = loss.observations, loss.visited
    elites, visited = (set(rows_of(loss.normalised(rows))) for rows in seen)
    assert set(rows_of(remembered[0])) <= elites
    for later in (remembered[25], remembered[50]):
        assert set(rows_of(later[:20])) <= visited
        assert set(rows_of(later[20:])) <= elites


@pytest.mark.parametrize("memory", [64, 31, 0])
def test_output_layers_are_fitted_on_some_of_the_memory_in_each_batch(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(elite, "FITTED_ROWS", 16)
    model, rng, seen = new_model(memory=memory), generator(), []
    readout = model.readout
    if readout is not None:
        readout.register_forward_pre_hook(lambda module, _: seen.append(module.rows))
    loss = elite_loss(paths, memory=memory)
    for _ in range(12):
        loss(model, rng)
    every_fourth = {str(slice(first, None, 4)) for first in range(4)}
    assert {*map(str, seen)} == {64: every_fourth, 31: {str(slice(None))}, 0: set()}[memory]
    assert readout is None or readout.rows == slice(None)  # all of it, afterwards


def test_of_what_carried_networks_see_some_is_kept(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("VISIT_EVERY", 1), ("VISITING_STEPS", 6), ("KEPT_OF_VISIT", 10)):
        monkeypatch.setattr(elite, name, value)
    visits: list[Array] = []
    visited = behaviour.raw_observations

    def spy(*args: Any, **options: Any) -> Array:
        visits.append(visited(*args, **options))
        return visits[-1]

    monkeypatch.setattr(elite, "raw_observations", spy)
    loss, rng = elite_loss(paths), generator()
    before = loss.env_steps
    for _ in range(4):
        loss(Carrier(), rng)
    rows = [{*rows_of(torch.as_tensor(one.reshape(-1, one.shape[-1])))} for one in visits]
    kept = loss.visited.split(10)
    assert len(kept) == len(rows) == 3
    for those, of_visit in zip(kept, rows, strict=True):
        assert {*rows_of(those)} <= of_visit
    # steps are counted whether what they show is kept or not
    assert loss.env_steps - before == sum(one.shape[0] * one.shape[1] for one in visits)


def test_what_networks_see_depends_on_the_seed_of_the_training(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    visited = behaviour.raw_observations

    def spy(*args: Any, seed: int, **options: Any) -> Array:
        seeds.append(seed)
        return visited(*args, seed=seed, **options)

    for module in (behaviour, elite):
        monkeypatch.setattr(module, "raw_observations", spy)
    monkeypatch.setattr(elite, "VISIT_EVERY", 1)
    monkeypatch.setattr(elite, "VISITING_STEPS", 2)
    runs = []
    for seed in (0, 0, 1):
        seeds.clear()
        loss, rng = elite_loss(paths, seed=seed), generator()
        for _ in range(4):
            loss(Carrier(), rng)
        runs.append((loss.observations, list(seeds)))
    assert runs[0][1] == runs[1][1]
    assert len({*runs[0][1], *runs[2][1]}) == 2 * 4  # the elite's and three of carried networks
    assert torch.equal(runs[0][0], runs[1][0])
    assert not torch.equal(runs[0][0], runs[2][0])


def test_jumps_are_penalised_by_their_size(paths: PathDataset) -> None:
    losses = [elite_loss(paths, jump_penalty=weight) for weight in (0.0, 2.0)]
    model = Carrier()
    without, with_penalty = (loss(model, generator()).item() for loss in losses)
    assert with_penalty - without == pytest.approx(2 * 0.1**2, rel=1e-3)


# --- discrete actions ------------------------------------------------------------------------


def test_a_task_with_discrete_actions_is_learned_from(tmp_path: Path) -> None:
    ppo = PPOConfig(num_steps=32, num_minibatches=2, update_epochs=1)
    paths = collect(
        "CartPole-v1", out=tmp_path / "paths", num_trials=2, hidden_sizes=(4,), ppo=ppo,
        total_steps=96, threads=1, progress=False,
    )  # fmt: skip
    model = learn(paths, held_out=paths, num_steps=2)
    curves = model.settings["curves"]
    assert all(math.isfinite(curves[target]["held_out_loss"][0]) for target in ("own", "elite"))
    assert "log_std" not in model.optimize(paths.policy(0, 0)).layout.names


@pytest.mark.parametrize("context", [1, 2, 4, 7])
def test_what_is_attended_to_in_training_is_what_a_forecaster_attends_to(context: int) -> None:
    for _ in range(2):  # the second time as they were found before
        for end in range(30):
            chosen = context_checkpoints(tuple(range(end + 1)), context)
            assert context_checkpoints(range(end + 1), context) == chosen
    found = context_checkpoints.cache_info()
    context_checkpoints(range(30), context)
    assert context_checkpoints.cache_info().hits == found.hits + 1
