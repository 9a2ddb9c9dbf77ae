"""Interception: the packet-filter rules that send a pod's traffic through its sidecar."""
