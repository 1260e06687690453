"""The method text-mesh: trained on captioned meshes, it makes meshes of texts."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.text_mesh.assets_made import UNSEEN, write_assets
from optional_packages import import_or_skip

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cli.main import main
from scene4d.errors import UsageError
from scene4d.formats.textured_gltf import read_textured_mesh
from scene4d.methods.text_mesh.method import AssetOptions, TextMeshMethod
from scene4d.priors.gaussian import ByText, GaussianPrior
from scene4d.rendering.render import Render
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.task import Task, World
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.step import Step
from scene4d.training.train import resume, start
from scene4d.training.trainer import Interrupted, Trainer

STEPS = 220


def method(assets: Path | None, **more) -> TextMeshMethod:
    settings = {
        "steps": STEPS, "channels": 32, "blocks": ("c", "t"), "features": 4, "neurons": 16,
        "word_width": 16, "resolution": 16, "texture_size": 64, "lr": 3e-3,
        "pictures": AssetOptions(captions=4, pictures=1, volume_size=12, mesh_size=24),
    }  # fmt: skip
    return TextMeshMethod(assets=assets, **{**settings, **more})


@pytest.fixture(scope="module", autouse=True)
def wanted() -> None:
    import_or_skip("xatlas")


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> Path:
    return write_assets(tmp_path_factory.mktemp("text-mesh") / "assets")


@pytest.fixture(scope="module")
def run(assets, tmp_path_factory) -> Path:
    options = TrainOptions(output_dir=tmp_path_factory.mktemp("out"), device="cpu")
    return start(method(assets), options)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_learns(run: Path) -> None:
    found = losses(run)
    assert np.mean(found[-4:]) < 0.5 * found[0]


def test_an_unseen_text_is_put_together_of_what_was_seen(run: Path) -> None:
    generator = load_run(run).generator
    assert generator is not None and UNSEEN not in generator.conditions

    def made(text: str):
        with torch.no_grad():
            return generator.scene(text).mesh()

    def height_to_width(text: str) -> float:
        size = np.ptp(made(text).vertices, axis=0)
        return size[1] / size[0]

    # A bar is five times as high as wide, a box as high as wide.
    assert height_to_width(UNSEEN) > 1.5 * height_to_width("a blue box")


def test_meshes_are_closed(run: Path) -> None:
    generator = load_run(run).generator
    with torch.no_grad():
        mesh = generator.scene("a red box").mesh()
    ends = np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(ends, axis=0, return_counts=True)
    assert (counts == 2).all()


def test_colours_are_those_of_the_text(run: Path) -> None:
    """As far as so short a training tells them apart."""
    generator = load_run(run).generator
    with torch.no_grad():
        red, green = (
            generator.scene(text).mesh().texture.reshape(-1, 3).mean(axis=0)
            for text in ("a red box", "a green box")
        )
    assert red[0] > green[0] + 0.1 and green[1] > red[1] + 0.1, (red, green)


def test_a_run_goes_on_as_if_it_had_not_stopped(assets, tmp_path, monkeypatch) -> None:
    """From the last picture of fog on, through the first meshes."""
    options = TrainOptions(output_dir=tmp_path, device="cpu")
    straight = load_run(start(method(assets, steps=8), options))
    original = Trainer._step

    def stopping(self):
        metrics = original(self)
        if self.step == 5:
            self.interrupted_by = "SIGINT"
        return metrics

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(Interrupted) as stopped:
        start(method(assets, steps=8), options)
    monkeypatch.setattr(Trainer, "_step", original)
    resumed = load_run(resume(stopped.value.run))
    assert resumed.step == straight.step == 8
    for name, value in straight.generator.state_dict().items():
        assert torch.equal(resumed.generator.state_dict()[name], value), name


def test_a_run_reads_other_words_as_those_of_captions(assets, tmp_path: Path, caplog) -> None:
    """Without the file that says which are near."""
    words = np.array(["red", "crimson", "green", "box", "carton", "bar"])
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0], [-0.9, -0.1], [0, -1]], np.float32)
    path = tmp_path / "vectors.npz"
    np.savez(path, words=words, vectors=vectors)
    options = TrainOptions(output_dir=tmp_path, device="cpu")
    run = start(method(assets, word_vectors=path, steps=2), options)
    path.unlink()
    generator = load_run(run).generator
    with caplog.at_level(logging.INFO, logger="scene4d"):
        read = generator.code("a crimson carton")
    assert torch.equal(read, generator.code("a red box"))
    assert "'crimson': it is read as 'red'" in caplog.text
    with pytest.raises(UsageError, match="'violet'"):
        generator.code("a violet box")


def test_a_text_encoder_wants_no_vectors_of_words(assets, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="all words"):
        method(assets, word_vectors=tmp_path / "vectors.npz", text_encoder="some/model")


def test_a_prior_teaches_in_place_of_meshes(tmp_path: Path) -> None:
    """That all pictures are blue: colours follow, whatever the text."""
    (tmp_path / "texts.txt").write_text("a box\na bar\n")
    blue = torch.tensor([-0.8, -0.8, 0.8])[:, None, None].expand(3, 16, 16)
    guidance = GuidanceOptions(
        weight=1.0, start=0.0, loss="sds", crop="none", size=16, least_time=0.3, most_time=0.6,
        annealed=False,
    )  # fmt: skip
    settings = {"texts": tmp_path / "texts.txt", "guidance": guidance, "steps": 40}
    run = start(
        method(None, **settings), TrainOptions(output_dir=tmp_path, device="cpu"),
        prior=GaussianPrior(blue, 0.05**2),
    )  # fmt: skip
    generator = load_run(run).generator
    assert list(generator.conditions) == ["a box", "a bar"]
    with torch.no_grad():
        red, _, blue = generator.scene("a bar").mesh().texture.reshape(-1, 3).mean(axis=0)
    assert blue > red + 0.1  # grey at first


def test_samples_of_a_prior_teach_each_text_its_own(tmp_path: Path) -> None:
    """Red of one, blue of the other; drawn as volumes at first, as assets are."""
    (tmp_path / "texts.txt").write_text("a box\na bar\n")
    colours = {"a box": (0.8, -0.8, -0.8), "a bar": (-0.8, -0.8, 0.8)}
    pictures = {t: torch.tensor(c)[:, None, None].expand(3, 16, 16) for t, c in colours.items()}
    priors = {text: GaussianPrior(picture, 0.0) for text, picture in pictures.items()}
    guidance = GuidanceOptions(
        weight=1.0, start=0.0, target="regenerate", crop="none", size=16, pictures=2,
        least_time=0.98, most_time=0.98, difference="squared", sampling_steps=2,
    )  # fmt: skip
    run = start(
        method(None, texts=tmp_path / "texts.txt", guidance=guidance, steps=80),
        TrainOptions(output_dir=tmp_path, device="cpu"),
        prior=ByText(priors, GaussianPrior(torch.zeros(3, 16, 16), 1.0)),
    )  # fmt: skip
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [bool(line["volumes"]) for line in lines] == [line["step"] <= 56 for line in lines]
    generator = load_run(run).generator
    with torch.no_grad():
        for text, wanted in (("a box", 0), ("a bar", 2)):
            mean = generator.scene(text).mesh().texture.reshape(-1, 3).mean(axis=0)
            assert mean[wanted] > mean[2 - wanted] + 0.05, (text, mean)  # grey at first


def test_guidance_sees_volumes_too() -> None:
    """Which have slopes where a mesh has none; it renders in evaluation mode."""
    chosen = method(None)
    task = Task(world=World(), conditions=("a box",))
    made = chosen.representation_class().untrained(task, chosen, torch.Generator().manual_seed(0))
    made.on_progress(0.1)
    camera = CamerasOnSphere(distance=3.6, view_angle=0.7, size=16).draw(torch.Generator())[0]
    step = Step(number=1, progress=0.1, trainable=made, background=torch.ones(3))
    seen = []

    def score(render: Render) -> torch.Tensor:
        seen.append(render.alpha[8].detach())
        return render.alpha.mean()

    step.deferred(camera, score, condition="a box")
    between = (seen[0] > 0.02) & (seen[0] < 0.98)
    assert int(between.sum()) > 6  # of a mesh's row those are the two of its outline


def test_pictures_of_a_mesh_move_it_also_after_one_without_gradients(run: Path) -> None:
    """As terms of the loss draw it that first look and then render again."""
    generator = load_run(run).generator
    scene = generator.scene("a red box")
    camera = CamerasOnSphere(distance=3.6, view_angle=0.7, size=24).draw(torch.Generator())[0]
    with torch.no_grad():
        first = scene.render(camera).alpha
    again = scene.render(camera).alpha
    torch.testing.assert_close(first, again.detach(), rtol=0, atol=0)  # the same mesh
    again.sum().backward()
    assert float(generator.network.last.weight.grad.abs().max()) > 0


def test_views_of_a_prior_fill_a_square() -> None:
    poses = TextMeshMethod(views=4, azimuths=(30.0, 60.0), lowest=10.0, highest=10.0).poses()
    (camera,) = poses.draw(torch.Generator().manual_seed(0))
    places = camera.position
    turns = torch.atan2(places[:, 2], places[:, 0]).rad2deg()
    assert 30 <= float(turns[0]) <= 60
    # float32
    torch.testing.assert_close((turns[1:] - turns[:-1]) % 360, torch.full((3,), 90.0), rtol=0,
                               atol=1e-3)  # fmt: skip
    torch.testing.assert_close(places[:, 1], places[:1, 1].expand(4))
    with pytest.raises(UsageError, match="no square"):
        TextMeshMethod(views=3)


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert main(["generate", str(run), UNSEEN, "--output-path", str(folder / "bar.glb")]) == 0
    return folder


def test_generate_writes_a_mesh_of_a_text(written: Path) -> None:
    found = read_textured_mesh(written / "bar.glb")
    size = np.ptp(found.vertices, axis=0)
    assert size[1] > size[0] > 0


def test_generate_writes_many_and_those_between(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "texts.txt").write_text("a red box\n\na green bar\na red box\n")
    arguments = ["generate", str(run), "--prompts", str(tmp_path / "texts.txt")]
    assert main([*arguments, "--output-path", str(tmp_path / "many"), "--suffix", ".obj"]) == 0
    names = capsys.readouterr().out.split()
    assert [Path(name).name for name in names] == ["000_a_red_box.obj", "001_a_green_bar.obj"]
    place = str(tmp_path / "way")
    assert main(["generate", str(run), "a red box", "--between", "a red bar", "--count", "3",
                 "--output-path", place]) == 0  # fmt: skip
    heights = [
        (lambda size: size[1] / size[0])(np.ptp(read_textured_mesh(p).vertices, axis=0))
        for p in sorted((tmp_path / "way").iterdir())
    ]
    assert heights == sorted(heights) and len(heights) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a purple box"], "'purple'"),
        ([""], "no text"),
        (["a red box", "--prompts", "x.txt"], "two ways"),
    ],
)
def test_generate_tells_what_is_wrong_before_it_writes(
    run: Path, tmp_path: Path, capsys, arguments, told
) -> None:
    place = tmp_path / "a.glb"
    assert main(["generate", str(run), *arguments, "--output-path", str(place)]) in (1, 2)
    assert told in capsys.readouterr().err
    assert not place.exists()


def test_generate_wants_a_known_suffix_and_a_generator(run: Path, tmp_path: Path, capsys) -> None:
    assert main(["generate", str(run), "a box", "--output-path", str(tmp_path / "a.xyz")]) in (1, 2)
    assert "suffix" in capsys.readouterr().err


def test_without_assets_or_a_prior_there_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--assets"):
        start(TextMeshMethod(steps=1), TrainOptions(output_dir=tmp_path, device="cpu"))
