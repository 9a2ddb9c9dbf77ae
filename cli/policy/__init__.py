"""`qbitel policy`: writing, checking, explaining and comparing policies."""
