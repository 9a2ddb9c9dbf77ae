"""What `qbitel inject` and `qbitel injector` share: the flags of an installation, and the rules for interception."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata

from cli.arguments import Parser, address
from init import config as interception
from init.config import InboundMode, InterceptionConfig
from init.script import render_script
from injector.config import LOG_LEVELS, PULL_POLICIES, InjectorConfig, SidecarConfig, native_sidecars_in
from injector.inject import Injector
from injector.interception import Interception, annotation_of
from mesh import names
from mesh.errors import UserError
from mesh.modes import MTLSMode

_SIDECAR = SidecarConfig()
_DEFAULTS = InjectorConfig()


def add_installation(parser: Parser) -> None:
    """What every pod of an installation is given."""
    group = parser.add_argument_group("what pods are given, where their annotations say nothing else")
    group.add_argument("--image", default=_SIDECAR.image, metavar="IMAGE", help="of the sidecar (%(default)s)")
    group.add_argument("--pull-policy", choices=PULL_POLICIES[1:], default="", help="of that image (Kubernetes' own)")
    for kind in ("cpu", "memory"):
        for what in ("request", "limit"):
            default = getattr(_SIDECAR, f"{kind}_{what}")
            flag, text = f"--{kind}-{what}", f"{kind} {what} of the sidecar (%(default)s)"
            group.add_argument(flag, default=default, metavar="Q", help=text)
    group.add_argument(
        "--kubernetes-version",
        metavar="V",
        default="1.29",
        help="of the cluster; from 1.29 on sidecars are native (%(default)s)",
    )
    group.add_argument(
        "--authority", metavar="HOST:PORT", type=address, help=f"who signs certificates ({_DEFAULTS.authority})"
    )
    group.add_argument("--trust-domain", metavar="D", default=_DEFAULTS.trust_domain, help="(%(default)s)")
    group.add_argument(
        "--mtls-mode",
        choices=[mode.value for mode in MTLSMode],
        default=_DEFAULTS.mtls_mode.value,
        help="what a sidecar takes where no policy says it (%(default)s)",
    )
    group.add_argument("--profile", metavar="P", default=_DEFAULTS.profile, help="what is negotiated (%(default)s)")
    group.add_argument(
        "--mesh",
        metavar="CIDR",
        action="append",
        default=[],
        help="destinations that are reached by TLS of the mesh or not at all; repeatable",
    )
    group.add_argument(
        "--discovery",
        action="store_true",
        help="policies and peers are those that `qbitel discovery` publishes in the cluster; pods wait for them",
    )
    group.add_argument(
        "--root-namespace",
        metavar="NS",
        default="",
        help="with --discovery: whose policies hold in every namespace (the control namespace)",
    )
    group.add_argument("--proxy-log-level", choices=LOG_LEVELS, default=_DEFAULTS.log_level, help="(%(default)s)")
    group.add_argument(
        "--control-namespace", metavar="NS", default=names.CONTROL_NAMESPACE, help="never injected (%(default)s)"
    )
    add_excluded(group)


def add_excluded(parser: argparse._ActionsContainer) -> None:
    """The namespaces that an installation leaves out."""
    parser.add_argument(
        "--exclude-namespace",
        metavar="NS",
        action="append",
        default=[],
        help="never injected either, labelled or not: injector.excludedNamespaces of the Helm chart; repeatable",
    )


def injector_of(options: argparse.Namespace) -> Injector:
    """What these flags say. Raises UserError."""
    config = InjectorConfig(
        sidecar=SidecarConfig(
            image=options.image,
            cpu_request=options.cpu_request,
            cpu_limit=options.cpu_limit,
            memory_request=options.memory_request,
            memory_limit=options.memory_limit,
        ),
        native_sidecars=native_sidecars_in(options.kubernetes_version),
        control_namespace=options.control_namespace,
        excluded_namespaces=frozenset(options.exclude_namespace),
        authority=_DEFAULTS.authority if options.authority is None else str(options.authority),
        trust_domain=options.trust_domain,
        mtls_mode=MTLSMode(options.mtls_mode),
        profile=options.profile,
        mesh_cidrs=tuple(_mesh(options.mesh)),
        log_level=options.proxy_log_level,
        pull_policy=options.pull_policy,
        discovery=options.discovery,
        root_namespace=options.root_namespace,
    )
    return Injector(config=config, render_script=rendered, version=importlib.metadata.version("qbitel-mesh"))


def _mesh(cidrs: list[str]) -> list[str]:
    for cidr in cidrs:
        if not interception.parse_networks("--mesh", cidr):
            raise UserError("--mesh: give a network such as 10.0.0.0/8")
    return cidrs


# Nearly all pods ask for the same rules; what others ask for is theirs to choose, so there is a bound.
@functools.lru_cache(maxsize=256)
def rendered(wanted: Interception) -> str:
    """The script of the init container for `wanted`; raises UserError, which names the annotation."""
    ports, ports_or_all = interception.parse_ports, interception.parse_ports_or_all
    return render_script(
        InterceptionConfig(
            include_inbound_ports=ports_or_all(annotation_of("include_inbound_ports"), wanted.include_inbound_ports),
            exclude_inbound_ports=ports(annotation_of("exclude_inbound_ports"), wanted.exclude_inbound_ports),
            include_outbound_ports=ports_or_all(annotation_of("include_outbound_ports"), wanted.include_outbound_ports),
            exclude_outbound_ports=ports(annotation_of("exclude_outbound_ports"), wanted.exclude_outbound_ports),
            include_outbound_cidrs=interception.parse_networks_or_all(
                annotation_of("include_outbound_cidrs"), wanted.include_outbound_cidrs
            ),
            exclude_outbound_cidrs=interception.parse_networks(
                annotation_of("exclude_outbound_cidrs"), wanted.exclude_outbound_cidrs
            ),
            exclude_interfaces=interception.parse_interfaces(
                annotation_of("exclude_interfaces"), wanted.exclude_interfaces
            ),
            exclude_uids=interception.parse_ids(annotation_of("exclude_uids"), wanted.exclude_uids),
            outbound_port=wanted.outbound_port,
            inbound_mode=InboundMode.TPROXY if wanted.tproxy else InboundMode.REDIRECT,
        )
    )
