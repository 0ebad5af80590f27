"""The floors of docs/architecture.md, held: who may import whom, and who may not import torch."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

PACKAGE = Path(__file__).resolve().parent.parent / "minilm"

# A room (a folder, or a file at the top) imports from the floors below it and from itself alone. The
# files of the first floor are each their own room, and may use each other.
GROUND = {"errors", "files", "units", "dtypes", "version", "safe_text", "progress"}
FLOORS = [
    GROUND,
    {"ledger"},
    {"config", "formats"},
    {"architectures", "costs", "quantization", "text", "runs", "model"},
    {"values", "data", "transforms", "parallel"},
    {"checkpoint", "inspection"},
    {"generation", "render"},
    {"interop"},
    {"training"},
    {"operations", "federation", "hyperparameters", "claims"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"minilm", "minilm.__main__"}  # they open the program to its users
WITHOUT_TORCH = {
    *("ledger", "config", "formats", "architectures", "costs", "quantization", "text", "runs"),
    *("values", "data", "inspection", "render"),
}
WITH_TORCH = {"inspection/module_reader.py", "inspection/activation_check.py"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return module.split(".")[1]


MODULES = {module_of(path): path for path in sources()}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Of a file's syntax, the file itself first."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module imported anywhere in a file, for type checkers too; a name's module where it is one."""
    imported = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names} & MODULES.keys()
            imported |= inner
            if len(inner) < len(node.names):
                imported.add(module)
    return frozenset(imported)


def test_no_floor_imports_a_higher_one_nor_its_neighbours() -> None:
    wrong = []
    for module in sorted(MODULES.keys() - OUTSIDE):
        room = room_of(module)
        assert room in FLOOR, f"{room} has no floor: add it to FLOORS and to docs/architecture.md"
        for imported in imports(MODULES[module]):
            if imported == "minilm":
                wrong.append(f"{module} imports the whole package")
            elif imported.startswith("minilm"):
                other = room_of(imported)
                below = FLOOR[other] < FLOOR[room] or {room, other} <= GROUND
                if other != room and not below:
                    wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_no_circle_of_files() -> None:
    arrows = {
        module: {other for other in imports(path) if other in MODULES and other != module}
        for module, path in MODULES.items()
        if module != "minilm"  # the public names are imported lazily, from everywhere
    }
    while arrows:
        free = {module for module, others in arrows.items() if not others & arrows.keys()}
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {module: others for module, others in arrows.items() if module not in free}


MOST_POSITIONAL = 6


def test_no_constructor_is_called_with_many_positional_arguments() -> None:
    paths = [*sources(), *sorted((PACKAGE.parent / "scripts").rglob("*.py"))]
    classes = {
        node.name for path in paths for node in nodes(path) if isinstance(node, ast.ClassDef)
    }
    calls = [
        f"{path.relative_to(PACKAGE.parent).as_posix()}:{node.lineno}"
        for path in paths
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and _called(node) in classes
        and len(node.args) > MOST_POSITIONAL
    ]
    assert calls == []


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    name = call.func
    return getattr(name, "attr", getattr(name, "id", ""))


def test_torch_stays_out_of_what_must_start_fast() -> None:
    wrong = []
    for module in sorted(MODULES.keys() - OUTSIDE):
        path = MODULES[module]
        without = room_of(module) in WITHOUT_TORCH
        if not without or path.relative_to(PACKAGE).as_posix() in WITH_TORCH:
            continue
        names_torch = any(other.split(".")[0] == "torch" for other in imports(path))
        if names_torch and not _for_types_alone(path):
            wrong.append(module)
    assert wrong == []


def _for_types_alone(path: Path) -> bool:
    """Whether a file names torch under `if TYPE_CHECKING` only."""
    for_types = {
        inner
        for node in nodes(path)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    return "torch" not in {
        name.split(".")[0]
        for node in nodes(path)
        if node not in for_types and isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }


def test_importing_everything_changes_nothing() -> None:
    modules = sorted(MODULES)
    program = f"""
import os, signal, sys, torch, numpy, tokenizers, tyro, einops, rich, tqdm, logging, warnings
import torch.distributed.fsdp  # whose sympy adds a filter of warnings
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


@pytest.mark.parametrize(
    ("model_type", "declaration"),
    [
        ("llama", "llama"),
        ("qwen3", "qwen"),
        ("mamba", "mamba"),
        ("deepseek_v3", "deepseek"),
        ("gemma3n_text", "gemma3n"),
    ],
)
def test_a_config_imports_its_own_declaration_alone(
    model_type: str, declaration: str, tmp_path: Path
) -> None:
    """Beside the pieces that declarations share: start-up stays fast however many there are."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    program = (
        "import sys, minilm.cli.inspect as c\n"
        "from minilm.architectures.model_types import MODEL_TYPES as types\n"
        f"assert c.main([{str(config)!r}, '--full']) == 0\n"
        "files = {file for entry in types.values() for file in (entry.module, entry.whole) if file}\n"
        "imported = {f for f in files if f'minilm.architectures.{f}' in sys.modules}\n"
        f"assert imported == {{{declaration!r}}}, imported\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


def test_an_eager_run_never_loads_torchs_compiler(text_file: Path, tmp_path: Path) -> None:
    """It takes as long to import as torch; so do the parts that only processes of one run use."""
    program = (
        "import sys, minilm.cli.train as c\n"
        f"arguments = ['--data', {str(text_file)!r}, '--run-dir', {str(tmp_path / 'run')!r}, "
        "'--tokenizer', 'byte', '--model.context-length', '16', '--model.d-model', '16', "
        "'--max-steps', '2', '--device', 'cpu', '--compile', 'off', '--train.sample-tokens', '4']\n"
        "assert c.main(arguments) == 0\n"
        "assert 'torch' in sys.modules\n"
        "heavy = {'torch._dynamo', 'torch.distributed.tensor', 'torch.distributed.fsdp', 'sympy'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    environment = clean_environment(tmp_path / "cache")
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        timeout=120,
        env=environment,
    )
