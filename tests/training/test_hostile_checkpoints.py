"""Checkpoints from strangers: every tensor is checked before anything compiled sees it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scene4d.cli.main import main
from scene4d.errors import DataError
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.training import train
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.methods import load_method
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run, trainable_from

pytestmark = pytest.mark.unchecked_shapes

METHODS = ("splat", "lpgs", "lightslab", "mobile-r2l")
SIZES = {
    "splat": {"max_num_gaussians": 80, "sh_degree": 1},
    "lpgs": {"max_num_gaussians": 80, "sh_degree": 1, "init": "points", "grid": True,
             "num_children": 2, "num_random_points": 60},
    "lightslab": {"max_mb": 0.2, "width": 8, "blocks": 1, "encoded": 4, "max_slabs": 2,
                  "max_blocks": 200},
    "mobile-r2l": {"width": 8, "blocks": 1, "points": 2, "frequencies": 2},
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tiny_capture: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of every method, after two steps."""
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path_factory.mktemp("trained"))
    runs = {}
    for name in METHODS:
        method = load_method(name)(steps=2, **SIZES[name])
        if "num_random_points" in SIZES[name]:
            method = load_method(name)(steps=2, **{**SIZES[name], "init": "random"})
        given = TrainOptions(**{**vars(options), "teacher": runs.get("splat")})
        runs[name] = train.start(method, given)
    return runs


@pytest.fixture
def copied(trained: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a method's run, to be damaged."""
    return lambda name: Path(shutil.copytree(trained[name], tmp_path / name))


def rewrite(run: Path, change: Callable[[dict, dict], None]) -> Path:
    """The newest checkpoint with ``change(tensors, header)``."""
    path = list_checkpoints(run / "checkpoints")[-1]
    with safe_open(path, framework="pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["scene4d"])
    change(tensors, header)
    save_file(tensors, path, metadata={"scene4d": json.dumps(header)})
    return path


def test_moments_shorter_than_their_parameter_are_refused(copied) -> None:
    # Fused Adam reads as many moments as there are parameters: it wrote beyond the heap.
    run = copied("splat")
    name = "optimiser/means.0.exp_avg"
    path = rewrite(run, lambda tensors, _: tensors.update({name: tensors[name][:3].clone()}))
    with pytest.raises(DataError, match=r"means\.0\.exp_avg: has shape \[3, 3\]") as error:
        train.resume(run)
    assert str(path) in str(error.value)


def test_planes_of_another_number_than_the_sizes_say_are_refused(copied) -> None:
    # A Numba kernel read beyond low and high.
    run = copied("lightslab")
    name = "representation/slabs.disparities"
    rewrite(run, lambda t, _: t.update({name: torch.cat([t[name], t[name]], dim=1)}))
    with pytest.raises(DataError, match=r"slabs\.disparities: has shape"):
        load_run(run)


def damaged(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Another shape, another type, or (where it has numbers that can be) values that are none."""
    if number % 3 == 0 or tensor.numel() == 0 or not tensor.is_floating_point():
        return torch.zeros(*tensor.shape, 3, dtype=tensor.dtype)
    return tensor.double() if number % 3 == 1 else tensor * torch.nan


@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_of_every_representation_is_checked(trained, method: str) -> None:
    path = list_checkpoints(trained[method] / "checkpoints")[-1]
    sound = load_checkpoint(path)
    names = [k for k in sound.tensors if k.startswith("representation/")]
    assert names
    for number, name in enumerate(names[:: max(1, len(names) // 12)]):
        tensors = {**sound.tensors, name: damaged(sound.tensors[name], number)}
        with pytest.raises(DataError) as error:
            trainable_from(replace(sound, tensors=tensors), where=path)
        assert name.split("/", 1)[1] in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_of_the_optimiser_is_checked(trained, method: str) -> None:
    path = list_checkpoints(trained[method] / "checkpoints")[-1]
    sound = load_checkpoint(path)
    adam = GroupedAdam(trainable_from(sound, where=path).parameter_groups())
    saved = sound.part("optimiser")
    assert saved
    adam.load_state_tensors(saved)
    for number, (name, tensor) in enumerate(list(saved.items())[:: max(1, len(saved) // 12)]):
        with pytest.raises(DataError, match=name):
            adam.load_state_tensors({**saved, name: damaged(tensor, number)})


@pytest.mark.parametrize("part", ["strategy", "trainer", "representation", "optimiser"])
def test_what_lacks_or_is_too_much_is_named(copied, part: str) -> None:
    run = copied("splat")
    path = list_checkpoints(run / "checkpoints")[-1]
    whole = path.read_bytes()
    name = next(k for k in load_checkpoint(path).tensors if k.startswith(f"{part}/"))
    changes = (
        lambda tensors, _: tensors.pop(name),
        lambda tensors, _: tensors.update({f"{part}/more": torch.zeros(2)}),
    )
    for change in changes:
        rewrite(run, change)
        with pytest.raises(DataError, match="lacks|do not belong"):
            train.resume(run)
        path.write_bytes(whole)


BAD_HEADERS = {
    "step": [-1, 1.5, "3", None, 10**12, 1e400],
    "elapsed_s": [-1.0, "x", None, float("nan"), 10**400],
    "method": [3, None, ["splat"]],
    "representation": [None, 3, [], {}],
}


@pytest.mark.parametrize("field", sorted(BAD_HEADERS))
def test_the_header_of_a_checkpoint_is_checked(copied, field: str) -> None:
    run = copied("splat")
    path = list_checkpoints(run / "checkpoints")[-1]
    whole = path.read_bytes()
    for value in BAD_HEADERS[field]:
        rewrite(run, lambda _, header, value=value: header.update({field: value}))
        with pytest.raises(DataError, match=path.name):
            loaded = load_checkpoint(path)
            trainable_from(loaded, where=path)
        path.write_bytes(whole)


def test_a_bad_checkpoint_is_one_error_of_the_command_line(copied, capfd) -> None:
    run = copied("splat")
    rewrite(run, lambda _, header: header["representation"].update(extent=[1]))
    assert main(["train", "--resume", str(run)]) == 1
    told = capfd.readouterr().err
    assert "Traceback" not in told and "extent" in told and "safetensors" in told


@pytest.mark.parametrize("method", METHODS)
def test_plain_data_of_every_representation_is_checked(trained, method: str) -> None:
    path = list_checkpoints(trained[method] / "checkpoints")[-1]
    sound = load_checkpoint(path)
    plain = sound.plain["representation"]
    for name in plain:
        for value in (-1, "text", [[]], {"more": 1}, float("nan"), None):
            if value == plain[name]:
                continue
            changed = {**sound.plain, "representation": {**plain, name: value}}
            with pytest.raises(DataError):
                trainable_from(replace(sound, plain=changed), where=path)


def test_a_light_slab_with_a_negative_focal_length_is_refused(trained) -> None:
    path = list_checkpoints(trained["lightslab"] / "checkpoints")[-1]
    sound = load_checkpoint(path)
    tensors = {**sound.tensors, "representation/focal": torch.tensor(-1.0)}
    with pytest.raises(DataError, match="focal: is -1"):
        trainable_from(replace(sound, tensors=tensors), where=path)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("value", [0.0, -50.0])
def test_a_camera_of_a_run_that_sees_nothing_is_refused(copied, row: int, value: float) -> None:
    run = copied("splat")
    scene = json.loads((run / "scene.json").read_text())
    scene["test"][0]["K"][row][row] = value
    (run / "scene.json").write_text(json.dumps(scene))
    with pytest.raises(DataError, match=f"focal lengths .*{value:g}"):
        load_run(run)


def test_what_a_setting_wants_is_told_in_one_line_with_its_way_out(copied) -> None:
    run = copied("splat")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r"(?m)^start = .*", "start = 1.0", config))
    with pytest.raises(DataError, match="a term of the loss counts from 1.0") as error:
        load_run(run)
    assert "\n" not in error.value.what and "shares of training" in str(error.value.fix)


@pytest.mark.parametrize("method", ["splat", "lightslab"])
def test_a_sound_checkpoint_is_resumed(copied, method: str) -> None:
    run = copied(method)
    assert train.resume(run) == run.resolve()


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{}",
        b'{"representation/x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
        b'{"representation/x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"representation/x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"scene4d":"' + b"[" * 60_000 + b'"}}',
        b'{"__metadata__":{"scene4d":"' + b"9" * 60_000 + b'"}}',
        b'{"__metadata__":{"scene4d":"[]"}}',
    ],
)
def test_a_header_that_lies_is_one_error(copied, header: bytes) -> None:
    run = copied("splat")
    for path in list_checkpoints(run / "checkpoints"):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(DataError, match="readable checkpoint"):
        load_run(run)


def test_a_pipe_in_place_of_a_checkpoint_does_not_wait(copied) -> None:
    import os

    run = copied("splat")
    (path,) = list_checkpoints(run / "checkpoints")[-1:]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="pipe"):
        load_checkpoint(path)


# The kernels' doors


def test_mpis_without_blocks_in_a_direction_cannot_be() -> None:
    from scene4d.methods.lightslab.mpi import MultiplaneImages

    with pytest.raises(ValueError, match="no MPI plane"):
        MultiplaneImages(
            stored=torch.zeros(1, 2, 0, 3, dtype=torch.bool), texels=torch.zeros(0, 8, 8, 4)
        )


def test_mpis_refuse_coordinates_and_slabs_of_others() -> None:
    from scene4d.methods.lightslab.mpi import MultiplaneImages

    mpi = MultiplaneImages(
        stored=torch.ones(2, 3, 1, 1, dtype=torch.bool), texels=torch.zeros(6, 8, 8, 4)
    )
    depths, slab = torch.ones(2, 3), torch.tensor([0, 1])
    mpi(torch.zeros(2, 6), slab, depths)
    for bad in (
        (torch.zeros(2, 4), slab, depths), (torch.zeros(1, 6), slab, depths),
        (torch.zeros(2, 6), slab + 1, depths), (torch.zeros(2, 6), slab - 1, depths),
        (torch.zeros(2, 6), slab, depths[:1]),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            mpi(*bad)
    with pytest.raises((ValueError, TypeError)):
        mpi(torch.zeros(2, 6), slab, depths, texels=torch.zeros(5, 8, 8, 4))


def test_slabs_are_routed_only_where_their_arrays_fit() -> None:
    from scene4d.methods.lightslab.routing import routed

    rays = (np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32))
    frames = (np.zeros((2, 3, 3), np.float32), np.zeros((2, 3), np.float32))
    planes = tuple(np.ones(s, np.float32) for s in ((2, 5), (2, 2, 2), (2, 2, 2)))
    with pytest.raises(ValueError, match="shapes"):
        routed(rays, frames, planes, (0.1, 0.2, 0.1, 0.05, 1e-3, 1e-6))


def test_a_hash_grid_refuses_a_table_of_another_size() -> None:
    from scene4d.rendering.fields.hash_grid import GridShape, HashGrid

    grid = HashGrid(GridShape(resolutions=(4,), rows=(125,), features=2))
    with pytest.raises(ValueError, match="table"):
        grid(torch.zeros(3, 3), torch.zeros(100, 2))
    with pytest.raises(ValueError, match="levels"):
        GridShape(resolutions=(4, 8), rows=(125,), features=2)


def test_the_representations_of_plugins_are_compared_with_what_was_built(
    copied, monkeypatch
) -> None:
    class Plain(LightSlabs):
        @classmethod
        def saved_forms(cls, plain):
            return None  # as a plugin that says nothing

    from scene4d.training import run as module

    run = copied("lightslab")
    rewrite(run, lambda t, _: t.update({"representation/more": torch.zeros(1)}))
    monkeypatch.setattr(
        module, "load_method", lambda _: SimpleNamespace(representation_class=lambda: Plain)
    )
    path = list_checkpoints(run / "checkpoints")[-1]
    with pytest.raises(DataError, match="more"):
        module.trainable_from(load_checkpoint(path), where=path)
