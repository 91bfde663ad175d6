"""Which files go in: what is referred to, with its paths relocated, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import socket
import tempfile
import unittest
from collections.abc import Sequence

from eggcrate.errors import EggcrateError, PlanError, SeveralErrors
from eggcrate.image.plan import FileEntry, FileType
from eggcrate.payload.closure import Closure
from eggcrate.payload.distributions import canonical_name, egg_name
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Include, Part, Site, develop_locations, installed_parts


class Scratch(unittest.TestCase):
    """A buildout on disk, with the usual directories."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name).resolve()
        self.directory = self.root / "app"
        self.develop: tuple[pathlib.Path, ...] = ()
        self.environment = self.root / "venv/lib/python3.x/site-packages"
        self.environment.mkdir(parents=True)
        self.prefixes: tuple[pathlib.Path, ...] = (self.root / "venv",)
        for name in ("bin", "parts", "eggs", "develop-eggs"):
            (self.directory / name).mkdir(parents=True)

    def site(self) -> Site:
        return Site(
            directory=self.directory,
            eggs=self.directory / "eggs",
            develop_eggs=self.directory / "develop-eggs",
            bin=self.directory / "bin",
            parts=self.directory / "parts",
            environment=self.environment,
            run_directory=self.directory / "var/run",
            prefixes=self.prefixes,
            develop=self.develop,
        )

    def write(self, name: str, text: str | bytes = "", mode: int = 0o644) -> pathlib.Path:
        """A file of the buildout; APP in its text is the buildout's directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(data.replace(b"APP", os.fsencode(self.directory)))
        path.chmod(mode)
        return path

    def closure(self, *, exclude: Sequence[str] = (), allow: Sequence[str] = ()) -> Closure:
        rules = [
            Rule(os.fspath(self.directory), "/image"),
            Rule(os.fspath(self.directory / "var/run"), "/run/eggcrate"),
            Rule(os.fspath(self.environment), "/image/.venv/site-packages"),
            Rule(os.fspath(self.root / "venv/bin/python"), "/usr/bin/python3"),
        ]
        rules += [
            Rule(os.fspath(location), f"/image/develop/{location.name}")
            for location in self.develop
            if not location.is_relative_to(self.directory)
        ]
        return Closure(
            self.site(), Relocation(tuple(rules)), exclude=exclude, allow_build_paths=allow
        )

    def take(
        self, *outputs: str, exclude: Sequence[str] = (), allow: Sequence[str] = ()
    ) -> dict[str, FileEntry]:
        """The entries that a part with these outputs brings in, by path."""
        closure = self.closure(exclude=exclude, allow=allow)
        closure.add_part(Part("x", tuple(self.directory / output for output in outputs)))
        return {entry.path: entry for entry in closure.finish()}

    def files(
        self, *outputs: str, exclude: Sequence[str] = (), allow: Sequence[str] = ()
    ) -> list[str]:
        return _files(self.take(*outputs, exclude=exclude, allow=allow))

    def include(self, source: str, target: str = "", exclude: Sequence[str] = ()) -> list[str]:
        closure = self.closure(exclude=exclude)
        closure.add_include(Include(self.directory / source, target))
        return _files({entry.path: entry for entry in closure.finish()})


def _files(tree: dict[str, FileEntry]) -> list[str]:
    return sorted(
        path.removeprefix("image/")
        for path, entry in tree.items()
        if entry.type is not FileType.DIRECTORY
    )


def _content(entry: FileEntry) -> bytes:
    with entry.open() as stream:
        return stream.read()


def _complaints(closure: Closure) -> list[str]:
    try:
        closure.finish()
    except SeveralErrors as several:
        return [error.what for error in several.errors]
    except EggcrateError as error:
        return [error.what]
    return []


class Following(Scratch):
    def test_a_script_brings_its_eggs_and_no_others(self) -> None:
        self.write("eggs/one-1.0-py3.11.egg/one/__init__.py")
        self.write("eggs/one-1.0-py3.11.egg/one/data.txt")
        self.write("eggs/two-1.0-py3.11.egg/two.py")
        self.write(
            "bin/run",
            "#!/bin/sh\nsys.path[0:0] = [\n  'APP/eggs/one-1.0-py3.11.egg',\n  ]\n",
            0o755,
        )
        tree = self.take("bin/run")
        self.assertEqual(
            _files(tree),
            [
                "bin/run",
                "eggs/one-1.0-py3.11.egg/one/__init__.py",
                "eggs/one-1.0-py3.11.egg/one/data.txt",
            ],
        )
        self.assertEqual(
            _content(tree["image/bin/run"]),
            b"#!/bin/sh\nsys.path[0:0] = [\n  '/image/eggs/one-1.0-py3.11.egg',\n  ]\n",
        )
        self.assertEqual(
            tree["image/eggs/one-1.0-py3.11.egg/one/__init__.py"].group, "egg one-1.0"
        )
        self.assertEqual(tree["image/bin/run"].reason, "made by the part x")
        self.assertEqual(tree["image/bin/run"].mode, 0o755)

    def test_a_reference_to_a_file_in_an_egg_brings_the_egg(self) -> None:
        self.write("eggs/one-1.0.egg/one/static/x.css")
        self.write("eggs/one-1.0.egg/one/__init__.py")
        self.write("parts/nginx.conf", "alias APP/eggs/one-1.0.egg/one/static/;")
        self.assertEqual(len(self.files("parts/nginx.conf")), 3)

    def test_what_is_referred_to_is_followed_in_turn(self) -> None:
        self.write("bin/run", "exec APP/parts/a.conf")
        self.write("parts/a.conf", "include APP/parts/b/*;\ninclude APP/parts/b;")
        self.write("parts/b/c.conf", "APP/bin/run")
        self.assertEqual(self.files("bin/run"), ["bin/run", "parts/a.conf", "parts/b/c.conf"])

    def test_a_place_is_not_a_thing(self) -> None:
        self.write("bin/other")
        self.write("eggs/one-1.0.egg/one.py")
        self.write("secret.txt")
        self.write(
            "bin/run", "'APP' 'APP/bin' 'APP/eggs' 'APP/parts' 'APP/develop-eggs' '/' APP/.."
        )
        self.assertEqual(self.files("bin/run"), ["bin/run"])

    def test_the_run_directory_is_relocated_and_not_packed(self) -> None:
        self.write("var/run/circus.sock")
        self.write("parts/circus.ini", "endpoint = ipc://APP/var/run/circus.sock")
        tree = self.take("parts/circus.ini")
        self.assertEqual(_files(tree), ["parts/circus.ini"])
        self.assertEqual(
            _content(tree["image/parts/circus.ini"]),
            b"endpoint = ipc:///run/eggcrate/circus.sock",
        )

    def test_an_output_that_is_not_there(self) -> None:
        # some recipes name scripts that they don't make; what programs write is not theirs
        self.assertEqual(self.files("bin/none", "var/log"), [])
        for exclude in ((), ("parts/none",)):
            closure = self.closure(exclude=exclude)
            closure.add_part(Part("none", (self.directory / "parts/none",)))
            if exclude:
                self.assertEqual(closure.finish(), [])
                continue
            with self.assertRaises(PlanError) as caught:
                closure.finish()
            self.assertEqual(
                str(caught.exception),
                f"{self.directory}/parts/none, which the part none has made, is not there; run "
                "bin/buildout, without .installed.cfg if need be, or list the path in exclude",
            )

    def test_an_environment_goes_in_whole(self) -> None:
        for name in ("pyvenv.cfg", "lib/python3.x/site-packages/one.py", "bin/run"):
            self.write(f"parts/tool/{name}")
        self.write("bin/report", "APP/parts/tool/bin/run")
        tree = self.take("bin/report")
        self.assertEqual(len(_files(tree)), 4)
        self.assertEqual(tree["image/parts/tool/bin/run"].group, "environment tool")

    def test_a_script_whose_first_line_would_be_too_long(self) -> None:
        # as pip, uv and virtualenv-part write it; in the image it is not too long
        for before, after in (
            ("APP/bin/python", "/image/bin/python"),
            ('"APP/bin/python"', "/image/bin/python"),
            ("'APP/bin/python'", "/image/bin/python"),
            ("'APP/bin/python' -IS", "/image/bin/python -IS"),
        ):
            text = f"#!/bin/sh\n'''exec' {before} \"$0\" \"$@\"\n' '''\nimport report\n"
            self.write("bin/run", text, 0o755)
            self.assertEqual(
                _content(self.take("bin/run")["image/bin/run"]).decode(),
                f"#!{after}\nimport report\n",
            )

    def test_the_python_that_runs_buildout_stays_out(self) -> None:
        (self.root / "venv/bin").mkdir()
        (self.root / "venv/bin/python").write_text("")
        (self.root / "venv/secret").write_text("")
        self.write("bin/run", f"#!{self.root}/venv/bin/python\n")
        tree = self.take("bin/run")
        self.assertEqual(_files(tree), ["bin/run"])
        self.assertEqual(_content(tree["image/bin/run"]), b"#!/usr/bin/python3\n")

    def test_the_buildout_may_lie_where_the_python_lies(self) -> None:
        # python3 -m venv . && bin/pip install zc.buildout && bin/buildout
        self.write("pyvenv.cfg")
        self.write("bin/python3.11")
        self.write("lib/python3.11/site-packages/x.py")
        self.write("parts/x/file")
        self.write("bin/run", "#!APP/bin/python3.11\n'APP/lib/python3.11/site-packages'\n")
        self.prefixes = (self.directory,)
        self.environment = self.directory / "lib/python3.11/site-packages"
        self.assertEqual(self.files("bin/run", "parts/x"), ["bin/run", "parts/x/file"])

    def test_the_buildout_may_lie_below_the_python(self) -> None:
        # /usr/src/app in a container whose Python is /usr/bin/python3
        (self.root / "bin").mkdir()
        (self.root / "bin/python3").write_text("")
        self.prefixes = (self.root,)
        self.write("bin/run", f"#!{self.root}/bin/python3\n")
        self.write("parts/x/file")
        self.assertEqual(self.files("bin/run", "parts/x"), ["bin/run", "parts/x/file"])

    def test_two_parts_that_share_a_file(self) -> None:
        self.write("bin/run")
        closure = self.closure()
        closure.add_part(Part("x", (self.directory / "bin/run",)))
        closure.add_part(Part("y", (self.directory / "bin/run",)))
        self.assertEqual(len(closure.finish()), 1)


class Develop(Scratch):
    def test_a_project_s_packages_go_in_and_its_other_files_not(self) -> None:
        self.develop = (self.directory / "src/shop",)
        for name in (
            *("shop/__init__.py", "shop/static/x.css", "shop/x.pyc", "shop/__pycache__/x.pyc"),
            *("setup.py", "tests.txt", "docs/index.txt", ".git/config", ".env", "noted.txt"),
            *("shop.egg-info/PKG-INFO", "shop.egg-info/entry_points.txt"),
            *("shop.egg-info/SOURCES.txt", "shop.old/x.py"),
            "extension.cpython-311-x86_64-linux-gnu.so",
        ):
            self.write(f"src/shop/{name}")
        self.write("src/shop/shop.egg-info/top_level.txt", "shop\nextension\n")
        self.write("bin/run", "'APP/src/shop'")
        self.assertEqual(
            self.files("bin/run"),
            [
                "bin/run",
                *(
                    f"src/shop/{name}"
                    for name in (
                        "extension.cpython-311-x86_64-linux-gnu.so",
                        "shop.egg-info/PKG-INFO",
                        "shop.egg-info/entry_points.txt",
                        "shop.egg-info/top_level.txt",
                        "shop/__init__.py",
                        "shop/static/x.css",
                    )
                ),
            ],
        )

    def test_without_metadata_packages_are_those_with_an_init(self) -> None:
        self.develop = (self.directory / "src/shop",)
        for name in ("setup.py", "shop/__init__.py", "one.py", "docs/conf.py", "x.txt"):
            self.write(f"src/shop/{name}")
        self.write("bin/run", "'APP/src/shop'")
        self.assertEqual(
            self.files("bin/run"), ["bin/run", "src/shop/one.py", "src/shop/shop/__init__.py"]
        )

    def test_a_project_outside_the_buildout_has_a_place_in_it(self) -> None:
        outside = self.root / "elsewhere"
        (outside / "package").mkdir(parents=True)
        (outside / "package/__init__.py").write_text("")
        self.develop = (outside,)
        self.write("bin/run", f"'{outside}'")
        self.assertEqual(
            self.files("bin/run"), ["bin/run", "develop/elsewhere/package/__init__.py"]
        )

    def test_what_a_script_imports_from_the_buildout_s_own_directory(self) -> None:
        self.write("shop/__init__.py")
        self.write("shop/settings.py", "import helpers")
        self.write("helpers/x.py")
        self.write("unrelated/x.py")
        self.write("notes.txt")
        self.write("bin/django", "sys.path[0:0] = ['APP']\nimport shop.settings\n")
        self.assertEqual(
            self.files("bin/django"),
            ["bin/django", "helpers/x.py", "shop/__init__.py", "shop/settings.py"],
        )

    def test_develop_eggs_name_their_directories(self) -> None:
        self.write("develop-eggs/shop.egg-link", "/srv/shop\n../")
        self.write("develop-eggs/a.egg-link", "/srv/a\n.")
        self.write("develop-eggs/empty.egg-link", "\n")
        self.assertEqual(
            develop_locations(self.directory / "develop-eggs"),
            (pathlib.Path("/srv/a"), pathlib.Path("/srv/shop")),
        )


class Environment(Scratch):
    def distribution(self, name: str, *requires: str) -> None:
        info = self.environment / f"{name}-1.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (self.environment / f"{name}.py").write_text("")
        (info / "RECORD").write_text(
            f"{name}.py,,\n{name}-1.dist-info/METADATA,,\n../../../bin/{name},,\n"
        )

    def test_what_eggs_require_comes_from_it_and_nothing_else(self) -> None:
        self.distribution("packaging")
        self.distribution("pip")
        self.distribution("other")
        self.distribution("extra_only")
        self.write("eggs/one-1.0.egg/one.py")
        self.write(
            "eggs/one-1.0.egg/EGG-INFO/PKG-INFO",
            "Metadata-Version: 2.1\nName: one\nVersion: 1.0\nRequires-Dist: Packaging>=1\n"
            "Requires-Dist: pip\nRequires-Dist: extra-only; extra == 'x'\n",
        )
        self.write("bin/run", f"'APP/eggs/one-1.0.egg' '{self.environment}'")
        found = [name for name in self.files("bin/run") if "site-packages" in name]
        self.assertEqual(
            found,
            [
                ".venv/site-packages/packaging-1.dist-info/METADATA",
                ".venv/site-packages/packaging.py",
            ],
        )


class Kinds(Scratch):
    def test_links_stay_links(self) -> None:
        self.write("parts/x/file")
        for name, text in (
            *(("loop", "loop"), ("one", "two"), ("two", "one"), ("dangling", "none")),
            *(("up", "../.."), ("shadow", "/etc/shadow"), ("relative", "file")),
            ("absolute", os.fspath(self.directory / "parts/x/file")),
        ):
            (self.directory / "parts/x" / name).symlink_to(text)
        tree = self.take("parts/x")
        self.assertEqual(
            {
                path.removeprefix("image/parts/x/"): entry.linkname
                for path, entry in tree.items()
                if entry.type is FileType.SYMLINK
            },
            {
                "loop": "loop",
                "one": "two",
                "two": "one",
                "dangling": "none",
                "up": "../..",
                "shadow": "/etc/shadow",
                "relative": "file",
                "absolute": "/image/parts/x/file",
            },
        )

    def test_an_absolute_link_brings_what_it_leads_to(self) -> None:
        self.write("media/picture")
        (self.directory / "parts/current").symlink_to(self.directory / "media")
        self.assertEqual(self.files("parts/current"), ["media/picture", "parts/current"])

    def test_a_relative_link_brings_it_too(self) -> None:
        self.write("media/picture")
        (self.directory / "parts/current").symlink_to("../media")
        (self.directory / "parts/next").symlink_to("current")
        tree = self.take("parts/next")
        self.assertEqual(_files(tree), ["media/picture", "parts/current", "parts/next"])
        self.assertEqual(tree["image/parts/current"].linkname, "../media")

    def test_a_fifo_or_a_socket_is_left_out_and_never_opened(self) -> None:
        self.write("parts/x/file")
        os.mkfifo(self.directory / "parts/x/fifo")
        place = os.getcwd()
        os.chdir(self.directory)  # a socket's path must be short
        self.addCleanup(os.chdir, place)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("parts/x/socket")
            closure = self.closure()
            closure.add_part(Part("x", (self.directory / "parts/x",)))
            entries = closure.finish()
        self.assertEqual(len(entries), 2)
        self.assertEqual(
            closure.warnings,
            ["neither file, directory nor link, and left out: parts/x/fifo, parts/x/socket"],
        )

    def test_odd_rights_are_dropped(self) -> None:
        for name, mode in (("s", 0o4755), ("g", 0o2755), ("w", 0o666), ("r", 0o600)):
            self.write(f"parts/x/{name}", mode=mode)
        (self.directory / "parts/x").chmod(0o777)
        closure = self.closure()
        closure.add_part(Part("x", (self.directory / "parts/x",)))
        modes = {entry.path.rpartition("/")[2]: entry.mode for entry in closure.finish()}
        self.assertEqual(modes, {"x": 0o755, "s": 0o755, "g": 0o755, "w": 0o644, "r": 0o644})
        self.assertEqual(
            closure.warnings,
            ["set-user-ID or set-group-ID, and plain in the image: parts/x/g, parts/x/s"],
        )

    def test_odd_names_come_through(self) -> None:
        names = [b"new\nline", b"bad-\xff\xfe", b"-rf", b"a b", b"\xc3\xa9", b"n" * 255]
        top = os.fsencode(self.directory / "parts/x")
        os.mkdir(top)
        for name in names:
            pathlib.Path(os.fsdecode(top + b"/" + name)).write_bytes(name)
        tree = self.take("parts/x")
        for name in names:
            entry = tree[f"image/parts/x/{os.fsdecode(name)}"]
            self.assertEqual(_content(entry), name)

    def test_the_order_of_the_directory_does_not_matter(self) -> None:
        for order in ("abc", "cab"):
            for name in order:
                self.write(f"parts/{order}/{name}/f")
        one = [path.removeprefix("image/parts/abc") for path in self.take("parts/abc")]
        two = [path.removeprefix("image/parts/cab") for path in self.take("parts/cab")]
        self.assertEqual(one, two)


class Eggs(Scratch):
    """The order of eggs in scripts, which changes from run to run in zc.buildout."""

    def settled(
        self, *orders: Sequence[str], form: str = "  'APP/{}',\n", before: str = ""
    ) -> set[bytes]:
        """What becomes of a script with a list in these orders."""
        found = set()
        for order in orders:
            text = before + "".join(map(form.format, order))
            self.write("bin/run", f"x = [\n{text}  ]\n")
            found.add(_content(self.take("bin/run")["image/bin/run"]))
        return found

    def test_what_is_before_and_after_them_stays(self) -> None:
        for name in "abc":
            self.write(f"eggs/{name}.egg/{name}.py")
        self.write("src/s/s.py")
        self.write("media/x")
        found = self.settled(
            ("src", "eggs/b.egg", "eggs/a.egg", "src/s", "eggs/c.egg", "media"),
            ("src", "eggs/a.egg", "src/s", "eggs/b.egg", "eggs/c.egg", "media"),
        )
        names = ("src", "src/s", "eggs/a.egg", "eggs/b.egg", "eggs/c.egg", "media")
        lines = "".join(f"  '/image/{name}',\n" for name in names)
        self.assertEqual(found, {f"x = [\n{lines}  ]\n".encode()})

    def test_of_two_with_the_same_module_the_first_one_counts(self) -> None:
        for name in "abcd":
            self.write(f"eggs/{name}.egg/{name}.py")
            self.write(f"eggs/{name}.egg/LICENSE", name)
            self.write(f"eggs/{name}.egg/{name}-1.dist-info/METADATA", f"Name: {name}\n")
        for name in "bd":
            self.write(f"eggs/{name}.egg/shared/x.py", name)
        found = self.settled(
            ("eggs/d.egg", "eggs/c.egg", "eggs/b.egg", "eggs/a.egg"),
            ("eggs/c.egg", "eggs/a.egg", "eggs/d.egg", "eggs/b.egg"),
        )
        lines = "".join(f"  '/image/eggs/{name}.egg',\n" for name in "acdb")
        self.assertEqual(found, {f"x = [\n{lines}  ]\n".encode()})

    def test_a_path_for_the_shell_and_a_file_of_lines(self) -> None:
        for name in "abc":
            self.write(f"eggs/{name}.egg/{name}.py")
        self.write("src/s/s.py")
        orders = (
            ("eggs/b.egg", "eggs/a.egg", "src/s", "eggs/c.egg"),
            ("src/s", "eggs/c.egg", "eggs/b.egg", "eggs/a.egg"),
        )
        for form, expected in (("APP/{}:", "/image/{}:"), ("APP/{}\n", "/image/{}\n")):
            names = ("src/s", "eggs/a.egg", "eggs/b.egg", "eggs/c.egg")
            text = "".join(map(expected.format, names))
            self.assertEqual(self.settled(*orders, form=form), {f"x = [\n{text}  ]\n".encode()})


class Environments(Scratch):
    """What an installer has made of requirements and projects."""

    packages = "parts/tool/lib/python3.11/site-packages"

    def setUp(self) -> None:
        super().setUp()
        self.write("parts/tool/pyvenv.cfg")

    def test_packages_are_taken_as_they_were_published(self) -> None:
        for name in (".env", "node_modules/x.js", "x.pyc", "y~"):
            self.write(f"{self.packages}/x/{name}")
            self.write(f"parts/tool/share/{name}")
        self.assertEqual(
            self.files("parts/tool"),
            [
                "parts/tool/lib/python3.11/site-packages/x/.env",
                "parts/tool/lib/python3.11/site-packages/x/node_modules/x.js",
                "parts/tool/lib/python3.11/site-packages/x/y~",
                "parts/tool/pyvenv.cfg",
            ],
        )

    def test_what_buildout_makes_is_no_source(self) -> None:
        self.write("parts/static/a.css")
        self.write(f"{self.packages}/x/README.md")
        wanted = self.files("parts/tool", "parts/static")
        self.assertEqual(len(wanted), 3)
        for ignored in ("bin\nparts\n", "*\n!src\n", "**/*.md\n**/lib\n**/*.css\n"):
            self.write(".dockerignore", ignored)
            self.assertEqual(self.files("parts/tool", "parts/static"), wanted, ignored)

    def test_a_checkout_in_parts_has_its_own_dockerignore(self) -> None:
        for name in ("setup.py", "x/__init__.py", "x/a.md", ".dockerignore"):
            self.write(f"parts/checkout/{name}", "**/*.md\n" if "docker" in name else "")
        self.assertEqual(
            self.files("parts/checkout"),
            ["parts/checkout/setup.py", "parts/checkout/x/__init__.py"],
        )

    def test_no_password_goes_in(self) -> None:
        secret = "https://me:Tr0ub4dor@packages.shop.internal"
        information = f"{self.packages}/x-1.dist-info"
        self.write(f"{information}/direct_url.json", f'{{"url": "{secret}/x-1.whl"}}')
        self.write(f"{information}/RECORD", "x-1.dist-info/direct_url.json,,\n")
        self.write("parts/tool/.eggcrate.json", f'{{"index": "{secret}"}}')
        self.write("parts/tool/pip.conf", f"[global]\nindex-url = {secret}\n")
        self.write("tool/pyproject.toml", f"[tool.uv]\nindex-url = '{secret}'\n")
        self.write("tool/requirements.txt", f"x @ {secret}/x-1.whl\n")
        self.write("tool/src/report.py")
        self.write(f"{self.packages}/report.pth", "APP/tool/src\n")
        tree = self.take("parts/tool")
        self.assertIn("image/tool/src/report.py", tree)
        for path, entry in tree.items():
            if entry.type is FileType.REGULAR:
                self.assertNotIn(b"Tr0ub4dor", _content(entry), path)

    def test_a_project_that_requires_a_url_with_a_password(self) -> None:
        information = f"{self.packages}/report-1.dist-info"
        self.write(
            f"{information}/METADATA",
            "Name: report\nRequires-Dist: x @ https://me:Tr0ub4dor@shop.internal/x-1.whl\n",
        )
        self.write(f"{information}/direct_url.json", '{"dir_info": {"editable": true}}')
        closure = self.closure()
        closure.add_part(Part("tool", (self.directory / "parts/tool",)))
        self.assertEqual(
            _complaints(closure),
            [
                "there is a password in a URL (https://me:***@shop.internal) in "
                f"{information}/METADATA"
            ],
        )


class Patterns(Scratch):
    def test_an_egg_is_taken_as_it_was_published(self) -> None:
        for name in (".env", "node_modules/x.js", "x.pyc", "direct_url.json", "x.py"):
            self.write(f"eggs/a.egg/{name}")
        self.write("bin/run", "'APP/eggs/a.egg'\n")
        self.assertEqual(
            self.files("bin/run"),
            ["bin/run", "eggs/a.egg/.env", "eggs/a.egg/node_modules/x.js", "eggs/a.egg/x.py"],
        )

    def test_a_pattern_that_matches_nothing_is_said(self) -> None:
        self.write("parts/x/a.log")
        closure = self.closure(exclude=["*.log", "*.lgo"])
        closure.add_part(Part("x", (self.directory / "parts/x",)))
        closure.finish()
        self.assertEqual(closure.warnings, ["exclude: nothing matches *.lgo"])


class Records(Scratch):
    """The lists that distributions have of their files."""

    def test_it_is_of_the_files_in_the_image(self) -> None:
        self.write("parts/env/pyvenv.cfg")
        self.write("parts/env/bin/run", "#!APP/parts/env/bin/python\n", 0o755)
        self.write("parts/env/lib/x.py", "1\n")
        self.write(
            "parts/env/lib/x-1.dist-info/RECORD",
            "../bin/run,sha256=old,1\nx.py,sha256=kept,2\nx-1.dist-info/RECORD,,\n"
            "gone.py,sha256=gone,3\n",
        )
        tree = self.take("parts/env")
        script = _content(tree["image/parts/env/bin/run"])
        self.assertEqual(script, b"#!/image/parts/env/bin/python\n")
        digest = base64.urlsafe_b64encode(hashlib.sha256(script).digest()).decode().rstrip("=")
        self.assertEqual(
            _content(tree["image/parts/env/lib/x-1.dist-info/RECORD"]).decode(),
            f"../bin/run,sha256={digest},{len(script)}\nx.py,sha256=kept,2\n"
            "x-1.dist-info/RECORD,,\n",
        )


class LeftOut(Scratch):
    def test_leftovers_and_secrets_never_go_in(self) -> None:
        for name in (
            *(".git/config", ".env", ".env.local", ".netrc", ".pypirc", "pip.conf", "id_rsa"),
            *(".installed.cfg", "__pycache__/x.pyc", "x.pyc", "x~", ".x.swp", "kept.txt"),
            "node_modules/x",
        ):
            self.write(f"parts/x/{name}")
        self.assertEqual(self.files("parts/x"), ["parts/x/kept.txt"])

    def test_not_even_when_they_are_named(self) -> None:
        names = (".installed.cfg", ".env", "etc/.netrc", ".git/config", "etc/id_rsa", "x/y.key")
        for name in names:
            self.write(name, "secret")
        self.write("parts/a.conf", "\n".join(f"'APP/{name}'" for name in names))
        found = self.files("parts/a.conf", ".env", ".git/config", exclude=["*.key"])
        self.assertEqual(found, ["parts/a.conf"])

    def test_exclude_takes_names_and_paths(self) -> None:
        for name in ("a/keep", "a/b.log", "c/keep", "c/d/deep"):
            self.write(f"parts/x/{name}")
        self.assertEqual(
            self.files("parts/x", exclude=("*.log", "parts/x/c/")), ["parts/x/a/keep"]
        )


class Including(Scratch):
    def test_a_file_or_directory_with_and_without_a_place(self) -> None:
        self.write("media/a/b")
        self.write("media/c")
        self.assertEqual(self.include("media"), ["media/a/b", "media/c"])
        self.assertEqual(self.include("media", "/data"), ["data/a/b", "data/c"])
        self.assertEqual(self.include("media/c", "/etc/c"), ["etc/c"])
        self.assertEqual(self.include("media/c", "/etc/../x//c"), ["x/c"])
        self.assertEqual(self.include("media", "/"), ["a/b", "c"])
        self.assertEqual(self.include("media", exclude=["c"]), ["media/a/b"])

    def test_the_root_has_no_entry(self) -> None:
        self.write("rootfs/etc/motd")
        closure = self.closure()
        closure.add_include(Include(self.directory / "rootfs", "/"))
        self.assertEqual([entry.path for entry in closure.finish()], ["etc", "etc/motd"])

    def test_what_is_not_there_or_has_no_place_is_an_error(self) -> None:
        closure = self.closure()
        closure.add_include(Include(self.directory / "none", ""))
        closure.add_include(Include(self.root / "venv", ""))
        self.assertEqual(
            _complaints(closure),
            [
                f"include: there is no {self.directory}/none",
                f"include: {self.root}/venv lies outside the buildout",
            ],
        )

    def test_what_stays_out_can_not_be_included(self) -> None:
        self.write("conf/.env", "secret")
        closure = self.closure()
        closure.add_include(Include(self.directory / "conf/.env", "/etc/env"))
        self.assertEqual(
            _complaints(closure),
            ["include: conf/.env is of a kind that stays out of images"],
        )

    def test_one_place_for_two_includes_is_an_error(self) -> None:
        self.write("a/x", "1")
        self.write("b/x", "2")
        closure = self.closure()
        closure.add_include(Include(self.directory / "a/x", "/etc/x"))
        closure.add_include(Include(self.directory / "b/x", "/etc/x"))
        (what,) = _complaints(closure)
        self.assertTrue(what.startswith("/etc/x is claimed twice"), what)
        self.assertIn("a/x", what)
        self.assertIn("b/x", what)

    def test_one_place_for_two_is_an_error(self) -> None:
        self.write("media/a", "1")
        self.write("parts/a", "2")
        closure = self.closure()
        closure.add_part(Part("x", (self.directory / "parts/a",)))
        closure.add_include(Include(self.directory / "media/a", "/image/parts/a"))
        (what,) = _complaints(closure)
        self.assertTrue(what.startswith("/image/parts/a is claimed twice"), what)


class BuildPaths(Scratch):
    def test_a_path_that_remains_is_an_error_that_names_the_files(self) -> None:
        self.write("parts/x/program", b"\x00APP/lib\x00")
        self.write("parts/x/text", "mntAPP/include")
        closure = self.closure()
        closure.add_part(Part("x", (self.directory / "parts/x",)))
        (what,) = _complaints(closure)
        self.assertIn(f"the path {self.directory} of this machine is left in ", what)
        self.assertIn("parts/x/program, parts/x/text", what)

    def test_it_may_be_allowed(self) -> None:
        self.write("parts/x/program", b"\x00APP/lib\x00")
        for allow in ("program", "/image/parts/x/*"):
            self.assertEqual(self.files("parts/x", allow=[allow]), ["parts/x/program"])
        with self.assertRaises(PlanError):
            self.files("parts/x", allow=["other"])

    def test_a_text_without_one_is_taken_as_it_lies(self) -> None:
        path = self.write("parts/x/file", "text")
        self.assertEqual(self.take("parts/x")["image/parts/x/file"].source, os.fspath(path))


class Collected(Scratch):
    def test_scripts_come_with_their_first_line(self) -> None:
        self.write("bin/run", "#!APP/bin/python -I\nx\n", 0o755)
        self.write("bin/data", "#!APP/bin/python\n", 0o644)
        closure = self.closure()
        closure.add_part(Part("x", (self.directory / "bin/run", self.directory / "bin/data")))
        closure.finish()
        self.assertEqual(
            [(entry.path, line) for entry, line in closure.scripts],
            [("image/bin/run", b"#!/image/bin/python -I\n")],
        )


class Names(unittest.TestCase):
    def test_of_eggs_and_distributions(self) -> None:
        self.assertEqual(egg_name("Django-5.2.1-py3.11.egg"), "Django-5.2.1")
        self.assertEqual(egg_name("pyzmq-26-py3.11-linux-x86_64.egg"), "pyzmq-26")
        self.assertEqual(egg_name("zope.interface-7.egg"), "zope.interface-7")
        self.assertEqual(canonical_name("Zope__Interface.x-Y"), "zope-interface-x-y")


class Installed(Scratch):
    def test_the_parts_that_buildout_has_recorded(self) -> None:
        self.write("bin/manage")
        parts = installed_parts(
            {
                "buildout": {"installed_develop_eggs": ""},
                "a": {
                    "__buildout_installed__": "/abs/x\nparts/a\nmanage\n\nparts/a",
                    "owned": "/abs/venv",
                },
            },
            self.directory,
            self.directory / "bin",
        )
        self.assertEqual(
            parts,
            {
                "a": Part(
                    "a",
                    (
                        pathlib.Path("/abs/x"),
                        self.directory / "parts/a",
                        self.directory / "bin/manage",
                        pathlib.Path("/abs/venv"),
                    ),
                    ("a",),
                ),
            },
        )
