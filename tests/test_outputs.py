"""Whatever tipl writes: never through links, never over what is not its own, nothing left over."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from path_data import make_dataset
from test_film import shades
from test_forecast import make_forecaster
from test_losing_nothing import forked
from tipl.cli import main
from tipl.collection.collect import collect
from tipl.core import atomic, storage
from tipl.core.locks import FileLock
from tipl.core.ownership import OwnDirectory
from tipl.errors import TiplError
from tipl.evaluation import forecast_sets
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.evaluation.film import animation, save_filmstrip, still_strip
from tipl.evaluation.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.experiments import pipeline
from tipl.experiments.benchmark.ledger import write_costs
from tipl.experiments.clearing import clear_stage
from tipl.experiments.pipeline import Ended, Pipeline, Stage, prepare_directory
from tipl.forecast import trained
from tipl.paths import PathDataset, create_dataset
from tipl.policies import policy
from tipl.policies.policy import Policy
from tipl.ppo.config import PPOConfig
from tipl.report import charts
from tipl.report.page import Report, write_report
from tipl.report.results import Result, Rows, write_results
from tipl.report.style import save_figure
from tipl.report.tables import Table

PENDULUM = "InvertedPendulum-v4"
RESULTS = Rows([Result("x", "forecast", "y", "z", 1.0)])


def everything(directory: Path) -> dict[str, object]:
    """All that is in a directory: bytes of files, targets of links, and the rest by its mode."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        content: object = path.lstat().st_mode
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = content
    return found


# --- what is written -------------------------------------------------------------------------


def write_policy(path: Path) -> None:
    Policy.initial(PENDULUM, 0, (3,)).save(path)


def write_model(path: Path) -> None:
    make_forecaster(width=8).save_pretrained(path)


def write_forecasts(path: Path) -> None:
    paths = path.parent.parent / "dataset"
    if not paths.exists():
        make_dataset(paths)
    dataset = PathDataset.open(paths).select([0, 1])
    params = dataset.params()[None, :, 0]
    ForecastSet(dataset, [ForecastCase("still", 0, 1)], params, {}).save(path)


def evaluate_forecasts(path: Path) -> None:
    write_forecasts(path)
    ForecastReturns(np.zeros((1, 2, 1)), np.zeros((2, 7, 1))).save(path, "tipl evaluate")
    write_results(path / "results.jsonl", RESULTS)


DIRECTORIES: dict[str, tuple[Callable[[Path], None], OwnDirectory]] = {
    "policy": (write_policy, policy.POLICY_FILES),
    "model": (write_model, trained.MODEL_FILES),
    "forecasts": (write_forecasts, forecast_sets.FORECAST_FILES),
    "evaluated forecasts": (evaluate_forecasts, forecast_sets.FORECAST_FILES),
}
"""What writes each kind of directory, and what it may hold."""


def draw(path: Path) -> None:
    figure = charts.learning_curves(np.arange(3), np.ones((2, 3)), note="note")
    save_figure(figure, path.parent, path.stem)


def write_page(path: Path) -> None:
    report = Report("title", [], Table("", [], []), [], RESULTS, versions={})
    write_report(report, path.parent, figures=False)


FILES: dict[str, Callable[[Path], object]] = {
    "results.jsonl": lambda path: write_results(path, RESULTS),
    "report.html": write_page,
    "curves.svg": draw,
    "curves.png": draw,
    "film.gif": lambda path: save_filmstrip(path, [shades()], ["a"]),
    "film.png": lambda path: save_filmstrip(path.with_suffix(".gif"), [shades()], ["a"]),
    "costs.json": lambda path: write_costs(path, []),
    "stages.json": lambda path: storage.write_json(path, {"stages": []}),
    "demo.json": lambda path: storage.write_json(path, {"config": {}}),
    "jumps.safetensors": lambda path: storage.write_tensors(
        path, {"x": np.zeros(2)}, {"kind": "jumps"}
    ),
}
"""What writes each kind of file, by the names of such files."""

FOREIGN: dict[str, bytes] = {
    "results.jsonl": b'{"name": "mine"}\n',
    "report.html": b"<!doctype html>\n<html><head><title>mine</title></head></html>\n",
    "curves.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="3"/></svg>',
    "costs.json": b'{"costs": [], "sha256": "00"}',
    "stages.json": b"{}",
    "demo.json": b'{"config": {}}',
    "jumps.safetensors": b"\x00" * 64,
}


def write_foreign(path: Path) -> None:
    """A file of somebody's under that name."""
    if path.suffix in (".gif", ".png"):  # a photograph
        pixels = np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(path, dpi=(200, 200))
    else:
        path.write_bytes(FOREIGN[path.name])


# --- directories -----------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "out"


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_a_directory_is_replaced_by_one_of_its_kind(kind: str, out: Path) -> None:
    write, own = DIRECTORIES[kind]
    write(out)
    first = everything(out)
    out.chmod(0o750)
    shutil.copytree(out, out.with_name("other"))  # of others, or by another command: just as well
    write(out.with_name("other"))
    write(out)
    assert everything(out) == everything(out.with_name("other")) == first
    assert out.stat().st_mode & 0o777 == 0o750
    assert set(first) <= set(own.files)
    assert sorted(path.name for path in out.parent.iterdir()) == ["other", "out"]


STRANGE: dict[str, Callable[[Path], object]] = {
    "thesis.txt": lambda out: (out / "thesis.txt").write_text("years of work"),
    ".DS_Store": lambda out: (out / ".DS_Store").write_bytes(b""),
    ".git": lambda out: (out / ".git").mkdir(),
    "a-link": lambda out: (out / "a-link").symlink_to("nowhere"),
    "a-pipe": lambda out: os.mkfifo(out / "a-pipe"),
    ".thesis.txt.0123abcd.unfinished": lambda out: (
        out / ".thesis.txt.0123abcd.unfinished"
    ).write_text("years of work"),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("kind", DIRECTORIES)
def test_a_directory_with_anything_else_stays(kind: str, strange: str, out: Path) -> None:
    write, own = DIRECTORIES[kind]
    write(out)
    STRANGE[strange](out)
    before = everything(out)
    with pytest.raises(TiplError, match=rf"holds other files \({strange}\).*another path"):
        write(out)
    with pytest.raises(TiplError, match=rf"holds other files \({strange}\)"):
        atomic.check_directory(out, own)
    assert everything(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _into_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def _into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _into_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _into_another_kind(path: Path) -> None:
    path.unlink()
    if path.suffix == ".json":
        storage.write_json(path, {"kind": "something", "stages": []})
    elif path.suffix == ".safetensors":
        storage.write_tensors(path, {}, {"kind": "something"})
    else:
        path.write_text('{"task": "mine"}\n')


def _into_text(path: Path) -> None:
    path.write_text("years of work")


CHANGES = [_flip, _into_link, _into_folder, _into_pipe, _into_another_kind, _into_text]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["policy", "model", "evaluated forecasts"])
def test_files_of_the_right_names_are_not_enough(
    kind: str, change: Callable[[Path], None], out: Path
) -> None:
    write, own = DIRECTORIES[kind]
    for name in own.files:
        write(out)
        if change is _flip and name == "results.jsonl":
            continue  # which has no seal
        change(out / name)
        before = everything(out.parent)
        with pytest.raises(TiplError, match=rf"holds other files \({name}\)"):
            write(out)
        assert everything(out.parent) == before
        shutil.rmtree(out)


def test_what_comes_into_a_directory_while_it_is_replaced_stays(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(out)
    swap, calls = atomic._exchange, list[int]()

    def late(*paths: Path) -> None:
        if not calls:
            (out / "thesis.txt").write_text("years of work")
        calls.append(1)
        swap(*paths)

    for exchange in (late, fail(errno.ENOSYS)):
        monkeypatch.setattr(atomic, "_exchange", exchange)
        with pytest.raises(TiplError, match=r"holds other files \(thesis.txt\)"):
            write_policy(out)
        assert (out / "thesis.txt").read_text() == "years of work"
        assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_a_named_link_leads_to_a_directory_or_nothing_is_written(kind: str, out: Path) -> None:
    write, _ = DIRECTORIES[kind]
    link = out.with_name("link")
    link.symlink_to(out)
    with pytest.raises(TiplError, match="link is a link to nothing"):
        write(link)
    assert not out.exists()
    out.mkdir()
    write(link)
    assert link.is_symlink()
    assert (out / next(iter(DIRECTORIES[kind][1].files))).exists()


def fail(code: int) -> Any:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return failing


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_replaced_by_one_of_its_kind(name: str, out: Path) -> None:
    path = out.with_name(name)
    for mode in (0o640, 0o600):
        FILES[name](path)
        before = everything(out.parent)
        path.chmod(mode)
        FILES[name](path)
        assert everything(out.parent) == before
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_somebodys_stays(name: str, out: Path) -> None:
    path = out.with_name(name)
    write_foreign(path)
    before = everything(out.parent)
    with pytest.raises(TiplError, match=rf"{name} is not a.* that tipl has written.*another path"):
        FILES[name](path)
    assert everything(out.parent) == before  # nor is half of it there


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_written_through_links_or_over_folders(name: str, out: Path) -> None:
    path, target = out.with_name(name), out.with_name("target")
    for make in (target.touch, target.unlink):
        FILES[name](path)
        content = path.read_bytes()
        path.unlink()
        make()
        if target.exists():
            target.write_bytes(content)  # even of tipl's own
        path.symlink_to(target)
        before = everything(out.parent)
        with pytest.raises(TiplError, match=rf"{name}.*link"):
            FILES[name](path)
        assert everything(out.parent) == before
        path.unlink()
    path.mkdir()
    with pytest.raises(TiplError, match=r"this is a folder|holds links"):
        FILES[name](path)


def test_figures_of_before_there_were_marks_are_replaced(out: Path) -> None:
    out.mkdir()
    draw(out / "curves.png")
    png = Image.open(out / "curves.png")
    png.load()
    png.info.pop("Software")
    png.save(out / "curves.png", dpi=(200, 200))
    assert b"Software" not in (out / "curves.png").read_bytes()
    draw(out / "curves.png")
    assert b"Software\x00tipl" in (out / "curves.png").read_bytes()


def test_pictures_say_who_made_them() -> None:
    assert b"\x21\xfe\x04tipl\x00" in animation([shades()], ["a"])
    assert b"Software\x00tipl" in still_strip([shades()], ["a"])


# --- what a kill leaves ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_what_a_kill_leaves_of_a_directory_goes_with_the_next_one(kind: str, out: Path) -> None:
    write, own = DIRECTORIES[kind]

    def killed() -> None:
        with atomic.new_directory(out, own) as new:
            for name in own.files:
                (new / name).write_bytes(b"half")
                (new / f".{name}.0123abcd.unfinished").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    write_forecasts(out.with_name("makes the dataset"))
    shutil.rmtree(out.with_name("makes the dataset"))
    os.waitpid(forked(killed), 0)
    assert len(list(out.parent.iterdir())) == 1
    strange = out.with_name(f".{out.name}.0123abcd.unfinished")
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work")
    out.with_name(f".{out.name}.01234567.unfinished").symlink_to(strange)
    write(out)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        ".out.01234567.unfinished", strange.name, "out",
    ]  # fmt: skip
    assert (strange / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", FILES)
def test_what_a_kill_leaves_of_a_file_goes_with_the_next_one(name: str, out: Path) -> None:
    path = out.with_name(name)
    leftover, other = (path.with_name(f".{n}.0123abcd.unfinished") for n in (name, "other"))
    for file in (leftover, other):
        file.write_bytes(b"half")
    FILES[name](path)
    assert not leftover.exists()
    assert other.exists()


WRITERS: dict[str, Callable[[Path], object]] = {
    **{kind: write for kind, (write, _) in DIRECTORIES.items()},
    **{name: lambda path, name=name: FILES[name](path.with_name(name)) for name in FILES},  # type: ignore[misc]
}


@pytest.mark.parametrize("kind", ["policy", "evaluated forecasts", "film.gif", "report.html"])
def test_a_kill_at_any_step_leaves_all_or_nothing_and_goes(
    kind: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](out)
    whole, points = everything(out.parent), 0

    def killed(at: int) -> int:
        """Writes in a child, which kills itself before or after a step; returns its status."""
        calls = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 2
                if calls - 2 == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    return function(*args, **options)
                finally:
                    if calls - 1 == at:
                        os.kill(os.getpid(), signal.SIGKILL)

            return step

        def child() -> None:
            for name in (*STEPS, "unlink", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
            atomic._exchange = counted(atomic._exchange)
            WRITERS[kind](out)

        return os.waitpid(forked(child), 0)[1]

    for old in (True, False):
        for at in range(0, 400, 1 if kind == "policy" and old else 5):
            if not old:
                for entry in out.parent.iterdir():
                    (shutil.rmtree if entry.is_dir() else os.unlink)(entry)
            status = killed(at)
            found = {n: v for n, v in everything(out.parent).items() if ".unfinished" not in n}
            assert found.items() <= whole.items()  # no half of a file
            if kind == "policy":
                assert found == whole or (not found and not old)
            if not os.WIFSIGNALED(status):
                assert os.waitstatus_to_exitcode(status) == 0
                break
            WRITERS[kind](out)
            assert everything(out.parent) == whole
            points += 1
        else:
            raise AssertionError("more steps than were tried")
    assert points > 4


def test_what_is_being_written_stays(out: Path) -> None:
    """Two write the same: the last one wins, and nobody takes the other's for a leftover."""
    with atomic.new_directory(out, policy.POLICY_FILES) as first:
        write_policy(out)
        assert first.exists()
        Policy.initial(PENDULUM, 1, (3,)).save(out.with_name("other"))
        for file in out.with_name("other").iterdir():
            shutil.copy(file, first)
    assert everything(out) == everything(out.with_name("other"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["other", "out"]


@pytest.mark.parametrize("exchange", [True, False])
def test_many_writers_of_one_directory(
    exchange: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", fail(errno.ENOSYS))

    def child(seed: int) -> None:
        for _ in range(20):
            Policy.initial(PENDULUM, seed, (3,)).save(out)

    children = [forked(lambda seed=seed: child(seed)) for seed in range(3)]  # type: ignore[misc]
    codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children]
    assert codes == [0, 0, 0]
    digests = [Policy.initial(PENDULUM, seed, (3,)).digest for seed in range(3)]
    assert Policy.load(out).digest in digests
    write_policy(out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


# --- failing writes --------------------------------------------------------------------------

STEPS = ("open", "mkdir", "fsync", "replace", "rename")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_whatever_step_fails_nothing_is_left(
    code: int, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = out.with_name("stages.json")
    write_policy(out)
    FILES["stages.json"](table)
    before, failed = everything(out.parent), 0
    for write in (lambda: write_policy(out), lambda: FILES["stages.json"](table)):
        done = False
        for number in range(100):
            calls = 0

            def counted(function: Callable[..., Any]) -> Callable[..., Any]:
                def step(*args: Any, **options: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    if calls == number + 1:  # noqa: B023
                        raise OSError(code, os.strerror(code))
                    return function(*args, **options)

                return step

            with monkeypatch.context() as patch:
                for name in STEPS:
                    patch.setattr(os, name, counted(getattr(os, name)))
                said = ""
                try:
                    write()
                    done = calls <= number
                except TiplError as error:
                    said = str(error)
                    failed += 1
            assert not said or os.strerror(code) in said
            assert everything(out.parent) == before
            if done:
                break
        assert done
    assert failed > 8


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_without_locks_or_synced_folders_will_do(
    code: int, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def of_files(descriptor: int) -> None:
        if not os.path.isdir(f"/dev/fd/{descriptor}"):
            return fsync(descriptor)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", of_files)
    monkeypatch.setattr("fcntl.flock", fail(code))
    monkeypatch.setattr(atomic, "_exchange", fail(code))
    leftover = out.with_name(".out.0123abcd.unfinished")
    leftover.mkdir()
    for _ in range(2):
        write_policy(out)
        lock = FileLock(out.with_name("lock"))
        assert lock.acquire()
        lock.release()
    assert sorted(path.name for path in out.parent.iterdir()) == [leftover.name, "out"]


def test_what_is_made_has_the_usual_permissions(out: Path) -> None:
    old = os.umask(0o027)
    try:
        write_policy(out)
        FILES["costs.json"](out.with_name("costs.json"))
    finally:
        os.umask(old)
    assert out.stat().st_mode & 0o777 == 0o750
    assert {file.stat().st_mode & 0o777 for file in (*out.iterdir(), out.with_name("costs.json"))} \
        == {0o640}  # fmt: skip


# --- locks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to", "write_bytes", "mkfifo"])
def test_a_lock_is_nobody_elses_file(make: str, tmp_path: Path) -> None:
    thesis, lock = tmp_path / "thesis.txt", tmp_path / "x.lock"
    thesis.write_text("years of work")
    match make:
        case "write_bytes":
            lock.write_bytes(b"years of work")
        case "mkfifo":
            os.mkfifo(lock)
        case _:
            getattr(lock, make)(thesis)
    before = everything(tmp_path)
    with pytest.raises(TiplError, match=r"no lock that tipl has made|links"):
        FileLock(lock).acquire()
    assert "work" not in FileLock(lock).holder
    assert everything(tmp_path) == before
    lock.unlink()
    lock.symlink_to("dangling")
    with pytest.raises(TiplError, match="links"):
        FileLock(lock).acquire()
    assert not (tmp_path / "dangling").exists()


# --- datasets --------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "num_trials": 2, "trials_per_group": 1, "total_steps": 8, "hidden_sizes": (2,),
    "progress": False, "ppo": PPOConfig(num_steps=4, num_minibatches=2, update_epochs=1),
}  # fmt: skip


def _linked(path: Path) -> None:
    """Moves something of a dataset outside, where a link leads now."""
    outside = path.parent.parent / f"outside-{path.name}"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("years of work")
        path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)


LINKS = ["metadata.json", "parts", "evaluation", "resume", "resume/trials-00000.lock",
         "resume/trials-00000.safetensors", "evaluation/evaluation.json",
         "parts/trials-00000-00000.checkpoints-00000-00002.safetensors"]  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_into_a_dataset_with_links(name: str, tmp_path: Path) -> None:
    directory = tmp_path / "root" / "paths"
    dataset = collect(PENDULUM, out=directory, **TINY)
    _linked(directory / name)
    (directory / "parts" / "trials-00001-00001.checkpoints-00000-00002.safetensors").unlink()
    before = everything(tmp_path)
    message = "holds links .* nothing is written into a folder with links inside"
    with pytest.raises(TiplError, match=message):
        collect(PENDULUM, out=directory, **TINY)
    with pytest.raises(TiplError, match=message):
        create_dataset(directory, dataset.metadata)  # as recorders do
    with pytest.raises(TiplError):
        evaluate_paths(directory, 1)
    assert everything(tmp_path) == before


def test_a_lock_that_is_another_file_as_well_is_not_written(tmp_path: Path) -> None:
    directory, thesis = tmp_path / "paths", tmp_path / "thesis.txt"
    collect(PENDULUM, out=directory, **TINY)
    next((directory / "parts").glob("trials-00000*")).unlink()
    thesis.write_text("years of work")
    (directory / "resume").mkdir()
    (directory / "resume" / "trials-00000.lock").hardlink_to(thesis)
    with pytest.raises(TiplError, match="no lock that tipl has made"):
        collect(PENDULUM, out=directory, **TINY)
    assert thesis.read_text() == "years of work"


def test_a_linked_dataset_is_read_and_may_be_named(tmp_path: Path) -> None:
    collect(PENDULUM, out=tmp_path / "paths", **TINY)
    (tmp_path / "link").symlink_to(tmp_path / "paths")
    evaluate_paths(tmp_path / "link", 1)
    (tmp_path / "cached").mkdir()
    for name in ("metadata.json", "parts", "evaluation"):
        (tmp_path / "cached" / name).symlink_to(tmp_path / "paths" / name)
    cached = PathDataset.open(tmp_path / "cached")
    assert cached.deterministic_return().shape == (2, 3, 1)


# --- commands refuse before they work --------------------------------------------------------

COMMANDS = {
    "train missing --out taken": "taken holds other files",
    "optimize missing --out taken": "taken holds other files",
    "forecast missing --paths missing --out taken": "taken holds other files",
    "paths best missing --out taken": "taken holds other files",
    "film missing --out photo.gif": "photo.gif is not an animation that tipl has written",
    "film missing --out stills.gif": "stills.png is not a picture that tipl has written",
    "paths show missing --figure photo.png": "photo.png is not a picture that tipl has written",
    "evaluate forecasts": "results.jsonl is not a file of results that tipl has written",
    "costs run": "costs.json is not costs that tipl has written",
    f"worlds make {PENDULUM} --out run/costs.json": "costs.json is not a file of worlds that tipl",
    "report run": "report.html is not a report that tipl has written",
    "demo --out run": "report.html is not a report that tipl has written",
    f"accelerate {PENDULUM} --out run": "report.html is not a report that tipl has written",
    f"scaling {PENDULUM} --out run": "report.html is not a report that tipl has written",
    f"benchmark {PENDULUM} --out run": "report.html is not a report that tipl has written",
    f"worlds benchmark {PENDULUM} --out run": "report.html is not a report that tipl has written",
    "report links": "links holds links",
    "costs links": "links holds links",
    "demo --out links": "links holds links",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_before_they_work(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_policy(Path("taken"))
    Path("taken", "thesis.txt").write_text("years of work")
    for name in ("photo.gif", "photo.png", "stills.png"):
        write_foreign(Path(name))
    Path("forecasts").mkdir()
    Path("forecasts", "forecasts.json").touch()
    for folder in ("run", "links"):
        Path(folder).mkdir()
        storage.write_json(Path(folder, "stages.json"), {"stages": []})
    for name in ("costs.json", "report.html"):
        write_foreign(Path("run", name))
    write_foreign(Path("forecasts", "results.jsonl"))
    Path("links", "figures").symlink_to(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    assert COMMANDS[command] in capsys.readouterr().err
    assert everything(tmp_path) == before


# --- starting over ---------------------------------------------------------------------------


def _run(directory: Path, name: str = "demo") -> list[Stage]:
    """What a run leaves, and its stages."""
    stages = []
    writers = {"paths": make_dataset, "models/path": write_model, "best": write_policy}
    for place, write in writers.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        write(directory / place)
        words = ("optimize", "--out", directory / place)
        stages.append(Stage(place, words, directory / place))
    records = [
        {"name": stage.name, "command": f"tipl {' '.join(stage.words)}", "seconds": 1.0}
        for stage in stages
    ]
    storage.write_json(directory / "stages.json", {"stages": records})
    storage.write_json(directory / f"{name}.json", {"config": {}})
    write_page(directory / "report.html")
    write_costs(directory / "costs.json", [])
    (directory / "figures").mkdir()
    draw(directory / "figures" / "01-curves.svg")
    return stages


@pytest.mark.parametrize("known", ["by its record", "by its stages"])
def test_starting_over_removes_what_was_made(known: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    stages = _run(directory)
    (directory / "models" / ".path.0123abcd.unfinished").mkdir()
    (directory / "paths" / "resume").mkdir()
    (directory / "paths" / "resume" / "trials-00000.lock").write_text("process 1 on x")
    if known == "by its record":
        moved = directory.rename(tmp_path / "moved")
        prepare_directory(moved, True, "demo")
        directory = moved
    else:
        storage.write_json(directory / "stages.json", {"stages": []})
        prepare_directory(directory, True, "demo", stages)
    assert [path.name for path in directory.iterdir()] == ["stages.json"]


@pytest.mark.parametrize(
    "strange",
    ["thesis.txt", ".git/config", "models/mine/config.json", "models/notes.md", "paths/notes.txt",
     "figures/photo.png", "figures/mine.svg", "best/.DS_Store", "paths/.git", "best/mine",
     "paths/parts/link", "mine/policy.json"],
)  # fmt: skip
def test_starting_over_removes_nothing_of_others(strange: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    stages = _run(directory)
    (directory / strange).parent.mkdir(exist_ok=True)
    if strange.endswith("link"):
        (directory / strange).symlink_to(tmp_path)
    elif strange in ("paths/.git", "best/mine"):
        (directory / strange).mkdir()
    elif strange == "figures/mine.svg":  # by a command, but not by the run
        draw(directory / strange)
        (directory / strange).with_suffix(".png").unlink()
    elif strange.endswith("config.json"):
        (directory / strange).parent.rmdir()
        write_model((directory / strange).parent)  # even if it is of tipl
    else:
        (directory / strange).write_bytes(b"years of work")
    before = everything(tmp_path)
    named = strange if "models" not in strange else strange.removesuffix("/config.json")
    named = named.removesuffix("/config").removesuffix("/policy.json")
    with pytest.raises(TiplError, match=rf"holds other files than .*\({named}\)"):
        prepare_directory(directory, True, "demo", stages)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("record", ["{}", '{"stages": []}', "[]", ""])
def test_starting_over_needs_a_record_of_tipl(record: str, tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text(record)
    (tmp_path / "thesis.txt").write_text("years of work")
    before = everything(tmp_path)
    with pytest.raises(TiplError, match=r"stages.json"):
        prepare_directory(tmp_path, True, "demo")
    assert everything(tmp_path) == before


def test_a_record_may_say_anything(tmp_path: Path) -> None:
    records = [
        {"name": str(i), "command": command, "seconds": 0.0}
        for i, command in enumerate(
            ["tipl 'x", "", "--out", "tipl --out /", "tipl --out ../thesis", "tipl --out thesis"]
        )
    ]
    (tmp_path / "run").mkdir()
    storage.write_json(tmp_path / "run" / "stages.json", {"stages": records})
    for place in ("thesis", "run/thesis"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "thesis.txt").write_text("years of work")
    before = everything(tmp_path)
    with pytest.raises(TiplError, match=r"\(thesis/thesis.txt\)"):
        prepare_directory(tmp_path / "run", True, "demo")
    assert everything(tmp_path) == before


def test_a_folder_of_somebodys_is_no_evaluation(tmp_path: Path) -> None:
    directory = tmp_path / "paths"
    collect(PENDULUM, out=directory, **TINY)
    (directory / "evaluation").mkdir()
    (directory / "evaluation" / "thesis.txt").write_text("years of work")
    before = everything(tmp_path)
    with pytest.raises(TiplError, match=r"holds other files \(thesis.txt\) but no evaluation.json"):
        evaluate_paths(directory, 1)
    assert everything(tmp_path) == before


def test_what_is_in_use_is_not_removed(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    (tmp_path / "paths" / "resume").mkdir()
    lock = FileLock(tmp_path / "paths" / "resume" / "trials-00000.lock")
    assert lock.acquire()
    with pytest.raises(TiplError, match=r"resume/trials-00000.lock\), or some in use"):
        clear_stage(tmp_path / "paths")
    lock.release()
    clear_stage(tmp_path / "paths")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_done_anew_removes_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, model = tmp_path / "run", tmp_path / "model"
    stage = Stage("x", ("collect", "--out", directory / "paths"), directory / "paths", (model,))
    monkeypatch.setattr(pipeline, "_run_tipl", lambda *_, **__: Ended(0, 1.0, 1.0, ""))
    make_dataset(directory / "paths")
    (directory / "paths" / "thesis.txt").write_text("years of work")
    for n in range(2):  # what is read is another one each time
        record = {"name": "x", "command": "", "seconds": 0.0, "reads": {"other": str(n)}}
        (directory / "stages.json").unlink(missing_ok=True)
        storage.write_json(directory / "stages.json", {"stages": [record]})
        with pytest.raises(TiplError, match=r"holds other files .*\(thesis.txt\)"):
            Pipeline(directory, [stage], progress=False).run()
    assert (directory / "paths" / "thesis.txt").read_text() == "years of work"
