"""Every reader is given damaged files: thousands here, and as many as one likes by `make fuzz`."""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz_damage import Damage, damages, put
from fuzz_readers import READERS, Reader, consistent, content_of, is_read
from tipl.core import schemas, storage
from tipl.errors import TiplError
from tried import tried

INPUTS = 5000
"""In all, where nobody asks for more."""

ROUND = 500
"""Inputs of a reader with one seed, at length."""

GIVEN = {name: int(os.environ.get(f"FUZZ_{name}") or 0) for name in ("INPUTS", "SECONDS")}
AT_LENGTH = any(GIVEN.values())
FAILURES = Path("fuzz-failures")
COUNTS: dict[str, int] = {}
"""Inputs of each reader."""


class Campaign:
    """Damage to the files of one reader, and what became of it."""

    def __init__(self, reader: Reader, directory: Path) -> None:
        self.reader, self.directory = reader, directory
        self.counts = {"read": 0, "refused": 0}
        reader.make(directory)
        self.files = content_of(directory)
        reader.read(directory)  # which also imports and compiles what it needs
        self._start_anew()

    def _start_anew(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        put(self.directory, self.files)

    def try_one(self, damage: Damage) -> None:
        """Damages the files, lets them be read, and repairs them."""
        damage = consistent(self.files, damage)
        try:
            damage.apply(self.directory)
            read = is_read(self.reader, self.directory)
            self.counts["read" if read else "refused"] += 1
        except BaseException:
            if AT_LENGTH:
                self._keep(damage)
            raise
        finally:
            if self.reader.writes:
                self._start_anew()
            else:
                damage.undo(self.directory, self.files)

    def _keep(self, damage: Damage) -> None:
        """Keeps the last failure of this reader: the smallest that is found."""
        kept = FAILURES / self.reader.name.replace("/", "-").replace(" ", "-")
        shutil.rmtree(kept, ignore_errors=True)
        self._start_anew()
        shutil.copytree(self.directory, kept / "before")
        damage.apply(self.directory)
        os.system(f"cp -a '{self.directory}' '{kept / 'after'}'")
        words = f"{self.reader.name}\n{damage}\n\n{traceback.format_exc()}"
        (kept / "what.txt").write_text(words, errors="replace")

    def run(self, inputs: int, number: int | None) -> None:
        """So many inputs: drawn from a seed, or always the same."""

        @settings(
            max_examples=inputs,
            derandomize=number is None,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(damages(self.files))
        def property_(damage: Damage) -> None:
            self.try_one(damage)

        (property_ if number is None else seed(number)(property_))()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_whatever_is_read_ends_in_a_result_or_a_sentence(
    reader: Reader, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    share = reader.share / sum(one.share for one in READERS)
    campaign = Campaign(reader, tmp_path / "files")
    try:
        if not AT_LENGTH:
            campaign.run(round(share * INPUTS), None)
        start, left = time.monotonic(), round(share * GIVEN["INPUTS"])
        while AT_LENGTH and (left > 0 or time.monotonic() - start < share * GIVEN["SECONDS"]):
            number = random.SystemRandom().randrange(2**32)
            inputs = min(left, ROUND) if left > 0 else ROUND
            campaign.run(inputs, number)
            left -= inputs
    finally:
        told = ", ".join(f"{count:,} {what}" for what, count in campaign.counts.items())
        COUNTS[reader.name] = sum(campaign.counts.values())
        record_property("counted", f"{COUNTS[reader.name]:,} inputs: {told}")


def test_as_many_inputs_were_tried_as_is_said() -> None:
    if not AT_LENGTH and len(COUNTS) == len(READERS):  # unless some were left out
        tried("random damage to the files of every reader", sum(COUNTS.values()))


def test_every_kind_of_file_is_given_to_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = set()
    for name in ("read_json", "read_tensors"):
        original = getattr(storage, name)

        def read(
            path: Path,
            expected: str = "a file",
            *more: object,
            original: Callable[..., object] = original,
        ) -> object:
            met.add(expected)
            return original(path, expected, *more)

        monkeypatch.setattr(storage, name, read)
    for i, reader in enumerate(READERS):
        reader.make(tmp_path / f"{i}")
        try:
            reader.read(tmp_path / f"{i}")
        except TiplError:
            pytest.fail(f"{reader.name} refuses files as they should be")
    missing = [kind.name for kind in schemas.file_kinds() if kind.expected not in met]
    assert not missing
