"""The tests mirror the package: who looks for a module's tests finds them by its name."""

from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "microorm"


def test_each_module_has_its_tests() -> None:
    """`microorm/saving.py` is tested by `tests/**/test_saving*.py`, `microorm/a/b.py` by `test_a_b*.py`."""
    modules = [path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    names = {"_".join(parts) for parts in modules if parts[-1] not in ("__init__", "__main__")}
    tests = [path.stem for path in TESTS.rglob("test_*.py")]
    assert len(names) > 10
    assert {name for name in names if not any(test.startswith(f"test_{name}") for test in tests)} == set()
