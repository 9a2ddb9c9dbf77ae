"""The Python API of policy: values in, Istio's resources out, and what they would really do."""
