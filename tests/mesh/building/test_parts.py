"""Parts of resources."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from mesh.building.parts import part, parts
from mesh.building.request_authentication import JwtRule
from mesh.building.route_destination import Destination


def test_a_part_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"^port: "):
        Destination("web", port=0)


def test_a_part_gives_a_new_dict_each_time() -> None:
    made = Destination("web", port=80)
    first = made.as_dict()
    first["destination"]["host"] = "other"

    assert made.as_dict() == {"destination": {"host": "web", "port": {"number": 80}}}


def test_a_part_stays_what_it_was_when_its_arguments_change() -> None:
    audiences = ["a"]
    rule = JwtRule("https://auth.example.com", audiences=audiences)
    audiences.append("")

    assert rule.as_dict()["audiences"] == ["a"]


def test_a_part_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Destination("web").host = "other"  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301
def test_a_copy_of_a_part_is_as_good(copied: object) -> None:
    made = Destination("web", subset="v1")
    other = copied(made)  # type: ignore[operator]

    assert other == made
    assert other.as_dict() == made.as_dict()


def test_a_part_of_another_kind_is_refused() -> None:
    made = Destination("web")

    assert part("it", made, Destination) == made.as_dict()
    with pytest.raises(ValueError, match=r"^it: .* give a JwtRule"):
        part("it", made, JwtRule)
    with pytest.raises(ValueError, match=r"^them\[1\]: .* give a Destination"):
        parts("them", [made, made.as_dict()], Destination)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^them: "):
        parts("them", [], Destination)
