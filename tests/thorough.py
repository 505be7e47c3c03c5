"""How long tests look for examples: `pytest --hypothesis-profile thorough` multiplies what each test asks for."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return *number*, for tests whose examples take time; twenty times as many in the profile `thorough`."""
    return number * (20 if settings.get_current_profile_name() == "thorough" else 1)
