"""What a worker does about policies: nothing where there is no folder, and nothing is imported for it."""

from __future__ import annotations

import subprocess
import sys

from mesh.modes import MTLSMode
from proxy.policy.config import PolicyConfig
from proxy.policy.keeper import PolicyKeeper
from proxy.policy.policies import NoPolicies, policies_of
from proxy.registry import Registry


def test_without_a_folder_nothing_stands_in_the_way(rig, run):
    policies = policies_of(PolicyConfig(), MTLSMode.STRICT, rig().gate, None, Registry(), print, print)
    assert isinstance(policies, NoPolicies)
    assert policies.obstacle == ""
    assert policies.describe() == {"folder": None}
    policies.refresh()
    policies.tend()
    run(policies.load())
    run(policies.close())


def test_a_folder_is_kept(rig, run, tmp_path):
    async def main():
        policies = policies_of(
            PolicyConfig(folder=tmp_path), MTLSMode.STRICT, rig().gate, None, Registry(), print, print
        )
        assert isinstance(policies, PolicyKeeper)
        assert policies.obstacle

    run(main())


def test_a_sidecar_without_policies_imports_no_reader_of_yaml():
    program = (
        "import sys, proxy.server, cli.proxy, proxy.policy.limits; "
        "print('yaml' in sys.modules, 'mesh.resources' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False False\n"
