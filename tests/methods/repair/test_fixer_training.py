"""The fixer's training: pairs that a training leaves, and a network that learns from them."""

import json

import pytest
import torch
from training.test_every_capture import SMALL

from scene4d.cli.main import main
from scene4d.errors import DataError
from scene4d.methods.repair.pairs import Pairs, collect, read_pairs, write_pairs
from scene4d.priors.fixer import load_fixer
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions

pytestmark = pytest.mark.unchecked_shapes


def some(count=6, size=32):
    """Clean pictures of one colour each; renders that are darker; one photograph that is right."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(60, 200, (count, 3, 1, 1), generator=generator).expand(-1, -1, size, size)
    clean = clean.to(torch.uint8)
    known = torch.full((count, 1, size, size), 255, dtype=torch.uint8)
    return {
        "rgb": clean - 50, "alpha": known, "clean": clean,
        "references": torch.cat([clean, known, 0 * clean, 0 * known], dim=1),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs")
    write_pairs(some(), place / "one.safetensors")
    return place


def test_crops_are_turned_and_recoloured_alike():
    pairs = Pairs([some(), some(3, 24)])
    assert len(pairs) == 9
    crops = pairs.crops(40, 28, torch.Generator().manual_seed(1))
    assert crops.rgb.shape == (40, 3, 24, 24) and crops.references.shape == (40, 8, 24, 24)
    # the photograph is the clean picture, whatever was done to both; what is unknown stays 0
    assert torch.allclose(crops.references[:, :3], crops.clean, atol=1e-6)
    assert not crops.references[:, 4:].any()
    apart = (crops.rgb - crops.clean).abs()
    assert torch.allclose(apart, torch.full_like(apart, 50 / 255), atol=1e-6)
    gone = pairs.crops(400, 8, torch.Generator().manual_seed(1), forget=0.5).references[:, 3, 0, 0]
    assert 0.4 < float(gone.mean()) < 0.6


def test_a_training_leaves_pairs_of_the_pictures_that_it_does_not_see(tiny_capture, tmp_path):
    method = load_method("splat")(**{**SMALL["splat"], "steps": 4})
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    found = collect(method, options, at=[2, 4])
    # two held-out pictures, at two steps, whole and with fewer splats
    assert {n: list(t.shape) for n, t in found.items()} == {
        "rgb": [8, 3, 48, 48], "alpha": [8, 1, 48, 48], "references": [8, 8, 48, 48],
        "clean": [8, 3, 48, 48],
    }  # fmt: skip
    assert torch.equal(found["clean"][:2], found["clean"][6:])
    assert float(found["alpha"][2:4].float().mean()) < float(found["alpha"][:2].float().mean())
    assert found["references"][:, 3].any()


def test_a_fixer_learns_to_look_at_the_photograph_and_its_weights_come_out(
    folder, tmp_path, capsys
):
    command = ["prior", "train", "fixer", "--repairing.pairs", str(folder), "--output-dir"]
    small = [
        "--widths",
        "8",
        "8",
        "--repairing.crop-size",
        "16",
        "--repairing.perceptual-weight",
        "0",
        "--lr",
        "0.01",
    ]
    assert main([*command, str(tmp_path), *small, "--steps", "100"]) == 0
    weights = capsys.readouterr().out.strip()
    fixer = load_fixer(tmp_path / weights)
    given = {name: value[:2].float() / 255 for name, value in some().items()}
    made = fixer(given["rgb"], given["alpha"], given["references"])
    before = float((given["rgb"] - given["clean"]).abs().mean())
    off = float((made.rgb - given["clean"]).abs().mean())
    assert off < 0.5 * before
    # it knows about how far off it is, down to the 0.005 that it says at least
    assert off / 3 < float(made.error.mean()) < max(off / 0.3, 0.0075)


@pytest.mark.parametrize("critic", ["0", "0.01"])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(folder, tmp_path, capsys, critic):
    command = [
        "prior",
        "train",
        "fixer",
        "--repairing.pairs",
        str(folder),
        "--steps",
        "6",
        "--widths",
        "8",
        "8",
        "--checkpoint-every-s",
        "0",
        "--keep-checkpoints",
        "9",
        "--repairing.adversarial-weight",
        critic,
        "--repairing.crop-size",
        "32",
    ]
    runs = []
    for name in ("whole", "half"):
        assert main([*command, "--output-dir", str(tmp_path / name)]) == 0
        (run,) = (tmp_path / name).glob("*/*/*")
        runs.append(run)
    for late in list_checkpoints(runs[1] / "checkpoints")[3:]:
        late.unlink()
    (runs[1] / "fixer.safetensors").unlink()
    assert main(["prior", "train", "--resume", str(runs[1])]) == 0
    one, other = (load_checkpoint(list_checkpoints(r / "checkpoints")[-1]).tensors for r in runs)
    assert set(one) == set(other) and all(torch.equal(one[n], other[n]) for n in one)
    assert (runs[1] / "fixer.safetensors").is_file()
    assert main(["train", "--resume", str(runs[1])]) == 2
    assert main(["info", str(runs[1])]) in (0, 2)
    assert main(["render", str(runs[1]), "--output-path", str(tmp_path / "out")]) == 2
    assert "holds no scene" in capsys.readouterr().err


def test_crops_too_small_for_lpips_are_told(folder, tmp_path, capsys):
    command = ["prior", "train", "fixer", "--repairing.pairs", str(folder), "--output-dir"]
    assert main([*command, str(tmp_path), "--repairing.crop-size", "31"]) == 2
    assert "--repairing.perceptual-weight 0" in capsys.readouterr().err


def test_a_training_in_half_precision_leaves_finite_weights_of_the_usual_type(
    folder, tmp_path, capsys
):
    command = ["prior", "train", "fixer", "--repairing.pairs", str(folder), "--output-dir"]
    small = ["--widths", "8", "8", "--repairing.half-precision", "--steps", "4"]
    assert main([*command, str(tmp_path), *small]) == 0
    weights = load_fixer(tmp_path / capsys.readouterr().out.strip()).state_dict().values()
    assert all(bool(w.isfinite().all()) and w.dtype == torch.float32 for w in weights)


def test_what_are_no_pairs_is_told(folder, tmp_path, capsys):
    for spoil, told in (
        (lambda p: None, "holds no pairs"),
        (lambda p: (p / "a.safetensors").write_bytes(b"nothing"), "is damaged"),
        (lambda p: write_pairs({"rgb": some()["rgb"]}, p / "a.safetensors"), "no pairs of"),
        (lambda p: write_pairs({**some(), "rgb": some(4)["rgb"]}, p / "a.safetensors"), "no pairs"),
    ):
        spoil(tmp_path)
        with pytest.raises(DataError, match=told):
            read_pairs(tmp_path)
    assert main(["prior", "train", "fixer", "--repairing.pairs", str(tmp_path / "none"),
                 "--output-dir", str(tmp_path)]) == 1  # fmt: skip
    assert main(["prior", "train"]) == 2
    assert main(["prior", "walk"]) == 2
    assert main(["train", "fixer"]) == 2
    assert json.dumps(capsys.readouterr().err).count("error") == 4
