"""The public names: stated once for readers and once for type checkers, and where they were."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tipl
from tipl.core.lazy import MOVED

SOURCE = Path(tipl.__file__).parent

# What README, docs, examples, scripts and public docstrings have named, at the address they gave.
DOCUMENTED = """
tipl: CollectConfig Forecaster NeuronTransformer PPOConfig ParamLayout PathDataset PathTransformer
tipl: Policy PolicyPath TemporalSVD TiplError TrainConfig __version__ collect evaluate train
tipl.acceleration: accelerate
tipl.actions: ActionHead
tipl.atomic: write_bytes_atomically
tipl.baselines: BestStoredPolicy LastDifferenceLine LeastSquaresLine MatchedNoise MeanDisplacement
tipl.baselines: NearestPath StandingStill
tipl.behaviour: visited_observations
tipl.benchmark: benchmark
tipl.collect_config: CollectConfig
tipl.collection: CollectConfig
tipl.dynamic_modes: DynamicModeDecomposition
tipl.envs: BatchedMujocoEnv make_task make_vec
tipl.envs.factory: measure_task
tipl.envs.gymnasium_vec: GymnasiumVec
tipl.envs.mujoco_tasks: MUJOCO_TASKS
tipl.envs.pictures: missing_renderer
tipl.evaluation: Evaluation episode_seed evaluate evaluate_stack
tipl.extrapolation: RELEX TwoPointLine
tipl.figure_style: save_figure
tipl.forecast: Forecaster Target TrainedForecaster shipped_models torch_threads FittedOutputLayer
tipl.forecast: NeuronTransformerForecaster NiNoForecaster PathTransformerForecaster WNNForecaster
tipl.forecast.base: Forecaster
tipl.forecast.neuron_transformer: NeuronTransformerForecaster
tipl.forecast.nowcasters: NiNoForecaster WNNForecaster
tipl.forecast.path_transformer: PathTransformerForecaster
tipl.forecast.shipped: SHIPPED shipped_models
tipl.held_out_forecasts: nearest_distances
tipl.integrations.cleanrl: ForecastHook
tipl.integrations.sb3: ForecastCallback PathRecorder
tipl.integrations.sb3_recording: PathRecorder
tipl.integrations.torch_jumps: TorchJumps
tipl.jump_config: JumpConfig
tipl.jumps: ForecastJumps JumpConfig JumpTry Jumper Jumps check_fits fitting_forecaster
tipl.jumps: jump_forecaster
tipl.models.neuron_transformer: NeuronTransformer NeuronTransformerConfig typical_changes
tipl.models.nowcasters: WNN NiNo
tipl.models.path_transformer: PathTransformer PathTransformerConfig
tipl.path_evaluation: evaluate_paths
tipl.path_trimming: trimmed_and_boosted
tipl.paths: PathDataset PathMetadata PolicyPath create_dataset read_metadata summarize verify
tipl.policy: ParamLayout Policy actor_layout initial_params
tipl.ppo: PPO PPOConfig PlugIn StoppedError
tipl.pptb: PPTBConfig
tipl.progress: progress_bar
tipl.report: Cell Judged Section Table
tipl.results: Result format_result
tipl.rivals: rivals training_paths
tipl.rollout: Rollout
tipl.runs: load_run
tipl.stats: Interval mean_interval paired_difference_interval reach_interval
tipl.storage: read_json read_tensors write_json write_tensors
tipl.tasks: TaskSpec get_task known_tasks
tipl.tokenizers: TemporalSVD information information_dimension make_tokenizer
tipl.training: Model Target TrainConfig train
tipl.variation: parse_ranges
"""


def _documented() -> list[tuple[str, str]]:
    lines = [line.split(": ") for line in DOCUMENTED.strip().splitlines()]
    return [(module, name) for module, names in lines for name in names.split()]


def test_documented_names_are_where_they_were() -> None:
    missing = [
        f"{module}.{name}"
        for module, name in _documented()
        if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []


def test_every_new_home_is_there() -> None:
    for home in {home for homes in MOVED.values() for home in homes.split()}:
        importlib.import_module(f"tipl.{home}")


def test_an_old_name_is_the_thing_itself() -> None:
    code = (
        "import tipl.training, tipl.forecast.shipped; from tipl.policy import Policy, actor_layout;"
        "import sys; assert 'tipl.models.config' not in sys.modules;"
        "import tipl; assert Policy is tipl.Policy; assert tipl.training.train is tipl.train"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "name"),
    [("training", "trains"), ("forecast", "NoForecaster"), ("ppo", "__wrapped__")],
)
def test_what_never_was_is_not_found(module: str, name: str) -> None:
    found = importlib.import_module(f"tipl.{module}")
    with pytest.raises(AttributeError, match=f"module 'tipl.{module}' has no attribute '{name}'"):
        getattr(found, name)


@pytest.mark.parametrize("name", ["tipl.unheard_of", "tipl.training.loops", "training"])
def test_a_module_that_never_was_is_not_found(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=name.rpartition(".")[2]):
        importlib.import_module(name)


def _lazy_packages() -> list[Path]:
    return [path for path in SOURCE.rglob("__init__.py") if "lazy_names(" in path.read_text()]


@pytest.mark.parametrize(
    "path", _lazy_packages(), ids=lambda path: path.parent.relative_to(SOURCE.parent).as_posix()
)
def test_readers_type_checkers_and_python_are_told_the_same(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    (exported,) = (
        node
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node)
    )
    assert exported.value is not None
    names = ast.literal_eval(exported.value)  # a literal, as type checkers and editors need it
    told = [
        (alias.name, node.module)
        for block in body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    defined = {
        name.id
        for node in body
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    } | {node.name for node in body if isinstance(node, ast.ClassDef)}
    assert {*names} - defined == {*dict(told)}
    package = importlib.import_module(".".join(path.parent.relative_to(SOURCE.parent).parts))
    assert dir(package) == sorted(names)
    for name, module in told:
        assert getattr(package, name) is getattr(importlib.import_module(str(module)), name)


def test_nobody_imports_what_is_private_to_another_module() -> None:
    """Modules have no `__all__`: what begins with an underscore is private, the rest is not."""
    folders = [
        SOURCE,
        *(SOURCE.parents[1] / name for name in ("scripts", "benchmarks", "examples")),
    ]
    private = {
        f"{path}: {node.module}.{alias.name}"
        for folder in folders
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
        if node.module.startswith("tipl")
    }
    assert private == set()
