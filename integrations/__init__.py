"""The outside world: FastAPI, the command line, health."""
