"""docs/installation.md, held against what it tells of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from mesh import names
from mesh.documents import read_documents
from mesh.modes import MTLSMode
from mesh.resources import ResourceSet
from tests.deploy.installation import PROJECT, by_identity, manifests
from tests.deploy.test_arguments import parsed
from tests.deploy.test_chart import VALUES, leaves

DOCUMENT = PROJECT / "docs" / "installation.md"
TEXT = DOCUMENT.read_text()


def lines_of_code() -> Iterator[str]:
    """Each command, in a block or within a sentence, without the comment behind it."""
    text = TEXT.replace("\\\n", " ")
    for line in re.findall(r"^(?: {4}| {7})(\S.*)$", text, re.MULTILINE):
        yield re.sub(r"\s{2,}#.*", "", line)
    yield from re.findall(r"`([^`\n]+)`", text)


COMMANDS = sorted(set(lines_of_code()))
OURS = [line for line in COMMANDS if line.startswith("qbitel ")]


def test_the_document_has_the_commands_that_are_looked_for_here() -> None:
    assert {"qbitel check", "qbitel check --pre", "qbitel ca init --kubernetes --if-absent"} <= set(OURS)
    assert sum(line.startswith("kubectl ") for line in COMMANDS) > 10


@pytest.mark.parametrize("line", OURS)
def test_our_own_commands_exist_with_their_flags(line: str) -> None:
    parsed(shlex.split(line)[1:])


def test_what_kubectl_is_told_to_look_at_is_there() -> None:
    found = {(kind.lower(), name) for kind, name in by_identity(manifests())}
    named = set(re.findall(r"\b(statefulset|deployment)/([a-z-]+)", TEXT))
    named |= set(re.findall(r"\b(mutatingwebhookconfiguration) ([a-z-]+)", TEXT))
    assert len(named) == 4
    assert named <= found
    configured = set(re.findall(r"metadata\.name=([a-z-]+)", TEXT))
    assert configured == {names.ROOTS_CONFIG_MAP}
    for name in (names.MESH_CONFIG_MAP, "qbitel-authority", names.CONTROL_NAMESPACE, names.NAMESPACE_LABEL):
        assert name in TEXT


def test_files_and_documents_that_it_names_exist() -> None:
    for name in {line.rstrip("`") for line in re.findall(r"\bdeploy/[a-z./-]+", TEXT)}:
        assert (PROJECT / name).exists(), name
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert (DOCUMENT.parent / target).is_file(), target


def test_sections_that_it_leads_to_exist() -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", TEXT):
        text = (DOCUMENT.parent / file).read_text() if file else TEXT
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}
        assert anchor in anchors, f"{file}#{anchor}"


def test_the_table_of_values_is_the_chart_s() -> None:
    table = TEXT[TEXT.index("| value | default | |") :].split("\n\n")[0]
    told = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    there = set(leaves(VALUES))
    assert [name for name in told if not any(f"{leaf}.".startswith(f"{name}.") for leaf in there)] == []
    assert [leaf for leaf in there if not any(f"{leaf}.".startswith(f"{name}.") for name in told)] == []


def test_the_policy_that_lets_everybody_leave_is_one() -> None:
    (literal,) = re.findall(r"--from-literal=\S+?='(.*)'", TEXT)
    documents, problems = read_documents(literal.encode(), "leaving")
    resources = ResourceSet.of(documents, root_namespace=names.CONTROL_NAMESPACE)
    assert (problems, resources.problems) == ((), ())
    (policy,) = resources.peer_authentications
    assert (policy.metadata.namespace, policy.mode) == (names.CONTROL_NAMESPACE, MTLSMode.PERMISSIVE)
    assert f"configmap leaving {names.POLICY_LABEL}=true" in TEXT
