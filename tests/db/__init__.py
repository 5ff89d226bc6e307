"""Against a real PostgreSQL: SQL, constraints, races, plans."""
