"""Fixing: renders that nobody photographed are compared with what a fixer makes of them."""

from dataclasses import replace

import pytest
import torch
from training.test_every_capture import SMALL

from scene4d.cli.main import main
from scene4d.data.scene import at_size_of
from scene4d.errors import DataError, UsageError
from scene4d.evaluation.protocol import composited
from scene4d.priors.fixer import Fixed, Fixer, FixerShape
from scene4d.representations.method import FixingOptions
from scene4d.representations.task import Task, World
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.methods import load_method
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.fixing import Fixing
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.references import References
from scene4d.training.run import load_run, read_config
from scene4d.training.step import Step
from scene4d.training.train import load_capture, resume, start

pytestmark = pytest.mark.unchecked_shapes


class Always:
    """One camera, over and over."""

    def __init__(self, camera):
        self.camera = camera

    def draw(self, generator, count=1):
        return [self.camera] * count


SHAPE = FixerShape(references=2, widths=(8, 8))
NOW = FixingOptions(start=0.0, refresh_every=2, pictures=3)


def splat(steps=6, **changes):
    return load_method("splat")(**{**SMALL["splat"], "steps": steps, "fixing": NOW, **changes})


@pytest.fixture(scope="module")
def run(tiny_capture, weights, tmp_path_factory):
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path_factory.mktemp("runs"),
                           device="cpu", evaluate=False, fixer=weights)  # fmt: skip
    return start(splat(), options, announce=False)


def test_a_training_keeps_its_fixer_and_goes_on_as_if_it_had_not_stopped(run, weights, tmp_path):
    method, options = read_config(run)
    assert options.fixer.resolve() == weights.resolve() and method.fixing == NOW
    whole = start(replace(method, steps=8),
                  replace(options, output_dir=tmp_path / "whole"), announce=False)  # fmt: skip
    half = start(replace(method, steps=8),
                 replace(options, output_dir=tmp_path / "half", checkpoint_every_s=0.0,
                         keep_checkpoints=100), announce=False)  # fmt: skip
    for late in list_checkpoints(half / "checkpoints")[4:]:
        late.unlink()
    resume(half)
    one, other = (
        load_checkpoint(list_checkpoints(r / "checkpoints")[-1]).tensors for r in (whole, half)
    )
    kept = [name for name in one if name.endswith("/pixels")]
    assert kept and len(one[kept[0]]) == 3 * 4 * 48 * 48
    for name in one:  # times of what has none are NaN
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0, equal_nan=True)


class Oracle(Fixer):
    """Knows one picture, whatever it is shown."""

    def __init__(self, picture, error):
        super().__init__(SHAPE)
        self.picture, self.sure = picture.permute(2, 0, 1)[None], error

    def forward(self, rgb, alpha, references):
        return Fixed(rgb=self.picture, error=torch.full_like(alpha, self.sure))


def test_a_scene_is_pulled_to_what_a_confident_fixer_shows_and_by_no_other(tiny_capture):
    scene, images = load_capture(TrainOptions(data=tiny_capture))
    scene = at_size_of(scene, images)
    task = Task(world=World.of(scene), capture=scene)
    view = images.view(scene.train_indices[0])
    behind = References(task).background
    wanted = composited(view, behind)
    found = {}
    for error in (1e-6, 10.0):
        generator = torch.Generator().manual_seed(0)
        trained = splat().build(task, generator=generator).requires_grad_()
        term = Fixing(NOW, ObjectiveInputs(
            task=replace(task, fixer=Oracle(wanted, error)), generator=generator,
            device=torch.device("cpu"),
        ))  # fmt: skip
        term.poses = Always(view.camera)
        optimiser = GroupedAdam(trained.parameter_groups())
        for number in range(25):
            made = term(Step(number=number, progress=0.5, trainable=trained,
                             background=torch.rand(3, generator=generator)))  # fmt: skip
            made.loss.backward()
            optimiser.step(lambda group: 3.0)
        with torch.no_grad():
            rgb = trained.render(view.camera, background=behind).rgb
            found[error] = float((rgb - wanted).abs().mean())
        assert len(term.views) == NOW.pictures
        assert float(made.log["fixer_confidence"]) == pytest.approx(float(error < 1), abs=1e-3)
    assert found[1e-6] < 0.7 * found[10.0]


def test_references_are_the_nearest_pictures_at_what_is_seen(tiny_capture):
    scene, images = load_capture(TrainOptions(data=tiny_capture))
    scene = at_size_of(scene, images)
    task = Task(world=World.of(scene), capture=scene)
    near = References(task)
    index = scene.train_indices[3]
    places = near.nearest(images.camera(index), 20)
    assert places[0] == 3 and len(places) == len(scene.train_indices)
    trained = splat().build(task, generator=torch.Generator().manual_seed(0))
    render, read = near.seen(trained, images.camera(index), 20)
    assert read.shape == (80, 48, 48)
    seen = render.alpha > 0.5
    photograph = composited(images.view(index), near.background).permute(2, 0, 1)
    # a camera looks at itself: by whatever depth, its own picture comes back
    assert torch.allclose(read[:3, seen], photograph[:, seen], atol=1e-3)
    assert torch.equal(read[3], seen.float()) and not read[4 * len(places) :].any()


def test_fixers_that_cannot_be_used_are_told(tiny_capture, weights, tmp_path, caplog):
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    with pytest.raises(UsageError, match="no term of the method"):
        start(splat(fixing=replace(NOW, weight=0.0)), replace(options, fixer=weights))
    with pytest.raises(DataError, match="no fixer is here"):
        start(splat(), replace(options, fixer=tmp_path / "none"))
    start(splat(steps=1), options, announce=False)
    assert "no fixer is" in caplog.text


def test_render_shows_what_the_fixer_makes_of_a_run(run, weights, tmp_path, capsys):
    command = ["render", str(run), "dataset", "--output-path", str(tmp_path / "a"), "--fixer"]
    assert main([*command, str(weights)]) == 0
    assert len(list((tmp_path / "a").rglob("*.png"))) == len(load_run(run).cameras.test)
    assert main([*command, str(weights), "--background", "white", "--overwrite"]) == 2
    assert main([*command, str(tmp_path), "--overwrite"]) == 1
    assert "no fixer is here" in capsys.readouterr().err
