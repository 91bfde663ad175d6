"""circusd as the first process of a container: Circus itself, with what it needs to be that.

Circus drops a signal to stop while it is busy, ends with 0 whatever happens, stops everything
at once, and changes values of environment variables (its issues #1103, #1189, #1202).  This
runs the Circus that the application has, unchanged, and makes up for these.  Options that
Circus does not know: ``stop_timeout`` in ``[circus]``, the seconds in which all has stopped
(9), and ``essential`` in a watcher, without which there is no use in going on.

The exit code is 0 after a stop that was asked for, 78 for a configuration that can't be used,
1 when something can't be bound or started, or an essential watcher has ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fcntl
import importlib.abc
import importlib.util
import itertools
import logging
import os
import runpy
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circus.watcher import Watcher

EX_CONFIG = 78
FAILED = 1

#: signals that come before Circus is there wait for it
SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))

# Seconds: in which all has stopped (Docker's patience is 10); between two tries of a command
# while Circus is busy; after which it is not waited for any longer; between two looks at
# sockets and orphans; that one stage of stopping leaves to each later one
_STOP_TIMEOUT = 9.0
_AGAIN = 0.1
_BUSY = 1.0
_TEND = 0.25
_RESERVE = 1.0

# So many exits in so many seconds are too many
_EXITS = 3
_PERIOD = 30.0

_log = logging.getLogger("circus")


def main(argv: Sequence[str] | None = None, settings: str = "", run_directory: str = "") -> int:
    """Run Circus until it is stopped; gives the exit code.

    ``argv`` are circusd's own arguments, without the program; those of this process if None.
    Runtime settings are those of the directory ``settings``, if nobody has applied them yet.
    """
    arguments = _arguments(argv)
    if settings and not arguments.version:
        # Circus' own script has no eggcrate on its path, and no settings
        from eggcrate.runtime.start import apply_here, run_directory_problem

        # a problem is said where the directory is needed
        run_directory_problem(run_directory)
        if taken := _taken(run_directory):
            return _complain(taken, FAILED)
        config = apply_here(settings, run_directory, arguments.config)
        if config is None:
            return EX_CONFIG
        arguments.config = config
    try:
        import circus.circusd
        import circus.config
        import circus.util
    except ImportError as error:
        return _complain(f"Circus can't be imported: {error}")
    if arguments.version:
        print(circus.__version__)
        return 0
    if arguments.daemonize:
        circus.circusd.daemonize()
        # it has closed every file, and is another process
        if run_directory and (taken := _taken(run_directory)):
            return _complain(taken, FAILED)
    code = None
    while code is None:
        try:
            found = circus.config.get_config(arguments.config)
            circus.util.configure_logger(
                circus.logger,
                arguments.loglevel or found.get("loglevel") or "info",
                arguments.logoutput or found.get("logoutput") or "-",
                arguments.loggerconfig or found.get("loggerconfig") or None,
            )
            for handler in logging.getLogger().handlers:
                handler.addFilter(_is_read)
            problems = list(_problems(found))
        except Exception as error:
            return _complain(f"{arguments.config}: {_said(error)}")
        if problems:
            for problem in problems:
                _complain(f"{arguments.config}: {problem}")
            return EX_CONFIG
        with _pidfile(arguments.pidfile or found.get("pidfile")) as taken:
            if taken:
                return _complain(taken, FAILED)
            code = _run(arguments.config, found)
    return code


def _is_read(record: logging.LogRecord) -> bool:
    """Whether somebody reads the log: a pipe that is full must not hold a stop up."""
    probe = select.poll()
    try:
        probe.register(sys.stderr, select.POLLOUT)
        return bool(probe.poll(0))
    except (OSError, ValueError):
        return True


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments that circusd has (circus/circusd.py, ``main``)."""
    parser = argparse.ArgumentParser("circusd", description="Run some watchers.")
    parser.add_argument("config", help="configuration file", nargs="?")
    parser.add_argument("--log-level", dest="loglevel")
    parser.add_argument("--log-output", dest="logoutput")
    parser.add_argument("--logger-config", dest="loggerconfig")
    parser.add_argument("--daemon", dest="daemonize", action="store_true")
    parser.add_argument("--pidfile")
    parser.add_argument("--version", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.config is None and not arguments.version:
        parser.error("there is no configuration file")
    return arguments


def _problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """What Circus would leave out with a warning, and go on without."""
    from circus.sockets import CircusSocket
    from circus.watcher import Watcher

    if not settings["watchers"]:
        yield "there is no watcher; write a section [watcher:NAME]"
    for found in settings["watchers"]:
        try:
            Watcher.load_from_config(dict(found))
        except Exception as error:
            yield f"[watcher:{found['name']}]: {_said(error)}"
        if not any(found[name] for name in ("cmd", "args", "executable")):
            yield f"[watcher:{found['name']}]: there is no cmd"
    for found in settings["sockets"]:
        try:
            # Circus's own close would remove the file of somebody else
            socket.socket.close(CircusSocket.load_from_config(dict(found)))
        except Exception as error:
            yield f"[socket:{found['name']}]: {_said(error)}"
    for found in settings["plugins"]:
        if not found.get("use"):
            yield f"[{found['name']}]: there is no use"


def _run(config: str, settings: Mapping[str, Any]) -> int | None:
    """Have Circus work until it is stopped; None when it is to begin anew."""
    from circus.config import read_config

    stop_timeout = read_config(config)[0].dget("circus", "stop_timeout", _STOP_TIMEOUT, float)
    arbiter = _arbiter_class().load_from_config(config)
    if arbiter.umask is not None:
        os.umask(arbiter.umask)
    inherit(arbiter.watchers, settings["watchers"], os.environ)
    keepers = [keep(found) for found in arbiter.sockets.values() if found.is_unix]
    return _Supervisor(arbiter, stop_timeout, keepers).run()


def inherit(
    watchers: Sequence[Watcher],
    settings: Sequence[Mapping[str, Any]],
    environ: Mapping[str, str],
) -> None:
    """Give watchers the values of environment variables that they inherit, as they are.

    Circus strips them, and replaces ``$NAME`` in them (its issue #1189).
    """
    raw = {found["name"]: found["env"] for found in settings}
    for watcher in watchers:
        if watcher.copy_env and watcher.env is not None:
            own = raw.get(watcher.name, {})
            watcher.env.update(
                (name, value)
                for name, value in environ.items()
                if own.get(name, value) == value
            )


def keep(socket_: Any) -> Callable[[], None]:
    """Have a socket of Circus's outlast programs that remove its file.

    gunicorn does, when it ends, though it was given the socket and hasn't made it.  Such
    programs know the name to which it was bound; so that is another one beside it, with a dot
    before it, and its own name is a link.  What comes back is to be called now and then, and
    makes up for a missing name: a program that wants to remove it would fail.
    """
    name = socket_.path
    close, bind = socket_.close, socket_.bind_and_listen

    def bind_and_listen() -> None:
        if os.path.lexists(name):
            if not socket_.replace:
                # in Circus's words
                raise FileExistsError(f"{name!r} already exists. You might want to remove it.")
            os.unlink(name)
        directory, own = os.path.split(name)
        socket_.path = os.path.join(directory, f".{own}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_.path)
        bind()
        os.link(socket_.path, name)

    def close_and_remove() -> None:
        if socket_.path != name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        close()

    def mend() -> None:
        for one, other in ((socket_.path, name), (name, socket_.path)):
            with contextlib.suppress(OSError):
                if not os.path.lexists(other):
                    os.link(one, other)

    socket_.bind_and_listen, socket_.close = bind_and_listen, close_and_remove
    return mend


def _arbiter_class() -> Any:
    from circus.arbiter import Arbiter
    from tornado import gen

    class QuietArbiter(Arbiter):  # type: ignore[misc] # Circus has no types
        """Circus's arbiter, which looks after processes only when it is free to."""

        #: stops some watchers; Circus would stop all of them at once
        stopper: Callable[[Sequence[Watcher], bool], Any]

        def manage_watchers(self) -> Any:
            if self._exclusive_running_command or self._restarting or self._stopping:
                return None
            return super().manage_watchers()

        @gen.coroutine  # type: ignore[untyped-decorator] # tornado's
        def _stop_watchers(
            self,
            close_output_streams: bool = False,
            watcher_iter_func: Callable[..., Sequence[Watcher]] | None = None,
        ) -> Iterator[Any]:
            if self._stopping:
                yield self.stopper(self.watchers, close_output_streams)
            else:
                yield super()._stop_watchers(close_output_streams, watcher_iter_func)

    return QuietArbiter


class _Supervisor:
    """What makes an arbiter a good first process."""

    def __init__(
        self, arbiter: Any, stop_timeout: float, keepers: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._arbiter = arbiter
        self._loop = arbiter.loop
        self._stop_timeout = stop_timeout
        self._keepers = keepers
        #: when all has to have stopped
        self._deadline: float | None = None
        self._code = 0
        arbiter.stopper = self._stop_in_stages
        for watcher in arbiter.watchers:
            if _is_true(watcher._options.get("essential")):
                self._notice(watcher)

    def run(self) -> int | None:
        from tornado.ioloop import PeriodicCallback

        asyncio_loop = self._loop.asyncio_loop
        for number in SIGNALS:
            handler = self._reload if number == signal.SIGHUP else self._stop
            asyncio_loop.add_signal_handler(number, handler, signal.Signals(number).name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        tending = PeriodicCallback(self._tend, _TEND * 1000)
        tending.start()
        try:
            future = self._arbiter.start(cb=self._started)
            error = future.exception()
        except Exception as raised:
            error = raised
        finally:
            tending.stop()
        if error is not None:
            return _complain(f"Circus can't start: {_said(error)}", FAILED)
        return None if self._arbiter._restarting else self._code

    # Starting

    def _started(self, future: Any) -> None:
        """Go on only when every watcher that was to be started has been."""
        arbiter = self._arbiter
        if arbiter._stopping:
            return
        if error := future.exception():
            self._fail(f"not all watchers could be started: {_said(error)}")
            return
        missing = [
            watcher.name
            for watcher in arbiter.iter_watchers()
            if watcher.autostart
            and not watcher.on_demand
            and watcher.numprocesses > 0
            and watcher.is_stopped()
        ]
        if missing:
            self._fail(f"these watchers could not be started: {', '.join(missing)}")

    # Stopping

    def _fail(self, problem: str) -> None:
        if not self._arbiter._stopping:
            self._code = _complain(problem, FAILED)
            self._stop("")

    def _stop(self, name: str) -> None:
        """Stop soon: a signal is never lost, whatever Circus is doing."""
        if self._deadline is None:
            if name:
                _log.info("Got %s: stopping", name)
            self._deadline = time.monotonic() + self._stop_timeout
            self._try_to_stop(time.monotonic() + _BUSY)

    def _try_to_stop(self, give_up: float) -> None:
        arbiter = self._arbiter
        if arbiter._stopping:
            return
        if arbiter._exclusive_running_command or not arbiter._running:
            if time.monotonic() < give_up:
                self._loop.call_later(_AGAIN, self._try_to_stop, give_up)
                return
            # whoever starts watchers finds none to start
            for watcher in arbiter.watchers:
                watcher.autostart = False
            arbiter._exclusive_running_command = None
            arbiter._restarting = False
        self._loop.add_future(arbiter.stop(), self._stopped)

    def _stopped(self, future: Any) -> None:
        if error := future.exception():
            self._code = _complain(f"not all has been stopped: {_said(error)}", FAILED)
            self._loop.stop()

    def _reload(self, name: str) -> None:
        if self._deadline is not None:
            return
        if self._arbiter._exclusive_running_command or not self._arbiter._running:
            self._loop.call_later(_AGAIN, self._reload, name)
            return
        _log.info("Got %s: reloading", name)
        self._loop.add_future(self._arbiter.reload(), lambda future: future.result())

    def _stop_in_stages(self, watchers: Sequence[Watcher], close: bool) -> Any:
        """Stop watchers in the reverse of the order in which they have been started.

        What has the lowest priority stops first: a web server before its application, so
        that every request that was accepted is answered.  It may take its time, less a little
        for each of the others: nothing is asked of them any longer.
        """
        from tornado import gen

        def priority(watcher: Watcher) -> int:
            return int(watcher.priority)

        @gen.coroutine  # type: ignore[untyped-decorator] # tornado's
        def stop() -> Iterator[Any]:
            running = sorted(watchers, key=priority)
            stages = [list(group) for _, group in itertools.groupby(running, priority)]
            deadline = self._deadline or time.monotonic() + self._stop_timeout
            for number, stage in enumerate(stages):
                later = len(stages) - number - 1
                left = max(deadline - time.monotonic() - later * _RESERVE, 0)
                for watcher in stage:
                    watcher.graceful_timeout = min(watcher.graceful_timeout, left)
                    # Who starts its processes one by one goes on meanwhile, and Circus waits
                    # for those though it hasn't told them, deaf to everything (reap_process)
                    watcher.spawn_process = lambda recovery_wid=None: True
                yield [watcher._stop(close) for watcher in stage]
                # some may have been started meanwhile
                yield [watcher.kill_processes(graceful_timeout=0) for watcher in stage]

        return stop()

    # Looking after

    def _notice(self, watcher: Watcher) -> None:
        """End everything when this watcher stops, or its processes end too often."""
        ended: collections.deque[float] = collections.deque(maxlen=_EXITS + 1)
        killed: set[int] = set()
        notify = watcher.notify_event

        def notified(topic: str, message: Mapping[str, Any]) -> None:
            notify(topic, message)
            if topic == "kill":
                killed.add(message["process_pid"])
            elif topic == "reap" and message["process_pid"] not in killed:
                ended.append(time.monotonic())
                if len(ended) > _EXITS and ended[-1] - ended[0] < _PERIOD:
                    self._fail(
                        f"{watcher.name} is essential, and has ended {len(ended)} times in "
                        f"{ended[-1] - ended[0]:.0f} s, the last time with "
                        f"{_code(message['exit_code'])}"
                    )
            elif topic == "reap":
                killed.discard(message["process_pid"])
            elif topic == "stop":
                self._loop.call_later(_AGAIN, self._has_it_stopped, watcher)

        watcher.notify_event = notified

    def _has_it_stopped(self, watcher: Watcher) -> None:
        """It has, unless it is being started again."""
        if self._arbiter._stopping or not watcher.is_stopped():
            return
        if self._arbiter._exclusive_running_command:
            self._loop.call_later(_AGAIN, self._has_it_stopped, watcher)
            return
        self._fail(f"{watcher.name} is essential, and has stopped")

    def _tend(self) -> None:
        """Keep the sockets' files, and reap processes that have become ours."""
        for mend in self._keepers:
            mend()
        if os.getpid() != 1:
            return
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = set(map(int, file.read().split()))
        except OSError:
            return  # Circus does it, too, every check_delay, when it is not busy
        for watcher in self._arbiter.watchers:
            children -= set(watcher.processes)
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


@contextlib.contextmanager
def _pidfile(path: str | None) -> Iterator[str]:
    """Have a file with our number while we run; gives what is wrong, if anything is."""
    if not path:
        yield ""
        return
    from circus.pidfile import Pidfile

    file = Pidfile(path)
    try:
        file.create(os.getpid())
    except (RuntimeError, OSError) as error:
        yield str(error)
        return
    try:
        yield ""
    finally:
        file.unlink()


def _taken(run_directory: str) -> str:
    """Take a run directory for as long as we run; what is wrong where another circusd has it.

    Its sockets and what settings have rendered are those of one.  A directory that is not
    there, or not to be written to, is for others to complain of.
    """
    try:
        number = os.open(
            os.path.join(run_directory, "circusd.lock"), os.O_RDWR | os.O_CREAT, 0o600
        )
    except OSError:
        return ""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(number, 20).decode("ascii", "replace").strip()
        os.close(number)
        return (
            f"another circusd, process {holder or 'unknown'}, has the run directory "
            f"{run_directory}; stop that one first"
        )
    except OSError:
        os.close(number)
        return ""  # a file system without locks
    os.truncate(number, 0)
    os.write(number, b"%d\n" % os.getpid())
    return ""  # the file stays open, and the kernel closes it


def _is_true(text: object) -> bool:
    return str(text).strip().lower() in ("1", "yes", "true", "on")


def _code(code: int | None) -> str:
    if code is None:
        return "a code that nobody knows"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _said(error: BaseException) -> str:
    """An exception in a line: some of Circus's say nothing without their class."""
    text = " ".join(str(error).split())
    if isinstance(error, (OSError, ValueError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _complain(problem: str, code: int = EX_CONFIG) -> int:
    print(f"eggcrate: {problem}", file=sys.stderr, flush=True)
    return code


# In an image, a script of the application finds this in the place of Circus's own main


class _Replacing(importlib.abc.MetaPathFinder):
    """Gives ``circus.circusd`` the function :func:`main` of this module."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != "circus.circusd":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                module.main = main  # type: ignore[attr-defined] # every such script calls it

            spec.loader.exec_module = exec_module  # type: ignore[method-assign] # this one's
        return spec


def run_script(argv: Sequence[str]) -> None:
    """Run ``argv``, a script that calls Circus's main function and its arguments, with ours."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]
    sys.argv = list(argv)
    sys.meta_path.insert(0, _Replacing())
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    run_script(sys.argv[1:])
