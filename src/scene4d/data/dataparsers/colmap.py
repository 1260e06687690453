"""COLMAP sparse models beside their images. COLMAP's world frame is kept as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import c2w_from_viewmat
from scene4d.cameras.distortion import Distortion
from scene4d.data.dataparsers import ParseOptions
from scene4d.data.dataparsers.colmap_files import (
    ColmapCamera,
    ColmapImage,
    find_model,
    read_model,
)
from scene4d.data.dataparsers.lenses import make_camera
from scene4d.data.image_files import image_size
from scene4d.data.points import clean_points
from scene4d.data.scene import Frame, Scene
from scene4d.data.split import every_nth
from scene4d.errors import DataError
from scene4d.files import path_inside

LOOKS_FOR = "a COLMAP model (cameras and images, .bin or .txt, in sparse/0 or the like)"

MODEL_FOLDERS = (
    "sparse/0",
    "sparse",
    "colmap/sparse/0",
    "colmap/sparse",
    "dense/sparse",
    "undistorted/sparse",
    ".",
)
_UNSUPPORTED_FIX = "undistort with 'colmap image_undistorter', or use OPENCV or OPENCV_FISHEYE"


@dataclass(frozen=True, kw_only=True)
class _ImageFolder:
    """Where the images are, and how many times smaller than the model says."""

    path: Path
    factor: int = 1


def recognises(root: Path) -> bool:
    """Whether ``root`` holds a sparse model in one of the usual places."""
    return root.is_dir() and _model_folder(root) is not None


def _model_folder(root: Path) -> Path | None:
    return next((root / name for name in MODEL_FOLDERS if find_model(root / name)), None)


def parse(root: Path, options: ParseOptions) -> Scene:
    """The scene in ``root``: every registered image, and the model's points."""
    folder = _model_folder(root)
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
    for image in images:  # before any folder is searched for it
        path_inside(root, image.name, where=f"{folder}, image {image.name}")
    place = _image_folder(root, images[0].name, options.downscale_factor)
    frames = [_frame(place, model.cameras[image.camera_id], image, folder) for image in images]
    split = every_nth(len(frames), options.test_every)
    return Scene(
        root=root,
        dataparser="colmap",
        frames=frames,
        train_indices=split.train,
        test_indices=split.test,
        split_rule=split.rule,
        points=clean_points(model.xyz, model.rgb, folder) if len(model.xyz) else None,
        metadata={"stored_downscale": str(place.factor)} if place.factor > 1 else {},
    )


def _image_folder(root: Path, first: str, wanted: int) -> _ImageFolder:
    """``images_N`` where it is there and asked for, else ``images`` or the model's own folder."""
    small = _ImageFolder(path=root / f"images_{wanted}", factor=wanted)
    places = [small] if wanted > 1 else []
    places += [
        _ImageFolder(path=root / name) for name in ("images", "input", "rgb", "dense/images")
    ]
    places += [_ImageFolder(path=root / f"images_{n}") for n in (2, 4, 8)]
    places.append(_ImageFolder(path=root))
    for place in places:
        if (place.path / first).is_file():
            return place
    raise DataError(
        f"the images of the model were not found (looked for {first})",
        where=root,
        fix="put them into a folder 'images' beside the model",
    )


def _frame(place: _ImageFolder, lens: ColmapCamera, image: ColmapImage, folder: Path) -> Frame:
    where = f"{folder}, image {image.name}"
    path = path_inside(place.path, image.name, where=where)
    camera = colmap_camera(lens, _c2w(image, where), where)
    if place.factor > 1 and path.is_file():
        camera = camera.resized(*image_size(path))
    masks = place.path.parent / "masks"
    candidates = [masks / image.name, masks / f"{image.name}.png"]
    candidates.append(candidates[0].with_suffix(".png"))
    return Frame(
        name=image.name,
        camera=camera,
        image_path=path,
        mask_path=next((mask for mask in candidates if mask.is_file()), None),
    )


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
        ]
    )
    viewmat[:3, 3] = torch.tensor(image.translation)
    return c2w_from_viewmat(viewmat)


def colmap_camera(lens: ColmapCamera, c2w: torch.Tensor, where: str) -> Camera:
    """Our camera from COLMAP's lens; both measure the principal point from the image's corner."""
    p = lens.params
    distortion: Distortion | None = None
    if lens.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        focal, centre, rest = (p[0], p[0]), (p[1], p[2]), p[3:]
        distortion = Distortion("opencv", rest)
    elif lens.model in ("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
        focal, centre, rest = (p[0], p[0]), (p[1], p[2]), p[3:]
        distortion = Distortion("fisheye", rest)
    elif lens.model in ("PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"):
        focal, centre, rest = (p[0], p[1]), (p[2], p[3]), p[4:]
        if lens.model == "FULL_OPENCV":
            if any(rest[5:]):
                raise DataError(
                    "FULL_OPENCV with k4, k5 or k6 (a rational lens model) is not supported",
                    where=where,
                    fix=_UNSUPPORTED_FIX,
                )
            rest = rest[:5]
        distortion = Distortion("fisheye" if lens.model == "OPENCV_FISHEYE" else "opencv", rest)
    else:
        raise DataError(
            f"camera model {lens.model} is not supported", where=where, fix=_UNSUPPORTED_FIX
        )
    if min(focal) <= 0:
        raise DataError(f"the focal length {focal} is not positive", where=where)
    return make_camera(
        c2w=c2w,
        focal=focal,
        centre=centre,
        size=(lens.width, lens.height),
        distortion=distortion,
    )
