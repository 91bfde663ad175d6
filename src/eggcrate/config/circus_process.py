"""What Circus' own code makes of a configuration; run in a process that has Circus.

:mod:`eggcrate.config.circus_load` runs this file by its path, with the Python and the eggs that
will run circusd: it uses the standard library and Circus, and nothing of eggcrate.  Nothing is
bound, resolved, or opened outside the directory that it is given.

The one argument is that directory.  ``question.json`` in it has ``path`` (for ``sys.path``) and
``texts`` (the configuration and what it includes); ``answer.json`` will have a list of
``[section, option, exception, message]``.  An option is empty if none alone is to blame.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

Found = Iterator[tuple[str, str, str, str]]

_MOST = 100  # complaints; nobody reads more, and each costs many attempts


def answer(path: list[str], texts: list[str], scratch: str) -> Found:
    """All that Circus says, one complaint for each option that it can't stand."""
    sys.path[:0] = path
    try:
        import circus.config
        import circus.plugins
        import circus.sockets
        import circus.watcher
    except Exception as error:
        yield "", "import", type(error).__name__, _said(error)
        return
    circus.logger.addHandler(logging.NullHandler())
    logging.disable(logging.CRITICAL)
    # a name is the network's business, and may be known to the container only
    circus.sockets.addrinfo = lambda host, port, family: (host, port)
    try:
        circus.watcher.Watcher.load_from_config({"name": "name", "cmd": "true", "env": {}})
        circus.config.DefaultConfigParser().read_string("")
    except Exception as error:
        yield "", "use", type(error).__name__, _said(error)
        return

    def parsed() -> Any:
        parser = circus.config.DefaultConfigParser()
        for text in texts:
            parser.read_string(text)
        return parser

    try:
        parser = parsed()
    except Exception as error:
        yield "", "", type(error).__name__, _said(error)
        return
    yield from _configured(circus.config, parsed, parser)
    config = circus.config.get_config(os.devnull)
    for watcher in config["watchers"]:
        yield from _watcher(circus.watcher.Watcher, watcher, scratch)
    for options in config["sockets"]:
        yield from _socket(circus.sockets.CircusSocket, options, scratch)
    for plugin in config["plugins"]:
        yield from _plugin(circus.plugins, circus.watcher.Watcher, plugin, config)
    if config.get("httpd"):
        try:
            __import__("circusweb")
        except ImportError as error:
            yield "circus", "httpd", type(error).__name__, _said(error)


def _said(error: BaseException) -> str:
    """What an exception says; for an import, the reason alone."""
    reason = getattr(error, "exception", None)
    return str(reason if isinstance(reason, BaseException) else error)


def _attempt(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _same(one: Exception | None, other: Exception) -> bool:
    return type(one) is type(other) and str(one) == str(other)


def _configured(config: Any, parsed: Callable[[], Any], whole: Any) -> Found:
    """Have ``get_config`` read it, without one option after the other that it fails over.

    Afterwards it reads what is left.
    """
    left_out: list[tuple[str, str]] = []

    def read(*more: tuple[str, str]) -> Exception | None:
        parser = parsed()
        for section, option in (*left_out, *more):
            parser.remove_option(section, option)
        config.read_config = lambda path: (parser, [path])
        return _attempt(lambda: config.get_config(os.devnull))

    names = [
        (section, name) for section in whole.sections() for name in whole._sections[section]
    ]
    names += [("DEFAULT", name) for name in whole.defaults()]
    for _ in range(_MOST):
        error = read()
        if error is None:
            return
        guilty = [name for name in names if not _same(read(name), error)]
        if not guilty:
            yield "", "", type(error).__name__, _said(error)
            break
        yield (*guilty[0], type(error).__name__, _said(error))
        left_out.append(guilty[0])
    config.get_config = lambda path: {"watchers": [], "sockets": [], "plugins": []}


def _watcher(class_: Any, watcher: dict[str, Any], scratch: str) -> Found:
    section = "watcher:" + watcher["name"]
    paths = watcher["env"].get("PYTHONPATH", "")
    virtualenv = watcher.get("virtualenv")
    elsewhere = any(path and not os.path.isdir(path) for path in _expanded(paths).split(":"))
    if virtualenv and watcher["copy_env"] and not os.path.isdir(virtualenv):
        del watcher["virtualenv"]
        elsewhere = True
    for name in ("stdout_stream", "stderr_stream"):
        stream = watcher[name]
        if "filename" in stream:
            stream["filename"] = os.path.join(scratch, "log")
        given = stream.get("class", "")
        if "." in given and not given.startswith("circus."):
            # what it opens is not ours to know
            error = _attempt(functools.partial(_imported, given))
            if isinstance(error, (ImportError, AttributeError, TypeError)) and not elsewhere:
                yield section, f"{name}.class", type(error).__name__, _said(error)
            stream.clear()

    def load(options: dict[str, Any]) -> Exception | None:
        return _attempt(lambda: class_.load_from_config(copy.deepcopy(options)))

    for _ in range(_MOST):
        error = load(watcher)
        if error is None:
            return
        fewer = [pair for pair in _fewer(watcher) if not _same(load(pair[1]), error)]
        if not fewer:
            yield section, "", type(error).__name__, _said(error)
            return
        option, watcher = fewer[0]
        if option.startswith(("stdout_stream.", "stderr_stream.")):
            # what is left of it may be wrong for that alone
            watcher[option.partition(".")[0]] = {}
        # a module may need the container's environment to be imported, or its files
        absent = isinstance(error, (ImportError, AttributeError, SyntaxError))
        if not option.startswith("hooks.") or (absent and not elsewhere):
            yield section, option, type(error).__name__, _said(error)


def _expanded(text: str) -> str:
    return os.path.expandvars(text)


def _imported(name: str) -> None:
    from circus.util import resolve_name

    if not callable(resolve_name(name)):
        raise TypeError("it can't be called")


def _fewer(watcher: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A watcher's options without one of them, for each."""
    for name in [name for name in watcher if name not in ("name", "cmd", "env")]:
        inner = watcher[name]
        if isinstance(inner, dict):
            # without its class a stream has other options: that says the least
            for key in sorted(inner, key="class".__eq__):
                less = copy.deepcopy(watcher)
                del less[name][key]
                prefix = "rlimit_" if name == "rlimits" else f"{name}."
                yield prefix + key, less
        else:
            less = copy.deepcopy(watcher)
            del less[name]
            yield name, less


def _socket(class_: Any, options: dict[str, Any], scratch: str) -> Found:
    section = "socket:" + options["name"]
    if "path" in options:
        options["path"] = os.path.join(scratch, "socket")  # closing removes it

    def load(options: dict[str, Any]) -> Exception | None:
        def create() -> None:
            made = class_.load_from_config(options)
            socket.socket.close(made)

        return _attempt(create)

    for _ in range(_MOST):
        error = load(options)
        # this machine may lack an address family, a right or a protocol
        if error is None or isinstance(error, OSError):
            return
        fewer = {
            option: {name: value for name, value in options.items() if name != option}
            for option in options
            if option != "name"
        }
        guilty = [option for option in fewer if not _same(load(fewer[option]), error)]
        if not guilty:
            yield section, "", type(error).__name__, _said(error)
            return
        yield section, guilty[0], type(error).__name__, _said(error)
        options = fewer[guilty[0]]


def _plugin(
    plugins: Any, watcher: Any, plugin: dict[str, Any], config: dict[str, Any]
) -> Found:
    section = plugin["name"]
    use = plugin.get("use")
    if use is None:
        yield section, "use", "KeyError", "'use'"
        return
    error = _attempt(lambda: _imported(use))
    if error is not None:
        if isinstance(error, (ImportError, AttributeError, SyntaxError, TypeError)):
            yield section, "use", type(error).__name__, _said(error)
        return
    command = plugins.get_plugin_cmd(
        dict(plugin), config["endpoint"], config["pubsub_endpoint"], config["check_delay"], None
    )
    try:
        words = shlex.split(command)
        torn = words.index("--config") + 3 != len(words)
    except ValueError:
        torn = True
    if torn:
        for name, value in plugin.items():
            if any(character in f"{name}{value}" for character in " \t\n'\"\\"):
                yield section, "" if name in ("name", "__name__") else name, "Torn", ""
                return

    def load(options: dict[str, Any]) -> Exception | None:
        own = {"cmd": command, "priority": 1, "singleton": True, "copy_env": True}
        options = {**own, "copy_path": True, **options}
        del options["use"]
        return _attempt(lambda: watcher.load_from_config(options))

    error = load(plugin)
    if error is not None:
        for option in plugin:
            less = {name: value for name, value in plugin.items() if name != option}
            if option not in ("use", "name") and not _same(load(less), error):
                yield section, option, type(error).__name__, _said(error)
                return
        yield section, "", type(error).__name__, _said(error)


def main(scratch: str) -> None:
    """Read the question, and write the answer beside it."""
    with open(os.path.join(scratch, "question.json"), encoding="utf-8") as stream:
        question = json.load(stream)
    found = list(answer(question["path"], question["texts"], scratch))
    with open(os.path.join(scratch, "answer.json"), "w", encoding="utf-8") as stream:
        json.dump(found, stream)


if __name__ == "__main__":
    main(sys.argv[1])
