"""Choosing a provider: nothing is ever cloned, built or written behind the user's back."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mesh.errors import UserError
from pqtls.provider_cryptography import PROVIDER
from proxy.providers import LiboqsAbsent, choose_provider, find_library, load_liboqs

PROJECT = Path(__file__).parents[2]
_WRAPPER = importlib.util.find_spec("oqs") is not None

# Runs load_liboqs while every process that is started, and every import of `oqs`, is written down.
_WATCHED = """
import json, os, sys

seen = {"started": [], "opened_for_writing": []}

def watch(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork"):
        seen["started"].append(str(arguments[:2]))
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen["opened_for_writing"].append(str(arguments[0]))
    if event in ("os.mkdir", "shutil.rmtree"):
        seen["opened_for_writing"].append(str(arguments[0]))

sys.addaudithook(watch)
import ctypes.util
from proxy.providers import LiboqsAbsent, choose_provider, load_liboqs
from mesh.errors import UserError
ABSENT = {absent}
if ABSENT:
    # The linker's cache of this machine, which the test must not depend on.
    ctypes.util.find_library = lambda name: None
try:
    provider = load_liboqs(os.environ)
    result = provider.name
except LiboqsAbsent as reason:
    result = str(reason)
try:
    choose_provider("liboqs", os.environ)
    chosen = "liboqs"
except UserError as error:
    chosen = str(error)
print(json.dumps(seen | {"result": result, "chosen": chosen, "imported": "oqs" in sys.modules}))
"""


def _run(home: Path, *, absent: bool, **environment: str) -> dict[str, Any]:
    variables = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED.replace("{absent}", str(absent))],
        cwd=PROJECT,
        env=variables | environment,
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_cryptography_is_chosen_by_its_name() -> None:
    assert choose_provider("cryptography", {}) is PROVIDER


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no crypto provider 'openssl'; choose one of cryptography, liboqs"):
        choose_provider("openssl", {})


@pytest.mark.skipif(not _WRAPPER, reason="liboqs-python is not installed")
def test_without_the_library_absence_is_one_line_and_nothing_is_imported_started_or_written(tmp_path: Path) -> None:
    seen = _run(tmp_path, absent=True)
    assert seen["result"].startswith("no liboqs shared library is installed")
    assert "\n" not in seen["result"]
    assert seen["chosen"] == f"the provider liboqs cannot be used: {seen['result']}"
    assert seen["imported"] is False
    assert seen["started"] == []
    assert seen["opened_for_writing"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not _WRAPPER, reason="liboqs-python is not installed")
def test_with_a_library_that_is_none_the_wrapper_is_not_imported(tmp_path: Path) -> None:
    library = tmp_path / "install" / "lib" / "liboqs.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    seen = _run(tmp_path, absent=True, OQS_INSTALL_PATH=str(tmp_path / "install"))
    assert seen["result"].startswith(f"{library} cannot be loaded: ")
    assert seen["imported"] is False
    assert seen["started"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["install"]


@pytest.mark.skipif(not _WRAPPER, reason="liboqs-python is not installed")
def test_with_a_library_that_the_wrapper_cannot_use_nothing_is_cloned_or_built(tmp_path: Path) -> None:
    """The library loads but is another one, so that liboqs-python would turn to its installer."""
    other = next(iter(Path("/lib/x86_64-linux-gnu").glob("libz.so.1")), None)
    if other is None:
        pytest.skip("no libz to stand in for a wrong library")
    library = tmp_path / "install" / "lib" / "liboqs.so"
    library.parent.mkdir(parents=True)
    library.symlink_to(other)
    seen = _run(tmp_path, absent=True, OQS_INSTALL_PATH=str(tmp_path / "install"))
    assert seen["result"].startswith(f"liboqs-python does not work with {library}: ")
    assert "\n" not in seen["result"]
    assert [start for start in seen["started"] if "git" in start or "cmake" in start] == []
    assert [path.name for path in tmp_path.iterdir()] == ["install"]


def test_the_real_library_is_loaded_without_starting_git_or_cmake(tmp_path: Path) -> None:
    install = os.environ.get("OQS_INSTALL_PATH")
    if not _WRAPPER or not install or find_library({"OQS_INSTALL_PATH": install}) is None:
        pytest.skip("no liboqs: set OQS_INSTALL_PATH and install liboqs-python")
    seen = _run(tmp_path, absent=False, OQS_INSTALL_PATH=install)
    assert (seen["result"], seen["chosen"], seen["imported"]) == ("liboqs", "liboqs", True)
    assert [start for start in seen["started"] if "git" in start or "cmake" in start] == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_wrapper_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(LiboqsAbsent, match=r"liboqs-python is not installed \(pip install 'qbitel-mesh\[liboqs\]'\)"):
        load_liboqs({})


def test_the_library_is_looked_for_where_the_wrapper_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _name: None)
    assert find_library({"HOME": str(tmp_path)}) is None
    assert find_library({}) is None
    for folder, environment in (("_oqs", {"HOME": str(tmp_path)}), ("x", {"OQS_INSTALL_PATH": str(tmp_path / "x")})):
        library = tmp_path / folder / "lib64" / "liboqs.so"
        library.parent.mkdir(parents=True)
        library.touch()
        assert find_library(environment) == str(library)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.9" if name == "oqs" else None)
    assert find_library({"HOME": str(tmp_path)}) == "liboqs.so.9"


def test_choosing_liboqs_changes_neither_environment_nor_logging() -> None:
    before, level = dict(os.environ), logging.root.manager.disable
    try:
        choose_provider("liboqs", os.environ)
    except UserError as error:
        assert "the provider liboqs cannot be used" in str(error)
    assert dict(os.environ) == before
    assert logging.root.manager.disable == level
