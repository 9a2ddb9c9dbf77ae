"""The API server of a cluster: requests, watches, election among replicas, bringing things in line."""
