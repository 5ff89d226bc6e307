"""The suite: unit (pure), db (real PostgreSQL), rpc (a real server on a port), e2e (the product), bench."""
