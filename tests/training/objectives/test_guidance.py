"""Guidance: any representation is pulled to what a prior knows, with the memory of a crop."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from capture_methods import CAPTURE_METHODS
from methods.lpgs.test_parent_child import splats as wide_splats
from safetensors.torch import save_file
from training.test_every_capture import SMALL, with_times

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.camera import Camera
from scene4d.cli.main import main
from scene4d.data.scene import Frame, Scene, at_size_of
from scene4d.errors import DataError, UsageError
from scene4d.evaluation.protocol import composited
from scene4d.priors.ffdnet import weight_shapes
from scene4d.priors.gaussian import ByText, GaussianPrior
from scene4d.priors.prior import Prior, PriorInfo
from scene4d.rendering.render import DEPTH, Render
from scene4d.representations.base import Representation
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.task import Task, World
from scene4d.training.coverage import Coverage
from scene4d.training.methods import load_method
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.guidance import Guidance, depth_code, region, tiled
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.priors import patch_memory_of
from scene4d.training.run import read_config
from scene4d.training.step import Step
from scene4d.training.train import load_capture, resume, start

pytestmark = pytest.mark.unchecked_shapes

NEAR = GuidanceOptions(
    weight=1.0, start=0.0, loss="hifa", annealed=False, least_time=0.3, most_time=0.5, size=24,
    crop="none", beyond=0.0, jitter=0.0,
)  # fmt: skip
"""Of pictures as they are, at little noise."""


class Always:
    """One camera, over and over."""

    def __init__(self, camera):
        self.camera = camera

    def draw(self, generator, count=1):
        return [self.camera] * count


class Plain(Step):
    """A step that propagates the straight way."""

    def deferred(self, camera, score, *, chunk_pixels=0, condition=None, want=DEPTH):
        self.trainable.eval()
        loss = score(self.render(camera, condition=condition, want=want))
        (self.weight * loss).backward()
        self.trainable.train()
        return loss.detach()


def objective(prior, *, options=NEAR, seed=0, **task):
    task = {"world": World(), **task}
    inputs = ObjectiveInputs(
        task=Task(prior=prior, **task),
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
    )
    return Guidance(options, inputs)


def step_of(trainable, number=0, kind=Step, **changes):
    settings = {"progress": 0.5, "background": torch.zeros(3), **changes}
    return kind(number=number, trainable=trainable, **settings)


def gradients(trainable):
    found = {n: p.grad.clone() for n, p in trainable.named_parameters() if p.grad is not None}
    trainable.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="module")
def timed(tiny_capture, tmp_path_factory):
    return with_times(shutil.copytree(tiny_capture, tmp_path_factory.mktemp("timed") / "capture"))


@pytest.fixture(scope="module")
def pictures(timed):
    """The capture with times, and its pictures."""
    return load_capture(TrainOptions(data=timed))


@pytest.fixture(params=CAPTURE_METHODS)
def guided(request, pictures):
    """An untrained representation of each family, a camera, and the photograph from there."""
    scene, images = pictures
    scene = at_size_of(scene, images)
    method = load_method(request.param)(steps=10, **SMALL[request.param])
    task = Task(world=World.of(scene), capture=scene)
    built = method.build(task, generator=torch.Generator().manual_seed(0))
    built.on_progress(1.0)
    index = scene.train_indices[0]
    view = images.view(index)
    return built, view.camera, composited(view, torch.zeros(3))


def half_as_large(photograph):
    """As the prior sees it: 24 of 48 pixels, -1..1."""
    return torch.nn.functional.avg_pool2d(2 * photograph.permute(2, 0, 1) - 1, 2)


def test_every_representation_is_pulled_to_the_picture_that_the_prior_knows(guided):
    trainable, camera, photograph = guided
    prior = GaussianPrior(half_as_large(photograph), 0.02**2)
    term = objective(prior, poses=Always(camera))
    optimiser = GroupedAdam(trainable.parameter_groups())

    def error():
        with torch.no_grad():
            return float((trainable.eval().render(camera).rgb - photograph).square().mean())

    before = error()
    for number in range(25):
        trainable.train()
        made = term(step_of(trainable, number))
        # ten times the usual rates: a few steps must show
        optimiser.step(lambda group: 10.0)
    assert made.loss is None
    assert (
        float(made.log["guidance_gradient"]) > 0 and 0.3 <= float(made.log["guidance_time"]) <= 0.5
    )
    assert error() < 0.8 * before


def test_gradients_in_pieces_are_those_of_the_plain_way(guided):
    trainable, camera, photograph = guided
    prior = GaussianPrior(half_as_large(photograph), 0.1)
    found = {}
    for kind, chunk in ((Step, 24 * 24), (Plain, 1 << 16)):
        options = replace(NEAR, chunk_pixels=chunk)
        objective(prior, options=options, poses=Always(camera))(step_of(trainable, kind=kind))
        found[kind] = gradients(trainable)
    assert set(found[Step]) == set(found[Plain])
    whole, apart = (sum(float((found[k][n] - other.get(n, 0)).square().sum()) for n in found[k])
                    for k, other in ((Plain, {}), (Step, found[Plain])))  # fmt: skip
    assert whole > 0
    # EWA bends wide Gaussians at a crop's border (see Step.deferred); what looks beyond a crop
    # (MobileR2L's halo) and float32 make less
    assert apart**0.5 < 0.05 * whole**0.5


def splats():
    made = wide_splats()
    with torch.no_grad():
        made.gaussians["means"].mul_(0.3)
        made.gaussians["scales"].sub_(2.0)
    return made


SPHERE = CamerasOnSphere(distance=4.0, view_angle=0.8, size=40)
GREY = GaussianPrior(lambda condition: torch.zeros(()), 0.1)


def test_the_prior_is_told_the_camera_of_the_picture_that_it_sees():
    seen = {}

    class Notes(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            seen.update(shape=tuple(x_t.shape), camera=condition.camera)
            return super().denoise(x_t, alpha, sigma, condition)

    prior = Notes(lambda condition: torch.zeros(()), 0.1)
    objective(prior, options=replace(NEAR, size=10, crop="shift"), poses=SPHERE)(step_of(splats()))
    assert seen["shape"] == (1, 3, seen["camera"].height, seen["camera"].width)
    assert seen["camera"].height == 9  # 40 pixels, four to one, less the room of the shift
    assert float(seen["camera"].K[0, 0]) == pytest.approx(20 / math.tan(0.4) / 4)


def test_steps_between_guided_ones_log_the_last_of_these():
    term = objective(GREY, options=replace(NEAR, every=3), poses=SPHERE)
    logs = [term(step_of(splats(), number)).log for number in range(7)]
    assert logs[0] is logs[1] is logs[2] and logs[3] is logs[5] and logs[3] is not logs[0]
    assert "guidance_gradient" in logs[4]
    assert not objective(GREY, options=replace(NEAR, every=3), poses=SPHERE)(
        step_of(splats(), 2)
    ).log


@pytest.mark.parametrize("crop", ["shift", "half", "none"])
def test_regions_lie_in_the_picture_and_divide_evenly(crop):
    camera = Camera(c2w=torch.eye(4), K=torch.eye(3), width=50, height=37)
    corners = set()
    for k in range(11):
        cut, factor = region(camera, 12, crop, (k / 10, 1 - k / 10))
        x, y = (round(-float(cut.K[i, 2])) for i in (0, 1))
        corners.add((x, y))
        assert 0 <= x <= 50 - cut.width and 0 <= y <= 37 - cut.height
        assert cut.width % factor == cut.height % factor == 0
        assert factor == (2 if crop == "half" else 4)
    assert len(corners) == 1 if crop == "none" else len(corners) > 3
    exact, factor = region(camera, (16, 16), crop, (0.5, 0.5))
    assert (exact.width, exact.height) == (16 * factor, 16 * factor)
    with pytest.raises(UsageError, match="smaller than the prior's, 64x16"):
        region(camera, (64, 16), crop, (0.5, 0.5))


def test_a_gradient_that_is_not_finite_is_left_out_counted_and_kept():
    class Broken(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            return super().denoise(x_t, alpha, sigma) * (math.nan if self.bad else 1.0)

    prior, scene = Broken(lambda condition: torch.zeros(()), 0.1), splats()
    term = objective(prior, poses=SPHERE)
    for number, bad in enumerate((True, False, True)):
        prior.bad = bad
        made = term(step_of(scene, number))
        assert int(made.log["guidance_left_out"]) == (1, 1, 2)[number]
        assert bool(gradients(scene)) != bad
        assert ("guidance_gradient" in made.log) != bad
    again = objective(prior, poses=SPHERE)
    again.load_state_tensors(term.state_tensors())
    assert int(again.left_out) == 2


def test_colour_and_depth_of_one_render_are_guided_together_or_apart():
    channels = ("rgb", "depth")
    prior = GaussianPrior(lambda condition: torch.zeros(()), 0.1, channels=channels)
    scene, found = splats(), {}
    for chosen in ("all", "rgb", "depth"):
        options = replace(NEAR, channels=chosen)
        objective(prior, options=options, poses=SPHERE)(step_of(scene))
        found[chosen] = gradients(scene)
    colours = [n for n in found["all"] if "sh0" in n]
    assert colours
    for name in colours:
        torch.testing.assert_close(found["all"][name], found["rgb"][name])
        assert float(found["depth"].get(name, torch.zeros(1)).abs().max()) == 0.0
    means = next(n for n in found["all"] if n.endswith("means"))
    both = found["rgb"][means] + found["depth"][means]
    torch.testing.assert_close(found["all"][means], both, rtol=1e-3, atol=1e-6)
    assert depth_code(torch.tensor([0.0, 2.0, 1e9]), 2.0).tolist() == pytest.approx([-1, 0, 1])


def test_views_are_shown_as_one_picture_with_normals():
    """Four of 20 pixels are the 40 that the prior knows; normals move what is seen."""
    seen = {}

    class Notes(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            seen.update(shape=tuple(x_t.shape), camera=condition.camera)
            return super().denoise(x_t, alpha, sigma, condition)

    channels = ("rgb", "normals")
    prior = Notes(lambda condition: torch.zeros(()), 0.1, channels=channels)
    prior.info = replace(prior.info, size=(40, 40))
    poses = CamerasOnSphere(distance=4.0, view_angle=0.8, size=20, views=4)
    scene = splats()
    objective(prior, options=NEAR, poses=poses)(step_of(scene))
    assert seen["shape"] == (1, 6, 40, 40) and seen["camera"].c2w.shape == (4, 4, 4)
    assert any(n.endswith("means") for n in gradients(scene))


def test_tiles_go_row_by_row():
    views = torch.arange(4.0)[:, None, None, None].expand(4, 2, 1, 3)
    whole = tiled(views)
    assert whole.shape == (1, 2, 2, 6)
    assert whole[0, 1].tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]]
    assert torch.equal(tiled(views[1]), views[1:2])


def test_a_guider_turns_what_the_scale_enlarges():
    """What is unwanted lies where the prompt leads: Perp-Neg leaves it there, CFG has no say."""
    grey, red = torch.zeros(3, 1, 1), torch.tensor([0.8, 0.0, 0.0])[:, None, None]
    green = torch.tensor([0.0, 0.8, 0.0])[:, None, None]

    def prior_of(unwanted):
        known = {"red": red, "no": unwanted}
        priors = {name: GaussianPrior(lambda _, mu=mu: mu, 0.1) for name, mu in known.items()}
        return ByText(priors, GaussianPrior(lambda _: grey, 0.1))

    found, scene = {}, splats()
    told = replace(NEAR, scale=4.0, prompt="red", negative_prompt="no")
    for guider in ("cfg", "perp-neg"):
        for name, unwanted in (("across", green), ("along", red)):
            options = replace(told, guider=guider)
            objective(prior_of(unwanted), options=options, poses=SPHERE)(step_of(scene))
            found[guider, name] = gradients(scene)
    colours = next(n for n in found["cfg", "along"] if "sh0" in n)
    plain = found["cfg", "along"][colours]
    # float32
    torch.testing.assert_close(found["cfg", "across"][colours], plain)
    torch.testing.assert_close(found["perp-neg", "along"][colours], plain, rtol=1e-4, atol=1e-7)
    apart = (found["perp-neg", "across"][colours] - plain).reshape(-1, 3).abs().sum(0)
    assert float(apart[1]) > 100 * float(apart[0])  # green is pushed away, red is left


def test_the_background_is_the_worlds_whatever_the_steps():
    """A step's background is drawn at random; what the prior is shown stands on the world's."""
    seen, scene = [], splats()

    class Notes(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            seen.append((x_t, condition.background))
            return super().denoise(x_t, alpha, sigma)

    prior, world = Notes(lambda condition: torch.zeros(()), 0.1), World(background=(1.0, 0.5, 0.0))
    for background in (torch.zeros(3), torch.tensor([0.2, 0.9, 0.4])):
        objective(prior, poses=SPHERE, world=world)(step_of(scene, background=background))
    torch.testing.assert_close(seen[0][0], seen[1][0], rtol=0, atol=1e-5)
    assert seen[0][1].tolist() == [1.0, 0.5, 0.0]


def test_time_stands_still_where_it_is_told_to():
    at = {}

    class Notes(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            at.setdefault("times", []).append(float(condition.camera.time))
            return super().denoise(x_t, alpha, sigma)

    prior = Notes(lambda condition: torch.zeros(()), 0.1)
    moving = replace(SPHERE, times=(0.0, 4.0))
    for options in (NEAR, replace(NEAR, at_time=1.5)):
        at.clear()
        term = objective(prior, options=replace(options, pictures=4), poses=moving)
        term(step_of(splats()))
        if options.at_time is None:
            assert len(set(at["times"])) == 4 and 0 <= min(at["times"]) <= max(at["times"]) <= 4
        else:
            assert at["times"] == [1.5] * 4


def test_guided_pictures_weigh_as_their_mean_and_only_every_so_often():
    scene, prior = splats(), GREY
    camera = SPHERE.draw(torch.Generator().manual_seed(3))[0]
    exact = replace(NEAR, loss="fixer")

    found = []
    for pictures in (1, 3):
        options = replace(exact, pictures=pictures)
        objective(Higher(), options=options, poses=Always(camera))(step_of(scene, weight=0.5))
        found.append(gradients(scene))
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], rtol=1e-4, atol=1e-7)
    rarely = objective(prior, options=replace(NEAR, every=3), poses=SPHERE)
    steps = [step_of(scene, n) for n in range(4)]
    logs = [rarely(step).log for step in steps]
    assert [bool(step.shots) for step in steps] == [True, False, False, True]
    assert logs[0] == logs[1] == logs[2]  # of the last guided one


# Where training cameras do not see


class Wall(Representation):
    """A plane of the world at z = -2, wherever the camera looks, of one colour."""

    def __init__(self):
        super().__init__()
        self.colour = torch.nn.Parameter(torch.zeros(3))

    def render(self, camera, *, background=None, want=DEPTH):
        shape = (*camera.c2w.shape[:-2], camera.height, camera.width)
        depth = torch.full(shape, 2.0) if want.depth else None
        return Render(rgb=self.colour.expand(*shape, 3), alpha=torch.ones(shape), depth=depth)

    parameter_groups = plain_data = from_saved = None


class Higher(Prior):
    """Of every value it wants one more."""

    info = PriorInfo()

    def denoise(self, x_t, alpha, sigma, condition=None):
        return x_t + 1


def looking(x, size=32):
    pose = torch.eye(4)
    pose[0, 3] = x
    K = torch.tensor([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1.0]])
    return Camera(c2w=pose, K=K, width=size, height=size)


def test_coverage_is_where_a_training_camera_sees_the_same_surface():
    coverage = Coverage([looking(0.0)])
    coverage.refresh(Wall(), 0, torch.device("cpu"))
    depth, alpha = torch.full((32, 32), 2.0), torch.ones(32, 32)
    aside = looking(2.0)  # sees x from 0 to 4 of the wall; the training camera -2 to 2
    seen = coverage.seen(aside, depth, alpha)
    assert bool(seen[:, :16].all()) and not bool(seen[:, 16:].any())
    assert not bool(coverage.seen(aside, 1.5 * depth, alpha).any())  # behind the wall
    before = coverage.seen(looking(0.5), 0.5 * depth, alpha)  # x from -0.5 to 1.5, of -1 to 1
    assert bool(before[:, :24].all()) and not bool(before[:, 24:].any())
    assert not bool(coverage.seen(aside, depth, 0 * alpha).any())  # nothing is there


def test_what_cameras_see_is_kept_in_checkpoints():
    cameras = [looking(0.0), looking(1.0, size=20)]
    coverage, again = Coverage(cameras), Coverage(cameras)
    assert coverage.state_tensors() == {}
    again.load_state_tensors({}, torch.device("cpu"))
    coverage.refresh(Wall(), 7, torch.device("cpu"))
    kept = coverage.state_tensors()
    again.load_state_tensors(kept, torch.device("cpu"))
    never = Wall()
    never.render = None  # its maps are young enough: nothing is rendered
    again.refresh(never, 106, torch.device("cpu"))
    assert all(torch.equal(value, kept[name]) for name, value in again.state_tensors().items())
    with pytest.raises(ValueError, match="'coverage_step' is missing"):
        again.load_state_tensors({"coverage_maps": kept["coverage_maps"]}, torch.device("cpu"))


def test_only_what_is_unseen_is_guided():
    frame = Frame(name="0", camera=looking(0.0), image_path=Path("0.png"))
    capture = Scene(root=Path(), dataparser="none", frames=[frame], train_indices=[0],
                    test_indices=[], split_rule="none")  # fmt: skip
    wall = Wall()
    # x is 2 rgb - 1 and g is -1, over 3 channels: -2/3 for each colour where all pixels count
    for unseen_only, x, expected in ((False, 2.0, -2 / 3), (True, 2.0, -1 / 3), (True, 0.0, 0.0)):
        options = replace(NEAR, loss="fixer", size=32, unseen_only=unseen_only)
        objective(Higher(), options=options, capture=capture, poses=Always(looking(x)))(
            step_of(wall)
        )
        assert gradients(wall)["colour"].tolist() == pytest.approx([expected] * 3)


# From the command line


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def newest(output):
    return max(output.glob("*/*/*/"))


def test_a_training_is_guided_by_patches_of_its_own_pictures_and_resumes(
    tiny_capture, tmp_path, capsys
):
    arguments = [
        "train", "splat", "--data", str(tiny_capture), "--output-dir", str(tmp_path), "--device",
        "cpu", "--no-evaluate", "--steps", "4", "--num-random-points", "50", "--prior", "patches",
        "--guidance.start", "0", "--coarsest-downscale", "1",
    ]  # fmt: skip
    assert main(arguments) == 0
    run = newest(tmp_path)
    assert rows(run)[0]["guidance_gradient"] > 0
    assert read_config(run)[1].prior == "patches"
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 4", "steps = 11"))
    assert main(["train", "--resume", str(run), "--no-evaluate"]) == 0
    assert [row["guidance_left_out"] for row in rows(run) if row["step"] == 10] == [0.0]
    capsys.readouterr()


def test_a_folder_of_ffdnets_weights_guides(tiny_capture, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    weights = {n: 0.01 * torch.randn(s, generator=generator) for n, s in weight_shapes().items()}
    (tmp_path / "weights").mkdir()
    save_file(weights, tmp_path / "weights" / "ffdnet_color.safetensors")
    options = TrainOptions(
        data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False,
        prior=f"ffdnet:{tmp_path / 'weights'}",
    )  # fmt: skip
    method = load_method("splat")(
        steps=2, num_random_points=50, coarsest_downscale=1,
        guidance=GuidanceOptions(start=0.0, unseen_only=True),
    )  # fmt: skip
    run = start(method, options)
    assert "guidance_gradient" in rows(run)[0]
    (tmp_path / "weights").rename(tmp_path / "moved")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 2", "steps = 3"))
    assert main(["train", "--resume", str(run), "--no-evaluate"]) == 1
    assert "not found" in capsys.readouterr().err
    again = ["train", "--resume", str(run), "--prior", str(tmp_path / "moved"), "--no-evaluate"]
    assert main(again) == 0


@pytest.mark.parametrize(
    ("prior", "status", "words"),
    [
        ("nothing-there", 1, "the prior was not found"),
        ("ffdnet", 2, "ffdnet needs its weights"),
        ("ffdnet:nothing-there", 1, "not found"),
        ("patches:nothing-there", 1, "nothing-there"),
        (300 * "x", 1, "the prior was not found"),
        ("unknown:place", 2, "no kind of prior 'unknown'"),
        ("", 2, "names nothing"),
    ],
)
def test_bad_priors_are_told(prior, status, words, tiny_capture, tmp_path, capsys):
    arguments = ["train", "splat", "--data", str(tiny_capture), "--output-dir", str(tmp_path),
                 "--device", "cpu", "--steps", "2", f"--prior={prior}"]  # fmt: skip
    assert main(arguments) == status
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told


def test_a_folder_that_is_no_prior_is_told(tiny_capture, tmp_path):
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path, prior=str(tiny_capture))
    with pytest.raises(DataError, match="is no prior of any kind"):
        start(load_method("splat")(steps=2), options)
    unasked = load_method("splat")(steps=2, guidance=GuidanceOptions(weight=0.0))
    with pytest.raises(UsageError, match="no term of the method 'splat' asks it"):
        start(unasked, replace(options, prior="patches"))


def test_a_prior_from_python_must_be_given_again(tiny_capture, tmp_path):
    options = TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    method = load_method("splat")(
        steps=2, num_random_points=50, coarsest_downscale=1, guidance=replace(NEAR, weight=0.1)
    )
    run = start(method, options, prior=GREY)
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 2", "steps = 3"))
    with pytest.raises(UsageError, match="a GaussianPrior"):
        resume(run)
    resume(run, prior=GREY)
    with pytest.raises(UsageError, match="two priors"):
        start(method, replace(options, prior="patches"), prior=GREY)


def test_patches_of_a_capture_are_of_its_training_pictures_alone(pictures):
    scene, images = pictures
    memory = patch_memory_of(scene, images)
    assert memory.info.channels == ("rgb",) and memory.info.longest_side == 48
    view = images.view(scene.train_indices[0])
    x = (2 * composited(view, torch.tensor(scene.background or (0.0, 0.0, 0.0))) - 1).permute(
        2, 0, 1
    )[None]
    one = torch.ones(1)
    # the nearest patch; in float32 those nearer than 1e-5 in all are one
    torch.testing.assert_close(memory.denoise(x, one, 0 * one), x, rtol=0, atol=1e-2)


# What cannot be


@pytest.mark.parametrize(
    ("info", "options", "words"),
    [
        (PriorInfo(), {"channels": "xyz"}, "guides xyz, and the prior knows rgb"),
        (PriorInfo(frames=16), {"target": "regenerate", "loss": "hifa"}, "videos of 16 frames"),
        (
            PriorInfo(channels=("depth",), needs_picture=True),
            {},
            "of a picture that is given",
        ),
        (PriorInfo(), {"guider": "perp-neg", "scale": 5.0}, "this prior reads none"),
        (PriorInfo(space="latent"), {}, "neither encodes nor decodes"),
        (PriorInfo(), {"channels": "depth"}, "guides depth, and the prior knows rgb"),
        (PriorInfo(), {"prompt": "a chair"}, "reads no text"),
        (PriorInfo(ratios=(0.0, 0.1)), {"least_time": 0.5, "most_time": 0.9}, "at no noise"),
        (PriorInfo(), {"loss": "csd"}, "this prior reads none"),
    ],
)
def test_priors_that_cannot_guide_are_refused(info, options, words):
    class Other(Prior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            return x_t

    prior = Other()
    prior.info = info
    with pytest.raises(UsageError, match=words):
        objective(prior, options=replace(NEAR, **options), poses=SPHERE)


def test_a_task_without_cameras_has_nowhere_to_look_from():
    with pytest.raises(UsageError, match="nowhere to look from"):
        objective(GREY)
    with pytest.raises(UsageError, match="no training cameras"):
        objective(GREY, options=replace(NEAR, unseen_only=True), poses=SPHERE)
