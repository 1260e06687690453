"""COLMAP sparse models beside their images. COLMAP's world frame is kept as it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import c2w_from_viewmat
from scene4d.cameras.distortion import Distortion
from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.colmap_files import (
    ColmapCamera,
    ColmapImage,
    read_model,
)
from scene4d.data.dataparsers.colmap_models import (
    ImageFolder,
    chosen_model,
    image_folder,
    mask_paths,
    model_folders,
)
from scene4d.data.dataparsers.lenses import make_camera
from scene4d.data.points import clean_points
from scene4d.data.scene import Frame, Scene
from scene4d.data.split import every_nth
from scene4d.errors import DataError
from scene4d.files import printable
from scene4d.image_files import image_size

LOOKS_FOR = "a COLMAP model (cameras and images, .bin or .txt, in sparse/0 or the like)"

_UNSUPPORTED_FIX = "undistort with 'colmap image_undistorter', or use OPENCV or OPENCV_FISHEYE"


def recognises(root: Path) -> bool:
    """Whether ``root`` holds a sparse model in one of the usual places."""
    return root.is_dir() and bool(model_folders(root))


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: every registered image, and the model's points."""
    folder = chosen_model(root)
    if folder is None:
        raise DataError(f"holds not {LOOKS_FOR}", where=root)
    model = read_model(folder)
    if not model.images:
        raise DataError(
            "the COLMAP model is empty: no image was registered",
            where=folder,
            fix="take more pictures with more overlap, or see 'scene4d process-data images'",
        )
    images = sorted(model.images, key=lambda image: image.name)
    names = [image.name for image in images]
    place = image_folder(root, names, options.downscale_factor, folder)
    there = place.files.present(place.pictures)
    masks = mask_paths(root, place.path, names)
    frames = [
        _frame(place, i, model.cameras[images[i].camera_id], images[i], masks[i], folder)
        for i in there
    ]
    place.files.tell()
    if not len(model.xyz):
        warnings.warn(
            f"{folder}: the model has no points (points3D.bin, .txt or .ply), so training starts "
            "from random ones",
            stacklevel=2,
        )
    split = every_nth(len(images), options.test_every)
    position = {index: i for i, index in enumerate(there)}
    return Scene(
        root=root,
        dataparser="colmap",
        frames=frames,
        train_indices=[position[i] for i in split.train if i in position],
        test_indices=[position[i] for i in split.test if i in position],
        split_rule=split.rule,
        points=clean_points(model.xyz, model.rgb, folder) if len(model.xyz) else None,
        metadata={"stored_downscale": str(place.factor)} if place.factor > 1 else {},
    )


def _frame(
    place: ImageFolder,
    index: int,
    lens: ColmapCamera,
    image: ColmapImage,
    mask: Path | None,
    folder: Path,
) -> Frame:
    where = f"{folder}, image {printable(image.name)}"
    path = place.pictures[index]
    camera = colmap_camera(lens, _c2w(image, where), where)
    if place.factor > 1:
        camera = camera.resized(*image_size(path))
    return Frame(name=place.files.name_of(path), camera=camera, image_path=path, mask_path=mask)


def _c2w(image: ColmapImage, where: str) -> torch.Tensor:
    quaternion = torch.tensor(image.quaternion, dtype=torch.float64)
    length = quaternion.norm()
    if not bool(torch.isfinite(length)) or length < 1e-6:
        raise DataError("the pose's quaternion is zero or not finite", where=where)
    w, x, y, z = (quaternion / length).tolist()
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    viewmat[:3, 3] = torch.tensor(image.translation, dtype=torch.float64)
    return c2w_from_viewmat(viewmat)


def colmap_camera(lens: ColmapCamera, c2w: torch.Tensor, where: str) -> Camera:
    """Our camera from COLMAP's lens; both measure the principal point from the image's corner."""
    p = lens.params
    distortion: Distortion | None = None
    if lens.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        focal, centre, rest = (p[0], p[0]), (p[1], p[2]), p[3:]
        distortion = Distortion("opencv", rest)
    elif lens.model in ("SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
        focal, centre, rest = (p[0], p[0]), (p[1], p[2]), p[3:]
        distortion = Distortion("fisheye", rest)
    elif lens.model in ("PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE", "FISHEYE"):
        focal, centre, rest = (p[0], p[1]), (p[2], p[3]), p[4:]
        if lens.model == "FULL_OPENCV":
            if any(rest[5:]):
                raise DataError(
                    "FULL_OPENCV with k4, k5 or k6 (a rational lens model) is not supported",
                    where=where,
                    fix=_UNSUPPORTED_FIX,
                )
            rest = rest[:5]
        distortion = Distortion("fisheye" if lens.model.endswith("FISHEYE") else "opencv", rest)
    else:
        raise DataError(
            f"camera model {lens.model} is not supported", where=where, fix=_UNSUPPORTED_FIX
        )
    if not all(1e-3 <= f <= 1e9 for f in focal):
        raise DataError(f"the focal length {focal} is not positive, or impossible", where=where)
    if max(map(abs, (*centre, *rest))) > 1e6:
        raise DataError("a parameter of the lens is impossibly large", where=where)
    return make_camera(
        c2w=c2w,
        focal=focal,
        centre=centre,
        size=(lens.width, lens.height),
        distortion=distortion,
    )
