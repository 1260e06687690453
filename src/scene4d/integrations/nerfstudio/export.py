"""Splats that nerfstudio trained, as a PLY file in the capture's own frame."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.eval_utils import eval_setup

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.formats.ply import write_ply
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.integrations.nerfstudio.model import SplatModel


@dataclass(frozen=True, kw_only=True)
class ExportArgs:
    """Writes the splats of a run as a .ply that splat viewers open."""

    load_config: Path
    """The run's config.yml."""
    output_path: Path
    """The .ply to write."""


def entrypoint() -> None:
    """Reads the command line, loads the run and writes the file."""
    prog = "python -m scene4d.integrations.nerfstudio export"
    args = parse(ExportArgs, sys.argv[1:], prog=prog)
    _, pipeline, _, _ = eval_setup(args.load_config, test_mode="inference")
    if not isinstance(pipeline.model, SplatModel):
        raise UsageError("is not a run of scene4d-splat", where=args.load_config)
    gaussians = {n: p.detach().cpu() for n, p in pipeline.model.representation.gaussians.items()}
    cloud = SplatCloud(
        means=gaussians["means"].numpy(),
        quats=gaussians["quats"].numpy(),
        log_scales=gaussians["scales"].numpy(),
        logit_opacities=gaussians["opacities"].numpy(),
        sh=torch.cat([gaussians["sh0"], gaussians["shN"]], dim=1).numpy(),
    )
    outputs = pipeline.datamanager.train_dataparser_outputs
    write_ply(args.output_path, cloud.transformed(source_from_scene(outputs)))
    print(args.output_path)


def source_from_scene(outputs: DataparserOutputs) -> np.ndarray:
    """[4, 4] similarity back from the frame that the dataparser moved and scaled the poses to."""
    scene_from_source = np.eye(4)
    scene_from_source[:3] = outputs.dataparser_transform.double().numpy()[:3]
    scene_from_source[:3] *= float(outputs.dataparser_scale)
    return np.linalg.inv(scene_from_source)
