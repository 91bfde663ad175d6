"""The lint of Circus configurations: each mistake is an error, and nothing else is."""

from __future__ import annotations

import ast
import json
import pathlib
import random
import re
import stat
import subprocess
import tempfile
import textwrap
import unittest
from collections.abc import Collection

from eggcrate.config import circus, circus_file, references

REPOSITORY = pathlib.Path(__file__).parents[3]


def rendered(text: str, name: str = "circus.ini.in") -> references.Rendered:
    lines = tuple(range(1, text.count("\n") + 2))
    return references.Rendered(name, text, lines)


# Configurations, and all that is said of each, from the number of the line on.
MISTAKES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "an unknown option",
        """\
        [circus]
        check_dely = 1
        colour = red

        [watcher:web]
        cmd = web
        numprocess = 3
        gracefull_timeout = 5

        [socket:web]
        ports = 80
        """,
        (
            "2: [circus] has an unknown option check_dely, which Circus ignores; write "
            "check_delay, the nearest name there is",
            "3: [circus] has an unknown option colour, which Circus ignores; remove it, as "
            "[circus] has no such option",
            "7: [watcher:web] has an unknown option numprocess, which Circus keeps and never "
            "uses; write numprocesses, the nearest name there is",
            "8: [watcher:web] has an unknown option gracefull_timeout, which Circus keeps and "
            "never uses; write graceful_timeout, the nearest name there is",
            "11: [socket:web] has an unknown option ports, which Circus ignores; write port, "
            "the nearest name there is",
        ),
    ),
    (
        "an option that belongs elsewhere, a forgotten cmd, a signal that is none",
        """\
        [watcher:web]
        args = --workers 2
        umask = 022
        backlog = 5
        stop_signal = 99
        stdout_stream.class = FancyStdoutStream
        stdout_stream.filename = x
        """,
        (
            "1: [watcher:web] has no cmd, and circusd would stay up without it and without the "
            "watchers that come after it; set cmd to the program to run",
            "3: [watcher:web] umask is no option of a watcher, which Circus would never use; "
            "write it into [circus], or remove it",
            "4: [watcher:web] backlog is no option of a watcher, which Circus would never use; "
            "write it into a [socket:NAME], or remove it",
            "5: [watcher:web] stop_signal is '99', which is no signal, and circusd would end "
            "at once; write a signal, such as TERM or QUIT",
            "7: [watcher:web] has an unknown option stdout_stream.filename, which "
            "FancyStdoutStream ignores; remove it, or take a stream that has it",
        ),
    ),
    (
        "a section that Circus doesn't know",
        """\
        [Circus]
        [watchers:a]
        cmd = a
        [Watcher:b]
        cmd = b
        [socket.c]
        [program:d]
        command = d
        [watcher]
        """,
        (
            "1: [Circus] is no section of Circus, which would ignore all of it; write [circus]",
            "2: [watchers:a] is no section of Circus, which would ignore all of it; write "
            "[watcher:a]",
            "4: [Watcher:b] is no section of Circus, which would ignore all of it; write "
            "[watcher:b]",
            "6: [socket.c] is no section of Circus, which would ignore all of it; write "
            "[socket:c]",
            "7: [program:d] is no section of Circus, which would ignore all of it; write "
            "[watcher:d]",
            "9: [watcher] is no section of Circus, which would ignore all of it; write "
            "[watcher:NAME]",
        ),
    ),
    (
        "a section without its closing bracket",
        """\
        [circus]
        [watcher:web
        """,
        (
            "2: [watcher:web has no closing bracket, and Circus would take it for no section; "
            "write [watcher:web]",
        ),
    ),
    (
        "another case",
        "[watcher:web]\nCmd = web\n",
        (
            "2: [watcher:web] has an unknown option Cmd, which Circus keeps and never uses; "
            "write cmd, the nearest name there is",
        ),
    ),
    (
        "no program",
        "[watcher:a]\nnumprocesses = 1\n[watcher:b]\ncmd =\n[watcher:c]\n",
        tuple(
            f"{line}: [watcher:{name}] has no cmd, and circusd would stay up without it and "
            f"without the watchers that come after it; set cmd to the program to run"
            for line, name in ((1, "a"), (4, "b"), (5, "c"))
        ),
    ),
    (
        "an unbalanced quote",
        "[watcher:web]\ncmd = sh -c 'echo a\nargs = don't\n",
        (
            "2: [watcher:web] cmd has an unbalanced quote, and circusd would stay up without "
            "this watcher; close the quote, or write a backslash before it",
            "3: [watcher:web] args has an unbalanced quote, and circusd would stay up without "
            "this watcher; close the quote, or write a backslash before it",
        ),
    ),
    (
        "an option and a section twice",
        "[watcher:web]\ncmd = a\ncmd = b\n[circus]\n[watcher:web]\ncmd = c\n",
        (
            "3: [watcher:web] has cmd a second time, and Circus keeps the first value, that of "
            "circus.ini.in, line 2; remove one of the two",
            "5: [watcher:web] begins a second time, and Circus keeps the first value of each "
            "option; join it with the section of circus.ini.in, line 1",
            "6: [watcher:web] has cmd a second time, and Circus keeps the first value, that of "
            "circus.ini.in, line 2; remove one of the two",
        ),
    ),
    (
        "a semicolon after a space",
        """\
        [watcher:a]
        cmd = sh -c 'echo a ; echo b'
        [watcher:b]
        cmd = find /tmp -exec rm {} ;
        [watcher:nginx]
        cmd = nginx -g "daemon off ;"
        """,
        (
            "2: [watcher:a] cmd is cut before the semicolon, as one after a space begins a "
            'comment, and Circus would read "sh -c \'echo a"; leave out the space before it, '
            "or write a script",
            "4: [watcher:b] cmd is cut before the semicolon, as one after a space begins a "
            "comment, and Circus would read 'find /tmp -exec rm {}'; leave out the space "
            "before it, or write a script",
            "6: [watcher:nginx] cmd is cut before the semicolon, as one after a space begins a "
            "comment, and Circus would read 'nginx -g \"daemon off'; leave out the "
            "space before "
            "it, or write a script",
        ),
    ),
    (
        "a comment for a value",
        "[circus]\nmulticast_endpoint = ; nowhere\n",
        (
            "2: [circus] multicast_endpoint has no value before its comment, and Circus would "
            "take '; nowhere' for it; put the comment on a line of its own",
        ),
    ),
    (
        "an indented line",
        """\
        [watcher:web]
        cmd = sleep 1
          # a comment
          numprocesses = 2
          [watcher:b]
        [env:web]
        HOME = /
          # a comment
          LANG = C
        """,
        (
            "3: [watcher:web] '# a comment' is indented and so no comment, and Circus "
            "would add "
            "it to cmd; begin the comment in the first column",
            "4: [watcher:web] 'numprocesses = 2' is indented, and Circus would add it to cmd; "
            "begin the line in the first column",
            "5: [watcher:web] '[watcher:b]' is indented, and Circus would add it to cmd; begin "
            "the line in the first column",
            "8: [env:web] '# a comment' is indented and so no comment, and Circus would add it "
            "to HOME; begin the comment in the first column",
            "9: [env:web] 'LANG = C' is indented, and Circus would add it to HOME; begin the "
            "line in the first column",
        ),
    ),
    (
        "a slip of the pen for a variable",
        "[watcher:web]\ncmd = web $(circus.env.WEBAP_PORT)\n[env]\nWEBAPP_PORT = 80\n",
        (
            "2: [watcher:web] cmd has $(circus.env.WEBAP_PORT), and no [env] section sets it; "
            "write $(circus.env.WEBAPP_PORT), the nearest name there is",
        ),
    ),
    (
        "a socket that isn't there",
        """\
        [watcher:web]
        cmd = web --fd $(circus.sockets.wbe)
        args = ((circus.sockets.other))
        use_sockets = True
        stdin_socket = Web
        [socket:web]
        """,
        (
            "2: [watcher:web] cmd has $(circus.sockets.wbe), which names no socket and would "
            "reach the program as it stands; write $(circus.sockets.web), the nearest name "
            "there is",
            "3: [watcher:web] args has ((circus.sockets.other)), which names no socket "
            "and would "
            "reach the program as it stands; add [socket:other]",
            "5: [watcher:web] stdin_socket is 'Web', which is no socket, and its processes "
            "would not start; write web, the nearest name there is",
        ),
    ),
    (
        "a socket without use_sockets",
        "[watcher:web]\ncmd = web --fd $(circus.sockets.web)\n[socket:web]\n",
        (
            "2: [watcher:web] cmd has $(circus.sockets.web) without use_sockets, and the "
            "program would get a bad file descriptor; set use_sockets to True in [watcher:web]",
        ),
    ),
    (
        "references of other languages",
        """\
        [watcher:web]
        cmd = web --port ${PORT} %(x)s
        args = %(here)s/site ${circus.wid} $(circus.sockets.web $(circus.pid) $(env.X)
        working_dir = ${HOME}/web
        [env:web]
        PATH = ${PATH}:/bin
        HOME = %(PATH)s
        """,
        (
            "2: [watcher:web] cmd has ${PORT}, which would reach the program as it stands; "
            "write $(circus.env.PORT) for a variable of the environment",
            "2: [watcher:web] cmd has %(x)s, which would reach the program as it stands; write "
            "the value itself, as Circus has no such references",
            "3: [watcher:web] args has %(here)s, which would reach the program as it stands; "
            "write the value itself, as Circus has no such references",
            "3: [watcher:web] args has $(circus.pid), which Circus does not know and would "
            "leave as it stands; write $(circus.wid), the nearest name there is",
            "3: [watcher:web] args has ${circus.wid}, which Circus would leave as it stands; "
            "write $(circus.wid)",
            "3: [watcher:web] args has $(circus.sockets.web, which Circus would leave as it "
            "stands; write $(circus.sockets.web)",
            "3: [watcher:web] args has $(env.X), which Circus would leave as it stands; write "
            "$(circus.env.X)",
            "4: [watcher:web] working_dir has ${HOME}, which Circus takes as it stands; write "
            "$(circus.env.HOME) for a variable of the environment",
            "6: [env:web] PATH has ${PATH}, which would reach the program as it stands; write "
            "$PATH",
            "7: [env:web] HOME has %(PATH)s, which would reach the program as it stands; write "
            "the value itself, as Circus has no such references",
        ),
    ),
    (
        "the umask of a socket",
        """\
        [socket:a]
        path = /run/a
        umask = 022
        [socket:b]
        path = /run/b
        umask = 777
        [socket:c]
        path = /run/c
        umask = 0o22
        """,
        (
            "3: [socket:a] umask is 022, which Circus reads as a decimal number, 026 in octal; "
            "write 18, which is 022 in octal",
            "6: [socket:b] umask is 777, which Circus reads as a decimal number, 411 in octal; "
            "write 511, which is 777 in octal",
            "9: [socket:c] umask is '0o22', which is no whole number, and circusd would start "
            "without this socket; write a decimal number, such as 18 for 022",
        ),
    ),
    (
        "variables in a wrong place",
        """\
        [watcher:web]
        cmd = web
        env = PATH=/bin
        [env:wbe]
        PATH = /bin
        [env:web]
        PORT = $(circus.env.WEBAPP_PORT)
        """,
        (
            "3: [watcher:web] env is ignored, as a watcher's variables have a section of their "
            "own; write them into [env:web], one a line",
            "4: [env:wbe] is for 'wbe', which is no watcher, and would be ignored; write "
            "[env:web], the nearest name there is",
            "7: [env:web] PORT has $(circus.env.WEBAPP_PORT), where Circus replaces only "
            "$NAME; write $WEBAPP_PORT",
        ),
    ),
    (
        "hooks, streams, colours, levels",
        """\
        [circus]
        loglevel = warn
        [watcher:web]
        cmd = web
        hooks.befor_start = web.hook
        hooks.before_stop = web.hook, maybe
        stdout_stream.class = FileStream
        stdout_stream.filname = /log
        stderr_stream.class = FancyStdoutStream
        stderr_stream.color = grren
        """,
        (
            "2: [circus] loglevel is 'warn', which is no level, and Circus would take info; "
            "write warning, the nearest name there is",
            "5: [watcher:web] hooks.befor_start is no hook, and Circus would never call it; "
            "write hooks.before_start, the nearest name there is",
            "6: [watcher:web] hooks.before_stop has 'maybe' after its comma, which is no "
            "boolean, and circusd would end at once; write True to ignore its failures, or "
            "False",
            "8: [watcher:web] has an unknown option stdout_stream.filname, which FileStream "
            "ignores; write stdout_stream.filename, the nearest name there is",
            "10: [watcher:web] stderr_stream.color is 'grren', and Circus would take "
            "any; write "
            "green, the nearest name there is",
        ),
    ),
    (
        "limits and arguments of the library",
        """\
        [watcher:web]
        cmd = web
        rlimit_nofiles = 300
        rlimit_core = unlimited
        loop = 1
        prereload_fn = web.hook
        """,
        (
            "3: [watcher:web] rlimit_nofiles is no limit, and neither this watcher nor those "
            "that come after it would start; write rlimit_nofile, the nearest name there is",
            "4: [watcher:web] rlimit_core is 'unlimited', which is no whole number, "
            "and circusd "
            "would end at once; write a whole number, or nothing for no limit",
            "5: [watcher:web] loop can't come from a file, and neither this watcher nor those "
            "that come after it would start; remove it",
            "6: [watcher:web] prereload_fn can't come from a file, and neither this "
            "watcher nor "
            "those that come after it would start; remove it",
        ),
    ),
    (
        "names that differ by case",
        "[watcher:web]\ncmd = a\n[watcher:Web]\ncmd = b\n[socket:s]\nport=1\n[socket:S]\n"
        "port=2\n",
        (
            "3: [watcher:Web] and [watcher:web] differ by case only, and circusctl could reach "
            "only one of the two; give one of the two another name",
            "7: [socket:S] and [socket:s] differ by case only, and circusd would have only one "
            "of the two; give one of the two another name",
        ),
    ),
    (
        "old options, and those of others",
        """\
        [watcher:web]
        cmd = web
        check_flapping = True
        flapping_attempts = 2
        flapping.atempts = 2
        directory = /
        user = www-data
        environment = A=1
        hook.before_start = web.hook
        """,
        (
            "3: [watcher:web] check_flapping is an old option, which Circus ignores; write "
            "flapping.active, for the flapping plugin",
            "4: [watcher:web] flapping_attempts is an old option, which Circus ignores; write "
            "flapping.attempts, for the flapping plugin",
            "5: [watcher:web] has an unknown option flapping.atempts, which the plugin "
            "ignores; "
            "write flapping.attempts, the nearest name there is",
            "6: [watcher:web] has an unknown option directory, which Circus keeps and never "
            "uses; write working_dir, as Circus calls it",
            "7: [watcher:web] has an unknown option user, which Circus keeps and never uses; "
            "write uid, as Circus calls it",
            "8: [watcher:web] has an unknown option environment, which Circus keeps and never "
            "uses; write the variables into [env:web], one a line",
            "9: [watcher:web] has an unknown option hook.before_start, which Circus keeps and "
            "never uses; write hooks.before_start, the nearest name there is",
        ),
    ),
    (
        "numbers that make no sense",
        """\
        [watcher:web]
        cmd = web
        numprocesses = -1
        graceful_timeout = -0.5
        max_retry = 0
        [socket:web]
        port = 80800
        """,
        (
            "3: [watcher:web] numprocesses is -1, and no process would ever start; write a "
            "number that is not negative",
            "4: [watcher:web] graceful_timeout is -0.5, and every process would be killed at "
            "once; write a number that is not negative",
            "5: [watcher:web] max_retry is 0, and no process would ever start; write how often "
            "to try, or -1 for ever",
            "7: [socket:web] port is 80800, which is no port; write a number from 1 to 65535, "
            "or 0 for any free port",
        ),
    ),
    (
        "includes that lead nowhere",
        "[circus]\ninclude = conf.d/*.ini\ninclude_dir = /buildout/more\n",
        (
            "2: [circus] include conf.d/*.ini leads to no file, and circusd would "
            "start without "
            "it; write the file, or correct the path, which starts from the output's directory",
            "3: [circus] include_dir /buildout/more leads to no file, and circusd would start "
            "without it; write the file, or correct the path, which starts from the output's "
            "directory",
        ),
    ),
    (
        "plugins",
        """\
        [plugin:a]
        use = circus.plugins.flapping.Flaping
        [plugin:b]
        priority = 1
        [plugin:c]
        use = circus.plugins.flapping.Flapping
        max_retries = 3
        window = long
        """,
        (
            "2: [plugin:a] use is 'circus.plugins.flapping.Flaping', which Circus does not "
            "have; write circus.plugins.flapping.Flapping, the nearest name there is",
            "3: [plugin:b] has no option use, and circusd would end at once; set use to the "
            "plugin's class, such as circus.plugins.flapping.Flapping",
            "7: [plugin:c] has an unknown option max_retries, which the plugin ignores; write "
            "max_retry, the nearest name there is",
            "8: [plugin:c] window is 'long', which is no number, and the plugin would "
            "fail over "
            "it; write a number, such as 1 or 0.5",
        ),
    ),
    (
        "so_reuseport for args",
        """\
        [watcher:web]
        cmd = web
        args = --fd $(circus.sockets.web)
        use_sockets = True
        [socket:web]
        so_reuseport = True
        """,
        (
            "3: [watcher:web] args has $(circus.sockets.web), and as that socket has "
            "so_reuseport it would not listen, unless cmd itself has $(circus.sockets.web); "
            "write $(circus.sockets.web) into cmd",
        ),
    ),
    (
        "errors that Circus makes unclear",
        """\
        [watcher:web]
        cmd = web
        stop_signal = TREM
        stdout_stream = StdoutStream
        stderr_stream.class = StdoutStrem
        """,
        (
            "3: [watcher:web] stop_signal is 'TREM', which is no signal, and circusd would end "
            "at once; write TERM, the nearest name there is",
            "4: [watcher:web] stdout_stream is no option of Circus, and circusd would end at "
            "once; write stdout_stream.class = StdoutStream",
            "5: [watcher:web] stderr_stream.class is 'StdoutStrem', which is no stream of "
            "Circus, and circusd would start without [watcher:web]; write StdoutStream, the "
            "nearest name there is",
        ),
    ),
    (
        "kinds of values",
        """\
        [circus]
        check_delay = soon
        warmup_delay = 0.5
        statsd = maybe
        umask = 9
        stop_timeout = long
        [watcher:web]
        cmd = web
        numprocesses = two
        singleton = Ture
        max_age = 1h
        essential = si
        rlimit_core = $(circus.env.CORE)
        [socket:web]
        port = http
        replace = 2
        family = AF_INTE
        """,
        (
            "2: [circus] check_delay is 'soon', which is no number, and circusd would end at "
            "once; write a number, such as 1 or 0.5",
            "3: [circus] warmup_delay is '0.5', which is no whole number, and circusd "
            "would end "
            "at once; write a whole number, such as 1",
            "4: [circus] statsd is 'maybe', which is no boolean, and circusd would end "
            "at once; "
            "write True or False",
            "5: [circus] umask is '9', which is no octal number, and circusd would end "
            "at once; "
            "write an octal number, such as 022",
            "6: [circus] stop_timeout is 'long', which is no number, and the container would "
            "not start; write a number, such as 1 or 0.5",
            "9: [watcher:web] numprocesses is 'two', which is no whole number, and circusd "
            "would end at once; write a whole number, such as 1",
            "10: [watcher:web] singleton is 'Ture', which is no boolean, and circusd would end "
            "at once; write True or False",
            "11: [watcher:web] max_age is '1h', which is no whole number, and circusd would "
            "start without [watcher:web]; write a whole number, such as 1",
            "12: [watcher:web] essential is 'si', which is no boolean, and the container would "
            "not start; write True or False",
            "13: [watcher:web] rlimit_core is '$(circus.env.CORE)', which is no whole number, "
            "and circusd would end at once; write a whole number, or nothing for no limit",
            "15: [socket:web] port is 'http', which is no whole number, and circusd "
            "would start "
            "without this socket; write a whole number, such as 1",
            "16: [socket:web] replace is '2', which is no boolean, and circusd would end at "
            "once; write True or False",
            "17: [socket:web] family is 'AF_INTE', and circusd would start without "
            "this socket; "
            "write AF_INET, the nearest name there is",
        ),
    ),
    (
        "options that need each other",
        """\
        [watcher:web]
        cmd = web
        singleton = True
        numprocesses = 2
        copy_path = True
        virtualenv = /venv
        stdout_stream.max_bytes = 1
        [socket:web]
        family = AF_UNIX
        [socket:b]
        interface = eth0
        [circus]
        loggerconfig = logging.conf
        """,
        (
            "4: [watcher:web] has numprocesses = 2 and is a singleton, and circusd would start "
            "without it; remove one of the two",
            "5: [watcher:web] has copy_path without copy_env, and circusd would start without "
            "it; set copy_env to True",
            "6: [watcher:web] has virtualenv without copy_env, and circusd would start without "
            "it; set copy_env to True",
            "7: [watcher:web] stdout_stream has neither class nor filename, and circusd would "
            "start without [watcher:web]; set stdout_stream.class",
            "9: [socket:web] family is AF_UNIX and there is no path, and circusd would end at "
            "once; set path to the socket's file",
            "11: [socket:b] interface needs a module that Python 3 does not have, and circusd "
            "would end at once; remove it, and give host the address of that interface",
            "13: [circus] loggerconfig is 'logging.conf', and circusd would end at "
            "once; name a "
            "file that ends in .ini, .json or .yaml",
        ),
    ),
    (
        "a stream that rotates",
        """\
        [watcher:web]
        cmd = web
        stdout_stream.class = TimedRotatingFileStream
        stdout_stream.filename = /log
        stdout_stream.rotate_when = midnight
        """,
        (
            "5: [watcher:web] stdout_stream.rotate_when is midnight, and circusd would start "
            "without [watcher:web]; write S, M, H, D, MIDNIGHT, or W0 to W6, in capitals",
        ),
    ),
    (
        "lines that Circus can't read",
        "[circus]\nstatsd\n",
        (
            "2: [circus] 'statsd' has neither = nor :, and circusd would end at once; write "
            "name = value, and begin a comment in the first column",
        ),
    ),
    (
        "lines before the first section",
        "  [circus]\nstatsd = True\n",
        (
            "1: '[circus]' stands before any section, and circusd would end at once; begin it "
            "in the first column",
        ),
    ),
)

# Each of these does what it says; many are of the kinds that Circus' own examples show.
VALID = (
    "",
    "[circus]\n",
    "[plugin:empty]\n\n[socket:empty]\n",
    "[circus]\ncheck_delay = -1\nstats_endpoint = tcp://127.0.0.1:5557\n; stream_backend = x\n",
    "[circus]\ncheck_delay = 10.5\numask = 002\nstream_backend = gevent\n"
    "httpd_close_outputs = True\nmulticast_endpoint =\nstop_timeout = 8.5\n",
    "[circus]\nhttpd = 1\nhttpd_port = 8081\ndebug = on\n[watcher:a]\n"
    "cmd = a --fd $(circus.sockets.circushttpd)\nuse_sockets = yes\n",
    # comments, continuations, other sections
    "# a\n; b\nrem c\n[circus]\nendpoint = tcp://127.0.0.1:5555 ; a comment, isn't it\n"
    'pubsub_endpoint : ""\n',
    "[watcher:a]\ncmd = a\nargs = --one\n  --two=2\n\n  -e env=production\n",
    "[circus]\ncheck_delay = 1\n\n[uwsgi]\nmaster = true\n[server:main]\nuse = egg:x\n",
    "[DEFAULT]\ncopy_env = True\n[watcher:a]\ncmd = a\nvirtualenv = /v\n[socket:b]\nport = 1\n",
    # commands
    "[watcher:a]\ncmd = echo $(circus.env.myvar); sleep 1\nhooks.before_spawn = a.b\n",
    "[watcher:a]\ncmd = bash -c 'exec a ${PORT:-80} ${HOME}'\n",
    "[watcher:a]\ncmd = a -u $WID $(circus.wid) $(CIRCUS.ENV.VAR) $(circus.numprocesses)\n",
    "[watcher:a]\ncmd = a '${literal}' --access-logformat '%(h)s %(t)s \"%(r)s\"'\n",
    "[watcher:a]\ncmd = yt -o '%(title)s.%(ext)s' --fmt %(message)s\n",
    "[watcher:a]\nargs = only arguments\n[watcher:b]\nexecutable = /bin/b\n",
    '[watcher:nginx]\ncmd = /usr/sbin/nginx -g "daemon off;" -e stderr\nsend_hup = True\n',
    # watchers
    "[watcher:a]\ncmd = a\nflapping.active = False\nflapping.retry_in = 1\nteam = payments\n"
    "mine.option = 3\nstdout_stream.class = StdoutStream\nessential = True\n",
    "[watcher:a]\ncmd = a\nstdout_stream.class = FileStream\nstdout_stream.filename = a.log\n"
    "stdout_stream.refresh_time = 0.3\nstdout_stream.time_format = '%Y/%m/%d | %H:%M:%S'\n",
    "[watcher:a]\ncmd = a\nstderr_stream.filename = a.log\nstderr_stream.max_bytes = "
    "10485760\n",
    "[watcher:a]\ncmd = a\nstdout_stream.class = my.Stream\nstdout_stream.colour = x\n",
    "[watcher:a]\ncmd = a\nstop_signal = SIGRTMIN+1\n[watcher:b]\ncmd = b\nstop_signal = 15\n",
    "[watcher:a]\ncmd = a\nrlimit_nofile = 300\nrlimit_nproc =\nrlimit_CORE = -1\nmax_retry "
    "= -1\n",
    "[watcher:a]\ncmd = a\nnumprocesses = 0\nsingleton = True\ngraceful_timeout = 25.5\n",
    "[watcher:a]\ncmd = a\nuid = $(circus.env.U)\nnumprocesses = $(circus.env.N)\n"
    "singleton = 1\n",
    "[watcher:a]\ncmd = a\nnumprocesses = @{workers}\ngraceful_timeout = @{seconds}\n",
    # sockets
    "[watcher:a]\ncmd = a $(circus.sockets.some-socket)\nuse_sockets = True\n"
    "[socket:Some-Socket]\nport = 9090\n",
    "[socket:a]\npath = /run/a\nfamily = AF_UNIX\n[socket:b]\npath = /run/b\numask = 0\n",
    "[socket:a]\npath = /run/a\numask = 18\n[socket:b]\npath = /run/b\numask = 007\n",
    "[socket:a]\nhost = 0.0.0.0\nport = 0\nfamily = af_inet6\ntype = sock_stream\n",
    "[socket:a]\nso_reuseport = True\n[socket:b]\nhost = localhost\n[watcher:a]\n"
    "cmd = a $(circus.sockets.a)\nargs = $(circus.sockets.a)\nuse_sockets = True\n",
    # variables
    "[watcher:a1]\ncmd = a\n[watcher:a2]\ncmd = b\n[env:a1,a2]\nPATH = $PATH:/bin\n[env]\n"
    "LOG = ${level}\n[env:a*]\nB = b\n[env:*]\nlower = x ; y\n",
    "[env:*]\nA = 1\n",
    "[circus]\nstatsd = $(circus.env.circus_statsd)\nstats_endpoint = "
    "$(circus.env.circus_stat)\n"
    "[watcher:a]\ncmd = a\nuid = $(circus.env.circus_uid)\n[env]\ncircus_gid = wheel\n",
    "[watcher:a]\ncmd = a $(circus.env.PORT2) $(circus.env.HOST)\n[env]\nPORT1 = 1\nHOSTS "
    "= x\n",
    # plugins
    "[plugin:flapping]\nuse = circus.plugins.flapping.Flapping\nretry_in = 3\nmax_retry = 2\n",
    "[plugin:s]\nuse = circus.plugins._statsd.StatsdEmitter\nhost = h\nsample_rate = 1.0\n",
    "[plugin:r]\nuse = circus.plugins.resource_watcher.ResourceWatcher\nservice = a\n"
    "max_mem = 1\nmax_cpu = 4\npriority = 30\n",
    "[plugin:w]\nuse = circus.plugins.watchdog.WatchDog\nloop_rate = 4\n"
    'msg_regex = "^(?P<pid>.*);(?P<timestamp>.*)$"\n',
    "[plugin:mine]\nuse = my.Plugin\nmax_retries = 3\nparameter = $(circus.env.x)\n",
)


class Complaints(unittest.TestCase):
    maxDiff = None

    def complaints(self, text: str, environment: Collection[str] | None = None) -> list[str]:
        found = circus.complaints(
            rendered(text),
            output=pathlib.Path("/buildout/circus.ini"),
            directory=pathlib.Path("/buildout"),
            environment=environment,
        )
        return [str(error) for error in found]

    def test_every_mistake_is_an_error_with_its_line_its_effect_and_a_way_out(self) -> None:
        for name, text, expected in MISTAKES:
            with self.subTest(name):
                found = self.complaints(textwrap.dedent(text))
                self.assertEqual(found, [f"circus.ini.in, line {line}" for line in expected])

    def test_no_valid_configuration_is_refused(self) -> None:
        for text in VALID:
            with self.subTest(text):
                self.assertEqual(self.complaints(text), [])

    def test_our_own_configurations_are_valid(self) -> None:
        for path in sorted(REPOSITORY.glob("**/circus.ini.in")):
            text = references.parse(path.read_text(), path.name).render(lambda *_: "/x")
            with self.subTest(path):
                self.assertEqual(self.complaints(text.text), [])

    def test_lines_are_those_of_the_template(self) -> None:
        template = references.parse("[circus]\n${x}\nchek_delay = 1\n", "t.in")
        made = template.render(lambda *_: "debug = True\nstatsd = True")
        (error,) = circus.complaints(
            made, output=pathlib.Path("/b/c.ini"), directory=pathlib.Path("/b")
        )
        self.assertIn("t.in, line 3: [circus]", str(error))

    def test_where_the_environment_is_known_a_variable_has_to_be_in_it(self) -> None:
        text = textwrap.dedent(
            """\
            [circus]
            endpoint = ipc://$(circus.env.RUN)/x
            [watcher:web]
            cmd = web $(circus.env.PORT) $(circus.env.home) $(circus.env.mine) $(circus.env.WB)
            [env:web]
            MINE = 1
            """
        )
        self.assertEqual(self.complaints(text, ("PORT", "RUN", "WB")), [])
        self.assertEqual(
            self.complaints(text, ("PORTS",)),
            [
                "circus.ini.in, line 2: [circus] endpoint has $(circus.env.RUN), which nothing "
                "sets, and Circus would leave it as it stands; set it in [env], or say "
                "that the "
                "environment will have it",
                "circus.ini.in, line 4: [watcher:web] cmd has $(circus.env.PORT), "
                "which nothing "
                "sets, and Circus would leave it as it stands; write $(circus.env.PORTS), the "
                "nearest name there is",
                "circus.ini.in, line 4: [watcher:web] cmd has $(circus.env.WB), which nothing "
                "sets, and Circus would leave it as it stands; set it in [env], or say "
                "that the "
                "environment will have it",
            ],
        )
        hook = "[watcher:a]\ncmd = a $(circus.env.X)\nhooks.before_spawn = a.b\n"
        self.assertEqual(self.complaints(hook, ()), [])


class Includes(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name).resolve()

    def complaints(self, text: str, **files: str) -> list[str]:
        for name, content in files.items():
            path = self.directory / "etc/more" / f"{name}.ini"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found = circus.complaints(
            rendered(text),
            output=self.directory / "etc/circus.ini",
            directory=self.directory,
            shown=lambda path: str(path.relative_to(self.directory)),
        )
        return [str(error) for error in found]

    def test_included_files_are_part_of_the_configuration(self) -> None:
        text = "[circus]\ninclude_dir = more\n[watcher:a]\ncmd = a $(circus.sockets.web)\n"
        self.assertEqual(
            self.complaints(
                text + "use_sockets = 1\n[env:b]\nA = 1\n",
                web="[socket:web]\nport = 1\n[watcher:b]\ncmd = b\n",
            ),
            [],
        )

    def test_a_mistake_in_one_has_its_own_place(self) -> None:
        (error,) = self.complaints(
            "[circus]\ninclude = more/*.ini\n", b="[socket:x]\nprot = 1\n"
        )
        self.assertTrue(error.startswith("etc/more/b.ini, line 2: [socket:x] has an unknown"))

    def test_what_the_main_file_sets_already_is_no_mistake(self) -> None:
        text = "[circus]\ncheck_delay = 1\ninclude = more/*.ini\n[watcher:web]\ncmd = web\n"
        shared = "[circus]\ncheck_delay = 2\n[env:server]\nA = 1\n"
        self.assertEqual(self.complaints(text, shared=shared), [])
        (error,) = self.complaints(text, shared="[env:Web]\nA = 1\n")
        self.assertIn("[env:Web] is for 'Web', which is no watcher", error)

    def test_a_hint_names_what_is_there(self) -> None:
        (error,) = self.complaints("[circus]\ninclude = more/wbe.ini\n", web="")
        self.assertTrue(error.endswith("write more/web.ini, the nearest name there is"), error)

    def test_what_only_the_image_has_is_not_judged(self) -> None:
        text = "[circus]\ninclude = /etc/shop/*.ini $(circus.env.MORE)\n"
        self.assertEqual(self.complaints(text), [])


class Programs(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name).resolve()
        self.program("gunicorn", "#!/bin/sh\n")

    def program(self, name: str, text: str, mode: int = 0o755) -> None:
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def missing(self, options: str) -> list[str]:
        text = f"[watcher:web]\n{options}\n".replace("HERE", str(self.directory))
        found = circus.missing_programs(
            rendered(text),
            output=self.directory / "circus.ini",
            directory=self.directory,
            shown=lambda path: str(path.relative_to(self.directory)),
        )
        return [str(error).removeprefix("circus.ini.in, line ") for error in found]

    def test_programs_that_are_there_or_elsewhere(self) -> None:
        for options in (
            "cmd = HERE/bin/gunicorn shop.wsgi",
            'cmd = "HERE/bin/gunicorn" shop.wsgi',
            "cmd = bin/gunicorn\nworking_dir = HERE",
            "cmd = shown\nexecutable = HERE/bin/gunicorn",
            "cmd = /usr/sbin/no-such-program",
            "cmd = no-such-program",
            "cmd = bin/no-such-program",
            "cmd = $(circus.env.X)/a",
            "cmd = 'torn",
        ):
            with self.subTest(options):
                self.assertEqual(self.missing(options), [])

    def test_programs_that_are_not_there(self) -> None:
        for options, line, name in (
            ("cmd = HERE/bin/gunicron shop.wsgi", 2, "cmd"),
            ("cmd = ./bin/gunicron\nworking_dir = HERE", 2, "cmd"),
            ("cmd = shown\nexecutable = HERE/bin/gunicron", 3, "executable"),
        ):
            with self.subTest(options):
                self.assertEqual(
                    self.missing(options),
                    [
                        f"{line}: [watcher:web] {name} runs bin/gunicron, which does not "
                        f"exist, and circusd would stay up without it; write bin/gunicorn, the "
                        f"nearest name there is"
                    ],
                )

    def test_programs_that_are_none(self) -> None:
        self.program("script", "", stat.S_IRUSR)
        self.assertEqual(
            self.missing("cmd = HERE/bin/script"),
            [
                "2: [watcher:web] cmd runs bin/script, which is no program, and circusd would "
                "stay up without it; make it executable, or name the program that runs it"
            ],
        )

    def test_programs_without_an_interpreter(self) -> None:
        self.program("a", f"#!{self.directory}/parts/tool/bin/python\n")
        self.assertEqual(
            self.missing("cmd = HERE/bin/a"),
            [
                "2: [watcher:web] cmd runs bin/a, whose interpreter parts/tool/bin/python does "
                "not exist; run the part that makes the interpreter"
            ],
        )


PIECES = (
    "[circus]",
    "[watcher:a]",
    "[env:a] trailing",
    "[DEFAULT]",
    "[a]]",
    "[broken",
    "cmd = a",
    "cmd=b",
    "cmd : c = d",
    "args = 'a ; b'",
    "args = a;b ; c",
    "args =;x ",
    "args = ; x",
    'empty = ""',
    "empty =",
    "  continued",
    "  # not a comment",
    "\t; nor this",
    "   ",
    "",
    "# comment",
    "; comment",
    "rem comment",
    "Rem",
    "remember = 1",
    "two words = 1",
    "= nameless",
    " = indented",
    "key\twith tab = x\t; y",
    "url = http://x/?a=b;c",
    "\xa0nbsp = 1",
    "word",
    "a=1\rb=2",
    "crlf = 1\r",
    "ü = é",
    ": colon",
)


# Prints what Circus' own parser makes of each text, or null where it refuses one.
PARSE = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import configparser
from circus.util import StrictConfigParser

def values(text):
    parser = StrictConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    found = {section: dict(parser._sections[section]) for section in parser.sections()}
    for options in found.values():
        del options["__name__"]
    if parser.defaults():
        found["DEFAULT"] = dict(parser.defaults())
    return found

print(json.dumps([values(text) for text in json.load(sys.stdin)]))
"""


def circusd(test: unittest.TestCase) -> tuple[str, list[str]]:
    """The Python and the path of ``bin/circusd``."""
    script = REPOSITORY / "bin/circusd"
    if not script.exists():
        test.skipTest("there is no bin/circusd; run bin/buildout install app")
    text = script.read_text()
    (path,) = re.findall(r"^sys\.path\[0:0\] = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    return text.split("\n")[0].removeprefix("#!"), list(ast.literal_eval(path))


class Reader(unittest.TestCase):
    def theirs(self, texts: list[str]) -> list[dict[str, dict[str, str]] | None]:
        python, path = circusd(self)
        result = subprocess.run(
            [python, "-c", PARSE, json.dumps(path)],
            # as open() would have it
            input=json.dumps([re.sub("\r\n?", "\n", text) for text in texts]),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: list[dict[str, dict[str, str]] | None] = json.loads(result.stdout)
        return found

    def test_it_agrees_with_circus(self) -> None:
        chance = random.Random(5)
        texts = []
        for _ in range(1500):
            lines = chance.choices(PIECES, k=chance.randrange(1, 14))
            if chance.random() < 0.8:
                lines.insert(0, "[watcher:a]")
            texts.append("\n".join(lines) + chance.choice(("", "\n")))
        refused = 0
        for text, theirs in zip(texts, self.theirs(texts), strict=True):
            document = circus_file.read(rendered(text))
            with self.subTest(text):
                self.assertEqual(bool(document.broken), theirs is None)
                if theirs is None:
                    refused += 1
                    continue
                ours = document.values()
                if not ours.get("DEFAULT"):
                    ours.pop("DEFAULT", None)
                self.assertEqual(ours, theirs)
        self.assertIn(refused, range(200, 1300))  # both kinds were tried

    def test_lines_are_where_the_text_has_them(self) -> None:
        text = "# c\n[circus]\na = 1\r\n  2\n\n  3 ; x\nb = 4 ; y\n"
        a, b = circus_file.read(rendered(text)).entries
        self.assertEqual(a.parts, [(3, "1"), (4, "2"), (6, "3 ; x")])
        self.assertEqual((b.line, b.value, b.cut), (7, "4", "; y"))
