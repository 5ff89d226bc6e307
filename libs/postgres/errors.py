"""What the launcher says when it cannot start: one line that a person can act on."""


class LaunchError(Exception):
    """PostgreSQL could not be started; the message is a single clear line."""
