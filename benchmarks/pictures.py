"""What photographs cost that do not fit into memory: looked at in turn, twice, from memory or disk.

    python benchmarks/pictures.py CAPTURE [--ram-budget-gb 1.5] [--downscale-factor 1]

Prints, for each round, the processor's and the clock's milliseconds of a picture, and the most
memory of the process that the system cannot take back (Linux alone).
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.rendering.freed_memory import keep_freed_memory


def anonymous_gb() -> float:
    """Memory of this process that no file stands behind."""
    table = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Anonymous: +(\d+) kB", table, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--ram-budget-gb", type=float, default=None)
    parser.add_argument("--downscale-factor", type=int, default=1)
    arguments = parser.parse_args()
    keep_freed_memory()
    scene = load_scene(arguments.capture)
    before = anonymous_gb()
    processor = time.process_time()
    cache = ImageCache(
        scene,
        downscale_factor=arguments.downscale_factor,
        ram_budget_gb=arguments.ram_budget_gb,
    )
    count = len(scene.frames)
    print(f"{count} pictures; {time.process_time() - processor:.1f} s of the processor at first")
    for number in (1, 2):
        most = 0.0
        processor, clock = time.process_time(), time.monotonic()
        for index in range(count):
            cache.view(index)
            cache.soon(range(index + 1, count))
            most = max(most, anonymous_gb() - before)
        print(
            f"round {number}: {1e3 * (time.process_time() - processor) / count:.0f} ms of the "
            f"processor and {1e3 * (time.monotonic() - clock) / count:.0f} ms a picture, at most "
            f"{most:.2f} GB"
        )
    print(f"decoded {cache.nbytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
