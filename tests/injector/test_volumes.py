"""What the sidecar is given to read."""

from __future__ import annotations

from injector.volumes import mounts, volumes
from mesh import names


def test_the_token_is_for_our_audience_and_where_the_sidecar_looks() -> None:
    token, *_ = volumes()
    (source,) = token["projected"]["sources"]

    assert source["serviceAccountToken"]["audience"] == names.TOKEN_AUDIENCE
    assert f"{mounts()[0]['mountPath']}/{source['serviceAccountToken']['path']}" == names.TOKEN_FILE


def test_each_volume_is_mounted_and_what_is_not_ours_to_write_is_read_only() -> None:
    assert [mount["name"] for mount in mounts()] == [volume["name"] for volume in volumes()]
    assert [mount["name"] for mount in mounts() if not mount.get("readOnly")] == ["qbitel-keys"]


def test_keys_are_in_memory_and_bounded() -> None:
    assert volumes()[-1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Mi"}


def test_what_discovery_publishes_is_mounted_where_the_sidecar_looks_and_waited_for() -> None:
    volume, mount = volumes(discovery=True)[-1], mounts(discovery=True)[-1]
    assert volume["name"] == mount["name"] == "qbitel-mesh"
    assert volume["configMap"]["name"] == names.MESH_CONFIG_MAP
    assert "optional" not in volume["configMap"]
    assert mount["readOnly"]

    files = {item["key"]: f"{mount['mountPath']}/{item['path']}" for item in volume["configMap"]["items"]}
    assert files == {
        names.POLICIES_KEY: f"{names.POLICY_FOLDER}/{names.POLICIES_KEY}",
        names.PEERS_KEY: names.PEERS_FILE,
    }


def test_without_discovery_nothing_of_it_is_mounted() -> None:
    assert "qbitel-mesh" not in str(volumes()) + str(mounts())
