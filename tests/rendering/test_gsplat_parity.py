"""The CPU back end against gsplat on a GPU: images and gradients."""

import pytest
import torch

from scene4d.rendering.splats.cuda import gsplat_unavailable_reason
from scene4d.rendering.splats.rasterization import rasterization

LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
WIDTH, HEIGHT = 160, 112


@pytest.fixture(scope="module", autouse=True)
def _needs_gsplat():
    """Here and not at import: the first look may compile gsplat's extension."""
    reason = gsplat_unavailable_reason()
    if reason is not None:
        pytest.skip(f"gsplat cannot be used: {reason}")


def run(scene, device, **kwargs):
    tensors = {k: v.to(device, torch.float32) for k, v in scene.items()}
    for name in LEAVES:
        tensors[name].requires_grad_()
    image, alphas, meta = rasterization(**tensors, width=WIDTH, height=HEIGHT, **kwargs)
    meta["means2d"].retain_grad()
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(device)
    ((image * weights).sum() + alphas.square().sum()).backward()
    grads = {k: tensors[k].grad for k in LEAVES}
    grads["means2d"] = meta["means2d"].grad
    if kwargs.get("absgrad"):
        grads["absgrad"] = meta["means2d"].absgrad
    cpu = {k: g.cpu() for k, g in grads.items() if g is not None}
    return image.detach().cpu(), alphas.detach().cpu(), meta, cpu


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("sh_degree", [None, 0, 3])
def test_images_and_gradients_agree(random_scene, sh_degree, rasterize_mode, render_mode):
    scene = random_scene(40, num=3000, cameras=2, sh_degree=sh_degree, width=WIDTH, height=HEIGHT)
    scene["scales"] = scene["scales"] * 0.3
    options = {"sh_degree": sh_degree, "rasterize_mode": rasterize_mode, "absgrad": True}
    a = run(scene, "cpu", render_mode=render_mode, **options)
    b = run(scene, "cuda", render_mode=render_mode, **options)
    for value, other in zip(a[:2], b[:2], strict=True):
        off = (value - other).abs()
        # gsplat's fast exponential is good to 1e-6; a Gaussian at the cut flips by 1/255.
        assert (off > 1e-4).float().mean() < 0.01
        assert off.max() < 0.05
    visible = [(m["radii"] > 0).all(dim=-1).cpu() for m in (a[2], b[2])]
    assert (visible[0] != visible[1]).float().mean() < 1e-3
    for name, other in b[3].items():
        # 1e-2: the flipped pixels, in the norm over all Gaussians; elsewhere it is 1e-5.
        assert (a[3][name] - other).norm() <= 1e-2 * other.norm(), name


def test_meta_has_the_same_layout(random_scene):
    scene = random_scene(41, num=500, cameras=2, width=WIDTH, height=HEIGHT)
    metas = [run(scene, device)[2] for device in ("cpu", "cuda")]
    for name, value in metas[0].items():
        if isinstance(value, torch.Tensor):
            assert metas[1][name].shape == value.shape, name
        else:
            assert metas[1][name] == value, name
