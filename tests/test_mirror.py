"""The tests mirror the package: who looks for a module's tests finds them by its name."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "microorm"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", [module for module in MODULES if module.name != "__init__"], ids=str)
def test_each_module_has_its_tests(module: Path) -> None:
    """`microorm/saving.py` is tested by `tests/test_saving*.py`, `microorm/a/b.py` by `tests/test_a_b*.py`."""
    assert list(TESTS.rglob(f"test_{'_'.join(module.parts)}*.py")) != []
