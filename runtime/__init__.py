"""Mechanism: tasks, the store, enqueueing and execution. Owns no event loop."""
