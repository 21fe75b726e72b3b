"""Object stores: what is read and written there is whole, or refused in one sentence."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from faulty_store import Proxy, s3_behind_proxy
from path_data import make_dataset, make_evaluation, part_files
from tipl import Policy, TiplError, trust
from tipl.cli import main
from tipl.core import stores
from tipl.core.addresses import address_of, is_address, located
from tipl.paths import PathDataset, summarize, verify
from tipl.paths.copying import copy_paths

TASK = "InvertedPendulum-v4"


@pytest.fixture(scope="module")
def s3() -> Iterator[Proxy]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_behind_proxy() as proxy:
        yield proxy


@pytest.fixture
def store(s3: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Proxy:
    """The server as the environment names it, an empty cache, and little patience."""
    variables = {
        "AWS_ENDPOINT_URL": s3.address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1", "TIPL_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "PAUSE", 0.01)
    monkeypatch.setattr(stores, "ANSWER", 0.5)
    monkeypatch.setattr(stores, "CONNECT", 0.5)
    stores._system_of.cache_clear()
    s3.fault = lambda method, path: ""
    s3.seen.clear()
    return s3


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """An address of the test's own."""
    return f"s3://bucket/{abs(hash(request.node.name)):x}"


@pytest.fixture
def sent(store: Proxy, place: str, tmp_path: Path) -> str:
    """The address of a small dataset."""
    make_dataset(tmp_path / "paths")
    copy_paths(tmp_path / "paths", place)
    store.seen.clear()
    return place


def fetched_names(store: Proxy) -> list[str]:
    return [one.partition("?")[0].rpartition("/")[2] for one in store.seen if one[:3] == "GET"]


def cached(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, within: float = 20) -> str:
    """What a command says that ends in one sentence."""
    start = time.monotonic()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert said.startswith("tipl: ")
    assert "\n" not in said
    assert time.monotonic() - start < within
    return said


# --- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["s3://bucket/a/b", "s3:/bucket/a/b/", Path("s3://bucket/a/b")])
def test_an_address_keeps_its_slashes(given: str | Path) -> None:
    assert is_address(given)
    assert address_of(given) == "s3://bucket/a/b"
    assert address_of(Path(given) / "c") == "s3://bucket/a/b/c"


@pytest.mark.parametrize("given", ["runs/paths", "/runs/s3:/x", "C:/runs", "x", "s3", "./s3://x"])
def test_a_path_is_no_address(given: str) -> None:
    assert not is_address(given)


def test_a_file_address_is_its_path(tmp_path: Path) -> None:
    policy = Policy.initial(TASK, 1, (3,))
    policy.save(f"file://{tmp_path}/policy")
    assert located(Path(f"file://{tmp_path}/policy")) == tmp_path / "policy"
    assert (tmp_path / "policy" / "policy.json").exists()
    assert Policy.load(f"file://{tmp_path}/policy").digest == policy.digest


@pytest.mark.parametrize("address", ["ftp://host/paths", "https://host/paths"])
def test_other_addresses_are_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "s3://bucket/paths" in refused(capsys, "paths", "show", address)


# --- reading and writing ---------------------------------------------------------------------


def test_a_dataset_is_sent_and_read_as_it_is(store: Proxy, sent: str, tmp_path: Path) -> None:
    here, there = PathDataset.open(tmp_path / "paths"), PathDataset.open(sent)
    np.testing.assert_array_equal(there.params(), here.params())
    np.testing.assert_array_equal(there.split().train.trials, here.split().train.trials)
    assert verify(sent) == []
    assert summarize(sent).size_on_disk == summarize(tmp_path / "paths").size_on_disk
    copy_paths(sent, tmp_path / "again")
    assert verify(tmp_path / "again") == []
    for file in (tmp_path / "paths").rglob("*.*"):
        assert (tmp_path / "again" / file.relative_to(tmp_path / "paths")).exists()
    assert address_of("s3:/x/y") not in os.listdir(tmp_path)
    assert not (tmp_path / "s3:").exists()


def test_no_more_is_fetched_than_is_read(store: Proxy, sent: str) -> None:
    paths = PathDataset.open(sent)
    assert [name for name in fetched_names(store) if "safetensors" in name] == []
    one = paths.select([4]).params(slice(0, 2))
    assert one.shape == (1, 2, paths.layout.size)
    first = "trials-00004-00004.checkpoints-00000-00002.safetensors"
    assert [name for name in fetched_names(store) if "safetensors" in name] == [first]
    paths.policy(4, 1)
    PathDataset.open(sent).checkpoints(np.array([4]), np.array([2]))
    assert [name for name in fetched_names(store) if "safetensors" in name] == [first]


def test_the_metadata_comes_last(store: Proxy, place: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    make_evaluation(tmp_path / "paths")
    last = part_files(tmp_path / "paths")[-1]
    last.rename(tmp_path / "away")
    assert copy_paths(tmp_path / "paths", place).missing == 1
    with pytest.raises(TiplError, match=rf"there is no {place}/metadata\.json"):
        PathDataset.open(place)
    (tmp_path / "away").rename(last)
    copied = copy_paths(tmp_path / "paths", place)
    assert copied.missing == 0
    assert copied.there == 8 + 9
    puts = [one.rpartition("/")[2] for one in store.seen if one[:3] == "PUT"]
    assert puts[-2:] == [last.name, "metadata.json"] or puts[-1] == "metadata.json"
    assert PathDataset.open(place).deterministic_return().shape[:2] == (5, 7)
    assert copy_paths(tmp_path / "paths", place).files == 0


def test_nothing_in_a_store_is_written_over(store: Proxy, sent: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other", seed=2)
    with pytest.raises(TiplError, match="already holds another dataset"):
        copy_paths(tmp_path / "other", sent)
    policy, other = (Policy.initial(TASK, seed, (3,)) for seed in (1, 2))
    policy.save(f"{sent}-policy")
    for place in (sent, f"{sent}-policy"):
        with pytest.raises(TiplError, match="written once: choose another address"):
            other.save(place)
    assert Policy.load(f"{sent}-policy").digest == policy.digest
    assert verify(sent) == []


def test_commands_take_addresses_where_they_take_directories(
    store: Proxy, sent: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["paths", "show", sent])
    main(["paths", "verify", sent])
    main(["paths", "copy", sent, str(tmp_path / "copy")])
    main(["train", sent, "--out", f"{sent}-model", "--num-steps", "2"])
    main(["optimize", f"{sent}-model", "--out", f"{sent}-better"])
    main(["evaluate", f"{sent}-better", "--episodes", "1"])
    said = capsys.readouterr().out
    assert f"{sent} is intact" in said
    assert f"tipl evaluate {sent}-better" in said
    assert not any("unsent" in str(path) for path in cached(tmp_path))
    assert "s3:" not in os.listdir(tmp_path)


def test_a_collection_is_copied_once_it_is_complete(
    store: Proxy, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--num-trials", "2", "--total-steps", "32", "--hidden-sizes", "3", "--threads", "1"]
    options += ["--ppo.num-steps", "8", "--ppo.num-minibatches", "2", "--ppo.update-epochs", "1"]
    main(["collect", TASK, *options, "--out", place])
    assert place in capsys.readouterr().out
    assert verify(place) == []
    assert PathDataset.open(place).num_trials == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--out", "{}"),
        ("benchmark", TASK, "--out", "{}"),
        ("accelerate", TASK, "--out", "{}"),
        ("scaling", TASK, "--out", "{}"),
        ("paths", "evaluate", "{}"),
        ("collect", TASK, "--from-sb3", "--out", "{}"),
    ],
)
def test_what_needs_a_folder_refuses_an_address(
    arguments: tuple[str, ...], store: Proxy, sent: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    said = refused(capsys, *(one.format(sent) for one in arguments))
    assert sent in said
    assert "s3:" not in os.listdir(tmp_path)


def test_files_name_no_addresses(store: Proxy, sent: str, tmp_path: Path) -> None:
    from tipl.evaluation.forecast_sets import ForecastSet

    paths = PathDataset.open(sent)
    params = np.zeros((0, paths.num_trials, paths.layout.size), np.float32)
    ForecastSet(paths, [], params, {}).save(tmp_path / "forecasts")
    store.seen.clear()
    with pytest.raises(TiplError, match=f"add `--trust-argument {sent}`"):
        ForecastSet.load(tmp_path / "forecasts")
    assert store.seen == []
    with trust(arguments=[sent]):
        assert ForecastSet.load(tmp_path / "forecasts").paths.num_trials == paths.num_trials


def test_other_stores_are_read_as_well(store: Proxy, tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    copy_paths(tmp_path / "paths", "memory://place/paths")
    assert copy_paths(tmp_path / "paths", "memory://place/paths").files == 0
    assert verify("memory://place/paths") == []
    assert store.seen == []


# --- what goes wrong -------------------------------------------------------------------------

FAULTS = ["cut", "short", "wrong", "slow", "refused"]


@pytest.mark.parametrize("kind", FAULTS)
def test_what_comes_damaged_is_fetched_again(
    kind: str, store: Proxy, sent: str, tmp_path: Path
) -> None:
    store.fails(2, "GET", kind, "/parts/")
    paths = PathDataset.open(sent)
    np.testing.assert_array_equal(paths.params(), PathDataset.open(tmp_path / "paths").params())


@pytest.mark.parametrize("kind", FAULTS)
def test_what_never_comes_whole_is_not_kept(
    kind: str, store: Proxy, sent: str, tmp_path: Path
) -> None:
    paths = PathDataset.open(sent)
    before = cached(tmp_path)
    store.fails(1000, "GET", kind, "/parts/")
    with pytest.raises(TiplError, match=r"cannot read s3://bucket/.*safetensors: .*in 4 tries"):
        paths.params()
    assert cached(tmp_path) == before
    store.fault = lambda method, path: ""
    assert np.isfinite(paths.select([0]).params()).all()


@pytest.mark.parametrize("kind", ["cut", "wrong", "slow", "refused"])
def test_what_is_sent_is_whole_or_not_there(
    kind: str, store: Proxy, place: str, tmp_path: Path
) -> None:
    policy = Policy.initial(TASK, 1, (3,))
    store.fails(1000, "PUT", kind, "policy")
    if kind != "slow":  # a slow store has it all the same
        with pytest.raises(TiplError, match=r"cannot write s3://bucket/.*in 4 tries"):
            policy.save(place)
        store.fault = lambda method, path: ""
        assert stores.names_in(Path(place)) == []
    store.fails(2, "PUT", kind, "policy")
    policy.save(place)
    assert Policy.load(place).digest == policy.digest


def test_copies_that_were_damaged_later_are_fetched_again(
    store: Proxy, sent: str, tmp_path: Path
) -> None:
    PathDataset.open(sent).params()
    for path in cached(tmp_path):
        if path.suffix == ".safetensors":
            path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    stores._intact.clear()  # as in another process
    paths = PathDataset.open(sent)
    np.testing.assert_array_equal(paths.params(), PathDataset.open(tmp_path / "paths").params())


def test_what_is_replaced_in_a_store_is_seen(store: Proxy, sent: str) -> None:
    import fsspec

    assert PathDataset.open(sent).params().any()
    other, system = f"{sent}-other", fsspec.filesystem("s3")
    make_dataset(Path("other"), seed=2)
    copy_paths("other", other)
    for name in ("metadata.json", *(f"parts/{one.name}" for one in part_files(Path("other")))):
        system.copy(f"{other}/{name}", f"{sent}/{name}")
    assert PathDataset.open(sent).metadata.seed == 2
    assert verify(sent) == []


def test_what_is_damaged_in_the_store_is_named(
    store: Proxy, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path / "paths")
    copy_paths(tmp_path / "paths", place)
    name = part_files(tmp_path / "paths")[0].name
    damaged = bytearray(part_files(tmp_path / "paths")[0].read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    stores.send(tmp_path / "damaged", Path(f"{place}/parts/{name}"))
    (problem,) = verify(place)
    assert f"{place}/parts/{name}: what came does not have the hash" in problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ENDPOINT_URL": "closed"}, "in 4 tries; check the connection"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "give credentials"),
        ({}, "check the spelling, or make the bucket first"),
    ],
)
def test_stores_that_cannot_be_reached_are_refused_soon(
    changes: dict[str, str | None], words: str, store: Proxy, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name, value in changes.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setattr(stores, "ANSWER", 0.6)  # another client than those of other tests
    monkeypatch.setattr(stores, "CONNECT", 0.3 + 0.1 * len(changes))
    said = refused(capsys, "paths", "show", "s3://no-such-bucket/paths")
    assert words in said
    assert "s3://no-such-bucket/paths/metadata.json" in said


@pytest.mark.parametrize(
    ("address", "missing", "words"),
    [
        ("memory://a/b", "fsspec", "pip install 'tipl[remote]'"),
        ("s3://a/b", "s3fs", "pip install 'tipl[remote]'"),
        ("gs://a/b", "gcsfs", "pip install 'tipl[remote]' gcsfs"),
    ],
)
def test_a_sentence_says_what_to_install(
    address: str, missing: str, words: str, store: Proxy, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(stores, "ANSWER", 0.7)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "s3fs":
        known = sys.modules["fsspec.registry"]._registry  # of what has been imported
        monkeypatch.delitem(known, "s3", raising=False)
    assert words in refused(capsys, "paths", "show", address)


def test_without_a_place_for_copies_one_is_asked_for(
    store: Proxy, sent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TIPL_CACHE", str(tmp_path / "file"))
    with pytest.raises(TiplError, match="environment variable TIPL_CACHE"):
        PathDataset.open(sent)
