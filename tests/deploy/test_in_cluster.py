"""The manifests as a real API server judges them: everything that its admission knows, and nothing is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from kube.client import ApiRefused, resource
from mesh import names
from tests.deploy.installation import CLASSIC, CURRENT, manifests
from tests.kube.places import Where
from tests.kube.rig import Place, run

_IRREGULAR = {"NetworkPolicy": "networkpolicies"}


def path_of(each: Any) -> str:
    plural = _IRREGULAR.get(each["kind"], f"{each['kind'].lower()}s")
    api = each["apiVersion"] if "/" in each["apiVersion"] else f"api/{each['apiVersion']}"
    api = api if api.startswith("api/") else f"apis/{api}"
    return resource(plural, namespace=each["metadata"].get("namespace", ""), api=api)


async def knows(place: Place, api: str) -> bool:
    try:
        await place.cluster.get(f"/apis/{api}")
    except ApiRefused as error:
        assert error.status == 404
        return False
    return True


@pytest.mark.parametrize("name", [CURRENT, CLASSIC])
def test_a_real_api_server_takes_every_object(real: Where, name: str) -> None:
    async def main() -> int:
        async with real() as place:
            # Where nothing else is; a namespace that is only tried cannot be tried in.
            text = json.dumps(manifests(name)).replace(
                f'"namespace": "{names.CONTROL_NAMESPACE}"', f'"namespace": "{place.namespace}"'
            )
            if not await knows(place, "policy/v1"):  # before 1.21, where the chart renders this
                text = text.replace('"policy/v1"', '"policy/v1beta1"')
            objects = json.loads(text)
            for each in objects:
                await place.cluster.create(path_of(each), each, dry_run=True)
        return len(objects)

    assert run(main()) == len(manifests(name))
