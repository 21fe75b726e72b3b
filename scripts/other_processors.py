"""Runs the numerical tests as on other processors: `make test-processors`.

Libraries choose their arithmetic by the processor: how wide its vectors are, whether it multiplies
and adds in one rounding, in which order sums are taken. Each variant here makes them choose as on
another one. What falls under a variant has a tolerance that was found on one processor instead of
following from the arithmetic.

Usage: scripts/other_processors.py [--variant NAME ...] [TEST_FILE ...]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
NUMERICAL = re.compile(r"allclose|approx\(|assert_close|assert_array_equal|array_equal")
"""What a test file mentions that compares numbers."""

WITHOUT = {"test_benchmark.py", "test_benchmarks.py", "test_demo.py", "test_readme.py"}
"""Files that run commands from start to end, and compare few numbers."""

# Of NumPy, the sets of instructions that it would use where the processor has them.
DISPATCHED = [str(name) for name in np._core._multiarray_umath.__cpu_dispatch__]  # type: ignore[attr-defined]
WIDE = [name for name in DISPATCHED if name.startswith(("AVX512", "X86_V4"))]

VARIANTS: dict[str, dict[str, str]] = {
    "SSE, no fused multiplication": {
        "ATEN_CPU_CAPABILITY": "default",
        "NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCHED),
        "OPENBLAS_CORETYPE": "Nehalem",
        "NUMBA_CPU_NAME": "nehalem",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "AVX2, as Haswell": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "NPY_DISABLE_CPU_FEATURES": " ".join(WIDE),
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "AVX2, as Zen, two threads": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "NPY_DISABLE_CPU_FEATURES": " ".join(WIDE),
        "OPENBLAS_CORETYPE": "Zen",
        "NUMBA_CPU_NAME": "generic",
        "MKL_CBWR": "COMPATIBLE",
        "OMP_NUM_THREADS": "2",
    },
    "AVX-512, as Skylake": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "OPENBLAS_CORETYPE": "SkylakeX",
        "NUMBA_CPU_NAME": "skylake-avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
}

NEEDS = {"SSE": "SSE42", "AVX2": "AVX2", "AVX-512": "AVX512_SKX"}
"""What NumPy calls the instructions."""


def numerical_files() -> list[Path]:
    """The test files that compare numbers."""
    return [
        file
        for file in sorted(TESTS.glob("test_*.py"))
        if file.name not in WITHOUT and NUMERICAL.search(file.read_text(encoding="utf-8"))
    ]


def can_run(variant: str) -> bool:
    """Whether this processor has what a variant needs."""
    has = np._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    return bool(has[NEEDS[variant.split(",")[0]]])


def failures(variant: str, files: list[Path]) -> list[str]:
    """The tests that fall under a variant, or what pytest says if it ends otherwise."""
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **VARIANTS[variant]}
    command = [sys.executable, "-m", "pytest", "-rfE", "--tb=line", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, *map(str, files)],
        env={**os.environ, **{name: value for name, value in settings.items() if value}},
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout, flush=True)
    fallen = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", run.stdout, re.MULTILINE)
    if run.returncode and not fallen:
        return [f"pytest ended with exit status {run.returncode}: {run.stderr.strip()}"]
    return fallen


def main() -> None:
    """Runs the variants, prints what fell, and exits with 1 if something did."""
    parser = argparse.ArgumentParser(description="run the numerical tests as on other processors")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="default: all")
    parser.add_argument("files", nargs="*", type=Path, help="default: all that compare numbers")
    arguments = parser.parse_args()
    fell = {}
    for variant in arguments.variant or VARIANTS:
        if not can_run(variant):
            print(f"{variant}: left out, this processor cannot", flush=True)
            continue
        print(f"== {variant}", flush=True)
        fell[variant] = failures(variant, arguments.files or numerical_files())
    for variant, tests in fell.items():
        print(f"{variant}: {len(tests)} fell", *tests, sep="\n  ")
    sys.exit(any(fell.values()))


if __name__ == "__main__":
    main()
