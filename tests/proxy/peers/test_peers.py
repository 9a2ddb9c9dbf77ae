"""What a worker does about peers, with a document and without."""

from __future__ import annotations

import pytest

from mesh.errors import UserError
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from proxy.config import Endpoint, networks
from proxy.metrics import Metrics
from proxy.peers.peers import NoPeers, check_peers, peers_of, router_of
from proxy.routes import Mode
from tests.proxy.peers.test_keeper import ENTRY, config_of


def test_without_a_document_there_is_the_short_form_alone(run, pki):
    config = config_of(pki, None, mesh=networks(["10.0.0.0/8"]))
    check_peers(config)
    router = router_of(config, Metrics())
    peers = peers_of(config, router)
    assert isinstance(peers, NoPeers)

    async def live():
        await peers.load()
        peers.follow(ResourceSet(), Workload("shop", {}, "web"), "cluster.local")
        peers.tend()
        peers.refresh()
        await peers.close()

    run(live())
    assert router.way(Endpoint("10.0.0.1", 80)).mode is Mode.REQUIRE
    assert router.way(Endpoint("11.0.0.1", 80)).mode is Mode.OFF


def test_with_a_document_its_entries_stand_beside_the_short_form(pki, tmp_path):
    path = tmp_path / "peers.yaml"
    path.write_text(ENTRY.format(mode="prefer"))
    config = config_of(pki, path, mesh=networks(["11.0.0.0/8"]))
    router = router_of(config, Metrics())
    peers_of(config, router)
    assert router.way(Endpoint("10.0.0.1", 80)).mode is Mode.PREFER
    assert router.way(Endpoint("11.0.0.1", 80)).mode is Mode.REQUIRE


def test_a_document_that_cannot_be_taken_is_said_before_anything_is_bound(pki, tmp_path):
    path = tmp_path / "peers.yaml"
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"peers\.yaml"):
        check_peers(config_of(pki, path))
