"""What `qbitel check` looks at: facts are gathered in one place, and judged by pure functions, one for each check."""
