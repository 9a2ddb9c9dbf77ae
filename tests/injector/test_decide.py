"""Whether a pod gets a sidecar: the documented order, each word over all those after it."""

from __future__ import annotations

from typing import Any

import pytest

from injector.config import InjectorConfig
from injector.decide import Decision, Namespace, decide
from injector.refusal import PodRefused
from tests.injector.rig import inject, pod

CONFIG = InjectorConfig()


def decided(given: dict[str, Any], label: str | None = None, namespace: str = "shop") -> Decision:
    return decide(given, Namespace(namespace, label), CONFIG)


def labelled(label: str | None = None, annotation: str | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {
        name: {"qbitel.io/inject": value} for name, value in (("labels", label), ("annotations", annotation)) if value
    }
    return pod(metadata=metadata, **spec)


@pytest.mark.parametrize("label", [None, "enabled", "disabled", "other"])
def test_without_a_word_of_the_pod_the_namespace_s_label_decides(label: str | None) -> None:
    assert decided(pod(), label).inject is (label == "enabled")


@pytest.mark.parametrize("label", [None, "enabled", "disabled"])
@pytest.mark.parametrize(
    ("word", "inject_it"), [("true", True), ("enabled", True), ("false", False), ("disabled", False)]
)
def test_the_pod_s_own_word_wins_over_its_namespace(label: str | None, word: str, inject_it: bool) -> None:
    assert decided(labelled(label=word), label).inject is inject_it
    assert decided(labelled(annotation=word), label).inject is inject_it


def test_the_pod_s_label_wins_over_its_annotation() -> None:
    assert not decided(labelled("false", "true"), "enabled").inject
    assert decided(labelled("true", "false"), "disabled").inject


@pytest.mark.parametrize("namespace", ["kube-system", "qbitel-system"])
def test_in_an_ignored_namespace_the_pod_s_word_does_not_count(namespace: str) -> None:
    decision = decided(labelled("true"), "enabled", namespace)

    assert (decision.inject, decision.is_choice) == (False, False)


def test_a_namespace_that_the_installation_excludes_is_ignored_and_the_reason_says_so() -> None:
    config = InjectorConfig(excluded_namespaces=frozenset({"payroll"}))
    decision = decide(labelled("true"), Namespace("payroll", "enabled"), config)

    assert (decision.inject, decision.is_choice) == (False, False)
    assert decision.reason == "pods of the namespace payroll never get a sidecar: this installation excludes it"
    assert decide(pod(), Namespace("shop", "enabled"), config).inject


@pytest.mark.parametrize("spec", [{"hostNetwork": True}, {"os": {"name": "windows"}}])
def test_a_pod_that_cannot_have_one_gets_none_whatever_is_said(spec: dict[str, Any]) -> None:
    decision = decided(labelled("true", **spec), "enabled")

    assert (decision.inject, decision.is_choice) == (False, False)


def test_the_copy_of_a_static_pod_gets_none() -> None:
    assert not decided(pod(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "enabled").inject


def test_a_pod_that_has_our_sidecar_stays_whatever_its_label_says() -> None:
    injected = inject(labelled("true")).pod

    assert decided(injected, "enabled") == Decision(False, "it has our sidecar already")


@pytest.mark.parametrize("word", ["yes", "1", "", "tru"])
def test_a_word_that_is_neither_yes_nor_no_is_refused(word: str) -> None:
    given = pod(metadata={"labels": {"qbitel.io/inject": word}})

    with pytest.raises(PodRefused, match="neither yes nor no"):
        decided(given, "enabled")


def test_the_reason_names_who_decided() -> None:
    assert decided(labelled("true")).reason == "its label qbitel.io/inject is 'true'"
    assert decided(pod(), "enabled").reason == "its namespace has the label qbitel-injection=enabled"
