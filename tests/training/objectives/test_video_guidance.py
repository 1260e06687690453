"""Guidance by priors of videos: a flight's pictures are asked about together."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from optional_packages import import_or_skip
from training.objectives.test_guidance import (
    NEAR,
    SPHERE,
    Always,
    Wall,
    gradients,
    guided,  # noqa: F401
    half_as_large,
    looking,
    objective,
    pictures,  # noqa: F401
    splats,
    step_of,
    timed,  # noqa: F401
)

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene, View
from scene4d.errors import UsageError
from scene4d.priors.frames import FramesPrior
from scene4d.priors.prior import Prior, PriorInfo
from scene4d.priors.unet import UnetPrior, UnetShape, VideoShape
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.task import World

pytestmark = pytest.mark.unchecked_shapes
EXACT = replace(NEAR, loss="fixer")
"""Without noise: the prior's answer alone."""


class Known(Prior):
    """Knows one picture, or one video."""

    def __init__(self, picture, frames=None):
        super().__init__()
        self.picture, self.info = picture, PriorInfo(frames=frames)

    def denoise(self, x_t, alpha, sigma, condition=None):
        return self.picture.expand(x_t.shape)


def capture_of(cameras):
    """A capture that was trained on at these cameras."""
    frames = [Frame(name=str(n), camera=camera, image_path=Path(f"{n}.png"))
              for n, camera in enumerate(cameras)]  # fmt: skip
    return Scene(root=Path(), dataparser="none", frames=frames, test_indices=[],
                 train_indices=list(range(len(cameras))), split_rule="none")  # fmt: skip


def test_frames_that_have_nothing_to_do_with_each_other_are_guided_as_pictures(guided):  # noqa: F811
    trainable, camera, photograph = guided
    cameras = [replace(camera, time=camera.time + 0.1 * number) for number in range(3)]
    known = [half_as_large(photograph) + 0.1 * number for number in range(3)]
    video = Known(torch.stack(known), frames=3)
    objective(video, options=EXACT, poses=Always(Camera.stack(cameras)))(step_of(trainable))
    together = gradients(trainable)
    total = {name: torch.zeros_like(value) for name, value in together.items()}
    for one, mean in zip(cameras, known, strict=True):
        objective(Known(mean), options=EXACT, poses=Always(one))(step_of(trainable))
        for name, value in gradients(trainable).items():
            total[name] += value / 3
    scale = max(float(value.abs().max()) for value in total.values())
    assert scale > 0
    for name, value in together.items():
        # sums of float32 in another order
        torch.testing.assert_close(value, total[name], rtol=1e-3, atol=1e-5 * scale)


def test_every_representation_is_guided_from_the_photograph_by_a_predictor_of_frames(guided):  # noqa: F811
    trainable, camera, photograph = guided
    view = SimpleNamespace(camera=lambda index: camera, view=lambda index: View(
        index=index, camera=camera, rgb=photograph))  # fmt: skip
    capture = replace(capture_of([camera]), pictures=view)
    film = VideoShape(interval=0.1, longest=0.5, change=1e-3)
    shape = UnetShape(channels=("rgb",), widths=(8, 8), down=("", ""), up=("", ""), video=film)
    options = replace(NEAR, sweep=0.0, frozen=1.0)
    world = World(times=(0.0, 1.0))
    found = []
    # which expects no change: at noise of a thousand times what changes, the photograph itself
    for prior in (FramesPrior(UnetPrior(shape)), Known(half_as_large(photograph), frames=4)):
        prior.info = replace(prior.info, conditions=frozenset({"picture", "camera"}))
        log = objective(prior, options=options, capture=capture, world=world)(
            step_of(trainable)
        ).log
        assert float(log["guidance_gradient"]) > 0 and int(log["guidance_left_out"]) == 0
        found.append(gradients(trainable))
    scale = max(float(value.abs().max()) for value in found[1].values())
    for name, value in found[0].items():
        # (0.001 / 0.5)^2 of the noise is left in, four times at most
        torch.testing.assert_close(value, found[1][name], rtol=1e-2, atol=1e-3 * scale)


def test_a_predictor_of_frames_wants_a_scene_that_moves_and_flights_that_do_not_turn(caplog):
    prior = Notes(3)
    prior.info = replace(prior.info, by_time=True)
    with pytest.raises(UsageError, match="the scene does not move"):
        objective(prior, options=EXACT, poses=SPHERE)
    world = World(times=(0.0, 1.0))
    for changes, noted in (({"sweep": 0.0, "frozen": 0.0}, False), ({}, True)):
        caplog.clear()
        objective(prior, options=replace(EXACT, **changes), poses=SPHERE, world=world)
        assert ("--guidance.sweep 0 --guidance.frozen 0" in caplog.text) == noted


class Higher(Prior):
    """Wants videos brighter by one."""

    info = PriorInfo(frames=2)

    def denoise(self, x_t, alpha, sigma, condition=None):
        return x_t + 1


def test_of_a_video_only_what_is_unseen_is_guided():
    wall = Wall()
    there = Camera.stack([looking(0.0, 32), looking(2.0, 32)])
    # of the first frame nothing is unseen, of the second one half
    for unseen_only, expected in ((False, -2 / 3), (True, -2 / 3 / 4)):
        options = replace(EXACT, size=32, unseen_only=unseen_only)
        first = capture_of([looking(0.0, 32)])
        objective(Higher(), options=options, poses=Always(there), capture=first)(step_of(wall))
        assert gradients(wall)["colour"].tolist() == pytest.approx([expected] * 3)


class Notes(Prior):
    """Remembers what it is asked about."""

    def __init__(self, frames):
        super().__init__()
        self.info, self.seen, self.known = PriorInfo(frames=frames), [], []

    def denoise(self, x_t, alpha, sigma, condition=None):
        self.seen.append((x_t.shape, condition.camera))
        self.known.append(condition)
        return x_t


def test_without_poses_flights_begin_at_the_captures_cameras():
    drawn = SPHERE.draw(torch.Generator().manual_seed(0), 6)
    capture = capture_of(
        [replace(camera, time=torch.tensor(0.1 * n)) for n, camera in enumerate(drawn)]
    )
    prior = Notes(4)
    options = replace(EXACT, size=20, sweep=40.0, frozen=0.0, seconds=0.3, pictures=3)
    objective(prior, options=options, capture=capture)(step_of(splats()))
    assert [shape for shape, _ in prior.seen] == [(1, 4, 3, 20, 20)] * 3
    for _, flight in prior.seen:
        assert flight.c2w.shape == (4, 4, 4) and (flight.width, flight.height) == (20, 20)
        left = min(0.1, (0.5 - float(flight.time[0])) / 3)  # until the scene ends
        assert torch.allclose(flight.time.diff(), torch.full((3,), left), atol=1e-6)
    with pytest.raises(UsageError, match="videos of 7 pictures of a prior that knows videos of 4"):
        objective(prior, options=replace(options, frames=7), capture=capture)


class Photographs:
    """Pictures in which every pixel is another one, from cameras with times."""

    def __init__(self, cameras):
        self.cameras = cameras

    def camera(self, index):
        return self.cameras[index]

    def view(self, index):
        camera = self.cameras[index]
        count = 3 * camera.height * camera.width
        rgb = torch.linspace(0, 1, count).reshape(camera.height, camera.width, 3) / (index + 1)
        return View(index=index, camera=camera, rgb=rgb)


def test_priors_that_go_on_from_a_picture_are_given_the_photograph():
    drawn = SPHERE.draw(torch.Generator().manual_seed(0), 5)
    cameras = [replace(camera, time=torch.tensor(0.1 * n)) for n, camera in enumerate(drawn)]
    source = Photographs(cameras)
    capture = replace(capture_of(cameras), pictures=source, train_indices=[1, 2, 4])
    prior = Notes(3)
    prior.info = replace(prior.info, conditions=frozenset({"picture", "camera"}))
    options = replace(EXACT, size=18, crop="shift", pictures=6)
    objective(prior, options=options, capture=capture)(step_of(splats()))
    found = set()
    for known in prior.known:
        (index,) = (n for n, c in enumerate(cameras) if torch.equal(c.c2w, known.camera.c2w[0]))
        whole = 2 * source.view(index).rgb.permute(2, 0, 1) - 1
        assert known.picture.shape == (1, 3, 19, 19)  # 40 pixels, two to one, less the shift
        # of the shifts of up to a small pixel, the one whose pixels these are
        tries = [torch.nn.functional.avg_pool2d(whole[:, y:, x:][:, :38, :38], 2)
                 for y in range(3) for x in range(3)]  # fmt: skip
        assert min(float((known.picture[0] - t).abs().max()) for t in tries) < 1e-6
        found.add(index)
    assert found <= {1, 2, 4} and len(found) > 1


def test_photographs_from_one_place_are_first_frames_too():
    camera = SPHERE.draw(torch.Generator().manual_seed(0))[0]
    same = [camera, camera]  # from a stand, of a capture without times
    prior = Notes(3)
    prior.info = replace(prior.info, conditions=frozenset({"picture"}))
    capture = replace(capture_of(same), pictures=Photographs(same))
    objective(prior, options=replace(EXACT, size=20), capture=capture)(step_of(splats()))
    assert prior.known[0].picture.shape == (1, 3, 20, 20)


@pytest.mark.parametrize(
    ("info", "options", "words"),
    [
        (PriorInfo(frames=4, needs_picture=True), {}, "knows nothing without it"),
        (PriorInfo(frames=4), {"target": "regenerate", "loss": GuidanceOptions().loss},
         "knows no single pictures"),
    ],
)  # fmt: skip
def test_what_videos_cannot_guide_is_refused(info, options, words):
    prior = Notes(4)
    prior.info = info
    with pytest.raises(UsageError, match=words):
        objective(prior, options=replace(EXACT, **options), poses=SPHERE)


def test_a_video_model_of_latents_guides_a_flight(tmp_path):
    import_or_skip("diffusers")
    from priors.test_diffusion_families import wan_first

    from scene4d.priors.diffusion import load_diffusion
    from scene4d.priors.prompts import Prompts

    torch.manual_seed(0)
    made = wan_first()
    made.pipeline.save_pretrained(tmp_path)
    prior = load_diffusion(tmp_path, prompts=Prompts({"": made.text}))
    assert prior.num_pictures == 1
    # four pictures a latent frame, but for the first
    assert [prior.of_videos(n).info.frames for n in (1, 4, 5, 9, 12)] == [1, 1, 2, 3, 3]
    assert prior.of_videos(12).num_pictures == 9
    cameras = SPHERE.draw(torch.Generator().manual_seed(0), 5)
    scene = splats()
    term = objective(prior, options=replace(NEAR, frames=5), poses=Always(Camera.stack(cameras)))
    log = term(step_of(scene)).log
    # and with a first frame, whose latents are those of the picture
    capture = replace(capture_of(cameras), pictures=Photographs(cameras))
    begun = objective(prior, options=replace(NEAR, frames=5), capture=capture)
    assert float(begun(step_of(scene)).log["guidance_gradient"]) > 0
    assert float(log["guidance_gradient"]) > 0 and int(log["guidance_left_out"]) == 0
    assert any(float(value.abs().max()) > 0 for value in gradients(scene).values())
