"""The rule between the packages: `sava_ops` computes and never imports Dagster."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPS = sorted((ROOT / "sava_ops").rglob("*.py"))
ASSETS = sorted((ROOT / "sava_assets").rglob("*.py"))


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("file", OPS, ids=lambda file: file.stem)
def test_the_method_imports_neither_the_pipeline_nor_dagster(file):
    roots = {name.split(".")[0] for name in imported(file)}
    assert not roots & {"dagster", "sava_assets", "typer", "rich"}


def test_the_method_runs_without_dagster():
    names = [file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in OPS]
    modules = ", ".join(name for name in names if not name.endswith("__init__"))
    program = f"import sys, sava_ops, {modules}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("file", OPS + ASSETS, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_nothing_is_pickled(file):
    assert not {name.split(".")[0] for name in imported(file)} & {"joblib", "dill", "cloudpickle", "shelve"}
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "torch.save"}
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True"


@pytest.mark.parametrize("file", OPS + ASSETS, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_every_module_says_what_it_is_for(file):
    assert ast.get_docstring(ast.parse(file.read_text()))
