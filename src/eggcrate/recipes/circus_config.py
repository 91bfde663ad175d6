"""``eggcrate:circus-config``: a configuration for Circus, of a template or declared."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from eggcrate.config import circus, circus_sections
from eggcrate.config.circus_sections import Surroundings
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, raise_all
from eggcrate.recipes.boundary import user_errors
from eggcrate.recipes.config_file import Buildout, ConfigFile, flag, text_of
from eggcrate.recipes.scripts import RUNTIME, expression

#: what a user may write here that nginx-config doesn't have; sections are options, too
OPTIONS = ("check", "circus", "eggs", "env", "scripts")

# what zc.recipe.egg takes beside eggs, and what is published
_NO_MISTAKES = ("circusd", "eggs-directory", "find-links", "index")

# programs of ours, with the module of each; serve-waitress is made when something asks for it
_OURS = {
    "circusd": "eggcrate.runtime.circusd",
    "circusctl": "eggcrate.runtime.circusctl",
    "serve-waitress": "eggcrate.runtime.serve_waitress",
}
_BOUND = ("circusd", "circusctl")


class Recipe:
    """The part writes one file, and two scripts; see ``docs/circus-config.rst``."""

    def __init__(
        self, buildout: Buildout, name: str, options: MutableMapping[str, str]
    ) -> None:
        self._name = name
        self._buildout = buildout
        with user_errors(name):
            errors: list[EggcrateError] = [*_misspelt(options)]
            raise_all(errors)
            self._check = flag(options, "check", default=True)
            self._scripts = _Scripts(buildout, name, options) if "eggs" in options else None
            if self._scripts is None and "scripts" in options:
                raise SettingsError("scripts needs eggs", "set eggs, or take scripts out")
            declared = {
                option: options[option]
                for option in sorted(options)
                if circus_sections.is_declared(option)
            }
            known = [*OPTIONS, *_NO_MISTAKES, *declared]

            def declare(
                before: Rendered | None,
                run_directory: pathlib.Path,
                value: Callable[[str], str],
            ) -> Rendered:
                around = self._surroundings(run_directory)
                options = {option: value(option) for option in declared}
                return circus_sections.declared(options, around, before)

            self._file = ConfigFile(
                buildout,
                name,
                options,
                file_name="circus.ini",
                more_options=known,
                declare=declare if declared else None,
                otherwise=", or declare watcher.NAME",
            )
            if self._check:
                self._lint()

    def install(self) -> Sequence[str]:
        """Write the file if it is not there as it should be, and the scripts."""
        return self._provide(load=True)  # the eggs may be others

    def update(self) -> Sequence[str]:
        """Do the same; what has been loaded once is not loaded again."""
        return self._provide(load=not self._file.is_current())

    def _provide(self, *, load: bool) -> Sequence[str]:
        with user_errors(self._name):
            if self._scripts:
                self._scripts.check()
            if load and self._check and self._scripts:
                self._load(self._scripts.path())
            # the file itself is owned through eggcrate.recipes.ownership
            made = self._scripts.made(self._file) if self._scripts else []
            if self._check:
                raise_all(
                    circus.missing_programs(
                        self._file.rendered,
                        output=self._file.output,
                        directory=self._file.directory,
                        shown=self._file.shown,
                    )
                )
            self._file.write()
            return made

    def _surroundings(self, run_directory: pathlib.Path) -> Surroundings:
        section = self._buildout["buildout"]
        return Surroundings(
            part=self._name,
            directory=section["directory"],
            bin=section["bin-directory"],
            run_directory=os.fspath(run_directory),
            runtime=os.fspath(RUNTIME),
            python=sys.executable,
            scripts=self._scripts.wanted if self._scripts else None,
            read=lambda path: text_of(self._buildout, path, outline=True),
        )

    # What Circus would accept in silence, or choke on ------------------------------------

    def _lint(self) -> None:
        """Look at the finished text; raises every complaint."""
        raise_all(
            circus.complaints(
                self._file.rendered,
                output=self._file.output,
                directory=self._file.directory,
                shown=self._file.shown,
            )
        )

    def _load(self, path: Sequence[str]) -> None:
        """Have the Circus on ``path`` load the finished text; raises every complaint."""
        from eggcrate.config import circus_load

        raise_all(
            circus_load.load_complaints(
                self._file.rendered,
                sys.executable,
                path,
                output=self._file.output,
                directory=self._file.directory,
                shown=self._file.shown,
            )
        )


class _Scripts:
    """The scripts that a part with ``eggs`` puts into ``bin``."""

    def __init__(
        self, buildout: Buildout, part: str, options: MutableMapping[str, str]
    ) -> None:
        import zc.recipe.egg

        section = self._section = buildout["buildout"]
        self._bin = section["bin-directory"]
        self._directory = section["directory"]
        self._relative = section.get("relative-paths", "false") == "true"
        self._asked = "scripts" in options
        # name in its distribution: name in bin
        self._names = _names(options.get("scripts", " ".join(_BOUND)))
        if "circusd" in self._names:
            options["circusd"] = os.path.join(self._bin, self._names["circusd"])
        self._eggs = zc.recipe.egg.Eggs(buildout, part, options)

    def wanted(self, name: str) -> str | None:
        """Have a program that a preset needs; its path, if it is to come from here."""
        if name not in self._names and not self._asked:
            self._names[name] = name
        found = self._names.get(name)
        return os.path.join(self._bin, found) if found else None

    def working_set(self) -> Any:
        """The distributions, Circus among them."""
        _, found = self._eggs.working_set(["circus"])
        return found

    def path(self) -> list[str]:
        """The directories on which the distributions lie."""
        return [distribution.location for distribution in self.working_set()]

    def check(self) -> None:
        """Look for the scripts that were asked for; raises every complaint."""
        found = self._entry_points()
        raise_all(_no_script(name) for name in self._names if self._asked and name not in found)

    def made(self, file: ConfigFile) -> list[str]:
        """Write the scripts that are not there as they should be; their paths."""
        from zc.buildout import easy_install

        made: list[str] = []
        for name, (module, attributes) in sorted(self._entry_points().items()):
            arguments = self._path(file.output) if name in _BOUND else ""
            if name == "circusd":
                places = f"{self._path(file.settings)}, {self._path(file.run_directory)}"
                arguments = f"sys.argv[1:] or [{arguments}], {places}"
            made += easy_install.scripts(
                [(name, module, attributes)],
                self.working_set(),
                sys.executable,
                self._bin,
                scripts={name: self._names[name]},
                arguments=arguments,
                initialization=self._finding_ours() if name in _OURS else "",
                relative_paths=self._directory if self._relative else "",
            )
        return made

    def _entry_points(self) -> dict[str, tuple[str, str]]:
        """The module and the function of each script; others may come from another part."""
        found = {name: (_OURS[name], "main") for name in self._names if name in _OURS}
        for distribution in self.working_set():
            for name in set(self._names) - set(found):
                entry_point = distribution.get_entry_info("console_scripts", name)
                if entry_point is not None:
                    found[name] = entry_point.module_name, ".".join(entry_point.attrs)
        return found

    def _finding_ours(self) -> str:
        """Python that puts eggcrate on the path, last, where buildout's own things are.

        It names the directory of the runtime package, as an image has that and no other.
        """
        return (
            "import os\n"
            "# eggcrate, for eggcrate.runtime\n"
            f"sys.path.append(os.path.dirname(os.path.dirname({self._path(RUNTIME)})))\n"
        )

    def _path(self, path: pathlib.Path) -> str:
        return expression(self._section, path)


def _names(text: str) -> dict[str, str]:
    """The option ``scripts``: names, or name=newname."""
    names: dict[str, str] = {}
    errors: list[EggcrateError] = []
    for word in re.sub(r"\s*=\s*", "=", text).split():
        name, renamed, script = word.partition("=")
        script = script if renamed else name
        if not re.fullmatch(r"[\w.+-]+", name) or not re.fullmatch(r"[\w.+-]+", script):
            errors.append(
                SettingsError(f"scripts: {word} names no script", "write name, or name=newname")
            )
        elif script in names.values():
            errors.append(
                SettingsError(f"scripts: two would be bin/{script}", "rename one: name=newname")
            )
        names[name] = script
    raise_all(errors)
    return names


def _no_script(name: str) -> SettingsError:
    return SettingsError(
        f"scripts: no egg has a script {name}", f"add what has it to eggs, or take {name} out"
    )


def _misspelt(options: Mapping[str, str]) -> Iterator[SettingsError]:
    for option in sorted(options):
        if near := circus_sections.nearest(option):
            yield SettingsError(f"has an unknown option {option}", f"write {near}")
