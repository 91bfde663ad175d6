"""``eggcrate:circus-config``: a configuration for Circus, made from a template."""

from __future__ import annotations

from collections.abc import MutableMapping

from eggcrate.recipes.boundary import user_errors
from eggcrate.recipes.config_file import Buildout, ConfigFile


class Recipe:
    """The part writes one file; see ``docs/circus-config.rst`` for its options."""

    def __init__(
        self, buildout: Buildout, name: str, options: MutableMapping[str, str]
    ) -> None:
        self._name = name
        with user_errors(name):
            self._file = ConfigFile(buildout, name, options, file_name="circus.ini")

    def install(self) -> tuple[str, ...]:
        """Write the file if it is not there as it should be."""
        with user_errors(self._name):
            self._file.write()
        return ()  # the file is owned through eggcrate.recipes.ownership

    update = install
