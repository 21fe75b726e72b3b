"""What is in `deploy/` can be read, and its commands are ones that tipl takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tipl.cli import main

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def commands(text: str) -> list[list[str]]:
    """The words of each `tipl collect` in a script or a page, of one job of an array."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"(?:^|[\s'`])(tipl collect [A-Z][^'`\n]*)", joined)
    filled = (one.replace("$SLURM_CPUS_PER_TASK", "4").replace("{}", "3") for one in found)
    return [shlex.split(one.partition(" :::")[0])[1:] for one in filled]


def kubernetes() -> list[list[str]]:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((DEPLOY / "kubernetes-job.yaml").read_text())
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"auto/{job['spec']['completions']}" in container["args"]
    assert container["volumeMounts"][0]["mountPath"] == "/paths"
    return [container["args"]]


def ray_cluster() -> list[list[str]]:
    yaml = pytest.importorskip("yaml")
    text = (DEPLOY / "ray-cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    return commands(text)


def sbatch() -> list[list[str]]:
    text = (DEPLOY / "collect.sbatch").read_text()
    (jobs,) = re.findall(r"--array=0-(\d+)", text)
    assert f"--shard auto/{int(jobs) + 1}" in text
    return commands(text)


def dockerfile() -> list[list[str]]:
    text = (DEPLOY / "Dockerfile").read_text()
    steps = [line.split()[0] for line in text.splitlines() if re.match("[A-Z]+ ", line)]
    assert steps == ["FROM", "COPY", "RUN", "ENV", "ENTRYPOINT"]
    return []


def page() -> list[list[str]]:
    return commands((ROOT / "docs" / "clusters.md").read_text())


@pytest.mark.parametrize("read", [kubernetes, ray_cluster, sbatch, dockerfile, page])
def test_what_is_deployed_is_what_tipl_takes(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    asked: list[dict[str, Any]] = []

    def collected(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(directory=Path("paths"))

    for name in ("collect", "collect_shard"):
        monkeypatch.setattr(f"tipl.collection.collect.{name}", collected)
    monkeypatch.setattr("tipl.cli.collect.print_summary", lambda _: {})
    monkeypatch.setattr("tipl.core.engines.ray.find_spec", lambda name: name)
    given = [[word.replace("/paths/", "paths-") for word in words] for words in read()]
    for words in given:
        main(words)
    assert len(asked) == len(given)
    assert bool(given) == (read is not dockerfile)
