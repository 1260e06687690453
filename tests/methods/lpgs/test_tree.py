"""Adaptive tree manipulation: what must not change when children become parents, and sizes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.exporters.bundle import LANDING, export
from scene4d.methods.lpgs.method import LpgsMethod, RateOptions, TreeOptions
from scene4d.methods.lpgs.parent_child import START_STEPS, ParentChildSplats
from scene4d.methods.lpgs.settings import Settings
from scene4d.methods.lpgs.structure import CODED, Structure
from scene4d.methods.lpgs.tree import Tree
from scene4d.rendering.fields.hash_grid import GridShape
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import resume, start

pytestmark = pytest.mark.unchecked_shapes

STRUCTURE = Structure(
    num_children=2,
    sh_degree=1,
    grid=GridShape.growing(levels=2, features=2, coarsest=2, finest=8, max_rows=100),
    hidden=16,
    attention=False,
    contraction=True,
    centre=(0.0, 0.0, 0.0),
    radius=2.0,
    position_bits=16,
)
NEVER = 2.0


def make_scene(structure=STRUCTURE, *, count=40, learned=0.0, **settings):
    """Random families; ``learned``: how far the network is from saying nothing of parents."""
    g = torch.Generator().manual_seed(0)
    splats = GaussianSplats(
        {
            "means": torch.randn(count, 3, generator=g),
            "quats": torch.randn(count, 4, generator=g),
            "scales": torch.randn(count, 3, generator=g) * 0.5 - 2,
            "opacities": torch.randn(count, generator=g) + 1,
            "sh0": torch.randn(count, 1, 3, generator=g),
            "shN": torch.randn(count, 3, 3, generator=g) * 0.3,
        }
    )
    names = ("means", *CODED, "keep", "keep_children", "grid", "network", "quantisers")
    scene = ParentChildSplats.from_splats(
        splats,
        structure,
        Settings(learning_rates=dict.fromkeys(names, 1e-3), **settings),
        generator=g,
    )
    with torch.no_grad():
        for parameter in scene.network.parameters():
            parameter += learned * torch.randn(parameter.shape, generator=g)
    return scene


def make_tree(scene, **options):
    optimiser = GroupedAdam(scene.parameter_groups())
    generator = torch.Generator().manual_seed(1)
    return Tree(TreeOptions(**options), scene, optimiser, generator), optimiser


def camera(size=40):
    c2w = torch.eye(4)
    c2w[2, 3] = 6.0
    intrinsics = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=size, height=size)


def pulled(tree, *places):
    for parent, child in places:
        tree.pull[parent, child] = 1.0
        tree.seen[parent, child] = 1.0


PLACES = ((3, 1), (7, 0))


@pytest.mark.parametrize("learned", [0.0, 0.03])
def test_a_promoted_child_leaves_the_picture_as_it_is(learned):
    scene = make_scene(learned=learned, quantise_at=NEVER)
    tree, _ = make_tree(scene)
    before, described = scene.render(camera()).rgb, scene.describe()
    pulled(tree, *PLACES)
    tree._promote()
    assert scene.num_gaussians == 42
    assert (scene.gaussians["keep_children"][[3, 7], [1, 0]] < 0).all()
    assert (scene.gaussians["keep_children"][40:] < 0).all()
    assert scene.describe() == {**described, "num_parents": 42}
    # float32; the correction of a parent is undone by iteration, down to some float32 steps.
    torch.testing.assert_close(scene.render(camera()).rgb, before, rtol=0, atol=1e-4)


def rows_at(scene, parents, child):
    unpacked = scene.unpack()
    rows = [
        int(((unpacked.parent == p) & (unpacked.child == c)).nonzero()[0, 0])
        for p, c in zip(parents, child, strict=True)
    ]
    return {name: value[rows].detach() for name, value in unpacked.tensors.items()}


@pytest.mark.parametrize("rounded", [False, True])
def test_a_promoted_child_of_an_attentive_family_keeps_its_own_looks(rounded):
    """Its sisters and its parent lose it from their attention; rounding moves it by half a step,
    and its correction with it."""
    structure = replace(STRUCTURE, attention=True)
    scene = make_scene(structure, learned=0.03, quantise_at=0.0 if rounded else NEVER)
    tree, _ = make_tree(scene)
    before = rows_at(scene, [3, 7], [1, 0])
    pulled(tree, *PLACES)
    tree._promote()
    order = [0, 1] if float(scene.means[40, 0]) == float(before["means"][0, 0]) else [1, 0]
    after = rows_at(scene, [40, 41], [-1, -1])
    for name in ("means", "scales", "sh0", "shN"):
        step = {"means": 4 * 2.0 / 2**16}.get(name) or START_STEPS[name]
        tolerance = 0.75 * step if rounded else 1e-4
        torch.testing.assert_close(after[name], before[name][order], rtol=0, atol=tolerance)
    tolerance = 0.75 * START_STEPS["opacities"] / 4 if rounded else 1e-4  # slope of the sigmoid
    torch.testing.assert_close(after["alphas"], before["alphas"][order], rtol=0, atol=tolerance)


def test_only_the_strongest_are_promoted_and_never_beyond_the_limit():
    scene = make_scene(max_num_gaussians=42)
    tree, _ = make_tree(scene, promote_share=1.0, promote_gradient=0.5)
    tree.pull[:10, 0] = torch.linspace(0.4, 1.3, 10)
    tree.seen[:10, 0] = 1.0
    tree._promote()
    assert scene.num_gaussians == 42
    promoted = (scene.gaussians["keep_children"][:40, 0] < 0).nonzero()[:, 0]
    assert promoted.tolist() == [8, 9]
    tree._clear()
    pulled(tree, (0, 0))
    tree._promote()
    assert scene.num_gaussians == 42


def test_dead_children_are_not_promoted():
    scene = make_scene()
    tree, _ = make_tree(scene)
    with torch.no_grad():
        scene.gaussians["keep_children"][3, 1] = -1.0
    pulled(tree, (3, 1))
    tree._promote()
    assert scene.num_gaussians == 40


def test_pruning_drops_masked_and_transparent_parents_with_their_moments():
    scene = make_scene()
    tree, optimiser = make_tree(scene)
    (scene.render(camera()).rgb.sum() + scene.estimated_bytes()).backward()
    optimiser.step(lambda name: 1.0)
    with torch.no_grad():
        scene.gaussians["keep"][::4] = -0.1
        scene.gaussians["opacities"][1::4] = -6.0  # 0.0025
    kept = torch.tensor([i for i in range(40) if i % 4 > 1])
    before = {name: value.detach().clone() for name, value in scene.gaussians.items()}
    moments = {name: value.clone() for name, value in optimiser.state_tensors().items()}
    tree._prune()
    assert scene.num_gaussians == 20
    after = optimiser.state_tensors()
    for name, value in before.items():
        assert torch.equal(scene.gaussians[name], value[kept])
        for key in ("exp_avg", "exp_avg_sq"):
            whole = moments[f"{name}.0.{key}"]
            assert torch.equal(after[f"{name}.0.{key}"], whole[kept])
    assert moments["sh0.0.exp_avg"].any()
    scene.render(camera()).rgb.sum().backward()
    optimiser.step(lambda name: 1.0)  # the optimiser goes on with the rows that are left


def test_the_last_parents_are_not_pruned():
    scene = make_scene()
    tree, _ = make_tree(scene)
    with torch.no_grad():
        scene.gaussians["keep"].fill_(-1.0)
    tree._prune()
    assert scene.num_gaussians == 40


# Whole trainings

METHOD = LpgsMethod(
    steps=60, init="random", num_random_points=300, max_num_gaussians=400, sh_degree=1,
    num_children=1, grid=True, grid_levels=2, grid_finest=16, hidden=16,
    warm_up=0.3, quantise_at=0.4,
    tree=TreeOptions(tree_every=4, refine_every=5, grow_until=0.2, promote_gradient=1e-6),
)  # fmt: skip


def options(capture, output_dir, **changes):
    settings = {"data": capture, "output_dir": output_dir, "device": "cpu", "evaluate": False}
    return TrainOptions(**{**settings, **changes})


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_parents_grow_during_warm_up_and_children_become_parents_afterwards(tiny_capture, tmp_path):
    method = replace(METHOD, max_num_gaussians=450, rate=RateOptions(weight=0.0))
    run = start(method, options(tiny_capture, tmp_path))
    counts = {r["step"]: r for r in rows_of(run) if "num_parents" in r}
    assert counts[10]["num_parents"] > 300
    assert counts[10]["num_gaussians"] == counts[10]["num_parents"]
    # All 150 have come by then (grow_until); a few may have been masked since.
    assert counts[20]["num_gaussians"] > 1.5 * counts[20]["num_parents"]
    scene = load_run(run).representation
    dead_children = (scene.gaussians["keep_children"] < 0).any(dim=1)
    assert dead_children.any()  # somebody was promoted


def test_without_a_teacher_splats_are_trained_first_and_kept(tiny_capture, tmp_path):
    run = start(LpgsMethod(steps=6, sh_degree=1), options(tiny_capture, tmp_path))
    loaded = load_run(run)
    assert loaded.options.teacher is not None
    teacher = load_run(loaded.options.teacher)
    assert teacher.method.name == "splat" and teacher.step == 3  # half of the steps
    assert loaded.representation.settings.num_at_start == teacher.representation.num_gaussians


def test_the_size_that_is_asked_for_is_reached(tiny_capture, tmp_path):
    target = 0.008  # the start weighs 0.015, of which the container is 0.0025
    method = LpgsMethod(
        steps=120, init="random", num_random_points=3000, max_num_gaussians=3000, sh_degree=1,
        warm_up=0.0, quantise_at=0.0, target_mb=target, tree=TreeOptions(tree_every=5),
    )  # fmt: skip
    run = start(method, options(tiny_capture, tmp_path))
    loaded = load_run(run)
    scene = loaded.representation
    estimates = [float(scene.estimated_bytes().detach()) for _ in range(4)]
    # Masks go on after the size was reached, so it may end below; the coder's ratio was last
    # measured 12 steps before the end.
    room = scene.settings.payload_bytes(target)
    assert 0.7 * room < sum(estimates) / 4 < 1.1 * room
    assert scene.num_gaussians < 3000
    export(loaded, tmp_path / "scene.s4d")
    assert (tmp_path / "scene.s4d").stat().st_size == pytest.approx(target * 1e6, rel=LANDING)


@pytest.mark.parametrize(("dear", "held_from"), [(1e9, 180), (0.0, 90)])
def test_a_size_is_held_later_without_anybody_going_for_finer_steps(
    dear, held_from, tiny_capture, tmp_path
):
    """From two fifths of 400 steps on; or as soon as it is met, at one fifth, where those who are
    left take more than ``dear`` bytes each."""
    target = 0.005
    method = LpgsMethod(
        steps=400, init="random", num_random_points=3000, max_num_gaussians=3000, sh_degree=1,
        warm_up=0.0, quantise_at=0.0, target_mb=target,
        tree=TreeOptions(tree_every=5, hold_bytes=dear),
    )  # fmt: skip
    counts = [r["num_parents"] for r in rows_of(start(method, options(tiny_capture, tmp_path)))
              if "num_parents" in r and r["step"] > held_from]  # fmt: skip
    # those whose masks the pictures turn off still go
    assert counts[-1] > 0.97 * counts[0], counts
    loaded = load_run(next(tmp_path.glob("*/lpgs/*")))
    estimates = [float(loaded.representation.estimated_bytes().detach()) for _ in range(4)]
    room = loaded.representation.settings.payload_bytes(target)
    assert sum(estimates) / 4 == pytest.approx(room, rel=0.08)


@pytest.mark.parametrize("target", [None, 0.008])
def test_the_size_that_is_shown_is_the_files(tiny_capture, tmp_path, target):
    method = LpgsMethod(
        steps=60, init="random", num_random_points=3000, max_num_gaussians=3000, sh_degree=1,
        warm_up=0.0, quantise_at=0.0, target_mb=target, tree=TreeOptions(tree_every=5),
    )  # fmt: skip
    run = start(method, options(tiny_capture, tmp_path))
    shown = [row["mb"] for row in rows_of(run) if "mb" in row][-1] * 1e6
    export(load_run(run), tmp_path / "scene.s4d")
    # 2% is what is promised of the codes: the coder was last asked at most a tenth of the training
    # before. The container is guessed.
    size = (tmp_path / "scene.s4d").stat().st_size
    assert shown == pytest.approx(size, abs=0.02 * size + 500)


def losses(run):
    return {row["step"]: (row["loss"], row["num_parents"]) for row in rows_of(run) if "loss" in row}


LANDS_ON_A_SIZE = replace(METHOD, target_mb=0.03)


@pytest.fixture(scope="module")
def straight(tiny_capture, tmp_path_factory):
    return start(LANDS_ON_A_SIZE, options(tiny_capture, tmp_path_factory.mktemp("straight")))


@pytest.mark.parametrize("stop_at", [11, 33, 47])
def test_resuming_gives_what_it_would_have_been(
    tiny_capture, straight, tmp_path, stop_at, monkeypatch
):
    """Straight through, against stopped (in warm-up, between manipulations, after the size was
    compared) and resumed: bit-identical."""
    import scene4d.training.trainer as trainer_module

    original = trainer_module.Trainer._step

    def stopping(self):
        metrics = original(self)
        if self.step == stop_at:
            self.interrupted_by = "SIGTERM"
        return metrics

    monkeypatch.setattr(trainer_module.Trainer, "_step", stopping)
    with pytest.raises(trainer_module.Interrupted):
        start(LANDS_ON_A_SIZE, options(tiny_capture, tmp_path))
    monkeypatch.setattr(trainer_module.Trainer, "_step", original)
    stopped = next(Path(tmp_path).glob("*/lpgs/*"))
    resume(stopped)
    assert losses(stopped) == losses(straight)
    ends = [load_checkpoint(list_checkpoints(r / "checkpoints")[-1]) for r in (stopped, straight)]
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    for name, tensor in ends[0].tensors.items():
        assert torch.equal(tensor, ends[1].tensors[name]), name
    assert ends[0].plain["representation"] == ends[1].plain["representation"]
