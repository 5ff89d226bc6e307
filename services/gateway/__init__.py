"""The gateway: composes one turn under one deadline, and owns no table."""
