"""The mesh's vocabulary and its pure decisions. Nothing in here does I/O or reads a clock."""
