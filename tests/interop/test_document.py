"""docs/interop.md: its commands, run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.cli import convert, generate
from minilm.training.train import train
from tests.conftest import ROOT, make_text
from tests.interop.shapes import TINY

pytest.importorskip("gguf", reason="the extra 'gguf' is not installed")
pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "text.txt"
    data.write_text(make_text(3000))
    train(
        data=str(data),
        run_dir=tmp_path / "checkpoints" / "nano-stdlib",
        tokenizer="bpe",
        model=TINY | {"vocab_size": 400, "context_length": 64},
        settings={"max_steps": 20, "eval_every": 20, "compile": "off", "device": "cpu"},
        cache=cache,
    )
    commands = re.findall(r"^python scripts/convert\.py (.*)$", PAGE, re.M)
    assert len(commands) == 4
    for command in commands:
        line = command.replace("FOLDER", "nano-hf")
        assert convert.main(shlex.split(line)) == 0
    written = {path.name for path in (tmp_path / "nano-hf").iterdir()}
    documented = re.findall(
        r"`(\w+\.\w+)`", PAGE.partition("writes ")[2].partition("which `Auto")[0]
    )
    assert written == set(documented)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert completed.stdout.startswith("def ")
    for name in ("imported", "from-gguf"):
        capsys.readouterr()
        assert generate.main([f"checkpoints/{name}", "--prompt", "the", "--json"]) == 0
        assert capsys.readouterr().out
