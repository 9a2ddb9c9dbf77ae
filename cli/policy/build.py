"""`qbitel policy build`: policies from a few words, as Istio's resources that `kubectl apply -f -` takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.arguments import positive_int
from cli.policy import words
from cli.policy.places import at
from cli.policy.service_file import read_service_policy
from control.configurator import MutualTLSConfigurator
from control.policy_manager import MeshPolicyManager
from mesh import names
from mesh.building.metadata import PROFILES
from mesh.documents import to_yaml
from mesh.errors import UserError
from mesh.modes import MTLSMode
from mesh.selectors import ROOT_NAMESPACE

_MODES = ("STRICT", "PERMISSIVE", "DISABLE", "UNSET")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """`build mtls|zero-trust|destination|service|rate-limit|jwt`."""
    parser = commands.add_parser(
        "build",
        help="write policies from a few words",
        description="Writes Istio's resources to standard output: read them, keep them in files, apply them.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument("--trust-domain", type=words.trust_domain, default=names.DEFAULT_TRUST_DOMAIN, metavar="NAME")
    shared.add_argument("--root-namespace", type=words.namespace, default=ROOT_NAMESPACE, metavar="NAMESPACE")
    shared.add_argument("--profile", choices=PROFILES, default=PROFILES[0], help="the crypto profile (%(default)s)")
    for add in (_add_mtls, _add_zero_trust, _add_destination, _add_service, _add_rate_limit, _add_jwt):
        add(kinds, shared)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        resources: Sequence[dict[str, Any]] = options.build(options)
    except ValueError as error:
        raise UserError(str(error)) from None
    if options.json:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(resources)}, indent=2))
    else:
        print(to_yaml(resources), end="")
    return 0


def _configurator(options: argparse.Namespace) -> MutualTLSConfigurator:
    return MutualTLSConfigurator(
        trust_domain=options.trust_domain, root_namespace=options.root_namespace, profile=options.profile
    )


def _manager(options: argparse.Namespace) -> MeshPolicyManager:
    return MeshPolicyManager(trust_domain=options.trust_domain, profile=options.profile)


# mtls


def _add_mtls(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("mtls", parents=[shared], help="what a mesh, a namespace or a workload accepts")
    parser.add_argument("-n", "--namespace", type=words.namespace, help="of a namespace; without it, of the mesh")
    parser.add_argument(
        "--selector", type=words.label, action="append", metavar="KEY=VALUE", help="of these pods alone"
    )
    parser.add_argument("--name", help="of the resource, where there is a selector")
    parser.add_argument("--mode", choices=_MODES, default=MTLSMode.STRICT.value, help="(%(default)s)")
    parser.add_argument(
        "--port", type=_port_mode, action="append", metavar="PORT=MODE", help="another mode at a port of the pods"
    )
    parser.set_defaults(build=_mtls)


def _mtls(options: argparse.Namespace) -> list[dict[str, Any]]:
    configurator = _configurator(options)
    if options.selector:
        if options.namespace is None or options.name is None:
            raise UserError("pods are in a namespace, and their policy has a name; give --namespace and --name")
        port_modes = dict(options.port) if options.port else None
        return [
            configurator.create_workload_mtls(
                options.name, options.namespace, dict(options.selector), options.mode, port_modes=port_modes
            )
        ]
    if options.port or options.name:
        raise UserError("--port and --name are for some pods; give their labels by --selector")
    if options.namespace is None:
        return [configurator.create_mesh_wide_mtls(options.mode)]
    return [configurator.create_namespace_mtls(options.namespace, options.mode)]


def _port_mode(text: str) -> tuple[int, str]:
    number, _, mode = text.partition("=")
    if mode not in _MODES:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not PORT=MODE, as in 8080=DISABLE")
    return words.port(number), mode


# zero-trust


def _add_zero_trust(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("zero-trust", parents=[shared], help="deny everything in a namespace but named services")
    parser.add_argument("-n", "--namespace", type=words.namespace, required=True)
    parser.add_argument(
        "--allow",
        type=words.listed,
        action="extend",
        required=True,
        metavar="SERVICE,…",
        help="services (label app and service account of that name) that may call one another",
    )
    parser.add_argument(
        "--source",
        type=words.listed,
        action="extend",
        default=[],
        metavar="ACCOUNT,…",
        help="who may call them as well: account, namespace/account, a whole principal",
    )
    parser.add_argument(
        "--health-port", type=words.port, action="append", default=[], help="a port that anyone may reach"
    )
    parser.add_argument("--selector-label", default="app", metavar="LABEL", help="that has the name (%(default)s)")
    parser.set_defaults(build=_zero_trust)


def _zero_trust(options: argparse.Namespace) -> list[dict[str, Any]]:
    return _configurator(options).create_zero_trust_policy(
        options.namespace,
        options.allow,
        additional_sources=options.source,
        health_ports=options.health_port,
        selector_label=options.selector_label,
    )


# destination


def _add_destination(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("destination", parents=[shared], help="how callers dial a host")
    parser.add_argument("--name", required=True)
    parser.add_argument("-n", "--namespace", type=words.namespace, default="default")
    parser.add_argument("--host", required=True, help="as in backend.production.svc.cluster.local")
    parser.add_argument("--plaintext", action="store_true", help="without TLS")
    parser.set_defaults(build=_destination)


def _destination(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        _configurator(options).create_destination_rule(
            options.name,
            options.host,
            options.namespace,
            enable_quantum_tls=not options.plaintext,
            tls_mode="DISABLE" if options.plaintext else None,
        )
    ]


# service


def _add_service(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("service", parents=[shared], help="everything that one service wants, from a file")
    parser.add_argument(
        "-f", "--file", required=True, metavar="FILE", help="a ServicePolicy in YAML or JSON, or several; - for input"
    )
    parser.set_defaults(build=_service)


def _service(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.file != "-" and Path(options.file).is_dir():
        raise UserError("--file: a folder; give a file")
    options.recursive = False
    reading = at(options.file, options)
    if reading.problems:
        raise UserError(str(reading.problems[0]))
    if not reading.documents:
        raise UserError(f"{reading.sources[0]}: holds nothing; write at least service_name: …")
    manager = _manager(options)
    return [
        resource
        for document in reading.documents
        for resource in manager.create_complete_service_policies(read_service_policy(document))
    ]


# rate-limit


def _add_rate_limit(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("rate-limit", parents=[shared], help="how many requests per second pods let in")
    parser.add_argument("--name", required=True)
    parser.add_argument("-n", "--namespace", type=words.namespace, default="default")
    parser.add_argument(
        "--selector", type=words.label, action="append", metavar="KEY=VALUE", help="of the pods (app=NAME)"
    )
    parser.add_argument("--rate", type=_rate, required=True, metavar="NUMBER", help="requests per second, each pod")
    parser.add_argument("--burst", type=positive_int, metavar="NUMBER", help="as many at once (those of one second)")
    parser.add_argument("--port", type=words.port, help="at this port of the pods alone")
    parser.set_defaults(build=_rate_limit)


def _rate_limit(options: argparse.Namespace) -> list[dict[str, Any]]:
    selector = dict(options.selector or [("app", options.name)])
    return [
        _manager(options).create_rate_limit_policy(
            options.name, options.namespace, selector, options.rate, options.burst, port=options.port
        )
    ]


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no number") from None
    return int(number) if number.is_integer() else number


# jwt


def _add_jwt(kinds: Any, shared: argparse.ArgumentParser) -> None:
    parser = kinds.add_parser("jwt", parents=[shared], help="whose tokens are believed")
    parser.add_argument("--name", required=True)
    parser.add_argument("-n", "--namespace", type=words.namespace, default="default")
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--jwks-uri", metavar="URL", help="where its keys are")
    parser.add_argument("--audience", action="append", default=[], help="for whom a token must be")
    parser.add_argument(
        "--selector", type=words.label, action="append", metavar="KEY=VALUE", help="of these pods alone"
    )
    parser.add_argument("--require", action="store_true", help="and refuse requests without one")
    parser.set_defaults(build=_jwt)


def _jwt(options: argparse.Namespace) -> list[dict[str, Any]]:
    selector = dict(options.selector) if options.selector else None
    found = [
        _manager(options).create_jwt_authentication(
            options.name,
            options.namespace,
            options.issuer,
            options.jwks_uri,
            options.audience,
            selector=selector,
        )
    ]
    if options.require:
        rules = [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]
        found.append(
            _configurator(options).create_authorization_policy(
                f"{options.name}-required", options.namespace, "DENY", rules, selector
            )
        )
    return found
