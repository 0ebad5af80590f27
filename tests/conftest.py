"""What the tests share: a small text, a small trained run, and how to start a script."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# No test is a measurement: a busy machine must not fail one by its pace.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent

# A model that trains in a second, for options that every training test shares.
TINY_MODEL = {"context_length": 16, "num_layers": 2, "d_model": 16, "num_heads": 2}
TINY_SETTINGS = {
    "batch_size": 4,
    "max_steps": 12,
    "eval_every": 4,
    "log_every": 2,
    "warmup_steps": 2,
    "compile": "off",
    "dtype": "float32",
    "sample_tokens": 4,
}


def make_text(words: int, seed: int = 0) -> str:
    """Sentences of a little grammar: enough structure for a loss to fall."""
    choose = random.Random(seed).choice
    sentences = [
        f"the {choose(['cat', 'dog', 'crow'])} {choose(['sees', 'eats', 'is'])} "
        f"the {choose(['old', 'red', 'tall'])} {choose(['house', 'tree', 'bird'])}.\n"
        for _ in range(words // 6)
    ]
    return "".join(sentences)


@pytest.fixture
def transformers() -> Any:
    """The library, where it is installed."""
    return pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 30 kB."""
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(make_text(6000), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where token shards go."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _default_cache(cache: Path) -> Iterator[None]:
    """What is kept where no cache is named stays out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILM_CACHE", str(cache))
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, text_file: Path, cache: Path) -> Path:
    """A finished run of a tiny byte model; tests must not change it."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "tiny", text_file, cache)


def train_tiny(
    folder: Path, text_file: Path, cache: Path, model: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Train the tiny byte model, or one of other ``model`` fields, into ``folder``."""
    from minilm.training.train import train

    train(
        data=str(text_file),
        run_dir=folder,
        tokenizer="byte",
        model=TINY_MODEL | (model or {}),
        settings=TINY_SETTINGS | settings,
        cache=cache,
    )
    return folder


Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def script(cache: Path) -> Script:
    """Run scripts/NAME.py as a user does; returns the finished process."""

    def run(
        name: str,
        *arguments: str,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        python: tuple[str, ...] = (),
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, str(ROOT / "scripts" / f"{name}.py"), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=clean_environment(cache) | (environment or {}),
            timeout=timeout,
            check=False,
        )

    return run


def clean_environment(cache: Path) -> dict[str, str]:
    """The environment of a new user, with the test's cache."""
    return os.environ | {"MINILM_CACHE": str(cache), "COLUMNS": "100"}


def pytest_configure() -> None:
    """A shell starts a background job, which the tests may be, with SIGINT ignored; children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take longest: begun last, one would keep a single processor while the others wait.
LONGEST = ("test_processes", "test_readme", "test_notebooks", "test_train", "test_finetune")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector, which every training run calls, need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests marked gpu where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")
