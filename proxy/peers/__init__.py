"""Whom the outbound side reaches and how: the peers document, its endpoints, and what becomes of them (ADR 20)."""
