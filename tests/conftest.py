"""Shape annotations are checked at run time in every test, on Python 3.11 and later."""

import os
import signal
import sys
from pathlib import Path

import jaxtyping
import numba
import optional_packages
import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does

SOURCES = Path(__file__).resolve().parents[1] / "src"


def modules_with_shapes() -> list[str]:
    """The modules that annotate shapes; a check of each call elsewhere doubles the suite's time."""
    paths = [path for path in SOURCES.rglob("*.py") if "jaxtyping" in path.read_text("utf-8")]
    return [".".join(path.relative_to(SOURCES).with_suffix("").parts) for path in paths]


optional_packages.hide_if_asked()

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker per core: more threads only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    numba.set_num_threads(1)

# The last jaxtyping for Python 3.10 (0.3.7) wraps Numba's kernels despite their @no_type_check, and
# then they cannot be compiled.
if sys.version_info >= (3, 11):
    install_import_hook(modules_with_shapes(), "pep484.checked")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "unchecked_shapes: whole trainings and exports; others check the same shapes"
    )
    config.addinivalue_line("markers", "slow: a minute or so; -m 'not slow' leaves them out")
    # What a shell starts in its background, or nohup, ignores them, and so would programs that
    # tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    jaxtyping.config.update("jaxtyping_disable", bool(item.get_closest_marker("unchecked_shapes")))
    return (yield)


SHARED_DATA = (Path(__file__).resolve().parents[2] / "shared" / "data").resolve()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of a small, untrained fixer that looks at two photographs."""
    import torch

    from scene4d.priors.fixer import Fixer, FixerShape, save_fixer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fixer") / "fixer.safetensors"
    save_fixer(Fixer(FixerShape(references=2, widths=(8, 8))), path)
    return path


@pytest.fixture(scope="session")
def row(tmp_path_factory) -> Path:
    """A capture: twenty-four pictures of a card in front of a camera that goes to the right."""
    import json

    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("captures") / "row"
    root.mkdir()
    frames = []
    for i in range(24):
        pose = np.eye(4)
        pose[0, 3] = 0.1 * i
        y, x = np.mgrid[:32, :48]
        picture = np.stack([x * 5, y * 7, (x + 2 * i) * 3 % 255], -1).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{i:02d}.png")
        frames.append({"file_path": f"{i:02d}.png", "transform_matrix": pose.tolist()})
    meta = {"w": 48, "h": 32, "fl_x": 40.0, "fl_y": 40.0, "cx": 24.0, "cy": 16.0}
    (root / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The team's folder of real captures, beside the checkout; other people will not have it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the captures are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory) -> Path:
    """A capture that training can finish in seconds: 16 views of 64 coloured Gaussians.

    Rendered by our own reference at 48 x 48, with alpha; transforms.json, test = every 8th.
    """
    return make_tiny_capture(tmp_path_factory.mktemp("tiny_capture"))


def make_tiny_capture(root: Path, *, num_views: int = 16, size: int = 48) -> Path:
    import json

    import numpy as np
    import torch
    from PIL import Image

    from scene4d.rendering.splats.rasterization import rasterization

    generator = torch.Generator().manual_seed(7)
    count = 64
    means = torch.randn(count, 3, generator=generator) * 0.5
    colors = torch.rand(count, 3, generator=generator)
    quats = torch.randn(count, 4, generator=generator)
    stds = 0.05 + 0.1 * torch.rand(count, 3, generator=generator)
    opacities = 0.5 + 0.45 * torch.rand(count, generator=generator)
    focal = 1.2 * size
    frames = []
    (root / "images").mkdir()
    for i in range(num_views):
        angle = 2 * np.pi * i / num_views
        position = np.array([3 * np.cos(angle), 3 * np.sin(angle), 0.8 * np.sin(2 * angle)])
        back = position / np.linalg.norm(position)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        c2w = np.eye(4)
        c2w[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
        viewmat = np.linalg.inv(c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
        intrinsics = [[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]
        rgb, alpha, _ = rasterization(
            means, quats, stds, opacities, colors,
            torch.tensor(viewmat, dtype=torch.float32)[None],
            torch.tensor(intrinsics, dtype=torch.float32)[None],
            size, size,
        )  # fmt: skip
        straight = rgb[0] / alpha[0].clamp_min(1e-6)
        pixels = torch.cat([straight.clamp(0, 1), alpha[0]], dim=-1).mul(255).round().byte()
        Image.fromarray(pixels.numpy(), "RGBA").save(root / "images" / f"{i:03d}.png")
        frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": c2w.tolist()})
    intrinsics = {"fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2}
    document = {"camera_model": "PINHOLE", "w": size, "h": size, **intrinsics, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(document))
    return root
