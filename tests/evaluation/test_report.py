import html.parser
import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from scene4d.errors import DataError
from scene4d.evaluation.charts import (
    MAX_POINTS,
    Chart,
    line_chart,
    running_mean,
    thinned,
    ticks,
    time_ticks,
)
from scene4d.evaluation.report import PICTURE_BUDGET, write_report

NASTY = "<script>alert('x')</script>&\"'"


class Page(html.parser.HTMLParser):
    """Checks that every element is closed in order, and collects what a test asks about."""

    VOID = frozenset(("meta", "img", "br", "link", "path"))

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def make_run(tmp_path, *, images=3, noise=False, size=(60, 40)):
    run = tmp_path / "fox" / "splat" / "2026-01-02_030405"
    (run / "images").mkdir(parents=True)
    rows = [
        {
            "step": step,
            "loss": 1 / (step + 1),
            "psnr": 15 + math.log(step + 1),
            "num_gaussians": 1000 * step,
            "seconds": 0.5 * step,
            "image_width": 100 if step < 40 else 200,
        }
        for step in range(0, 100, 5)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    per_image = []
    rng = np.random.default_rng(0)
    for i in range(images):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8) if noise else 80
        picture = f"images/{i:05d}.png"
        array = np.full((size[1], size[0], 3), pixels, np.uint8)
        Image.fromarray(array).save(run / picture, compress_level=1)
        figures = {"psnr": 20.0 + i, "ssim": 0.8, "lpips": 0.1, "seconds": 0.02}
        per_image.append({"name": f"{i}.jpg", "picture": picture, **figures})
    evaluation = {
        "experiment_name": "fox",
        "method_name": "splat",
        "checkpoint": "checkpoints/step-000000100.safetensors",
        "results": {"psnr": 21.0, "ssim": 0.8, "lpips": 0.1, "seconds_per_image": 0.02},
        "split": {"rule": "every 8th image held out", "train": ["a"], "test": ["0.jpg"]},
        "per_image": per_image,
        "machine": {"processor": "Abacus", "cores": 2},
    }
    (run / "eval.json").write_text(json.dumps(evaluation))
    (run / "config.toml").write_text('method = "splat"\n[method_options]\nsteps = 7\nlr = 0.5\n')
    return run


def edit_evaluation(run, **changes):
    value = json.loads((run / "eval.json").read_text())
    (run / "eval.json").write_text(json.dumps({**value, **changes}))


def test_the_page_holds_everything_and_needs_nothing(tmp_path):
    run = make_run(tmp_path)
    text = write_report(run).read_text()
    page = Page(text)
    shown = " ".join(page.text)
    for expected in ("fox · splat", "21.00 dB", "0.jpg", "22.00", "every 8th image", "Abacus"):
        assert expected in shown
    # loss, PSNR and Gaussians, over steps and over seconds
    assert page.tags.count("svg") == 6 and page.tags.count("img") == 3
    assert "script" not in page.tags and "link" not in page.tags
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_a_scene_that_moves_has_its_figures(tmp_path):
    run = make_run(tmp_path)
    text = write_report(run).read_text()
    assert "mPSNR" not in text and "flicker" not in text  # of one that stands still
    evaluation = json.loads((run / "eval.json").read_text())
    results = {**evaluation["results"], "mpsnr": 22.5, "mpsnr_moving": 14.25, "flicker": 0.5}
    rows = [{**row, "mpsnr": 18.75, "covisible_share": 0.94} for row in evaluation["per_image"]]
    edit_evaluation(run, results=results, per_image=rows)
    shown = " ".join(Page(write_report(run).read_text()).text)
    for expected in ("mPSNR, covisible", "22.50 dB", "14.25 dB", "flicker", "18.75", "94%"):
        assert expected in shown
    assert "PCK-T" not in shown and "still, dB" not in shown  # not known


def test_names_from_files_are_escaped(tmp_path):
    run = make_run(tmp_path)
    images = json.loads((run / "eval.json").read_text())["per_image"]
    images[0]["name"] = NASTY
    edit_evaluation(
        run, experiment_name=NASTY, per_image=images, machine={NASTY: NASTY},
        split={"rule": NASTY, "train": [], "test": []},
    )  # fmt: skip
    rows = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.dumps({**json.loads(row), "num_" + NASTY: 3}) for row in rows]
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    (run / "config.toml").write_text(f"name = {json.dumps(NASTY)}\n")
    page = Page(write_report(run).read_text())
    assert "script" not in page.tags
    assert sum(NASTY in text for text in page.text) >= 6


def test_only_options_that_differ_are_listed_given_the_defaults(tmp_path):
    run = make_run(tmp_path)
    path = write_report(run, defaults={"method_options": {"steps": 7, "lr": 0.1}})
    shown = " ".join(Page(path.read_text()).text)
    assert "method_options.lr 0.5 0.1" in shown and "method_options.steps" not in shown
    assert "None." in write_report(run, defaults={"method_options": {"lr": 0.5}}).read_text()
    assert "method_options.steps 7" in " ".join(Page(write_report(run).read_text()).text)


def test_pictures_that_cannot_be_compressed_stay_within_the_budget(tmp_path):
    run = make_run(tmp_path, images=12, noise=True, size=(900, 400))
    path = write_report(run)
    assert path.stat().st_size < PICTURE_BUDGET + 200_000 < 3_000_000
    page = Page(path.read_text())
    count = page.tags.count("img")
    assert 2 <= count < 12
    assert f"{12 - count} more in images/" in " ".join(page.text)
    # the worst and the best are among them, worst first
    captions = re.findall(r"<b>(\d+)\.jpg</b>", path.read_text())
    assert captions[0] == "0" and captions[-1] == "11"


@pytest.mark.parametrize("missing", ["metrics.jsonl", "eval.json", "config.toml", "images"])
def test_what_is_missing_is_left_out(tmp_path, missing):
    run = make_run(tmp_path)
    if missing == "images":
        for picture in (run / "images").iterdir():
            picture.unlink()
    else:
        (run / missing).unlink()
    assert "main" in Page(write_report(run).read_text()).tags


@pytest.mark.parametrize("wrong", [3, 0.5, None, "word", {"a": 1}, [None]])
def test_what_is_no_list_of_pictures_or_names_is_left_out(tmp_path, wrong):
    run = make_run(tmp_path)
    edit_evaluation(run, per_image=wrong, split={"rule": wrong, "train": wrong, "test": wrong})
    page = Page(write_report(run).read_text())
    assert "main" in page.tags


def test_nothing_to_report_on_is_an_error(tmp_path):
    with pytest.raises(DataError, match="neither"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_training_still_has_a_report(tmp_path):
    run = make_run(tmp_path)
    (run / "eval.json").unlink()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 100, "loss": null, "psnr": NaN}\n{"step": 105, "lo')
    page = Page(write_report(run).read_text())
    assert page.tags.count("svg") == 6 and "nan" not in " ".join(page.text).lower()


def test_options_nested_without_end_are_named(tmp_path):
    run = make_run(tmp_path)
    (run / "config.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(DataError, match=r"config\.toml"):
        write_report(run)


def test_a_line_of_metrics_nested_without_end_is_passed_over(tmp_path):
    run = make_run(tmp_path)
    with open(run / "metrics.jsonl", "a") as file:
        file.write("[" * 100_000 + "\n\xff\n")
    assert Page(write_report(run).read_text()).tags.count("svg") == 6


@pytest.mark.parametrize("content", ["[]", "{}", '{"results": 3}', "{"])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    run = make_run(tmp_path)
    before = write_report(run).read_bytes()
    (run / "eval.json").write_text(content)
    with pytest.raises(DataError, match=r"eval\.json"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_a_picture_outside_the_run_is_refused(tmp_path):
    run = make_run(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    images = json.loads((run / "eval.json").read_text())["per_image"]
    images[0]["picture"] = "../../../secret.png"
    edit_evaluation(run, per_image=images)
    with pytest.raises(DataError, match="outside"):
        write_report(run)


def chart(points, **options):
    return Chart(title="t", points=points, format_x=str, format_y=str, **options)


def curve_of(svg, name="curve"):
    (path,) = re.findall(rf'class="{name}" d="M([^"]*)"', svg)
    return [tuple(map(float, pair.split())) for pair in path.split("L")]


def test_a_picture_of_a_name_that_no_file_can_have_is_left_out_or_named(tmp_path):
    run = make_run(tmp_path)
    for name, told in (("9" * 300, None), ("a\0b", "cannot be")):
        document = json.loads((run / "eval.json").read_text())
        document["per_image"][0]["picture"] = name
        (run / "eval.json").write_text(json.dumps(document))
        if told is None:
            assert write_report(run).is_file()
        else:
            with pytest.raises(DataError, match=told):
                write_report(run)


def test_a_straight_line_is_drawn_straight():
    xy = curve_of(line_chart(chart([(0.0, 0.0), (1.0, 1.0), (4.0, 4.0)])))
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(xy)]
    # coordinates are written with one decimal, a quarter of the curve is about 110 units
    assert slopes[0] == pytest.approx(slopes[1], rel=2e-3) and slopes[0] < 0


def test_a_spike_at_the_start_does_not_flatten_a_loss():
    points = [(float(i), 100.0 if i == 0 else 1.0 - i / 100) for i in range(60)]
    faint = curve_of(line_chart(chart(points, smooth=True)), "faint")
    # from 0.99 to 0.41 on an axis that ends at about 2: a quarter of 164 units
    assert faint[-1][1] - faint[1][1] > 30
    spiky = curve_of(line_chart(chart(points)))
    assert spiky[-1][1] - spiky[1][1] < 2


def test_fewer_than_two_points_draw_nothing():
    assert line_chart(chart([])) == line_chart(chart([(1.0, 2.0)])) == ""


@pytest.mark.parametrize("count", [MAX_POINTS, MAX_POINTS + 1, 10_000])
def test_thinning_keeps_ends_order_and_mean(count):
    points = [(float(i), 2.0 * i + 1) for i in range(count)]
    few = thinned(points)
    assert len(few) == MAX_POINTS
    assert few[0] == points[0] and few[-1] == points[-1]
    assert all(a[0] < b[0] for a, b in pairwise(few))
    # means of a straight line lie on it
    assert all(y == pytest.approx(2 * x + 1) for x, y in few)


def test_running_mean_keeps_constants_and_lessens_noise():
    constant = [(float(i), 3.0) for i in range(50)]
    assert running_mean(constant) == constant
    noise = [(float(i), float((-1) ** i)) for i in range(300)]
    # 21 values of +1 and -1 average to at most 1/10 in size, at the ends too
    assert max(abs(y) for _, y in running_mean(noise)) <= 0.1


finite = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(low=finite, span=st.floats(0, 1e9))
@example(low=0.0, span=5e-324)
@example(low=0.0, span=1e-200)
@example(low=1e9, span=1e-7)
def test_ticks_are_few_round_and_cover_the_range(low, span):
    found = ticks(low, low + span, 4)
    assert 2 <= len(found) <= 8
    step = found[1] - found[0]
    # below a billionth of the values a range counts as flat
    slack = 1e-6 * step + 1e-9 * (abs(low) + span)
    assert step > 0
    assert found[0] <= low + slack and found[-1] >= low + span - slack


def test_time_ticks_fall_on_what_people_count_in():
    assert time_ticks(3.0, 275.0, 5) == [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]
    assert time_ticks(0.0, 7 * 3600.0, 5)[:3] == [0.0, 7200.0, 14400.0]
    assert time_ticks(0.0, 8.0, 5) == [0.0, 2.0, 4.0, 6.0, 8.0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(finite, finite), min_size=2, max_size=20, unique_by=lambda p: p[0]),
    st.booleans(),
)
def test_any_curve_stays_inside_its_frame(points, smooth):
    svg = line_chart(chart(sorted(points), smooth=smooth, reference=(5.0, "ref")))
    for x, y in curve_of(svg):
        assert 0 <= x <= 520 and 0 <= y <= 220
    Page(svg)
