"""The rules between folders: `sava_ops` computes and never imports Dagster, and imports run one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPS = sorted((ROOT / "sava_ops").rglob("*.py"))
ASSETS = sorted((ROOT / "sava_assets").rglob("*.py"))


# Top floor first. A room may be imported from any floor above its own; rooms of one floor know nothing of each other.
FLOORS = {
    "sava_assets": [
        {"cli"},
        {"definitions"},
        {"study"},
        {"assets"},
        {"exchange"},
        {"review"},
        {"freshness"},
        {"formats", "home"},
        {"parquet"},
    ],
    "sava_ops": [
        {"baselines", "trust"},
        {"valuation", "forecast"},
        {"judgement"},
        {"hierarchy"},
        {"transport"},
        {"frame"},
        {"calibration"},
        {"decomposition", "reference", "decisions", "inputs", "config"},
        {"ot", "batches", "images"},
        {"errors", "threads"},
    ],
}


def imported(file: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = [(node.module or "", node.names) for node in nodes if isinstance(node, ast.ImportFrom)]
    # `from sava_ops import transport` imports a module of the front door.
    doors = {f"{module}.{alias.name}" for module, names in named if module in FLOORS for alias in names}
    return plain | {module for module, _ in named} | doors


def room(module: str) -> str:
    """The folder or file of a package that a module is in; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def module_of(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def floor(module: str) -> int:
    package = module.split(".")[0]
    (found,) = [number for number, rooms in enumerate(FLOORS[package]) if room(module) in rooms]
    return found


def against_the_rule(module: str, imports: set[str]) -> list[str]:
    """Imports of a module that run up, or across a floor, within its package."""
    package = module.split(".")[0]
    own = [name for name in imports if name.startswith(f"{package}.") and room(name) in set.union(*FLOORS[package])]
    wrong = [name for name in own if room(name) != room(module) and floor(name) <= floor(module)]
    return [f"{module} imports {name}" for name in sorted(wrong)]


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_its_floor(package):
    files = {file for file in (OPS if package == "sava_ops" else ASSETS) if module_of(file) != package}
    assert {room(module_of(file)) for file in files} == set.union(*FLOORS[package])


@pytest.mark.parametrize("file", OPS + ASSETS, ids=module_of)
def test_imports_run_one_way(file):
    # The package itself is what users import: it only passes on.
    if room(module_of(file)):
        assert against_the_rule(module_of(file), imported(file)) == []


def test_an_import_against_the_rule_is_named():
    upwards = {"sava_assets.study.cells", "sava_assets.home.store"}
    assert against_the_rule("sava_assets.freshness.history", upwards) == [
        "sava_assets.freshness.history imports sava_assets.study.cells"
    ]
    assert against_the_rule("sava_ops.ot.cost", {"sava_ops.batches", "sava_ops.errors", "torch"}) == [
        "sava_ops.ot.cost imports sava_ops.batches"
    ]


@pytest.mark.parametrize("file", OPS, ids=module_of)
def test_the_method_imports_neither_the_pipeline_nor_dagster(file):
    roots = {name.split(".")[0] for name in imported(file)}
    assert not roots & {"dagster", "sava_assets", "typer", "rich"}


@pytest.mark.long
def test_the_method_runs_without_dagster():
    program = f"import sys, {', '.join(map(module_of, OPS))}; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("file", OPS + ASSETS, ids=module_of)
def test_nothing_is_pickled(file):
    assert not {name.split(".")[0] for name in imported(file)} & {"joblib", "dill", "cloudpickle", "shelve"}
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "torch.save"}
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True"


@pytest.mark.parametrize("file", OPS + ASSETS, ids=module_of)
def test_every_module_says_what_it_is_for(file):
    assert ast.get_docstring(ast.parse(file.read_text()))


LIGHT = {
    "help": "from sava_assets.cli import app; app(['--help'], standalone_mode=False)",
    "wrong argument": "from typer.testing import CliRunner; from sava_assets.cli import app; "
    "CliRunner().invoke(app, ['curate', '--landign', 'x'])",
    "settings": "import sava_ops.config, sava_ops.errors, sava_assets.home.resources",
    "status": "import sys; from sava_assets.cli import app; "
    "app(['status', '--home', sys.argv[1]], standalone_mode=False)",
}


@pytest.mark.parametrize("what", LIGHT)
def test_who_computes_nothing_waits_for_no_library_that_computes(what, curated):
    heavy = {"torch", "torchvision", "dagster", "sklearn", "scipy", "matplotlib", "pandas"}
    program = f"{LIGHT[what]}; import sys; print('heavy:', *{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(curated[0])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy:", done.stdout
