"""What governs this sidecar's inbound connections: modes, authorization and limits, read from a folder (ADR 19)."""
