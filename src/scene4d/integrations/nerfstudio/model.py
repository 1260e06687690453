"""scene4d's splat representation, objectives and strategies as a nerfstudio Model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import (
    TrainingCallback,
    TrainingCallbackAttributes,
    TrainingCallbackLocation,
)
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor
from torch.nn import functional

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene, View
from scene4d.errors import UsageError
from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.ssim import ssim
from scene4d.integrations.nerfstudio.cameras import camera_from_nerfstudio
from scene4d.integrations.nerfstudio.datamanager import SCENE_KEY
from scene4d.integrations.nerfstudio.optimiser import NerfstudioAdam, torch_groups
from scene4d.methods.splat.method import SplatMethod
from scene4d.rendering.render import DEPTH
from scene4d.representations.base import ParameterGroup
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.method import resolve
from scene4d.representations.task import Task, World
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.objectives.base import ObjectiveInputs, total_loss, wanted_maps
from scene4d.training.step import Shot, Step
from scene4d.training.strategy import Strategy
from scene4d.training.trainer import build_objectives

GROUP = "scene4d"
"""The name of the one optimiser group that nerfstudio sees."""

_COLOURS = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


@dataclass
class SplatModelConfig(ModelConfig):
    """Options of :class:`SplatModel`."""

    _target: type = field(default_factory=lambda: SplatModel)
    method: SplatMethod = field(default_factory=SplatMethod)
    """The options of scene4d's method; its steps and batch size are nerfstudio's here."""
    background: Literal["auto", "random", "black", "white"] = "auto"
    """Behind the splats in training. auto: random where images have alpha, else the dataparser's
    alpha colour, else black. Images with alpha are evaluated on white."""
    seed: int = 0
    """Of starting points and densification."""


class SplatModel(Model):
    """Wraps :class:`GaussianSplats`; nerfstudio's trainer calls, scene4d's parts do the work."""

    config: SplatModelConfig

    def populate_modules(self) -> None:
        """Builds the representation from the Scene that the data manager left in the metadata."""
        method = self.config.method
        scene = self.kwargs["metadata"].get(SCENE_KEY)
        if not isinstance(scene, Scene):
            raise UsageError(
                "scene4d-splat needs scene4d's data manager",
                fix="keep pipeline.datamanager a SceneDatamanagerConfig",
            )
        if method.steps is not None or method.batch_size != 1:
            warnings.warn(
                "method.steps and method.batch_size are ignored inside nerfstudio: "
                "--max-num-iterations sets the steps, and one image is shown a step",
                stacklevel=2,
            )
        self.generator = torch.Generator().manual_seed(self.config.seed)
        task = Task(world=World.of(scene), capture=scene)
        representation = method.build(task, generator=self.generator)
        assert isinstance(representation, GaussianSplats)
        self.representation = representation
        self.adjustments = CameraAdjustments(self.num_train_data, method, extent=scene.extent)
        inputs = ObjectiveInputs(task=task, generator=self.generator, device=torch.device("cpu"))
        self.objectives = build_objectives(method, inputs)
        self.strategy: Strategy | None = None
        self.saved_strategy: Mapping[str, Tensor] = {}
        self.current: Step | None = None
        self.number = 0
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("background", torch.zeros(3))
        self.register_buffer("random_background", torch.zeros((), dtype=torch.bool))

    # What nerfstudio optimises and saves

    def parameter_groups(self) -> list[ParameterGroup]:
        """scene4d's groups."""
        return [*self.representation.parameter_groups(), *self.adjustments.parameter_groups()]

    def get_param_groups(self) -> dict[str, list[Any]]:
        """One nerfstudio group whose entries are torch's own parameter groups."""
        return {GROUP: torch_groups(self.parameter_groups())}

    def get_extra_state(self) -> dict[str, Any]:
        """The strategy's tensors and the random generator."""
        strategy = self.saved_strategy if self.strategy is None else self.strategy.state_tensors()
        return {"strategy": dict(strategy), "generator": self.generator.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Keeps the strategy's tensors until the optimiser is known."""
        self.saved_strategy = state["strategy"]
        self.generator.set_state(state["generator"].cpu())

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Takes as many Gaussians as the checkpoint has.

        The Parameter objects stay: nerfstudio's optimiser, made before, already holds them.
        """
        for name, parameter in self.representation.gaussians.items():
            saved = state_dict[f"representation.gaussians.{name}"]
            parameter.data = parameter.data.new_empty(saved.shape)
        result = super().load_state_dict(state_dict, *args, **kwargs)
        self.representation.on_progress(float(self.progress))
        return result

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Schedules before each step, densification after it."""
        attributes = training_callback_attributes
        assert attributes.optimizers is not None and attributes.trainer is not None
        adam = attributes.optimizers.optimizers[GROUP]
        assert isinstance(adam, torch.optim.Adam)
        optimiser = NerfstudioAdam(adam, self.parameter_groups())
        options = self.config.method.strategy_options()
        strategy_class = resolve(options.implementation)
        self.strategy = strategy_class(options, self.representation, optimiser, self.generator)
        if self.saved_strategy:
            self.strategy.load_state_tensors(self.saved_strategy)
        self._choose_background(attributes.pipeline.datamanager)
        total = attributes.trainer.config.max_num_iterations
        where = TrainingCallbackLocation
        return [
            TrainingCallback([where.BEFORE_TRAIN_ITERATION], self._before, args=[optimiser, total]),
            TrainingCallback([where.AFTER_TRAIN_ITERATION], self._after),
        ]

    def _choose_background(self, datamanager: Any) -> None:
        dataset = datamanager.train_dataset
        alpha_colour = dataset._dataparser_outputs.alpha_color
        has_alpha = dataset.get_numpy_image(0).shape[-1] == 4 and alpha_colour is None
        choice = self.config.background
        if choice == "auto":
            choice = "random" if has_alpha else "black"
            if alpha_colour is not None and dataset.get_numpy_image(0).shape[-1] == 4:
                self.background.copy_(torch.as_tensor(alpha_colour))
                return
        self.random_background.fill_(choice == "random")
        colour = _COLOURS["white" if choice == "random" else choice]
        self.background.copy_(torch.tensor(colour))

    def _before(self, optimiser: NerfstudioAdam, total: int, step: int) -> None:
        self.number = step
        self.progress.fill_(min(1.0, step / total))
        progress = float(self.progress)
        self.representation.on_progress(progress)
        factor = self.config.method.learning_rate_factor
        optimiser.set_learning_rates({name: factor(name, progress) for name in optimiser.groups})

    def _after(self, step: int) -> None:
        """nerfstudio offers no moment between backward and the optimiser's step; the gradients
        are still there after it."""
        assert self.strategy is not None and self.current is not None
        self.strategy.after_backward(self.current)
        self.strategy.after_step(self.current)
        self.current = None

    # Rendering

    def get_outputs(self, ray_bundle: Any) -> dict[str, Tensor]:
        """rgb [h, w, 3], accumulation [h, w, 1] and, in evaluation, depth [h, w, 1]."""
        if not isinstance(ray_bundle, Cameras):
            raise TypeError(f"splats render whole cameras, not {type(ray_bundle).__name__}")
        camera = camera_from_nerfstudio(ray_bundle).to(self.device)
        return self._train_outputs(ray_bundle, camera) if self.training else self._shown(camera)

    @torch.no_grad()
    def get_outputs_for_camera(
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> dict[str, Tensor]:
        """The picture at a camera, of the Gaussians whose centres lie in ``obb_box``."""
        splats = self.representation
        if obb_box is not None:
            inside = obb_box.within(splats.means).reshape(-1)
            tensors = {f"gaussians.{n}": p[inside] for n, p in splats.gaussians.items()}
            splats = GaussianSplats.from_saved(tensors, splats.plain_data())
        return self._shown(camera_from_nerfstudio(camera).to(self.device), splats)

    def _train_outputs(self, cameras: Cameras, camera: Camera) -> dict[str, Tensor]:
        index = int((cameras.metadata or {})["cam_idx"])
        background = self.background
        if bool(self.random_background):
            background = torch.rand(3, generator=self.generator).to(self.device)
        progress = float(self.progress)
        counting = [o for o in self.objectives if o.options.counts_at(progress)]
        step = Step(
            number=self.number,
            progress=progress,
            trainable=self.representation,
            background=background,
            adjustments=self.adjustments,
            want=wanted_maps(counting),
            watch=self._watch,
        )
        camera = camera.downscaled(self.config.method.downscale(progress))
        # nerfstudio brings the photograph's pixels later, with the losses
        blank = torch.zeros(camera.height, camera.width, 3, device=self.device)
        step.views = [View(index=index, camera=camera, rgb=blank)]
        render = step.view(step.views[0])
        self.current, self.counting = step, counting
        return {"rgb": render.rgb, "accumulation": render.alpha[..., None]}

    def _watch(self, shot: Shot) -> None:
        assert self.strategy is not None
        self.strategy.on_render(shot)

    def _shown(self, camera: Camera, splats: GaussianSplats | None = None) -> dict[str, Tensor]:
        splats = self.representation if splats is None else splats
        render = splats.render(camera, background=self.background, want=DEPTH)
        assert render.depth is not None
        return {
            "rgb": render.rgb.clamp(0.0, 1.0),
            "accumulation": render.alpha[..., None],
            "depth": render.depth[..., None],
        }

    # Losses and metrics

    def get_metrics_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> dict[str, Tensor]:
        """PSNR of the shown image, and the number of Gaussians."""
        count = torch.tensor(float(self.representation.num_gaussians))
        with torch.no_grad():
            rgb = outputs["rgb"].detach().clamp(0.0, 1.0)
            view, background = self._view(outputs, batch)
            value = psnr(rgb, composited(view, background), mask=view.mask)
        return {"psnr": value, "gaussian_count": count}

    def get_loss_dict(
        self,
        outputs: dict[str, Tensor],
        batch: dict[str, Any],
        metrics_dict: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The loss of scene4d's step; outside training the mean absolute error."""
        view, background = self._view(outputs, batch)
        if not self.training:
            return {"l1": (outputs["rgb"] - composited(view, background)).abs().mean()}
        assert self.current is not None
        self.current.views = [view]
        loss = total_loss(self.current, self.counting)
        nothing = 0.0 * outputs["rgb"].sum()  # nerfstudio propagates in any case
        return {"loss": nothing if loss.to_propagate is None else loss.to_propagate}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM; photograph and render side by side."""
        view, background = self._view(outputs, batch)
        target, rgb = composited(view, background), outputs["rgb"]
        metrics = {
            "psnr": float(psnr(rgb, target, mask=view.mask)),
            "ssim": float(ssim(rgb, target, mask=view.mask)),
        }
        images = {
            "img": torch.cat([target, rgb], dim=1),
            "accumulation": outputs["accumulation"].repeat(1, 1, 3),
        }
        return metrics, images

    def _view(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> tuple[View, Tensor]:
        """The batch's photograph at the size of the render, and the background of the render."""
        pixels = batch["image"].to(self.device)
        pixels = pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels.float()
        mask = batch.get("mask")
        mask = None if mask is None else mask.to(self.device).reshape(pixels.shape[:2]).float()
        factor = pixels.shape[1] // outputs["rgb"].shape[1]
        rgb, alpha, kept = _boxes(pixels, mask, factor)
        if self.training:
            assert self.current is not None
            index, camera = int(self.current.views[0].index), self.current.views[0].camera
            background = self.current.background
        else:
            index, background = int(batch["image_idx"]), self.background
            camera = Camera(
                c2w=torch.eye(4), K=torch.eye(3), width=rgb.shape[1], height=rgb.shape[0]
            )
        view = View(index=index, camera=camera, rgb=rgb, alpha=alpha, mask=kept)
        return view, background


def _boxes(
    pixels: Tensor, mask: Tensor | None, factor: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Straight colours, alpha and mask averaged over boxes of ``factor`` x ``factor`` pixels."""

    def averaged(image: Tensor) -> Tensor:
        return functional.avg_pool2d(image.permute(2, 0, 1)[None], factor)[0].permute(1, 2, 0)

    kept = None if mask is None else averaged(mask[..., None])[..., 0] > 1 - 0.5 / factor**2
    if pixels.shape[-1] == 3:
        return averaged(pixels), None, kept
    alpha = averaged(pixels[..., 3:])
    rgb = averaged(pixels[..., :3] * pixels[..., 3:]) / alpha.clamp_min(1e-6)
    return rgb.clamp(0.0, 1.0), alpha[..., 0], kept
