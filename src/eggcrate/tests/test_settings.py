"""Settings come back from their file as they were."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import typing
import unittest
from collections.abc import Collection, Iterator
from typing import Any

from eggcrate.errors import SettingsError
from eggcrate.image.oci import Platform, Reference
from eggcrate.payload.site import Include, Part, Site
from eggcrate.settings import ImageSettings, document, read

PATH = pathlib.Path("/srv/shop \u00e9")
SITE = Site(PATH, PATH, PATH, PATH, PATH, PATH, PATH, (PATH, pathlib.Path("/usr")), (PATH,))
# for each type of a field, a value that is not its default
VALUES: dict[object, object] = {
    str: "text",
    int: 7,
    bool: True,
    str | None: "trixie",
    pathlib.Path: PATH,
    Site: SITE,
    Platform: Platform("linux", "arm64", "v8"),
    tuple[Platform, ...]: (Platform("linux", "amd64"), Platform("linux", "arm64", "v8")),
    tuple[Reference, ...]: (Reference("docker.io", "acme/shop", "1"),),
    tuple[Part, ...]: (Part("app", (PATH,)), Part("nothing", ())),
    tuple[Include, ...]: (Include(PATH, "/there"),),
    tuple[str, ...]: ("one", "two words"),
    tuple[str, ...] | None: ("/bin/x",),
    tuple[tuple[str, str], ...]: (("a", "b"),),
    tuple[tuple[str, ...], ...]: (("numpy", "scipy*"), ("zope-*",)),
}


class SettingsFile(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = pathlib.Path(scratch.name, "settings.json")
        hints = typing.get_type_hints(ImageSettings)
        self.settings = ImageSettings(**{name: VALUES[hint] for name, hint in hints.items()})  # type: ignore[arg-type]  # each of its field's type

    def test_every_field_comes_back(self) -> None:
        for settings in (
            self.settings,
            dataclasses.replace(self.settings, suite=None, entrypoint=None, include=()),
        ):
            self.path.write_bytes(document(settings))
            self.assertEqual(read(self.path), settings)

    def test_the_same_settings_have_the_same_bytes(self) -> None:
        self.assertEqual(document(self.settings), document(self.settings))

    def test_a_file_that_is_not_there_cut_off_or_of_another_release(self) -> None:
        with self.assertRaises(SettingsError) as caught:
            read(self.path)
        self.assertIn("can't be read: No such file", caught.exception.what)
        whole = document(self.settings)
        for data in (
            *(whole[:length] for length in range(0, len(whole) - 2, 97)),
            whole.replace(b'"format": 1', b'"format": 0'),
            whole.replace(b'"volumes"', b'"volume"'),
            b"[]",
        ):
            self.path.write_bytes(data)
            with self.assertRaises(SettingsError) as caught:
                read(self.path)
            self.assertIn("is not of this release, or not whole", caught.exception.what)
            self.assertEqual(caught.exception.hint, "run bin/buildout, which writes it")

    def test_paths_of_any_bytes(self) -> None:
        settings = dataclasses.replace(
            self.settings, location=pathlib.Path("/srv/\udcff\n\u202e"), directory="/srv/\udcff"
        )
        self.path.write_bytes(document(settings))
        self.assertEqual(read(self.path), settings)

    def test_a_field_that_is_not_there(self) -> None:
        for field in dataclasses.fields(ImageSettings):
            whole = json.loads(document(self.settings))
            del whole[field.name]
            self.path.write_text(json.dumps(whole))
            if field.default is dataclasses.MISSING:
                with self.assertRaises(SettingsError):
                    read(self.path)
            else:  # an option that the release before did not have
                wanted: dict[str, Any] = {field.name: field.default}
                self.assertEqual(read(self.path), dataclasses.replace(self.settings, **wanted))

    def test_a_value_of_another_type_in_any_place(self) -> None:
        whole = json.loads(document(self.settings))
        number = 0
        for change in _changes(whole, {None, 5, "text", True}):
            number += 1
            self.path.write_text(json.dumps(whole))
            try:
                settings = read(self.path)
            except SettingsError as error:
                self.assertIn("is not of this release, or not whole", error.what)
            else:  # it was another value of the right type
                self.assertEqual(json.loads(document(settings)), whole, change)
        self.assertGreater(number, 200)


def _changes(value: Any, others: Collection[object]) -> Iterator[str]:
    """Each part of a JSON value in turn is another for a while."""
    places = list(value.items() if isinstance(value, dict) else enumerate(value))
    for key, old in places:
        for other in (*others, [], {}, [None], [["x"]], {"x": 1}):
            value[key] = other
            yield f"{key} = {other!r}"
        value[key] = old
        if isinstance(old, dict | list):
            yield from _changes(old, others)
