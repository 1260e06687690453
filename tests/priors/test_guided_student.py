"""benchmarks/guided_student.py: distances of one pass to two, which are 0 at scale 1."""

import sys

import torch
from benchmark_scripts import benchmark

from scene4d.methods.picture_prior.pictures import write_pictures
from scene4d.priors.unet import UnetPrior, UnetShape, save_unet


def test_a_network_is_its_own_student_at_scale_1_and_not_at_others(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    shape = UnetShape(channels=("rgb",), widths=(8, 8), down=("c", "c"), up=("c", "c"),
                      size=(16, 16), vocabulary=("blue", "red"), word_width=4)  # fmt: skip
    made = UnetPrior(shape)
    with torch.no_grad():  # an untrained network hears nothing
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_unet(made, tmp_path / "unet.safetensors")
    folder = tmp_path / "pictures"
    folder.mkdir()
    rgb = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    write_pictures({"rgb": rgb}, folder / "a.safetensors", ["red", "blue", "red", "blue"])
    network = str(tmp_path / "unet.safetensors")
    told = {}
    for scale in ("1", "5"):
        arguments = ["x", network, network, str(folder), "--scale", scale, "--count", "4"]
        monkeypatch.setattr(sys, "argv", arguments)
        benchmark("guided_student").main()
        rows = [row.split("|")[2:4] for row in capsys.readouterr().out.splitlines()[2:-1]]
        told[scale] = [float(value) for row in rows for value in row]
    assert len(told["1"]) == 10 and not any(told["1"])
    assert max(told["5"]) > 0 and told["5"][::2] == told["5"][1::2]
