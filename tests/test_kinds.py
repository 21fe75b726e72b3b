"""Kinds of models: one entry is all that the rest of tipl needs; options are of their kind."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import tipl
from path_data import make_arrays, make_metadata, write_parts
from tipl.cli import main
from tipl.core.lazy import resolve
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Target
from tipl.forecast.trained import TrainedForecaster
from tipl.models import TrainConfig, kinds
from tipl.models.kinds import Kind, all_kinds, find_kind, make_config, recorded_config, register
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.nowcasters import NiNoTrainConfig, WNNTrainConfig
from tipl.models.path_transformer import PathTrainConfig
from tipl.models.world import WorldTrainConfig
from tipl.paths import PathDataset, create_dataset
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec
from tipl.report.methods import method_of

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = ("path", "neuron", "world", "wnn", "nino")

each_kind = pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
each_of_any_paths = pytest.mark.parametrize(
    "kind", [kind for kind in all_kinds() if not kind.lineages], ids=lambda kind: kind.name
)


@pytest.fixture
def paths(tmp_path: Path) -> PathDataset:
    """Trials that wander; one of them diverges, which has the highest returns."""
    metadata = make_metadata()
    create_dataset(tmp_path / "paths", metadata)
    arrays = make_arrays(metadata)
    arrays["episodic_return"][3] = 1000.0
    write_parts(tmp_path / "paths", metadata, arrays)
    return PathDataset.open(tmp_path / "paths")


# --- the entries ----------------------------------------------------------------------------------


def test_the_kinds_of_tipl() -> None:
    assert tuple(kind.name for kind in all_kinds()) == NAMES
    assert [find_kind(name).title for name in NAMES] == [
        "PathTransformer", "NeuronTransformer", "WorldModel", "WNN", "NiNo",
    ]  # fmt: skip
    with pytest.raises(
        TiplError, match=r"model is 'mine'; expected one of path, neuron, world, wnn, nino"
    ):
        find_kind("mine")


@each_kind
def test_an_entry_names_what_there_is(kind: Kind) -> None:
    assert resolve(kind.forecaster).kind == kind.title
    assert issubclass(kind.config_class, TrainConfig)
    assert kind.config_class().model == kind.name
    assert callable(resolve(kind.train))
    assert kind.losses
    assert set(kind.losses) <= set(get_args(Target))


@each_of_any_paths
def test_names_in_tables_begin_as_the_entry_says(kind: Kind, paths: PathDataset) -> None:
    usable = paths.select([0, 1, 2, 4])
    small: dict[str, Any] = {"num_steps": 1, "batch_size": 8, "width": 8, "progress": False}
    if kind.name == "neuron":
        small |= {"targets": ("own",)}
    model = tipl.train(usable, model=kind.name, **small)
    assert type(model) is resolve(kind.forecaster)
    assert any(model.name.startswith(name) for name in kind.colours)
    assert method_of(model.name).ours == (not kind.rival)


def test_entries_load_no_model() -> None:
    code = "import sys, tipl.models.kinds; print(*{'torch', 'scipy', 'gymnasium'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_what_the_loss_is_is_found_by_what_files_say() -> None:
    assert kinds.loss_sentence("NeuronTransformer", "elite").startswith(
        "Mean squared difference of"
    )
    assert kinds.loss_sentence("WNN", "own") == kinds.loss_sentence("NiNo", "own") != ""
    assert kinds.loss_sentence("WNN", "elite") == kinds.loss_sentence("Unknown", "own") == ""


# --- options --------------------------------------------------------------------------------------


def test_the_defaults_of_each_kind() -> None:
    configs = [make_config(name) for name in NAMES]
    assert [type(config) for config in configs] == [
        PathTrainConfig, NeuronTrainConfig, WorldTrainConfig, WNNTrainConfig, NiNoTrainConfig,
    ]  # fmt: skip
    assert [config.steps for config in configs] == [800, 2000, 2000, 1000, 1000]
    assert [config.peak_learning_rate for config in configs] == [1e-3, 2e-3, 4e-3, 2e-3, 2e-3]
    assert [config.batch_size for config in configs] == [32, 32, 24, 32, 32]
    assert {config.width for config in configs} == {64}
    assert make_config() == PathTrainConfig()


@pytest.mark.parametrize(
    ("model", "option", "owners"),
    [
        ("wnn", "heads", "model='path' and model='neuron'"),
        ("wnn", "rounds", "model='neuron'"),
        ("nino", "basis", "model='path'"),
        ("path", "memory", "model='neuron'"),
        ("neuron", "rank", "model='path'"),
    ],
)
def test_an_option_of_another_kind_is_refused(
    paths: PathDataset,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: str,
    option: str,
    owners: str,
) -> None:
    message = (
        f"model='{model}' has no option '{option}', which belongs to {owners}; expected one of"
    )
    with pytest.raises(TiplError, match=message):
        tipl.train(paths, model=model, **{option: 2})
    for arguments in (["--model", model], [f"--model={model}"]):
        out = ["--out", str(tmp_path / "model")]
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(paths.directory), *arguments, f"--{option}", "2", *out])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@each_kind
def test_help_shows_the_options_of_one_kind(kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "paths", "--model", kind.name, "--help"])
    assert stopped.value.code == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    flags = {flag.replace("-", "_") for flag in re.findall(r" --([a-z][a-z-]*)", words)}
    shared = {
        "out",
        "held_out",
        "first_trials",
        "order",
        "threads",
        "help",
        "no_condition_on_return",
    }
    shared |= {"resume", "no_resume", "trust_module", "trust_argument"}
    shared |= {"json", "quiet"}
    shared |= {"nproc_per_node"}  # of torchrun, which the purpose names
    assert flags - shared == {*kind.options}
    for other in all_kinds():
        assert other.summary in words


def test_an_unknown_model_is_refused(
    paths: PathDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TiplError, match="model is 'gpt'; expected one of path, neuron, world, wnn"):
        tipl.train(paths, model="gpt")
    with pytest.raises(SystemExit):
        main(["train", str(paths.directory), "--model", "gpt", "--out", "new"])
    assert "model is 'gpt'; expected one of path" in capsys.readouterr().err


def test_a_width_fits_the_heads_only_where_there_are_heads() -> None:
    assert make_config("wnn", width=30).width == 30
    for model in ("path", "neuron"):
        with pytest.raises(TiplError, match="width of 30 was given with 4 heads"):
            make_config(model, width=30)


def test_a_plain_configuration_is_one_of_its_kind() -> None:
    plain = tipl.TrainConfig(model="neuron", num_steps=7, width=32)
    assert kinds.completed(plain) == NeuronTrainConfig(num_steps=7, width=32)
    assert kinds.completed(tipl.TrainConfig()) == PathTrainConfig()
    own = NiNoTrainConfig(width=16)
    assert kinds.completed(own) is own
    with pytest.raises(
        TiplError, match=r"a NiNoTrainConfig was given with model='wnn', whose opti"
    ):
        kinds.completed(NiNoTrainConfig(model="wnn"))


def test_a_configuration_is_given_instead_of_a_model(paths: PathDataset) -> None:
    config = WNNTrainConfig(num_steps=1, width=8)
    model = tipl.train(paths, config=config, progress=False)
    assert model.kind == "WNN"
    assert model.settings["train"] == dataclasses.asdict(config)
    with pytest.raises(TiplError, match=r"both config and the options \['model'\] were given"):
        tipl.train(paths, config=config, model="wnn")


OLD = {
    "model": "path", "num_steps": None, "batch_size": 32, "learning_rate": None,
    "weight_decay": 0.01, "width": 64, "heads": 4, "seed": 3, "condition_on_return": True,
    "basis": "path", "center": "initial", "rank": 16, "depth": 2, "targets": ["elite", "own"],
    "rounds": 2, "context": 2, "behaviour_weight": 0.0, "memory": 2048, "jump_penalty": 0.002,
    "fresh_widths": [16, 32], "fresh_depths": [1, 2],
}  # fmt: skip
"""What models recorded when all of them had the same options."""


def test_what_old_models_record_is_read() -> None:
    assert recorded_config(OLD) == PathTrainConfig(seed=3, condition_on_return=True, basis="path")
    assert recorded_config(OLD | {"model": "neuron"}) == NeuronTrainConfig(
        seed=3, condition_on_return=True, fresh_widths=(16, 32), fresh_depths=(1, 2)
    )
    assert recorded_config(OLD | {"model": "nino", "num_steps": 9}) == NiNoTrainConfig(
        num_steps=9, seed=3
    )


# --- trials that diverged -------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["path", "wnn"])
def test_trials_that_diverged_are_neither_counted_nor_wished_for(
    paths: PathDataset, model: str
) -> None:
    trained = tipl.train(paths, model=model, num_steps=1, width=8, progress=False)
    assert trained.training_trials == {paths.metadata.digest: [0, 1, 2, 4]}
    usable = paths.select([0, 1, 2, 4]).episodic_return()
    assert trained.settings["high_return"] == np.nanpercentile(usable, 99) < 100


# --- trainings that diverge -----------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 60])  # seen by the weights alone, or by the loss
@pytest.mark.parametrize("held_out", [False, True])
@each_of_any_paths
def test_a_training_that_diverges_is_stopped(
    kind: Kind, paths: PathDataset, held_out: bool, steps: int
) -> None:
    options: dict[str, Any] = {"targets": ("own",)} if kind.name == "neuron" else {}
    with pytest.raises(TiplError) as stopped:
        tipl.train(
            paths, held_out=paths if held_out else None, model=kind.name, width=8, num_steps=steps,
            learning_rate=1e30, progress=False, **options,
        )  # fmt: skip
    message = str(stopped.value)
    assert re.search(
        rf"diverged at step \d+ of {steps} \(the (.*) is (nan|inf)\)",
        message,
    )
    assert "learning rate of 1e+30, and nothing was saved; train with a smaller one" in message


def test_nothing_is_saved_of_a_training_that_diverges(
    paths: PathDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(paths.directory), "--learning-rate", "1e18", "--num-steps", "30"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path / "model")])
    assert stopped.value.code == 2
    assert "the training diverged at step" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


# --- a kind from elsewhere ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DriftConfig(TrainConfig):
    """How a drift is found."""

    model: str = "drift"
    strength: float = 1.0
    """how much of the mean change is added"""


class Drift(TrainedForecaster):
    """Every weight moves along the mean change of the training paths."""

    kind = name = "Drift"

    def __init__(
        self,
        step: Array,
        layout: ParamLayout,
        task: TaskSpec,
        length: int,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(task, layout.hidden_sizes, length, settings=settings)
        self.step, self.layout = step, layout

    def _forecast(self, histories: Array, horizons: list[int], layout: ParamLayout | None) -> Array:
        return np.asarray(histories[:, -1:] + np.array(horizons)[:, None] * self.step)

    def _config(self) -> dict[str, Any]:
        return {"layout": self.layout.to_json()}

    def _tensors(self) -> dict[str, Array]:
        return {"step": self.step}

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Drift:
        layout = ParamLayout.from_json(config["layout"])
        task = TaskSpec.from_json(config["task"])
        return cls(tensors["step"], layout, task, config["num_checkpoints"], config["settings"])


def train_drift(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: DriftConfig,
    *,
    threads: int | None,
    progress: bool,
) -> Drift:
    """The mean change, times the strength."""
    (paths,) = datasets
    params = paths.select(paths.trials[~paths.diverged()]).params()
    step = (params[:, -1] - params[:, 0]).mean(axis=0) / (params.shape[1] - 1)
    settings = {"curves": {}}
    return Drift(config.strength * step, paths.layout, paths.task, paths.num_checkpoints, settings)


DRIFT = Kind(
    name="drift",
    title="Drift",
    summary="the mean change of the training paths",
    config=DriftConfig,
    train=train_drift,
    forecaster=Drift,
    colours={"Drift": "#a03070"},
    losses={"own": "None: a mean is no training."},
)


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_REGISTERED", {})
    register(DRIFT)


@pytest.mark.usefixtures("drift")
def test_a_registered_kind_is_trained_saved_and_loaded(paths: PathDataset, tmp_path: Path) -> None:
    model = tipl.train(paths, model="drift", strength=0.5, seed=4)
    assert isinstance(model, Drift)
    params = paths.params()
    mean = (params[[0, 1, 2, 4], -1] - params[[0, 1, 2, 4], 0]).mean(axis=0)
    history = params[:2, :3]
    np.testing.assert_allclose(
        model.forecast(history, 6), history[:, -1] + 0.5 * mean, rtol=1e-5, atol=1e-5
    )
    model.save_pretrained(tmp_path / "model")
    copy = Forecaster.from_pretrained(tmp_path / "model")
    assert type(copy) is Drift
    assert copy.settings == model.settings
    assert recorded_config(copy.settings["train"]) == DriftConfig(strength=0.5, seed=4)
    np.testing.assert_array_equal(copy.forecast(history, 2), model.forecast(history, 2))
    start = paths.policy(0, 0)
    expected = start.params + 0.5 * mean
    np.testing.assert_allclose(copy.optimize(start).params, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("drift")
def test_a_registered_kind_is_in_all_lists(
    paths: PathDataset, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    method = method_of("Drift, wished")
    assert (method.colour, method.ours) == ("#a03070", True)
    assert kinds.loss_sentence("Drift", "own") == "None: a mean is no training."
    with pytest.raises(TiplError, match=r"model='drift' has no option 'rank', which belongs to"):
        tipl.train(paths, model="drift", rank=3)
    with pytest.raises(TiplError, match=r"no option 'strength', which belongs to model='drift'"):
        tipl.train(paths, strength=3)
    with pytest.raises(TiplError, match=r"2 datasets were given, but a Drift learns from one"):
        tipl.train([paths, paths], model="drift")
    out = tmp_path / "model"
    arguments = ["train", str(paths.directory), "--model", "drift", "--strength", "2"]
    main([*arguments, "--held-out", "0.5", "--out", str(out)])
    assert f"{out}: Drift, " in capsys.readouterr().out
    assert recorded_config(Forecaster.from_pretrained(out).settings["train"]) == DriftConfig(
        strength=2.0
    )


@pytest.mark.usefixtures("drift")
def test_a_kind_that_is_registered_again_is_replaced() -> None:
    again = dataclasses.replace(DRIFT, colours={"Drift": "gold"})
    register(again)
    assert [kind for kind in all_kinds() if kind.name == "drift"] == [again]


@pytest.mark.parametrize(
    "changes",
    [{"name": "wnn"}, {"title": "WNN"}, {"name": "wnn", "title": "WNN"}, {"name": "drift-2"}],
)
@pytest.mark.usefixtures("drift")
def test_a_name_that_is_taken_is_refused(changes: dict[str, str]) -> None:
    before = all_kinds()
    with pytest.raises(TiplError, match=r"to register, but there is .*; choose another name and"):
        register(dataclasses.replace(DRIFT, **changes))
    assert all_kinds() == before


def test_a_file_of_an_unregistered_kind_is_refused(
    paths: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(kinds, "_REGISTERED", {})
        register(DRIFT)
        tipl.train(paths, model="drift").save_pretrained(tmp_path / "model")
    message = r"kind 'Drift', but this tipl reads .*; update tipl, or import the module that regis"
    with pytest.raises(TiplError, match=message):
        Forecaster.from_pretrained(tmp_path / "model")
