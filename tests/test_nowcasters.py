"""WNN and NiNo: what they know of a network, standing still, learning, files and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from path_data import make_arrays, make_metadata, write_parts
from rounding import assert_equal_but_for_rounding
from tipl.core import storage
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster
from tipl.models.kinds import loss_sentence, make_config
from tipl.models.learning_paths import ReturnScale, change_scales, learning_paths
from tipl.models.network import Network
from tipl.models.nowcasters.forecaster import NiNoForecaster, NowcasterForecaster, WNNForecaster
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
from tipl.models.nowcasters.training import NowcastLoss, last_checkpoints
from tipl.models.train import train
from tipl.paths import PathDataset, create_dataset
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task

Array = np.ndarray[Any, np.dtype[Any]]

TASK = get_task("InvertedPendulum-v4")
HIDDEN = (6, 5)
LAYOUT = actor_layout(TASK, HIDDEN)
T = 9
KINDS = ("wnn", "nino")
CLASSES = {"wnn": WNNForecaster, "nino": NiNoForecaster}
SMALL: dict[str, Any] = {"width": 8, "num_steps": 3, "progress": False}

DEPTH = {"sums": 12, "terms": 16}
"""Of the rounding in a model of width 8: three rounds of four sums over two units' states each."""

both_kinds = pytest.mark.parametrize("kind", KINDS)


def make_model(kind: str, width: int = 8, *, untrained: bool = False) -> Nowcaster:
    """A model of which no parameter is zero, unless it is an untrained one."""
    torch.manual_seed(0)
    scales = torch.linspace(0.02, 0.1, T)
    table = scales[:, None, None] * torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    model = (
        WNN(NowcasterConfig(T, width), table, scales)
        if kind == "wnn"
        else NiNo(NiNoConfig(T, width, TASK.observation_size, TASK.action_size), table, scales)
    )
    if not untrained:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def make_forecaster(kind: str, **options: Any) -> NowcasterForecaster:
    return CLASSES[kind](make_model(kind, **options), TASK, HIDDEN)


def random_history(length: int, layout: ParamLayout = LAYOUT, count: int = 3) -> Array:
    walks = np.random.default_rng(0).normal(0, 0.1, (count, length, layout.size)).cumsum(axis=1)
    return np.asarray(walks, np.float32)


def straight_paths(directory: Path, count: int = 12) -> PathDataset:
    """Paths that each go straight on, from a start and in a direction of their own."""
    rng = np.random.default_rng(0)
    metadata = make_metadata(num_trials=count, num_checkpoints=T)
    starts, directions = rng.normal(size=(2, count, 1, metadata.layout.size))
    arrays = make_arrays(metadata)
    arrays["params"] = (starts + 0.1 * np.arange(T)[:, None] * directions).astype(np.float32)
    arrays["diverged"][:] = False
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return straight_paths(tmp_path_factory.mktemp("nowcasters") / "paths")


# --- what they know ---------------------------------------------------------------------------


def permuted(network: Network, orders: list[Tensor]) -> Network:
    """The network with the hidden units of each layer in another order."""
    weights, biases = list(network.weights), list(network.biases)
    for layer, order in enumerate(orders):
        weights[layer] = weights[layer][:, :, order]
        biases[layer] = biases[layer][:, :, order]
        weights[layer + 1] = weights[layer + 1][..., order]
    return Network(weights, biases, network.log_std)


@both_kinds
@torch.inference_mode()
def test_permuting_hidden_units_permutes_the_forecast(kind: str) -> None:
    model = make_model(kind).double()
    history = Network.from_flat(torch.tensor(random_history(CONTEXT)).double(), LAYOUT)
    horizons = torch.tensor([[1, 4, 8]]).expand(3, -1)
    rng = torch.Generator().manual_seed(0)
    orders = [torch.randperm(units, generator=rng) for units in HIDDEN]
    found = model(permuted(history, orders), horizons)
    expected = permuted(model(history, horizons), orders)
    torch.testing.assert_close(found.flat(), expected.flat(), rtol=1e-12, atol=1e-13)
    assert expected.flat().abs().min() > 0


@both_kinds
@pytest.mark.parametrize("index", [0, 30, 60, LAYOUT.size - 2, LAYOUT.size - 1])
@torch.inference_mode()
def test_a_wnn_knows_one_parameter_and_a_nino_its_neighbours(kind: str, index: int) -> None:
    history = random_history(CONTEXT)
    model = make_forecaster(kind)
    before = model.forecast(history, 3) - history[:, -1]
    history[:, -1, index] += 0.5
    after = model.forecast(history, 3) - history[:, -1]
    changed = (np.abs(after - before) > 1e-6).any(axis=0)
    assert changed[index]
    assert changed.sum() == 1 if kind == "wnn" else changed.sum() > 10


@torch.inference_mode()
def test_a_wnn_forecasts_equal_pasts_of_one_kind_alike() -> None:
    model, history = make_forecaster("wnn"), random_history(CONTEXT)
    history[:] = np.array([0.1, 0.2, 0.0, 0.3, 0.5])[:, None]
    arrays = LAYOUT.unflatten(model.forecast(history, 2)[0])
    values = [np.unique(array) for array in arrays.values()]
    assert [len(found) for found in values] == [1] * 7
    assert len(np.unique(values)) == 7


@torch.inference_mode()
def test_a_nino_tells_inputs_apart_but_not_hidden_units() -> None:
    model, history = make_forecaster("nino"), random_history(CONTEXT)
    history[:] = np.array([0.1, 0.2, 0.0, 0.3, 0.5])[:, None]
    arrays = LAYOUT.unflatten(model.forecast(history, 2)[0])
    first, middle = arrays["actor.0.weight"], arrays["actor.1.weight"]
    assert_equal_but_for_rounding(first, first[:1].repeat(6, axis=0), **DEPTH)
    assert np.ptp(first, axis=1).min() > 1e-3
    assert_equal_but_for_rounding(middle, np.full_like(middle, middle[0, 0]), **DEPTH)


@both_kinds
def test_only_the_last_five_checkpoints_count(kind: str) -> None:
    model, history = make_forecaster(kind), random_history(CONTEXT + 2)
    expected = model.forecast(history[:, 2:], [1, 5])
    np.testing.assert_array_equal(model.forecast(history, [1, 5]), expected)


@both_kinds
@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_first_checkpoint_of_a_short_history_is_repeated(kind: str, length: int) -> None:
    model, history = make_forecaster(kind), random_history(length)
    longer = np.concatenate([history[:, :1].repeat(CONTEXT - length, axis=1), history], axis=1)
    np.testing.assert_array_equal(model.forecast(history, [1, 5]), model.forecast(longer, [1, 5]))


def test_training_repeats_it_as_well() -> None:
    ends = torch.tensor([1, 4, 7])
    expected = [[0, 0, 0, 0, 1], [0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
    assert last_checkpoints(ends).tolist() == expected


@both_kinds
def test_each_horizon_has_a_forecast_of_its_own_up_to_the_longest(kind: str) -> None:
    model, history = make_forecaster(kind), random_history(CONTEXT)
    together = model.forecast(history, [1, 2, T - 1, T, 100])
    for column, horizon in enumerate((1, 2, T - 1, T, 100)):
        alone = model.forecast(history, horizon)
        assert_equal_but_for_rounding(alone, together[:, column], **DEPTH)
    np.testing.assert_array_equal(together[:, 2], together[:, 3])
    np.testing.assert_array_equal(together[:, 2], together[:, 4])
    assert np.abs(together[:, 0] - together[:, 1]).max() > 1e-3
    assert np.abs(together[:, 1] - together[:, 2]).max() > 1e-3


@both_kinds
def test_many_histories_are_forecast_in_several_passes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, history = make_forecaster(kind), random_history(CONTEXT)
    expected = model.forecast(history, [1, 5])
    monkeypatch.setattr("tipl.models.nowcasters.forecaster.MAX_PARAMS_AT_ONCE", 2 * LAYOUT.size)
    assert_equal_but_for_rounding(model.forecast(history, [1, 5]), expected, **DEPTH)
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # no history is taken for another


@both_kinds
@pytest.mark.parametrize("hidden", [(3,), (7, 6), (4, 5, 6)])
def test_networks_of_other_hidden_sizes_are_forecast(kind: str, hidden: tuple[int, ...]) -> None:
    layout = actor_layout(TASK, hidden)
    history = random_history(4, layout)
    ahead = make_forecaster(kind).forecast(history, [1, 3], layout=layout)
    assert ahead.shape == (3, 2, layout.size)
    assert (ahead != history[:, -1:]).all()


@both_kinds
@torch.inference_mode()
def test_networks_without_log_std_are_forecast(kind: str) -> None:
    layout = ParamLayout.mlp("actor", (4, *HIDDEN, 1))
    history = Network.from_flat(torch.tensor(random_history(CONTEXT)[..., :-1]), layout)
    change = make_model(kind)(history, torch.tensor([[1, 3]]).expand(3, -1))
    assert change.log_std is None
    assert change.flat().shape == (3, 2, LAYOUT.size - 1)


# --- standing still and learning --------------------------------------------------------------


@both_kinds
def test_an_untrained_model_stands_still_exactly(kind: str) -> None:
    history = random_history(4)
    ahead = make_forecaster(kind, untrained=True).forecast(history, [1, 5, 20])
    np.testing.assert_array_equal(ahead, history[:, -1:].repeat(3, axis=1))


@both_kinds
def test_changes_are_in_the_training_paths_units(kind: str, paths: PathDataset) -> None:
    forecaster = train(paths, model=kind, **SMALL)
    assert isinstance(forecaster, NowcasterForecaster)
    model = forecaster.model
    table, log_std = change_scales([paths])
    assert torch.equal(model.change_scale, table)
    assert torch.equal(model.log_std_scale, log_std)
    speed = np.sqrt(np.mean(np.diff(paths.params()[..., 12:15], axis=1) ** 2))  # first biases
    np.testing.assert_allclose(table[:, 0, 1], np.maximum(np.arange(T), 1) * speed, rtol=1e-4)


@torch.inference_mode()
def test_the_loss_of_standing_still_is_that_of_an_untrained_model(paths: PathDataset) -> None:
    model = WNN(NowcasterConfig(T, 8), *change_scales([paths]))
    loss = NowcastLoss(learning_paths(paths, ReturnScale(0.0, 1.0), seed=0, anchors=0), 2000)
    losses = [
        float(loss(model, torch.Generator().manual_seed(0), still=still)) for still in (True, False)
    ]
    assert losses[0] == losses[1] == pytest.approx(1, abs=0.1)  # all paths have one speed


@both_kinds
def test_straight_lines_are_learned_and_held_out_paths_are_forecast(
    kind: str, paths: PathDataset
) -> None:
    split = paths.split(0.25)
    model = train(
        split.train, held_out=split.held_out, model=kind, width=16, num_steps=150,
        learning_rate=5e-3, progress=False,
    )  # fmt: skip
    curve = model.settings["curves"]["own"]
    assert curve["standing_still_loss"][-1] == pytest.approx(1, abs=0.5)
    assert curve["held_out_loss"][-1] < 0.2 * curve["standing_still_loss"][-1]
    params = split.held_out.params()
    for length, horizon in ((3, 1), (5, 3), (6, 2)):
        ahead, true = model.forecast(params[:, :length], horizon), params[:, length - 1 + horizon]
        missed = np.linalg.norm(ahead - true) / np.linalg.norm(params[:, length - 1] - true)
        assert missed < 0.5


@both_kinds
def test_equal_seeds_give_equal_bytes(kind: str, paths: PathDataset, tmp_path: Path) -> None:
    saved = []
    for n, seed in enumerate((5, 5, 6)):
        torch.manual_seed(n)
        model = train(paths, model=kind, seed=seed, held_out=[paths] * (n % 2), **SMALL)
        model.save_pretrained(tmp_path / str(n))
        saved.append((tmp_path / str(n) / "model.safetensors").read_bytes())
    assert saved[0] == saved[1] != saved[2]


@both_kinds
def test_a_model_remembers_how_it_was_trained(kind: str, paths: PathDataset) -> None:
    model = train(paths.select([4, 0, 2]), model=kind, **SMALL)
    assert type(model) is CLASSES[kind]
    assert model.settings["train"]["model"] == kind
    assert model.training_trials == {paths.metadata.digest: [4, 0, 2]}
    assert (model.num_checkpoints, model.hidden_sizes, model.task) == (T, (3,), paths.task)
    curve = model.settings["curves"]["own"]
    assert curve["held_out_loss"] == curve["standing_still_loss"] == [None]
    assert loss_sentence(model.kind, "own")


# --- what they are, on disk and refusals ------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [("wnn", "per-parameter nowcaster (WNN)"), ("nino", "neural-graph nowcaster (NiNo)")],
)
def test_they_are_called_by_what_they_are(kind: str, name: str) -> None:
    model = make_forecaster(kind)
    assert model.name == model.label == name
    assert (model.targets, model.knows_returns, model.min_history) == (("own",), False, 2)
    assert [asked.name for asked in model.all_ways()] == [name]


@both_kinds
def test_a_saved_model_is_read_back(kind: str, tmp_path: Path) -> None:
    model, history = make_forecaster(kind), random_history(6)
    model.settings["train"] = {"model": kind}
    model.save_pretrained(tmp_path / "model")
    for load in (Forecaster.from_pretrained, CLASSES[kind].from_pretrained):
        copy = load(tmp_path / "model")
        assert type(copy) is CLASSES[kind]
        for name in ("name", "task", "num_checkpoints", "hidden_sizes", "settings", "target"):
            assert getattr(copy, name) == getattr(model, name)
        assert copy.model.config == model.model.config
        np.testing.assert_array_equal(
            copy.forecast(history, [1, 7]), model.forecast(history, [1, 7])
        )
    copy.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "model" / name).read_bytes()
    assert storage.read_json(tmp_path / "model/config.json")["kind"] == model.kind


@both_kinds
def test_a_model_of_the_other_kind_is_refused(kind: str, tmp_path: Path) -> None:
    make_forecaster(kind).save_pretrained(tmp_path / "model")
    other = CLASSES["nino" if kind == "wnn" else "wnn"]
    with pytest.raises(
        TiplError, match=rf"of the kind {CLASSES[kind].kind}, but a {other.__name__}"
    ):
        other.from_pretrained(tmp_path / "model")


@both_kinds
def test_exchanged_weights_are_refused(kind: str, tmp_path: Path) -> None:
    make_forecaster(kind).save_pretrained(tmp_path / "model")
    make_forecaster(kind, width=16).save_pretrained(tmp_path / "other")
    (tmp_path / "other/model.safetensors").replace(tmp_path / "model/model.safetensors")
    with pytest.raises(TiplError, match=r"is not of the model in the config.json .*; restore both"):
        Forecaster.from_pretrained(tmp_path / "model")


@both_kinds
def test_an_untrained_network_alone_is_refused(kind: str) -> None:
    model = make_forecaster(kind)
    message = rf"{model.kind}\) needs \[T, P\] with at least T = 2 checkpoints; give more"
    with pytest.raises(TiplError, match=message):
        model.forecast(random_history(1), 3)
    with pytest.raises(TiplError, match=message):
        model.optimize(Policy.initial(TASK, 0, HIDDEN))


@both_kinds
def test_weights_of_another_layout_are_refused(kind: str) -> None:
    model, history = make_forecaster(kind), random_history(4)
    with pytest.raises(TiplError, match=r"history of 10 parameters .* give the layout"):
        model.forecast(history[..., :10], 1)
    layout = LAYOUT + ParamLayout.critic(4, HIDDEN)
    with pytest.raises(TiplError, match=r"critic.* actors of InvertedPendulum-v4 alone"):
        model.forecast(random_history(4, layout), 1, layout=layout)


def test_a_nino_refuses_networks_of_another_task() -> None:
    layout = ParamLayout.mlp("actor", (5, 3, 1))
    history = Network.from_flat(torch.zeros(1, CONTEXT, layout.size), layout)
    with pytest.raises(TiplError, match=r"5 inputs and 1 outputs .* those with 4 and 1; use"):
        make_model("nino")(history, torch.tensor([[1]]))


@both_kinds
def test_several_datasets_are_refused(kind: str, paths: PathDataset) -> None:
    name = CLASSES[kind].kind
    with pytest.raises(TiplError, match=rf"2 datasets .* a {name} learns from one: .*'neuron'"):
        train([paths, paths], model=kind, **SMALL)
    with pytest.raises(TiplError, match=rf"2 held-out .* a {name} is tested on one: .*'neuron'"):
        train(paths, held_out=[paths, paths], model=kind, **SMALL)


@both_kinds
def test_paths_with_a_critic_are_refused(kind: str, tmp_path: Path) -> None:
    metadata = make_metadata(networks="actor+critic")
    create_dataset(tmp_path / "paths", metadata)
    write_parts(tmp_path / "paths", metadata, make_arrays(metadata))
    paths = PathDataset.open(tmp_path / "paths")
    with pytest.raises(TiplError, match=r"networks='actor\+critic', .* actors alone: collect such"):
        train(paths, model=kind, **SMALL)


def test_defaults_of_training() -> None:
    for kind in KINDS:
        config = make_config(kind)
        assert (config.steps, config.peak_learning_rate) == (1000, 2e-3)
