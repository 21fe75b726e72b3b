"""Networks of any activation, carried to the behaviour of a policy that no path contains."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import tipl
from path_data import make_arrays, make_metadata, write_parts
from tipl.cli import main
from tipl.core.schemas import conforming
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.evaluation import behaviour
from tipl.models import readout
from tipl.models.kinds import make_config
from tipl.models.learning_paths import ReturnScale, learning_paths
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.losses import EliteLoss
from tipl.models.neuron_transformer.net import NeuronTransformerConfig
from tipl.models.readout import FittedOutputLayer
from tipl.paths import PathDataset, create_dataset
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, get_task

TASK = get_task("InvertedPendulum-v4")
SMALL: dict[str, Any] = {
    "width": 8, "heads": 2, "rounds": 1, "batch_size": 2, "num_steps": 2, "memory": 512,
    "fresh_widths": (8,), "fresh_depths": (1,),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def short_rollouts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "NUM_ROLLOUTS", 8)
        patch.setattr(behaviour, "STEPS_OF_ROLLOUT", 100)
        yield


def made_paths(directory: Path, task: TaskSpec = TASK, **changes: Any) -> PathDataset:
    """Paths of weights that wander; nothing is run."""
    activation = changes.pop("activation", "tanh")
    layout = actor_layout(task, (8, 8), activation, changes.pop("squashed", False))
    metadata = make_metadata(
        task=task, layout=layout, hidden_sizes=(8, 8), num_checkpoints=5, **changes
    )
    arrays = make_arrays(metadata)
    arrays["params"][:] = 0.1 * np.nan_to_num(arrays["params"])
    arrays["diverged"][:] = False
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return made_paths(tmp_path_factory.mktemp("teacher") / "paths")


def balancing(task: TaskSpec = TASK) -> Policy:
    """A squashed network of ReLUs with a normaliser of its own, no clip, and a steady hand."""
    layout = actor_layout(task, (8,), "relu", squashed=True)
    mean, std = np.array([0.3, -0.2, 0.5, 0.1]), np.array([5.0, 0.1, 3.0, 0.25])
    params = np.zeros(layout.size, np.float32)
    arrays = layout.unflatten(params)
    both = np.concatenate([np.diag(std), -np.diag(std)])  # x as relu(x) - relu(-x)
    arrays["actor.0.weight"][:] = both
    arrays["actor.0.bias"][:] = np.concatenate([mean, -mean])
    gain = np.array([0.3, 3.0, 0.6, 1.5]) / 3  # actions go from -3 to 3
    arrays["actor.1.weight"][:] = np.concatenate([gain, -gain])
    return Policy(params, layout, task, mean, std, math.inf)


def learn(paths: PathDataset, **options: Any) -> NeuronTransformerForecaster:
    small = SMALL | {"targets": ("elite",), "threads": 1, "progress": False}
    model = tipl.train(paths, model="neuron", **small | options)
    assert isinstance(model, NeuronTransformerForecaster)
    return model


# --- one's own teacher ----------------------------------------------------------------------------


def test_networks_are_carried_to_a_policy_that_no_path_contains(
    paths: PathDataset, tmp_path: Path
) -> None:
    teacher = balancing()
    assert tipl.evaluate(teacher, 2).episodic_return.min() == 1000
    teacher.save(tmp_path / "teacher")
    main(
        f"train {paths.directory} --model neuron --targets elite --elite {tmp_path / 'teacher'} "
        f"--out {tmp_path / 'model'} --width 8 --heads 2 --rounds 1 --batch-size 2 --num-steps 2 "
        "--memory 512 --fresh-widths 8 --fresh-depths 1 --threads 1".split()
    )
    model = tipl.Forecaster.from_pretrained(tmp_path / "model")
    start = [Policy.initial(TASK, s, (64, 64), a) for s, a in enumerate(("tanh", "tanh"))]
    assert tipl.evaluate(start, 2).episodic_return.max() < 100
    assert tipl.evaluate(model.optimize(start), 2).episodic_return.min() > 900
    record = model.settings["elite"]
    assert record == {
        "policy": str(tmp_path / "teacher"), "digest": teacher.digest, "mean_return": 1000.0,
        "episodes": 8, "env_steps": 8000,
    }  # fmt: skip
    assert model.settings["train"]["elite"] == str(tmp_path / "teacher")
    assert model.settings["env_steps"] == 8000 + 8 * 100


def test_a_policy_itself_may_be_given_and_learned_from_beside_the_paths(paths: PathDataset) -> None:
    model = learn(paths, targets=("elite", "own"), elite=balancing())
    assert model.targets == ("elite", "own")
    assert model.settings["elite"]["digest"] == balancing().digest
    assert model.settings["elite"]["policy"] == repr(balancing())
    other = Policy.initial(TASK, 0, (8,))
    assert other.digest != balancing().digest


def test_each_looks_through_its_own_normaliser(paths: PathDataset) -> None:
    teacher = balancing()
    config = NeuronTrainConfig(**SMALL)
    data = [learning_paths(paths, ReturnScale(0.0, 1.0), 0, anchors=0)]
    loss = EliteLoss(teacher, TASK, data, config)
    rng = torch.Generator().manual_seed(0)
    seen = loss.draw_seen((1, 1, 200), rng)
    student = Policy.initial(TASK, 1, (8,))
    network = loss.elite.from_flat(torch.as_tensor(student.params)[None, None], student.layout)
    raw = seen[0, 0].numpy()
    wanted, given = teacher.act(raw), student.act(raw)
    expected = np.square((given - wanted) / 3).mean()
    # whatever its log_std is: of a squashed teacher none is known, so it should stay
    assert loss.error(network, network, seen).item() == pytest.approx(expected, rel=1e-4)
    assert network.log_std is not None
    wider = dataclasses.replace(network, log_std=network.log_std + 1)
    assert loss.error(network, wider, seen).item() == pytest.approx(expected + 0.02, rel=1e-4)


def test_the_rival_fits_output_layers_to_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "STRIDE", 1)
    rival = FittedOutputLayer.of(balancing())
    start = [Policy.initial(TASK, s, (64, 64)) for s in range(2)]
    ahead = rival.forecast(np.stack([p.params for p in start])[:, None], 1, layout=start[0].layout)
    better = [p.with_params(row) for p, row in zip(start, ahead, strict=True)]
    assert tipl.evaluate(better, 2).episodic_return.min() > 900


def test_a_policy_that_acts_elsewhere_is_refused(paths: PathDataset, tmp_path: Path) -> None:
    hopper = Policy.initial("Hopper-v4", 0, (8,))
    with pytest.raises(
        TiplError, match=r"^an elite for Hopper-v4 with 11 observed values.* was gi"
    ):
        learn(paths, elite=hopper)
    shorter = copy.deepcopy(gymnasium.spec(TASK.env_id))
    shorter.max_episode_steps = 200
    with pytest.raises(TiplError, match=r"200.*of InvertedPendulum-v4 with .*of the same environ"):
        learn(paths, elite=Policy.initial(make_task(shorter), 0, (8,)))
    wider = dataclasses.replace(TASK, action_low=(-6.0,), action_high=(6.0,))
    with pytest.raises(TiplError, match=r"actions from \[-6.0\] to \[6.0\]"):
        learn(paths, elite=Policy.initial(wider, 0, (8,)))
    with pytest.raises(TiplError, match=r"physics \{'gravity': 2.0\}"):
        learn(paths, elite=Policy.initial(TASK.with_physics({"gravity": 2.0}), 0, (8,)))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/policy.json").write_text("{")
    for directory in ("broken", "nowhere"):
        with pytest.raises(TiplError, match=directory):
            learn(paths, elite=tmp_path / directory)


@pytest.mark.parametrize("model", ["path", "wnn", "nino"])
def test_kinds_without_an_elite_have_no_such_option(
    model: str, paths: PathDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"model='{model}' has no option 'elite', which belongs to model='neuron'"
    with pytest.raises(TiplError, match=message):
        tipl.train(paths, model=model, elite=balancing())
    with pytest.raises(SystemExit):
        main(f"train {paths.directory} --model {model} --elite there --out new".split())
    assert message in capsys.readouterr().err


def test_options_of_the_elite_are_checked() -> None:
    with pytest.raises(TiplError, match=r"elite there was given for the targets own; add the"):
        make_config("neuron", targets=("own",), elite="there")
    with pytest.raises(TiplError, match="no fresh_activations were given"):
        make_config("neuron", fresh_activations=())
    with pytest.raises(TiplError, match="'sine' was given; expected one of tanh"):
        make_config("neuron", fresh_activations=("sine",))


# --- any activation -------------------------------------------------------------------------------


def test_a_model_tells_the_activations_apart_that_it_learned(
    paths: PathDataset, caplog: pytest.LogCaptureFixture
) -> None:
    model = learn(paths, elite=balancing(), fresh_activations=("tanh", "gelu"))
    net = model.models["elite"]
    assert net.config.activations == ("tanh", "gelu")
    assert net.activation_identity is not None
    assert net.activation_identity.detach().abs().max() > 0
    for activation in ACTIVATIONS:  # and reads the others as well
        better = model.optimize(Policy.initial(TASK, 0, (6, 5), activation))
        assert better.layout.activation == activation
    told = [record.getMessage() for record in caplog.records if record.name == "tipl"]
    others = [name for name in ACTIVATIONS if name not in ("tanh", "gelu")]
    assert [text.split()[2] for text in told] == others
    assert "carry those of tanh, gelu" in told[0]
    plain = learn(paths, elite=balancing()).models["elite"]
    assert plain.activation_identity is None


def test_models_of_before_know_tanh_alone() -> None:
    sizes = {"observation_size": 4, "action_size": 1, "num_checkpoints": 5, "width": 8}
    assert conforming(sizes, NeuronTransformerConfig, "a model").activations == ("tanh",)
    told = sizes | {"activations": ["tanh", "relu"]}
    several = conforming(told, NeuronTransformerConfig, "a model")
    assert several.activations == ("tanh", "relu")


def test_squashed_networks_have_a_future_of_their_own_alone(
    paths: PathDataset, tmp_path: Path
) -> None:
    model = learn(paths, targets=("elite", "own"), elite=balancing())
    with pytest.raises(TiplError, match=r"squashed by tanh was given, but .*\(elite\) carries"):
        model.optimize(balancing())
    teacher = balancing()
    frozen = Policy(teacher.params, teacher.layout, TASK)
    assert model.optimize(frozen, target="own").layout.squashed
    squashed = made_paths(tmp_path / "squashed", activation="relu", squashed=True)
    with pytest.raises(TiplError, match=r"squashed by tanh, which are not carried to an elite"):
        learn(squashed, elite=balancing())
    own = learn(squashed, targets=("own",))
    assert own.default_layout == squashed.layout
    assert own.forecast(squashed.params()[0, :2], 1).shape == (squashed.layout.size,)
