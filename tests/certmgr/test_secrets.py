"""Secrets as data: what they hold and what is refused."""

from __future__ import annotations

import base64
import json

import pytest

from certmgr.secrets import MAX_SECRET_SIZE, check_label, check_subdomain, tls_secret

FILES = {"tls.crt": b"certificate", "tls.key": b"\x00\xffkey", "ca.crt": b"root"}


def test_a_secret_is_plain_data_in_a_stable_order() -> None:
    secret = tls_secret("web.certs", "shop", FILES, labels={"b": "1", "a": "2"}, annotations={})

    assert json.dumps(secret) == json.dumps(json.loads(json.dumps(secret)))
    assert list(secret) == ["apiVersion", "kind", "metadata", "type", "data"]
    assert list(secret["data"]) == list(FILES)
    assert list(secret["metadata"]["labels"]) == ["a", "b"]
    assert {key: base64.b64decode(value, validate=True) for key, value in secret["data"].items()} == FILES


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_what_the_type_demands_must_be_there(missing: str) -> None:
    files = {key: value for key, value in FILES.items() if key != missing}
    with pytest.raises(ValueError, match=rf"files: {missing} is missing"):
        tls_secret("web", "shop", files, labels={}, annotations={})


def test_a_key_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no key of a Secret"):
        tls_secret("web", "shop", {**FILES, "../x": b""}, labels={}, annotations={})


def test_a_secret_that_the_server_would_refuse_for_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more than"):
        tls_secret("web", "shop", {**FILES, "x": bytes(MAX_SECRET_SIZE)}, labels={}, annotations={})


@pytest.mark.parametrize("value", ["", "Web", "-web", "web-", "a.b", "a" * 64, "web\n", None, 1])
def test_what_is_no_label_is_refused_by_its_argument_s_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"namespace: "):
        check_label("namespace", value)


@pytest.mark.parametrize("value", ["", "a..b", ".a", "A", "a/b", "a." * 130 + "a", None])
def test_what_is_no_subdomain_is_refused_by_its_argument_s_name(value: object) -> None:
    with pytest.raises(ValueError, match=r"name: "):
        check_subdomain("name", value)
    assert check_subdomain("name", "web.certs-1") == "web.certs-1"
