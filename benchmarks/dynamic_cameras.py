"""What one moving camera lacks: trains on a made capture's moving camera alone, and on all cameras.

python scripts/make_dynamic_capture.py scripts/captures/dance_five.toml FIVE --models FOLDER
python benchmarks/dynamic_cameras.py FIVE --steps 300

Both are measured at the same held-out pictures, over the pixels that the moving camera shows
(``covisible = "moving"`` in the recipe).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from dynamic import measured

FIGURES = ("psnr", "mpsnr", "mpsnr_moving", "mpsnr_still", "mlpips")


def main() -> None:
    """Prints a markdown table, one row a set of cameras, and the gap in mPSNR."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("--method", default="deformable")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--downscale-factor", default="1")
    parser.add_argument("--options", default="", help="more, of scene4d train, for both")
    parser.add_argument("--output-dir", type=Path)
    options = parser.parse_args()
    folder = options.output_dir or Path(tempfile.mkdtemp(prefix="scene4d-cameras-"))
    print("| trained from | " + " | ".join(FIGURES) + " |")
    print("|---" * (len(FIGURES) + 1) + "|")
    reached = []
    for name, path in (
        ("the moving camera", moving_alone(options.capture)),
        ("all cameras", options.capture / "transforms.json"),
    ):
        options.capture = path
        figures = measured(options.method, options, folder)
        reached.append(figures["mpsnr"])
        print(f"| {name} | " + " | ".join(f"{figures[f]:.3g}" for f in FIGURES) + " |", flush=True)
    print(f"gap in mPSNR: {reached[1] - reached[0]:.2f} dB")


def moving_alone(capture: Path) -> Path:
    """A transforms file beside the capture's, without the training pictures of other cameras."""
    table = json.loads((capture / "transforms.json").read_text())
    held_out = set(table["test_filenames"])
    table["frames"] = [
        frame for frame in table["frames"]
        if frame["file_path"] in held_out or Path(frame["file_path"]).name.startswith("train_")
    ]  # fmt: skip
    names = [frame["file_path"] for frame in table["frames"]]
    table["train_filenames"] = [name for name in names if name not in held_out]
    path = capture / "transforms_moving.json"
    path.write_text(json.dumps(table) + "\n")
    return path


if __name__ == "__main__":
    main()
