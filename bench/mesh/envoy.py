"""Envoy's configurations: each a pair of files, for the client's and the server's side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.mesh.certificates import Certificates

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_HTTP2: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# What our sidecars write too, for every connection: a JSON line, here to nowhere.
_LOG_FIELDS: Final = {
    "start_time": "%START_TIME%",
    "duration": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "response_flags": "%RESPONSE_FLAGS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "upstream_host": "%UPSTREAM_HOST%",
    "downstream_peer": "%DOWNSTREAM_PEER_URI_SAN%",
}


@dataclass(frozen=True, slots=True)
class Security:
    """What two Envoys agree on. `resume`: with session tickets, as it does by default."""

    certificates: Certificates
    group: str
    signature: str | None
    resume: bool = True


def commands(
    binary: Path, folder: Path, ports: tuple[int, int, int], security: Security | None, *, tunnels: bool = False
) -> list[list[str | Path]]:
    """Both sides' commands, one worker thread each; `ports`: the client's side, the server's, the application."""
    client, server, application = ports
    towards_server = _cluster(server, _tls("Upstream", security), http2=tunnels)
    sides = {
        "client": _bootstrap(client, _tcp_proxy(hostname="bench:1" if tunnels else None), None, towards_server),
        "server": _bootstrap(
            server, _terminate() if tunnels else _tcp_proxy(), _tls("Downstream", security, http2=tunnels),
            _cluster(application, None),
        ),
    }  # fmt: skip
    found: list[list[str | Path]] = []
    for number, (name, config) in enumerate(sides.items()):
        file = folder / f"envoy-{name}.json"
        file.write_text(json.dumps(config))
        found.append([
            binary, "--config-path", file, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart",
            "--base-id", str(number),
        ])  # fmt: skip
    return found


def _bootstrap(port: int, network_filter: dict[str, Any], tls: Any, cluster: dict[str, Any]) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [network_filter]}
    if tls is not None:
        chain["transport_socket"] = tls
    listener = {"name": "in", "address": _address(port), "filter_chains": [chain]}
    # As an Istio sidecar does, metrics and admin are part of it.
    admin = {"address": _address(0)}
    return {"admin": admin, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(port: int, tls: Any, *, http2: bool = False) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    cluster: dict[str, Any] = {
        "name": "out",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "out", "endpoints": [{"lb_endpoints": [endpoint]}]},
        # The default of 1024 is less than some measurements open.
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 100_000)]
        },
    }
    if tls is not None:
        cluster["transport_socket"] = tls
    if http2:
        options = {"@type": f"type.googleapis.com/{_HTTP2}", "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {_HTTP2: options}
    return cluster


def _access_log() -> list[dict[str, Any]]:
    return [{
        "name": "file",
        "typed_config": {
            "@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null",
            "log_format": {"json_format": _LOG_FIELDS},
        },
    }]  # fmt: skip


def _tcp_proxy(hostname: str | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": "out",
        "access_log": _access_log(),
    }
    if hostname is not None:
        config["tunneling_config"] = {"hostname": hostname}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _terminate() -> dict[str, Any]:
    """HTTP/2 CONNECT in, TCP out."""
    connect = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    route = {"match": {"connect_matcher": {}}, "route": {"cluster": "out", **connect}}
    config = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "HTTP2",
        "access_log": _access_log(),
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"},
        }],
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
    }  # fmt: skip
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _tls(side: str, security: Security | None, *, http2: bool = False) -> dict[str, Any] | None:
    if security is None:
        return None
    parameters: dict[str, Any] = {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
        "ecdh_curves": [security.group],
    }
    if security.signature is not None:
        parameters["signature_algorithms"] = [security.signature]
    files = security.certificates
    common: dict[str, Any] = {
        "tls_params": parameters,
        "tls_certificates": [{
            "certificate_chain": {"filename": str(files.chain)},
            "private_key": {"filename": str(files.key)},
        }],
        "validation_context": {
            "trusted_ca": {"filename": str(files.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}],
        },
    }  # fmt: skip
    if http2:
        common["alpn_protocols"] = ["h2"]
    context = {"@type": f"{_TYPE}.transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}
    if side == "Downstream":
        context["require_client_certificate"] = True
        if not security.resume:
            context |= {"disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True}
    elif not security.resume:
        context["max_session_keys"] = 0
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
