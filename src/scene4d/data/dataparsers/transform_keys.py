"""Which keys of a transforms.json are understood, and a word about the others.

The writers are nerfstudio, instant-ngp, the NeRF-synthetic and D-NeRF captures, and tools that feed
them. A key that nobody here knows may turn, scale or crop the scene, so it is named once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scene4d.files import printable


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LENS_KEYS = _names(
    """w h fl_x fl_y cx cy camera_angle_x camera_angle_y x_fov y_fov camera_model is_fisheye
    k1 k2 k3 k4 k5 k6 p1 p2 distortion_params fisheye_crop_radius
    latlong equirectangular ftheta_p0 ftheta_p1 ftheta_p2 ftheta_p3 ftheta_p4"""
)
"""For the whole file or for a frame, whose own come first; some are understood by being refused."""
_DEPTH_KEYS = _names(
    "depth_unit_scale_factor depth_unit_scale integer_depth_scale applied_scale depth_kind"
)
_FILE_KEYS = _names(
    """frames applied_transform ply_file_path train_filenames val_filenames test_filenames
    near far time_unit fps duration_s"""
)
_FRAME_KEYS = _names(
    """file_path transform_matrix time mask_path depth_file_path depth_path near far
    dynamic_mask_path covisible_mask_path fps weight"""
)
_HARMLESS = _names(
    # How other programs normalise the scene, weigh or number the pictures: nothing to do here.
    """aabb_scale scale offset up render_aabb from_na n_frames n_extra_learnable_dims sharpen
    sharpness sharpness_discard_threshold blur_score importance_sampling enable_depth_loading
    enable_ray_loading orientation_override auto_scale_poses_override colmap_im_id camera_label
    camera camera_id camera_name image_id img_id frame_id frame_index frame_idx id idx index name
    row col rotation version date author comment dataset scene_name"""
)
_UNDERSTOOD = LENS_KEYS | _DEPTH_KEYS | _HARMLESS
_SHOWN = 12


def unknown_keys(
    meta: Mapping[str, Any], frames: Sequence[Mapping[str, Any]]
) -> tuple[set[str], set[str]]:
    """Keys of the file and of its frames that say something and are not understood."""
    of_file = {key for key, value in meta.items() if _says_something(value)}
    of_frames = {key for entry in frames for key, value in entry.items() if _says_something(value)}
    return of_file - _UNDERSTOOD - _FILE_KEYS, of_frames - _UNDERSTOOD - _FRAME_KEYS


def unknown_keys_warning(of_file: Iterable[str], of_frames: Iterable[str]) -> str | None:
    """The one warning about keys that are not understood; None when there are none."""
    groups = []
    for keys, place in ((sorted(of_file), ""), (sorted(of_frames), " of frames")):
        if keys:
            names = ", ".join(printable(key) for key in keys[:_SHOWN])
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            groups.append(f"{names}{more}{place}")
    if not groups:
        return None
    return (
        f"keys that are not understood are ignored: {'; '.join(groups)} (wrong results if they "
        "say where, how large or what the pictures are; docs/captures.md lists the others)"
    )


def _says_something(value: Any) -> bool:
    """False for null, false, 0, empty text and lists of these."""
    if isinstance(value, (list, tuple)):
        return any(_says_something(item) for item in value[:16]) or len(value) > 16
    return bool(value)
