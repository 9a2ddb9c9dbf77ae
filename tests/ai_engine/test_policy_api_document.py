"""What docs/policy-api.md shows works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ai_engine.cloud_native.service_mesh import istio
from mesh.building.authorization_policy import authorization_policy
from mesh.building.metadata import PROFILES
from tests.support.built import assert_good

TEXT = Path(__file__).parents[2].joinpath("docs", "policy-api.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    session: dict[str, Any] = {}
    examples = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for example in examples:
        exec(example, session)  # noqa: S102  # the examples are the test
    written, _, told = capsys.readouterr().out.partition("\n\n")

    assert len(examples) == 4
    assert_good(*session["mtls"].resources)
    assert list(yaml.safe_load_all(written)) == session["resources"]
    assert "production/frontend" in told
    assert_good(*session["resources"])
    assert_good(*session["policies"])


@pytest.mark.parametrize("room", [istio.MutualTLSConfigurator, istio.MeshPolicyManager])
def test_every_method_is_told_of_and_none_that_is_not_there(room: type) -> None:
    methods = {name for name in vars(room) if name.startswith(("create_", "verify_"))}
    told = set(re.findall(r"`((?:create|verify)_\w+)", TEXT))

    assert methods <= told
    assert all(hasattr(istio.MutualTLSConfigurator, name) or hasattr(istio.MeshPolicyManager, name) for name in told)


def test_the_message_shown_is_the_message_given() -> None:
    with pytest.raises(ValueError, match=r"^rules") as refusal:
        authorization_policy("web", "shop", rules=[{"to": [{"operation": {"ports": [80]}}]}])

    assert f"    {refusal.value}\n" in TEXT


def test_all_profiles_are_named() -> None:
    assert all(f"`{profile}`" in TEXT for profile in PROFILES)
