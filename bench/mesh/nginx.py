"""nginx's stream module, for the client's and the server's side. It takes OpenSSL 3.5 or newer for ML-DSA."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.mesh.certificates import DNS_NAME, Certificates

_COMMON: Final = """\
{load_module}
daemon off;
master_process off;
error_log stderr error;
pid {folder}/nginx-{side}.pid;
lock_file {folder}/nginx-{side}.lock;
events {{ worker_connections 8000; }}
stream {{
    log_format line '$time_iso8601 $remote_addr $remote_port $status $bytes_sent $bytes_received $session_time';
    access_log /dev/null line;
    proxy_connect_timeout 5s;
    proxy_timeout 1h;
    tcp_nodelay on;
    proxy_half_close on;
    server {{
        listen 127.0.0.1:{port} backlog=4096 {ssl};
        proxy_pass 127.0.0.1:{target};
        {settings}
    }}
}}
"""
_CONNECT: Final = """
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_certificate {chain};
        proxy_ssl_certificate_key {key};
        proxy_ssl_trusted_certificate {roots};
        proxy_ssl_verify on;
        proxy_ssl_name {name};
        proxy_ssl_session_reuse {reuse};
        proxy_ssl_conf_command Groups SecP384r1MLKEM1024;
        proxy_ssl_conf_command SignatureAlgorithms mldsa87;"""
_ACCEPT: Final = """
        ssl_protocols TLSv1.3;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_client_certificate {roots};
        ssl_verify_client on;
        ssl_session_tickets {reuse};
        ssl_session_cache {cache};
        ssl_ecdh_curve SecP384r1MLKEM1024;
        ssl_conf_command SignatureAlgorithms mldsa87;
        ssl_conf_command ClientSignatureAlgorithms mldsa87;"""


def commands(
    binary: Path,
    module: Path | None,
    folder: Path,
    ports: tuple[int, int, int],
    certificates: Certificates,
    *,
    resume: bool = True,
) -> list[list[str | Path]]:
    """Both sides' commands, one process each; `ports`: the client's side, the server's, the application."""
    client, server, application = ports
    settings = {
        "chain": certificates.chain,
        "key": certificates.key,
        "roots": certificates.roots,
        "name": DNS_NAME,
        "reuse": "on" if resume else "off",
        "cache": "builtin" if resume else "off",
    }
    sides = {
        "client": (client, server, "", _CONNECT.format(**settings)),
        "server": (server, application, "ssl", _ACCEPT.format(**settings)),
    }
    found: list[list[str | Path]] = []
    for side, (port, target, ssl, text) in sides.items():
        file = folder / f"{side}.conf"
        load_module = f"load_module {module};" if module is not None else ""
        file.write_text(
            _COMMON.format(
                load_module=load_module, folder=folder, side=side, port=port, target=target, ssl=ssl, settings=text
            )
        )
        found.append([binary, "-e", "stderr", "-p", folder, "-c", file])
    return found
