"""Coverage-guided fuzzing of every parser that a stranger can reach (`make fuzz`)."""
