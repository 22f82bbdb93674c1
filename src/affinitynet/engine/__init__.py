"""Many processes on one run: who takes part, which images each takes, and how they stop."""
