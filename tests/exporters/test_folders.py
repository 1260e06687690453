"""Scenes of several files are replaced whole or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from formats.splat_files import random_cloud

from scene4d.bundle.container import open_bundle
from scene4d.bundle.splats import write_splats_bundle
from scene4d.errors import DataError
from scene4d.formats import sog
from scene4d.methods.lightslab.runtimes.models import megabytes_written


class KilledError(BaseException):
    """Stands for SIGKILL: nothing may clean up after it but what is undone anyway."""


def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """The process dies at its write number ``writes``."""
    done = 0
    write = Path.write_bytes

    def counted(self: Path, data: bytes) -> int:
        nonlocal done
        done += 1
        if done > writes:
            raise KilledError
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", counted)


@pytest.mark.parametrize("beside", [None, "notes.txt"])
@pytest.mark.parametrize("writes", range(8))
def test_a_sog_folder_is_never_half_of_each_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, beside: str | None
) -> None:
    """Two scenes of the same number of splats: a mixture of their pictures would be readable."""
    target, folder = tmp_path / "scene" / "meta.json", tmp_path / "scene"
    old, new = random_cloud(100, 1, seed=1), random_cloud(100, 1, seed=2)
    sog.write_sog(target, old)
    if beside:
        (folder / beside).write_text("mine")
    before = sog.read_sog(target)
    with monkeypatch.context() as patched:
        killed_after(patched, writes)
        try:
            sog.write_sog(target, new)
            finished = True
        except KilledError:
            finished = False
    found = sog.read_sog(target)
    if not finished:
        np.testing.assert_array_equal(found.means, before.means)
        np.testing.assert_array_equal(found.sh, before.sh)
    sog.write_sog(target, new)
    assert np.abs(sog.read_sog(target).means).sum() != np.abs(before.means).sum()
    names = {p.name for p in folder.iterdir()} - {beside}
    assert len(names) == 8 and "meta.json" in names  # nothing of the earlier scene, or of the kill
    assert beside is None or (folder / beside).read_text() == "mine"


def test_a_sog_scene_is_written_into_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        sog.write_sog(Path("meta.json"), random_cloud(20, 0, seed=seed))
        assert len(sog.read_sog(Path("meta.json"))) == 20
    assert len(list(tmp_path.iterdir())) == 6
    assert Path.cwd() == tmp_path


def test_a_bundles_folder_is_replaced_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a.s4d"
    write_splats_bundle(folder, random_cloud(50, 0, seed=1), folder=True)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with monkeypatch.context() as patched:
        killed_after(patched, 3)
        with pytest.raises(KilledError):
            write_splats_bundle(folder, random_cloud(50, 0, seed=2), folder=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert open_bundle(folder).manifest["count"] == 50
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="holds other things"):
        write_splats_bundle(tmp_path / "photos", random_cloud(5, 0), folder=True)


def test_models_of_a_pair_take_their_places_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = {tmp_path / "a.onnx": b"old whole", tmp_path / "a.decoder.onnx": b"old half"}
    megabytes_written(pair)
    killed_after(monkeypatch, 1)
    with pytest.raises(KilledError):
        megabytes_written(dict.fromkeys(pair, b"new"))
    assert {path: path.read_bytes() for path in pair} == pair
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_zip_with_other_compression_is_refused_unread(tmp_path: Path, method: int) -> None:
    """An LZMA stream asks for its dictionary, up to 4 GB, before it gives a byte."""
    sog.write_sog(tmp_path / "a.sog", random_cloud(20, 0))
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.sog", "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match="compressed by method"):
        sog.read_sog(tmp_path / "b.sog")
