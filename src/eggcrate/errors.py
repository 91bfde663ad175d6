"""What went wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable


class EggcrateError(Exception):
    """A mistake that its user can mend: *what* is wrong, and a *hint* what to do.

    ``what`` names the thing and the fact; ``hint`` is an imperative that names the
    option or the command.  Both are sentences without a capital or a full stop, so
    that a recipe can put its part's name in front.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}"


class SettingsError(EggcrateError):
    """An option has a value that can't be used."""


class TemplateError(EggcrateError):
    """A template can't be rendered."""


class PlanError(EggcrateError):
    """The image can't be put together from what is there."""


class TransportError(EggcrateError):
    """Something outside (packages, a registry, an engine) could not be had."""


class InstallError(EggcrateError):
    """A Python environment could not be made."""


class SeveralErrors(EggcrateError):
    """Several complaints at once, in the order in which they were found."""

    def __init__(self, errors: Iterable[EggcrateError]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            "\n".join(str(error) for error in self.errors),
            f"mend all {len(self.errors)} and run again",
        )

    def __str__(self) -> str:
        lines = "".join(f"\n  - {error}" for error in self.errors)
        return f"{len(self.errors)} problems:{lines}"


def raise_all(errors: Iterable[EggcrateError]) -> None:
    """Raise the one error, or all of them together; do nothing when there is none."""
    found = tuple(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise SeveralErrors(found)
