"""Each fault that the README speaks of is tried by the tests that it names, and it names each module of such tests."""

from __future__ import annotations

import ast
import re

from tests.docs.tables import ROOT

FAULTS = ROOT / "tests" / "fault"
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "README.md").read_text())


def held_by(module: str) -> set[str]:
    """The tests that a module holds."""
    tree = ast.parse((FAULTS / module).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_readme_names_exists() -> None:
    assert [f"{module}::{name}" for module, name in NAMED if name not in held_by(module)] == []


def test_every_module_of_faults_is_named() -> None:
    assert {module for module, _ in NAMED} == {path.name for path in FAULTS.glob("test_*.py")}
