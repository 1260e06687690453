import json
import math
from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.errors import DataError
from scene4d.evaluation.lpips import lpips
from scene4d.evaluation.pictures import GAP, error_heat
from scene4d.evaluation.protocol import EvalInfo, evaluate
from scene4d.evaluation.psnr import psnr
from scene4d.evaluation.ssim import ssim
from scene4d.rendering.render import RGB, Render

HEIGHT, WIDTH = 40, 48


@dataclass
class Painting:
    """A scene of one picture with alpha, the same from everywhere."""

    rgb: torch.Tensor
    alpha: torch.Tensor

    def render(self, camera, *, background=None, want=RGB):
        behind = torch.zeros(3) if background is None else background
        alpha = self.alpha[..., None]
        return Render(rgb=self.rgb * alpha + behind * (1 - alpha), alpha=self.alpha)


def camera(height=HEIGHT, width=WIDTH):
    return Camera(c2w=torch.eye(4), K=torch.eye(3), width=width, height=height)


def picture(seed, height=HEIGHT, width=WIDTH):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def view(index=0, *, seed=0, **optional):
    return View(index=index, camera=camera(), rgb=picture(seed), **optional)


def painting(rgb):
    return Painting(rgb, torch.ones(rgb.shape[:2]))


def test_figures_are_the_metrics_of_each_image_and_their_means():
    pred = picture(9)
    result = evaluate(painting(pred), [view(0, seed=0), view(5, seed=1)])
    for image, target in zip(result.images, (picture(0), picture(1)), strict=True):
        assert image.psnr == float(psnr(pred, target))
        assert image.ssim == float(ssim(pred, target))
        assert image.lpips == float(lpips(pred, target))
    assert result.psnr == pytest.approx((result.images[0].psnr + result.images[1].psnr) / 2)
    assert result.images[1].name == "00005"


def test_renders_are_clamped_and_not_quantised():
    target = torch.full((HEIGHT, WIDTH, 3), 1.0)
    bright = View(index=0, camera=camera(), rgb=target)
    assert evaluate(painting(target + 3), [bright], lpips=False).psnr == 100.0
    # a thousandth is less than half an 8-bit step: quantising would make it 100 dB
    dimmer = evaluate(painting(target - 1e-3), [bright], lpips=False)
    # float32 of 0.999, squared: 1e-4 relative
    assert dimmer.psnr == pytest.approx(60.0, abs=1e-3)


@pytest.mark.parametrize("background", [None, torch.tensor([0.2, 0.9, 0.4])])
def test_photographs_with_alpha_stand_on_the_same_background(background):
    rgb, alpha = picture(2), torch.rand(HEIGHT, WIDTH)
    photo = View(index=0, camera=camera(), rgb=rgb, alpha=alpha)
    result = evaluate(Painting(rgb, alpha), [photo], background=background)
    assert result.psnr == 100.0
    # SSIM and LPIPS of identical images, in float32
    assert result.ssim == pytest.approx(1.0, abs=1e-5) and result.lpips == 0.0


def test_what_is_rendered_in_masked_pixels_counts_nowhere():
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    mask[10:25, 8:30] = False
    pred = picture(3)
    other = pred.clone()
    other[~mask] = picture(4)[~mask]
    ours, theirs = (evaluate(painting(p), [view(mask=mask)]).images[0] for p in (pred, other))
    assert (ours.psnr, ours.ssim, ours.lpips) == (theirs.psnr, theirs.ssim, theirs.lpips)
    assert ours.valid_share == pytest.approx(float(mask.float().mean()))
    assert ours.psnr != evaluate(painting(pred), [view()]).psnr


def test_eval_json_has_nerfstudios_layout_and_the_split(tmp_path):
    info = EvalInfo(
        experiment_name="fox",
        method_name="splat",
        checkpoint="checkpoints/step-000000100.safetensors",
        split_rule="every 8th image held out",
        train_names=["b.png"],
        names={0: "images/a.png"},
        step=100,
    )
    result = evaluate(painting(picture(1)), [view()], output_path=tmp_path / "eval.json", info=info)
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["experiment_name"] == "fox" and written["method_name"] == "splat"
    assert written["checkpoint"].startswith("checkpoints/")
    assert written["results"]["psnr"] == result.psnr
    assert {"psnr", "ssim", "lpips", "fps"} <= written["results"].keys()
    assert written["split"] == {
        "rule": "every 8th image held out", "train": ["b.png"], "test": ["images/a.png"]
    }  # fmt: skip
    (image,) = written["per_image"]
    assert image["name"] == "images/a.png" and image["psnr"] == result.psnr
    assert written["machine"]["cores"] >= 1
    assert set(written["metrics"]) == {"psnr", "ssim", "lpips"}


def test_pictures_are_photograph_render_and_error(tmp_path):
    pred, photo = picture(1), view()
    result = evaluate(painting(pred), [photo], output_path=tmp_path / "eval.json")
    with Image.open(tmp_path / result.images[0].picture) as image:
        assert image.size == (3 * WIDTH + 2 * GAP, HEIGHT)
        left = image.getpixel((0, 0))
        middle = image.getpixel((WIDTH + GAP, 0))
    assert left == tuple((photo.rgb[0, 0] * 255).round().int().tolist())
    assert middle == tuple((pred[0, 0] * 255).round().int().tolist())


def test_a_second_evaluation_leaves_the_first_as_it_is(tmp_path):
    first = evaluate(painting(picture(1)), [view()], output_path=tmp_path / "eval.json")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    second = evaluate(painting(picture(2)), [view()], output_path=tmp_path / "cpu.json")
    assert all(path.read_bytes() == data for path, data in before.items())
    assert json.loads((tmp_path / "cpu.json").read_text())["results"]["psnr"] == second.psnr
    assert first.images[0].picture != second.images[0].picture
    assert (tmp_path / second.images[0].picture).is_file()


def test_an_evaluation_that_fails_leaves_the_last_one(tmp_path):
    pred = picture(1)
    evaluate(painting(pred), [view()], output_path=tmp_path / "eval.json")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def broken():
        yield view()
        raise DataError("no picture any more")

    with pytest.raises(DataError, match="no picture"):
        evaluate(painting(picture(2)), broken(), output_path=tmp_path / "eval.json")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_error_heat_grows_in_lightness_and_greys_what_is_excluded():
    target = torch.zeros(1, 6, 3)
    pred = torch.tensor([0.0, 0.05, 0.12, 0.2, 0.25, 0.9])[None, :, None].expand(1, 6, 3)
    lightness = error_heat(pred, target).mean(dim=-1)[0]
    assert (lightness[1:5] > lightness[:4]).all()
    assert lightness[4] == lightness[5]
    mask = torch.tensor([[True, False, True, True, True, True]])
    heat = error_heat(pred, target, mask)
    assert torch.equal(heat[0, 0], error_heat(pred, target)[0, 0])
    assert (heat[0, 1] - heat[0, 1].mean()).abs().max() < 0.05


def test_fully_masked_view_is_left_out_with_a_warning():
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    with pytest.warns(UserWarning, match="excludes every pixel"):
        result = evaluate(painting(picture(1)), [view(0, mask=nothing), view(1)], lpips=False)
    assert len(result.images) == 1


def test_no_view_is_an_error():
    with pytest.raises(DataError, match="no image"):
        evaluate(painting(picture(1)), [])


def test_small_images_are_measured_without_lpips(tmp_path):
    small = View(index=0, camera=camera(20, 20), rgb=picture(0, 20, 20))
    with pytest.warns(UserWarning, match="too small for LPIPS"):
        result = evaluate(painting(picture(1, 20, 20)), [small], output_path=tmp_path / "eval.json")
    assert result.lpips is None
    assert json.loads((tmp_path / "eval.json").read_text())["results"]["lpips"] is None


def test_a_render_that_is_not_finite_is_named():
    pred = picture(1)
    pred[3, 3] = math.nan
    with pytest.raises(DataError, match="not finite"):
        evaluate(painting(pred), [view()])


def test_a_render_of_another_size_is_named():
    with pytest.raises(DataError, match="rendered"):
        evaluate(painting(picture(1, 30, 30)), [view()])
