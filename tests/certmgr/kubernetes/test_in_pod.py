"""`qbitel certmgr serve --kubernetes` with nothing but what a pod has: its account's files and two variables."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from certmgr.founding import new_state
from certmgr.kubernetes.parts import cluster_store
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from tests.certmgr.kubernetes.documented import granted
from tests.kube.places import Where
from tests.kube.rig import PATIENCE, run, utc_now

# /var/run leads to /run. What is mounted here is seen by this process alone.
_POD = (
    'mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && cp -r "$0" /run/secrets/kubernetes.io/'
    'serviceaccount && exec "$@"'
)
_PROGRAM = "import sys; from cli.main import main; sys.exit(main())"


def can_mount() -> bool:
    if shutil.which("unshare") is None or Path("/var/run").resolve() != Path("/run"):
        return False
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False)
    return tried.returncode == 0


def pod_files(kubeconfig: str, folder: Path) -> str:
    """Put the account of a kubeconfig into `folder`, as the kubelet does; return where the API server is."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    cluster: Any = config["clusters"][0]["cluster"]
    folder.mkdir()
    (folder / "token").write_text(json.loads(Path(kubeconfig).read_text())["users"][0]["user"]["token"])
    if "certificate-authority-data" in cluster:
        (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    else:
        shutil.copy(cluster["certificate-authority"], folder / "ca.crt")
    return str(cluster["server"])


def test_a_pod_needs_no_configuration(real: Where, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("a folder of a pod can be put in place by who may mount in a namespace of its own (root)")

    async def main() -> None:
        async with real() as place, granted(place, "authority") as kubeconfig:
            async with cluster_store(place.kubeconfig, place.namespace) as store:
                state = new_state("CN=Test root", "cluster.local", utc_now())
                await store.save(AUTHORITY_DOCUMENT, encode_state(state), None)
            server = urlsplit(pod_files(kubeconfig, tmp_path / "account"))
            environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
            environment |= {
                "KUBERNETES_SERVICE_HOST": str(server.hostname),
                "KUBERNETES_SERVICE_PORT": str(server.port),
            }
            ports = [word for flag in ("--listen", "--metrics", "--health") for word in (flag, "127.0.0.1:0")]
            process = await asyncio.create_subprocess_exec(
                *("unshare", "-m", "sh", "-c", _POD, str(tmp_path / "account")),
                *(sys.executable, "-c", _PROGRAM, "certmgr", "serve", "--kubernetes", "--namespace", place.namespace),
                *ports,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            try:
                said = ""
                assert process.stderr is not None
                while " leads" not in said or "ready: " not in said:
                    line = await process.stderr.readline()
                    assert line, said
                    said += line.decode()
                process.terminate()
                said += (await process.stderr.read()).decode()
                assert await process.wait() == 0, said
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            token = (tmp_path / "account" / "token").read_text()
            assert token not in said
            assert "Traceback" not in said

    run(main(), PATIENCE)
