"""HAProxy's configurations, for the client's and the server's side. It takes OpenSSL 3.5 or newer for ML-DSA."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.mesh.certificates import Certificates

_COMMON: Final = """\
global
    nbthread 1
    maxconn 4000
    log stdout format raw local0
    {settings}
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend in
    bind 127.0.0.1:{port} {accept}
    default_backend out
backend out
    server one 127.0.0.1:{target} {connect}
"""
_GROUP: Final = "SecP384r1MLKEM1024"


def commands(
    binary: Path,
    folder: Path,
    ports: tuple[int, int, int],
    certificates: Certificates | None,
    *,
    resume: bool = True,
) -> list[list[str | Path]]:
    """Both sides' commands, one thread each; `ports`: the client's side, the server's, the application."""
    client, server, application = ports
    connect = accept = settings = ""
    if certificates is not None:
        tls = (
            f"ssl crt {certificates.together} ca-file {certificates.roots} verify required "
            f"curves {_GROUP} sigalgs mldsa87 ssl-min-ver TLSv1.3"
        )
        connect = tls if resume else f"{tls} no-ssl-reuse"
        accept = f"{tls} client-sigalgs mldsa87" + ("" if resume else " no-tls-tickets")
        settings = "" if resume else "tune.ssl.cachesize 0"
    files = {
        folder / "client.cfg": _COMMON.format(
            port=client, target=server, accept="", connect=connect, settings=settings
        ),
        folder / "server.cfg": _COMMON.format(
            port=server, target=application, accept=accept, connect="", settings=settings
        ),
    }
    for file, text in files.items():
        file.write_text(text)
    return [[binary, "-db", "-f", file] for file in files]
