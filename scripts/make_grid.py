"""Makes a capture of a freeze-time video and reference videos: a grid of cameras by moments.

Run: python scripts/make_grid.py OUT --freeze CAPTURE --video FRAMES [FRAMES ...] --fps 12

CAPTURE is the freeze-time video with poses, as `scene4d process-data video` writes it. Each FRAMES
is a folder of the pictures of one camera that stands still, in the order of their names;
FRAMES:NAME says which picture of CAPTURE was taken from there, without it the first. All have
CAPTURE's lens and size. --moment: the number of the videos' picture that shows what the freeze-time
video does.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def grid(out: Path, freeze: Path, videos: list[tuple[Path, str | None]], fps: float, moment: int,
         weight: float) -> int:  # fmt: skip
    """Writes the capture; returns how many pictures it has. Raises SystemExit for pictures that do
    not fit."""
    table: dict[str, Any] = json.loads((freeze / "transforms.json").read_text())
    frames = sorted(table["frames"], key=lambda frame: frame["file_path"])
    made = []
    for number, frame in enumerate(frames):
        path = _copied(freeze / frame["file_path"], out, f"freeze/{number:04d}")
        made.append({**frame, "file_path": path, "camera": f"freeze {number}",
                     "time": moment / fps, "weight": weight})  # fmt: skip
    for number, (folder, name) in enumerate(videos):
        pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
        places = [f for f in frames if name is None or Path(f["file_path"]).name == name]
        if not pictures or not places:
            raise SystemExit(f"{folder}: no pictures, or {freeze} has no picture {name}")
        there = {k: v for k, v in places[0].items() if not k.endswith(("mask_path", "file_path"))}
        size = Image.open(freeze / places[0]["file_path"]).size
        for at, picture in enumerate(pictures):
            if Image.open(picture).size != size:
                raise SystemExit(f"{picture}: is not of the {size[0]}x{size[1]} pixels of {freeze}")
            path = _copied(picture, out, f"video{number}/{at:04d}")
            made.append({**there, "file_path": path, "camera": f"video {number}", "time": at / fps})
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        table.pop(key, None)
    if points := table.get("ply_file_path"):
        shutil.copyfile(freeze / points, out / Path(points).name)
        table["ply_file_path"] = Path(points).name
    names = [frame["file_path"] for frame in made]
    table |= {"frames": made, "time_unit": "seconds", "fps": fps, "train_filenames": names}
    (out / "transforms.json").write_text(json.dumps(table) + "\n")
    return len(made)


def _copied(picture: Path, out: Path, name: str) -> str:
    path = out / f"{name}{picture.suffix.lower()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, path)
    return path.relative_to(out).as_posix()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write; must not be there")
    parser.add_argument("--freeze", type=Path, required=True, help="capture with poses")
    parser.add_argument("--video", nargs="+", required=True, help="FRAMES or FRAMES:NAME")
    parser.add_argument("--fps", type=float, required=True, help="pictures a second of the videos")
    parser.add_argument("--moment", type=int, default=0, help="of the freeze-time video, a picture")
    parser.add_argument("--weight", type=float, default=1.0, help="of freeze-time pictures")
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out} is there already")
    videos = []
    for text in options.video:
        folder, _, name = text.partition(":")
        videos.append((Path(folder), name or None))
    count = grid(options.out, options.freeze, videos, options.fps, options.moment, options.weight)
    print(f"{options.out}: {count} pictures")


if __name__ == "__main__":
    main()
