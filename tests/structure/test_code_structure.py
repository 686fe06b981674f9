"""The structure that keeps the package readable."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pytorch_dni"
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]
MOST_LINES, LONGEST_FUNCTION = 300, 40

# Attributes that PyTorch's own objects have for their users to set.
SET_FROM_OUTSIDE = {"grad", "training", "forward"}
# Methods of named tuples begin with an underscore, though they are public.
PUBLIC_UNDERSCORES = {"_replace", "_fields", "_asdict"}


def nodes(path):
    return ast.walk(ast.parse(path.read_text()))


def is_own(node):
    """Return whether an expression is the object, the class, or an autograd context."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls", "ctx")


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES
    for node in nodes(path):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_attribute_is_set_from_outside_its_owner(path):
    if path.name == "_torch.py":
        return
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            assert is_own(node.value) or node.attr in SET_FROM_OUTSIDE, ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_private_names_are_used_by_their_owner_only(path):
    """Private names of PyTorch stand in one file, and no object looks into another."""
    if path.name == "_torch.py":
        return
    for node in nodes(path):
        if not isinstance(node, ast.Attribute) or not re.fullmatch(r"_[a-z]\w*", node.attr):
            continue
        other_of_the_class = isinstance(node.value, ast.Name) and node.value.id == "other"
        known = node.attr in PUBLIC_UNDERSCORES or other_of_the_class or is_own(node.value)
        # Another prediction of the same class; ``super()._apply`` is a call of the base class.
        assert known or "self._ask()" in ast.unparse(node), ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_private_modules_of_pytorch_are_imported_in_one_file(path):
    if path.name == "_torch.py":
        return
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not any(re.match(r"_[a-z]", name) for name in names), ast.unparse(node)
        if isinstance(node, ast.Attribute):
            assert not ast.unparse(node).startswith(("torch.ops", "torch._")), ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the file"
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            nested = any(
                node in ast.walk(outer) and node is not outer
                for outer in ast.walk(tree)
                if isinstance(outer, ast.FunctionDef)
            )
            private = any(
                isinstance(outer, ast.ClassDef)
                and (outer.name.startswith("_") or node.name in ("forward", "backward"))
                and node in outer.body
                for outer in ast.walk(tree)
            )
            setter = any("setter" in ast.unparse(line) for line in node.decorator_list)
            assert nested or private or setter or ast.get_docstring(node), node.name
