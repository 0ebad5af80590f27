"""Models to transformers and back: the same logits, the same greedy tokens, the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from minilm.checkpoint import load
from minilm.cli.convert import main
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation
from minilm.generation.sampling import Sampling
from minilm.text.tokenizer_training import build_tokenizer
from tests.conftest import make_text
from tests.interop.published_tokenizers import CHAT_TEMPLATE, save_tokenizer
from tests.interop.shapes import SHAPES, TINY, make_run

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
Capture = pytest.CaptureFixture[str]


def converted(source: Path, to: str, out: Path) -> Path:
    assert main([str(source), "--to", to, "--out", str(out)]) == 0
    return out


def tokens_of(seed: int, length: int) -> torch.Tensor:
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_same(tmp_path: Path, name: str) -> None:
    class_name, fields = SHAPES[name]
    source = make_run(tmp_path / "run", fields)
    folder = converted(source, "huggingface", tmp_path / "out")
    loaded = load(source)
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(hf_model).__name__ == class_name
    tokens = tokens_of(0, 32)
    with torch.no_grad():
        expected = loaded.model(tokens)
        assert expected.std() > 0.5
        torch.testing.assert_close(hf_model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    prompt = tokens[0, :6]
    generated = hf_model.generate(
        prompt[None], max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    generation = Generation(
        FastDecoder(loaded.model), loaded.tokenizer, [prompt.tolist()], Sampling(temperature=0)
    )
    while generation.unfinished and len(generation.sequences[0]) < 26:
        generation.step()
    assert generation.sequences[0] == generated[0].tolist()[: len(generation.sequences[0])]
    assert len(generation.sequences[0]) > 10


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_is_the_same_file(tmp_path: Path, name: str) -> None:
    source = make_run(tmp_path / "run", SHAPES[name][1])
    folder = converted(source, "huggingface", tmp_path / "out")
    back = converted(folder, "minilm", tmp_path / "back")
    first, second = load(source).model, load(back).model
    added = second.state_dict().keys() - first.state_dict().keys()
    assert bool(added) == (name == "gpt2-no-biases")
    for key, value in second.state_dict().items():
        expected = torch.zeros_like(value) if key in added else first.state_dict()[key]
        assert torch.equal(value, expected), key
    assert second.state_dict().keys() >= first.state_dict().keys()
    assert (back / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


TEXTS = [
    "the cat sees the dog, don't  1234",
    "e\u0301t\u00e9 \u2014 \u4e16\u754c \U0001f642\n\n\tx",
    "\u0100\u0100 <|x|> ",
    "a",
]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_transformers_encodes_the_same(
    tmp_path: Path, capsys: Capture, name: str, kind: str
) -> None:
    class_name, fields = SHAPES[name]
    source = make_run(tmp_path / "run", fields | {"vocab_size": 400})
    texts = [make_text(2000)]
    tokenizer = build_tokenizer(kind, lambda: iter(texts), 400 if kind == "bpe" else None)
    tokenizer.save(source / "tokenizer.json")
    arguments = [str(source), "--to", "huggingface", "--out", str(tmp_path / "out")]
    if name == "qwen2-window":  # transformers 5 puts Qwen2's tokenizer in the place of any other
        assert main(arguments) == 2
        assert "Qwen2's own, which transformers puts in its place" in capsys.readouterr().err
        return
    assert main(arguments) == 0
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert hf_tokenizer(text).input_ids == tokenizer.encode(text).tolist(), text
        ids = hf_tokenizer(text).input_ids
        assert hf_tokenizer.decode(ids) == tokenizer.decode(ids) == text
    ends = (hf_tokenizer.bos_token_id, hf_tokenizer.eos_token_id, hf_tokenizer.pad_token_id)
    assert ends == (tokenizer.end_of_text,) * 3
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert hf_model.config.pad_token_id == hf_model.generation_config.pad_token_id == ends[0]
    if name == "qwen2":
        assert type(hf_model).__name__ == "LlamaForCausalLM"
        tokens = tokens_of(0, 32)
        with torch.no_grad():
            expected = load(source).model(tokens)
            torch.testing.assert_close(hf_model(tokens).logits, expected, rtol=1e-4, atol=1e-4)
    else:
        assert type(hf_model).__name__ == class_name


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_a_pipeline_takes_a_batch(tmp_path: Path, kind: str) -> None:
    source = make_run(tmp_path / "run", TINY | {"vocab_size": 400})
    texts = [make_text(2000)]
    tokenizer = build_tokenizer(kind, lambda: iter(texts), 400 if kind == "bpe" else None)
    tokenizer.save(source / "tokenizer.json")
    folder = converted(source, "huggingface", tmp_path / "out")
    generator = transformers.pipeline("text-generation", model=str(folder))
    prompts = ["the cat", "the dog sees"]
    settings = {"max_new_tokens": 5, "do_sample": False, "return_full_text": True}
    answers = [row[0]["generated_text"] for row in generator(prompts, batch_size=2, **settings)]
    alone = [generator(prompt, **settings)[0]["generated_text"] for prompt in prompts]
    assert answers == alone
    assert all(answer.startswith(prompt) for answer, prompt in zip(answers, prompts, strict=True))


def test_a_chat_template_is_kept_both_ways(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", SHAPES["llama"][1] | {"vocab_size": 520})
    save_tokenizer(source, "llama3")
    folder = converted(source, "huggingface", tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|turn|>hello"
    back = converted(folder, "minilm", tmp_path / "back")
    assert (back / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_every_scaling_of_gpt_neox_is_said_as_transformers_4_reads_it(tmp_path: Path) -> None:
    source = make_run(tmp_path / "run", SHAPES["neox-linear"][1])
    folder = converted(source, "huggingface", tmp_path / "out")
    scaling = json.loads((folder / "config.json").read_text())["rope_scaling"]
    assert (scaling["rope_type"], scaling["factor"]) == ("linear", 4.0)


@pytest.mark.parametrize("stored", [False, True])
def test_starcoder2_without_a_word_on_its_head(tmp_path: Path, stored: bool) -> None:
    """Tied by default, unless a head with values of its own is there: as transformers 5 has it."""
    fields = SHAPES["starcoder2"][1] | {"tied_embeddings": not stored}
    source = make_run(tmp_path / "run", fields)
    folder = converted(source, "huggingface", tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    back = load(converted(folder, "minilm", tmp_path / "back")).model
    assert back.config.tied_embeddings is not stored
    if stored and transformers.__version__.startswith("4."):
        pytest.skip("transformers 4 ties it in any case")
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokens = tokens_of(0, 32)
    with torch.no_grad():
        torch.testing.assert_close(hf_model(tokens).logits, back(tokens), rtol=1e-4, atol=1e-4)
