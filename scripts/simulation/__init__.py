"""Many servers against one PostgreSQL, with everything real but what runs the tasks: scripts/simulate."""
