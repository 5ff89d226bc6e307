"""How many histories are made up, and how long they are.

`conftest.py` imports this, for the profile to be there when Hypothesis reads its option.
"""

from typing import Final

from hypothesis import HealthCheck, settings

MANY: Final = "prove"
"""The profile of `make prove`: pytest --hypothesis-profile=prove."""

settings.register_profile(MANY)


def histories(number: int, steps: int) -> settings:
    """So many histories of so many steps, always the same ones; sixty times as many, and others each time, if asked."""
    many = settings.get_current_profile_name() == MANY
    return settings(
        max_examples=number * 60 if many else number,
        stateful_step_count=steps,
        derandomize=not many,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
