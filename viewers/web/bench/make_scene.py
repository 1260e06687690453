"""Writes a made-up bundle of kind lpgs for bench/decode.mjs: make_scene.py OUT.s4d [SPLATS]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from bundle import made_up_cloud

from scene4d.bundle.scene_info import default_info
from scene4d.bundle.splats import bundle_writer
from scene4d.methods.lpgs.bundle_content import encode_lpgs
from scene4d.methods.lpgs.bundle_parts import lpgs_parts
from scene4d.methods.lpgs.parent_child import ParentChildSplats
from scene4d.methods.lpgs.structure import Structure
from scene4d.representations.gaussians import GaussianSplats

cloud = made_up_cloud(int(sys.argv[2]) if len(sys.argv) > 2 else 500_000, 3)
structure = Structure(
    num_children=0, sh_degree=3, grid=None, hidden=32, attention=True, contraction=True,
    centre=(3.0, 3.0, 0.0), radius=4.0, position_bits=16,
)  # fmt: skip
scene = ParentChildSplats.from_splats(GaussianSplats.of(cloud), structure)
coded = encode_lpgs(lpgs_parts(scene))
print(bundle_writer("lpgs", coded, default_info(cloud)).write(Path(sys.argv[1])))
