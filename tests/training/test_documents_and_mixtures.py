"""Training on documents that do not see each other, and on mixtures: through to a run that is resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minilm.config import ModelConfig
from minilm.data.batches import document_positions
from minilm.data.dataset import Dataset
from minilm.errors import ConfigError, InputError
from minilm.model.transformer import Transformer
from minilm.operations.evaluate import evaluate
from minilm.text.tokenizer_training import build_tokenizer
from minilm.training.finish import Outcome
from minilm.training.train import resume, train
from tests.conftest import TINY_MODEL, TINY_SETTINGS

SETTINGS = TINY_SETTINGS | {"max_steps": 4, "eval_every": 2, "sample_tokens": 0}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "documents.jsonl"
    texts = [f"document {i}: {'abcdefg'[i % 7] * (5 + i % 11)}\n" for i in range(150)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def run(data: str, folder: Path, cache: Path, **changes) -> Outcome:
    settings = SETTINGS | changes
    return train(
        "nano",
        data=data,
        run_dir=folder,
        tokenizer="byte",
        model=TINY_MODEL,
        settings=settings,
        cache=cache,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_positions_begin_anew_after_the_end_of_a_document() -> None:
    inputs = np.array([[5, 6, 0, 7, 0, 0, 8, 9], [0, 1, 2, 3, 4, 5, 6, 0]])
    positions = document_positions(inputs, end_of_text=0)
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("model", [{}, {"convolution": 2, "ngram": 2, "ngram_rows": 64}])
def test_changing_a_document_leaves_the_logits_of_others(model: dict[str, int]) -> None:
    tokens = np.arange(1, 61, dtype="<u2")
    tokens[[9, 25, 40]] = 0
    data = Dataset(
        train=tokens,
        val=tokens,
        tokenizer=build_tokenizer("byte", lambda: iter([])),
        source="",
        bytes=60,
        sha256="",
        train_bytes=60,
        val_bytes=60,
        documents=4,
        document_attention=True,
    )
    fields = TINY_MODEL | {"context_length": 64, "vocab_size": 256} | model
    network = Transformer(ModelConfig(**fields), torch.Generator().manual_seed(0)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    (batch,) = data.validation_batches(64, 1, 0)
    inputs, _, positions = (torch.from_numpy(array) for array in batch.arrays)
    changed = inputs.clone()
    changed[0, 12] = 200  # in the second document
    with torch.no_grad():
        before, after = (network(x, document_positions=positions) for x in (inputs, changed))
    differs = (before != after).any(-1)[0]
    assert differs[12:26].any()
    assert not differs[:12].any()
    assert not differs[26:].any()


def test_one_document_has_nothing_to_keep_apart(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("one text\n" * 200)
    with pytest.raises(ConfigError, match="document_attention: true with one document"):
        run(str(tmp_path / "one.txt"), tmp_path / "run", tmp_path / "c", document_attention=True)


def test_a_run_on_a_mixture_of_documents_is_evaluated_and_resumed_as_it_is_trained(
    documents: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "other.txt").write_text("another text, without documents\n" * 100)
    source = f"mix:{documents}=1;{tmp_path / 'other.txt'}=0.5"
    whole = run(source, tmp_path / "whole", cache, document_attention=True)
    assert [each["weight"] for each in whole.summary["data"]["mixture"]] == [1, 0.5]
    loss = evaluate(tmp_path / "whole", dtype="float32", cache=cache).loss
    assert loss == pytest.approx(whole.summary["best_val_loss"], abs=1e-6)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    config["train"]["document_attention"] = False
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    unmasked = evaluate(tmp_path / "whole", dtype="float32", cache=cache).loss
    assert unmasked != pytest.approx(loss, abs=1e-5)

    run(source, tmp_path / "parts", cache, document_attention=True, max_seconds=1e-9)
    for other in (source.replace("=0.5", "=0.7"), f"mix:{tmp_path / 'other.txt'}=1;{documents}=1"):
        with pytest.raises(InputError, match=r"other weights than in mix:.*=1;.*other\.txt=0\.5"):
            resume(tmp_path / "parts", data=other, settings={"max_seconds": 1000.0}, cache=cache)
    reordered = f"mix:{tmp_path / 'other.txt'}=1;{documents}=2"
    resume(tmp_path / "parts", data=reordered, settings={"max_seconds": 1000.0}, cache=cache)
    resumed = weights(tmp_path / "parts")
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(resumed[name], tensor)


def test_a_mixture_that_has_moved_is_named_in_its_order(documents: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "other.txt").write_text("another text, without documents\n" * 100)
    source = f"mix:{documents}=1;{tmp_path / 'other.txt'}=0.1234567"
    run(source, tmp_path / "run", cache, max_seconds=1e-9)
    moved = documents.rename(tmp_path / "moved.jsonl")
    first, second = f"{moved}=1", f"{tmp_path / 'other.txt'}=0.1234567"
    longer = {"max_seconds": 1000.0}
    with pytest.raises(InputError, match="another mixture than when the run began"):
        resume(tmp_path / "run", data=f"mix:{first};{second}5", settings=longer, cache=cache)
    with pytest.raises(InputError, match="they have moved and are in another order"):
        resume(tmp_path / "run", data=f"mix:{second};{first}", settings=longer, cache=cache)
    outcome = resume(tmp_path / "run", data=f"mix:{first};{second}", settings=longer, cache=cache)
    assert outcome.stopped_because == "max_steps"
    again = f"mix:{second};{first}"  # of a finished run the same
    assert resume(tmp_path / "run", data=again, cache=cache).summary == outcome.summary


def test_a_run_inside_a_folder_of_a_mixture_would_become_data(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text\n" * 500)
    (tmp_path / "b.txt").write_text("text\n" * 500)
    source = f"mix:{tmp_path / 'b.txt'}=1;{tmp_path / 'texts'}=1"
    with pytest.raises(InputError, match="a run inside the data folder would become data"):
        run(source, tmp_path / "texts" / "run", tmp_path / "cache")


def test_a_parquet_file_is_drawn_from_for_two_and_a_half_epochs(
    tmp_path: Path, cache: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"story {i}: it is told once more.\n" for i in range(35)]
    parquet.write_table(
        pyarrow.table({"text": texts}), tmp_path / "stories.parquet", row_group_size=10
    )
    steps = 45  # of four rows of sixteen tokens
    outcome = run(
        str(tmp_path / "stories.parquet"), tmp_path / "run", cache, max_steps=steps, eval_every=9
    )
    assert outcome.stopped_because == "max_steps"
    assert outcome.summary["tokens"] > 2.5 * outcome.summary["data"]["train_tokens"] > 2000
