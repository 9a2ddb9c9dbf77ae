"""The mesh's Python API: names from the programs' rooms, and no logic of its own."""

from __future__ import annotations

from certmgr.algorithms import CertificateAlgorithm
from certmgr.manager import QuantumCertificateManager
from control.configurator import MutualTLSConfigurator
from control.policy_manager import MeshPolicyManager
from control.service_policy import ServicePolicy
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection
from mesh.building.virtual_service import Retries
from mesh.documents import to_yaml
from mesh.modes import MTLSMode

__all__ = [
    "CertificateAlgorithm",
    "ConnectionPool",
    "LoadBalancer",
    "MTLSMode",
    "MeshPolicyManager",
    "MutualTLSConfigurator",
    "OutlierDetection",
    "QuantumCertificateManager",
    "Retries",
    "ServicePolicy",
    "to_yaml",
]
