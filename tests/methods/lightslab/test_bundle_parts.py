"""Light slabs through a bundle: what is read back renders what was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.bundle.checks import bundle_faults
from scene4d.bundle.container import open_bundle
from scene4d.cameras.camera import Camera
from scene4d.cli import convert
from scene4d.cli.info import summarise
from scene4d.errors import DataError, UsageError
from scene4d.exporters.bundle import export
from scene4d.methods.lightslab.block_transform import MOST_STEP, steps_for
from scene4d.methods.lightslab.bundle_content import encode_light_slab, layer_shapes
from scene4d.methods.lightslab.bundle_parts import decoded_maps, light_slab_parts, read_light_slabs
from scene4d.methods.lightslab.decoder import DecoderShape
from scene4d.methods.lightslab.light_slabs import LightSlabs, LightSlabsSettings
from scene4d.methods.lightslab.mpi import MultiplaneImages
from scene4d.methods.lightslab.planes import FeaturePlanesShape
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.methods.lightslab.stored_mpi import as_stored
from scene4d.rendering.render import DEPTH
from scene4d.training.opened import OpenedScene, SceneCameras

FOCAL = 40.0


STEPS = steps_for(4.0)
"""Of MPIs' frequencies."""


def random_slabs(
    *,
    slabs: int = 2,
    samples: int = 2,
    opaque: bool = True,
    bits: int = 8,
    mpi: MultiplaneImages | None = None,
) -> LightSlabs:
    """A field of contrast whose slabs are turned about the vertical, half a radian apart."""
    g = torch.Generator().manual_seed(3)
    angles = 0.5 * (torch.arange(slabs) - (slabs - 1) / 2)
    zero, one = torch.zeros(slabs), torch.ones(slabs)
    forward = torch.stack([angles.sin(), zero, -angles.cos()], dim=1)
    right = torch.stack([angles.cos(), zero, angles.sin()], dim=1)
    down = torch.stack([zero, -one, zero], dim=1)
    planes = FeaturePlanesShape(
        slabs=slabs, depths=3, crossed=True, features=2, resolutions=(6, 11),
        crossed_resolutions=(4,),
    )  # fmt: skip
    shape = DecoderShape(
        inputs=planes.feature_planes().width, samples=samples, encoded=6, width=12, blocks=2,
        channels=(8, 5),
    )  # fmt: skip
    scene = LightSlabs(
        slabs=Slabs(
            rotations=torch.stack([right, down, forward], dim=1),
            viewpoints=0.1 * torch.randn(slabs, 3, generator=g),
            disparities=torch.linspace(0.1, 0.5, 3).expand(slabs, 3).contiguous(),
            low=torch.full((slabs, 3, 2), -0.8), high=torch.full((slabs, 3, 2), 0.9),
            overlap=0.3,
        ),
        planes=planes, decoder=shape, generator=g, content_centre=torch.tensor([0.1, 0.2, -3.0]),
        settings=LightSlabsSettings(
            content_radius=1.25, opaque=opaque, bits=bits, quantise_at=0.5
        ),
        mpi=mpi,
    )  # fmt: skip
    with torch.no_grad():
        scene.table.mul_(10)
        for name, parameter in scene.decoder.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
        scene.focal.fill_(FOCAL)
    scene.on_progress(1.0)
    return scene.eval()


def random_mpi(slabs: int = 2) -> MultiplaneImages:
    """On three planes, 32 x 24 texels, three blocks of four, of all levels; as they are stored in
    STEPS."""
    g = torch.Generator().manual_seed(4)
    stored = torch.rand(slabs, 3, 3, 4, generator=g) < 0.75
    blocks = int(stored.sum())
    coarse = 0.1 + 0.8 * torch.rand(blocks, 4, 3, 3, generator=g)
    texels = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=True)
    texels = texels.permute(0, 2, 3, 1)
    texels = torch.cat([texels[..., :3] * texels[..., 3:], texels[..., 3:]], dim=-1)
    levels = torch.arange(blocks) % 4
    return MultiplaneImages(stored=stored, texels=as_stored(texels, levels, STEPS), levels=levels)


def smooth_mpi(slabs: int) -> MultiplaneImages:
    """On three planes, 32 x 24 texels, all blocks stored, continuous from one to the next."""
    g = torch.Generator().manual_seed(4)
    coarse = 0.1 + 0.4 * torch.rand(slabs * 3, 4, 4, 5, generator=g)
    planes = torch.nn.functional.interpolate(coarse, (24, 32), mode="bicubic", align_corners=True)
    planes = torch.cat([planes[:, :3] * planes[:, 3:], planes[:, 3:]], dim=1)
    texels = planes.reshape(slabs * 3, 4, 3, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(-1, 8, 8, 4)
    stored = torch.ones(slabs, 3, 3, 4, dtype=torch.bool)
    levels = torch.zeros(len(texels), dtype=torch.long)
    return MultiplaneImages(stored=stored, texels=as_stored(texels, levels, STEPS), levels=levels)


def field_with_mpi(
    slabs: int = 2, samples: int = 2, mpi: MultiplaneImages | None = None
) -> LightSlabs:
    """Its network adds about a tenth to what the MPIs show."""
    mpi = random_mpi(slabs) if mpi is None else mpi
    scene = random_slabs(slabs=slabs, samples=samples, opaque=False, mpi=mpi)
    scene.settings = replace(scene.settings, mpi_steps=STEPS.tolist())
    scene.round_mpi()
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        last = scene.decoder.sharpen[-1]
        last.weight.copy_(0.02 * torch.randn(last.weight.shape, generator=g))
    return scene


@torch.no_grad()
def keep_levels(scene: LightSlabs) -> None:
    """The bundle keeps weights in 255 levels; gives the scene such weights."""
    for name, parameter in scene.decoder.named_parameters():
        levels = 254 if name.endswith("weight") else 65534
        step = 2 * parameter.abs().max() / levels
        parameter.copy_((parameter / step).round() * step)


def camera(width: int = 45, height: int = 30, x: float = 0.2) -> Camera:
    c2w = torch.eye(4)
    c2w[0, 3] = x
    intrinsics = [[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]
    return Camera(c2w=c2w, K=torch.tensor(intrinsics), width=width, height=height)


def source(scene: LightSlabs, home: float = 2.0) -> OpenedScene:
    away = torch.diag(torch.tensor([home, home, home, 1.0]))
    return OpenedScene(
        path=Path("run"), representation=scene,
        cameras=SceneCameras(
            train=[camera(x=x) for x in (-0.3, 0.0, 0.4)], source_from_scene=away
        ),
    )  # fmt: skip


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("opaque", [True, False])
def test_what_is_read_back_renders_what_was_written(
    samples: int, opaque: bool, tmp_path: Path
) -> None:
    scene = random_slabs(samples=samples, opaque=opaque)
    keep_levels(scene)
    export(source(scene), tmp_path / "a.s4d")
    again = read_light_slabs(tmp_path / "a.s4d")
    for ours, theirs in zip(
        decoded_maps(again, camera()).items(), decoded_maps(scene, camera()).items(), strict=True
    ):
        # Steps have 7 digits; the last bias, to which the opaque start was added, 16 bits: 3 / 2^15
        # at most, of which a sigmoid takes a quarter.
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)
    a, b = (s.render(camera(), background=torch.ones(3), want=DEPTH) for s in (again, scene))
    torch.testing.assert_close(a.rgb, b.rgb, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-3, atol=1e-3)


def test_the_bundle_costs_less_than_a_tenth_of_a_decibel(tmp_path: Path) -> None:
    """Against the float field, whose own error at 30 dB becomes 29.9 dB where what is added lies
    at 46.3 dB: 10 log10(1 + 10^-1.63) = 0.1."""
    scene = random_slabs(slabs=3, samples=4)
    export(source(scene), tmp_path / "a.s4d")
    scene.on_progress(0.0)  # unrounded planes
    ours, float_one = (
        s.render(camera()).rgb for s in (read_light_slabs(tmp_path / "a.s4d"), scene)
    )
    assert float_one.std() > 0.03  # a picture of one colour would show nothing
    error = (ours - float_one).detach().square().mean()
    assert float(-10 * error.log10()) > 46.3


def test_the_first_stage_has_the_coarse_planes_alone(tmp_path: Path) -> None:
    scene = random_slabs()
    export(source(scene), tmp_path / "a.s4d")
    manifest = open_bundle(tmp_path / "a.s4d").manifest
    assert [p["stage"] for p in manifest["lightslab"]["feature_planes"]] == [0] * 7 + [1] * 3
    first = read_light_slabs(tmp_path / "a.s4d", stages=1)
    whole = read_light_slabs(tmp_path / "a.s4d")
    for index, plane in enumerate(manifest["lightslab"]["feature_planes"]):
        coarse, fine = (s.feature_planes.grid(s.table, index) for s in (first, whole))
        assert torch.equal(coarse, fine if plane["stage"] == 0 else torch.zeros_like(fine))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bundle_of_a_bundle_is_the_same(bits: int, tmp_path: Path) -> None:
    scene = random_slabs(bits=bits)
    first = light_slab_parts(scene)
    export(source(scene), tmp_path / "a.s4d")
    second = light_slab_parts(read_light_slabs(tmp_path / "a.s4d"))
    assert first.structure == second.structure
    for a, b in zip(first.codes, second.codes, strict=True):
        assert np.abs(a).max() == 2 ** (bits - 1) - 1
        np.testing.assert_array_equal(a, b)


def test_limits_are_where_the_cameras_stood(tmp_path: Path) -> None:
    told = export(source(random_slabs()), tmp_path / "a.s4d")
    assert "2 slabs and 10 planes" in told and "kind lightslab" in told
    manifest = open_bundle(tmp_path / "a.s4d").manifest
    low, high = manifest["limits"]["cameras"]
    assert low == pytest.approx([-0.3, 0, 0]) and high == pytest.approx([0.4, 0, 0])
    low, high = manifest["limits"]["content"]
    assert low == pytest.approx([-2.4, -2.3, -5.5]) and high == pytest.approx([2.6, 2.7, -0.5])
    assert manifest["transform"][0] == [2.0, 0.0, 0.0, 0.0] and len(manifest["cameras"]) == 3
    assert bundle_faults(tmp_path / "a.s4d") == []


def test_info_tells_what_each_part_takes(tmp_path: Path) -> None:
    export(source(random_slabs()), tmp_path / "a.s4d")
    summary = summarise(tmp_path / "a.s4d")
    assert "lightslab" in str(summary["bundle_kind"])
    parts = {row["name"]: row["bytes"] for row in summary["parts"]}
    assert sum(parts.values()) == (tmp_path / "a.s4d").stat().st_size
    assert "network" in str(summary["attributes"])


def test_it_does_not_become_splats(tmp_path: Path) -> None:
    export(source(random_slabs()), tmp_path / "a.s4d")
    with pytest.raises(DataError, match="'lightslab', which"):
        convert.main([str(tmp_path / "a.s4d"), str(tmp_path / "out.ply")])
    assert not (tmp_path / "out.ply").exists()


def test_scenes_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    scene = random_slabs()
    with pytest.raises(UsageError, match="no cameras"):
        export(OpenedScene(path=Path("run"), representation=scene), tmp_path / "a.s4d")
    scene.focal.zero_()
    with pytest.raises(UsageError, match="not trained"):
        export(source(scene), tmp_path / "a.s4d")


def test_parts_of_other_sizes_are_an_error() -> None:
    parts = light_slab_parts(random_slabs())
    assert set(parts.weights) == {
        f"{name}.{part}" for name in layer_shapes(parts.structure) for part in ("weight", "bias")
    }
    assert encode_light_slab(parts).size > 1000
    cut = replace(parts, codes=[parts.codes[0][:, :-1], *parts.codes[1:]])
    with pytest.raises(ValueError, match="plane 0"):
        encode_light_slab(cut)


@pytest.mark.parametrize("slabs", [1, 3, 4])
def test_mpis_that_are_read_back_render_what_was_written(slabs: int, tmp_path: Path) -> None:
    scene = field_with_mpi(slabs)
    keep_levels(scene)
    told = export(source(scene), tmp_path / "a.s4d")
    assert scene.mpi is not None and f"{scene.mpi.num_blocks} blocks of MPIs" in told
    again = read_light_slabs(tmp_path / "a.s4d")
    assert again.mpi is not None
    assert torch.equal(again.mpi.stored, scene.mpi.stored)
    stored = as_stored(scene.mpi.texels, scene.mpi.levels, STEPS)
    assert torch.equal(again.mpi.texels, stored)
    ours, theirs = (decoded_maps(s, camera()) for s in (again, scene))
    assert float(theirs["r"].std()) > 0.05 and float(theirs["seen"].max()) > 0.5
    # Steps have 7 digits, and the frames the same float32 numbers.
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
    assert bundle_faults(tmp_path / "a.s4d") == []


def test_the_maps_of_mpis_are_what_is_rendered() -> None:
    scene, seen_by = field_with_mpi(), camera()
    maps = decoded_maps(scene, seen_by)
    with torch.no_grad():
        render = scene.render(seen_by, background=torch.tensor([0.5, 0.25, 1.0]), want=DEPTH)
    shown = torch.stack([maps[c] for c in "rgb"], dim=-1)
    over = shown + (1 - maps["a"])[..., None] * torch.tensor([0.5, 0.25, 1.0])
    torch.testing.assert_close(render.rgb, over, rtol=0, atol=1e-5)
    torch.testing.assert_close(render.alpha, maps["a"], rtol=0, atol=1e-5)


def test_a_bundle_of_a_bundle_with_mpis_is_the_same(tmp_path: Path) -> None:
    scene = field_with_mpi()
    first = light_slab_parts(scene)
    export(source(scene), tmp_path / "a.s4d")
    second = light_slab_parts(read_light_slabs(tmp_path / "a.s4d"))
    assert first.structure == second.structure
    assert first.structure["mpi"]["steps"] == STEPS.tolist()
    assert first.mpi is not None and second.mpi is not None
    # Texels are rounded to 1/255, which may add half of 64 / 8 of that to a block's mean: a step.
    off = np.abs(first.mpi.codes - second.mpi.codes)
    assert off.max() <= 1 and off.mean() < 0.01
    np.testing.assert_array_equal(first.mpi.stored, second.mpi.stored)
    np.testing.assert_array_equal(first.mpi.levels, second.mpi.levels)


def test_a_smaller_bundle_has_coarser_mpis() -> None:
    scene = field_with_mpi()
    fine, coarse = (light_slab_parts(scene, factor=f) for f in (1.0, 3.0))
    assert fine.mpi is not None and coarse.mpi is not None
    np.testing.assert_array_equal(coarse.mpi.steps, 3 * STEPS)
    assert coarse.structure["mpi"]["steps"] == (3 * STEPS).tolist()
    bits = [encode_light_slab(p).bits["mpi_frequencies"] for p in (fine, coarse)]
    # log2(3) = 1.6 bits fewer for each value that is not 0
    assert bits[1] < 0.8 * bits[0]
    finest = light_slab_parts(scene, factor=1e-6)
    assert finest.mpi is not None and (finest.mpi.steps == 1).all()
    coarsest = light_slab_parts(scene, factor=1e6)
    assert coarsest.mpi is not None and (coarsest.mpi.steps == MOST_STEP).all()
    assert (coarsest.mpi.codes == 0).all()


def test_values_beyond_the_range_are_cut(tmp_path: Path) -> None:
    scene = field_with_mpi()
    assert scene.mpi is not None
    with torch.no_grad():
        scene.mpi.texels[0] = torch.tensor([-0.2, 1.0, 1.5, 9.0])
    export(source(scene), tmp_path / "a.s4d")
    found = read_light_slabs(tmp_path / "a.s4d").mpi
    assert found is not None
    # A block of one colour has one frequency for each channel, of an error of half a step of
    # STEPS (1/510 to 1/73 for the texel) at most.
    expected = torch.tensor([0.0, 1.0, 1.0, 1.0]).expand(8, 8, 4)
    torch.testing.assert_close(found.texels[0], expected, rtol=0, atol=0.02)


def test_info_tells_of_mpis(tmp_path: Path) -> None:
    scene = field_with_mpi()
    assert scene.mpi is not None
    export(source(scene), tmp_path / "a.s4d")
    summary = summarise(tmp_path / "a.s4d")
    assert summary["mpi"] == f"32 x 24, {scene.mpi.num_blocks} blocks"
    names = {row["name"] for row in summary["attributes"]}
    assert {"mpi_blocks", "mpi_levels", "mpi_frequencies"} <= names


def test_mpis_without_an_entry_are_an_error() -> None:
    parts = light_slab_parts(field_with_mpi())
    with pytest.raises(ValueError, match="MPIs"):
        encode_light_slab(replace(parts, mpi=None))
    bare = {k: v for k, v in parts.structure.items() if k != "mpi"}
    with pytest.raises(ValueError, match="MPIs"):
        encode_light_slab(replace(parts, structure=bare))
