"""Light fields in the player: copied where they fit, coarser where they do not."""

from pathlib import Path

import pytest

from scene4d.exporters.budgets import write_within
from scene4d.methods.lightslab.bundle_parts import read_light_slabs
from scene4d.training.open_scene import open_scene

pytestmark = pytest.mark.unchecked_shapes

GOOD = Path(__file__).parents[3] / "mobile_export" / "conformance" / "good"
FIELD = GOOD / "lightslab_three.s4d"


def test_a_bundle_that_fits_is_copied(tmp_path: Path) -> None:
    source = open_scene(FIELD)
    assert source is not None
    fitted = write_within(source, tmp_path / "a.s4d", target="phone")
    assert (tmp_path / "a.s4d").read_bytes() == FIELD.read_bytes()
    what = "a light field of 3 slabs and 7 planes, 0.01 MB"
    assert fitted.summary("phone").startswith(f"{what}\ntarget phone (at most 20 MB)")
    assert fitted.summary("phone").endswith("nothing cut")


def test_a_size_of_ones_own_coarsens_it(tmp_path: Path) -> None:
    source = open_scene(FIELD)
    assert source is not None
    # Most of this small file is the manifest, so that only a little can be saved.
    size = FIELD.stat().st_size * 0.93
    write_within(source, tmp_path / "a.s4d", target=None, target_mb=size / 1e6)
    found = (tmp_path / "a.s4d").stat().st_size
    assert abs(found / size - 1) < 0.021  # the search lands within 2%
    again = read_light_slabs(tmp_path / "a.s4d")
    assert again.feature_planes.planes == read_light_slabs(FIELD).feature_planes.planes


def test_a_field_with_mpis_lands_on_a_size(tmp_path: Path) -> None:
    path = GOOD / "lightslab_mpi_five.s4d"
    source = open_scene(path)
    assert source is not None
    size = path.stat().st_size * 0.93
    fitted = write_within(source, tmp_path / "a.s4d", target=None, target_mb=size / 1e6)
    assert abs(fitted.size_mb * 1e6 / size - 1) < 0.021  # the search lands within 2%
    before, after = read_light_slabs(path).mpi, read_light_slabs(tmp_path / "a.s4d").mpi
    assert before is not None and after is not None
    assert after.num_blocks == before.num_blocks and bool((after.stored == before.stored).all())
    assert 0 < float((after.texels - before.texels).detach().abs().mean()) < 0.05
