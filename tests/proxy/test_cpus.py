"""Limits on processors' time, as the kernel's control groups tell of them: the files are those of real machines."""

from __future__ import annotations

import os

import pytest

from proxy.cpus import available


@pytest.fixture
def machine(tmp_path):
    """Write files below a root of its own; return the function that asks."""

    def make(files: dict[str, str], processors: int = 8) -> float:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return available(tmp_path, processors)

    return make


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000\n", 8),
        ("50000 100000\n", 0.5),
        ("200000 100000\n", 2),
        ("1600000 100000\n", 8),
        ("25000 50000", 0.5),
    ],
)
def test_a_container_sees_its_own_limit_at_the_mount(machine, cpu_max, expected):
    assert machine({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": cpu_max}) == expected


def test_the_least_of_the_limits_from_a_group_up_to_the_root_counts(machine):
    found = machine(
        {
            "proc/self/cgroup": "0::/kubepods/pod1/container\n",
            "sys/fs/cgroup/kubepods/cpu.max": "700000 100000\n",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/kubepods/pod1/container/cpu.max": "max 100000\n",
        }
    )
    assert found == 1.5


@pytest.mark.parametrize("name", ["cpu", "cpu,cpuacct"])
def test_of_version_one_the_quota_is_read_where_the_container_sees_it(machine, name):
    found = machine(
        {
            # The path is the node's; in the container the group is the mount itself.
            "proc/self/cgroup": "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
            f"sys/fs/cgroup/{name}/cpu.cfs_quota_us": "300000\n",
            f"sys/fs/cgroup/{name}/cpu.cfs_period_us": "100000\n",
        }
    )
    assert found == 3


def test_version_one_without_a_limit_says_minus_one(machine):
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}
    assert machine({"proc/self/cgroup": "4:cpu:/\n", **files}) == 8


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "nonsense\n::::\n0::\n"},
        {"proc/self/cgroup": "0::/../../elsewhere\n"},
        *({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": text} for text in
          ("", "max", "100000", "1 0", "-5 100", "1.5 2", "\x00\xff", "٣ ٤")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_limit(machine, files):
    assert machine(files) == 8


def test_of_this_very_process_it_is_more_than_nothing_and_at_most_its_processors():
    assert 0 < available() <= len(os.sched_getaffinity(0))
