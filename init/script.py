"""A plan as a POSIX shell script that applies it in an init container without Python. Pure.

An interpreter alone takes more memory and time than the whole step should. So the rules are rendered here, where it is
cheap, and what runs in the pod only finds out what nobody can know before: the back end, IPv6, what stands already.
interception.sh has that part; what is rendered comes before it, as variables.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from importlib import resources
from typing import Final

from init import istio
from init.backend import LOCK_WAIT
from init.config import InboundMode, InterceptionConfig
from init.foreign import FOREIGN_MESHES, FOREIGN_TABLES
from init.guard import GUARD, GUARD_TABLE
from init.plan import MARK, make_plan
from init.render import rule_text
from init.rules import PREFIX, Family, Jump, Plan, Rule
from mesh import names
from mesh.errors import UserError

# One argument of a process may have 128 KiB (MAX_ARG_STRLEN, execve(2)), and `sh -c` gets the script as one.
LARGEST: Final = 120 * 1024  # bytes
_SHARED: Final = "interception.sh"


def render_script(config: InterceptionConfig, *, reconcile: bool = False) -> str:
    """Return the script; with `reconcile` it removes the interception of other meshes, else it refuses such a pod.

    It is ASCII, at most LARGEST bytes, and safe as an argument in a pod's `command` (nothing in it looks like a
    variable of Kubernetes). Raises UserError where the configuration has too many rules for that.
    """
    rendered = "\n".join(
        [
            "#!/bin/sh",
            "# Sends the traffic of a pod through its sidecar. Rendered by `qbitel init --script`.",
            *_settings(config, reconcile=reconcile),
            *_meshes(),
            *_guard(),
            *(line for family in Family for line in _plan(make_plan(config, family))),
            "",
        ]
    )
    text = rendered + resources.files("init").joinpath(_SHARED).read_text(encoding="ascii")
    if len(text) > LARGEST:
        raise UserError(
            f"these rules make a script of {len(text)} bytes, and a container takes {LARGEST}; use wider networks or "
            "port ranges, or run `qbitel init` itself in the init container"
        )
    return text


def _settings(config: InterceptionConfig, *, reconcile: bool) -> list[str]:
    source = ipaddress.ip_address(names.INBOUND_SOURCE_V6)
    values = {
        "default_ipv6": config.ipv6.value,
        "default_backend": config.backend.value,
        "reconcile": "yes" if reconcile else "",
        "lock_wait": LOCK_WAIT,
        "source_address": f"{source}/128",
        "source_as_hex": source.packed.hex(),
        "routed": "yes" if config.inbound_mode is InboundMode.TPROXY else "",
        "routed_mark": f"{names.TPROXY_MARK:#x}",
        "routed_table": names.TPROXY_TABLE,
        "routed_priority": names.TPROXY_PRIORITY,
        "istio_mark": f"{istio.ROUTED_MARK:#x}",
        "istio_table": istio.ROUTED_TABLE,
        "mark_chain": MARK,
        # iptables' own tables: every one that rules of a mesh could be left in.
        "every_table": "\n".join(("raw", "mangle", "nat", "filter", "security")),
    }
    return [_assignment(name, str(value)) for name, value in values.items()]


def _meshes() -> list[str]:
    by_prefix = (("name_mesh", {PREFIX: "ours", **FOREIGN_MESHES}), ("name_table", FOREIGN_TABLES))
    lines = []
    for function, meshes in by_prefix:
        lines += _cases(function, {f"{prefix}*": mesh for prefix, mesh in meshes.items()})
    istios = {**dict.fromkeys(istio.DIRECT, FOREIGN_MESHES[istio.PREFIX]), **dict.fromkeys(istio.BESIDE, "beside")}
    return [*lines, *_cases("name_rule", istios)]


def _cases(function: str, meshes: Mapping[str, str]) -> list[str]:
    """A function that sets $mesh by the first of these patterns that its argument fits."""
    cases = ["    {}) mesh={} ;;".format(pattern.replace(" ", "\\ "), mesh) for pattern, mesh in meshes.items()]
    return [f"{function}() {{", "    case $1 in", *cases, "    *) mesh= ;;", "    esac", "}"]


def _guard() -> list[str]:
    (chain,) = GUARD_TABLE.chains
    return [
        _assignment("guard_chain", GUARD),
        _assignment("guard_rules", _lines(chain.name, chain.rules)),
        _assignment("guard_jumps", _jumps(GUARD_TABLE.jumps)),
    ]


def _plan(plan: Plan) -> list[str]:
    """The plan of one IP version: for each table its chains, their rules, and the jumps into them."""
    version = plan.family.version
    lines = [f"size_of_0=0 size_of_{version}={plan.rules}"]
    for table in plan.tables:
        chains = "".join(f"{chain.name}\n" for chain in table.chains)
        lines.append(_assignment(f"chains_{version}_{table.name}", chains))
        lines += [
            _assignment(f"rules_{version}_{table.name}_{chain.name}", _lines(chain.name, chain.rules))
            for chain in table.chains
        ]
        lines.append(_assignment(f"jumps_of_{version}_{table.name}", _jumps(table.jumps)))
    return lines


def _jumps(jumps: tuple[Jump, ...]) -> str:
    return "".join(_lines(jump.hook, (jump.rule,)) for jump in jumps)


def _lines(chain: str, rules: tuple[Rule, ...]) -> str:
    return "".join(f"-A {chain} {rule_text(rule)}\n" for rule in rules)


def _assignment(name: str, value: str) -> str:
    # Rules are our own words, and numbers, networks and interfaces that were checked: no quotes, which are escaped
    # none the less.
    escaped = value.replace("'", "'\\''")
    return f"{name}='{escaped}'"
