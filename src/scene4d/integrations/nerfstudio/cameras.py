"""nerfstudio's cameras and datasets as scene4d's."""

from __future__ import annotations

from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.datasets.base_dataset import InputDataset

from scene4d.cameras.camera import Camera
from scene4d.cameras.distortion import Distortion
from scene4d.data.scene import Frame, Points, Scene
from scene4d.errors import DataError

_MODELS = {CameraType.PERSPECTIVE.value: "opencv", CameraType.FISHEYE.value: "fisheye"}


def camera_from_nerfstudio(cameras: Cameras) -> Camera:
    """The pinhole camera of a batch of one; lens distortion is left out.

    nerfstudio's poses are camera-to-world with OpenGL axes and its pixel centres are at 0.5, as
    here; its data manager undistorts the pictures, and renderers take undistorted cameras.
    """
    flat = cameras.reshape((-1,))
    if flat.shape[0] != 1:
        raise ValueError(f"one camera at a time, got {flat.shape[0]}")
    bottom = flat.camera_to_worlds.new_tensor([[0.0, 0.0, 0.0, 1.0]])
    return Camera(
        c2w=torch.cat([flat.camera_to_worlds[0], bottom]),
        K=flat.get_intrinsics_matrices()[0].to(flat.camera_to_worlds.device),
        width=int(flat.width[0]),
        height=int(flat.height[0]),
    )


def scene_from_dataset(
    dataset: InputDataset,
    *,
    root: Path,
    seed_points: tuple[torch.Tensor, torch.Tensor] | None,
) -> Scene:
    """The training images of a nerfstudio dataset as a Scene, in nerfstudio's world frame.

    Ask before the data manager has cached the images: it undistorts the cameras in place.
    Raises :class:`DataError` on cameras that are neither perspective nor OpenCV fisheye.
    """
    files = dataset.image_filenames
    frames = [
        Frame(name=f"{i:06d} {path.name}", camera=_with_lens(dataset.cameras, i), image_path=path)
        for i, path in enumerate(files)
    ]
    points = None
    if seed_points is not None:
        points = Points(xyz=seed_points[0].float().cpu(), rgb=seed_points[1].byte().cpu())
    return Scene(
        root=root,
        dataparser="nerfstudio's own",
        frames=frames,
        train_indices=range(len(frames)),
        test_indices=(),
        split_rule="by nerfstudio's dataparser",
        points=points,
    )


def _with_lens(cameras: Cameras, index: int) -> Camera:
    """One camera of a dataset, with its lens."""
    camera = camera_from_nerfstudio(cameras[index : index + 1])
    kind = int(cameras.camera_type[index])
    if kind not in _MODELS:
        raise DataError(
            f"cameras of nerfstudio's type {CameraType(kind).name} are not supported",
            fix="use perspective or OpenCV fisheye images",
        )
    if cameras.distortion_params is None or not bool(cameras.distortion_params[index].any()):
        return camera
    k1, k2, k3, k4, p1, p2 = cameras.distortion_params[index].tolist()
    lens = (
        Distortion("fisheye", (k1, k2, k3, k4))
        if _MODELS[kind] == "fisheye"
        else Distortion("opencv", (k1, k2, p1, p2, k3, k4))
    )
    return Camera(c2w=camera.c2w, K=camera.K, width=camera.width, height=camera.height,
                  distortion=lens)  # fmt: skip
