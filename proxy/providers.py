"""Choosing the provider of the primitives: `cryptography`, or liboqs where its library is really there.

liboqs-python clones and builds liboqs when it is imported without the library. Nothing of ours may start that, so the
library is looked for, and loaded, before liboqs-python is imported; and while it is imported, its
installer is disarmed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mesh.errors import UserError
from pqtls.provider import CryptoProvider
from pqtls.provider_cryptography import PROVIDER
from pqtls.provider_liboqs import LiboqsProvider, UnusableLibraryError

PROVIDER_NAMES: Final = ("cryptography", "liboqs")
# liboqs-python reads the version to build from here; it refuses what is no version, before it does anything.
_INSTALLER_SWITCH: Final = "PYOQS_VERSION"


class LiboqsAbsent(Exception):
    """There is no usable liboqs. The message is one line that says why."""


def choose_provider(name: str, environment: Mapping[str, str]) -> CryptoProvider:
    """The provider that a user named, or UserError."""
    if name == "cryptography":
        return PROVIDER
    if name != "liboqs":
        raise UserError(f"there is no crypto provider {name!r}; choose one of {', '.join(PROVIDER_NAMES)}")
    try:
        return load_liboqs(environment)
    except LiboqsAbsent as reason:
        raise UserError(f"the provider liboqs cannot be used: {reason}") from None


def load_liboqs(environment: Mapping[str, str]) -> LiboqsProvider:
    """The provider over liboqs; raises LiboqsAbsent where the package or its library is missing."""
    if importlib.util.find_spec("oqs") is None:
        raise LiboqsAbsent("liboqs-python is not installed (pip install 'qbitel-mesh[liboqs]')")
    library = find_library(environment)
    if library is None:
        raise LiboqsAbsent(
            "no liboqs shared library is installed; install one, or name its folder's parent in OQS_INSTALL_PATH"
        )
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise LiboqsAbsent(f"{library} cannot be loaded: {error}") from None
    try:
        with _disarmed_installer(), _quiet():
            oqs = importlib.import_module("oqs")
        return LiboqsProvider(oqs)
    except (ImportError, ValueError, RuntimeError, AttributeError, UnusableLibraryError) as error:
        raise LiboqsAbsent(f"liboqs-python does not work with {library}: {error}") from None


def find_library(environment: Mapping[str, str]) -> str | None:
    """The shared library where liboqs-python looks for it, in its order."""
    for name in ("oqs", "liboqs"):
        found = ctypes.util.find_library(name)
        if found:
            return found
    home = environment.get("OQS_INSTALL_PATH") or f"{environment.get('HOME', '/nonexistent')}/_oqs"
    for folder in ("lib", "lib64"):
        library = Path(home) / folder / "liboqs.so"
        if library.is_file():
            return str(library)
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """liboqs-python logs to stdout, and warns when the versions of wrapper and library differ.

    What a user must know of it, LiboqsProvider checks by itself.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _disarmed_installer() -> Iterator[None]:
    before = os.environ.get(_INSTALLER_SWITCH)
    os.environ[_INSTALLER_SWITCH] = "never"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_INSTALLER_SWITCH]
        else:
            os.environ[_INSTALLER_SWITCH] = before
