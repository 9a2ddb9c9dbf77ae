"""A real API server, where KUBECONFIG names one."""

from __future__ import annotations

from tests.kube.places import real

__all__ = ["real"]
