"""Budget, sampling, configs and the method registry."""

import dataclasses
import threading
import time
from importlib.metadata import EntryPoint

import numba
import pytest
import torch
from numba.core import event

from scene4d.errors import DataError, UsageError
from scene4d.methods.splat.method import McmcOptions, SplatMethod
from scene4d.plain import from_table, to_table
from scene4d.toml_files import read_toml, write_toml
from scene4d.training import methods
from scene4d.training.budget import Budget
from scene4d.training.options import TrainOptions
from scene4d.training.sampling import ViewSampler


def test_progress_follows_steps_without_a_time_limit():
    budget = Budget(max_steps=200, max_seconds=None)
    assert [budget.progress(s) for s in (0, 50, 200)] == [0.0, 0.25, 1.0]


def test_progress_follows_the_clock_with_one():
    budget = Budget(max_steps=None, max_seconds=100.0, elapsed_before=50.0)
    assert budget.progress(10**6) == pytest.approx(0.5, abs=0.01)
    budget.exclude(budget.elapsed - 25.0)
    assert budget.progress(0) == pytest.approx(0.25, abs=0.01)


def test_what_is_compiled_on_the_way_is_no_training_time():
    budget, start = Budget(max_steps=None, max_seconds=100.0), time.monotonic()
    spent: list[float] = []
    with event.install_timer("numba:compile", spent.append), budget.without_compiling():
        inner = numba.njit(lambda x: x + 1.0)  # compiled while the outer one is: counted once
        assert numba.njit(lambda x: inner(x) * 2.0)(1.0) == 4.0
    assert spent[0] > 0.01
    # The clocks are read some microseconds apart, but on a machine that does more.
    assert time.monotonic() - start - budget.elapsed == pytest.approx(spent[0], abs=0.02)


def test_what_another_thread_compiles_meanwhile_is():
    budget, start = Budget(max_steps=None, max_seconds=100.0), time.monotonic()
    with budget.without_compiling():
        viewer = threading.Thread(target=lambda: numba.njit(lambda x: x - 1.0)(1.0))
        viewer.start()
        viewer.join()
    assert budget.elapsed == pytest.approx(time.monotonic() - start, abs=0.02)


def test_whichever_limit_comes_first_ends_training():
    assert Budget(max_steps=10, max_seconds=1e6).progress(10) >= 1.0
    assert Budget(max_steps=10**6, max_seconds=1.0, elapsed_before=2.0).progress(0) >= 1.0
    with pytest.raises(ValueError, match="number of steps or a time limit"):
        Budget(max_steps=None, max_seconds=None)


def test_resolution_schedule_starts_coarse_and_ends_full():
    method = SplatMethod(coarsest_downscale=8, full_resolution_at=0.4)
    factors = [method.downscale(i / 100) for i in range(101)]
    assert factors[0] == 8
    assert factors == sorted(factors, reverse=True)
    assert [factors.index(f) for f in (8, 4, 2, 1)] == [0, 10, 20, 40]
    assert SplatMethod(coarsest_downscale=1).downscale(0.0) == 1


def test_position_learning_rate_decays_exponentially_to_its_final_value():
    method = SplatMethod(means_lr=1e-2, means_lr_final=1e-4)
    assert method.learning_rate_factor("means", 0.0) == 1.0
    assert method.learning_rate_factor("means", 0.5) == pytest.approx(0.1)
    assert method.learning_rate_factor("means", 1.0) == pytest.approx(0.01)
    assert method.learning_rate_factor("quats", 0.7) == 1.0


def test_sampler_shows_every_view_once_a_round_and_can_be_restored():
    generator = torch.Generator().manual_seed(3)
    sampler = ViewSampler([2, 5, 7, 11], generator)
    rounds = [[sampler.next(1)[0] for _ in range(4)] for _ in range(3)]
    assert all(sorted(r) == [2, 5, 7, 11] for r in rounds)
    sampler.next(1)
    state, pending = generator.get_state(), list(sampler.pending)
    expected = [sampler.next(2) for _ in range(5)]
    other = ViewSampler([2, 5, 7, 11], torch.Generator())
    other.generator.set_state(state)
    other.pending = pending
    assert [other.next(2) for _ in range(5)] == expected
    assert len(ViewSampler([1, 2], generator).next(5)) == 2


def test_config_survives_toml(tmp_path):
    method = SplatMethod(steps=5, strategy="adaptive", mcmc=McmcOptions(noise=3.0))
    options = TrainOptions(max_minutes=2.0, device="cpu")
    write_toml(tmp_path / "c.toml", {"m": to_table(method), "o": to_table(options)})
    table = read_toml(tmp_path / "c.toml")
    assert from_table(SplatMethod, table["m"], where="c.toml") == method
    assert from_table(TrainOptions, table["o"], where="c.toml") == options


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sh_degre": 2}, "unknown settings: sh_degre"),
        ({"sh_degree": 7}, "sh_degree: has the value 7"),
        ({"max_num_gaussians": "many"}, "max_num_gaussians: has the value 'many'"),
        ({"mcmc": {"noise": True}}, "mcmc: noise: has the value True"),
    ],
)
def test_a_wrong_config_names_the_setting(table, message):
    with pytest.raises(DataError, match=message):
        from_table(SplatMethod, table, where="config.toml")


def test_configs_are_frozen_and_keyword_only():
    for cls in (SplatMethod, TrainOptions, McmcOptions):
        assert cls.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(cls))


def test_the_built_in_method_is_registered():
    assert "splat" in methods.method_names()
    assert methods.load_method("splat") is SplatMethod
    with pytest.raises(UsageError, match="choose one of: .*splat"):
        methods.load_method("spalt")


def test_a_broken_plugin_is_named_and_left_out(monkeypatch, caplog):
    broken = EntryPoint("broken", "no_such_module_here:METHOD", methods.GROUP)
    wrong = EntryPoint("wrong", "json:dumps", methods.GROUP)
    good = EntryPoint("splat", "scene4d.methods.splat.method:SPLAT", methods.GROUP)
    monkeypatch.setattr(methods, "entry_points", lambda group: [broken, wrong, good])
    assert set(methods.load_all_methods()) == {"splat"}
    assert "broken" in caplog.text
    assert "not a Method class" in caplog.text
    with pytest.raises(UsageError, match="'broken'.*cannot be imported"):
        methods.load_method("broken")
