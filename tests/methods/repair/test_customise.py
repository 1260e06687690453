"""A fixer fitted to one capture: which pictures tell what, what is kept, and whom it warns."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from methods.repair.test_fixer_training import some

from scene4d.cli.main import main
from scene4d.data.load import read_scene
from scene4d.errors import DataError, UsageError
from scene4d.methods.repair.custom import CustomFixer, FarPairs, Preserving, mean_psnr
from scene4d.methods.repair.custom_method import CustomFixerMethod
from scene4d.methods.repair.customise import parts_of
from scene4d.methods.repair.pairs import read_pairs, write_pairs
from scene4d.priors.fixer import Fixer, FixerShape, load_fixer
from scene4d.priors.prior import CaptureMark
from scene4d.training.fixers import mark_of, warn_of_other_capture
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.run import read_config

pytestmark = pytest.mark.unchecked_shapes

SHAPE = FixerShape(references=2, widths=(8, 8))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of pairs to learn from, one of far ones."""
    root = tmp_path_factory.mktemp("pairs")
    for name, count in (("learned", 6), ("far", 3)):
        (root / name).mkdir()
        write_pairs(some(count), root / name / "pairs.safetensors")
    return root


def method(weights, pairs, **changes):
    made = CustomFixerMethod(original=weights, references=2, widths=(8, 8), **changes)
    return replace(
        made,
        repairing=replace(
            made.repairing, pairs=pairs / "learned", crop_size=16, perceptual_weight=0.0
        ),
        preserving=replace(made.preserving, crop_size=16),
        early_stop=replace(made.early_stop, far=pairs / "far", every=1, patience=2),
    )


def started(weights, pairs, **changes):
    made = method(weights, pairs, **changes)
    return made, made.build(None, generator=torch.Generator())


def test_only_the_named_layers_are_trained_and_others_are_told(weights, pairs):
    _, trained = started(weights, pairs, layers=("leave",))
    (group,) = trained.parameter_groups()
    assert {p.shape for p in group.parameters} == {
        p.shape for p in trained.fixer.leave.parameters()
    }
    assert len(group.parameters) == 2
    with pytest.raises(UsageError, match="no layers 'attention'"):
        started(weights, pairs, layers=("leave", "attention"))


def test_what_the_original_says_of_strange_photographs_is_kept(weights, pairs):
    made, trained = started(weights, pairs)
    inputs = ObjectiveInputs(task=None, generator=torch.Generator(), device=torch.device("cpu"))
    term = Preserving(replace(made.preserving, original=weights, pairs=pairs / "far"), inputs)
    step = SimpleNamespace(trainable=trained)
    assert float(term(step).loss.detach()) == 0.0  # it is the original
    with torch.no_grad():
        trained.fixer.leave.bias[:12] += 0.1  # what is added to colours
    # an untrained network lets about half of it pass
    assert float(term(step).loss.detach()) == pytest.approx(0.05, rel=0.02)


def looks(trained, options):
    optimiser = GroupedAdam(trained.parameter_groups())
    return FarPairs(options, trained, optimiser, torch.Generator())


def test_the_best_one_by_far_pictures_is_kept_and_training_ends(weights, pairs):
    made, trained = started(weights, pairs)
    stop = looks(trained, made.early_stop)
    before, far = stop.first, read_pairs(pairs / "far")
    # far pictures are 50 too dark: what adds a tenth is better, what takes more away is worse
    for number, (change, finished) in enumerate(((0.1, False), (-0.3, False), (-0.3, True))):
        with torch.no_grad():
            trained.fixer.leave.bias[:12] += change
        stop.after_step(SimpleNamespace(number=number))
        assert stop.finished is finished
    assert trained.far[0] == before < trained.far[1]
    assert mean_psnr(trained.kept, far) == pytest.approx(trained.far[1])
    assert mean_psnr(trained.fixer, far) < before
    again = looks(trained, made.early_stop)
    again.load_state_tensors(stop.state_tensors())
    assert again.finished and (again.first, again.best) == pytest.approx((before, stop.best))
    with pytest.raises(ValueError, match="without a gain"):
        again.load_state_tensors({"found": torch.tensor([1.0, 1.0, -1.0])})


def test_psnr_of_far_pictures_is_the_mean_over_them(pairs):
    class Same(Fixer):
        def forward(self, rgb, alpha, references):
            return SimpleNamespace(rgb=rgb)

    found = mean_psnr(Same(SHAPE), read_pairs(pairs / "far"))
    assert found == pytest.approx(-20 * math.log10(50 / 255), rel=1e-5)


def test_a_checkpoint_brings_both_networks_back(weights, pairs, tmp_path):
    mark = ("a capture", "0" * 64)
    _, trained = started(weights, pairs, capture=mark)
    again = CustomFixer.from_saved(trained.state_dict(), trained.plain_data())
    assert again.layers == trained.layers and again.mark == CaptureMark(
        name=mark[0], digest=mark[1]
    )
    written = load_fixer(again.write(tmp_path))
    assert written.capture == again.mark
    assert set(CustomFixer.saved_forms(trained.plain_data())) == set(trained.state_dict())
    with pytest.raises(DataError, match="layers"):
        CustomFixer.from_saved(trained.state_dict(), {**trained.plain_data(), "layers": 3})


def test_far_pictures_are_the_farthest_and_nothing_is_learned_from_them(row):
    scene = read_scene(row)
    parts = parts_of(scene, 4)
    train = set(scene.train_indices)
    groups = [set(parts.trained), set(parts.learned), set(parts.far)]
    assert set.union(*groups) <= train and sum(map(len, groups)) == len(train)
    assert len(parts.trained) == 4 and len(parts.far) == len(train) // 4
    place = {i: float(scene.frames[i].camera.position[0]) for i in train}
    assert min(place[i] for i in parts.far) > max(place[i] for i in parts.learned)
    assert max(place[i] for i in parts.trained) < sorted(place.values())[len(train) // 2]
    few = replace(scene, train_indices=list(scene.train_indices)[:8])
    with pytest.raises(UsageError, match="4 of each are needed"):
        parts_of(few, 4)


def test_the_verb_fits_a_fixer_to_a_capture_and_others_are_warned(
    row, weights, tmp_path, capsys, caplog
):
    command = ["prior", "customise", str(weights), "--data", str(row)]
    small = ["--steps", "4", "--scene-steps", "4", "--photographs", "4"]
    assert main([*command, *small, "--output-dir", str(tmp_path)]) == 0
    made = load_fixer(tmp_path / capsys.readouterr().out.strip())
    scene = read_scene(row)
    assert made.capture == mark_of(scene) and made.capture.name == "row"
    (run,) = tmp_path.glob("row/custom-fixer/*")
    assert read_config(run)[0].original == weights.resolve()
    learned = read_pairs(tmp_path / "row/pairs/seed-0/learned")
    far = read_pairs(tmp_path / "row/pairs/seed-0/far")
    # three moments, whole and with splats dropped, of 12 and of 5 pictures
    parts = parts_of(scene, 4)
    assert (len(learned), len(far)) == (6 * len(parts.learned), 6 * len(parts.far))
    caplog.clear()
    warn_of_other_capture(made, scene)
    assert not caplog.records
    moved = replace(scene, frames=scene.frames[1:])
    warn_of_other_capture(made, moved)
    assert "customised for the capture row" in caplog.text


def test_what_cannot_be_customised_is_told(row, tmp_path, capsys):
    assert main(["prior", "customise", str(tmp_path / "none"), "--data", str(row)]) == 1
    weights = tmp_path / "ffdnet_color.safetensors"
    weights.touch()
    assert main(["prior", "customise", str(weights), "--data", str(row)]) == 2
    assert "whose weights stay as they are" in capsys.readouterr().err
