"""Networks of our own in few bytes: the budget, what answers lose, and damaged files."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scene4d.bundle.networks import REST, decode_network, encode_network
from scene4d.cli.main import main
from scene4d.errors import DataError, UsageError
from scene4d.priors import compression, fixer, unet
from scene4d.priors.compression import (
    Questions,
    coded_with,
    compress,
    denoising_questions,
    fitted,
    layers_of,
    psnr_of,
    quantisers,
    sensitivities,
)
from scene4d.priors.fixer import Fixer, FixerShape, load_fixer, save_fixer
from scene4d.priors.unet import UnetPrior, UnetShape, load_unet, save_unet

pytestmark = pytest.mark.unchecked_shapes


def network():
    """With weights as after a training, of layers that count more and less."""
    torch.manual_seed(0)
    made = UnetPrior(UnetShape(widths=(8, 32), down=("c", "c"), up=("", "c"), longest_side=16,
                               vocabulary=("red", "blue")))  # fmt: skip
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prior():
    return network()


@pytest.fixture(scope="module")
def asked(prior):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "_STEPS", 4)
        return denoising_questions(prior, 1, torch.Generator().manual_seed(0))


def decoded(members, most=1 << 20):
    return decode_network(members, where=Path("here"), most_values=most)


def test_tensors_come_back_within_half_a_step_and_rows_of_books_exactly():
    rng = np.random.default_rng(0)
    tensors = {"a.weight": rng.normal(size=(7, 5, 3, 3)).astype(np.float32),
               "a.bias": rng.normal(size=7).astype(np.float32),
               "b": rng.normal(size=(9, 4)).astype(np.float32),
               "c": np.zeros((0, 3), dtype=np.float32)}  # fmt: skip
    book = np.array([-1.0, 0.0, 1.5], dtype=np.float32)
    found = decoded(encode_network(tensors, {"a.weight": 0.1, "b": book}))
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in tensors.items()}
    # half a step, and the step itself as 7 digits
    assert np.abs(found["a.weight"] - tensors["a.weight"]).max() <= 0.05 + 1e-5
    np.testing.assert_array_equal(found["a.bias"], tensors["a.bias"].astype(np.float16))
    nearest = np.abs(tensors["b"][..., None] - book).argmin(axis=-1)
    np.testing.assert_array_equal(found["b"], book[nearest])


def test_a_layer_that_nothing_hears_gets_no_bits_and_the_one_that_counts_gets_them():
    """Two layers of one form, of which the answer is the first alone."""
    torch.manual_seed(0)
    two = torch.nn.ModuleDict({"heard": torch.nn.Linear(64, 64), "idle": torch.nn.Linear(64, 64)})
    x = torch.randn(16, 64)

    def answer():
        with torch.no_grad():
            return two["heard"](x)[None]

    asked = Questions(answer=answer, names=("x",), weights=torch.ones(1), peak=1.0)
    found = sensitivities(two, asked)
    assert found["idle.weight"].weight == 0
    # of a linear layer |x (W' - W)|^2: every weight's squared error times x's, 64 of them summed
    layers = layers_of(two)
    assert found["heard.weight"].weight == pytest.approx(
        64 / 12 * float(x.square().mean()), rel=0.1  # 4096 errors that are even within a step
    )  # fmt: skip
    steps = quantisers(layers, found, 3.0 * 4096)
    spread = float(layers["idle.weight"].std())
    # 3 bits a weight, all of them the first one's: log2(spread sqrt(2 pi e) / step) = 3
    assert steps["heard.weight"] == pytest.approx(spread * math.sqrt(2 * math.pi * math.e) / 8,
                                                  rel=0.05)  # fmt: skip
    assert steps["idle.weight"] == pytest.approx(spread * math.sqrt(2 * math.pi * math.e))


@pytest.mark.parametrize("codebooks", [False, True])
def test_a_budget_is_kept_and_more_of_it_is_better(prior, asked, codebooks):
    sizes = (11_000, 20_000)
    made = [compress(prior, size, asked=asked, judged=asked, codebooks=codebooks) for size in sizes]
    for size, one in zip(sizes, made, strict=True):
        assert 0.9 * size < len(one.packed) <= size
        assert one.bits == pytest.approx(
            8 * len(one.packed) / sum(v.numel() for v in prior.state_dict().values())
        )
    worse, better = (np.array(one.psnr) for one in made)
    assert (better > worse + 3).all() and len(worse) == len(compression.RATIOS)
    with pytest.raises(UsageError, match="smallest file"):
        compress(prior, 500, asked=asked, judged=asked, codebooks=codebooks)


def test_sensitivity_beats_steps_alike_where_layers_differ(prior, asked):
    """The half of the layers that says little is made as large as the others."""
    layers, measured = layers_of(prior), sensitivities(prior, asked)
    alike = {n: compression.Sensitivity(weight=v.size / float(v.var()), spread=float(v.std()),
                                        count=v.size) for n, v in layers.items()}  # fmt: skip
    found = [fitted(prior, 14_000, lambda bits, c=c: quantisers(layers, c, bits))[1]
             for c in (alike, measured)]  # fmt: skip
    same, shared = (np.mean(psnr_of(prior, members, asked)) for members in found)
    assert shared > same + 1


def written(tmp_path, own, key, chosen=0.02):
    members = coded_with(own, dict.fromkeys(layers_of(own), chosen))
    packed = compression.pack_coded(members, *own.header)
    (tmp_path / key).write_bytes(packed)
    return tmp_path / key


def test_a_small_file_is_read_as_any_other(prior, tmp_path):
    file = written(tmp_path, prior, unet.FILE)
    back = load_unet(tmp_path)
    assert back.shape == prior.shape and file.stat().st_size < 50_000
    for name, value in prior.state_dict().items():
        if value.ndim > 1:
            # half a step of 0.02
            assert float((back.state_dict()[name] - value).abs().max()) <= 0.0101, name
    torch.manual_seed(0)
    own = Fixer(FixerShape(references=1, widths=(8, 12))).eval()
    written(tmp_path, own, fixer.FILE)
    assert load_fixer(tmp_path / fixer.FILE).shape == own.shape


def changed(path, edit):
    with safe_open(path, framework="pt") as opened:
        told = opened.metadata()
    save_file(edit(load_file(path)), path, metadata=told)


def flipped(name):
    def edit(members):
        members[name][len(members[name]) // 2] ^= 1
        return members

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (flipped("stage0.bin"), "'stage0.bin' is missing or damaged"),
        (flipped("tables.bin"), "'tables.bin' is missing or damaged"),
        (flipped(REST), "is missing or damaged"),
        (flipped("manifest.json"), "manifest.json"),
        (lambda m: {n: v for n, v in m.items() if n != REST}, "is missing or damaged"),
        (lambda m: {n: v for n, v in m.items() if n != "manifest.json"}, "missing or cut off"),
        (lambda m: {**m, REST: m[REST].int()}, "no bytes"),
    ],
)
def test_a_damaged_small_file_is_told(prior, tmp_path, edit, told):
    file = written(tmp_path, prior, unet.FILE)
    changed(file, edit)
    with pytest.raises(DataError, match=told):
        load_unet(tmp_path)


def edited(members, edit):
    document = json.loads(zlib.decompress(members["manifest.json"]))
    edit(document)
    return {**members, "manifest.json": zlib.compress(json.dumps(document).encode())}


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda d: d["tensors"][0].update(shape=[1 << 20, 1 << 10]), "more than"),
        (lambda d: d["tensors"][0].update(shape=[3]), "should be 3 x 1"),
        (lambda d: d["tensors"][1].update(shape=[3]), "numbers in rest.f16"),
        (lambda d: d["tensors"][0].update(array="other"), "'other' is missing"),
        (lambda d: d["tensors"][0].update(shape="ab"), "must be of type array"),
        (lambda d: d.pop("stages"), "stages is missing"),
        (lambda d: d["stages"][0]["streams"][0].update(length=16), "behind the other"),
        (lambda d: d["members"].pop(), "missing or damaged"),
        (lambda d: d["tensors"][2].update(book=2), "outside its book"),
    ],
)
def test_a_manifest_that_cannot_be_is_told(edit, told):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.normal(size=(40, 5)).astype(np.float32), "b": np.zeros(5, np.float32),
               "c": rng.normal(size=(40, 5)).astype(np.float32)}  # fmt: skip
    book = np.array([-1, 0, 1], dtype=np.float32)
    members = encode_network(tensors, {"a": 0.1, "c": book})
    if told == "outside its book":  # one value of the book belongs to what is plain
        before = edit
        edit = lambda d: (before(d), d["tensors"][1].update(shape=[6]))  # noqa: E731
    with pytest.raises(DataError, match=told):
        decoded(edited(members, edit), most=1 << 12)


def test_the_verb_writes_what_the_other_verbs_read(tmp_path, tiny_capture, capsys, monkeypatch):
    monkeypatch.setattr(compression, "_STEPS", 4)
    save_unet(network(), tmp_path / unet.FILE)
    out = tmp_path / "small"
    command = ["prior", "compress", str(tmp_path), str(out), "--target-kb"]
    assert main([*command, "16"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out / unet.FILE) and (out / unet.FILE).stat().st_size <= 16_000
    assert "KB now" in told.err and "at sigma/alpha 0.1 0.3 1 3:" in told.err
    sampled = ["--output-path", str(tmp_path / "pictures"), "--count", "1", "--steps", "2"]
    assert main(["prior", "sample", f"unet:{out}", *sampled, "--size", "16", "16"]) == 0
    assert main([*command, "1"]) == 2
    assert "smallest file" in capsys.readouterr().err
    assert main(["prior", "compress", str(tmp_path), str(tmp_path), "--target-kb", "16"]) == 2
    assert main(["prior", "compress", str(tiny_capture), str(out), "--target-kb", "16"]) == 1
    assert "no network that scene4d prior train made" in capsys.readouterr().err


def test_a_fixer_is_asked_about_pictures_of_a_capture(tmp_path, tiny_capture, capsys):
    torch.manual_seed(0)
    save_fixer(Fixer(FixerShape(widths=(8, 12))), tmp_path / fixer.FILE)
    command = ["prior", "compress", str(tmp_path), str(tmp_path / "out"), "--target-kb", "9"]
    assert main([*command, "--data", str(tiny_capture)]) == 0
    told = capsys.readouterr()
    assert load_fixer(tmp_path / "out").shape.widths == (8, 12)
    # of 14,404 weights: 5 bits each, whose errors show little in an almost idle network
    assert float(told.err.split()[-1]) > 40
