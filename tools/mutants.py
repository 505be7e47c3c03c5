"""Mutants: change the code in small ways and see whether a test notices; `make mutants` runs this.

python tools/mutants.py [MODULE ...]: all modules that pyproject.toml names for mutmut, or just these. Exits with 1
where more than one mutant in ten stays alive. `.venv/bin/mutmut show NAME` shows what a mutant changes.
"""

import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
MUTMUT = Path(sys.executable).parent / "mutmut"
DEAD = {"killed", "timeout", "segfault", "caught by type check"}
ALLOWED = 0.10


def mutated_modules() -> list[str]:
    """The modules that mutmut is told to change, as `microorm.db.routing`."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    return [path.removesuffix(".py").replace("/", ".") for path in config["only_mutate"]]


def fates(modules: list[str]) -> dict[str, dict[str, str]]:
    """What became of each mutant, by module: killed, survived, no tests, timeout …"""
    output = subprocess.run(
        [MUTMUT, "results", "--all", "true"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for line in output.splitlines():
        mutant, _, fate = line.strip().partition(": ")
        module = mutant.rpartition(".")[0]
        if module in modules:
            found[module][mutant] = fate
    return found


def report(title: str, mutants: dict[str, str]) -> float:
    """Print how the mutants fared, and return the share of them that no test noticed."""
    alive = sum(fate not in DEAD for fate in mutants.values())
    share = alive / len(mutants) if mutants else 1.0
    counts = ", ".join(f"{count} {fate}" for fate, count in Counter(mutants.values()).most_common())
    print(f"{title}: {len(mutants)} mutants: {counts or 'none made'}; {share:.1%} alive")
    return share


def main(asked: list[str]) -> int:
    """Run mutmut and judge its result: 0 when at most one mutant in ten is alive."""
    known = mutated_modules()
    modules = [f"microorm.{name}" for name in asked] or known
    if unknown := set(modules) - set(known):
        print(f"not mutated: {', '.join(sorted(unknown))}; pyproject.toml names {', '.join(known)}")
        return 2
    patterns = [f"{module}.*" for module in modules] if asked else []
    ran = subprocess.run([MUTMUT, "run", *patterns], cwd=ROOT)
    if ran.returncode:
        return ran.returncode
    found = fates(modules)
    everything = {mutant: fate for module in modules for mutant, fate in found[module].items()}
    for mutant, fate in sorted(everything.items()):
        if fate not in DEAD:
            print(f"    {fate}: {mutant}")
    for module in modules:
        report(module, found[module])
    return 0 if report("all", everything) <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
