"""What a client would say of a certificate: whether it fits its key, its name and the day."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator

from eggcrate.config.nginx_model import Certificate, at
from eggcrate.errors import EggcrateError, SettingsError

# OpenSSL's verify codes (x509_vfy.h) that are no matter of whom a client trusts
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


def complaints(
    pairs: Iterable[Certificate], directory: pathlib.Path
) -> Iterator[EggcrateError]:
    """What is wrong with each pair, as far as its files are here.

    Files outside ``directory``, the buildout's, may come with the container; those below it
    have to be there.
    """
    for pair in pairs:
        found = True
        for path, place, option in (
            (pair.certificate, pair.certificate_place, "tls-certificate"),
            (pair.key, pair.key_place, "tls-key"),
        ):
            if os.path.isfile(path) and os.access(path, os.R_OK):
                continue
            found = False
            if os.path.exists(path) or pathlib.Path(path).is_relative_to(directory):
                yield SettingsError(
                    f"{at(place, option)}: {path} is no file that can be read",
                    f"put it there, or correct {option}",
                )
        if found:
            yield from _judged(pair)


def _judged(pair: Certificate) -> Iterator[EggcrateError]:
    """Shake hands with ourselves, as server and as client."""
    import ssl

    place = at(pair.certificate_place, "tls-certificate")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(pair.certificate, pair.key, password=lambda: b"")
        leaf = _leaf(pathlib.Path(pair.certificate).read_text("latin-1"))
        client = ssl.create_default_context(cadata=leaf)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            yield SettingsError(
                f"{place}: the key {pair.key} belongs to another certificate",
                "set tls-key to the key that the certificate was made with",
            )
        else:
            yield SettingsError(
                f"{place}: {pair.certificate} and {pair.key} can't be used ({reason})",
                "give a certificate and its key, both as PEM and without a password",
            )
        return
    except OSError as error:
        yield SettingsError(
            f"{place}: {pair.certificate} can't be read: {error.strerror}", "make it readable"
        )
        return
    # the certificate itself is what this client trusts, so only its own faults are left
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    examples = [(name, example) for name in pair.names for example in _examples(name)]
    for name, example in examples or [("", "")]:
        code = _verify_code(server, client, example)
        if code == _EXPIRED:
            yield SettingsError(
                f"{place}: {pair.certificate} has expired", "have it renewed before you build"
            )
        elif code == _NOT_YET:
            yield SettingsError(
                f"{place}: {pair.certificate} is not valid yet",
                "look at this machine's clock, or take another certificate",
            )
        elif code in (_OTHER_NAME, _OTHER_ADDRESS) and name:
            yield SettingsError(
                f"{place}: {pair.certificate} is not for {name}",
                "take a certificate that names all of server-names, or take the name out",
            )
            continue
        else:
            continue
        return


def _verify_code(server: object, client: object, name: str) -> int:
    import ssl

    assert isinstance(server, ssl.SSLContext)
    assert isinstance(client, ssl.SSLContext)
    client.check_hostname = bool(name)
    client.hostname_checks_common_name = False  # as browsers don't
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name or None),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(8):  # a handshake takes four of these
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_code
            except ssl.SSLError:
                return 0  # old or odd, but nothing that is looked for here
    return 0


def _leaf(text: str) -> str:
    """The first certificate of a PEM file, which is the server's own."""
    end = "-----END CERTIFICATE-----"
    start = text.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end not in text[start:]:
        raise ValueError("there is no PEM certificate in it")
    return text[start : text.index(end, start) + len(end)] + "\n"


def _examples(name: str) -> list[str]:
    """Host names that a name of a site stands for."""
    below = f"any-other-name.{name.lstrip('*.')}"
    if name.startswith("*."):
        return [below]
    return [name[1:], below] if name.startswith(".") else [name.strip("[]")]
