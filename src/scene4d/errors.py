"""Errors that a user can act on: what went wrong, where, and the way out."""

from __future__ import annotations


class Scene4dError(ValueError):
    """A mistake in the input or the set-up, told to the user without a traceback.

    The command line prints the message on stderr and exits with ``exit_status``.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        """``what`` went wrong; ``where`` (file, frame, tensor); ``fix``: what the user can do."""
        self.what, self.where, self.fix = what, where, fix
        lines = [f"{where}: {what}" if where is not None else what]
        if fix:
            lines.append(f"  -> {fix}")
        super().__init__("\n".join(lines))


class UsageError(Scene4dError):
    """The command was called wrongly: unknown names, contradicting options (exit status 2)."""

    exit_status = 2


class DataError(Scene4dError):
    """A capture or file cannot be used as it is."""


class MissingExtraError(Scene4dError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed",
            fix=f"pip install 'scene4d[{extra}]'",
        )


class BrokenExtraError(MissingExtraError):
    """An optional package is needed and installed, but cannot load."""

    def __init__(self, package: str, *, why: str, needed_for: str, fix: str) -> None:
        Scene4dError.__init__(
            self,
            f"{needed_for} needs the package '{package}', which is installed but does not load "
            f"({why})",
            fix=fix,
        )


class NotEnoughMemoryError(Scene4dError):
    """The work would not fit into the stated memory budget; refused before it starts."""
