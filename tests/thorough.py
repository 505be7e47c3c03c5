"""How long tests look for examples: as long as the profile says that was chosen by `--hypothesis-profile`."""

from hypothesis import settings

FACTORS = {"quick": 0.15, "microorm": 0.35, "thorough": 20}


def examples(number: int) -> int:
    """Return how many examples to try where `make check` tries *number*, since each takes its time."""
    return max(1, round(number * FACTORS.get(settings.get_current_profile_name(), 1)))


def size(number: int, thorough: int) -> int:
    """Return *number*, or *thorough* by that profile, which `make soak` takes for what is too long for `make check`."""
    return thorough if settings.get_current_profile_name() == "thorough" else number
