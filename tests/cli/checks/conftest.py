"""The same behaviour is wanted of the stand-in and of a real API server."""

from __future__ import annotations

from tests.kube.places import fake, real, where

__all__ = ["fake", "real", "where"]
