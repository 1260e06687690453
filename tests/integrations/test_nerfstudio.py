"""The nerfstudio method, through nerfstudio's own scripts, on the sample scene.

`make test-nerfstudio` runs this in an environment that has nerfstudio; elsewhere it skips.
"""
# ruff: noqa: E402  (nerfstudio can be imported only after torchvision's operators are declared)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from optional_packages import import_or_skip

from scene4d.data.sample import sample_scene_path

import_or_skip("nerfstudio", reason="nerfstudio is not installed (make test-nerfstudio)")

from scene4d.integrations.nerfstudio.torchvision_operators import declare_missing_operators

declare_missing_operators()

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.scripts import train as ns_train
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.utils.eval_utils import eval_setup

from scene4d.cameras.conventions import viewmat_from_c2w
from scene4d.formats.ply import read_ply
from scene4d.integrations.nerfstudio import export
from scene4d.integrations.nerfstudio.cameras import camera_from_nerfstudio
from scene4d.integrations.nerfstudio.model import SplatModel

STEPS = 200
TRAIN = [
    "scene4d-splat",
    f"--max-num-iterations={STEPS}",
    "--vis=tensorboard",
    "--machine.device-type=cpu",
    "--steps-per-eval-image=0",
    "--steps-per-eval-all-images=0",
    "--experiment-name=test",
    "--timestamp=now",
    "--pipeline.model.method.num-random-points=2000",
    "--pipeline.model.method.max-num-gaussians=3000",
    "--pipeline.model.method.mcmc.refine-every=10",
]


def train_command(output: Path) -> list[str]:
    """Arguments of ns-train: the sample scene with its alpha kept."""
    data = ["blender-data", f"--data={sample_scene_path()}", "--alpha-color=None"]
    return [*TRAIN, f"--output-dir={output}", *data]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that `ns-train scene4d-splat` made, in a process of its own."""
    output = tmp_path_factory.mktemp("ns")
    command = [sys.executable, "-m", "scene4d.integrations.nerfstudio", "train"]
    result = subprocess.run(
        [*command, *train_command(output)], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return output / "test" / "scene4d-splat" / "now"


def test_the_method_is_registered_by_its_entry_point() -> None:
    config = all_methods["scene4d-splat"]
    assert isinstance(config, TrainerConfig)
    assert config.pipeline.model._target is SplatModel


def test_training_grows_saves_and_reloads(run: Path) -> None:
    checkpoints = sorted((run / "nerfstudio_models").glob("*.ckpt"))
    assert [path.name for path in checkpoints] == [f"step-{STEPS - 1:09d}.ckpt"]
    saved = torch.load(checkpoints[0], map_location="cpu")
    _, pipeline, _, step = eval_setup(run / "config.yml")
    assert step == STEPS - 1
    model = pipeline.model
    assert isinstance(model, SplatModel)
    # MCMC grows in steps of refine_every, up to its share of training: 2000 -> 3000
    assert 2000 < model.representation.num_gaussians <= 3000
    for name, parameter in model.representation.gaussians.items():
        stored = saved["pipeline"][f"_model.representation.gaussians.{name}"]
        assert torch.equal(parameter.detach(), stored)
    assert model.progress.item() == pytest.approx((STEPS - 1) / STEPS)


def test_ns_eval_scores_better_than_the_start(run: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    ComputePSNR(load_config=run / "config.yml", output_path=scores).main()
    results = json.loads(scores.read_text())["results"]
    _, pipeline, _, _ = eval_setup(run / "config.yml")
    untrained = pipeline.config.setup(device="cpu", test_mode="test")
    untrained.model.background.copy_(pipeline.model.background)
    before = untrained.get_average_eval_image_metrics()
    # The start, inside the outlines and coloured by the pictures, has 20 dB already; a broken
    # camera, loss or optimiser would lose some of that, and training must add a clear gain.
    assert results["psnr"] > before["psnr"] + 1.0
    assert 0.0 < results["ssim"] <= 1.0


def test_resuming_continues_with_the_optimiser_and_the_strategy(run: Path) -> None:
    config, _, _, _ = eval_setup(run / "config.yml")
    config.load_dir = run / "nerfstudio_models"
    config.max_num_iterations = STEPS
    trainer: Trainer = config.setup()
    trainer.setup()
    model = trainer.pipeline.model
    assert isinstance(model, SplatModel) and model.strategy is not None
    adam = trainer.optimizers.optimizers["scene4d"]
    held = {id(p) for group in adam.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.representation.gaussians.values()}
    for group in adam.param_groups:
        (parameter,) = group["params"]
        assert adam.state[parameter]["exp_avg"].shape == parameter.shape
    assert int(model.strategy.state_tensors()["num_start"]) == 2000
    before = model.representation.means.detach().clone()
    for callback in trainer.callbacks[:1]:
        callback.run_callback(step=STEPS)
    trainer.train_iteration(STEPS)
    assert not torch.equal(before, model.representation.means.detach())


def test_the_export_lies_where_the_captures_cameras_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "scene.ply"
    monkeypatch.setattr(
        sys, "argv", ["export", f"--load-config={run / 'config.yml'}", f"--output-path={target}"]
    )
    export.entrypoint()
    _, pipeline, _, _ = eval_setup(run / "config.yml")
    means = pipeline.model.representation.means.detach().numpy()
    # the Blender parser neither moves nor scales the poses
    np.testing.assert_array_equal(read_ply(target).means, means)


def test_the_way_back_from_nerfstudios_frame_undoes_its_scaling() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    rotation = rotation * torch.linalg.det(rotation)
    outputs = DataparserOutputs(
        image_filenames=[],
        cameras=None,
        dataparser_transform=torch.cat([rotation, torch.tensor([[1.0], [2.0], [3.0]])], dim=1),
        dataparser_scale=0.25,
    )
    there = outputs.transform_poses_to_original_space(
        torch.tensor([[[1.0, 0, 0, 5.0], [0, 1.0, 0, 6.0], [0, 0, 1.0, 7.0]]]), "opengl"
    )[0, :, 3]
    ours = export.source_from_scene(outputs) @ np.array([5.0, 6.0, 7.0, 1.0])
    # nerfstudio computes in float32, coordinates up to 30
    np.testing.assert_allclose(ours[:3], there.numpy(), atol=1e-4)


def test_a_camera_sees_what_nerfstudios_rays_see() -> None:
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation)
    c2w = torch.cat([rotation, torch.randn(3, 1)], dim=1)
    theirs = Cameras(
        camera_to_worlds=c2w[None], fx=90.0, fy=80.0, cx=31.0, cy=22.5, width=64, height=48,
        camera_type=CameraType.PERSPECTIVE,
    )  # fmt: skip
    ours = camera_from_nerfstudio(theirs)
    pixel = torch.tensor([[7.5, 40.5]])  # row, column: the centre of row 7, column 40
    ray = theirs.generate_rays(camera_indices=0, coords=pixel)
    point = ray.origins[0] + 3.0 * ray.directions[0]
    local = viewmat_from_c2w(ours.c2w) @ torch.cat([point, torch.ones(1)])
    projected = ours.K @ local[:3]
    # float32 through a rotation, a division and a product with a focal length near 100
    torch.testing.assert_close(
        projected[:2] / projected[2], torch.tensor([40.5, 7.5]), atol=1e-3, rtol=0
    )


def test_ns_train_names_what_is_missing(tmp_path: Path) -> None:
    config = all_methods["scene4d-splat"]
    with pytest.raises(Exception, match="SceneDatamanager"):
        config.pipeline.model.setup(
            scene_box=None, num_train_data=1, metadata={}, device="cpu", seed_points=None
        )
    assert callable(ns_train.main)
