"""An AdmissionReview in, an AdmissionReview out (admission.k8s.io/v1); what is none gets a Status. Pure.

Whatever comes, the answer is one that the API server understands, and none that lets a pod pass by mistake: what
cannot be read is refused.
"""

from __future__ import annotations

import base64
import enum
import json
from dataclasses import dataclass
from typing import Any, Final

from injector import pods
from injector.decide import Namespace
from injector.inject import Injected, Injector
from injector.pods import Object
from injector.refusal import PodRefused, one_line

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
_POD: Final = {"group": "", "version": "v1", "kind": "Pod"}
# What clients show of warnings: apiserver's admission package cuts longer ones, and all of them together.
_LONGEST_WARNING: Final = 256
_MOST_WARNINGS: Final = 16
_LONGEST_MESSAGE: Final = 1024


class Verdict(enum.StrEnum):
    """What became of a request, in one word for logs and metrics."""

    INJECTED = "injected"
    PASSED = "passed"  # allowed as it is
    REFUSED = "refused"  # the pod must not run as it is
    MALFORMED = "malformed"  # no review that can be read
    FAILED = "failed"  # a fault of ours


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and its JSON body. `pod` is whom it is about."""

    status: int
    body: bytes
    verdict: Verdict
    pod: str = ""
    reason: str = ""


def answer(body: bytes, injector: Injector, label: str | None) -> Answer:
    """Answer the API server's `body`; `label` is the injection label that the pod's namespace is known to have."""
    try:
        request = _request(body)
    except _Malformed as error:
        return refused_request(400, str(error))
    uid = request["uid"]
    if request.get("kind") != _POD or request.get("subResource"):
        return _denied(uid, "this webhook is for pods; its configuration sends it something else")
    if request.get("operation") != "CREATE":
        return _allowed(uid, "", None, "only new pods can be given a sidecar")
    pod = request.get("object")
    namespace = str(request.get("namespace") or "")
    name = f"{namespace}/{_name(pod)}"
    try:
        outcome = injector.inject(pod, Namespace(namespace, label))  # type: ignore[arg-type]  # it checks the shape
    except PodRefused as error:
        return _denied(uid, str(error), name)
    return _allowed(uid, name, outcome if outcome.decision.inject else None, outcome.decision.reason, outcome.warnings)


def refused_request(status: int, message: str) -> Answer:
    """What is no review at all: Kubernetes' own form of an error, which its client shows to whoever made the pod."""
    reasons = {
        400: "BadRequest",
        404: "NotFound",
        405: "MethodNotAllowed",
        408: "Timeout",
        413: "RequestEntityTooLarge",
    }
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": message[:_LONGEST_MESSAGE],
        "reason": reasons.get(status, "UnsupportedMediaType" if status == 415 else "InternalError"),
        "code": status,
    }
    verdict = Verdict.FAILED if status >= 500 else Verdict.MALFORMED
    return Answer(status, _json(body), verdict, reason=message[:_LONGEST_MESSAGE])


class _Malformed(Exception):
    """The body is no review."""


def _request(body: bytes) -> Object:
    try:
        review = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _Malformed("the body is no JSON") from None
    if not isinstance(review, dict) or review.get("kind") != KIND:
        raise _Malformed(f"the body is no {KIND}")
    if review.get("apiVersion") != API_VERSION:
        raise _Malformed(f"the {KIND} is of {str(review.get('apiVersion'))[:60]!r}; this webhook speaks {API_VERSION}")
    request = review.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise _Malformed(f"the {KIND} has no request with a uid")
    return request


def _no_number(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity, which Python would read and nobody else


def _name(pod: Any) -> str:
    metadata = pods.part(pod, "metadata") if isinstance(pod, dict) else {}
    name = metadata.get("name") or f"{metadata.get('generateName', '')}*"
    return one_line(str(name)[:253])


def _allowed(uid: str, pod: str, injected: Injected | None, reason: str, warnings: tuple[str, ...] = ()) -> Answer:
    response: Object = {"uid": uid, "allowed": True}
    if injected is not None:
        patch = json.dumps(json_patch(injected.pod), separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    if warnings:
        response["warnings"] = [_warning(text) for text in warnings[:_MOST_WARNINGS]]
    return Answer(200, _review(response), Verdict.INJECTED if injected else Verdict.PASSED, pod, reason)


def json_patch(pod: Object) -> list[Object]:
    """What makes the pod that was sent into `pod` (RFC 6902 §4.1: "add" takes the place of what is there)."""
    return [{"op": "add", "path": f"/{name}", "value": pod[name]} for name in ("metadata", "spec")]


def _denied(uid: str, message: str, pod: str = "") -> Answer:
    status = {"status": "Failure", "message": message[:_LONGEST_MESSAGE], "reason": "BadRequest", "code": 400}
    body = _review({"uid": uid, "allowed": False, "status": status})
    return Answer(200, body, Verdict.REFUSED, pod, message[:_LONGEST_MESSAGE])


def _warning(text: str) -> str:
    whole = f"qbitel: {text}"
    return whole if len(whole) <= _LONGEST_WARNING else whole[: _LONGEST_WARNING - 1] + "…"


def _review(response: Object) -> bytes:
    return _json({"apiVersion": API_VERSION, "kind": KIND, "response": response})


def _json(value: Object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
