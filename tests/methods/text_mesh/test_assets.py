"""Folders of captioned meshes: how captions are found, and what is left out and told."""

import json
from pathlib import Path

import numpy as np
import pytest
from methods.text_mesh.assets_made import COLOURS, SHAPES, UNSEEN, block, write_assets

from scene4d.errors import DataError
from scene4d.exporters.textured_glb import glb
from scene4d.methods.text_mesh.assets import REACH, read_assets, read_captions


def test_captions_of_the_list_without_what_is_held_out(tmp_path: Path) -> None:
    folder = write_assets(tmp_path / "assets")
    captions = [asset.caption for asset in read_assets(folder)]
    assert sorted(captions) == sorted(
        f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS
        if f"a {colour} {shape}" != UNSEEN
    )  # fmt: skip
    assert read_captions(folder) == captions


def test_captions_of_names_and_of_texts_beside_them(tmp_path: Path) -> None:
    data = glb(block((1, 1, 1), (1, 0, 0)), np.zeros(3))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "Red_arm-chair.glb").write_bytes(data)
    (tmp_path / "b.glb").write_bytes(data)
    (tmp_path / "b.txt").write_text("a big red box\n")
    found = {asset.name: asset.caption for asset in read_assets(tmp_path)}
    assert found == {"inside/Red_arm-chair.glb": "Red arm chair", "b.glb": "a big red box"}


def test_meshes_are_centred_and_of_one_size_and_stand_upright(tmp_path: Path) -> None:
    made = block((0.4, 2.0, 0.4), (1, 0, 0)).transformed(
        np.array([[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    )
    (tmp_path / "bar.glb").write_bytes(glb(made, np.zeros(3)))
    vertices = read_assets(tmp_path)[0].mesh.vertices
    # float32 in the file, of places of about 7.
    np.testing.assert_allclose(
        vertices.min(axis=0), [-0.2 * REACH, -REACH, -0.2 * REACH], atol=1e-6
    )
    np.testing.assert_allclose(vertices.max(axis=0), [0.2 * REACH, REACH, 0.2 * REACH], atol=1e-6)


def test_what_cannot_be_read_is_named_and_counted(tmp_path: Path, caplog) -> None:
    folder = write_assets(tmp_path / "assets")
    (folder / "red_box.glb").write_bytes(b"glTF but broken")
    entries = json.loads((folder / "captions.json").read_text())
    entries.append({"file": "gone.glb", "caption": "a box"})
    entries.append({"file": "green_box.glb", "caption": "..."})
    entries.append({"file": "green_box.glb", "caption": "a box", "use": False})
    (folder / "captions.json").write_text(json.dumps(entries))
    assert len(read_assets(folder)) == len(SHAPES) * len(COLOURS) - 2
    told = caplog.text
    assert "left out 3 of 7 assets" in told
    assert "red_box.glb" in told and "gone.glb" in told and "0 words" in told
    read_captions(folder)
    assert caplog.text.count("left out 3 of 7 assets") == 1  # training asks again, and says it once
    (folder / "blue_box.glb").unlink()
    assert len(read_assets(folder)) == len(SHAPES) * len(COLOURS) - 3
    assert "left out 4 of 7 assets" in caplog.text


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        ({"file": "a"}, "no list"),
        ([{"file": "red_box.glb"}], "entry 1"),
        (["red_box.glb"], "entry 1"),
        ([{"file": "../red_box.glb", "caption": "a box"}], "outside"),
        ([], "no captioned mesh"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, captions, told) -> None:
    folder = write_assets(tmp_path / "assets")
    (folder / "captions.json").write_text(json.dumps(captions))
    with pytest.raises(DataError, match=told):
        read_assets(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        read_assets(tmp_path / "nowhere")
