"""``scene4d benchmark-formats``: what each splat format costs, in MB and in dB."""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.ranges import Within

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scene4d.cameras.camera import Camera
    from scene4d.exporters.compare import Photo
    from scene4d.formats.splat_cloud import SplatCloud


@dataclass(frozen=True, kw_only=True)
class BenchmarkFormatsArgs:
    """Writes a scene in every splat format, renders the same views from each, and prints MB against
    the PSNR to the original's renders and, with a capture, to its held-out photographs."""

    scene: tyro.conf.Positional[Path]
    """Run folder, or a splat file of any format."""
    data: Path | None = None
    """Capture whose held-out views are used; by default a run's own. A splat file has to lie in the
    capture's coordinates."""
    output_path: Path | None = None
    """Folder for index.html, results.json and the files themselves; by default nothing is kept."""
    formats: tuple[str, ...] = ()
    """Names of formats; by default all."""
    views: Annotated[int, Within(1, 100_000)] = 8
    """Views at most; a splat file without a capture is seen from around its content."""
    size: Annotated[int, Within(16, 8192)] = 512
    """Pixels of views around the content."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where it works, otherwise cpu."""


def main(argv: list[str]) -> None:
    """Runs the verb: progress on stderr, the table on stdout."""
    args = parse(BenchmarkFormatsArgs, argv, prog="scene4d benchmark-formats")
    from scene4d.evaluation.psnr import psnr
    from scene4d.exporters.compare import compare_formats
    from scene4d.exporters.compare_report import as_page, as_table
    from scene4d.files import check_writable, write_json, write_text
    from scene4d.training.device import choose_device

    if args.views < 1 or args.size < 16:
        raise UsageError("--views must be 1 or more, --size 16 or more")
    if args.output_path is not None:
        check_writable(args.output_path, folder=True)
    cloud, views, home = _open(args)
    print(f"{len(cloud):,} Gaussians, {len(views.cameras)} views", file=sys.stderr)
    keep = args.output_path
    folder = tempfile.TemporaryDirectory() if keep is None else nullcontext(str(keep))
    costs = []
    with folder as name:
        for cost in compare_formats(
            cloud,
            views.cameras,
            Path(name),
            psnr,
            photos=views.photos,
            background=views.background,
            names=args.formats or None,
            device=choose_device(args.device),
            source_from_scene=home,
        ):
            costs.append(cost)
            print(f"{cost.name}: {cost.bytes:,} bytes", file=sys.stderr)
    print(as_table(costs))
    if keep is not None:
        write_json(keep / "results.json", [asdict(cost) for cost in costs])
        write_text(keep / "index.html", as_page(f"Splat formats: {args.scene.name}", costs))
        print(keep / "index.html", file=sys.stderr)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Views:
    """Cameras in scene coordinates, and what was photographed from them."""

    cameras: list[Camera]
    photos: list[Photo] = field(default_factory=list)
    background: torch.Tensor | None = None


def _open(args: BenchmarkFormatsArgs) -> tuple[SplatCloud, _Views, np.ndarray]:
    """The splats in the capture's own coordinates; views of them in scene coordinates, and the way
    back from these."""
    from scene4d.exporters.compare import cameras_around
    from scene4d.formats.splat_cloud import inverse_similarity, local_frame
    from scene4d.training.open_scene import open_scene
    from scene4d.training.options import TrainOptions
    from scene4d.training.run import LoadedRun

    source = open_scene(args.scene)
    cloud = source.cloud()
    options = None
    if args.data is not None:
        options = TrainOptions(data=args.data)
    elif isinstance(source, LoadedRun):
        options = source.options
    if options is None:
        home = local_frame(cloud)
        local = cloud.transformed(inverse_similarity(home))
        return cloud, _Views(cameras=cameras_around(local, count=args.views, size=args.size)), home
    return cloud, *_held_out(options, args.views)


def _held_out(options, limit: int) -> tuple[_Views, np.ndarray]:
    import torch

    from scene4d.errors import DataError
    from scene4d.evaluation.protocol import composited
    from scene4d.exporters.compare import Photo
    from scene4d.training.train import load_capture

    scene, images = load_capture(options, split="test")
    if not scene.test_indices:
        raise DataError("holds no image out to compare with", where=scene.root)
    step = max(1, -(-len(scene.test_indices) // limit))
    views = [images.view(i) for i in scene.test_indices[::step]]
    background = None if scene.background is None else torch.tensor(scene.background)
    behind = torch.zeros(3) if background is None else background
    photos = [Photo(rgb=composited(view, behind), mask=view.mask) for view in views]
    cameras = [view.camera for view in views]
    home = scene.source_from_scene.double().numpy()
    return _Views(cameras=cameras, photos=photos, background=background), home
