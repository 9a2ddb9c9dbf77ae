"""The mesh's Python API: names from the programs' rooms, and no logic of its own."""

from __future__ import annotations

from certmgr.algorithms import CertificateAlgorithm
from certmgr.manager import QuantumCertificateManager

__all__ = ["CertificateAlgorithm", "QuantumCertificateManager"]
