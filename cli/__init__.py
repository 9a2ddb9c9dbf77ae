"""The `qbitel` command."""
