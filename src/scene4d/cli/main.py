"""The command ``scene4d``: finds the verb and hands over; verbs are imported when called."""

from __future__ import annotations

import _thread
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VERBS: dict[str, tuple[str, str]] = {
    "make": ("scene4d.cli.make", "photos, a video, a capture or splats -> a scene on a phone"),
    "batch": ("scene4d.cli.batch", "many scenes, on this machine or on a Ray cluster"),
    "process-data": ("scene4d.cli.process_data", "photos or a video -> a posed capture"),
    "train": ("scene4d.cli.train", "a capture -> a trained scene in a run folder"),
    "eval": ("scene4d.cli.eval", "measure a run on its held-out images"),
    "render": ("scene4d.cli.render", "pictures or a video of a run"),
    "prior": ("scene4d.cli.prior", "networks that know pictures: train, customise, check, sample"),
    "generate": ("scene4d.cli.generate", "texts -> scenes, by a run of a method that takes texts"),
    "export": ("scene4d.cli.export", "a run -> files that other tools open"),
    "compress": ("scene4d.cli.compress", "a scene or splat file -> a small .s4d bundle"),
    "convert": ("scene4d.cli.convert", "a splat file -> a splat file of another format"),
    "benchmark-formats": ("scene4d.cli.benchmark_formats", "MB against dB lost, by splat format"),
    "info": ("scene4d.cli.info", "what is in a run, capture or splat file"),
    "validate": ("scene4d.cli.validate", "is a .s4d bundle sound, down to its last code?"),
    "view": ("scene4d.cli.view", "the web player with a scene, here or on a phone"),
    "doctor": ("scene4d.cli.doctor", "which back ends work here, and why the others do not"),
}


class _StderrHandler(logging.Handler):
    """Prints on what stderr is now: a live display takes its place to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def usage() -> str:
    """The text of ``scene4d --help``."""
    verbs = "\n".join(f"  {verb:<18}{line}" for verb, (_, line) in VERBS.items())
    return (
        "usage: scene4d VERB [options]\n\n"
        "Neural 3D and 4D scenes: train anywhere, make them small, play them on a phone.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n  -h, --help    this text; 'scene4d VERB --help' for a verb's options\n"
        "  --version     the version\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status: 0 ok, 1 the work failed, 2 wrong usage."""
    from scene4d.errors import Scene4dError
    from scene4d.rendering.freed_memory import keep_freed_memory
    from scene4d.torchrun import this_process

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        import scene4d

        print(f"scene4d {scene4d.__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"scene4d: there is no verb {verb!r}\n\n{usage()}", end="", file=sys.stderr)
        return 2
    # torch and Numba bring an OpenMP each, whose waiting threads spin against the other's work;
    # docs/rasteriser.md has the figures. A user's own setting stands.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    keep_freed_memory()
    level = logging.INFO if this_process().first else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", handlers=[_StderrHandler()])
    warnings.showwarning = _show_warning
    with stopping_on_signals() as received:
        try:
            importlib.import_module(VERBS[verb][0]).main(rest)
        except Scene4dError as error:
            _tell(f"scene4d {verb}: error: {error}")
            return error.exit_status
        except KeyboardInterrupt:
            by = "" if received[:1] in ([], ["SIGINT"]) else f" by {received[0]}"
            _tell(f"scene4d {verb}: stopped{by}")
            return 1
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            sys.stderr.close()
            return 0
        except OSError as error:  # a full disk, a file that goes away: the system's to tell
            place = "" if error.filename is None else f"{error.filename}: "
            _tell(f"scene4d {verb}: error: {place}{error.strerror or error}")
            return 1
    return 0


@contextmanager
def stopping_on_signals() -> Iterator[list[str]]:
    """Raises KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, so that what was begun is
    cleared away; the second is too late to change that, and the third ends the process at once.
    Yields the names of those that came."""
    received: list[str] = []
    lost: list[bool] = []

    def stop(number: int, _: object) -> None:
        if lost:
            lost.clear()
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)
        if len(received) == 1:
            raise KeyboardInterrupt
        if len(received) > 2:
            os._exit(1)

    def raise_again(unraisable: Any) -> None:
        """In a finaliser, or a callback of what compiles kernels, no exception gets out."""
        if unraisable.exc_type is not KeyboardInterrupt:
            return hook(unraisable)
        lost.append(True)
        again = threading.Timer(0.02, _interrupt_main_thread)
        again.daemon = True
        return again.start()

    hook, before = sys.unraisablehook, {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Whoever lets a process go on after its terminal (nohup) has SIGHUP ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            try:
                before[number] = signal.signal(number, stop)
            except ValueError:  # not the main thread: its owner handles signals
                break
    sys.unraisablehook = raise_again
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt_main_thread() -> None:
    """As Ctrl-C does, waiting calls of the system included."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _tell(text: str) -> None:
    """On stderr; of several processes of one training, once."""
    from scene4d.torchrun import this_process

    if this_process().first:
        print(text, file=sys.stderr)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as one line for people, without the source line that raised them."""
    _tell(f"warning: {message}")


if __name__ == "__main__":
    raise SystemExit(main())
