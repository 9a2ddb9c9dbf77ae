"""Who we are comes from our certificate; flags only fill in what it does not say."""

from __future__ import annotations

import pytest

from mesh.errors import UserError
from mesh.selectors import Workload
from proxy.policy.config import PolicyConfig
from proxy.policy.workload import workload_of

WEB = "spiffe://mesh.example/ns/shop/sa/web"


def test_our_identity_says_namespace_account_and_trust_domain():
    config = PolicyConfig(labels={"app": "web"})
    assert workload_of(WEB, config) == (Workload("shop", {"app": "web"}, "web"), "mesh.example")


@pytest.mark.parametrize("identity", ["spiffe://mesh.example/web", "-", ""])
def test_flags_say_what_an_identity_of_another_form_does_not(identity):
    config = PolicyConfig(namespace="shop", service_account="web")
    workload, trust_domain = workload_of(identity, config)
    assert (workload.namespace, workload.service_account) == ("shop", "web")
    assert trust_domain == ("mesh.example" if identity.startswith("spiffe") else "cluster.local")


@pytest.mark.parametrize("config", [PolicyConfig(), PolicyConfig(namespace="shop"), PolicyConfig(service_account="a")])
def test_where_nobody_says_it_the_flags_are_asked_for(config):
    with pytest.raises(UserError, match="--namespace and --service-account"):
        workload_of("spiffe://mesh.example/web", config)


@pytest.mark.parametrize(
    ("config", "flag"),
    [(PolicyConfig(namespace="bank"), "--namespace"), (PolicyConfig(service_account="x"), "--service-account")],
)
def test_a_flag_that_contradicts_the_certificate_is_an_error(config, flag):
    with pytest.raises(UserError, match=flag):
        workload_of(WEB, config)


def test_flags_that_say_the_same_are_fine():
    assert workload_of(WEB, PolicyConfig(namespace="shop", service_account="web"))[0].namespace == "shop"
