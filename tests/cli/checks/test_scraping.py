"""Asking sidecars for their metrics: whom, and what is made of their answers."""

from __future__ import annotations

from typing import Any

import pytest

from cli.checks import scraping
from kube.client import ApiUnavailable
from mesh import names
from tests.cli.checks.rig import pod, sidecar_status
from tests.kube.rig import run


class Answering:
    """In a cluster's place: what each page of a pod says."""

    def __init__(self, **pages: tuple[int, str] | None) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def text(self, path: str, *, most: int) -> tuple[int, str]:
        self.asked.append(path)
        answer = self.pages[path.rpartition("/")[2]]
        if answer is None:
            raise ApiUnavailable(f"no answer within {most}")
        return answer


def scraped(found: dict[str, Any], **pages: tuple[int, str] | None) -> Any:
    return run(scraping.scrape(Answering(**pages), found))  # type: ignore[arg-type]  # it has what is asked for


def test_those_that_are_not_ready_come_first_and_the_rest_is_chosen_evenly() -> None:
    many = [pod(f"web-{number}") for number in range(10)]
    bad = sidecar_status(pod("bad"), ready=False)
    chosen = scraping.sample_of([*many, bad, pod("bare", injected=False)], 6)
    assert [one["metadata"]["name"] for one in chosen] == ["bad", "web-0", "web-2", "web-4", "web-6", "web-8"]
    assert len(scraping.sample_of(many, 50)) == 10
    assert scraping.sample_of([], 5) == []


def test_the_port_is_the_one_that_the_injector_gives() -> None:
    found = pod()
    assert scraping.metrics_port(found) == names.METRICS_PORT
    (sidecar,) = [one for one in found["spec"]["initContainers"] if one["name"] == "qbitel-proxy"]
    (port,) = [one for one in sidecar["ports"] if one["name"] == scraping.METRICS_PORT_NAME]
    port["containerPort"] = 9999
    assert scraping.metrics_port(found) == 9999


def test_a_sidecar_that_is_ready_is_asked_for_its_metrics_alone() -> None:
    answer = scraped(pod(), metrics=(200, "qbitel_cert_expiry_seconds 5\n"))
    assert (answer.total("qbitel_cert_expiry_seconds"), answer.error, answer.obstacle) == (5.0, "", "")


def test_one_that_is_not_says_what_it_waits_for() -> None:
    silent = sidecar_status(pod(), ready=False)
    answer = scraped(silent, metrics=(200, ""), ready=(503, "no valid certificate\n"))
    assert answer.obstacle == "no valid certificate"


@pytest.mark.parametrize(
    ("page", "word"),
    [
        (None, "no answer: no answer within"),
        ((503, '{"kind": "Status", "message": "dial tcp: refused"}'), "503: dial tcp: refused"),
        ((403, "not for you\nat all"), "403: not for you"),
        ((200, "qbitel_{"), "cannot be read"),
    ],
)
def test_what_goes_wrong_is_an_error_of_that_sidecar(page: tuple[int, str] | None, word: str) -> None:
    assert word in scraped(pod(), metrics=page).error
