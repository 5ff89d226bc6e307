"""What the commands raise where they cannot go on. Each text is one line that whoever typed the command can act on."""


class CommandError(Exception):
    """The command failed; the text says why."""
