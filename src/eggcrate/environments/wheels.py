"""Wheels for another machine: pip fetches and unpacks them, and runs nothing of them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from eggcrate.environments.process import Failed, TookTooLong, run
from eggcrate.errors import InstallError, raise_all

# seconds that pip may take
_TIMEOUT = 1800.0
# what a user may have told pip, and what would send the wheels elsewhere
_OF_PIP = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV")
# the first glibc of which wheels speak by its version (PEP 600), and names before that
_OLDEST = 5
_BY_YEAR = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# of one distribution, in what pip says
_NONE = re.compile(r"No matching distribution found for (\S+?)==")
_ANOTHER = re.compile(r"^ +(\S+?)==\S+ .*\n +Expected ", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What wheels are for: a machine as wheels call it, a Python, and a C library.

    ``platform`` is how people know it, ``linux/arm64``; ``glibc`` is None for musl.
    """

    platform: str
    machines: tuple[str, ...]
    python: tuple[int, int]
    glibc: tuple[int, int] | None

    def __str__(self) -> str:
        library = f"glibc {self.glibc[0]}.{self.glibc[1]}" if self.glibc else "musl"
        return f"{self.platform}, Python {self.python[0]}.{self.python[1]} and {library}"

    def tags(self) -> Iterator[str]:
        """The platform tags that fit, the best first (PEP 600, PEP 656)."""
        for machine in self.machines:
            if self.glibc is None:
                yield from (f"musllinux_1_{minor}_{machine}" for minor in range(2, -1, -1))
                continue
            for minor in range(self.glibc[1], _OLDEST - 1, -1):
                yield f"manylinux_2_{minor}_{machine}"
                if minor in _BY_YEAR:
                    yield f"{_BY_YEAR[minor]}_{machine}"
            yield f"linux_{machine}"


class Release(NamedTuple):
    """A version of a distribution, and the hashes (``sha256:...``) of which its wheel has to
    have one, if there are any."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def requirement(self) -> str:
        """A line of a requirements file."""
        return " ".join([f"{self.name}=={self.version}", *map("--hash={}".format, self.hashes)])


def fetch(
    wanted: Collection[Release],
    target: Target,
    directory: pathlib.Path,
    *,
    index: str = "",
    find_links: Sequence[str] = (),
    offline: bool = False,
) -> None:
    """Unpack wheels of distributions below ``directory``, as ``pip install --target`` does;
    InstallError names all of them that have no wheel, or another one than was locked."""
    errors: list[InstallError] = []
    # pip wants a hash of every one, or of none
    hashed = {release.name: release for release in wanted if release.hashes}
    others = {release.name: release for release in wanted if not release.hashes}
    for left in (hashed, others):
        while left:
            try:
                _pip(left.values(), target, directory, index, find_links, offline)
                break
            except Failed as error:
                found = list(_complaints(error, left, target))
                if not found:
                    raise InstallError(
                        f"pip can't fetch wheels for {target}: {error.message()}",
                        "check the network, and index and find-links",
                    ) from error
                errors += found
    raise_all(errors)


def _complaints(
    error: Failed, left: dict[str, Release], target: Target
) -> Iterator[InstallError]:
    """What pip says of single distributions, which are taken out of what is ``left``."""
    for name in _NONE.findall(error.output):
        if release := left.pop(name, None):
            yield InstallError(
                f"{name} {release.version} has compiled modules, and there is no wheel of it "
                f"for {target}",
                "pin a version that has one, put a wheel into find-links, or leave the "
                "platform out",
            )
    for name in _ANOTHER.findall(error.output):
        if release := left.pop(name, None):
            yield InstallError(
                f"the wheel of {name} {release.version} for {target} has none of the hashes "
                "that are locked",
                "lock the hashes of all its wheels, or find out who has changed this one",
            )


def _pip(
    wanted: Collection[Release],
    target: Target,
    directory: pathlib.Path,
    index: str,
    find_links: Sequence[str],
    offline: bool,
) -> None:
    version = f"{target.python[0]}{target.python[1]}"
    command = [sys.executable, "-m", "pip", "install"]
    command += ["--no-input", "--no-color", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--no-compile", "--only-binary", ":all:", "--upgrade"]
    command += ["--root-user-action", "ignore", "--target", os.fspath(directory)]
    command += ["--implementation", "cp", "--python-version", ".".join(map(str, target.python))]
    for abi in (f"cp{version}", "abi3", "none"):
        command += ["--abi", abi]
    for tag in target.tags():
        command += ["--platform", tag]
    if offline:
        command.append("--no-index")
    elif index:
        command += ["--index-url", index]
    for link in find_links:
        command += ["--find-links", link]
    environ = {name: text for name, text in os.environ.items() if name not in _OF_PIP}
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", prefix="eggcrate-", suffix=".txt") as file:
        file.writelines(f"{release.requirement()}\n" for release in sorted(wanted))
        file.flush()
        command += ["--requirement", file.name]
        try:
            run(command, directory, environ, timeout=_TIMEOUT)
        except TookTooLong as error:
            raise InstallError(
                f"pip was not done with wheels for {target} after {_TIMEOUT:.0f} s",
                "see whether the index answers, and run again",
            ) from error
