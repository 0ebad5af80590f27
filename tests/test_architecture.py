"""The layers of docs/architecture.md, held: who may import whom, who may not import torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minilm"

# A part imports only parts of its own row and of rows above it.
LAYERS = [
    {"errors", "files", "config", "units", "dtypes", "presets"},
    {"ledger", "formats", "text", "run"},
    {"inspection", "render", "model", "data"},
    {"checkpoint", "training", "interop"},
    {"generation"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
WITHOUT_TORCH = ("ledger", "formats", "text", "render", "data", "inspection")
WITH_TORCH = {"inspection/live.py", "inspection/measured.py"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module imported anywhere in a file, and whether that is for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "minilm":  # `from minilm import files` names the part itself
                found += [(f"minilm.{a.name}", id(node) in typing_only) for a in node.names]
            else:
                found.append((module, id(node) in typing_only))
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_layer_imports_a_higher_one(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return  # the public names are imported lazily, from everywhere
    assert part in RANK, f"{part} has no layer: add it to LAYERS and to docs/architecture.md"
    for module, typing_only in imports(path):
        if module.startswith("minilm.") and not typing_only and module != "minilm.__version__":
            imported = module.split(".")[1]
            assert RANK[imported] <= RANK[part], f"{path}: {part} imports {imported}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_stays_out_of_what_must_start_fast(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if part_of(path) in WITHOUT_TORCH and name not in WITH_TORCH:
        runtime = [module for module, typing_only in imports(path) if not typing_only]
        assert not [module for module in runtime if module.split(".")[0] == "torch"]


def test_importing_everything_changes_nothing() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
    ]
    program = f"""
import os, signal, sys, torch, numpy, tokenizers, tyro, einops, rich, tqdm, logging, warnings
def state():
    return (dict(os.environ), os.getcwd(), signal.getsignal(signal.SIGINT), torch.get_num_threads(),
            torch.initial_seed(), torch.get_default_dtype(), tuple(sys.path), list(warnings.filters),
            logging.root.level, list(logging.root.handlers))
before = state()
import importlib
for name in {modules!r}:
    importlib.import_module(name)
assert state() == before
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_inspection_of_a_preset_and_a_file_never_loads_torch(tiny_run: Path) -> None:
    for target in ("gpt2", str(tiny_run / "model.safetensors")):
        program = (
            "import sys, minilm.cli.inspect as c\n"
            f"assert c.main([{target!r}]) == 0\n"
            "assert not {'torch', 'numpy', 'tyro', 'tokenizers'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
