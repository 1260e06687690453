"""The fixer's network and its file."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scene4d.errors import DataError
from scene4d.priors.fixer import FILE, Fixer, FixerShape, load_fixer, save_fixer

SHAPE = FixerShape(references=1, widths=(8, 12))


def pictures(height=13, width=18, shape=SHAPE):
    torch.manual_seed(1)
    sides = (2, shape.num_inputs, height, width)
    given = torch.rand(sides)
    return given[:, :3], given[:, 3:4], given[:, 4:]


def test_an_untrained_fixer_changes_little_at_any_size():
    torch.manual_seed(0)
    given = pictures()
    made = Fixer(SHAPE)(*given)
    assert made.rgb.shape == (2, 3, 13, 18) and made.error.shape == (2, 1, 13, 18)
    known = given[2][:, 3:4] > 0
    assert known.all() and float((made.rgb - given[0]).abs().mean()) < 0.06
    nothing = Fixer(SHAPE)(given[0], given[1], 0 * given[2])
    assert float((nothing.rgb - given[0]).abs().mean()) < 0.04
    assert 0 < float(made.confidence.min()) <= float(made.confidence.max()) <= 1


def test_a_crop_is_repaired_as_in_its_picture():
    torch.manual_seed(0)
    given = pictures(64, 64)
    net = Fixer(SHAPE).eval()
    whole = net(*given).rgb[..., 16:48, 16:48]
    crop = net(*(part[..., 8:56, 8:56] for part in given)).rgb[..., 8:40, 8:40]
    # what lies further away than the network looks is not seen; nothing is normalised
    assert torch.allclose(whole[..., 12:20, 12:20], crop[..., 12:20, 12:20], atol=1e-6)


def test_weights_come_back_in_half_precision(tmp_path):
    torch.manual_seed(0)
    net = Fixer(SHAPE)
    save_fixer(net, tmp_path / FILE)
    back = load_fixer(tmp_path)
    assert back.shape == SHAPE and not any(p.requires_grad for p in back.parameters())
    assert torch.allclose(back(*pictures()).rgb, net(*pictures()).rgb, atol=2e-3)


def changed(path, edit=lambda tensors: tensors, plain=None):
    tensors = edit(load_file(path))
    told = {"references": 1, "widths": [8, 12]} if plain is None else plain
    save_file(tensors, path, metadata={"scene4d_fixer": json.dumps(told)})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: p.unlink(), "no fixer is here"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "is damaged"),
        (lambda p: save_file({"a": torch.zeros(1)}, p), "not those of a fixer"),
        (lambda p: changed(p, plain={"references": 2, "widths": [8, 12]}), "other tensors"),
        (lambda p: changed(p, plain={"references": 1, "widths": [8, 1 << 40]}), "cannot be"),
        (lambda p: changed(p, plain={"references": True, "widths": 8}), "cannot be"),
        (lambda p: changed(p, plain=[1]), "not those of a fixer"),
        (lambda p: changed(p, lambda t: {**t, "enter.bias": t["enter.bias"] / 0}), "not finite"),
        (lambda p: changed(p, lambda t: {**t, "enter.bias": t["enter.bias"].int()}), "finite"),
    ],
)  # fmt: skip
def test_what_is_no_fixer_is_told(tmp_path, spoil, told):
    torch.manual_seed(0)
    save_fixer(Fixer(SHAPE), tmp_path / FILE)
    spoil(tmp_path / FILE)
    with pytest.raises(DataError, match=told):
        load_fixer(tmp_path / FILE)
