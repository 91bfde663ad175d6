"""Who somebody is to a registry: what ``docker login`` and ``podman login`` have left."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from eggcrate.errors import TransportError

logger = logging.getLogger(__name__)

# Docker Hub has the name that its first registry had.
_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# seconds for a helper, which may have to ask somebody; then it hangs
HELPER_LIMIT = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or a token that takes their place; and where they come from.

    Neither password nor token is shown with the rest.
    """

    source: str
    username: str = dataclasses.field(default="", repr=False)
    password: str = dataclasses.field(default="", repr=False)
    # for the token service alone (OAuth 2's refresh token)
    identity_token: str = dataclasses.field(default="", repr=False)


def files(environ: Mapping[str, str]) -> tuple[pathlib.Path, ...]:
    """Where credentials may be, in the order of containers-auth.json(5)."""
    if chosen := environ.get("REGISTRY_AUTH_FILE"):
        return (pathlib.Path(chosen),)
    home = pathlib.Path(environ.get("HOME") or pathlib.Path.home())
    configuration = pathlib.Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = pathlib.Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    found = [configuration / "containers" / "auth.json", docker / "config.json"]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        found.insert(0, pathlib.Path(runtime, "containers", "auth.json"))
    return tuple(found)


def find(host: str, path: str, *, limit: float = HELPER_LIMIT) -> Credentials | None:
    """The credentials for a repository: of the first file that has any; None without.

    In a file, a helper of ``credHelpers`` comes before the one of ``credsStore``, and both
    before ``auths``; there, what is said of the repository or a directory of repositories
    comes before what is said of the host.  ``limit`` is in seconds.
    """
    for file in files(os.environ):
        document = _read(file)
        if document is not None:
            found = _in_file(file, document, host, path, limit)
            if found is not None:
                return found
    return None


def _read(file: pathlib.Path) -> dict[str, Any] | None:
    """What the file says; None where there is none."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TransportError(
            f"{file}, which has passwords of registries, can't be read: {error.strerror}",
            "let this user read it, or name another file in REGISTRY_AUTH_FILE",
        ) from error
    if not data.strip():
        return None
    line, document = 1, None
    try:
        document = json.loads(data)
    except json.JSONDecodeError as error:
        line = error.lineno
    except (ValueError, RecursionError):
        pass
    # outside of the handlers: their exceptions have the whole text
    if not isinstance(document, dict):
        raise TransportError(
            f"{file}, line {line}: this is not the JSON that docker login writes",
            "mend that line, or move the file away and log in again",
        )
    with contextlib.suppress(OSError):
        if document.get("auths") and file.stat().st_mode & 0o004:
            logger.warning("%s can be read by everybody; chmod 600 %s", file, file)
    return document


def _in_file(
    file: pathlib.Path, document: Mapping[str, Any], host: str, path: str, limit: float
) -> Credentials | None:
    helpers, auths = document.get("credHelpers") or {}, document.get("auths") or {}
    for name, value in (("credHelpers", helpers), ("auths", auths)):
        if not isinstance(value, dict):
            raise TransportError(
                f"{file}: {name} is no JSON object",
                f"mend {name}, or move the file away and log in again",
            )
    hosts = _HUB if host == "docker.io" else (host,)
    chosen = next((helpers[name] for name in hosts if name in helpers), None)
    for helper in (chosen, document.get("credsStore")):
        if helper:
            found = _ask(file, helper, hosts[0], limit)
            if found is not None:
                return found
    known = {_normal(key): entry for key, entry in auths.items()}
    for key in _keys(hosts, path):
        if key in known:
            found = _of_entry(file, key, known[key])
            if found is not None:
                return found
    return None


def _normal(key: str) -> str:
    """A key of ``auths`` without what older programs put around the host."""
    key = re.sub(r"^https?://", "", key)
    return re.sub(r"/(?:v[12]/?)?$", "", key)


def _keys(hosts: tuple[str, ...], path: str) -> Iterator[str]:
    """What may be said of a repository, the most special first."""
    for host in hosts:
        whole = f"{_normal(host)}/{path}"
        while "/" in whole:
            yield whole
            whole = whole.rpartition("/")[0]
    yield from map(_normal, hosts)


def _of_entry(file: pathlib.Path, key: str, entry: Any) -> Credentials | None:
    """What an entry of ``auths`` has; one that is empty belongs to a helper."""
    source = f"{file}"
    if not isinstance(entry, dict):
        entry = {"auth": "-"}
    username, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, ValueError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            raise TransportError(
                f"{file}: auth of {key} is not base64 of a name, a colon and a password",
                f"log in again: docker login {key}",
            )
    token = entry.get("identitytoken")
    if token:
        return Credentials(source, identity_token=str(token))
    if not username or not password:
        return None
    return Credentials(source, str(username), str(password).rstrip("\0"))


def _ask(file: pathlib.Path, helper: Any, server: str, limit: float) -> Credentials | None:
    """What a credential helper has for a server (docker-credential-helpers: get)."""
    if not isinstance(helper, str) or _HELPER.fullmatch(helper) is None:
        raise TransportError(
            f"{file} names a credential helper that can't be the name of a program",
            "mend credsStore and credHelpers: docker-credential-NAME stands there as NAME",
        )
    # most files name no helper
    import signal
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise TransportError(
            f"the credential helper {program}, which {file} names, can't be run: "
            f"{error.strerror}",
            "install it, or take it out of credsStore and credHelpers",
        ) from error
    try:
        output, _ = process.communicate(server.encode(), limit)
    except subprocess.TimeoutExpired as error:
        raise TransportError(
            f"the credential helper {program}, which {file} names, has not answered in "
            f"{limit:g} seconds",
            f"see what it waits for: echo {server} | {program} get",
        ) from error
    finally:
        if process.poll() is None:
            # with whatever it has started, which would hold its output open
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=5)
    if process.returncode:
        if b"not found" in output:
            return None
        raise TransportError(
            f"the credential helper {program}, which {file} names, has failed with exit code "
            f"{process.returncode}",
            f"see what it says: echo {server} | {program} get",
        )
    answer = None
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(output)
    if not isinstance(answer, dict) or not all(
        isinstance(answer.get(name), str) for name in ("Username", "Secret")
    ):
        raise TransportError(
            f"the credential helper {program}, which {file} names, has not answered with a "
            f"Username and a Secret",
            f"see what it says: echo {server} | {program} get",
        )
    source = f"{program} (of {file})"
    if answer["Username"] == "<token>":
        return Credentials(source, identity_token=answer["Secret"])
    return Credentials(source, answer["Username"], answer["Secret"])
