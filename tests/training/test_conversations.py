"""Training on conversations: the loss and its gradient are those of the answers, however they are batched."""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minilm.checkpoint import load, save_weights
from minilm.config import ModelConfig, TrainConfig
from minilm.data.conversations import Conversations, prepare_conversations
from minilm.errors import ConfigError, CorpusError, InputError
from minilm.generation.generate import generate
from minilm.model.transformer import Transformer
from minilm.operations.evaluate import evaluate
from minilm.operations.merge import merge
from minilm.runs import files as run_files
from minilm.text.chat_template import PLAIN, ChatTemplate, read_chat_template
from minilm.text.corpora import open_corpus
from minilm.text.tokenizers import ByteTokenizer
from minilm.training.data_source import DataSource
from minilm.training.finish import Outcome
from minilm.training.resume_state import Progress
from minilm.training.run_spec import RunSpec
from minilm.training.runtime import resolve
from minilm.training.signals import StopRequest
from minilm.training.train import finetune, resume, train
from minilm.training.train_step import TrainStep
from tests.conftest import TINY_MODEL, TINY_SETTINGS
from tests.text.test_answers import CHATML, library

SETTINGS = TINY_SETTINGS | {"max_steps": 8, "eval_every": 4, "sample_tokens": 4}
SHORTEST = {"max_steps": 1, "eval_every": 1, "sample_tokens": 0}
MODEL = {"context_length": 64}
SHORT = ChatTemplate("{% for m in messages %}{{ m['content'] }}{% endfor %}", name="short")


def write(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    lines = (json.dumps({"prompt": question, "completion": answer}) for question, answer in pairs)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def questions(count: int) -> list[tuple[str, str]]:
    choose = random.Random(0)
    numbers = [(choose.randint(0, 99), choose.randint(0, 99)) for _ in range(count)]
    return [(f"{a} or {b}?", f"{max(a, b)}") for a, b in numbers]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("chat") / "chat.jsonl", questions(120))


@pytest.fixture
def tune(tiny_run: Path, chat: Path, cache: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(name: str, base: Path = tiny_run, settings: Any = None, **options: Any) -> Outcome:
        return finetune(
            base,
            data=str(options.pop("data", chat)),
            run_dir=tmp_path / name,
            model=MODEL,
            settings=SETTINGS | (settings or {}),
            cache=cache,
            **options,
        )

    return run


def step_of(
    tmp_path: Path, pairs: Sequence[tuple[str, str]], **settings: int
) -> tuple[TrainStep, Conversations]:
    """The first step of a run over these conversations, each of which fills a row of 16."""
    path = write(tmp_path / "chat.jsonl", pairs)
    config = TrainConfig(
        **{"device": "cpu", "compile": "off", "dtype": "float32", "optimizer": "adamw"} | settings
    )
    data = prepare_conversations(
        open_corpus(str(path), cache=tmp_path),
        tokenizer=ByteTokenizer(),
        template=SHORT,
        val_fraction=0.01,
        split="position",
        context_length=16,
    )
    model = Transformer(ModelConfig(vocab_size=256, **TINY_MODEL))
    source = DataSource(str(path), (), tmp_path, chat_template="short")
    spec = RunSpec(tmp_path / "run", model, config, data, source, resolve(config, 1.0))
    return TrainStep(spec, Progress(), StopRequest()), data


def gradients(step: TrainStep) -> tuple[float, dict[str, torch.Tensor]]:
    step.loss_sum.zero_()
    step._accumulate_gradients(step._micro_batches())
    return float(step.loss_sum), {name: p.grad.clone() for name, p in step.model.named_parameters()}


def rows(*labels: int) -> list[tuple[str, str]]:
    """Conversations of 17 tokens with so many of them answers, and one to validate."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [
        ("?" * (16 - count) + letters[row], letters[row : row + count])
        for row, count in enumerate(labels)
    ]
    return [*pairs, ("x", "y")]


@pytest.mark.parametrize(
    ("labels", "batches"),
    [((2, 10), ((2, 1), (1, 2))), ((2, 10, 5, 16), ((4, 1), (2, 2), (1, 4)))],
)
def test_the_gradient_is_that_of_the_joint_batch(
    tmp_path: Path, labels: tuple[int, ...], batches: tuple[tuple[int, int], ...]
) -> None:
    results = []
    for batch_size, accumulation in batches:
        step, data = step_of(
            tmp_path, rows(*labels), batch_size=batch_size, gradient_accumulation=accumulation
        )
        assert len(data.train_rows.rows) == len(labels)
        assert sum(batch.labels for batch in step._micro_batches()) == sum(labels)
        results.append(gradients(step))
    (loss, joint), *others = results
    for other, accumulated in others:
        assert math.isclose(loss, other, rel_tol=1e-6)
        for name, gradient in joint.items():
            torch.testing.assert_close(accumulated[name], gradient, atol=1e-7, rtol=1e-4)
    # And that is the mean over the answers' tokens, computed one by one.
    model, nats = step.model, 0.0
    for start, end in itertools.pairwise(data.train_rows.starts.tolist()):
        tokens = torch.from_numpy(data.train_rows.tokens[start:end].astype("int64"))
        with torch.no_grad():
            chances = model(tokens[None, :-1])[0].double().log_softmax(-1)
        for place in range(1, end - start):
            if data.train_rows.are_answers[start + place]:
                nats -= float(chances[place - 1, tokens[place]])
    assert math.isclose(loss, nats / sum(labels), rel_tol=1e-5)


def test_a_step_that_reaches_into_the_next_epoch_is_divided_by_what_it_holds(
    tmp_path: Path,
) -> None:
    labels = (2, 3, 4, 5, 6)
    step, _ = step_of(tmp_path, rows(*labels), batch_size=1, gradient_accumulation=4)
    step.run()
    second = step._micro_batches()
    assert [batch.arrays[0].shape for batch in second] == [(1, 16)] * 4
    loss, _ = gradients(step)
    with torch.no_grad():
        losses = [float(step.loss(step.model, *step.batches.tensors(each))) for each in second]
    counts = [batch.labels for batch in second]
    assert len(set(counts)) > 1
    expected = sum(a * b for a, b in zip(losses, counts, strict=True)) / sum(counts)
    assert math.isclose(loss, expected, rel_tol=1e-5)


def answers_loss(run: Path, template: ChatTemplate, pairs: Sequence[tuple[str, str]]) -> float:
    """Nats a token of the answers, each conversation alone, without what this program packs with."""
    model, tokenizer = load(run)
    nats, count = 0.0, 0
    dialogues = ([{"role": "user", "content": question}] for question, _ in pairs)
    prompts = template.render_all(dialogues, add_generation_prompt=True)
    for text, (_, answer) in zip(prompts, pairs, strict=True):
        prompt = tokenizer.encode_chat(text)
        learned = [*tokenizer.encode_chat(answer), tokenizer.end_of_text]
        tokens = torch.tensor([*prompt, *learned])[-65:]
        with torch.no_grad():
            chances = model(tokens[None, :-1])[0].double().log_softmax(-1)
        for place in range(len(tokens) - len(learned), len(tokens)):
            nats -= float(chances[place - 1, tokens[place]])
        count += len(learned)
    return nats / count


def test_a_run_says_what_it_learned_and_how_it_was_written(
    tune: Any, cache: Path, chat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minilm")
    outcome = tune("run", settings={"max_steps": 24, "eval_every": 24}, freeze=["embedding"])
    run, data = outcome.run_dir, outcome.summary["data"]
    assert data["kind"] == "conversations"
    assert f"{data['train_tokens']:,} training tokens of conversations" in caplog.text
    answers = f"{data['val_answer_tokens']:,} validation tokens of answers"
    assert (
        f"{data['train_answer_tokens']:,} training tokens of answers and {answers}" in caplog.text
    )
    assert f"an evaluation after every 24 steps, over {answers}" in caplog.text
    assert data["chat_template"] == "plain"
    assert data["conversations"] == 120
    assert data["truncated"] == data["dropped"] == 0
    template = read_chat_template(run)
    assert template is not None
    assert template.source == PLAIN.source
    assert json.loads((run / "config.json").read_text())["began_with"]["chat_template"] == "plain"
    losses = [
        json.loads(line)["val_loss"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "val_loss" in line
    ]
    assert losses[-1] < losses[0] - 0.5
    own = evaluate(run, device="cpu", dtype="float32", cache=cache)
    assert own.loss == pytest.approx(outcome.summary["best_val_loss"], abs=1e-6)
    assert own.tokens == data["val_answer_tokens"]
    assert own.text == "the validation split of chat (its chat template)"
    assert own.extent.startswith(f"over {own.tokens:,} tokens of answers, the validation split of")
    whole = evaluate(run, str(chat), device="cpu", dtype="float32", cache=cache)
    assert whole.tokens == data["train_answer_tokens"] + data["val_answer_tokens"]
    assert whole.loss == pytest.approx(answers_loss(run, template, questions(120)), abs=1e-5)
    assert whole.text == "all of chat (its chat template)"


def test_a_stopped_run_resumes_bit_for_bit(tune: Any, cache: Path, sigterm_after: Any) -> None:
    options = {"lora_rank": 2, "quantize_base": "int8"}
    settings = {"gradient_accumulation": 2, "batch_size": 2}
    whole = tune("whole", settings=settings, **options).run_dir
    with sigterm_after(5):
        part = tune("part", settings=settings, **options)
    assert part.summary["steps"] == 5
    with pytest.raises(ConfigError, match="chat_template: given with --resume as "):
        resume(part.run_dir, options={"chat_template": "other.jinja"}, cache=cache)
    resumed = resume(part.run_dir, options={"chat_template": "plain"}, cache=cache)
    assert resumed.summary["steps"] == 8
    assert resumed.summary["data"] == json.loads((whole / "summary.json").read_text())["data"]
    for path in ("adapter/adapter_model.safetensors", "resume/step-000000008.safetensors"):
        one, other = (load_file(run / path) for run in (whole, part.run_dir))
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), path


def test_a_template_that_writes_something_else_ends_a_resume(tune: Any, cache: Path) -> None:
    run = tune("run", settings=SHORTEST).run_dir
    (run / "summary.json").unlink()
    (run / "chat_template.jinja").write_text(SHORT.source, encoding="utf-8")
    with pytest.raises(InputError, match=r"chat_template\.jinja: another text than when the run"):
        resume(run, cache=cache)


@pytest.fixture(scope="module")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template of its own, whose turns end with another token than its texts."""
    folder = tmp_path_factory.mktemp("base") / "base"
    folder.mkdir()
    tokenizer = library(beginning=True)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, **TINY_MODEL | MODEL)
    run_files.write_record(folder, run_files.RunRecord(config, TrainConfig()))
    model = Transformer(config)
    save_weights(folder / run_files.WEIGHTS, model, {"format": "pt"})
    tokenizer.save(folder / run_files.TOKENIZER)
    special = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(special), encoding="utf-8")
    generation = {"eos_token_id": tokenizer.special_tokens["</s>"], "temperature": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


def test_the_template_of_the_base_goes_on_and_its_end_of_a_turn_is_saved(
    tune: Any, chat_base: Path, cache: Path, tmp_path: Path
) -> None:
    outcome = tune("run", base=chat_base, lora_rank=2)
    run = outcome.run_dir
    assert outcome.summary["data"]["chat_template"] == "base"
    template = read_chat_template(run)
    assert template is not None
    assert template.source == CHATML
    model, tokenizer = load(run)
    special = tokenizer.special_tokens
    saved = json.loads((run / "generation_config.json").read_text())
    assert saved == {"eos_token_id": [special["</s>"], special["<|im_end|>"]], "temperature": 0.5}
    assert special["<|im_end|>"] in tokenizer.other_ends
    with torch.no_grad():  # a model that ends its turn at once
        model.final_norm.bias += 100 * model.lm_head.weight[special["<|im_end|>"]]
    assert generate(model, tokenizer, "one", max_new_tokens=8, temperature=0) in ("", "one")
    assert resume(run, settings={"max_steps": 9}, cache=cache).summary["steps"] == 9
    merged = merge(run, tmp_path / "merged", cache=cache).out
    assert read_chat_template(merged) == ChatTemplate(
        CHATML, template.special, str(merged / "chat_template.jinja")
    )
    assert special["<|im_end|>"] in load(merged).tokenizer.other_ends
    losses = [
        evaluate(each, device="cpu", dtype="float32", cache=cache).loss for each in (run, merged)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_few_conversations_are_not_repeated_within_a_batch(
    tiny_run: Path, cache: Path, tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", questions(4))
    settings = {"max_steps": 1, "sample_tokens": 0, "compile": "off"}
    outcome = finetune(
        tiny_run,
        data=str(few),
        run_dir=tmp_path / "run",
        model=MODEL,
        settings=settings,
        cache=cache,
    )
    assert outcome.summary["tokens"] == outcome.summary["data"]["train_tokens"]


def test_another_template_takes_its_place(tune: Any, chat_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("[{{ messages | map(attribute='content') | join('] [') }}", encoding="utf-8")
    outcome = tune("run", base=chat_base, chat_template=path, settings=SHORTEST)
    assert (outcome.run_dir / "chat_template.jinja").read_text() == path.read_text()
    assert outcome.summary["data"]["chat_template"] == str(path)
    plain = tune("plain", base=chat_base, chat_template="plain", settings=SHORTEST)
    assert (plain.run_dir / "chat_template.jinja").read_text() == PLAIN.source
    assert plain.summary["data"]["chat_template"] == "plain"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chat_template": "missing.jinja"}, r"chat_template: .*missing\.jinja: No such file"),
        (
            {"data": "text"},
            r"chat_template: given with .*, a text, expected JSON Lines of messages",
        ),
        ({"settings": {"bpe_dropout": 0.1}}, r"bpe_dropout: 0\.1 with conversations, expected 0"),
        ({"settings": {"initial_context_length": 8}}, "initial_context_length: 8 with conv"),
        ({"settings": {"initial_batch_size": 1}}, "initial_batch_size: 1 with conversations"),
    ],
)
def test_what_does_not_go_with_conversations_is_refused(
    tune: Any, text_file: Path, tmp_path: Path, options: Any, message: str
) -> None:
    if "data" in options:
        options = {"data": text_file, "chat_template": "plain"}
    with pytest.raises(ConfigError, match=message):
        tune("run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"lora_rank": 999},
        {"lora_rank": 2, "targets": ["no"]},
        {"freeze": ["no"]},
        {"settings": {"bpe_dropout": 0.1}},
    ],
)
def test_an_option_is_refused_before_a_note(
    tune: Any, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError):
        tune("run", **options)
    assert "no chat template" not in caplog.text


def test_training_begins_with_text(chat: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"conversations, expected text; `minilm finetune`"):
        train(data=str(chat), run_dir=tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()
