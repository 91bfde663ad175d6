"""Secrets in texts: what nobody should publish with an image."""

from __future__ import annotations

import re
import urllib.parse

# a key has at least so many letters of base64 after its first line; a mention of one has not
_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----[ \t]*(?:\\n|\r?\n)"
    rb"(?:[A-Za-z-]{1,30}:[^\n]{0,200}\r?\n|\r?\n){0,8}[A-Za-z0-9+/=]{40}"
)
_TOKENS = (
    ("an access key of AWS", rb"AKIA", rb"(?<![A-Za-z0-9])AKIA[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("a token of GitHub", rb"gh", rb"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    ("a token of GitHub", rb"github_pat_", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("a token of GitLab", rb"glpat-", rb"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20}"),
    ("a token of Slack", rb"xox", rb"(?<![A-Za-z0-9])xox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{10,}"),
    ("a token of a package index", rb"pypi-AgE", rb"pypi-AgE[A-Za-z0-9_-]{50,}"),
    ("a token of npm", rb"_authToken", rb"_authToken\s*=\s*[A-Za-z0-9_-]{30,}"),
)
_TOKEN_PATTERNS = tuple((what, sign, re.compile(pattern)) for what, sign, pattern in _TOKENS)

# scheme://user:password@host; the lengths keep the search short on long lines
_URL = re.compile(
    rb"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{1,20})://"
    rb"([^\s/?#@:'\"`<>]{0,100}):([^\s/?#@'\"`<>]{1,200})@([^\s/?#'\"`<>@:,;)\]]{1,253})"
)
# what stands for a password in documents, tests and templates
_NO_PASSWORD = re.compile(
    r"(?i)[x*.]+|pass(?:word|wd|phrase)?\d*|my-?password|your[-_]?password|pw\d*|pwd|secret\d*"
    r"|user(?:name)?|changeme|change-me|example|test(?:ing)?\d*|foo|bar|baz|guest|tiger|admin"
    r"|root|postgres|1234\d*|s3cr3t|hunter2|token|key|.*[$%{}<>\[\]()|\\].*|_+\w+_+"
)
_NO_HOST = re.compile(
    r"(?i)(?:.*\.)?(?:example|invalid|test)|(?:.*\.)?example\.(?:com|org|net|edu)|\.\.\.|host"
    r"|.*[$%{}<>\\].*"
)


def secret_in(data: bytes) -> str | None:
    """What secret a text holds, for people and without its value; None when it holds none.

    Private keys, passwords in URLs, tokens whose form nothing else has.  What only shows how
    such a thing looks is none: ``postgres://user:password@localhost/db``.
    """
    if b"PRIVATE KEY" in data and _KEY.search(data):
        return "a private key"
    for what, sign, pattern in _TOKEN_PATTERNS:
        if sign in data and pattern.search(data):
            return what
    if b"://" in data and b"@" in data:
        for match in _URL.finditer(data):
            scheme, user, password, host = (
                part.decode("utf-8", "replace") for part in match.groups()
            )
            plain = urllib.parse.unquote(password)
            if _NO_PASSWORD.fullmatch(plain) or _NO_HOST.fullmatch(host) or plain == user:
                continue
            return f"a password in a URL ({scheme}://{user}:***@{host})"
    return None
