"""Training: it overfits, it is the same twice, and it learns from nothing that it should not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from path_data import make_arrays, make_metadata, write_parts
from tipl.errors import TiplError
from tipl.models import TrainConfig
from tipl.models.learning_paths import return_scale
from tipl.models.path_transformer import PathTrainConfig
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.models.path_transformer.training import token_sequences
from tipl.models.train import train
from tipl.paths import PathDataset, create_dataset
from tipl.paths.svd import Basis, Center, PathSVD, TemporalSVD

Array = np.ndarray[Any, np.dtype[Any]]

P = make_metadata().layout.size
SMALL: dict[str, Any] = {
    "rank": 4, "width": 8, "depth": 1, "heads": 2, "num_steps": 3, "batch_size": 4,
    "progress": False,
}  # fmt: skip
BASES: tuple[Basis, ...] = ("joint", "path")

both_bases = pytest.mark.parametrize("basis", BASES)


def random_paths(num_trials: int, num_checkpoints: int, seed: int = 0) -> Array:
    """Random walks from random networks `[N, T, P]`, float32."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_trials, num_checkpoints, P)).cumsum(axis=1).astype(np.float32)


def make_paths(
    directory: Path, params: Array, returns: Array | None = None, diverged: int | None = None
) -> PathDataset:
    """A dataset of given paths; `returns` are final ones, and trial `diverged` ends in NaN."""
    num_trials, num_checkpoints = params.shape[:2]
    metadata = make_metadata(num_trials=num_trials, num_checkpoints=num_checkpoints)
    arrays = make_arrays(metadata) | {"params": params.copy()}
    arrays["diverged"][:] = False
    if diverged is not None:
        arrays["diverged"][diverged, -1] = True
        arrays["params"][diverged, -1, 0] = np.nan
    if returns is not None:
        arrays["episodic_return"][:, -1] = returns
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


def weights_of(model: PathTransformerForecaster, directory: Path) -> bytes:
    """The bytes of the saved model."""
    model.save_pretrained(directory)
    return (directory / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return make_paths(tmp_path_factory.mktemp("training") / "paths", random_paths(6, 7))


def one_step_error(model: PathTransformerForecaster, params: Array, length: int) -> float:
    """Error of the forecast of checkpoint `length`, as a share of standing still's."""
    last, true = params[:, length - 1], params[:, length]
    forecast = model.forecast(params[:, :length], 1)
    return float(np.linalg.norm(forecast - true) / np.linalg.norm(last - true))


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", ["none", "mean"])  # tokens that tell a path by its start
def test_four_paths_are_overfitted(tmp_path: Path, center: Center) -> None:
    params = random_paths(4, 6)
    model = train(
        make_paths(tmp_path / "paths", params), center=center, rank=P, width=32, num_steps=200,
        batch_size=16, learning_rate=5e-3, progress=False,
    )  # fmt: skip
    losses = model.settings["curves"]["own"]["train_loss"]
    assert losses[0] > 0.1
    assert losses[-1] < 1e-3
    for length in range(1, 6):
        assert one_step_error(model, params, length) < 0.03


def test_in_a_basis_of_its_own_a_held_out_path_moves_as_the_others_did(tmp_path: Path) -> None:
    """Straight paths that slow down alike, each from its own start in its own direction."""
    rng = np.random.default_rng(0)
    starts, directions = rng.normal(size=(2, 12, 1, P))
    params = starts + (1 - 0.7 ** np.arange(7.0)[:, None]) * directions
    split = make_paths(tmp_path / "paths", params.astype(np.float32)).split(0.25)
    model = train(
        split.train, held_out=split.held_out, basis="path", rank=8, width=16, num_steps=200,
        learning_rate=5e-3, progress=False,
    )  # fmt: skip
    assert model.settings["curves"]["own"]["held_out_loss"][-1] < 1e-2
    for length in range(2, 6):
        assert one_step_error(model, split.held_out.params(), length) < 0.2


def test_a_wished_return_leads_to_the_paths_that_had_it(tmp_path: Path) -> None:
    """All paths have one start; those that go one way return 100, those that go the other 20."""
    rng = np.random.default_rng(0)
    start, direction = rng.normal(size=(2, P))
    ways = np.array([1, -1, 1, -1, 1, -1])
    steps = np.arange(5.0)[:, None]
    params = (start + ways[:, None, None] * steps * direction).astype(np.float32)
    paths = make_paths(tmp_path / "paths", params, np.where(ways > 0, 100, 20))
    model = train(
        paths, condition_on_return=True, rank=2, width=16, num_steps=200, learning_rate=5e-3,
        progress=False,
    )  # fmt: skip
    assert model.return_scale == (60.0, 40.0)
    history = params[0, :1]
    for wished, way in ((100.0, 1), (20.0, -1)):
        model.wished_return = wished
        moved = (model.forecast(history, 1) - start) @ direction / (direction @ direction)
        assert moved == pytest.approx(way, abs=0.3)


@pytest.mark.parametrize(
    ("returns", "scale"),
    [
        ([10.0, 30.0, np.nan, 20.0], (20.0, np.sqrt(200 / 3))),  # the ones that are known
        ([7.0, 7.0, 7.0, 7.0], (7.0, 7e-6)),
        ([np.nan] * 4, (0.0, 1.0)),
    ],
)
def test_returns_are_scaled_by_their_mean_and_std(
    tmp_path: Path, returns: list[float], scale: tuple[float, float]
) -> None:
    paths = make_paths(tmp_path / "paths", random_paths(4, 4), np.array(returns))
    model = train(paths, condition_on_return=True, **SMALL)
    assert model.return_scale == pytest.approx(scale)
    assert all(torch.isfinite(value).all() for value in model.model.state_dict().values())


def test_scaled_returns_have_a_mean_of_zero_and_a_deviation_of_one() -> None:
    returns = np.array([[10.0, np.nan, 30.0], [30.0, 10.0, np.nan]], np.float32)
    scale = return_scale(returns)
    assert scale == (20.0, 10.0)
    scaled = scale.scaled(returns)
    assert scaled.dtype == torch.float32
    np.testing.assert_array_equal(scaled, [[-1, np.nan, 1], [1, -1, np.nan]])


# --- the same twice, and blind to what it must not see --------------------------------------------


@both_bases
def test_equal_seeds_give_equal_bytes(paths: PathDataset, tmp_path: Path, basis: Basis) -> None:
    torch.manual_seed(1)
    first = weights_of(train(paths, basis=basis, seed=5, **SMALL), tmp_path / "first")
    torch.manual_seed(2)
    again = weights_of(train(paths, basis=basis, seed=5, **SMALL), tmp_path / "again")
    other = weights_of(train(paths, basis=basis, seed=6, **SMALL), tmp_path / "other")
    assert first == again
    assert (tmp_path / "first/config.json").read_bytes() == (
        tmp_path / "again/config.json"
    ).read_bytes()
    assert first != other


def test_the_seed_also_chooses_the_batches(paths: PathDataset, tmp_path: Path) -> None:
    """From equal initial weights: without steps that matter, only the batches' losses differ."""
    options = SMALL | {"learning_rate": 1e-30, "num_steps": 25, "batch_size": 1}
    losses = [
        train(paths, seed=seed, **options).settings["curves"]["own"]["train_loss"]
        for seed in (1, 2, 1)
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


@both_bases
def test_held_out_paths_do_not_change_the_weights(
    paths: PathDataset, tmp_path: Path, basis: Basis
) -> None:
    options = SMALL | {"num_steps": 30}  # the held-out loss is computed twice
    alone = weights_of(train(paths, basis=basis, **options), tmp_path / "alone")
    for n, seed in enumerate((1, 2)):
        held_out = make_paths(tmp_path / f"held_out-{n}", 100 * random_paths(3, 7, seed))
        model = train(paths, held_out=held_out, basis=basis, **options)
        assert weights_of(model, tmp_path / f"model-{n}") == alone


@both_bases
def test_diverged_trials_are_left_out(tmp_path: Path, basis: Basis) -> None:
    params = random_paths(5, 5)
    with_diverged = make_paths(tmp_path / "with", params, np.arange(5.0), diverged=1)
    usable = with_diverged.select([0, 2, 3, 4])
    models = [
        train(chosen, basis=basis, condition_on_return=True, held_out=chosen, **SMALL)
        for chosen in (with_diverged, usable)
    ]
    assert weights_of(models[0], tmp_path / "0") == weights_of(models[1], tmp_path / "1")
    assert models[0].return_scale == models[1].return_scale
    assert models[0].settings["curves"] == models[1].settings["curves"]


# --- the training curve and the record ------------------------------------------------------------


@pytest.mark.parametrize(("num_steps", "logged"), [(3, [3]), (25, [25]), (60, [25, 50, 60])])
def test_the_curve_has_an_entry_every_25_steps_and_at_the_end(
    paths: PathDataset, num_steps: int, logged: list[int]
) -> None:
    options = SMALL | {"num_steps": num_steps}
    curve = train(paths, held_out=paths, **options).settings["curves"]["own"]
    assert list(curve) == ["step", "train_loss", "held_out_loss", "standing_still_loss"]
    assert curve["step"] == logged
    for name in ("train_loss", "held_out_loss", "standing_still_loss"):
        assert len(curve[name]) == len(logged)
        assert all(isinstance(value, float) for value in curve[name])


def test_without_held_out_paths_their_losses_are_none(paths: PathDataset) -> None:
    curve = train(paths, **SMALL).settings["curves"]["own"]
    assert curve["held_out_loss"] == curve["standing_still_loss"] == [None]
    assert isinstance(curve["train_loss"][0], float)


@both_bases
def test_losses_are_in_units_of_standing_still_on_the_training_paths(
    paths: PathDataset, tmp_path: Path, basis: Basis
) -> None:
    held_out = make_paths(tmp_path / "held_out", random_paths(3, 7, seed=1))
    untrained = SMALL | {"learning_rate": 1e-30, "basis": basis, "batch_size": 2000}
    curve = train(paths, held_out=paths, **untrained).settings["curves"]["own"]
    assert curve["standing_still_loss"] == [1.0]
    assert curve["held_out_loss"][0] == pytest.approx(1, rel=1e-6)
    assert curve["train_loss"][0] == pytest.approx(1, abs=0.1)

    model = train(paths, held_out=held_out, **untrained)
    curve = model.settings["curves"]["own"]
    mean_squares = []
    for dataset in (held_out, paths):
        tokens, targets, _ = token_sequences(model.tokenizer, dataset.params())
        mean_squares.append(tokens.diff(dim=1)[targets].square().mean().item())
    still = mean_squares[0] / mean_squares[1]
    assert not 0.99 < still < 1.01
    assert curve["standing_still_loss"][0] == pytest.approx(still)
    assert curve["held_out_loss"][0] == pytest.approx(still)  # an untrained model stands still


def test_a_model_remembers_how_it_was_trained(paths: PathDataset) -> None:
    config = PathTrainConfig(**{key: SMALL[key] for key in SMALL if key != "progress"})
    chosen = paths.select([4, 0, 2])
    model = train(chosen, config=config, progress=False)
    assert model.settings["train"] == dataclasses.asdict(config)
    assert model.settings["datasets"] == {paths.metadata.digest: [4, 0, 2]}
    assert (model.task, model.layout) == (paths.task, paths.layout)
    assert model.num_checkpoints == model.model.config.max_checkpoints == 7
    assert not model.model.training
    assert train(chosen, **SMALL).settings == model.settings


def test_scales_are_root_mean_squares_of_tokens_and_of_their_changes(paths: PathDataset) -> None:
    model = train(paths, **SMALL)
    tokens = token_sequences(model.tokenizer, paths.params()).tokens
    token_scale = tokens[:, :-1].square().mean(dim=(0, 1)).sqrt()
    change_scale = tokens.diff(dim=1).square().mean(dim=(0, 1)).sqrt()
    torch.testing.assert_close(model.model.token_scale, token_scale)
    torch.testing.assert_close(model.model.change_scale, change_scale)


def test_training_is_silent_if_asked(paths: PathDataset, capfd: pytest.CaptureFixture[str]) -> None:
    train(paths, **SMALL)
    assert capfd.readouterr() == ("", "")
    train(paths, **SMALL | {"progress": True})
    shown = capfd.readouterr()
    assert "train (joint basis)" in shown.err
    assert shown.out == ""


# --- token_sequences ------------------------------------------------------------------------------


def test_in_a_joint_basis_a_path_is_a_sequence_and_every_next_token_a_target() -> None:
    params = random_paths(3, 5)
    svd = TemporalSVD(rank=4, center="initial").fit(params)
    tokens, targets, path = token_sequences(svd, params)
    expected = (params - params[:, :1]) @ svd.basis.T
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    assert targets.shape == (3, 4)
    assert targets.all()
    assert path.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rank", [2, 6])
def test_in_a_path_s_own_basis_each_history_is_a_sequence(rank: int) -> None:
    params = random_paths(3, 5)
    sequences = token_sequences(PathSVD(rank), params)
    found = {}
    for tokens, targets, path in zip(*sequences, strict=True):
        end = 1 + int(targets.int().argmax())  # the first target is checkpoint `end`
        assert targets.tolist() == [checkpoint >= end for checkpoint in range(1, 5)]
        found[int(path), end] = tokens.numpy()
    assert sorted(found) == [(n, end) for n in range(3) for end in range(2, 5)]
    assert len(sequences.tokens) == len(found)
    for (n, end), tokens in found.items():
        displacements = (params[n] - params[n, 0]).astype(np.float64)
        history = displacements[:end]
        right = np.linalg.svd(history)[2][: min(rank, end - 1)]
        right *= np.sign(right @ history[-1])[:, None]
        expected = np.zeros((5, rank))
        expected[:, : len(right)] = displacements @ right.T / np.linalg.norm(history[-1])
        np.testing.assert_allclose(tokens, expected, atol=1e-5)


@pytest.mark.parametrize("first_changed", [2, 3, 4, 5])
def test_no_history_knows_its_future(first_changed: int) -> None:
    params = random_paths(3, 6)
    before = token_sequences(PathSVD(4), params)
    params[:, first_changed:] += random_paths(3, 6 - first_changed, seed=1)
    after = token_sequences(PathSVD(4), params)
    first_target = 1 + before.targets.int().argmax(dim=1)
    checked = 0
    for n, end in enumerate(first_target.tolist()):
        if end <= first_changed:  # a history of checkpoints that have not changed
            assert torch.equal(after.tokens[n, :first_changed], before.tokens[n, :first_changed])
            assert not torch.isclose(
                after.tokens[n, first_changed:], before.tokens[n, first_changed:]
            ).all()
            checked += 1
    assert checked == 3 * (first_changed - 1)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rank", "width", "depth", "heads", "num_steps", "batch_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one_are_refused(paths: PathDataset, name: str, value: int) -> None:
    with pytest.raises(TiplError, match=f"^{name} is {value}; expected at least 1"):
        train(paths, **{**SMALL, name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "heads": 4}, r"width of 10 .* 4 heads; expected a multiple"),
        ({"learning_rate": 0.0}, r"learning_rate is 0.0; expected a positive number"),
        ({"learning_rate": float("nan")}, r"learning_rate is nan; expected a positive number"),
        ({"weight_decay": -0.1}, r"weight_decay is -0.1; expected at least 0"),
        ({"basis": "path", "center": "mean"}, r"basis='path'.*use center='initial'"),
        ({"num_epochs": 3}, r"no option 'num_epochs'; expected one of model, num_steps, "),
        (
            {"model": "neuron", "memory": -1, "rank": 4},
            r"model='neuron' has no option 'rank', which",
        ),
        ({"config": TrainConfig()}, r"both config and the options \['batch_size', .*; give one"),
    ],
)
def test_impossible_options_are_refused(
    paths: PathDataset, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        train(paths, **SMALL | options)


@pytest.mark.parametrize(
    ("name", "choices"), [("basis", "joint, path"), ("center", "none, initial, mean")]
)
def test_unknown_choices_are_refused(name: str, choices: str) -> None:
    config = PathTrainConfig()
    object.__setattr__(config, name, "own")  # the tests' type checker is as strict
    with pytest.raises(TiplError, match=f"{name} is 'own'; expected one of {choices}"):
        config.__post_init__()


@both_bases
@pytest.mark.parametrize("length", [1, 2])
def test_paths_of_fewer_than_three_checkpoints_are_refused(
    tmp_path: Path, basis: Basis, length: int
) -> None:
    paths = make_paths(tmp_path / "paths", random_paths(3, length))
    with pytest.raises(
        TiplError, match=rf"{length} checkpoints; expected at least 3: collect more"
    ):
        train(paths, basis=basis, **SMALL)


@both_bases
def test_three_checkpoints_are_enough(tmp_path: Path, basis: Basis) -> None:
    params = random_paths(3, 3)
    model = train(make_paths(tmp_path / "paths", params), basis=basis, **SMALL)
    assert np.isfinite(model.forecast(params, 2)).all()


def test_a_dataset_whose_trials_all_diverged_is_refused(tmp_path: Path) -> None:
    paths = make_paths(tmp_path / "paths", random_paths(3, 5), diverged=1).select([1])
    with pytest.raises(TiplError, match=r"all 1 trials of .*/paths diverged; collect paths with"):
        train(paths, **SMALL)


@pytest.mark.parametrize(("basis", "center"), [("joint", "none"), ("path", "initial")])
def test_paths_that_never_move_are_refused(tmp_path: Path, basis: Basis, center: Center) -> None:
    params = np.repeat(random_paths(3, 1), 5, axis=1)
    paths = make_paths(tmp_path / "paths", params)
    with pytest.raises(TiplError, match=r"each path in .*/paths are equal, .*nothing to learn"):
        train(paths, basis=basis, center=center, **SMALL)


def test_several_held_out_datasets_are_refused(paths: PathDataset) -> None:
    message = r"2 held-out datasets were given, .* is tested on one: .*train with model='neuron'"
    with pytest.raises(TiplError, match=message):
        train(paths, held_out=[paths, paths], **SMALL)
    assert train(paths, held_out=[paths], **SMALL).settings["curves"]["own"]["held_out_loss"][0]


@pytest.mark.parametrize("basis", ["joint", "path"])
def test_held_out_paths_of_another_architecture_are_refused(
    paths: PathDataset, tmp_path: Path, basis: str
) -> None:
    metadata = make_metadata(networks="actor+critic", num_trials=2, num_checkpoints=4)
    arrays = make_arrays(metadata)
    create_dataset(tmp_path / "other", metadata)
    write_parts(tmp_path / "other", metadata, arrays)
    other = PathDataset.open(tmp_path / "other")
    with pytest.raises(TiplError, match=rf"training paths of {P}; give paths of the same"):
        train(paths, held_out=other, **SMALL | {"basis": basis})
