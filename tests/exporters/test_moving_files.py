"""Scenes that move in the files of others: read back by what is not ours."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from formats.splat_files import angles, random_cloud
from methods.deformable.test_deformable import compact, one_gaussian
from optional_packages import import_or_skip

from scene4d.cli import main as command
from scene4d.errors import DataError, UsageError
from scene4d.exporters.moving_files import export_4dgs, export_splatv
from scene4d.exporters.options import StraightOptions
from scene4d.formats.moving_splats import MovingSplats
from scene4d.formats.packing import SH_C0, opacity_of
from scene4d.formats.placing import read_sidecar
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training import open_scene as door
from scene4d.training.opened import OpenedScene, SceneCameras

WAY = torch.tensor(
    [[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -1.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]],
    dtype=torch.float64,
)
"""Twice as large, turned by a quarter about z, and moved."""


def opened(moving, way: torch.Tensor = WAY) -> OpenedScene:
    cameras = SceneCameras(source_from_scene=way)
    return OpenedScene(
        path=Path("run"), representation=DeformableSplats.of(moving), cameras=cameras
    )


def gentle() -> MovingSplats:
    """Nodes that turn by up to half a radian and go by less than a splat is long."""
    moving = compact()
    knots = moving.knots.copy()
    turns = 0.15 * knots[..., :4] * np.sign(knots[..., :1]) + np.float32([1, 0, 0, 0])
    knots[..., :4] = turns / np.linalg.norm(turns, axis=-1, keepdims=True)
    return replace(moving, knots=knots)


def even() -> MovingSplats:
    """Splats that go straight on at an even speed, which B-splines say exactly, and do not turn."""
    moving = compact()
    knots = moving.knots.copy()
    knots[..., :4] = (1, 0, 0, 0)
    speed = np.random.default_rng(1).normal(0, 0.2, (len(knots), 1, 3))
    knots[..., 4:] = speed * np.arange(knots.shape[1])[None, :, None]
    return replace(moving, knots=knots.astype(np.float32))


# .splatv


def texture(path: Path) -> tuple[dict, np.ndarray]:
    """The entry of the splats, and their 64 bytes each, as splaTV's page reads them."""
    data = path.read_bytes()
    magic, length = struct.unpack_from("<II", data)
    (entry,) = json.loads(data[8 : 8 + length])
    assert magic == 0x674B and entry["type"] == "splat"
    words = np.frombuffer(data, "<u4", offset=8 + length)
    assert words.nbytes == entry["size"] == 16 * entry["texwidth"] * entry["texheight"]
    return entry, words.reshape(-1, 16)


def shown(words: np.ndarray, time: float) -> dict[str, np.ndarray]:
    """What splaTV's vertex shader computes of each splat at ``time``, 0..1."""
    halves = np.ascontiguousarray(words).view("<f2").reshape(len(words), 32).astype(np.float64)
    means = np.ascontiguousarray(words[:, :3]).view("<f4").astype(np.float64)
    dt = time - halves[:, 30, None]
    path = halves[:, 16:19] * dt + halves[:, 19:22] * dt**2 + halves[:, 22:25] * dt**3
    rgba = np.ascontiguousarray(words[:, 7:8]).view(np.uint8) / 255
    fade = np.exp(-((dt[:, 0] / halves[:, 31]) ** 2))
    return {
        "means": means + path,
        "quats": halves[:, 6:10] + halves[:, 26:30] * dt,
        "stds": halves[:, 10:13],
        "rgb": rgba[:, :3],
        "alpha": np.where(fade < 0.02, 0.0, rgba[:, 3] * fade),
    }


def test_a_splatv_shows_even_motion_where_it_is(tmp_path: Path) -> None:
    moving = even()
    scene = opened(moving)
    line = export_splatv(scene, tmp_path / "a.splatv")
    assert "a cubic of time for each of" in line and "view-dependent colour" in line
    assert "lasts 2 s" in line
    entry, words = texture(tmp_path / "a.splatv")
    assert len(words) == 1024 and entry["texwidth"] == 4096
    for share in (0.0, 0.4, 1.0):
        still = scene.at_time(moving.start_s + share * moving.duration_s).cloud()
        found = {name: each[: len(still)] for name, each in shown(words, share).items()}
        order = _order(found["means"], still.means)
        # float16 has 11 bits: of motion of a unit, half a thousandth
        np.testing.assert_allclose(found["means"][order], still.means, atol=2e-3)
        assert angles(found["quats"][order], still.quats).max() < 2e-3
        np.testing.assert_allclose(found["stds"][order], np.exp(still.log_scales), rtol=1e-3)
        alphas = opacity_of(still.logit_opacities)
        np.testing.assert_allclose(found["alpha"][order], alphas, atol=0.5 / 255 + 1e-6)
        colours = np.clip(0.5 + SH_C0 * still.sh[:, 0], 0, 1)
        np.testing.assert_allclose(found["rgb"][order], colours, atol=0.5 / 255 + 1e-6)
        assert not shown(words, share)["alpha"][len(still) :].any()


def _order(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each of ``wanted``, the nearest of ``found``; each is taken once."""
    rows = np.linalg.norm(found[None] - wanted[:, None], axis=-1).argmin(axis=1)
    assert len(set(rows)) == len(rows)
    return rows


def test_what_a_cubic_cannot_follow_is_told_in_the_inputs_unit(tmp_path: Path) -> None:
    """A zigzag of two turns, which no cubic goes."""
    moving = one_gaussian()
    knots = moving.knots.copy()
    knots[0, :, 4] = (0.0, 1.0, 0.0, 1.0, 0.0)  # a zigzag
    scene = opened(replace(moving, knots=knots))
    line = export_splatv(scene, tmp_path / "a.splatv")
    words = texture(tmp_path / "a.splatv")[1]
    worst = max(
        np.linalg.norm(shown(words, share)["means"][0] - scene.at_time(2 * share).cloud().means[0])
        for share in np.linspace(0, 1, 41)
    )
    told = float(line.split("scene units at most")[0].split()[-1])
    assert worst > 0.05 and told == pytest.approx(worst, rel=0.1)


def test_a_splat_that_comes_and_goes_is_a_bell(tmp_path: Path) -> None:
    moving = one_gaussian()
    windows = np.float32([[0.8, 1.2, 0.05, 0.05]])
    scene = opened(replace(moving, opacity_windows=windows))
    export_splatv(scene, tmp_path / "a.splatv")
    words = texture(tmp_path / "a.splatv")[1]
    alpha = [float(shown(words, share)["alpha"][0]) for share in (0.0, 0.5, 1.0)]
    assert alpha[0] == alpha[2] == 0.0 and alpha[1] > 0.8


# .4dgs


def test_a_4dgs_shows_the_motion_where_it_is(tmp_path: Path) -> None:
    """By the format's own package, at moments that were not looked at."""
    fourdgs = import_or_skip("fourdgs")
    from fourdgs.validate import validate

    moving = gentle()
    scene = opened(moving)
    line = export_4dgs(scene, tmp_path / "a.4dgs", StraightOptions(straight_error=0.1))
    report = validate((tmp_path / "a.4dgs").read_bytes())
    assert report.ok, str(report)
    read = fourdgs.read(str(tmp_path / "a.4dgs"))
    assert read.header.duration_sec == moving.duration_s
    assert f"in {len(read.gaussians.positions) - _num_still(scene):,} straight pieces" in line
    for share in (0.0, 0.237, 0.71, 1.0):
        still = scene.at_time(moving.start_s + share * moving.duration_s).cloud()
        state = read.gaussians.state_at(share * moving.duration_s)
        assert len(state["indices"]) == len(still)
        order = _order(state["centers"], still.means)
        sizes = np.exp(still.log_scales.astype(np.float64))
        off = np.linalg.norm(state["centers"][order] - still.means, axis=1)
        # 0.1 of its own size by the option, and the file's steps of 0.05 of the median's
        assert (off < 0.1 * sizes.max(axis=1) + 0.15 * np.median(sizes)).all()
        np.testing.assert_allclose(
            state["opacity"][order], opacity_of(still.logit_opacities), atol=0.6 / 255
        )
        which = state["indices"][order]
        np.testing.assert_allclose(read.gaussians.scales[which], sizes, rtol=0.011)
        colours = np.clip(0.5 + SH_C0 * still.sh[:, 0], 0, 1)
        np.testing.assert_allclose(read.gaussians.colors[which, :3], colours, atol=0.6 / 255)
        bytes_of = read.gaussians.sh[which].reshape(len(which), 3, -1).swapaxes(1, 2)
        np.testing.assert_allclose(bytes_of * (8 / 255) - 4, still.sh[:, 1:], atol=4.1 / 255)
        turned = np.degrees(angles(state["orientations"][order][:, [3, 0, 1, 2]], still.quats))
        told = float(line.split("degrees at most")[0].split()[-1])
        assert turned.max() < 1.02 * told + 0.15


def _num_still(scene: OpenedScene) -> int:
    return len(scene.scene_cloud()) - scene.representation.moving().num_moving


def test_even_motion_is_one_piece_for_two_seconds(tmp_path: Path) -> None:
    scene = opened(even())
    moving = scene.representation.moving().num_moving
    line = export_4dgs(scene, tmp_path / "a.4dgs")
    assert f"{moving} that move in {moving} straight pieces" in line


def test_longer_motion_comes_in_chunks_that_are_found_by_time(tmp_path: Path) -> None:
    import_or_skip("fourdgs")
    from fourdgs.indexed_reader import open_indexed
    from fourdgs.readable import BytesReadable
    from fourdgs.validate import validate

    moving = even()
    long = replace(moving, knot_interval_s=3 * moving.knot_interval_s, duration_s=6.0)
    export_4dgs(opened(long), tmp_path / "a.4dgs")
    data = (tmp_path / "a.4dgs").read_bytes()
    assert validate(data).ok
    index = open_indexed(BytesReadable(data)).index
    assert len(index) == 4  # what stands still, and three times two seconds
    for time in (0.0, 1.99, 2.01, 6.0):
        assert sum(entry.t0 <= time < entry.t1 for entry in index) == 2


def test_what_is_unseen_is_left_out_of_a_4dgs(tmp_path: Path) -> None:
    fourdgs = import_or_skip("fourdgs")
    moving = replace(one_gaussian(), opacity_windows=np.float32([[0.9, 1.2, 0.01, 0.01]]))
    export_4dgs(opened(moving), tmp_path / "a.4dgs")
    read = fourdgs.read(str(tmp_path / "a.4dgs")).gaussians
    counts = [len(read.state_at(t)["indices"]) for t in (0.2, 1.05, 1.7)]
    assert counts == [0, 1, 0]


# Both


@pytest.mark.parametrize(("export", "name"), [(export_4dgs, "a.4dgs"), (export_splatv, "a.splatv")])
def test_what_stands_still_and_other_names_are_refused(export, name, tmp_path: Path) -> None:
    still = OpenedScene(path=tmp_path, representation=GaussianSplats.of(random_cloud(5)))
    with pytest.raises(UsageError, match="nothing in it moves"):
        export(still, tmp_path / name)
    with pytest.raises(UsageError, match="are written as"):
        export(opened(one_gaussian()), tmp_path / "a.ply")
    broken = one_gaussian()
    broken.cloud.log_scales[:] = np.nan
    with pytest.raises(DataError, match="log-scale"):
        export(opened(broken), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_verb_writes_both_and_knows_their_options(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(door, "open_scene", lambda path, **given: opened(gentle()))
    given = ["export", "run", "4dgs", "--output-path", str(tmp_path / "a.4dgs")]
    assert command.main([*given, "--straight-error", "10"]) == 0
    rough = (tmp_path / "a.4dgs").stat().st_size
    assert command.main(given) == 0
    assert (tmp_path / "a.4dgs").stat().st_size > rough
    told = capsys.readouterr().err
    assert "straight pieces" in told and "warning" not in told
    given = ["export", "run", "splatv", "--output-path", str(tmp_path / "a.splatv")]
    assert command.main([*given, "--frame", "local", "--straight-error", "1"]) == 0
    assert "options for straight are ignored by splatv" in capsys.readouterr().err
    assert read_sidecar(tmp_path / "a.splatv") is not None
    with pytest.raises(UsageError, match="--at-time is not for 4dgs"):
        from scene4d.cli import export as verb

        verb.main(["run", "4dgs", "--output-path", str(tmp_path / "a.4dgs"), "--at-time", "1"])
