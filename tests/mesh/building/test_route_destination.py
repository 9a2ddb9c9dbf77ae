"""Where routes lead."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.building.route_destination import Destination, shares


def test_a_destination_is_a_host_and_what_of_it() -> None:
    assert Destination("web").as_dict() == {"destination": {"host": "web"}}
    assert Destination("web", "v1", 8080, 10).as_dict() == {
        "destination": {"host": "web", "subset": "v1", "port": {"number": 8080}},
        "weight": 10,
    }


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [({"host": "*.web"}, "host"), ({"subset": "V1"}, "subset"), ({"port": 0}, "port"), ({"weight": -1}, "weight")],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        Destination(**{"host": "web", **wrong})


def test_of_several_destinations_one_has_a_share() -> None:
    one, other = {"destination": {"host": "a"}}, {"destination": {"host": "b"}, "weight": 1}

    assert shares([one]) == [one]
    assert shares([one, other]) == [one, other]
    with pytest.raises(ValueError, match=r"^destinations: several, and none has a weight"):
        shares([one, {**other, "weight": 0}])
