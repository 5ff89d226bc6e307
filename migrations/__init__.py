"""Alembic migrations: one environment, one version directory per context."""
