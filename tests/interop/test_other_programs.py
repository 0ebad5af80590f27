"""Exported folders in TRL and lm_eval, which need pad, bos and eos tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minilm.cli.convert import main
from minilm.text.tokenizer_training import build_tokenizer
from tests.conftest import make_text
from tests.interop.shapes import TINY, make_run

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
# What they warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(params=["byte", "bpe"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An exported model of 64 tokens of context."""
    source = make_run(tmp_path / "run", TINY | {"vocab_size": 400, "context_length": 64})
    texts, size = [make_text(2000)], 400 if request.param == "bpe" else None
    build_tokenizer(request.param, lambda: iter(texts), size).save(source / "tokenizer.json")
    out = tmp_path / "out"
    assert main([str(source), "--to", "huggingface", "--out", str(out)]) == 0
    return out


def test_trl_fine_tunes_it(folder: Path, tmp_path: Path) -> None:
    trl: Any = pytest.importorskip("trl", reason="trl is not installed")
    datasets: Any = pytest.importorskip("datasets", reason="datasets is not installed")
    settings = trl.SFTConfig(
        output_dir=str(tmp_path / "tuned"),
        max_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    rows = datasets.Dataset.from_dict({"text": ["the cat sees the dog", "a"] * 8})
    outcome = trl.SFTTrainer(str(folder), train_dataset=rows, args=settings).train()
    assert outcome.global_step == 2
    assert outcome.training_loss > 0


def test_lm_eval_scores_it(folder: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device="cpu", batch_size=2)
    pairs = [("the cat", " sees"), ("a", " dog sits"), ("", "the")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    assert all(score < 0 for score, _ in model.loglikelihood(requests))
    until = {"until": ["\n"], "max_gen_toks": 5}
    prompts = [Instance("generate_until", {}, (text, until), i) for i, text in enumerate("ab")]
    assert len(model.generate_until(prompts)) == 2
