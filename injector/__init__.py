"""The injector: a pod goes in, a pod with a sidecar comes out (docs/adr/0021-injection.md)."""
