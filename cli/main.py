"""The `qbitel` command: finds the subcommand, and turns what a user can mend into one line and exit code 2."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Final

from cli.arguments import EXIT_USAGE
from mesh.errors import UserError

# One module per subcommand, imported only when it is called: the init container must not pay for the proxy's imports.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("cli.demo.command", "prove the product on this machine: two pods, two sidecars, real traffic"),
    "proxy": ("cli.proxy", "run the sidecar of a pod"),
    "status": ("cli.status", "show a running sidecar's connections, tunnels, certificates, configuration"),
    "tunnel": ("cli.tunnel", "run one explicit tunnel: plain TCP on one side, TLS on the other"),
    "init": ("cli.init", "apply, check or remove the interception rules of a pod"),
    "inject": ("cli.inject", "put the sidecar into the pods of manifests, or say what would happen to them and why"),
    "uninject": ("cli.uninject", "take the sidecar out of manifests again"),
    "injector": ("cli.injector", "run the webhook that puts the sidecar into pods"),
    "wait": ("cli.wait", "wait until the sidecar of this pod is ready, or has nothing left to do"),
    "ca": ("cli.ca.command", "make and run certificate authorities, look at and judge certificates"),
    "certmgr": ("cli.certmgr", "run the mesh's certificate authority as a service"),
    "discovery": ("cli.discovery", "bring policies and peers to the sidecars of a cluster"),
    "policy": ("cli.policy.command", "write, check, explain and compare the policies that govern a mesh"),
    "check": ("cli.check", "say what of this machine, a cluster and its mesh, or manifests is as it ought to be"),
    "bench": ("cli.bench", "measure the cryptography on this machine"),
}
# 128 + the signal: what a shell reports for a program that Ctrl-C, or a closed pipe, ended.
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `qbitel` with `arguments` (default: those of the process) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = f"qbitel {words[0]}" if words and words[0] in COMMANDS else "qbitel"
    try:
        code = _run(words)
        sys.stdout.flush()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`qbitel … | head`). What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # What no command foresaw: a disk that is full, a device that fails.
        print(f"{name}: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _run(words: list[str]) -> int:
    match words:
        case []:
            print(_help())
            return EXIT_USAGE
        case ["-h" | "--help" | "help", *_]:
            print(_help())
            return 0
        case ["-V" | "--version" | "version", *_]:
            print(f"qbitel {importlib.metadata.version('qbitel-mesh')}")
            return 0
        case [command, *rest] if command in COMMANDS:
            code: int = importlib.import_module(COMMANDS[command][0]).main(rest)
            return code
    raise UserError(f"{words[0]!r} is no command; there are: {', '.join(COMMANDS)}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: qbitel COMMAND …",
            "",
            "Post-quantum safe TCP between pods: TLS 1.3 with X25519 + ML-KEM-1024, ML-DSA-87 identities.",
            "",
            *lines,
            "",
            "Each command has its own --help.",
        ]
    )
