"""`qbitel injector`: the webhook that puts the sidecar into pods, and how a cluster is told of it."""

from __future__ import annotations

import argparse
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cli.arguments import Address, Parser, address, seconds
from cli.injection import add_excluded, add_installation, injector_of
from cli.proxy import add_log_level, set_up_logging
from httpd.site import BACKLOG
from injector import serving
from injector.serving import Listening
from injector.serving_certificate import ServingCertificate, ServingFiles
from injector.webhook_configuration import IstioSidecarInjector
from mesh import names
from mesh.documents import to_yaml
from mesh.errors import UserError
from proxy import loop, sockets
from proxy.credentials import utc_now

# Not privileged, so that the webhook needs no capability; its Service listens on 443.
DEFAULT_PORT: Final = 9443
# A pod that ends is not ready any more at once, and the cluster's proxies have taken that up in a second or two.
_DRAIN_SECONDS: Final = 5.0


def main(arguments: Sequence[str]) -> int:
    """Run `qbitel injector` with `arguments`; return its exit code. Raises UserError."""
    options = _parser().parse_args(arguments)
    if options.command == "configuration":
        print(_configuration(options), end="")
        return 0
    set_up_logging(options.log_level)
    injector = injector_of(options)
    certificate = ServingCertificate(ServingFiles(options.tls_cert, options.tls_key))
    with contextlib.closing(_listening(options)) as listening:
        return loop.run(serving.run(injector, certificate, listening, now=utc_now, drain_seconds=options.drain_seconds))


def _parser() -> Parser:
    parser = Parser(prog="qbitel injector", description="The webhook that puts the sidecar into pods.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="answer the API server",
        description="Answer the API server's AdmissionReviews over HTTPS, in the foreground. SIGTERM finishes what is "
        "under way and ends it.",
    )
    serve.add_argument("--listen", metavar="ADDR", type=address, help=f"({DEFAULT_PORT}, everywhere)")
    for flag, file in (("--tls-cert", names.CERTIFICATE_FILE), ("--tls-key", names.PRIVATE_KEY_FILE)):
        default = Path(names.CERTIFICATE_FOLDER, file)
        serve.add_argument(
            flag, metavar="FILE", type=Path, default=default, help="PEM; followed when it changes (%(default)s)"
        )
    serve.add_argument(
        "--metrics", metavar="ADDR", type=address, help=f"GET /metrics ({names.METRICS_PORT}, everywhere)"
    )
    serve.add_argument(
        "--drain-seconds",
        metavar="S",
        type=seconds,
        default=_DRAIN_SECONDS,
        help="how long reviews are answered after SIGTERM, while the API server learns of it (%(default)g)",
    )
    add_installation(serve)
    add_log_level(serve)
    configuration = commands.add_parser(
        "configuration",
        help="print the MutatingWebhookConfiguration",
        description="Print the MutatingWebhookConfiguration for `kubectl apply -f -`.",
    )
    configuration.add_argument(
        "--namespace", metavar="NS", default=names.CONTROL_NAMESPACE, help="of the webhook's Service (%(default)s)"
    )
    configuration.add_argument(
        "--name", metavar="NAME", default=names.WEBHOOK_NAME, help="of the webhook and its Service (%(default)s)"
    )
    configuration.add_argument(
        "--ca", metavar="FILE", type=Path, help="PEM of the authority that signed the webhook's certificate"
    )
    add_excluded(configuration)
    return parser


def _configuration(options: argparse.Namespace) -> str:
    bundle = None
    if options.ca is not None:
        try:
            bundle = options.ca.read_bytes()
        except OSError as error:
            raise UserError(f"{options.ca}: {error.strerror}") from None
    injector = IstioSidecarInjector(options.namespace, options.name, excluded_namespaces=options.exclude_namespace)
    return to_yaml(injector.create_webhook_configuration(bundle))


def _listening(options: argparse.Namespace) -> Listening:
    """Bind both ports, or raise UserError and leave nothing bound."""
    webhook = _listen(options.listen, DEFAULT_PORT)
    try:
        return Listening([webhook], [_listen(options.metrics, names.METRICS_PORT)])
    except UserError:
        webhook.close()
        raise


def _listen(given: Address | None, default_port: int) -> socket.socket:
    host = ("::" if sockets.ipv6_available() else "0.0.0.0") if given is None else given.host  # noqa: S104
    port = default_port if given is None else given.port
    try:
        return socket.create_server((host, port), family=_family(host), backlog=BACKLOG, dualstack_ipv6=host == "::")
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
