"""The webhook after its installation: what the API server was told of it, its certificate, and whether it works."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Final

from certmgr.webhook_certificate import HeldCertificate
from certmgr.wording import ends
from certmgr.x509_files import certificates_of
from cli.checks.certificates import Seen, seen
from cli.checks.control import INSTALL
from cli.checks.facts import ClusterFacts, DryRun, Object, Objects, name_of
from cli.checks.findings import Check, Finding, Group, Unknown, failure, passed, several, warning
from injector import pods
from injector.status import is_injected
from injector.webhook_configuration import IstioSidecarInjector, namespaces_left_out
from mesh import names
from mesh.errors import UserError

# A certificate is replaced at half of its life; what has less than a quarter left was not.
_LITTLE_LEFT: Final = 0.25
_REINSTALL: Final = f"{INSTALL} writes it anew"
_HEALS: Final = (
    f"the leader of {names.AUTHORITY_SERVICE} writes it within seconds: look at its log (check certmgr-leader)"
)


def check_webhook_present(facts: ClusterFacts) -> Finding:
    """Whether the API server knows of the webhook."""
    hooks = _hooks(facts)
    shipped = _shipped(facts)
    called = {str(one.get("name")) for one in hooks}
    missing = [str(one["name"]) for one in shipped if one["name"] not in called]
    if missing:
        return failure("the webhook's configuration lacks a part of it", _REINSTALL, missing)
    wrong = [
        f"{one.get('name')} calls {_called(one) or 'a URL'}"
        for one in hooks
        for should in shipped
        if should["name"] == one.get("name") and _called(one) != _called(should)
    ]
    if wrong:
        return failure("the API server calls another program than our webhook", _REINSTALL, wrong)
    return passed(f"{names.WEBHOOK_NAME}, {several(len(hooks), 'webhook')}")


def check_webhook_fails_closed(facts: ClusterFacts) -> Finding:
    """Whether pods of the mesh wait for the webhook instead of starting without a sidecar."""
    items = [
        f"{one.get('name')}: failurePolicy {one.get('failurePolicy')}"
        for one in _required(facts)
        if one.get("failurePolicy") != "Fail"
    ]
    if items:
        return failure(
            "pods of the mesh start without a sidecar, and in plaintext, whenever the webhook is away",
            _REINSTALL,
            items,
        )
    return passed("failurePolicy is Fail: no pod of the mesh starts without its sidecar")


def check_webhook_narrow(facts: ClusterFacts) -> Finding:
    """Whether the webhook concerns pods of the mesh alone: what it concerns stops with it."""
    shipped = {str(one["name"]): one for one in _shipped(facts)}
    items = []
    for hook in _required(facts):
        name = str(hook.get("name"))
        should = shipped.get(name)
        if should is None:
            items.append(f"{name} is none of ours")
        elif hook.get("rules") != should["rules"]:
            items.append(f"{name}: its rules are not for the creation of pods alone")
        else:
            items += [f"{name}: {text}" for text in _missing_terms(hook, should)]
    if items:
        return failure(
            "the webhook concerns more than the mesh: while it is away, others' pods cannot be created either",
            _REINSTALL,
            items,
        )
    return passed("it is asked about pods of the mesh, and about nothing else")


def _missing_terms(hook: Object, should: Object) -> Iterator[str]:
    for selector in ("namespaceSelector", "objectSelector"):
        found = [_term(one) for one in pods.listed(pods.part(hook, selector), "matchExpressions")]
        for wanted in should[selector]["matchExpressions"]:
            key, operator, values = _term(wanted)
            # Fewer values of NotIn concern more namespaces; an installation may well leave out more of them.
            if not any(
                (key, operator) == one[:2] and (values <= one[2] if operator == "NotIn" else one[2] <= values)
                for one in found
            ):
                yield f"its {selector} lacks {key} {operator} {', '.join(sorted(values))}"


def _term(expression: Object) -> tuple[str, str, frozenset[str]]:
    values = frozenset(map(str, expression.get("values") or ()))
    return str(expression.get("key")), str(expression.get("operator")), values


def check_webhook_authority(facts: ClusterFacts) -> Finding:
    """Whether the API server trusts the webhook's certificate."""
    untrusted = [f"{hook.get('name')}: {fault}" for hook in _required(facts) if (fault := _mistrust(hook, facts))]
    if untrusted:
        return failure("the API server does not trust the webhook: no pod of the mesh can start", _HEALS, untrusted)
    return passed("each caBundle vouches for the certificate")


def _mistrust(hook: Object, facts: ClusterFacts) -> str:
    """Why the API server would not take the certificate by what it was told; "" where it would."""
    of_secret = {one.sha256 for one in _seen(facts.serving.value.authority, names.ROOTS_FILE, facts)}
    _seen(facts.serving.value.certificate, names.CERTIFICATE_FILE, facts)
    bundle = _bundle(hook)
    if not bundle:
        return "it has no caBundle"
    try:
        trusted = {one.sha256 for one in _seen(bundle, "its caBundle", facts)}
    except Unknown as reason:
        return str(reason)
    if not trusted & of_secret:
        return "its caBundle is not the authority of the Secret"
    return "" if _vouches(bundle, facts) else "its caBundle does not vouch for the certificate"


def check_webhook_certificate(facts: ClusterFacts) -> Finding:
    """Whether the webhook's certificate is for its Service, and for how long."""
    certificate = _seen(facts.serving.value.certificate, names.CERTIFICATE_FILE, facts)[0]
    wanted = _dns_name(facts)
    told = ends(certificate.ends, facts.now)
    if wanted not in certificate.dns_names:
        return failure(
            f"the webhook's certificate is not for {wanted}",
            f"kubectl delete secret {names.WEBHOOK_SECRET} -n {facts.control_namespace}: the authority makes another",
            certificate.dns_names,
        )
    if not certificate.begins <= facts.now <= certificate.ends:
        return failure(f"the webhook's certificate is not valid now: it {told}", _HEALS)
    if certificate.ends - facts.now < (certificate.ends - certificate.begins) * _LITTLE_LEFT:
        return warning(f"the webhook's certificate was not renewed: it {told}", _HEALS)
    return passed(f"for {wanted}, {told}")


def check_webhook_injects(facts: ClusterFacts) -> Finding:
    """Whether a pod of the mesh gets its sidecar: one is created, for trial, and comes back with it."""
    trial = facts.inside.value
    if trial.pod is None:
        return failure(
            f"a pod cannot be created in {trial.namespace}: {trial.refusal}",
            f"kubectl logs deployment/{names.WEBHOOK_NAME} -n {facts.control_namespace}; see the checks "
            "webhook-authority, services and injector-ready",
        )
    if not is_injected(trial.pod):
        return failure(
            f"a pod in {trial.namespace} comes back without a sidecar",
            "see the checks webhook-present and webhook-narrow; the API server must have the admission plugin "
            "MutatingAdmissionWebhook",
        )
    return passed(f"a pod in {trial.namespace} comes back with a sidecar")


def check_webhook_spares(facts: ClusterFacts) -> Finding:
    """Whether a pod outside of the mesh stays as it is."""
    trial: DryRun = facts.outside.value
    if trial.pod is None:
        return warning(
            f"a pod cannot be created in {trial.namespace}, which is not of the mesh: {trial.refusal}",
            "if that names our webhook, see the check webhook-narrow; else it is another's word (quota, Pod Security)",
        )
    if is_injected(trial.pod):
        return failure(
            f"a pod in {trial.namespace}, which is not of the mesh, gets a sidecar", "see the check webhook-narrow"
        )
    return passed(f"a pod in {trial.namespace}, which is not of the mesh, stays as it is")


def excluded_namespaces(facts: ClusterFacts) -> frozenset[str]:
    """The namespaces for which the API server does not call the webhook, where that is known."""
    return frozenset() if facts.webhooks.reason else namespaces_left_out(_hooks(facts))


def _hooks(facts: ClusterFacts) -> Objects:
    """The webhooks of our configuration; none where it is not registered."""
    found = next((one for one in facts.webhooks.value if name_of(one) == names.WEBHOOK_NAME), None)
    return [] if found is None else pods.listed(found, "webhooks")


def _required(facts: ClusterFacts) -> Objects:
    hooks = _hooks(facts)
    if not hooks:
        raise Unknown("the webhook is not registered (check webhook-present)")
    return hooks


def _shipped(facts: ClusterFacts) -> Objects:
    try:
        wanted = IstioSidecarInjector(facts.control_namespace).create_webhook_configuration()
    except UserError as error:
        raise Unknown(str(error)) from None
    return pods.listed(wanted, "webhooks")


def _called(hook: Object) -> str:
    service = pods.part(hook, "clientConfig", "service")
    if not service:
        return ""
    return f"{service.get('namespace')}/{service.get('name')}:{service.get('port', 443)}{service.get('path', '')}"


def _bundle(hook: Object) -> bytes:
    """The PEM of a caBundle; empty where there is none that can be read."""
    text = pods.part(hook, "clientConfig").get("caBundle")
    try:
        return base64.b64decode(text, validate=True).strip() if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _vouches(bundle: bytes, facts: ClusterFacts) -> bool:
    """Whether an API server that trusts `bundle` would take the certificate now."""
    certificate = certificates_of(facts.serving.value.certificate)[0]
    return HeldCertificate(certificate, certificates_of(bundle)).is_good(_dns_name(facts), facts.now)


def _dns_name(facts: ClusterFacts) -> str:
    return f"{names.WEBHOOK_NAME}.{facts.control_namespace}.svc"


def _seen(text: bytes, what: str, facts: ClusterFacts) -> Sequence[Seen]:
    return seen(text, what, facts.now)


CHECKS: Final = (
    Check("webhook-present", Group.WEBHOOK, "the API server is told of the webhook", check_webhook_present),
    Check(
        "webhook-fails-closed",
        Group.WEBHOOK,
        "without the webhook no pod of the mesh starts",
        check_webhook_fails_closed,
    ),
    Check("webhook-narrow", Group.WEBHOOK, "the webhook concerns pods of the mesh alone", check_webhook_narrow),
    Check(
        "webhook-authority", Group.WEBHOOK, "the API server trusts the webhook's certificate", check_webhook_authority
    ),
    Check("webhook-certificate", Group.WEBHOOK, "the webhook's certificate: names and end", check_webhook_certificate),
    Check("webhook-injects", Group.WEBHOOK, "a pod of the mesh gets its sidecar (for trial)", check_webhook_injects),
    Check(
        "webhook-spares", Group.WEBHOOK, "a pod outside of the mesh stays as it is (for trial)", check_webhook_spares
    ),
)
