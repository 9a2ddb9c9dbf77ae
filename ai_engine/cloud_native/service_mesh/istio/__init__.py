"""The mesh's Python API: names from the programs' rooms, and no logic of its own."""

from __future__ import annotations

from certmgr.algorithms import CertificateAlgorithm
from certmgr.manager import QuantumCertificateManager
from control.configurator import MutualTLSConfigurator
from control.policy_manager import MeshPolicyManager
from control.service_policy import ServicePolicy
from injector.config import SidecarConfig
from injector.webhook_configuration import IstioSidecarInjector
from mesh.building.client_tls import ClientTls
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy
from mesh.building.virtual_service import Retries
from mesh.documents import to_yaml
from mesh.modes import MTLSMode

__all__ = [
    "CertificateAlgorithm",
    "ClientTls",
    "ConnectionPool",
    "IstioSidecarInjector",
    "LoadBalancer",
    "MTLSMode",
    "MeshPolicyManager",
    "MutualTLSConfigurator",
    "OutlierDetection",
    "QuantumCertificateManager",
    "Retries",
    "ServicePolicy",
    "SidecarConfig",
    "TrafficPolicy",
    "to_yaml",
]
