"""The command `queued-tasks`."""
