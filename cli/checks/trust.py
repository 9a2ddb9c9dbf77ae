"""What pods are told: the authority's roots and revocation lists, and the discovery program's policies and peers."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from certmgr.wording import ends
from cli.checks.certificates import Seen, seen
from cli.checks.control import has_discovery
from cli.checks.facts import ClusterFacts, Published
from cli.checks.findings import Check, Finding, Group, Unknown, failure, passed, several, skipped, warning
from mesh import names
from mesh.documents import Problem, read_documents
from mesh.resources import ResourceSet

# A rotation of the root takes days, and longer where workloads without a sidecar take part.
_SOON: Final = datetime.timedelta(days=60)
# The leader brings 10,000 namespaces up to date within a quarter of an hour, and a list is back-dated by five minutes.
_LATE: Final = datetime.timedelta(minutes=20)
_AUTHORITY_LOG: Final = "look at the log of its leader (check certmgr-leader)"
_DISCOVERY_LOG: Final = "look at the log of its leader (check discovery-leader)"


def check_bundles_present(facts: ClusterFacts) -> Finding:
    """Whether each namespace of the mesh has the trust bundle: its pods cannot start without."""
    bundles, meshed = facts.bundles.value, facts.mesh_namespaces
    items = [f"{one}: there is no ConfigMap {names.ROOTS_CONFIG_MAP}" for one in meshed if one not in bundles]
    items += [
        f"{one}: the ConfigMap {names.ROOTS_CONFIG_MAP} is somebody else's (it lacks the label "
        "app.kubernetes.io/managed-by=qbitel), and the authority leaves it alone"
        for one in meshed
        if one in bundles and not bundles[one].is_ours
    ]
    if items:
        return failure(
            f"{several(len(items), 'namespace')} without the trust bundle",
            f"delete what is somebody else's; the authority makes it within seconds: {_AUTHORITY_LOG}",
            items,
        )
    return passed(f"{several(len(meshed), 'namespace')} of the mesh")


def check_bundles_equal(facts: ClusterFacts) -> Finding:
    """Whether all namespaces have the newest trust bundle."""
    bundles = _bundles(facts)
    newest = _newest(facts)
    old = [namespace for namespace, bundle in bundles.items() if bundle.files != newest.files]
    if not old:
        return passed(f"{several(len(bundles), 'namespace')}, all with the same")
    roots = newest.files.get(names.ROOTS_FILE)
    other_roots = [one for one in old if bundles[one].files.get(names.ROOTS_FILE) != roots]
    if other_roots:
        return failure(
            f"{several(len(other_roots), 'namespace')} with other roots than the rest of the mesh",
            f"they are put right within seconds where the authority can write them: {_AUTHORITY_LOG}",
            other_roots,
        )
    made = min(one.begins for one in _lists(newest, facts))
    if facts.now - made < _LATE:
        return passed(f"a new revocation list is on its way to {several(len(old), 'namespace')}")
    return warning(
        f"{several(len(old), 'namespace')} with an older revocation list",
        f"they are put right within minutes where the authority can write them: {_AUTHORITY_LOG}",
        old,
    )


def check_roots(facts: ClusterFacts) -> Finding:
    """How long the roots last."""
    rotate = "qbitel ca rotate --kubernetes --start makes the next root (docs/operations.md, Replacing the root)"
    return _lasting(facts, names.ROOTS_FILE, "root", rotate)


def check_intermediates(facts: ClusterFacts) -> Finding:
    """How long the intermediates last."""
    renew = (
        "the leader renews it by itself in the last third of its life, where it has the root's key; a root kept off "
        "line wants qbitel ca request, sign, import (docs/operations.md)"
    )
    return _lasting(facts, names.INTERMEDIATES_FILE, "intermediate", renew)


def _lasting(facts: ClusterFacts, file: str, what: str, fix: str) -> Finding:
    found = _in_file(_newest(facts), file, facts)
    newest = max(found, key=lambda one: one.ends)
    told = ends(newest.ends, facts.now)
    if facts.now > newest.ends:
        return failure(f"the {what} {told}: nobody trusts anybody", fix)
    if newest.ends - facts.now < _SOON:
        return warning(f"the {what} {told}", fix)
    old = [f"{one.subject} {ends(one.ends, facts.now)}" for one in found if facts.now > one.ends]
    return passed(f"the {what} {told}" + (f"; beside {several(len(old), 'one', 'older ones')}" if old else ""), old)


def check_revocation(facts: ClusterFacts) -> Finding:
    """Whether the revocation lists are fresh: whoever holds one that is too old lets nobody in."""
    lists = _lists(_newest(facts), facts)
    first = min(lists, key=lambda one: one.ends)
    if facts.now > first.ends:
        return failure(
            f"the revocation list was due to be renewed {ends(first.ends, facts.now).removeprefix('ended ')}",
            f"the leader renews it each 20 minutes, and a day after it was due nobody is let in: {_AUTHORITY_LOG}",
        )
    return passed(f"{several(len(lists), 'list')}; the next is due {ends(first.ends, facts.now).removeprefix('ends ')}")


def check_maps_present(facts: ClusterFacts) -> Finding:
    """Whether each namespace of the mesh has policies and peers."""
    if not has_discovery(facts):
        return skipped("the mesh is installed without the discovery program")
    maps, meshed = facts.mesh_maps.value, facts.mesh_namespaces
    missing = [f"{one}: there is no ConfigMap {names.MESH_CONFIG_MAP}" for one in meshed if one not in maps]
    if missing:
        return failure(
            f"{several(len(missing), 'namespace')} without policies and peers: its pods wait for them",
            f"the discovery program makes it within seconds: {_DISCOVERY_LOG}",
            missing,
        )
    return passed(f"{several(len(meshed), 'namespace')} of the mesh")


def check_maps_fresh(facts: ClusterFacts) -> Finding:
    """Whether the policies that sidecars are told of are those that there are."""
    maps, meshed = facts.mesh_maps.value, set(facts.mesh_namespaces)
    late = []
    for policy in facts.policies.value:
        for namespace in meshed if policy.namespace == facts.control_namespace else meshed & {policy.namespace}:
            written = maps[namespace].written if namespace in maps else None
            changed = policy.changed
            if written and changed and changed - written > _TOLD_WITHIN and facts.now - changed > _TOLD_WITHIN:
                late.append(f"{namespace}: {policy} was changed after its sidecars' copy was written")
    if late:
        return warning(
            f"{several(len(late), 'change')} of policies that sidecars may not have been told of",
            f"{_DISCOVERY_LOG}; a change that has no effect is no reason to worry",
            sorted(late),
        )
    return passed(f"{several(len(facts.policies.value), 'policy', 'policies')}, none newer than what sidecars have")


# The discovery program writes a change within seconds, and an API server under load may take longer.
_TOLD_WITHIN: Final = datetime.timedelta(minutes=2)


def check_policies(facts: ClusterFacts) -> Finding:
    """What is wrong with the policies that sidecars act on."""
    texts = {
        one.texts[names.POLICIES_KEY]: namespace
        for namespace, one in facts.mesh_maps.value.items()
        if one.texts is not None and names.POLICIES_KEY in one.texts and namespace in facts.mesh_namespaces
    }
    if not texts:
        return skipped("no namespace has policies that could be read")
    problems: dict[Problem, None] = {}
    for text, namespace in texts.items():
        documents, unreadable = read_documents(text.encode(), namespace)
        problems |= dict.fromkeys(
            (*unreadable, *ResourceSet.of(documents, root_namespace=facts.control_namespace).problems)
        )
    told = Counter(one.severity for one in problems)
    items = [f"{one.severity}: {one}" for one in problems if one.severity != "note"]
    fix = "qbitel policy check --cluster says what is wrong with each, and what to write"
    if told["error"]:
        return failure(f"{several(told['error'], 'error')} in the policies of the mesh", fix, sorted(items))
    if told["warning"]:
        return warning(f"{several(told['warning'], 'warning')} about the policies of the mesh", fix, sorted(items))
    return passed(f"policies of {several(len(texts), 'namespace')} read, nothing wrong")


def _bundles(facts: ClusterFacts) -> Mapping[str, Published]:
    """The bundles of the mesh's namespaces that are ours. Raises Unknown where there is none."""
    meshed = set(facts.mesh_namespaces)
    found = {name: one for name, one in facts.bundles.value.items() if one.is_ours and name in meshed}
    if not found:
        raise Unknown(f"no namespace of the mesh has a ConfigMap {names.ROOTS_CONFIG_MAP}")
    return found


def _newest(facts: ClusterFacts) -> Published:
    """The bundle whose revocation list was made last: what the authority published last."""
    distinct = {repr(sorted(one.files.items())): one for one in _bundles(facts).values()}
    return max(distinct.values(), key=lambda one: min(each.begins for each in _lists(one, facts)))


def _lists(bundle: Published, facts: ClusterFacts) -> Sequence[Seen]:
    return _in_file(bundle, names.REVOCATION_FILE, facts)


def _in_file(bundle: Published, file: str, facts: ClusterFacts) -> Sequence[Seen]:
    return seen(bundle.files.get(file, "").encode(), f"{file} of {names.ROOTS_CONFIG_MAP}", facts.now)


CHECKS: Final = (
    Check("trust-bundles", Group.TRUST, "each namespace of the mesh has the authority's roots", check_bundles_present),
    Check("trust-equal", Group.TRUST, "all namespaces have the same, newest roots and lists", check_bundles_equal),
    Check("root-expiry", Group.TRUST, "the root lasts for 60 days or longer", check_roots),
    Check("intermediate-expiry", Group.TRUST, "the intermediate lasts for 60 days or longer", check_intermediates),
    Check("revocation-lists", Group.TRUST, "the revocation lists are fresh", check_revocation),
    Check("mesh-config", Group.TRUST, "each namespace of the mesh has policies and peers", check_maps_present),
    Check("mesh-config-fresh", Group.TRUST, "what sidecars are told is as new as the policies", check_maps_fresh),
    Check("policies", Group.TRUST, "nothing is wrong with the policies of the mesh", check_policies),
)
