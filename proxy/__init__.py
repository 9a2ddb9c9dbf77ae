"""The sidecar proxy and the explicit tunnel: TCP in, TLS 1.3 of the mesh out, and back."""
