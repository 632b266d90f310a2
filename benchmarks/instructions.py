"""Instructions per request, counted by valgrind: repeatable where time is too noisy to decide.

    python benchmarks/instructions.py [--flask] [--post]

Each variant runs twice in a fresh interpreter, with few and with more requests; the difference leaves out start-up.
Needs `valgrind` (about a minute a pair). Instructions are not time: cold code costs more than its count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from apps import Bench, fastapi_app, flask_app, get_request, post_request, with_cors

from portalshield.bench.measure import Variant
from portalshield.bench.report import aligned
from portalshield.bench.stacks import NullLines

VARIANTS = ("bare", "cors only", "shielded")
FEW, MORE = 200, 700
_COUNTED = re.compile(r"Collected : (\d+)")


def run(variant: str, count: int, flask: bool, post: bool) -> None:
    """What is counted: one variant, `count` requests."""
    make: Callable[[], object] = flask_app if flask else fastapi_app
    request = post_request() if post else get_request()
    with asyncio.Runner() as runner, NullLines() as lines:
        bench = Bench(runner, lines)
        chosen: dict[str, Callable[[], Variant]] = {
            "bare": lambda: bench.plain("bare", make(), request),
            "cors only": lambda: bench.plain("cors only", with_cors(make()), request),
            "shielded": lambda: bench.shielded("shielded", make(), request),
        }
        subject = chosen[variant]()
        gc.disable()
        subject.batch(count)
        subject.settle()


def counted(variant: str, flags: list[str]) -> int:
    """Instructions of one request."""

    def instructions(count: int) -> int:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
        child = subprocess.run(
            [*command, "--run", variant, "--count", str(count), *flags],
            env={**os.environ, "PYTHONHASHSEED": "1"},
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = _COUNTED.search(child.stderr)
        if found is None:
            raise RuntimeError("valgrind counted nothing")
        return int(found[1])

    few, more = instructions(FEW), instructions(MORE)
    return (more - few) // (MORE - FEW)


def main() -> None:
    """Count all variants and print them with what they add."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flask", action="store_true")
    parser.add_argument("--post", action="store_true")
    parser.add_argument("--run", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=FEW, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        run(options.run, options.count, options.flask, options.post)
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    flags = [flag for flag, on in (("--flask", options.flask), ("--post", options.post)) if on]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        figures = dict(zip(VARIANTS, pool.map(lambda name: counted(name, flags), VARIANTS), strict=True))
    bare, cors = figures["bare"], figures["cors only"]
    rows = [("variant", "instructions", "added", "x CORS alone")]
    rows += [(name, f"{n:,}", f"{n - bare:,}", f"{(n - bare) / (cors - bare):.2f}") for name, n in figures.items()]
    sys.stdout.write(aligned(rows) + "\n")


if __name__ == "__main__":
    main()
