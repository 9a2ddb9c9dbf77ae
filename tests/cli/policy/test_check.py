"""`qbitel policy check`: the line that is wrong."""

from __future__ import annotations

import io
import sys
import types

import pytest

from cli.policy.check import line_of
from mesh.documents import Problem
from tests.cli.policy.conftest import Folder, Policy
from tests.mesh.written import allow, resource, rule, strict


def test_sound_policies_are_told_to_be_so(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), allow("shop/web", "[{}]"))
    folder.write("b.yaml", resource("Service", "shop/web", "{ports: [{port: 80}]}"))

    assert policy.says(0, "check", folder.path) == (
        "2 files, 2 resources (and 1 that govern nothing): nothing is wrong\n"
    )
    assert policy.data(0, "check", folder.path) == {
        "ok": True,
        "files": 2,
        "resources": {"AuthorizationPolicy": 1, "PeerAuthentication": 1},
        "others": {"Service": 1},
        "errors": 0,
        "warnings": 0,
        "problems": [],
    }


def test_an_error_has_file_line_and_field(policy: Policy, folder: Folder) -> None:
    file = folder.write("a.yaml", "# shop\n", resource("PeerAuthentication", "shop/default", "{mtls: {mode: STRIKT}}"))

    output = policy.says(1, "check", folder.path)
    assert output.startswith(f"{file}:6: error: PeerAuthentication shop/default: spec.mtls.mode: ")
    assert output.endswith("1 file, 1 resource: 1 error\n")
    (problem,) = policy.data(1, "check", folder.path)["problems"]
    assert (problem["source"], problem["line"], problem["field"]) == (str(file), 6, "spec.mtls.mode")


def test_what_contradicts_itself_across_files_is_found(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict())
    file = folder.write("b.yaml", rule("shop/web", "web", "{tls: {mode: DISABLE}}"))

    assert (
        f"{file}:4: error: DestinationRule shop/web: spec.trafficPolicy.tls.mode: callers dial DISABLE"
        in policy.says(1, "check", folder.path)
    )


def test_warnings_are_wrong_where_that_is_asked_for(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", strict(), allow("shop/web", "[{from: [{source: {requestPrincipals: ['*']}}]}]"))

    output = policy.says(0, "check", folder.path)
    assert ": warning: AuthorizationPolicy shop/web: spec.rules: asks for a token" in output
    policy.says(1, "check", folder.path, "--strict")


def test_notes_can_be_left_out(policy: Policy, folder: Folder) -> None:
    folder.write("a.yaml", resource("PeerAuthentication", "shop/a", "{}").replace("namespace: shop, ", ""))

    assert ": note: " in policy.says(0, "check", folder.path)
    assert ": note: " not in policy.says(0, "check", folder.path, "-q")


def test_a_text_that_is_no_yaml_is_an_error_and_the_rest_is_checked(policy: Policy, folder: Folder) -> None:
    first = folder.write("a.yaml", "a: [\n")
    second = folder.write("b.yaml", resource("PeerAuthentication", "shop/a", "{mtls: 3}"))

    output = policy.says(1, "check", folder.path)
    assert f"{first}:1: error: no YAML: " in output
    assert f"{second}:4: error: PeerAuthentication shop/a: spec.mtls: " in output


def test_folders_files_and_standard_input_are_taken_together(
    policy: Policy, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.write("a.yaml", strict())
    text = io.BytesIO(strict("other/default").encode())
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=text))

    assert policy.data(0, "check", file, "-")["files"] == 2


def test_a_place_that_is_none_is_one_line(policy: Policy, folder: Folder) -> None:
    assert policy("check").refusal == "qbitel policy: say where the policies are: a folder, a file, - or --cluster"
    assert "does not exist" in policy("check", folder.path).refusal


def test_a_folder_without_policies_is_not_called_good(policy: Policy, folder: Folder) -> None:
    Folder(folder.path.parent).write("notes.txt", "nothing")

    assert "there is no .yaml, .yml or .json file in " in policy("check", folder.path.parent).refusal


def test_a_problem_is_told_as_compilers_do() -> None:
    assert line_of(Problem("a.yaml", 3, "spec", "K n", "odd", "warning")) == "a.yaml:3: warning: K n: spec: odd"
    assert line_of(Problem("a.yaml", 0, "", "", "odd")) == "a.yaml: error: odd"
    assert line_of(Problem("", 0, "", "", "odd", "note")) == "note: odd"
