"""Outputs are whole or not there, and whether they can be written is known before the work."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scene4d.cli.main import main, stopping_on_signals
from scene4d.errors import Scene4dError
from scene4d.files import atomic_folder, atomic_path, atomic_update, check_writable

KILLED = """if True:
    import os, signal, sys
    from pathlib import Path
    from scene4d import files
    with files.{manager}(Path(sys.argv[1])) as path:
        {write}
        {then}
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(manager: str, target: Path, *, write: str, then: str = "") -> None:
    """A process that is killed while it writes ``target``."""
    code = KILLED.format(manager=manager, write=write, then=then)
    done = subprocess.run([sys.executable, "-c", code, str(target)], timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="locks of files that tell who is alive are POSIX")
def test_the_next_run_removes_what_a_killed_one_left(tmp_path) -> None:
    target = tmp_path / "scene.ply"
    killed_writer("atomic_path", target, write="path.write_bytes(b'half')")
    assert len(list(tmp_path.iterdir())) == 1
    other = tmp_path / ".scene.other.abcdefgh.tmp.ply"  # of scene.other.ply
    other.write_bytes(b"")
    with atomic_path(target) as path:
        path.write_bytes(b"whole")
    assert {p.name for p in tmp_path.iterdir()} == {"scene.ply", other.name}
    assert target.read_bytes() == b"whole"


@pytest.mark.skipif(os.name == "nt", reason="locks of files that tell who is alive are POSIX")
def test_a_writer_that_lives_keeps_its_file(tmp_path) -> None:
    target = tmp_path / "scene.ply"
    with atomic_path(target) as first:
        first.write_bytes(b"first")
        with atomic_path(target) as second:
            second.write_bytes(b"second")
        assert first.exists()
    assert target.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["scene.ply"]


@pytest.mark.skipif(os.name == "nt", reason="locks of files that tell who is alive are POSIX")
def test_a_folder_that_a_killed_writer_had_moved_away_comes_back(tmp_path) -> None:
    target = tmp_path / "scene"
    target.mkdir()
    (target / "old").write_text("old")
    killed_writer(
        "atomic_folder", target, write="(path / 'new').write_text('new')",
        then="os.replace(sys.argv[1], path.parent / 'earlier')",
    )  # fmt: skip
    assert not target.exists()
    with pytest.raises(RuntimeError), atomic_folder(target):
        assert (target / "old").read_text() == "old"
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["scene"]
    assert (target / "old").read_text() == "old"


UPDATED = """if True:
    import os, signal, sys
    from pathlib import Path
    from scene4d import files
    left, replace = int(sys.argv[2]), os.replace
    def replace_until(source, target):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        replace(source, target)
    os.replace = replace_until
    with files.atomic_update(Path(sys.argv[1]), index="index.json") as folder:
        (folder / "pictures").mkdir()
        for name in ("index.json", "pictures/a", "pictures/b"):
            (folder / name).write_text("new")
"""


@pytest.mark.skipif(os.name == "nt", reason="locks of files that tell who is alive are POSIX")
@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_an_index_never_stands_beside_files_of_another_time(tmp_path, moved: int) -> None:
    """Killed after so many of three files have taken their places."""
    (tmp_path / "pictures").mkdir()
    for name in ("index.json", "pictures/a", "pictures/b", "pictures/others"):
        (tmp_path / name).write_text("old")
    done = subprocess.run([sys.executable, "-c", UPDATED, str(tmp_path), str(moved)], timeout=60)
    assert done.returncode == (0 if moved == 3 else -signal.SIGKILL)
    index = tmp_path / "index.json"
    assert index.exists() == (moved == 3)
    assert [(tmp_path / "pictures" / n).read_text() for n in "ab"].count("new") == min(moved, 2)
    with atomic_update(tmp_path, index="index.json") as folder:
        (folder / "index.json").write_text("next")
    assert {p.name for p in tmp_path.iterdir()} == {"index.json", "pictures"}
    assert index.read_text() == "next"
    assert (tmp_path / "pictures" / "others").read_text() == "old"


def test_an_update_that_fails_changes_nothing(tmp_path) -> None:
    (tmp_path / "index.json").write_text("old")
    with pytest.raises(RuntimeError), atomic_update(tmp_path, index="index.json") as folder:
        (folder / "index.json").write_text("new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["index.json"]
    assert (tmp_path / "index.json").read_text() == "old"


def spoilt(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    return {
        "below a file": tmp_path / "file" / "out.ply",
        "a folder": tmp_path / "folder",
        "a name too long": tmp_path / ("x" * 300 + ".ply"),
        "a null byte": tmp_path / "a\0b.ply",
        "no place for files": Path("/proc/scene4d/out.ply"),
    }


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody may write to")
def test_what_cannot_be_written_is_told_before_the_work(tmp_path) -> None:
    for kind, target in spoilt(tmp_path).items():
        with pytest.raises(Scene4dError):
            check_writable(target)
        if kind != "a folder":
            with pytest.raises(Scene4dError, match="could not be written"), atomic_path(target):
                raise AssertionError("it began")
    new = tmp_path / "new" / "deep" / "out.ply"
    check_writable(new)
    assert not (tmp_path / "new").exists()
    with pytest.raises(Scene4dError, match="is a file"):
        check_writable(tmp_path / "file", folder=True)
    check_writable(tmp_path / ("y" * 240 + ".ply"))
    with atomic_path(tmp_path / ("y" * 240 + ".ply")) as path:
        path.write_text("")


VERBS = {
    "convert": ["convert", "absent.ply", "{target}"],
    "compress": ["compress", "absent.ply", "{target}"],
    "export": ["export", "absent", "ply", "--output-path", "{target}"],
    "render": ["render", "absent", "spiral", "--output-path", "{target}"],
    "process-data": ["process-data", "images", "--data", "absent", "--output-dir", "{target}"],
    "train": ["train", "splat", "--data", "absent", "--output-dir", "{target}"],
    "benchmark-formats": ["benchmark-formats", "absent.ply", "--output-path", "{target}"],
}


LOOKING = """if True:
    import sys
    from pathlib import Path
    from scene4d.files import check_writable
    for _ in range(100):
        check_writable(Path(sys.argv[1]), folder=True)
"""


def test_many_may_look_at_a_new_place_at_once(tmp_path) -> None:
    place = tmp_path / "new" / "deep" / "run"  # as trainings that start together do
    together = [
        subprocess.Popen([sys.executable, "-c", LOOKING, str(place)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in together:
        assert process.wait(timeout=60) == 0, process.stderr.read().decode()
        process.stderr.close()


def test_a_folder_that_goes_while_it_is_looked_for_is_made_again(tmp_path, monkeypatch) -> None:
    mkdir, gone = Path.mkdir, []

    def once(self, *args, **wishes):
        if self.name == "deep" and not gone:  # as mkdir ends where it was there, and is no more
            gone.append(self)
            raise FileExistsError(errno.EEXIST, "File exists", str(self))
        return mkdir(self, *args, **wishes)

    monkeypatch.setattr(Path, "mkdir", once)
    check_writable(tmp_path / "new" / "deep" / "run", folder=True)
    assert gone and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "folder"), [("out.spz", False), ("run", True), ("a.pack", True)])
def test_who_is_killed_while_looking_at_a_place_leaves_nothing(tmp_path, name, folder) -> None:
    left = tmp_path / f".{Path(name).stem}.5ps4ngv7.tmp"  # as benchmarks/kill.py found it
    left.touch()
    check_writable(tmp_path / name, folder=folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_looks_at_its_output_first(verb, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    endings = {"convert": ".spz", "compress": ".s4d", "export": ".ply", "render": ".mp4"}
    target = tmp_path / "file" / f"out{endings.get(verb, '')}"
    if verb == "process-data":
        (tmp_path / "absent").mkdir()
    if verb == "convert":
        shutil.copy(__file__, tmp_path / "absent.ply")
        (tmp_path / "absent.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    status = main([word.format(target=target) for word in VERBS[verb]])
    told = capsys.readouterr().err
    assert status in (1, 2) and "Traceback" not in told
    assert "file/out" in told and "absent" not in told.replace(" absent", "")


# Signals

SLOW = """if True:
    import sys, time, types
    from scene4d.cli import main as module
    slow = types.ModuleType("slow")
    def run(argv):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep({clearing})
            print("cleared", flush=True)
    slow.main = run
    sys.modules["slow"] = slow
    module.VERBS["slow"] = ("slow", "")
    sys.exit(module.main(["slow"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_any_verb_in_order(name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(clearing=0.5)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # a second one, from somebody who is in a hurry
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "cleared\n")
    assert "stopped" in err and "Traceback" not in err
    assert name == "SIGINT" or name in err


IN_A_FINALISER = """
import sys, time, types
from scene4d.cli import main as module
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(20)
if __name__ == "__main__":
    def run(argv):
        Slow()
        time.sleep(20)
    slow = types.ModuleType("slow")
    slow.main = run
    sys.modules["slow"] = slow
    module.VERBS["slow"] = ("slow", "")
    sys.exit(module.main(["slow"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_where_no_exception_gets_out_is_not_lost() -> None:
    """In a finaliser; the callbacks of Numba's compiler are alike, minutes of a first training."""
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_FINALISER],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - begun < 15
    assert err == "scene4d slow: stopped by SIGTERM\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
