"""The options of Circus 0.19: what there is, of what kind, and what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An option of Circus: the kind of its values, what it does, its default as coded.

    Kinds: ``text``, ``int``, ``float``, ``bool``, ``octal``, ``umask`` (decimal), ``limit`` (a
    number or nothing), ``signal``, ``command`` (split as a shell would), ``path``, ``paths``.
    """

    kind: str
    meaning: str
    default: str = ""


CIRCUS: Mapping[str, Option] = {
    "endpoint": Option(
        "text", "where circusctl gives its commands, unauthenticated", "tcp://127.0.0.1:5555"
    ),
    "endpoint_owner": Option("text", "the user who owns an ipc:// endpoint"),
    "pubsub_endpoint": Option("text", "where events are published", "tcp://127.0.0.1:5556"),
    "stats_endpoint": Option(
        "text", "where statistics are published; turns statsd on", "tcp://127.0.0.1:5557"
    ),
    "multicast_endpoint": Option(
        "text",
        "where circusd can be discovered; empty for nowhere",
        "udp://237.219.251.97:12027",
    ),
    "check_delay": Option("float", "seconds between two looks for dead processes", "5"),
    "warmup_delay": Option("int", "seconds between the starts of two watchers", "0"),
    "statsd": Option("bool", "collect statistics, in a process of its own", "False"),
    "httpd": Option("bool", "run circus-web, which must be installed", "False"),
    "httpd_host": Option("text", "the host of circus-web", "localhost"),
    "httpd_port": Option("int", "the port of circus-web", "8080"),
    "debug": Option("bool", "log what circusd does", "False"),
    "debug_gc": Option("bool", "log what the garbage collector does", "False"),
    "umask": Option("octal", "the umask of circusd and its processes"),
    "pidfile": Option("path", "the file that gets circusd's process id"),
    "loglevel": Option("text", "debug, info, warning, error or critical", "info"),
    "logoutput": Option("text", "- for standard error, a path, or syslog://", "-"),
    "loggerconfig": Option("path", "an .ini, .json or .yaml file for Python's logging"),
    "fqdn_prefix": Option("text", "a prefix for the name of this circusd"),
    "include": Option("paths", "files to read too; globs, relative to the configuration"),
    "include_dir": Option("paths", "directories whose *.ini files to read too"),
}
# Documented, never read from a file, and harmless.
DOCUMENTED = ("stream_backend", "statsd_close_outputs", "httpd_close_outputs")

WATCHER: Mapping[str, Option] = {
    "cmd": Option("command", "the program to run, and arguments"),
    "args": Option("command", "more arguments"),
    "executable": Option("path", "the file to run, where cmd should not name it"),
    "working_dir": Option("path", "the processes' working directory", "circusd's"),
    "shell": Option("bool", "run in a shell, every word quoted", "False"),
    "shell_args": Option("command", "arguments for that shell"),
    "uid": Option("text", "the user, by name or number"),
    "gid": Option("text", "the group, by name or number"),
    "numprocesses": Option("int", "how many processes", "1"),
    "singleton": Option("bool", "never more than one process", "False"),
    "warmup_delay": Option("int", "seconds between the starts of two processes", "0"),
    "autostart": Option("bool", "start with circusd", "True"),
    "respawn": Option("bool", "start again what has ended", "True"),
    "on_demand": Option("bool", "start at the first connection", "False"),
    "copy_env": Option("bool", "pass circusd's environment on", "False"),
    "copy_path": Option("bool", "pass circusd's sys.path on; needs copy_env", "False"),
    "virtualenv": Option("path", "a virtual environment to run in; needs copy_env"),
    "virtualenv_py_ver": Option("text", "its version of Python, such as 3.13"),
    "use_sockets": Option("bool", "pass the sockets on", "False"),
    "stdin_socket": Option("text", "the socket to have as standard input"),
    "close_child_stdin": Option("bool", "standard input is /dev/null", "True"),
    "close_child_stdout": Option("bool", "standard output is /dev/null", "False"),
    "close_child_stderr": Option("bool", "standard error is /dev/null", "False"),
    "send_hup": Option("bool", "reload with SIGHUP instead of new processes", "False"),
    "stop_signal": Option("signal", "the signal that stops a process", "TERM"),
    "stop_children": Option("bool", "send it to the children too", "False"),
    "graceful_timeout": Option("float", "seconds from that signal to SIGKILL", "30"),
    "max_retry": Option("int", "attempts to start a process; -1 for ever", "5"),
    "max_age": Option("int", "seconds after which a process is replaced; 0 for never", "0"),
    "max_age_variance": Option("int", "up to so many seconds more", "30"),
    "priority": Option("int", "the highest starts first", "0"),
}
# Options that eggcrate's own first process reads, and plain Circus doesn't mind.
OURS_CIRCUS: Mapping[str, Option] = {
    "stop_timeout": Option("float", "seconds after which what has not stopped is killed"),
}
OURS_WATCHER: Mapping[str, Option] = {
    "essential": Option("bool", "the container ends when this watcher does", "False"),
}

SOCKET: Mapping[str, Option] = {
    "host": Option("text", "the address to listen on", "localhost"),
    "port": Option("int", "the port to listen on", "8080"),
    "family": Option("text", "AF_INET, AF_INET6 or AF_UNIX", "AF_INET"),
    "type": Option("text", "SOCK_STREAM, SOCK_DGRAM and so on", "SOCK_STREAM"),
    "proto": Option("text", "a protocol's name"),
    "path": Option("path", "the file of a Unix socket"),
    "umask": Option("umask", "the umask for that file, in decimal", "8"),
    "replace": Option("bool", "remove what a killed predecessor has left", "False"),
    "backlog": Option("int", "connections that may wait", "2048"),
    "interface": Option("text", "a network interface"),
    "so_reuseport": Option("bool", "a socket of its own for each process", "False"),
    "blocking": Option("bool", "a blocking socket", "False"),
}

# fmt: off
HOOKS = (
    "before_start", "after_start", "before_spawn", "after_spawn", "before_stop",
    "after_stop", "before_signal", "after_signal", "before_reap", "after_reap",
    "extended_stats",
)
# fmt: on
# Those of Linux, which is what containers run.
# fmt: off
RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile",
    "nproc", "ofile", "rss", "rtprio", "rttime", "sigpending", "stack",
)
# fmt: on
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
COLORS = ("red", "green", "yellow", "blue", "magenta", "cyan", "white")
FAMILIES = ("AF_INET", "AF_INET6", "AF_UNIX")
TYPES = ("SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET")
# fmt: off
SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
    "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    "RTMIN", "RTMAX", "CLD", "IOT", "POLL",
)
# fmt: on

_FILE = {
    "filename": Option("path", "the file to write to"),
    "time_format": Option("text", "the time before each line, as strftime has it"),
}
_ROTATED = {"backup_count": Option("int", "old files to keep", "0")}
STREAMS: Mapping[str, Mapping[str, Option]] = {
    "FileStream": {
        **_FILE,
        **_ROTATED,
        "max_bytes": Option("int", "a new file after so many bytes; 0 for never", "0"),
    },
    "WatchedFileStream": _FILE,
    "TimedRotatingFileStream": {
        **_FILE,
        **_ROTATED,
        "max_bytes": Option("int", "not used", "0"),
        "rotate_when": Option("text", "S, M, H, D, MIDNIGHT, or W0 to W6"),
        "rotate_interval": Option("int", "a new file after so many of these", "1"),
        "utc": Option("text", "anything for UTC"),
    },
    "QueueStream": {},
    "StdoutStream": {},
    "FancyStdoutStream": {
        "color": Option("text", ", ".join(COLORS)),
        "time_format": _FILE["time_format"],
    },
}
OLD_STREAM = ("refresh_time",)  # Circus' own examples still have it

_STATSD = {
    "active": Option("bool", "whether to start", "True"),
    "application_name": Option("text", "the first part of each name"),
    "host": Option("text", "statsd's host", "localhost"),
    "port": Option("int", "statsd's port", "8125"),
    "sample_rate": Option("float", "the rate of samples", "1.0"),
}
_OBSERVER = {**_STATSD, "loop_rate": Option("float", "seconds between two looks", "60")}
FLAPPING = {
    "active": Option("bool", "whether to watch", "True"),
    "attempts": Option("int", "restarts that are too many", "2"),
    "window": Option("float", "seconds in which they are", "1"),
    "retry_in": Option("float", "seconds until the next attempt", "7"),
    "max_retry": Option("int", "attempts in all; -1 for ever", "5"),
}
PLUGINS: Mapping[str, Mapping[str, Option]] = {
    "circus.plugins.flapping.Flapping": FLAPPING,
    "circus.plugins.command_reloader.CommandReloader": {
        "active": _STATSD["active"],
        "name": Option("text", "the plugin's name"),
        "loop_rate": Option("int", "seconds between two looks", "1"),
    },
    "circus.plugins.statsd.StatsdEmitter": _STATSD,
    "circus.plugins.statsd.FullStats": _OBSERVER,
    "circus.plugins.statsd.BaseObserver": _OBSERVER,
    "circus.plugins.http_observer.HttpObserver": {
        **_OBSERVER,
        "check_url": Option("text", "the address to get", "http://localhost/"),
        "timeout": Option("float", "seconds to wait for it", "10"),
        "restart_on_error": Option("text", "the watcher to restart"),
    },
    "circus.plugins.redis_observer.RedisObserver": {
        **_OBSERVER,
        "redis_url": Option("text", "the database"),
        "timeout": Option("float", "seconds to wait for it", "5"),
        "restart_on_timeout": Option("text", "the watcher to restart"),
    },
    "circus.plugins.resource_watcher.ResourceWatcher": {
        **_OBSERVER,
        "watcher": Option("text", "the watcher to look at"),
        "service": Option("text", "the watcher, by its old name"),
        "max_cpu": Option("float", "percent of a processor that are too many", "90"),
        "max_mem": Option("text", "percent of memory, or an amount, that is too much", "90"),
        "min_cpu": Option("text", "percent of a processor that are too few"),
        "min_mem": Option("text", "percent of memory, or an amount, that is too little"),
        "health_threshold": Option("float", "percent of both together", "75"),
        "max_count": Option("int", "so often in a row", "3"),
        "process_children": Option("bool", "count children too", "0"),
        "child_signal": Option("int", "the signal for children"),
    },
    "circus.plugins.watchdog.WatchDog": {
        "active": _STATSD["active"],
        "loop_rate": Option("float", "seconds between two looks", "60"),
        "watchers_regex": Option("text", "which watchers", ".*"),
        "msg_regex": Option("text", "how to read a heartbeat"),
        "max_count": Option("int", "missing heartbeats that are too many", "3"),
        "ip": Option("text", "the address to listen on", "127.0.0.1"),
        "port": Option("int", "the port to listen on", "1664"),
        "watchers_stop_signal": Option("text", "the signal to stop with"),
        "watchers_graceful_timeout": Option("text", "seconds from that signal to SIGKILL"),
    },
}

# What other tools call an option of a watcher.
ELSEWHERE = {
    "command": "cmd",
    "directory": "working_dir",
    "working_directory": "working_dir",
    "workingdirectory": "working_dir",
    "workdir": "working_dir",
    "chdir": "working_dir",
    "cwd": "working_dir",
    "user": "uid",
    "username": "uid",
    "group": "gid",
    "numprocs": "numprocesses",
    "num_procs": "numprocesses",
    "numproc": "numprocesses",
    "nprocs": "numprocesses",
    "processes": "numprocesses",
    "autorestart": "respawn",
    "startretries": "max_retry",
    "stopsignal": "stop_signal",
    "stopwaitsecs": "graceful_timeout",
    "stdout_logfile": "stdout_stream.filename",
    "stderr_logfile": "stderr_stream.filename",
    "environment": "[env:NAME]",
    "environ": "[env:NAME]",
}
# What Circus itself called them once.
OLD = {
    "check_flapping": "flapping.active",
    "flapping_attempts": "flapping.attempts",
    "flapping_window": "flapping.window",
    "flapping_retry_in": "flapping.retry_in",
    "flapping_max_retry": "flapping.max_retry",
}

# What `$(circus.NAME)` can be when a process starts, but for env.X and sockets.X.
VARIABLES = (
    *(name for name in WATCHER if name not in ("autostart", "copy_path", "stdin_socket")),
    *("wid", "rlimits", "use_fds", "env", "sockets"),
    *("stdout_stream_conf", "stderr_stream_conf"),
)

# What every container's environment has.
ALWAYS = frozenset({"path", "home", "hostname", "pwd"})
