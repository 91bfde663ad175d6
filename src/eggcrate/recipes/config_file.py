"""What circus-config and nginx-config share: a template or declared options in, a file out."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import pathlib
import stat
import tempfile
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

from eggcrate.config import references
from eggcrate.errors import (
    EggcrateError,
    SettingsError,
    SeveralErrors,
    TemplateError,
    raise_all,
)
from eggcrate.recipes import ownership, symbols
from eggcrate.runtime.start import private_mode

Buildout = Mapping[str, MutableMapping[str, str]]

_OPTIONS = ("input", "inline", "output", "mode", "run-directory", "runtime")

# What makes declared options into a text: it is given the template's, if there is one, the
# run directory, and what gives an option's value.
Declare = Callable[
    ["references.Rendered | None", pathlib.Path, Callable[[str], str]], references.Rendered
]

# Which file is whose.  The buildout is compared too: one process may run several.
_files: weakref.WeakValueDictionary[str, ConfigFile] = weakref.WeakValueDictionary()
# The same of those that are being made, and may wait for what they refer to.
_begun: weakref.WeakValueDictionary[str, ConfigFile] = weakref.WeakValueDictionary()


class ConfigFile:
    """The file that a part's options ask for: rendered, checked, ready to be written.

    Whatever is wrong is raised by the constructor, before buildout uninstalls anything,
    and all of it together.  Nothing is written before :meth:`write`.
    """

    def __init__(
        self,
        buildout: Buildout,
        part: str,
        options: MutableMapping[str, str],
        *,
        file_name: str,
        more_options: Iterable[str] = (),
        declare: Declare | None = None,
        otherwise: str = "",
        certain: str = "",
    ) -> None:
        """``declare`` makes the text, or goes on with the template's, which it is given.

        ``otherwise`` is what there is to do instead of setting ``input`` or ``inline``, and
        ``certain`` what a declared text has whatever the options say.
        """
        self._buildout = buildout
        self._part = part
        self.directory = pathlib.Path(buildout["buildout"]["directory"])
        parts = pathlib.Path(buildout["buildout"]["parts-directory"])
        output = options.get("output", "") or str(parts / part / file_name)
        self.output = self._path(output)
        self.run_directory = self._path(options.get("run-directory", "") or "var/run")
        # Published before the template is rendered, as two templates may refer to each
        # other's.  The text is not: a change of it is no reason to uninstall the part.
        options["output"] = str(self.output)
        options["run-directory"] = str(self.run_directory)
        self._symbols = pathlib.Path(symbols.place(buildout, part))
        #: the directory that has the runtime settings, if there are any
        self.settings = self._symbols.parent
        ownership.declare(options, [self.output, self._symbols])

        known = {*_OPTIONS, *more_options}
        source = self._source(options, known, declare is not None, otherwise)
        template = references.parse(source.text, source.name)
        #: what is known of the text before it is made
        self.outline = source.text or certain
        _begun[os.path.realpath(self.output)] = self
        #: the options of the part that the template refers to
        self.own_names = self._own_names(template)
        errors: list[EggcrateError] = []
        with noting(errors):
            raise_all(_misspelt(options, known, self.own_names))
        self._mode = source.mode
        with noting(errors):
            self._mode = _mode(options.get("mode", "")) or source.mode
        with noting(errors):
            self._runtime = symbols.Runtime.of(buildout, options.get("runtime"))

            def text(instead: symbols.Instead) -> references.Rendered:
                # buildout has put the values into a text that is an option itself
                changed = None if source.path else self._value(part, "inline", instead)
                own = references.parse(changed.lstrip(), source.name) if changed else template
                made = own.render(
                    lambda section, option: self._resolve(section, option, instead)
                )
                if declare is None:
                    return made
                before = made if source.name else None
                return declare(
                    before,
                    self.run_directory,
                    lambda option: self._value(part, option, instead) or "",
                )

            self.rendered = text({})
            self._make_symbolic(text)
            self._data = _encoded(self.rendered)
        with noting(errors):
            self._check_output(output, source.path)
        raise_all(errors)
        self._check_writable()

    def shown(self, path: pathlib.Path) -> str:
        """The path as messages have it: below the buildout directory, relative to it."""
        if path.is_relative_to(self.directory):
            return str(path.relative_to(self.directory))
        return str(path)

    def is_current(self) -> bool:
        """Whether the output is there, with this text and this mode."""
        try:
            status = self.output.lstat()
            return (
                stat.S_ISREG(status.st_mode)
                and stat.S_IMODE(status.st_mode) == self._mode
                and self.output.read_bytes() == self._data
                and _contents(self._symbols) == self._document
            )
        except OSError:
            return False

    def write(self) -> None:
        """Put the output in its place at once, unless it is current; make the run directory.

        The run directory is private and stays what it is when it exists: at run time there
        are sockets in it.  Like the output's parents it is made here and never owned.
        """
        try:
            self.run_directory.mkdir(mode=private_mode(), parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"run-directory {self.run_directory} can't be made: {error.strerror}",
                "set run-directory to a directory that you may make",
            ) from error
        if self.is_current():
            return
        try:
            _put(self.output, self._data, self._mode)
            if self._document is not None:
                _put(self._symbols, self._document, 0o644)
            else:
                self._symbols.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error.strerror) from error

    def _path(self, text: str) -> pathlib.Path:
        return pathlib.Path(os.path.normpath(self.directory / text))

    def _source(
        self, options: Mapping[str, str], known: Iterable[str], optional: bool, otherwise: str
    ) -> _Source:
        name = options.get("input", "").strip()
        inline = options.get("inline", "")
        if optional and not name and not inline.strip():
            return _Source("", "", 0o644, None)
        if bool(name) == bool(inline.strip()):
            raise_all(
                [
                    *_misspelt(options, known, ()),
                    SettingsError("has both input and inline", "leave one of them out")
                    if name
                    else SettingsError(
                        "has neither input nor inline",
                        "set input to the path of a template, or inline to its text"
                        f"{otherwise}",
                    ),
                ]
            )
        if name.startswith("inline:"):
            name, inline = "", name.removeprefix("inline:")
        if not name:
            return _Source("inline", inline.lstrip(), 0o644, None)
        path = self._path(name)
        return _read(path, self.shown(path))

    def _own_names(self, template: references.Template) -> set[str]:
        return {
            reference.option
            for reference in template.references
            if reference.section in ("", self._part)
        }

    def _value(self, section: str, option: str, instead: symbols.Instead) -> str | None:
        """An option's value, as buildout or as the runtime settings have it."""
        if self._runtime is None:
            return self._buildout[section].get(option)
        return self._runtime.value(section, option, instead)

    def _make_symbolic(self, text: Callable[[symbols.Instead], references.Rendered]) -> None:
        """Find the places of runtime settings; the text is the one that PID 1 would write."""
        self._document: bytes | None = None
        if self._runtime is None:
            return
        document = self._runtime.document(
            self.rendered, text, path=str(self.output), mode=self._mode
        )
        self.rendered = symbols.default_text(document, self.rendered)
        self._document = self._runtime.dumped(document)

    def _resolve(
        self, section: str, option: str, instead: symbols.Instead = types.MappingProxyType({})
    ) -> str:
        sections = list(self._buildout.keys())
        name = section or self._part
        reference = references.written(section, option)
        if name not in sections:
            raise TemplateError(
                "names no section",
                _hint(section, sections, lambda near: references.written(near, option))
                or f"add [{section}], or write ${reference} for the text {reference}",
            )
        __doing__ = "Reading %s for [%s].", reference, self._part  # noqa: F841 buildout prints it
        # as buildout does it: this also makes the section's part come before ours
        options = self._buildout[name]
        value = self._value(name, option, instead)
        if value is None:
            if option == "_buildout_section_name_":
                return self._part
            raise TemplateError(
                f"names no option of [{name}]",
                _hint(option, options.keys(), lambda near: references.written(section, near))
                or f"add {option} to [{name}], or write ${reference} for the text {reference}",
            )
        # In an option "$${" is the only way to say "${", and buildout leaves it as it is.
        return value.replace("$${", "${")

    def _check_output(self, output: str, template: pathlib.Path | None) -> None:
        shown = self.shown(self.output)
        if output.endswith("/") or self.output.is_dir():
            raise SettingsError(
                f"output {shown} is a directory", "let output name a file in that directory"
            )
        if self.output.exists() and not self.output.is_file():
            raise SettingsError(f"output {shown} is no regular file", "choose another output")
        real = os.path.realpath(self.output)
        if template is not None and real == os.path.realpath(template):
            raise SettingsError(
                f"output {shown} is the template itself", "choose another output"
            )
        other = _files.get(real)
        if other and other._buildout is self._buildout and other._part != self._part:
            raise SettingsError(
                f"output {shown} is the output of [{other._part}] too",
                "give one of the two another output",
            )
        _files[real] = self

    def _check_writable(self) -> None:
        if self.is_current():  # a buildout that is complete may be read-only
            return
        place = self.output.parent
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise self._unwritable(f"{self.shown(place)} is no directory")
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._unwritable(f"{self.shown(place)} is not writable")

    def _unwritable(self, reason: str | None) -> SettingsError:
        return SettingsError(
            f"output {self.shown(self.output)} can't be written: {reason}",
            "set output to a path that you may write",
        )


def text_of(buildout: Buildout, path: str, *, outline: bool = False) -> str | None:
    """The text of a file as a part of this run writes it, or as it is; None if nobody knows.

    With ``outline``, of a part that is still waiting for others, it is what is known already:
    its template, for instance, rather than the file of an earlier run.
    """
    real = os.path.realpath(path)
    part = _files.get(real)
    if part is not None and part._buildout is buildout:
        return part.rendered.text
    part = _begun.get(real)
    if outline and part is not None and part._buildout is buildout:
        return part.outline
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return pathlib.Path(path).read_text(encoding="utf-8")
    return None


def _put(path: pathlib.Path, data: bytes, mode: int) -> None:
    """Put a file in its place at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".eggcrate-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        pathlib.Path(temporary).replace(path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _contents(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Source:
    """A template's text, what messages call it, its file's mode, and the file if any."""

    name: str
    text: str
    mode: int
    path: pathlib.Path | None


def flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """The value of an option that is ``true`` or ``false``."""
    value = options.get(name, str(default)).strip().lower()
    if value not in ("true", "false"):
        raise SettingsError(
            f"{name} is {options[name]!r}, which is neither true nor false",
            f"set {name} to true or false",
        )
    return value == "true"


def _mode(value: str) -> int | None:
    if not value:
        return None
    with contextlib.suppress(ValueError):
        mode = int(value, 8)
        if 0 < mode <= 0o777:
            return mode
    raise SettingsError(
        f"mode is {value!r}, which is no octal mode up to 777", "set mode to 644, for example"
    )


def _read(path: pathlib.Path, shown: str) -> _Source:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise TemplateError(f"input {shown} is a directory", "let input name a file")
        if not stat.S_ISREG(status.st_mode):
            raise TemplateError(f"input {shown} is no regular file", "let input name a file")
        data = path.read_bytes()
    except FileNotFoundError as error:
        beside: list[str] = []
        with contextlib.suppress(OSError):
            beside = [file.name for file in path.parent.iterdir()]
        raise TemplateError(
            f"input {shown} does not exist",
            _hint(path.name, beside, lambda near: str(pathlib.Path(shown).with_name(near)))
            or "write it, or correct its path, which starts from the buildout directory",
        ) from error
    except OSError as error:
        raise TemplateError(
            f"input {shown} can't be read: {error.strerror}", "make it readable, or correct it"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TemplateError(
            f"{shown}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8",
            "save the template as UTF-8",
        ) from error
    return _Source(shown, text, stat.S_IMODE(status.st_mode) & 0o777, path)


def _encoded(rendered: references.Rendered) -> bytes:
    try:
        return rendered.text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = rendered.text.count("\n", 0, error.start) + 1
        raise TemplateError(
            f"{rendered.where(line)}: a value has a character that UTF-8 can't hold",
            "correct the option that the line refers to",
        ) from error


def _misspelt(
    options: Mapping[str, str], known: Iterable[str], used: Iterable[str]
) -> Iterator[SettingsError]:
    """Options that are nearly ours, unless the template uses them.

    Others may be there for other sections and templates to refer to; buildout itself warns
    of those that nobody reads.
    """
    names = sorted(known)
    for option in sorted(set(options) - set(names) - set(used)):
        if near := difflib.get_close_matches(option, names, 1, 0.8):
            yield SettingsError(f"has an unknown option {option}", f"write {near[0]}")


def _hint(name: str, names: Iterable[str], write: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), 1)
    return f"write {write(near[0])}, the nearest name there is" if near else ""


@contextlib.contextmanager
def noting(errors: list[EggcrateError]) -> Iterator[None]:
    """Keep what is raised, so that the next check can be made too."""
    try:
        yield
    except SeveralErrors as several:
        errors.extend(several.errors)
    except EggcrateError as error:
        errors.append(error)
