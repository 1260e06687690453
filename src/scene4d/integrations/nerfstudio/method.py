"""What ``ns-train scene4d-splat`` runs: the entry point of group ``nerfstudio.method_configs``."""

from __future__ import annotations

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from scene4d.integrations.nerfstudio.datamanager import SceneDatamanagerConfig
from scene4d.integrations.nerfstudio.model import GROUP, SplatModelConfig
from scene4d.integrations.nerfstudio.optimiser import SplatAdamConfig
from scene4d.methods.splat.method import SplatMethod

SCENE4D_SPLAT = MethodSpecification(
    config=TrainerConfig(
        method_name="scene4d-splat",
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=2000,
        steps_per_save=1000,
        max_num_iterations=SplatMethod.default_steps,
        mixed_precision=False,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        pipeline=VanillaPipelineConfig(
            datamanager=SceneDatamanagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True),
                cache_images_type="uint8",
            ),
            model=SplatModelConfig(),
        ),
        optimizers={GROUP: {"optimizer": SplatAdamConfig(), "scheduler": None}},
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="scene4d's Gaussian splats: on CUDA through gsplat, on the CPU through Numba.",
)
