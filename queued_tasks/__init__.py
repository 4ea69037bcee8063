"""Durable background tasks for FastAPI and asyncio, on PostgreSQL."""
