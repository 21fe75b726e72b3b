"""Modules that files name: imported on the user's word alone, whatever the file, by any command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

import tipl
from in_process import do_little
from tipl import Policy, TiplError, cli, collect, evaluate
from tipl.collection.config import CollectConfig
from tipl.core import storage
from tipl.core import trust as trusting
from tipl.envs import make_task, make_vec
from tipl.envs.factory import measure_task
from tipl.envs.registry import registered_spec
from tipl.envs.variants import described, variant_of
from tipl.evaluation.behaviour import visited_observations
from tipl.evaluation.film import film
from tipl.experiments import pipeline
from tipl.experiments.config import (
    BENCHMARK,
    COMPARISON,
    AccelerationConfig,
    BenchmarkConfig,
    DemoConfig,
)
from tipl.experiments.pipeline import prepare_directory, run_pipeline
from tipl.experiments.scaling.config import SCALING, ScalingConfig
from tipl.experiments.stage_records import read_records
from tipl.experiments.worlds.config import WORLDS_BENCHMARK, WorldsConfig
from tipl.policies.tasks import TaskSpec, get_task
from tipl.ppo import PPOConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*WARN")  # Gymnasium's advice

ENV_ID = "stranger.envs:Stranger-v0"
IMPORTED = "imported.txt"
"""What the stranger's module writes, where it lies, when it is imported."""

MODULE = f"""
import pathlib, gymnasium, users_envs
pathlib.Path(__file__).with_name("{IMPORTED}").touch()
class Cart(users_envs.Cart): pass
gymnasium.register("Stranger-v0", "stranger.envs:Cart", max_episode_steps=12)
"""

LITTLE = CollectConfig(
    num_trials=6,
    total_steps=96,
    hidden_sizes=(4,),
    ppo=PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1),
)


LITTLE_OPTIONS = ["--total-steps", "32", "--ppo.num-steps", "16", "--ppo.num-minibatches", "2"]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the process be as one in which nobody has spoken of the module."""
    monkeypatch.setattr(trusting, "_trusted", set())
    monkeypatch.setattr(trusting, "_trusted_arguments", set())
    monkeypatch.delitem(gymnasium.registry, "Stranger-v0", raising=False)
    for module in ("stranger", "stranger.envs"):
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, as tipl makes them, whose task names the stranger's module."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "stranger").mkdir()
    (folder / "stranger" / "__init__.py").write_text("")
    (folder / "stranger" / "envs.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        forget(patch)
        do_little(patch)
        run = folder / "run"
        prepare_directory(run, fresh=False, command="demo")
        paths = collect(ENV_ID, out=run / "paths", config=LITTLE, progress=False)
        paths.policy(0, -1).save(folder / "policy")
        steps = ("--num-steps", "1", "--batch-size", "2", "--width", "8", "--out")
        for words in (
            ("train", str(run / "paths"), "--basis", "path", *steps, str(run / "models" / "path")),
            (
                *("train", str(run / "paths"), "--model", "neuron", "--rounds", "1"),
                *("--memory", "16", "--fresh-widths", "4", "--fresh-depths", "1"),
                *(*steps, str(run / "models" / "neuron")),
            ),
            (
                *("forecast", *(str(run / "models" / name) for name in ("path", "neuron"))),
                *("--paths", str(run / "paths"), "--starts", "0", "0.5", "--horizons", "1"),
                *("--out", str(run / "forecasts")),
            ),
            ("evaluate", str(run / "forecasts"), "--episodes", "1"),
        ):
            cli.main(words)
        assert (folder / "stranger" / IMPORTED).exists()
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, on the path of Python, in a process that knows nothing of them."""
    copy = shutil.copytree(files, tmp_path / "files")
    (copy / "stranger" / IMPORTED).unlink()
    forecasts = copy / "run" / "forecasts" / "forecasts.json"
    record = storage.read_json(forecasts)
    storage.write_json(forecasts, record | {"dataset": str(copy / "run" / "paths")})
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(copy)
    forget(monkeypatch)
    return copy


def imported(folder: Path) -> bool:
    return (folder / "stranger" / IMPORTED).exists()


def ends(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status of a command, and what it said of an error."""
    capsys.readouterr()
    try:
        cli.main(words.split())
    except SystemExit as end:
        return int(end.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


NEURON = "--model neuron --num-steps 1 --batch-size 2 --rounds 1 --width 8 --memory 16"
RUN_THE_ENVIRONMENT = {
    "evaluate a policy": "evaluate policy --episodes 1",
    "evaluate forecasts": "evaluate run/forecasts --episodes 1",
    "paths evaluate": "paths evaluate run/paths --episodes 1",
    "paths best": "paths best run/paths --out made --episodes 1",
    "train": f"train run/paths {NEURON} --fresh-widths 4 --fresh-depths 1 --out made",
    "forecast": "forecast run/models/path --paths run/paths --starts 0.5 --horizons 1 --out made",
    "film a policy": "film policy --out made.gif",
    "film a run": "film run --out made.gif",
    "costs": "costs run",
}
OTHERS = {
    "paths show": "paths show run/paths",
    "paths verify": "paths verify run/paths",
    "paths copy": "paths copy run/paths made",
    "train": "train run/paths --basis path --num-steps 1 --batch-size 2 --width 8 --out made",
    "optimize": "optimize run/models/neuron --out made",
    "optimize a policy": "optimize run/models/neuron --policy policy --out made",
    "report": "report run",
}


@pytest.mark.parametrize("words", RUN_THE_ENVIRONMENT.values(), ids=RUN_THE_ENVIRONMENT)
def test_no_command_imports_what_a_file_names(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}
    status, error = ends(words, capsys)
    assert status == 2
    assert not imported(folder)
    assert "Stranger-v0" not in gymnasium.registry
    sentence = error.strip().splitlines()[-1]  # below a progress bar
    assert "Traceback" not in error
    for part in (
        f"the task {ENV_ID!r} asks for the module 'stranger.envs'",
        f"stranger from {folder / 'stranger' / '__init__.py'}",
        "add `--trust-module stranger.envs`",
        "tipl.trust('stranger.envs')",
    ):
        assert part in sentence
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    assert "stranger" not in sys.modules  # what a look for the submodule would have imported


@pytest.mark.parametrize("module", ["stranger", "stranger.envs"])
@pytest.mark.parametrize(
    "words", [*RUN_THE_ENVIRONMENT.values()][:3], ids=[*RUN_THE_ENVIRONMENT][:3]
)
def test_every_command_takes_the_users_word(
    words: str, module: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(f"{words} --trust-module {module} --trust-module not_there", capsys)[0] == 0
    assert imported(folder)
    assert not trusting.is_trusted("stranger")  # for that command


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_what_runs_no_environment_needs_no_module(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tipl.experiments.run_report.write_report", lambda *_, **__: None)
    status, error = ends(words, capsys)
    assert status == 0, error
    assert not imported(folder)


def test_every_command_says_how_to_trust(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main([*command.split(), "--help"])
        said = capsys.readouterr().out
        assert "--trust-module NAME" in said
        assert "--trust-argument TEXT" in said


def test_policies_that_are_evaluated_in_python_need_the_users_word(folder: Path) -> None:
    policy = Policy.load("policy")
    for call in (
        lambda: evaluate(policy, 1),
        lambda: make_vec(policy.task, 1),
        lambda: variant_of(policy.task),
        lambda: film(policy),
        lambda: visited_observations(policy.params[None], policy.layout, policy.task, 2),
        lambda: registered_spec(policy.task.env_id),
        lambda: BenchmarkConfig("stranger.envs:Stranger-v0").command_line(Path("run")),
        lambda: described(EnvSpec(ENV_ID, "stranger.envs:Cart")),
    ):
        with contextlib.suppress(TiplError):
            call()
        assert not imported(folder)
    with tipl.trust("stranger"):
        evaluate(policy, 1)
    assert imported(folder)
    evaluate(policy, 1)  # what has been registered stays so


def test_an_id_that_is_registered_already_needs_no_module(folder: Path) -> None:
    gymnasium.register("Stranger-v0", "users_envs:Cart", max_episode_steps=12)
    evaluate(Policy.load("policy"), 1)
    assert not imported(folder)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_task(ENV_ID),
        lambda: make_vec(ENV_ID, 1),
        lambda: measure_task(ENV_ID, num_steps=2),
        lambda: BenchmarkConfig.for_task(ENV_ID),
        lambda: collect(ENV_ID, out="made", config=LITTLE, progress=False),
        lambda: cli.main(
            ["collect", ENV_ID, "--num-trials", "2", "--out", "made", *LITTLE_OPTIONS]
        ),
    ],
)
def test_an_id_of_ones_own_is_ones_word(call: Callable[[], object], folder: Path) -> None:
    call()
    assert imported(folder)
    evaluate(Policy.load("policy"), 1)


def test_trust_covers_what_is_in_a_package_and_nothing_else() -> None:
    with tipl.trust("pkg", "one.envs"):
        for module in ("pkg", "pkg.envs", "pkg.envs.more", "one.envs", "one.envs.more"):
            assert trusting.is_trusted(module)
        for module in ("pkgevil", "pkg_", "one", "one.other", "one.envs2", "evil.pkg", "Pkg", ""):
            assert not trusting.is_trusted(module)
        with tipl.trust("pkg"):  # again: it goes on after this block
            pass
        assert trusting.is_trusted("pkg")
    assert not trusting.is_trusted("pkg.envs")


@pytest.mark.parametrize(
    "module", ["", "a b", "a/b", "a.", ".a", "a..b", "..", "a:b", "a-b", "*", "a\n", "/a.py", "1a"]
)
def test_only_modules_are_trusted(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TiplError, match="as the name of a module to trust: expected one such as"):
        tipl.trust("pkg", module)
    assert not trusting.is_trusted("pkg")
    with pytest.raises(SystemExit) as end:
        cli.main(["paths", "show", "here", f"--trust-module={module}"])
    assert end.value.code == 2
    assert "as the name of a module to trust" in capsys.readouterr().err


ODD = {
    "stranger.envs:Gone-v0": r"the module 'stranger.envs', which .*\(stranger from .*__init__.py\)",
    "stranger.envs:ns/Stranger-v0": "the module 'stranger.envs', which would be imported",
    "stranger:Stranger-v0": "the module 'stranger', which would be imported",
    "not_there.envs:Stranger-v0": r"'not_there.envs', .* \(not_there is not found here\)",
    "os:Stranger-v0": r"the module 'os', which would be imported \(os from ",
    "sys:Stranger-v0": r"the module 'sys', which would be imported \(sys from built-in\)",
    "__main__:Stranger-v0": "the module '__main__'",
    "spaced:Stranger-v0": r"the module 'spaced', .* \(spaced from .*files.spaced\)",
    **dict.fromkeys(
        (
            *("stranger.envs:Stranger:Stranger-v0", "stranger:envs:Stranger-v0"),
            *(".stranger.envs:Stranger-v0", "..stranger:Stranger-v0", "stranger.:Stranger-v0"),
            *("stranger envs:Stranger-v0", "stranger/envs.py:Stranger-v0", " stranger:Stranger-v0"),
            *("/a/stranger:Stranger-v0", "stranger\\envs:Stranger-v0", "\x1b[2J:Stranger-v0"),
            *("a." * 10**6 + "a:Stranger-v0", f"{'a' * 151}:Stranger-v0"),
            *("stranger\n:Stranger-v0", "::Stranger-v0", "stranger-envs:Stranger-v0"),
        ),
        "expected the name of a module before the colon",
    ),
}


@pytest.mark.parametrize("env_id", ODD, ids=lambda env_id: env_id[:40])
def test_odd_modules_are_explained(env_id: str, folder: Path) -> None:
    (folder / "spaced").mkdir()  # a package without a file
    task = dataclasses.replace(Policy.load("policy").task, env_id=env_id)
    tipl.trust("pkg")
    known = {*sys.modules}
    with pytest.raises(TiplError, match=ODD[env_id]) as raised:
        make_vec(TaskSpec.from_json(task.to_json()), 1)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600
    assert not imported(folder)
    assert {*sys.modules} == known


def test_a_module_that_another_file_names_is_not_trusted_with_it(folder: Path) -> None:
    (folder / "mine.py").write_text("import stranger_too\n")
    (folder / "stranger_too.py").write_text("import gymnasium\n")
    policy = Policy.load("policy")
    mine = dataclasses.replace(policy.task, env_id="mine:Mine-v0")
    tipl.trust("mine")
    with pytest.raises(TiplError, match="unknown environment id 'mine:Mine-v0'"):
        make_vec(mine, 1)
    with pytest.raises(TiplError, match=r"asks for the module 'stranger\.envs'"):
        evaluate([policy], 1)
    other = dataclasses.replace(policy.task, env_id="stranger_too:Stranger-v0")
    for tasks in ([policy.task, other], [other, policy.task]):  # one task, as far as ids go
        with pytest.raises(TiplError, match=f"asks for the module '{tasks[0].env_id[:8]}"):
            evaluate([Policy(policy.params, policy.layout, one) for one in tasks], 1)
    assert not imported(folder)


def test_records_of_runs_name_no_code(folder: Path) -> None:
    for config, file in (
        (BenchmarkConfig(ENV_ID), BENCHMARK),
        (AccelerationConfig(ENV_ID), COMPARISON),
        (WorldsConfig(ENV_ID), WORLDS_BENCHMARK),
        (ScalingConfig(ENV_ID), SCALING),
    ):
        config.write_record(folder / "run", None, cost=None)
        found = file.read(folder / "run" / file.name).config
        assert found == config
        found.command_line(folder / "run")
    assert not imported(folder)


def test_the_stages_of_a_pipeline_are_told_what_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def run(words: Any, quiet: bool) -> pipeline.Ended:
        done.append(list(words))
        return pipeline.Ended(0, 0.0, 1.0, "")

    monkeypatch.setattr(pipeline, "_run_tipl", run)
    tipl.trust("other_envs")

    def stages(config: Any, directory: Path) -> list[pipeline.Stage]:
        return [pipeline.Stage("collect", ("collect", config.env_id), directory / "paths")]

    out = folder / "pipeline"
    run_pipeline(DemoConfig(ENV_ID), stages, out, progress=False)
    trusted = ["--trust-module=other_envs", "--trust-module=stranger.envs"]
    assert done == [["collect", ENV_ID, *trusted]]
    record = read_records(out)["collect"]
    assert record.command.endswith(" ".join(trusted))
    (out / "paths").mkdir()
    (out / "paths" / "metadata.json").touch()
    forget(monkeypatch)
    run_pipeline(DemoConfig(ENV_ID), stages, out, progress=False)
    assert len(done) == 1  # what is trusted decides on no result


def test_the_stages_of_a_pipeline_import_what_their_parent_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("open('imported.txt', 'w'); 1 / 0")
    monkeypatch.chdir(tmp_path)
    words = ["paths", "show", "nothing"]
    ended = pipeline._run_tipl(words, quiet=True)
    assert (ended.status, ended.last_words[:5]) == (2, "tipl:")
    assert not (tmp_path / IMPORTED).exists()
    monkeypatch.syspath_prepend(tmp_path)
    assert pipeline._run_tipl(words, quiet=True).status == 1
    assert (tmp_path / IMPORTED).exists()


def test_modules_beside_the_files_are_not_imported(folder: Path) -> None:
    run = [sys.executable, "-m", "tipl", "evaluate", "policy", "--episodes", "1"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 2
    assert f"stranger from {folder / 'stranger' / '__init__.py'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not imported(folder)


# --- what a file says of its environment -----------------------------------------------------


def hopper(
    wrapper: str = "", inside: dict[str, Any] | None = None, **kwargs: Any
) -> Callable[[], object]:
    """Runs a policy for Hopper whose file gives the environment arguments, and maybe a wrapper."""
    task = get_task("Hopper-v5")
    spec = json.loads(task.gymnasium_spec) | {"kwargs": kwargs}
    if wrapper:
        name, _, point = wrapper.partition(" ")
        point = point or f"gymnasium.wrappers.common:{name}"
        spec["additional_wrappers"] = [{"name": name, "entry_point": point, "kwargs": inside or {}}]
    task = TaskSpec.from_json(task.to_json() | {"gymnasium_spec": json.dumps(spec)})
    return lambda: evaluate(Policy.initial(task, hidden=(2,)), 1, threads=1)


WITHOUT_A_WORD = "which may name a file or code"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (hopper(xml_file=path), f"argument 'xml_file' .*{WITHOUT_A_WORD}")
            for path in (
                *("/dev/zero", "./evil.xml", "../evil.xml", "~/evil.xml", "evil/../../evil.xml"),
                *("c:\\evil.xml", "https://evil.org/evil.xml", "-evil.xml", "$HOME", "a\0b", "\n"),
            )
        ),
        (hopper(model_path="/dev/zero"), WITHOUT_A_WORD),
        (hopper(**{"\x1b" + "a" * 10**6: "/" * 10**6}), WITHOUT_A_WORD),
        (hopper(env_id="evil:Env-v0"), WITHOUT_A_WORD),
        (hopper(make_options={"id": ["evil:Env-v0"]}), "argument 'make_options' .*'evil:Env-v0'"),
        (hopper(options={"evil:Env-v0": 1}), WITHOUT_A_WORD),
        (hopper("FilterObservation", {"filter_keys": ["/a"]}), f"filter_keys' .*{WITHOUT_A_WORD}"),
        (hopper("TransformReward", {"func": "os:system"}), WITHOUT_A_WORD),
        (hopper("TransformReward", {"func": "system"}), "'str' object is not callable"),
        (hopper("ArrayConversion"), "expected wrappers of gymnasium.wrappers alone"),
        (hopper("Monitor stranger.envs:Monitor"), "expected wrappers of gymnasium.wrappers alone"),
        (hopper("Cart stranger.envs:Cart"), "expected wrappers of gymnasium.wrappers alone"),
        (hopper("Cart gymnasium.wrappers.x:Cart"), "expected wrappers of gymnasium.wrappers alone"),
        (hopper(vector_kwargs={}), "unexpected keyword argument 'vector_kwargs'"),
        (hopper(disable_env_checker=True), "unexpected keyword argument 'disable_env_checker'"),
        (hopper(frame_skip=10**9), "frame_skip=1000000000: expected at most 10,000"),
        (hopper("FrameStackObservation", {"stack_size": 10**12}), "stack_size=.* at most 10,000"),
        (hopper("ResizeObservation", {"shape": [1, 10**9]}), "shape=.* at most 10,000"),
        (hopper("FrameStackObservation", {"stack_size": 2}), "'Hopper-v5' has 11 observed values"),
        (hopper("DiscretizeAction", {"bins": 3}), r"3 actions, .* the actions Discrete\(27\)"),
        (hopper(exclude_current_positions_from_observation=False), "11 observed values and 3 act"),
        (hopper(xml_file="ant.xml"), r"observations Box\(-inf, inf, \(28,\), float64\)"),
    ],
)
def test_what_a_file_says_of_its_environment_is_not_believed(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(TiplError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_what_names_nothing_needs_no_word() -> None:
    for call in (
        hopper("RecordVideo", {"video_folder": "/evil"}),  # left out
        hopper(render_mode="human"),  # as well
        hopper(xml_file="hopper.xml", terminate_when_unhealthy=True),
        hopper("ReshapeObservation", {"shape": [1, 11]}),
    ):
        call()


def test_a_file_of_ones_own_is_opened_by_ones_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "hopper.xml"
    mine = str(shutil.copy(original, tmp_path / "mine.xml"))
    with gymnasium.make("Hopper-v5", xml_file=mine) as env:
        task = make_task(env.spec)
    policy = Policy.initial(task, hidden=(2,))
    evaluate(policy, 1)  # whoever has made it knows of it
    policy.save(tmp_path / "policy")
    forget(monkeypatch)
    words = f"evaluate {tmp_path / 'policy'} --episodes 1"
    status, error = ends(words, capsys)
    assert status == 2
    assert f"the argument 'xml_file' with the text '{mine}'" in error
    assert ends(f"{words} --trust-argument {mine}", capsys)[0] == 0
    with tipl.trust(arguments=[mine]):
        evaluate(policy, 1)
    with pytest.raises(TiplError, match=WITHOUT_A_WORD):
        evaluate(policy, 1)
