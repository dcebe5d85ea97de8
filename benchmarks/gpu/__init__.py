"""All checks and measurements on a GPU (run.sh)."""
