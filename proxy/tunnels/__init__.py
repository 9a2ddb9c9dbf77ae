"""Tunnels: many application connections as streams of one TLS connection between two sidecars (ADR 18)."""
