"""What Hypothesis must know before it reads the command line: the profile of `make prove`."""

from tests.prove import histories as histories
