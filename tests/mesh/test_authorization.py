"""AuthorizationPolicy as values."""

from __future__ import annotations

import dataclasses

import pytest

from mesh.authorization import Action, AuthorizationPolicy, Condition, Operation, Rule, Source, is_http_rule
from mesh.metadata import Metadata
from mesh.selectors import Selector


@pytest.mark.parametrize(
    ("rule", "is_http"),
    [
        (Rule(), False),
        (
            Rule((Source(principals=("a",)),), (Operation(ports=("1",)),), (Condition("source.ip", ("10.0.0.1",)),)),
            False,
        ),
        (Rule((Source(), Source(request_principals=("a",)))), True),
        (Rule((Source(not_request_principals=("a",)),)), True),
        (Rule((), (Operation(ports=("1",)), Operation(not_methods=("GET",)))), True),
        (Rule((), (Operation(hosts=("a",)),)), True),
        (Rule((), (Operation(not_paths=("/a",)),)), True),
        (Rule(conditions=(Condition("request.headers[a]", ("b",)),)), True),
        (Rule(conditions=(Condition("request.auth.claims[a]", ("b",)),)), True),
        (Rule(conditions=(Condition("connection.sni", ("b",)),)), False),
    ],
)
def test_a_rule_is_about_requests_where_one_of_its_conditions_is(rule: Rule, is_http: bool) -> None:
    assert is_http_rule(rule) is is_http
    policy = AuthorizationPolicy(Metadata("AuthorizationPolicy", "a", "b"), Action.ALLOW, (Rule(), rule), Selector({}))
    assert policy.has_http_rules is is_http


@pytest.mark.parametrize("part", [Source(), Operation(), Rule(), Condition("a")])
def test_a_policy_cannot_be_changed(part: Source | Operation | Rule | Condition) -> None:
    name = dataclasses.fields(part)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, name, ("x",))


@pytest.mark.parametrize("part", [Source, Operation])
def test_each_field_has_its_not_form(part: type[Source] | type[Operation]) -> None:
    names = {field.name for field in dataclasses.fields(part)}

    assert {name.removeprefix("not_") for name in names} == {name for name in names if not name.startswith("not_")}
    assert len(names) % 2 == 0
