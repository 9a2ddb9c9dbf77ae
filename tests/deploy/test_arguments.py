"""The command lines in the manifests, read by the programs that they start."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from cli.injection import injector_of
from cli.main import COMMANDS
from injector.config import InjectorConfig, SidecarConfig
from mesh import names
from tests.deploy.installation import CLASSIC, CURRENT, arguments, containers, manifests

BOTH = pytest.mark.parametrize("name", [CURRENT, CLASSIC])


def parsed(words: list[str]) -> Any:
    """The options, or SystemExit where a flag or its value is none of the program's."""
    module = importlib.import_module(COMMANDS[words[0]][0])
    return module._parser().parse_args(words[1:])


@BOTH
def test_every_container_is_started_with_a_command_and_flags_that_exist(name: str) -> None:
    started = [each["args"] for each in containers(manifests(name))]
    assert len(started) == 4
    for words in started:
        parsed(words)


def test_a_flag_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(SystemExit):
        parsed([*arguments(manifests(), "certmgr"), "--no-such-flag"])


@BOTH
def test_no_image_s_entry_point_is_replaced(name: str) -> None:
    assert [each for each in containers(manifests(name)) if "command" in each] == []


def test_the_authority_is_founded_where_it_is_served_from() -> None:
    found, served = (parsed(arguments(manifests(), each)) for each in ("found", "certmgr"))
    assert found.run.__module__ == "cli.ca.init"
    assert (found.kubernetes, found.if_absent, found.force) == (True, True, False)
    assert found.namespace == served.namespace == names.CONTROL_NAMESPACE
    assert served.kubernetes is True
    assert served.no_webhook_certificate is False


@pytest.mark.parametrize(("name", "native"), [(CURRENT, True), (CLASSIC, False)])
def test_pods_get_what_the_injector_gives_by_itself_and_sidecars_of_the_cluster_s_kind(name: str, native: bool) -> None:
    config = injector_of(parsed(arguments(manifests(name), "injector"))).config
    (image,) = [word for word in arguments(manifests(name), "injector") if word.startswith("--image=")]
    expected = InjectorConfig(
        sidecar=SidecarConfig(image=image.removeprefix("--image=")), native_sidecars=native, discovery=True
    )
    assert config == expected


@BOTH
def test_the_programs_agree_on_the_trust_domain_and_the_profile(name: str) -> None:
    options = {each: parsed(arguments(manifests(name), each)) for each in ("found", "certmgr", "injector", "discovery")}
    assert {options[each].trust_domain for each in ("found", "injector", "discovery")} == {names.DEFAULT_TRUST_DOMAIN}
    assert options["certmgr"].profile == [options["injector"].profile]


@BOTH
def test_policies_that_the_injector_promises_are_brought(name: str) -> None:
    """Pods wait for the ConfigMap that --discovery makes them mount."""
    assert parsed(arguments(manifests(name), "injector")).discovery is True
    assert parsed(arguments(manifests(name), "discovery")).kubernetes is True
