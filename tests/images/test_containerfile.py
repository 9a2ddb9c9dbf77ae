"""What the recipe of the images promises and a build on one machine would not show on another."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
TEXT = (IMAGES / "Containerfile").read_text()


def stages() -> dict[str, str]:
    """Each stage's instructions, by its name, without comments."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    parts = re.split(r"^FROM \S+ AS (\S+)$", "\n".join(lines), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pinned(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", (IMAGES / lock).read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("target", ["sidecar", "control"])
def test_a_final_image_runs_as_a_number_that_is_not_root_and_has_no_health_check(target):
    stage = stages()[target]
    assert re.search(r"^USER 2102:2102$", stage, flags=re.MULTILINE)
    assert "HEALTHCHECK" not in TEXT
    assert 'ENTRYPOINT ["qbitel"]' in stage
    for label in ("title", "description", "vendor", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in stage


@pytest.mark.parametrize("target", ["sidecar", "control"])
def test_nothing_of_the_build_is_in_a_final_image(target):
    """What a final image is made of: the stages it comes from, and what it copies."""
    chain, bases = [], dict(re.findall(r"^FROM (\S+) AS (\S+)$", TEXT, flags=re.MULTILINE))
    parent = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", TEXT, flags=re.MULTILINE)}
    assert bases
    stage = target
    while stage in parent:
        chain.append(stages()[stage])
        stage = parent[stage]
    text = "\n".join(chain)
    assert "/opt/pip" not in text
    for package in ("python3-venv", "python3-pip", "gcc", "cmake", "git "):
        assert package not in text
    copied = set(re.findall(r"^COPY --from=\S+ (\S+) ", text, flags=re.MULTILINE))
    assert copied <= {"/opt/qbitel", "/opt/oqs", "/bill"}


@pytest.mark.parametrize("lock", ["sidecar.lock", "control.lock", "build.lock"])
def test_every_pinned_package_has_hashes(lock):
    text = (IMAGES / lock).read_text()
    assert pinned(lock)
    for block in re.split(r"^(?=[a-z0-9.-]+==)", text, flags=re.MULTILINE):
        if "==" in block:
            assert "--hash=sha256:" in block


@pytest.mark.parametrize(("lock", "extra"), [("sidecar.lock", None), ("control.lock", "kubernetes")])
def test_every_dependency_of_the_project_is_locked_for_the_image(lock, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"]) + (project["optional-dependencies"][extra] if extra else [])
    names = {re.split(r"[^A-Za-z0-9._-]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names <= set(pinned(lock))


def test_the_images_have_the_versions_that_the_tests_ran_with():
    tested = dict(
        re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    )
    for lock in ("sidecar.lock", "control.lock"):
        assert {name: version for name, version in pinned(lock).items() if tested.get(name) != version} == {}


def test_every_room_of_the_distribution_reaches_the_build():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {package.rstrip("*") for package in packages} <= let_in


@pytest.mark.parametrize("script", ["build", "install.sh", "liboqs.sh"])
def test_the_scripts_are_shell_that_a_shell_reads(script):
    subprocess.run(["sh", "-n", IMAGES / script], check=True)
