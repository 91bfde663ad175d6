"""An image for two platforms, in an engine and a registry, and run on an emulated machine."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time
import unittest

from eggcrate.tests import layers
from eggcrate.tests.test_engines import DEMO_IMAGE, run_buildout

OTHER = {"x86_64": "arm64", "aarch64": "amd64"}[os.uname().machine]
HERE = {"arm64": "amd64", "amd64": "arm64"}[OTHER]
# what qemu calls the machine of an architecture
MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
_OWN = ("parts", "bin", "develop-eggs")


class TwoPlatforms(layers.Layer):
    """The demo for this machine and for another one."""

    __bases__ = (DEMO_IMAGE, layers.DOCKER_ENGINE, layers.REGISTRY)

    def setUp(self) -> None:
        super().setUp()
        if DEMO_IMAGE.unavailable:
            return
        self.top = DEMO_IMAGE.directory / "platforms"
        # the single image stays; the parts are made again, with paths of their own
        shutil.copytree(
            DEMO_IMAGE.directory / "one",
            self.top,
            symlinks=True,
            ignore=shutil.ignore_patterns(*_OWN, ".installed.cfg"),
        )
        self.output = self.build()
        self.image = self.top / "parts" / "image"

    def build(self) -> str:
        """Build the image; what buildout has printed."""
        code, output = run_buildout(
            self.top,
            f"custom:webapp_port={DEMO_IMAGE.port}",
            f"image:platform=linux/{HERE} linux/{OTHER}",
        )
        if code:
            raise AssertionError(output[-5000:])
        return output


TWO_PLATFORMS = TwoPlatforms("TWO_PLATFORMS", "skopeo")
EMULATED = layers.Layer("EMULATED", "qemu-user-static")
EMULATED.__bases__ = (TWO_PLATFORMS,)


def output_of(*command: object) -> str:
    """What a program prints that has to do well."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


class IndexTest(unittest.TestCase):
    layer = TWO_PLATFORMS

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        TWO_PLATFORMS.require(self)
        self.name = "docker.io/acme/shop:latest"

    def image(self, *words: str) -> str:
        return output_of(TWO_PLATFORMS.top / "bin" / "image", *words)

    def test_skopeo_finds_both(self) -> None:
        index = json.loads(
            output_of(
                "skopeo", "inspect", "--raw", f"oci:{TWO_PLATFORMS.image}/oci:{self.name}"
            )
        )
        found = [item["platform"]["architecture"] for item in index["manifests"]]
        self.assertEqual(found, [HERE, OTHER])
        layers_of = []
        for architecture in found:
            for place in ("oci:{}/oci", "oci-archive:{}/image.tar"):
                manifest = json.loads(
                    output_of(
                        *("skopeo", "inspect", "--override-arch", architecture),
                        f"{place.format(TWO_PLATFORMS.image)}:{self.name}",
                    )
                )
                self.assertEqual(manifest["Architecture"], architecture)
            layers_of.append(set(manifest["Layers"]))
        # the packages differ, what was compiled and what names its place; Django does not
        self.assertGreater(len(layers_of[0] & layers_of[1]), 3)

    def test_the_engine_gets_that_of_this_machine(self) -> None:
        layers.DOCKER_ENGINE.require(self)
        image = layers.DOCKER_ENGINE.load(TWO_PLATFORMS.image / "image.tar")
        (found,) = json.loads(layers.DOCKER_ENGINE.cli("image", "inspect", image))
        self.assertEqual(found["Architecture"], HERE)
        with contextlib.ExitStack() as stack:
            container = layers.DOCKER_ENGINE.run(image, read_only=True, tmpfs=["/run"])
            stack.callback(container.remove)
            self.assertIn("The Egg Shop", container.wait_http(DEMO_IMAGE.port, "/").text)
        said = self.image("load", "--host", layers.DOCKER_ENGINE.host)
        self.assertIn("is in Docker", said)

    def test_a_registry_gets_all(self) -> None:
        layers.REGISTRY.require(self)
        host = layers.REGISTRY.host
        name = f"{host}/platforms/shop:1"
        said = self.image("push", "--insecure", host, "--attach", "sbom", name)
        digest = (TWO_PLATFORMS.image / "digest").read_text().strip()
        self.assertIn(f"pushed {name} {digest} ", said)
        self.assertEqual(said.count("attached sbom"), 2)
        for architecture in (HERE, OTHER):
            found = json.loads(
                output_of(
                    *("skopeo", "inspect", "--tls-verify=false"),
                    *("--override-arch", architecture, f"docker://{name}"),
                )
            )
            self.assertEqual((found["Architecture"], found["Digest"]), (architecture, digest))
        # an independent reader fetches all of it, and checks every digest
        copy = TWO_PLATFORMS.top / "copy"
        output_of(
            *("skopeo", "copy", "--all", "--src-tls-verify=false"),
            *(f"docker://{name}", f"oci:{copy}:1"),
        )
        again = self.image("push", "--insecure", host, name)
        self.assertRegex(again, r"\((\d+ bytes|[\d.]+ kB) sent, (\d+) of \2 layers there\)")

    def test_each_can_be_looked_at(self) -> None:
        self.assertIn(f"linux/{HERE}", (TWO_PLATFORMS.output))
        for platform, machine in ((HERE, MACHINES[HERE]), (OTHER, MACHINES[OTHER])):
            plan = self.image("plan", "--platform", f"linux/{platform}")
            self.assertIn(f"usr/lib/{machine}-linux-gnu/libc.so.6", plan)
            sbom = json.loads(self.image("sbom", "--platform", f"linux/{platform}"))
            self.assertIn(f"arch={platform}", json.dumps(sbom))
        self.assertEqual(self.image("plan"), self.image("plan", "--platform", f"linux/{HERE}"))
        with self.assertRaisesRegex(AssertionError, "there is no image for linux/none; name"):
            self.image("plan", "--platform", "linux/none")

    def test_a_build_without_a_change(self) -> None:
        before = (TWO_PLATFORMS.image / "image.tar").stat()
        output = TWO_PLATFORMS.build()
        self.assertEqual(output.count("(unchanged)"), 2)
        after = (TWO_PLATFORMS.image / "image.tar").stat()
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertEqual(self.image("verify").count("was built again, and is the same"), 2)


class EmulatedTest(unittest.TestCase):
    layer = EMULATED

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        TWO_PLATFORMS.require(self)
        self.qemu = EMULATED._program(f"qemu-{MACHINES[OTHER]}-static")
        EMULATED.require(self)
        umoci = EMULATED._program("umoci")
        EMULATED.require(self)
        self.root = TWO_PLATFORMS.top / "root"
        if not self.root.exists():
            image = TWO_PLATFORMS.image / f"linux-{OTHER}" / "oci"
            output_of(
                umoci,
                "raw",
                "unpack",
                "--image",
                f"{image}:docker.io/acme/shop:latest",
                self.root,
            )

    def command(self, *words: str) -> list[str]:
        """A program of the image, run by qemu: paths are looked for in the image first."""
        program, *rest = words
        return [self.qemu, "-L", str(self.root), f"{self.root}{program}", *rest]

    def test_its_nginx_runs(self) -> None:
        done = subprocess.run(
            self.command("/usr/sbin/nginx", "-v"), capture_output=True, text=True, check=True
        )
        self.assertIn("nginx version", done.stderr)

    def test_django_answers(self) -> None:
        """gunicorn, Django, and the compiled modules of eggs, on the other machine."""
        python = os.path.realpath(self.root / "usr/bin/python3")
        python = python.removeprefix(str(self.root))
        check = "import platform, psutil, tornado.speedups, zmq; print(platform.machine())"
        eggs = sorted(pathlib.Path(self.root, "var/application/eggs").iterdir())
        paths = ":".join(str(path).removeprefix(str(self.root)) for path in eggs)
        done = subprocess.run(
            self.command(python, "-c", check),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self.assertEqual((done.stdout.strip(), done.stderr), (MACHINES[OTHER], ""))
        environ = {**os.environ, "SHOP_HOSTS": "127.0.0.1", "SHOP_RUN": str(TWO_PLATFORMS.top)}
        subprocess.run(
            self.command(python, "/var/application/bin/django", "migrate"),
            capture_output=True,
            check=True,
            env=environ,
        )
        port = layers.free_port()
        process = subprocess.Popen(
            self.command(
                *(python, "/var/application/bin/gunicorn", "--no-control-socket"),
                *("--bind", f"127.0.0.1:{port}", "shop.wsgi:application"),
            ),
            cwd=self.root / "var/application",
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        for _ in range(3000):
            with contextlib.suppress(OSError):
                answer = layers.get(f"http://127.0.0.1:{port}/health/")
                break
            self.assertIsNone(process.poll())
            time.sleep(0.1)
        self.assertEqual(json.loads(answer.text), {"status": "ok"})


if __name__ == "__main__":
    unittest.main()
