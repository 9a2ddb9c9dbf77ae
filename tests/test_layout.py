"""The rules of the house that a machine can keep, beside those of import-linter (`make contracts`).

To change a rule, change its table: DOORS for third parties, NOT_IN_A_LIBRARY for what a library must do
without, PUBLIC_SURFACE for what pqtls promises to its users.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pqtls

PROJECT: Final = Path(__file__).parents[1]
DISTRIBUTION: Final = "qbitel-mesh"
LIBRARIES: Final = ("pqtls", "mesh")
ROOMS: Final = (
    *(*LIBRARIES, "aiotls", "kube", "httpd"),
    *("proxy", "init", "injector", "certmgr", "control", "cli", "ai_engine"),
)
# The façade's outer levels are namespace packages, which import-linter does not take and which have no py.typed.
INNER_PACKAGE: Final = {"ai_engine": "ai_engine.cloud_native.service_mesh.istio"}

# Who may import what is not ours and not the standard library's: patterns of paths from the project's root.
DOORS: Final = {
    "cryptography": [
        "pqtls/provider_cryptography.py",
        "pqtls/provider_liboqs.py",  # the types of its keys, which liboqs takes over
        *("pqtls/certificates.py", "pqtls/trust.py", "pqtls/x509_reading.py"),
        "certmgr/*",
        "proxy/enrolment.py",  # a key and a CSR
        "injector/serving_certificate.py",  # when it ends
    ],
    "pyroute2": ["init/addresses.py", "init/policy_routing.py", "init/routes.py", "cli/demo/*"],
    "uvloop": ["proxy/loop.py"],
    "prometheus_client": [
        *("proxy/metrics.py", "proxy/status.py", "proxy/policy/metrics.py", "proxy/peers/metrics.py"),
        *("certmgr/metrics.py", "injector/metrics.py", "control/discovery/metrics.py", "httpd/status.py"),
        "cli/checks/exposition.py",  # what sidecars' metrics say
    ],
    "aiohttp": [
        *("httpd/connection.py", "httpd/site.py", "httpd/status.py"),
        *("certmgr/api.py", "certmgr/connections.py", "certmgr/https.py", "certmgr/server.py"),
        "kube/client.py",
        *("injector/webhook.py", "injector/connections.py", "injector/serving.py"),
        "cli/demo/*",
    ],
    "h11": ["proxy/authority.py", "proxy/authority_connection.py", "proxy/probes/http_get.py"],
    "kubernetes_asyncio": ["kube/client.py"],
    "yaml": [
        *("mesh/documents.py", "mesh/yaml_values.py"),
        *("injector/text_edits.py", "injector/manifest.py"),  # where in a text each value stands
    ],
    "jwcrypto": ["mesh/jwt.py", "mesh/jwks.py"],
}
# What an extra of the distribution brings, and the parts that alone may need it: everything else works without.
EXTRAS: Final = {
    "kubernetes_asyncio": (
        "kubernetes",
        (
            *("kube", "certmgr.kubernetes", "control.cluster", "control.discovery"),
            *("cli.checks.asking", "cli.checks.gathering", "cli.checks.scraping", "cli.checks.trial"),
        ),
    )
}

# A library is given what it needs. The modules that would let it take something by itself:
NOT_IN_A_LIBRARY: Final = frozenset(
    {
        *("asyncio", "fcntl", "http", "logging", "multiprocessing", "pathlib", "random", "select", "selectors"),
        *("shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"),
    }
)
# liboqs has one source of randomness for the whole process: whoever borrows it locks the others out meanwhile.
EXCEPTIONS: Final = frozenset({("pqtls/provider_liboqs.py", "threading")})
# … and the same hidden behind a module or a name that a library may have.
ENVIRONMENT: Final = frozenset({"environ", "environb", "getenv", "getenvb"})
CLOCK: Final = frozenset({"now", "utcnow", "today"})
IO_BUILTINS: Final = frozenset({"open", "print", "input", "breakpoint"})

PUBLIC_SURFACE: Final = [
    "PROFILES",
    "Alert",
    "AlertReceived",
    "ApplicationData",
    "CertificateRefused",
    "ChainCache",
    "ClientAuthentication",
    "ClientConfig",
    "ClientConnection",
    "ConfigurationError",
    "Connection",
    "Credential",
    "DecodeError",
    "Event",
    "HandshakeCompleted",
    "IdentityRefused",
    "MisuseError",
    "NegotiationRefused",
    "NotTls",
    "PeerClosed",
    "PeerError",
    "PeerKeysUpdated",
    "Profile",
    "ProtocolViolation",
    "ServerConfig",
    "ServerConnection",
    "Session",
    "SessionReceived",
    "TicketKeeper",
    "TlsError",
    "TruncatedStream",
    "TrustAnchors",
    "sealed_size",
]


def sources(*rooms: str) -> list[str]:
    """Every source file of `rooms` as a path from the project's root."""
    return sorted(str(path.relative_to(PROJECT)) for room in rooms for path in (PROJECT / room).rglob("*.py"))


def parsed(path: str) -> ast.Module:
    return ast.parse((PROJECT / path).read_text(encoding="utf-8"), path)


# Source files and their tests


def test_each_source_file_has_its_test_file() -> None:
    missing = [
        f"{path} wants {test}"
        for path in sources(*ROOMS)
        if (test := its_test(path)) and not (PROJECT / test).is_file()
    ]

    assert not missing, "\n".join(missing)


def its_test(path: str) -> str | None:
    """The test file of a source file; a package's `__init__.py` holds no logic that wants one."""
    source = Path(path)
    if source.name == "__init__.py":
        return None
    return str(Path("tests") / source.parent / f"test_{source.name}")


def test_every_room_is_seen_by_each_tool() -> None:
    settings = pyproject()

    assert {pattern.rstrip("*") for pattern in settings["setuptools"]["packages"]["find"]["include"]} == set(ROOMS)
    assert set(settings["mypy"]["packages"]) == set(ROOMS)
    packages = {INNER_PACKAGE.get(room, room) for room in ROOMS}
    assert set(settings["importlinter"]["root_packages"]) == packages
    for package in packages:
        assert (PROJECT / package.replace(".", "/") / "py.typed").is_file()


def pyproject() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return settings


# Imports


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """The full name of each module that a file imports, wherever in it; relative imports stay within a room."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module


def third_parties(tree: ast.Module) -> set[str]:
    top_levels = {name.partition(".")[0] for name in imported_modules(tree)}
    return top_levels - sys.stdlib_module_names - set(ROOMS)


def doors_missed(path: str, tree: ast.Module) -> list[str]:
    return [
        f"{path} imports {package}, whose doors are {DOORS.get(package, [])}"
        for package in sorted(third_parties(tree))
        if not any(fnmatch.fnmatchcase(path, door) for door in DOORS.get(package, []))
    ]


def test_each_third_party_comes_in_through_its_door() -> None:
    assert [fault for path in sources(*ROOMS) for fault in doors_missed(path, parsed(path))] == []


def test_each_third_party_is_a_dependency_that_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    imported = {name for path in sources(*ROOMS) for name in third_parties(parsed(path))}

    assert [
        f"{name} is not declared"
        for name in imported
        for distribution in distributions[name]
        if canonical(distribution) not in declared(EXTRAS[name][0] if name in EXTRAS else None)
    ] == []


def declared(extra: str | None) -> set[str]:
    """The distributions that an extra brings; None: those that are always there."""
    marker = re.compile(r"extra == ['\"]" + (extra or "") + r"['\"]")
    return {
        canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
        for requirement in importlib.metadata.requires(DISTRIBUTION) or []
        if ("extra ==" not in requirement if extra is None else marker.search(requirement))
    }


def test_what_comes_with_an_extra_is_imported_only_where_it_is_asked_for() -> None:
    assert [
        f"{path} imports {package} when it is itself imported"
        for _, packages in EXTRAS.values()
        for package in packages
        for path in sources(*ROOMS)
        if not path.removesuffix(".py").replace("/", ".").startswith(packages)
        for name in modules_imported_at_once(parsed(path))
        if f"{name}.".startswith(f"{package}.")
    ] == []


def modules_imported_at_once(tree: ast.Module) -> Iterator[str]:
    """The modules, and the names from them, that a file imports outside of functions."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from certmgr import kubernetes", ["certmgr.kubernetes"]),
        ("import certmgr.kubernetes.parts", ["certmgr.kubernetes.parts"]),
        ("def f():\n    from certmgr.kubernetes import parts", []),
    ],
)
def test_the_rule_of_extras_finds_what_it_looks_for(code: str, names: list[str]) -> None:
    assert list(modules_imported_at_once(ast.parse(code))) == names


def canonical(distribution: str) -> str:
    """One spelling for prometheus-client and prometheus_client."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize(
    ("path", "code", "faults"),
    [
        ("certmgr/files.py", "from cryptography import x509", 0),
        ("pqtls/client.py", "from cryptography import x509", 1),
        ("pqtls/client.py", "def f():\n    import cryptography.x509", 1),
        ("pqtls/client.py", "import requests", 1),
        ("pqtls/client.py", "import socket\nfrom mesh import names\nfrom . import wire", 0),
    ],
)
def test_the_rule_of_doors_finds_what_it_looks_for(path: str, code: str, faults: int) -> None:
    assert len(doors_missed(path, ast.parse(code))) == faults


# Libraries


def outside_effects(path: str, tree: ast.Module) -> list[str]:
    """Where a file reaches for a socket, a file, a clock, the environment or a thread."""
    faults = [
        f"{path} imports {name}"
        for name in imported_modules(tree)
        if name.split(".")[0] in NOT_IN_A_LIBRARY and (path, name) not in EXCEPTIONS
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in ENVIRONMENT:
                faults.append(f"{path}:{node.lineno} reads os.{name}")
            case ast.ImportFrom(module="os", names=names) if ENVIRONMENT & {alias.name for alias in names}:
                faults.append(f"{path}:{node.lineno} imports the environment")
            case ast.Call(func=ast.Name(id=name)) if name in IO_BUILTINS:
                faults.append(f"{path}:{node.lineno} calls {name}()")
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date"), attr=name
                )
            ) if name in CLOCK:
                faults.append(f"{path}:{node.lineno} reads the clock")
    return faults


def test_the_libraries_are_given_what_they_need() -> None:
    assert [fault for path in sources(*LIBRARIES) for fault in outside_effects(path, parsed(path))] == []


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("import socket", 1),
        ("import asyncio.events", 1),
        ("from pathlib import Path", 1),
        ("def f():\n    import time", 1),
        ("import os\nos.environ['A']", 1),
        ("import os\nos.getenv('A')", 1),
        ("from os import environ", 1),
        ("import datetime\ndatetime.datetime.now(datetime.UTC)", 1),
        ("from datetime import datetime\ndatetime.utcnow()", 1),
        ("import datetime\ndatetime.date.today()", 1),
        ("open('/etc/passwd')", 1),
        ("print(1)", 1),
        ("import os\nos.urandom(32)", 0),
        ("self.config.now()", 0),
        ("import datetime, struct, hashlib\ndatetime.timedelta(1)", 0),
    ],
)
def test_the_rule_of_libraries_finds_what_it_looks_for(code: str, faults: int) -> None:
    assert len(outside_effects("pqtls/some.py", ast.parse(code))) == faults


# What the outside sees


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_s_generic_name_belongs_to_us_alone(room: str) -> None:
    """`proxy`, `init` and `cli` are names that another distribution could bring: it would shadow ours or be
    shadowed.
    """
    assert set(importlib.metadata.packages_distributions()[room]) == {DISTRIBUTION}


def test_the_public_surface_of_pqtls_is_what_was_promised() -> None:
    assert sorted(pqtls.__all__) == sorted(PUBLIC_SURFACE)
    assert [name for name in PUBLIC_SURFACE if not hasattr(pqtls, name)] == []
