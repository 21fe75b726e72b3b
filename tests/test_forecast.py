"""Forecasters: one interface for any shape, exact about what they keep, clear about bad input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from path_data import make_metadata
from rounding import assert_equal_but_for_rounding
from tipl.core import storage
from tipl.errors import TiplError
from tipl.forecast import hub as shipped
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import StandingStill
from tipl.forecast.hub import shipped_models
from tipl.forecast.memory import BestStoredPolicy
from tipl.forecast.trained import TrainedForecaster
from tipl.models import TrainConfig, kinds
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
from tipl.paths.svd import Basis, Center, make_tokenizer
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

Array = np.ndarray[Any, np.dtype[Any]]

LAYOUT = make_metadata().layout
TASK = make_metadata().task
P = LAYOUT.size
T, K = 6, 3  # checkpoints of a training path, coordinates of a token
BASES: tuple[Basis, ...] = ("joint", "path")

both_bases = pytest.mark.parametrize("basis", BASES)


def random_paths(*shape: int, seed: int = 0) -> Array:
    """Random walks `[..., T, P]`, float32."""
    walks = np.random.default_rng(seed).normal(size=(*shape, P)).cumsum(axis=-2)
    return np.asarray(walks, np.float32)


def make_forecaster(
    basis: Basis = "joint",
    center: Center = "initial",
    untrained: bool = False,
    **changes: Any,
) -> PathTransformerForecaster:
    """A model with random weights in every layer, or an untrained one."""
    tokenizer = make_tokenizer(basis, K, center)
    if basis == "joint":
        tokenizer.fit(random_paths(5, T, seed=9))  # type: ignore[union-attr]
    torch.manual_seed(0)
    config = PathTransformerConfig(
        **{"num_coordinates": K, "max_checkpoints": T, "width": 16} | changes
    )
    model = PathTransformer(config, torch.full((K,), 2.0), torch.full((K,), 0.5))
    if not untrained:
        torch.nn.init.normal_(model.change_out.weight)
        torch.nn.init.normal_(model.change_out.bias)
    return PathTransformerForecaster(
        tokenizer, model, LAYOUT, TASK, T, (50.0, 20.0), {"train": {"basis": basis}}
    )


class Widening(TrainedForecaster):
    """A model of another kind, for any architecture: `log_std` grows, nothing else moves."""

    kind, name = "Widening", "widening"

    def __init__(self, rate: Array, task: TaskSpec, num_checkpoints: int) -> None:
        super().__init__(task, (3,), num_checkpoints, settings={"note": "by hand"})
        self.rate = rate

    def _optimize(
        self, params: Array, layout: ParamLayout, horizon: int, steps: int | None
    ) -> Array:
        return self.forecast(params[:, None], horizon * (steps or 1), layout=layout)

    def _forecast(self, histories: Array, horizons: list[int], layout: ParamLayout | None) -> Array:
        if layout is None:
            return np.repeat(histories[:, -1:], len(horizons), axis=1)
        forecasts = np.repeat(histories[:, -1:], len(horizons), axis=1)
        widening = self.rate * np.array(horizons, np.float32)
        layout.unflatten(forecasts)["log_std"][:] += widening[:, None]
        return forecasts

    def _config(self) -> dict[str, Any]:
        return {"about": "log_std"}

    def _tensors(self) -> dict[str, Array]:
        return {"rate": self.rate}

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Widening:
        assert config["about"] == "log_std"
        return cls(tensors["rate"], TaskSpec.from_json(config["task"]), config["num_checkpoints"])


def make_widening() -> Widening:
    return Widening(np.float32([0.5]), TASK, T)


@pytest.fixture(autouse=True)
def widening_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    widening = kinds.Kind(
        name="widening", title="Widening", summary="", config=TrainConfig, train="nowhere",
        forecaster=Widening, colours={}, losses={},
    )  # fmt: skip
    monkeypatch.setattr(kinds, "_REGISTERED", {"widening": widening})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_forecaster().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# --- what is forecast -----------------------------------------------------------------------------


@both_bases
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes(basis: Basis, batch: tuple[int, ...]) -> None:
    model = make_forecaster(basis)
    history = random_paths(*batch, 4)
    one, several = model.forecast(history, 2), model.forecast(history, [1, 2, 5])
    assert one.shape == (*batch, P)
    assert several.shape == (*batch, 3, P)
    assert one.dtype == several.dtype == np.float32
    assert model.forecast(history, (2,)).shape == (*batch, 1, P)


@both_bases
def test_a_batch_is_its_histories_one_by_one(basis: Basis) -> None:
    model, histories = make_forecaster(basis), random_paths(2, 3, 4)
    together = model.forecast(histories, [1, 4])
    for n in np.ndindex(2, 3):
        np.testing.assert_allclose(together[n], model.forecast(histories[n], [1, 4]), atol=1e-4)


@both_bases
def test_a_horizon_is_one_of_many(basis: Basis) -> None:
    model, history = make_forecaster(basis), random_paths(2, 4)
    all_horizons = model.forecast(history, list(range(1, 9)))
    assert (np.abs(np.diff(all_horizons, axis=1)).max(axis=2) > 1e-2).all()
    for horizon in range(1, 9):
        alone = model.forecast(history, horizon)
        assert_equal_but_for_rounding(alone, all_horizons[:, horizon - 1], sums=12, terms=64)
    in_this_order = model.forecast(history, [5, 1, 5, 2])
    expected = all_horizons[:, [4, 0, 4, 1]]
    assert_equal_but_for_rounding(in_this_order, expected, sums=12, terms=64)


@both_bases
@pytest.mark.parametrize("length", [2, 4, T, T + 3])
def test_each_token_is_predicted_from_all_before_it(basis: Basis, length: int) -> None:
    """The last T tokens are seen, and a position past the last one is the last one."""
    forecaster, histories = make_forecaster(basis), random_paths(2, length)
    tokens, directions = forecaster.tokenizer.encode_history(histories)
    horizon = 5
    for n, history in enumerate(histories):
        sequence = list(torch.as_tensor(tokens[n], dtype=torch.float32))
        for _ in range(horizon):
            seen = torch.stack(sequence)[None, -T:]
            first = len(sequence) - seen.shape[1]
            positions = [min(first + i, T - 1) for i in range(seen.shape[1])]
            with torch.inference_mode():
                sequence.append(forecaster.model(seen, torch.tensor([positions]))[0, -1])
        change = sequence[-1].double().numpy() - tokens[n, -1]
        expected = history[-1] + change @ directions[n % len(directions)]
        np.testing.assert_allclose(forecaster.forecast(history, horizon), expected, atol=1e-4)


@both_bases
@pytest.mark.parametrize("length", [2, T, T + 3])
def test_an_untrained_model_forecasts_the_last_checkpoint_exactly(
    basis: Basis, length: int
) -> None:
    """What the tokens cannot express of a checkpoint is most of it, and is kept."""
    forecaster = make_forecaster(basis, untrained=True)
    histories = 100 * random_paths(3, length)
    tokens, directions = forecaster.tokenizer.encode_history(histories)
    if length > K + 1 or basis == "joint":
        expressed = histories[:, :1] + tokens @ directions
        assert np.abs(expressed - histories)[:, -1].max() > 1
    forecasts = forecaster.forecast(histories, [1, 4])
    np.testing.assert_array_equal(forecasts, np.repeat(histories[:, -1:], 2, axis=1))


@both_bases
def test_a_forecast_moves_along_the_directions_alone(basis: Basis) -> None:
    forecaster, histories = make_forecaster(basis), random_paths(3, 5)
    directions = forecaster.tokenizer.encode_history(histories).directions
    moves = forecaster.forecast(histories, 3) - histories[:, -1]
    for n, move in enumerate(moves):
        basis_of_path = np.linalg.qr(directions[n % len(directions)].T)[0]
        assert np.linalg.norm(move) > 0.1
        np.testing.assert_allclose(basis_of_path @ basis_of_path.T @ move, move, atol=1e-4)


@pytest.mark.parametrize("center", ["none", "initial", "mean"])
def test_one_checkpoint_is_history_enough_for_a_joint_basis(center: Center) -> None:
    history = random_paths(1)
    forecast = make_forecaster(center=center).forecast(history, 1)
    assert np.linalg.norm(forecast - history) > 0.1


def test_histories_that_do_not_move_have_a_finite_forecast_in_their_own_basis() -> None:
    histories = np.repeat(random_paths(2, 1), 4, axis=1)
    forecasts = make_forecaster("path").forecast(histories, 3)
    np.testing.assert_array_equal(forecasts, histories[:, -1])  # there is no direction to move in


# --- any architecture -----------------------------------------------------------------------------

SAME_SIZE = ParamLayout.actor(4, 1, (2, 2))  # another architecture of as many parameters


@both_bases
def test_the_layout_is_the_forecasters_own_if_none_is_given(basis: Basis) -> None:
    model, history = make_forecaster(basis), random_paths(2, 4)
    np.testing.assert_array_equal(
        model.forecast(history, [1, 3], layout=LAYOUT), model.forecast(history, [1, 3])
    )


@both_bases
def test_another_layout_is_refused_by_a_model_of_one_architecture(basis: Basis) -> None:
    assert SAME_SIZE.size == P
    message = (
        rf"{P} parameters with hidden layers of \(2, 2\) tanh units were given, but PathTr.* "
        rf"\({basis} basis\) was trained on {P} and \(3,\) tanh units; .*same architecture, or tr"
    )
    with pytest.raises(TiplError, match=message):
        make_forecaster(basis).forecast(random_paths(4), 1, layout=SAME_SIZE)


@pytest.mark.parametrize("layout", [LAYOUT, SAME_SIZE, ParamLayout.actor(7, 2, (5,))])
def test_a_model_of_any_architecture_gets_the_layout_that_is_given(layout: ParamLayout) -> None:
    history = np.random.default_rng(0).normal(size=(3, 4, layout.size)).astype(np.float32)
    moves = make_widening().forecast(history, [2, 4], layout=layout) - history[:, -1:]
    log_std = layout.slices["log_std"]
    np.testing.assert_allclose(moves[:, 0, log_std], 1, rtol=1e-5)
    np.testing.assert_allclose(moves[:, 1, log_std], 2, rtol=1e-5)
    assert (moves[..., : log_std.start] == 0).all()
    without = make_widening().forecast(history, 2)
    np.testing.assert_array_equal(without, history[:, -1])


@pytest.mark.parametrize("forecaster", [make_widening(), StandingStill()])
def test_a_layout_of_another_size_than_the_history_is_refused(forecaster: Forecaster) -> None:
    message = rf"history of {P - 1} parameters was given, .* of {P} parameters; give the layout"
    with pytest.raises(TiplError, match=message):
        forecaster.forecast(random_paths(4)[:, 1:], 1, layout=LAYOUT)


@both_bases
def test_whole_numbers_of_numpy_are_horizons_too(basis: Basis) -> None:
    model, history = make_forecaster(basis), random_paths(2, 4)
    one = model.forecast(history, np.int64(3))
    assert one.shape == (2, P)
    np.testing.assert_array_equal(one, model.forecast(history, 3))
    several = model.forecast(history, list(np.arange(1, 4)))
    np.testing.assert_array_equal(several, model.forecast(history, [1, 2, 3]))
    with pytest.raises(TiplError, match="horizon of 0 was given"):
        model.forecast(history, np.int32(0))


# --- returns --------------------------------------------------------------------------------------


@both_bases
def test_a_wished_return_changes_the_forecast(basis: Basis) -> None:
    model, history = make_forecaster(basis, condition_on_return=True), random_paths(4)
    assert model.wished_return is None
    forecasts = [model.forecast(history, 3)]
    for wished in (50.0, 90.0, 0.0):
        model.wished_return = wished
        forecasts.append(model.forecast(history, 3))
    for n, first in enumerate(forecasts):
        for second in forecasts[n + 1 :]:
            assert np.linalg.norm(first - second) > 1e-2


def test_a_wished_return_is_scaled_as_in_training() -> None:
    model, history = make_forecaster(condition_on_return=True), random_paths(4)
    model.wished_return = 90.0  # the mean is 50 and the standard deviation 20
    tokens = model.tokenizer.encode_history(history[None]).tokens
    with torch.inference_mode():
        expected = model.model(
            torch.as_tensor(tokens, dtype=torch.float32), torch.arange(4)[None], torch.tensor([2.0])
        )
    found = model.forecast_tokens(tokens, 1)[0, 0]
    assert_equal_but_for_rounding(found, expected[0, -1], sums=12, terms=64)


def test_a_model_that_does_not_condition_on_returns_refuses_a_wish() -> None:
    with pytest.raises(TiplError, match=r"90\.0 is wished for.*condition_on_return=True"):
        make_forecaster().with_options(wished_return=90.0)


def test_options_leave_the_forecaster_as_it_is() -> None:
    model = make_forecaster(condition_on_return=True)
    other = model.with_options(target="own", wished_return=90.0)
    assert (model.wished_return, other.wished_return) == (None, 90.0)
    assert other.with_options().wished_return == 90.0
    with pytest.raises(TiplError, match=r"target 'elite' was given.*trained for own"):
        model.with_options(target="elite")


# --- optimize -------------------------------------------------------------------------------------


def test_optimize_is_a_forecast_from_one_checkpoint_to_the_end_of_the_paths() -> None:
    model = make_forecaster()
    start = Policy(
        random_paths(1)[0],
        LAYOUT,
        TASK,
        observation_mean=np.ones(4),
        observation_std=np.full(4, 2.0),
    )
    before = start.params.copy()
    for horizon in (None, 1, 3):
        better = model.optimize(start, horizon)
        # under the normaliser of the training paths
        expected = model.forecast(model.as_read(start).params[None], horizon or T - 1)
        np.testing.assert_array_equal(better.params, expected)
        np.testing.assert_array_equal(better.observation_mean, TASK.observation_mean)
        np.testing.assert_array_equal(better.observation_std, TASK.observation_std)
        assert (better.layout, better.task) == (LAYOUT, TASK)
    np.testing.assert_array_equal(start.params, before)


def test_optimize_needs_no_history_but_a_path_basis_does() -> None:
    message = r"PathTransformer \(path basis\) needs .* at least T = 2 checkpoints; give more"
    with pytest.raises(TiplError, match=message):
        make_forecaster("path").optimize(Policy.initial(TASK, 0, (3,)))


def test_what_was_never_trained_can_optimize_as_well() -> None:
    best = BestStoredPolicy(random_paths(1)[0], LAYOUT)
    start = [Policy.initial(TASK, seed, (3,)) for seed in (0, 1)]
    for better in best.optimize(start, np.int64(2)):
        np.testing.assert_array_equal(better.params, best.params)
        np.testing.assert_array_equal(better.observation_mean, start[0].observation_mean)
    message = r"no horizon was given, and best stored .* no training paths .*; give the checkpoints"
    with pytest.raises(TiplError, match=message):
        best.optimize(start[0])
    with pytest.raises(TiplError, match=r"best stored .* can be asked for neither: leave them out"):
        best.optimize(start[0], 2, target="elite")
    with pytest.raises(
        TiplError, match=r"hidden layers of \(4,\) tanh units were given, but best stored"
    ):
        best.optimize(Policy.initial(TASK, 0, (4,)), 2)


def test_a_policy_of_another_task_is_refused() -> None:
    policy = Policy.initial("HalfCheetah-v4", 0, (3,))
    message = r"for HalfCheetah-v4 was given, .* on InvertedPendulum-v4; use a model of the same"
    with pytest.raises(TiplError, match=message):
        make_forecaster().optimize(policy)


@pytest.mark.parametrize("hidden_sizes", [(64, 64), (2, 2)])  # of (2, 2), as many parameters
def test_a_policy_of_another_architecture_is_refused(hidden_sizes: tuple[int, ...]) -> None:
    policy = Policy.initial(TASK, 0, hidden_sizes)
    assert (policy.layout.size == P) == (hidden_sizes == (2, 2))
    message = rf"{policy.layout.size} parameters .* on {P} .*same architecture, or train"
    with pytest.raises(TiplError, match=message):
        make_forecaster().optimize(policy)


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_below_one_is_not_the_default(horizon: int) -> None:
    policy = Policy.initial(TASK, 0, (3,))
    with pytest.raises(TiplError, match=f"horizon of {horizon} was given; expected 1 or more"):
        make_forecaster().optimize(policy, horizon)


# --- bad histories and horizons -------------------------------------------------------------------


@both_bases
@pytest.mark.parametrize(
    ("horizon", "named"), [(0, "0"), (-2, "-2"), ([3, 0], "0"), ([2, -1, 0], "-1"), ([], "no")]
)
def test_horizons_below_one_are_refused(basis: Basis, horizon: Any, named: str) -> None:
    message = rf"a horizon of {named}.* was given; expected 1 or more checkpoints ahead: choose"
    with pytest.raises(TiplError, match=message):
        make_forecaster(basis).forecast(random_paths(4), horizon)


@pytest.mark.parametrize(("basis", "length"), [("joint", 0), ("path", 0), ("path", 1)])
def test_a_history_that_is_too_short_is_refused(basis: Basis, length: int) -> None:
    shape = rf"history of shape \(2, {length}, {P}\) was given"
    least = 2 if basis == "path" else 1
    message = rf"{shape}, .*{basis} basis.* needs .* T = {least} checkpoints; give more of the path"
    with pytest.raises(TiplError, match=message):
        make_forecaster(basis).forecast(random_paths(2, 4)[:, :length], 1)


@both_bases
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_history_that_is_not_finite_is_refused(basis: Basis, value: float) -> None:
    history = random_paths(4)
    history[2, 5] = value
    with pytest.raises(TiplError, match=r"NaN or infinite; use the checkpoints before"):
        make_forecaster(basis).forecast(history, 1)


@both_bases
def test_a_history_of_another_architecture_is_refused(basis: Basis) -> None:
    message = rf"{P - 1} parameters was given, .* of {P} parameters; .* same architecture, or tr"
    with pytest.raises(TiplError, match=message):
        make_forecaster(basis).forecast(random_paths(4)[:, 1:], 1)


# --- on disk --------------------------------------------------------------------------------------


@both_bases
@pytest.mark.parametrize("condition_on_return", [False, True])
def test_a_saved_model_is_read_back(
    tmp_path: Path, basis: Basis, condition_on_return: bool
) -> None:
    model = make_forecaster(basis, condition_on_return=condition_on_return)
    model.save_pretrained(tmp_path / "a/new/folder")
    for load in (Forecaster.from_pretrained, PathTransformerForecaster.from_pretrained):
        copy = load(tmp_path / "a/new/folder")
        for name in (
            "name", "basis", "layout", "task", "num_checkpoints", "return_scale", "settings",
            "min_history", "wished_return",
        ):  # fmt: skip
            assert getattr(copy, name) == getattr(model, name)
        assert copy.model.config == model.model.config
        assert not copy.model.training
        history = random_paths(2, 4)
        for wished in (None, 90.0) if condition_on_return else (None,):
            copy.wished_return = model.wished_return = wished
            np.testing.assert_array_equal(
                copy.forecast(history, [1, 7]), model.forecast(history, [1, 7])
            )
        model.wished_return = None


def test_the_files_of_a_path_transformer_keep_their_names(saved: Path) -> None:
    """Models that were saved before have to stay readable."""
    config = storage.read_json(saved / "config.json")
    assert set(config) == {
        "kind", "format_version", "model", "tokenizer", "task", "layout", "num_checkpoints",
        "return_scale", "serves", "settings",
    }  # fmt: skip
    assert (config["kind"], config["format_version"]) == ("PathTransformer", 1)
    assert config["tokenizer"] == {"basis": "joint", "rank": K, "center": "initial"}
    assert config["return_scale"] == [50, 20]
    tensors, metadata = storage.read_tensors(saved / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"model", "tokenizer"}
    assert metadata == {"kind": "model"}


@pytest.mark.parametrize("center", ["none", "initial", "mean"])
def test_the_centre_is_read_back(tmp_path: Path, center: Center) -> None:
    model, history = make_forecaster(center=center), random_paths(2, 4)
    model.save_pretrained(tmp_path / "model")
    copy = Forecaster.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(copy.forecast(history, 3), model.forecast(history, 3))


def test_equal_models_have_equal_bytes(saved: Path, tmp_path: Path) -> None:
    Forecaster.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_a_model_replaces_a_model(saved: Path) -> None:
    other = make_forecaster("path")
    other.save_pretrained(saved)
    assert Forecaster.from_pretrained(saved).basis == "path"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_model_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TiplError, match=r"holds other files \(thesis.tex\) .*choose another path"):
        make_forecaster().save_pretrained(tmp_path)
    with pytest.raises(TiplError, match=r"thesis.tex is a file, .*choose another path"):
        make_forecaster().save_pretrained(tmp_path / "thesis.tex")
    with pytest.raises(TiplError, match=r"cannot write .*choose another path"):
        make_forecaster().save_pretrained(tmp_path / "thesis.tex" / "model")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def edit_the_config(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"width": 16', '"width": 32'))


def age(directory: Path) -> None:
    path = directory / "config.json"
    storage.write_json(path, storage.read_json(path) | {"format_version": 99})


def exchange_the_weights(directory: Path) -> None:
    make_forecaster(width=32).save_pretrained(directory.parent / "other")
    (directory.parent / "other/model.safetensors").replace(directory / "model.safetensors")


def exchange_the_tokenizer(directory: Path) -> None:
    make_forecaster("path").save_pretrained(directory.parent / "other")
    (directory.parent / "other/model.safetensors").replace(directory / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model.safetensors is damaged: .*; restore it from a copy, or delete it"),
        (change_a_byte, r"model.safetensors is damaged: .* hash .*; restore it from a copy"),
        (edit_the_config, r"config.json is damaged: .* hash .*; restore it from a copy"),
        (age, r"model of format version 99, but this tipl reads version 1; update tipl"),
        (lambda model: (model / "config.json").unlink(), r"no .*config.json, but .*`tipl train`"),
        (lambda model: (model / "model.safetensors").unlink(), r"no .*model.safetensors, but the "),
        (exchange_the_weights, r"is not of the model in the config.json .*; restore both .*train"),
        (exchange_the_tokenizer, r"is not of the model in the config.json .*; restore both"),
    ],
)
def test_a_damaged_model_is_refused(
    saved: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(saved)
    with pytest.raises(TiplError, match=message):
        Forecaster.from_pretrained(saved)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    message = r"no .*/nowhere/config.json, but a model \(made by `tipl train`\).*; check the spell"
    with pytest.raises(TiplError, match=message):
        Forecaster.from_pretrained(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


# --- kinds and names ------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the models that ship with tipl."""
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "pretrained")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "pretrained"


def test_a_model_is_read_by_the_class_of_its_kind(saved: Path, tmp_path: Path) -> None:
    make_widening().save_pretrained(tmp_path / "other")
    config = storage.read_json(tmp_path / "other/config.json")
    assert config == {
        "kind": "Widening", "format_version": 1, "task": TASK.to_json(), "num_checkpoints": T,
        "settings": {"note": "by hand"}, "about": "log_std",
        "serves": ["InvertedPendulum-v5"],
    }  # fmt: skip
    other = Forecaster.from_pretrained(tmp_path / "other")
    assert isinstance(other, Widening)
    assert (other.rate, other.task, other.num_checkpoints) == (0.5, TASK, T)
    for read in (Forecaster, TrainedForecaster, PathTransformerForecaster):
        assert type(read.from_pretrained(saved)) is PathTransformerForecaster


def test_a_model_of_another_kind_is_refused(saved: Path, tmp_path: Path) -> None:
    make_widening().save_pretrained(tmp_path / "other")
    message = (
        r"other holds a model of the kind Widening, but a PathTransformerForecaster is expected; "
        r"use Widening.from_pretrained, or Forecaster.from_pretrained"
    )
    with pytest.raises(TiplError, match=message):
        PathTransformerForecaster.from_pretrained(tmp_path / "other")
    with pytest.raises(TiplError, match=r"of the kind PathTransformer, but a StandingStill is"):
        StandingStill.from_pretrained(saved)


@pytest.mark.parametrize("kind", ["Oracle", None])
def test_a_model_of_an_unknown_kind_is_refused(saved: Path, kind: str | None) -> None:
    config = storage.read_json(saved / "config.json") | {"kind": kind}
    storage.write_json(saved / "config.json", config)
    message = rf"model of the kind {kind!r}, but this tipl reads .*PathTransformer.*; update tipl"
    with pytest.raises(TiplError, match=message):
        Forecaster.from_pretrained(saved)


def test_what_ships_with_tipl_is_read_by_name(shelf: Path) -> None:
    make_forecaster("path").save_pretrained(shelf / "reader")
    make_widening().save_pretrained(shelf / "another")
    (shelf / "no-model").mkdir()
    (shelf / "README.md").write_text("models")
    assert shipped_models() == ["another", "reader"]
    for read in (Forecaster, PathTransformerForecaster):
        model, history = read.from_pretrained("reader"), random_paths(2, 4)
        expected = make_forecaster("path").forecast(history, 3)
        np.testing.assert_array_equal(model.forecast(history, 3), expected)
    with pytest.raises(TiplError, match=r"another holds a model of the kind Widening, but"):
        PathTransformerForecaster.from_pretrained("another")


def test_a_directory_goes_before_a_name(shelf: Path) -> None:
    make_forecaster("path").save_pretrained(shelf / "model")
    make_forecaster("joint").save_pretrained("model")  # in the working directory
    assert PathTransformerForecaster.from_pretrained("model").basis == "joint"
    make_forecaster("joint").save_pretrained(shelf / "taken")
    Path("taken").mkdir()
    with pytest.raises(TiplError, match=r"no taken/config.json, but a model \(made by `tipl train"):
        Forecaster.from_pretrained("taken")
    make_forecaster("joint").save_pretrained(shelf / "a-file")
    Path("a-file").write_text("mine")
    assert PathTransformerForecaster.from_pretrained("a-file").basis == "joint"


@pytest.mark.parametrize("source", ["nonesuch", "no-model", "../pretrained/reader/..", "x" * 300])
def test_what_is_neither_a_directory_nor_a_name_is_refused(shelf: Path, source: str) -> None:
    def refused(pattern: str) -> None:
        with pytest.raises(TiplError, match=pattern):
            Forecaster.from_pretrained(source)

    if source == "x" * 300:  # longer than a file may be named
        return refused(r"cannot read xxx.*: File name too long; check")
    refused(r"'\S+' is not one of .* ship with tipl \(there are none\);.* by `tipl train`")
    make_forecaster().save_pretrained(shelf / "reader")
    make_forecaster().save_pretrained(shelf / "writer")
    (shelf / "no-model").mkdir()
    if ".." not in source:
        return refused(r"is not one of .* \(reader, writer\); check the spelling, or make a model")
    return refused(r"there is no \.\./pretrained/reader/\.\./config.json, but a model")


def test_the_trials_that_a_model_learned_from() -> None:
    model = make_forecaster()
    assert model.training_trials == {}  # made by hand, it says nothing of them
    several: dict[str, list[int]] = {"abc": [2, 0], "def": [1]}
    for trained in (make_forecaster(), make_widening()):
        trained.settings["datasets"] = several
        assert trained.training_trials == several
    assert StandingStill().training_trials == {}
