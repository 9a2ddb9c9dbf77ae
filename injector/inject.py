"""Pod in, pod out: the sidecar, the rules, what they need, and what was done to undo it. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from injector import containers, pods, probes, volumes
from injector.annotations import STATUS
from injector.config import InjectorConfig
from injector.decide import Decision, Namespace, decide
from injector.interception import ScriptRenderer
from injector.overrides import merged, take_overrides
from injector.pods import Object
from injector.refusal import PodRefused, one_line
from injector.safety import refuse_unsafe, warn_of
from injector.status import Status
from injector.wishes import Wishes, read_wishes
from mesh.errors import UserError

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_SCRAPE: Final = "prometheus.io/"


@dataclass(frozen=True, slots=True)
class Injected:
    """What became of a pod. `pod` is another object than the one that was given, unless nothing changed."""

    pod: Object
    decision: Decision
    warnings: tuple[str, ...] = ()
    wishes: Wishes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Injector:
    """Gives pods their sidecars. `version` is ours, for the status; `render_script` makes the rules."""

    config: InjectorConfig
    render_script: ScriptRenderer
    version: str

    def inject(self, pod: Object, namespace: Namespace, workload: str = "") -> Injected:
        """Decide for `pod`, and give it a sidecar where it is to have one; `pod` itself stays as it is.

        `workload` is the name of what makes such pods, where the pod itself cannot tell. Raises PodRefused where it
        must not run as it is.
        """
        if fault := pods.shape_fault(pod):
            raise PodRefused(f"it cannot be read: {fault}")
        decision = decide(pod, namespace, self.config)
        if not decision.inject:
            return Injected(pod, decision, _why_not(decision, namespace))
        wishes, warnings = read_wishes(pods.annotations_of(pod), self.config)
        refuse_unsafe(pod)
        changed, more = self._changed(pod, wishes, workload)
        warnings += [*more, *warn_of(pod, wishes, self.config)]
        return Injected(changed, decision, tuple(map(one_line, warnings)), wishes)

    def _changed(self, original: Object, wishes: Wishes, workload: str) -> tuple[Object, list[str]]:
        pod = copy.deepcopy(original)
        created = _make_room(pod, wishes)
        overrides = take_overrides(pod)
        originals, warnings = probes.rewrite_probes(pod) if wishes.rewrite_probes else ({}, [])
        sidecar = merged(
            containers.sidecar(original, wishes, self.config, originals, workload), overrides.get(pods.SIDECAR)
        )  # fmt: skip
        rules = []
        if wishes.captured:
            ours = containers.init_container(self._script(wishes), wishes, self.config)
            rules = [merged(ours, overrides.get(pods.INIT_CONTAINER))]
        spec = pod["spec"]
        if wishes.native:
            # Before the application's own init containers, which so have a network.
            spec["initContainers"] = [*rules, sidecar, *spec.get("initContainers", [])]
        else:
            # Until the sidecar runs, what is captured is refused: the application's init containers come first.
            if rules:
                spec["initContainers"] = [*spec.get("initContainers", []), *rules]
            spec["containers"] = [sidecar, *spec["containers"]]
        status = Status(
            version=self.version,
            init_containers=tuple(one["name"] for one in [*rules, *([sidecar] if wishes.native else [])]),
            containers=() if wishes.native else (pods.SIDECAR,),
            volumes=_add_volumes(spec, wishes, self.config),
            annotations=_add_annotations(pod, original, self.config, warnings),
            created=created,
            probes=tuple(originals),
            replaced={name: one.to_json() for name, one in overrides.items()},
        )
        pod["metadata"]["annotations"][STATUS] = status.to_text()
        return pod, warnings

    def _script(self, wishes: Wishes) -> str:
        try:
            return self.render_script(wishes.interception)
        except UserError as error:
            raise PodRefused(str(error)) from None


def _why_not(decision: Decision, namespace: Namespace) -> tuple[str, ...]:
    # Nobody who asked for sidecars shall find out from the traffic that there is none.
    if decision.is_choice or namespace.label != "enabled":
        return ()
    return (f"no sidecar: {decision.reason}",)


def _make_room(pod: Object, wishes: Wishes) -> tuple[str, ...]:
    """Make the maps and lists that are needed, in place; return those that were not there, outermost first."""
    created = []
    if not isinstance(pod.get("metadata"), dict):
        pod["metadata"] = {}
        created.append("metadata")
    if not isinstance(pod["metadata"].get("annotations"), dict):
        created.append(_absent("metadata.annotations", pod["metadata"], "annotations"))
        pod["metadata"]["annotations"] = {}
    needed = ["volumes", *(["initContainers"] if wishes.native or wishes.captured else [])]
    for name in needed:
        if not isinstance(pod["spec"].get(name), list):
            created.append(_absent(f"spec.{name}", pod["spec"], name))
            pod["spec"][name] = []
    return tuple(created)


def _absent(path: str, holder: Mapping[str, Any], name: str) -> str:
    """How the status says that nothing was there: `path`, or `path=null` where null was."""
    return f"{path}=null" if name in holder else path


def _add_volumes(spec: Object, wishes: Wishes, config: InjectorConfig) -> tuple[str, ...]:
    present = {volume.get("name") for volume in spec["volumes"]}
    wanted = {volume["name"]: volume for volume in [*volumes.volumes(discovery=config.discovery), *wishes.user_volumes]}
    # A volume of the pod's own with that name is meant to take the place of ours.
    added = [volume for name, volume in wanted.items() if name not in present]
    spec["volumes"] = [*spec["volumes"], *added]
    return tuple(volume["name"] for volume in added)


def _add_annotations(
    pod: Object, original: Object, config: InjectorConfig, warnings: list[str]
) -> tuple[str, ...]:  # fmt: skip
    annotations = pod["metadata"]["annotations"]
    wanted = {}
    if name := _first_of_application(original):
        wanted[DEFAULT_CONTAINER] = name
    if config.sidecar.enable_metrics:
        if not any(key.startswith(_SCRAPE) for key in annotations):
            wanted |= {
                f"{_SCRAPE}scrape": "true",
                f"{_SCRAPE}port": str(config.sidecar.metrics_port),
                f"{_SCRAPE}path": "/metrics",
            }
        elif annotations.get(f"{_SCRAPE}scrape") == "true":
            port = str(annotations.get(f"{_SCRAPE}port", "of the application"))[:40]
            warnings.append(
                f"{_SCRAPE}* stay the application's: scrape the sidecar's port {config.sidecar.metrics_port} by a "
                f"PodMonitor, and exclude port {port} from interception if Prometheus is not in the mesh"
            )
    added = {key: value for key, value in wanted.items() if key not in annotations}
    annotations.update(added)
    return (*added, STATUS)


def _first_of_application(pod: Object) -> str | None:
    for container in pods.listed(pods.part(pod, "spec"), "containers"):
        if container.get("name") not in pods.OURS and isinstance(name := container.get("name"), str):
            return name
    return None
