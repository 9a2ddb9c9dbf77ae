"""What a running sidecar says of itself, and what it can be told: a loopback port for operators."""
