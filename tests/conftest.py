"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A loaded machine is slow, not wrong: no example fails because of the time that it took.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")
