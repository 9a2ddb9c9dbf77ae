"""The application's probes and hooks, answered at the sidecar's health port (docs/adr/0021-injection.md)."""
