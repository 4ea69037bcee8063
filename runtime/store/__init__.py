"""PostgreSQL: the only place that knows asyncpg and SQL. Every statement is a file under sql/ or migrations/."""
