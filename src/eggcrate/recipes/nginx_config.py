"""``eggcrate:nginx-config``: a configuration for nginx, made from a template and tested."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping

from eggcrate.config import nginx
from eggcrate.recipes.boundary import user_errors
from eggcrate.recipes.config_file import Buildout, ConfigFile, flag


class Recipe:
    """The part writes one file; see ``docs/nginx-config.rst`` for its options."""

    def __init__(
        self, buildout: Buildout, name: str, options: MutableMapping[str, str]
    ) -> None:
        self._name = name
        with user_errors(name):
            self._check = flag(options, "check", default=True)
            self._file = ConfigFile(
                buildout, name, options, file_name="nginx.conf", more_options=["check"]
            )

    def install(self) -> tuple[str, ...]:
        """Test the file and write it."""
        with user_errors(self._name):
            self._test()
            self._file.write()
        return ()  # the file is owned through eggcrate.recipes.ownership

    def update(self) -> tuple[str, ...]:
        """Do the same when the file would change; what is there has been tested."""
        with user_errors(self._name):
            if not self._file.is_current():
                self._test()
            self._file.write()
        return ()

    def _test(self) -> None:
        program = nginx.find() if self._check else None
        if program is None:
            return
        untested = nginx.check(
            self._file.rendered,
            program,
            output=self._file.output,
            run_directory=self._file.run_directory,
            directory=self._file.directory,
        )
        if untested:
            logging.getLogger(self._name).warning("not tested to the end: %s", untested)
