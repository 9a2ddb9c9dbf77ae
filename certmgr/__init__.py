"""Certificates of the mesh: what they say, how they are made, where they are kept."""
