"""``scene4d doctor`` tells the truth about this machine, and gives advice for worse ones."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from scene4d.cli import doctor
from scene4d.cli.main import main


def test_report_is_of_this_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["python"]["version"] == platform.python_version()
    assert report["packages"]["numpy"] == metadata.version("numpy")
    assert report["torch"]["threads"] == torch.get_num_threads()
    assert bool(report["torch"]["cuda_gpus"]) == torch.cuda.is_available()
    machine = report["machine"]
    assert machine["cores"] >= 1 and machine["disk_free_gb"] > 0
    assert 0 < machine["memory_available_gb"] <= machine["memory_total_gb"]
    backends = {status["name"]: status for status in report["backends"]}
    assert backends["reference"]["available"]
    if not torch.cuda.is_available():
        assert not backends["gsplat"]["available"] and backends["gsplat"]["reason"]
    assert report["numba"]["threading_layer"] in ("tbb", "omp", "workqueue")
    assert Path(report["numba"]["cache_folder"]).is_absolute()


def test_text_names_every_back_end_and_extra(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("numba", "gsplat", "reference", "viewer", "recon", "video", "advice:"):
        assert word in text


def test_extras_are_those_of_this_platform_and_say_how_to_get_them():
    state = doctor.extras_state(
        [
            "numpy>=1.26",
            'numpy>=1.26; extra == "here"',
            "no-such-package-at-all; extra == 'gone'",
            f'numpy; sys_platform != "{sys.platform}" and extra == "gone"',
            f"no-such-either; sys_platform != '{sys.platform}' and extra == 'here'",
            f"torch>=2; sys_platform == '{sys.platform}' and extra == 'here'",
        ]
    )
    here, gone = state
    assert here["name"] == "here" and here["available"]
    assert list(here["packages"]) == ["numpy", "torch"]
    assert not gone["available"] and gone["packages"] == {"no-such-package-at-all": None}
    assert gone["install"] == "pip install 'scene4d[gone]'"


def test_cache_folder_follows_numbas_rules(tmp_path, monkeypatch):
    assert doctor.cache_folder(str(tmp_path)) == tmp_path
    package = Path(doctor.__file__).parents[1]
    monkeypatch.setattr(doctor, "_writable", lambda folder: True)
    assert doctor.cache_folder("") == package
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    assert doctor.cache_folder("") not in (package, Path())


def test_writable_looks_at_the_first_folder_that_exists(tmp_path):
    assert doctor._writable(tmp_path / "not" / "yet")
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # to root every folder is writable
        (tmp_path / "closed").mkdir(mode=0o500)
        assert not doctor._writable(tmp_path / "closed" / "inside")


def test_advice_for_a_poor_machine():
    numba = {
        "version": "1",
        "threading_layer": "workqueue",
        "cache_writable": False,
        "cache_folder": "/ro",
    }
    machine = {"disk_free_gb": 0.5, "memory_available_gb": 1.0}
    backends = [{"name": "numba", "available": False}]
    text = "\n".join(doctor.advice(backends, numba, machine))
    for word in ("NUMBA_CACHE_DIR", "workqueue", "tbb", "0.5 GB of disk", "--downscale-factor"):
        assert word in text
    good = {**numba, "threading_layer": "omp", "cache_writable": True}
    rich = {"disk_free_gb": None, "memory_available_gb": 16.0}
    assert doctor.advice([{"name": "numba", "available": True}], good, rich) == []
