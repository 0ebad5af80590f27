"""plan(): layouts and their order, cards that are not known, and runs that were published."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from minilm.cli.plan import main
from minilm.config import ModelConfig
from minilm.config.presets import preset
from minilm.costs.rank_memory import rank_memory
from minilm.errors import InputError
from minilm.operations.plan import parse_count, plan
from minilm.operations.plan_result import SPEED, LayoutPlan, Plan
from minilm.operations.plan_text import plan_blocks
from tests.conftest import ROOT

SCALING = runpy.run_path(str(ROOT / "scripts" / "tools" / "scaling.py"))
LLAMA: dict[str, Any] = SCALING["EXAMPLES"]["LLAMA_2_7B"]
JOB: dict[str, Any] = {"gpus": 8, "gpu": "H100", "tokens": "10B"}


@pytest.fixture(scope="module")
def gpt2() -> Plan:
    return plan("gpt2", **JOB, price=2.0)


def model_folder(folder: Path, fields: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder / "config.json")


def test_what_does_not_fit_has_no_speed() -> None:
    planned = plan("gpt2", gpus=1, gpu="H100", tokens="1B", gpu_memory=2**30).to_dict()
    assert planned["best"] is None
    (layout,) = planned["layouts"]
    assert (layout["fits"], layout["largest_micro_batch"]) == (False, 0)
    assert layout["memory"]["total"] > 2**30
    assert all(layout[name] is None for name in SPEED)
    (fitting,) = plan("gpt2", gpus=1, gpu="H100", tokens="1B").to_dict()["layouts"]
    assert all(fitting[name] is not None for name in SPEED if name != "cost")  # no price


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_a_script_can_tell_that_nothing_fits(
    output: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["gpt2", "--gpus", "1", "--gpu", "H100", "--tokens", "1B", *output]
    assert main(job) == 0
    capsys.readouterr()
    assert main([*job, "--gpu-memory", "1GB"]) == 1
    assert ('"fits": false' if output else "none fits") in capsys.readouterr().out


def test_each_layout(gpt2: Plan) -> None:
    assert [each.mesh.name for each in gpt2.layouts] == ["ddp", "fsdp", "tp 4 fsdp 2"]
    assert gpt2.job.layout.count() == 124_439_808
    assert gpt2.best is not None
    assert gpt2.best.tokens_per_second == max(each.tokens_per_second for each in gpt2.layouts)
    for layout in gpt2.layouts:
        assert layout.fits
        assert layout.micro_batch <= layout.largest_micro_batch
        assert layout.required <= gpt2.job.machines.memory
        tokens = layout.micro_batch * layout.micro_steps * 1024 * layout.mesh.data_ranks
        assert layout.step_tokens == tokens
        assert tokens == pytest.approx(500_000, rel=0.05)
        # All cards compute all the time that a step computes.
        flops = tokens * gpt2.flops_per_token / (8 * 0.37 * 989e12)
        assert layout.time.computing == pytest.approx(flops)


def test_how_many_ranks_divide_a_block() -> None:
    assert plan("gpt2", **JOB, tensor_parallel=2).layouts[-1].mesh.name == "tp 2 fsdp 4"
    assert plan("gpt2", **JOB, tensor_parallel=1).layouts[-1].mesh.name == "fsdp"
    in_pairs = plan("gpt2", **JOB, gpus_per_server=2)
    assert [each.mesh.name for each in in_pairs.layouts] == [
        "ddp",
        "fsdp",
        "hsdp 4x2",
        "tp 2 fsdp 4",
    ]
    assert in_pairs.job.machines.servers == 4


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    def required(batch: int) -> LayoutPlan:
        step_tokens = batch * 1024 * 8
        return plan("gpt2", **JOB, batch_tokens=step_tokens, gpu_memory=30 * 10**9).layouts[0]

    alone = required(1).largest_micro_batch
    assert (required(alone).micro_batch, required(alone).micro_steps) == (alone, 1)
    assert required(alone).required <= 30 * 10**9
    # More are several micro-steps, which accumulate gradients beside the buckets.
    assert required(alone + 1).micro_steps == 2
    accumulating = required(alone + 1).largest_micro_batch
    assert accumulating < alone
    several = required(2 * accumulating)
    assert (several.micro_batch, several.micro_steps) == (accumulating, 2)
    assert several.memory.gradients > required(alone).memory.gradients
    assert several.required <= 30 * 10**9


def test_where_whole_gradients_do_not_fit_a_step_is_one_micro_step() -> None:
    result = plan("llama-3-70b", **JOB | {"gpus": 64})
    best = result.best
    assert best is not None
    assert best.micro_steps == 1
    assert best.step_tokens == best.micro_batch * 64 * 8192 < result.job.step_tokens
    text = " ".join(
        line for block in plan_blocks(result) if isinstance(block, list) for line in block
    )
    assert "2,000,000 wished; whole gradients, for several micro-steps, do not fit" in text


def test_a_step_of_the_wished_size_is_preferred_to_a_faster_one() -> None:
    # Of the whole card a step of the wished size would fit without tensor parallelism too.
    card = {"gpu": "A100-40GB", "gpu_memory": 36 * 10**9}
    result = plan("llama-3-8b", **JOB | {"gpus": 64} | card)
    best = result.best
    assert best is not None
    assert (best.mesh.name, best.is_cut) == ("tp 8 fsdp 8", False)
    assert best.step_tokens == pytest.approx(2e6, rel=0.1)
    cut = [each for each in result.layouts if each.is_cut]
    assert [each.mesh.name for each in cut] == ["fsdp", "hsdp 8x8"]
    for each in cut:
        assert (each.micro_steps, each.micro_batch) == (1, each.largest_micro_batch)
        assert each.tokens_per_second > best.tokens_per_second
    text = " ".join(x for block in plan_blocks(result) if isinstance(block, list) for x in block)
    assert "tp 8 fsdp 8 is the fastest that fits with steps of the wished size" in text
    assert "fsdp, hsdp 8x8: steps of fewer tokens than wished" in text
    assert [each["step_is_cut"] for each in result.to_dict()["layouts"]] == [
        *(False, True, True, False)
    ]


def test_hours_by_hand() -> None:
    """One card of 100 TFLOP/s at half of them, no links: FLOPs / 50e12."""
    result = plan(
        preset("gpt2"), gpus=1, gpu="mine", tokens=10**9, mfu=0.5, gpu_memory=10**11, gpu_flops=1e14
    )
    assert result.flops_per_token == 6 * (124_439_808 - 1024 * 768 - 121_344) + 12 * 12 * 768 * 1024
    (layout,) = result.layouts
    assert layout.mesh.name == "one GPU"
    tokens = math.ceil(1e9 / layout.step_tokens) * layout.step_tokens  # whole steps
    assert layout.seconds == pytest.approx(result.flops_per_token * tokens / 50e12)
    assert result.gpu_hours(layout) == pytest.approx(layout.seconds / 3600)
    assert result.utilisation(layout) == pytest.approx(0.5)
    assert result.kilowatt_hours(layout) is None
    assert result.cost(layout) is None


def test_energy_and_cost(gpt2: Plan) -> None:
    layout = gpt2.layouts[0]
    assert gpt2.gpu_hours(layout) == pytest.approx(8 * layout.seconds / 3600)
    assert gpt2.kilowatt_hours(layout) == pytest.approx(0.7 * gpt2.gpu_hours(layout))
    assert gpt2.cost(layout) == pytest.approx(2 * gpt2.gpu_hours(layout))


def test_both_conventions_of_attention(gpt2: Plan) -> None:
    # In 12 layers 4 FLOPs a pair of tokens and element, three times: with 1,024 others, or 512.5 on average.
    a_span = 3 * 12 * 4 * 768
    difference = gpt2.flops_per_token - gpt2.causal_flops_per_token
    assert difference == pytest.approx(a_span * (1024 - 512.5))
    assert gpt2.to_dict()["flops"]["attention"] == "full"


def test_more_cards_take_less_time_and_not_less_memory_than_is_there() -> None:
    days = [plan("llama-3-8b", **JOB | {"gpus": n, "tokens": "1T"}) for n in (8, 64, 1024)]
    seconds = [result.best.seconds for result in days if result.best is not None]
    assert seconds == sorted(seconds, reverse=True)
    assert len(seconds) == 3
    small = plan("llama-3-70b", **JOB)
    assert small.best is None
    *_, answer = (block for block in plan_blocks(small) if isinstance(block, list))
    text = "".join(answer)
    least = min(each.required for each in small.layouts) / 2**30
    assert f"nothing fits: one sequence needs {least:.1f} GiB a card at least (fsdp)" in text
    assert {each.largest_micro_batch for each in small.layouts} == {0}
    assert small.to_dict()["best"] is None


def test_recomputing_where_nothing_else_fits() -> None:
    result = plan("llama-3-70b", **JOB | {"gpus": 1024})
    (sharded,) = [each for each in result.layouts if each.mesh.name == "fsdp"]
    assert sharded.fits
    assert sharded.checkpointing
    # Four passes for three.
    assert result.utilisation(sharded) <= result.job.mfu * 3 / 4 + 1e-9


def test_a_config_of_transformers_is_planned_as_minilm_runs_it(tmp_path: Path) -> None:
    result = plan(model_folder(tmp_path, LLAMA), **JOB)
    assert result.job.layout.count() == 6_738_415_616
    assert result.job.config is not None
    fsdp = result.layouts[1]
    again = rank_memory(
        fsdp.mesh,
        result.job.layout,
        result.job.config,
        batch=fsdp.micro_batch,
        context=4096,
        checkpointing=fsdp.checkpointing,
        accumulating=fsdp.micro_steps > 1,
    )
    assert again == fsdp.memory


def test_an_architecture_that_minilm_does_not_run(tmp_path: Path) -> None:
    fields = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    result = plan(model_folder(tmp_path, fields), **JOB | {"gpus": 64})
    assert result.job.config is None
    assert result.to_dict()["activations"] == "estimate"
    assert [each.mesh.name for each in result.layouts] == ["ddp", "fsdp", "hsdp 8x8"]


# What the GPU hours of a published run are as an MFU, to a percent. llm.c tells of 50% for 1558M.
REACHED = {
    "GPT-2 124M": 0.60,
    "GPT-2 1558M": 0.50,
    "Llama 2 7B": 0.44,
    "Llama 2 70B": 0.46,
    "Llama 3 8B": 0.19,
    "Llama 3 70B": 0.32,
}


@pytest.mark.parametrize("run", SCALING["PUBLISHED"], ids=lambda run: run.model)
def test_published_runs(run: Any) -> None:
    result = run.plan()
    full, causal = run.reached(result)
    assert full == pytest.approx(REACHED[run.model], abs=0.01)
    assert causal < full
    if run.stated_mfu is not None:
        other = run.plan(mfu=run.stated_mfu)
        assert other.best is not None
        assert other.gpu_hours(other.best) == pytest.approx(run.hours, rel=0.05)


def test_the_peak_of_an_h100_is_that_of_llama_3_1() -> None:
    # Grattafiori et al. 2024, table 4: 430, 400 and 380 TFLOP/s a card are 43, 41 and 38%.
    peak = plan("gpt2", **JOB).job.machines.flops
    for tflops, stated in ((430, 0.43), (400, 0.41), (380, 0.38)):
        assert tflops * 1e12 / peak == pytest.approx(stated, abs=0.01)


def test_an_unknown_card_has_no_peak_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["gpt2", "--gpus", "2", "--tokens", "1B", "--gpu", "MI300X"]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "'MI300X', an unknown card" in message
    assert message.endswith("--gpu-memory, --gpu-flops, --gpu-link\n")
    numbers = ["--gpu-memory", "192GB", "--gpu-flops", "1307T", "--gpu-link", "448", "--json"]
    assert main([*arguments, *numbers]) == 0
    result = json.loads(capsys.readouterr().out)
    machines = result["machines"]
    assert (machines["flops"], machines["link"], machines["watts"]) == (1307e12, 448e9, None)
    assert result["layouts"][0]["kilowatt_hours"] is None


BAD = {
    "--gpus": ["gpt2", "--gpus", "0"],
    "--tokens": ["gpt2", "--tokens", "10GB"],
    "--tokens: 'x'": ["gpt2", "--tokens", "x"],
    "--mfu": ["gpt2", "--mfu", "40"],
    "--price": ["gpt2", "--price", "nan"],
    "--context": ["gpt2", "--context", "2048"],
    "--batch-tokens": ["gpt2", "--batch-tokens", "-1"],
    "--batch-tokens: 2,000,000,000, expected at most": ["gpt2", "--batch-tokens", "2B"],
    "--gpu-memory": ["gpt2", "--gpu-memory", "80"],
    "--gpu-link": ["gpt2", "--gpu-link", "0"],
    "--gpu-flops: 989 FLOP/s": ["gpt2", "--gpu-flops", "989"],
    "--gpu-watts: 1e+308 W": ["gpt2", "--gpu-watts", "1e308", "--json"],
    "--price: 1e+308": ["gpt2", "--price", "1e308", "--json"],
    "--mfu: 1e-300": ["gpt2", "--mfu", "1e-300", "--json"],
    "--gpu: 'A100', an unknown card, expected one of A100-40GB, A100-80GB;": [
        "gpt2",
        "--gpu",
        "A100",
    ],
    "--tokens: '10Gi', expected a positive number up to 1e18, such as 125M, 10B": [
        *("gpt2", "--tokens", "10Gi")
    ],
    "--network": ["gpt2", "--gpu", "L40S", "--gpus", "16"],
    "--dtype: bfloat16": ["gpt2", "--gpu", "V100-32GB"],
    "--tensor-parallel: 8": ["gpt2", "--tensor-parallel", "8"],
    "--tensor-parallel: 0": ["gpt2", "--tensor-parallel", "0"],
    "--preset, TARGET, --params: none": [],
    "--preset, TARGET, --params: both": ["gpt2", "--params", "1B"],
    "--preset: a TARGET": ["gpt2", "--preset", "gpt2"],
    "--vocab-size, --tied-embeddings": ["gpt2", "--vocab-size", "100"],
    "--vocab-size: 0": ["--params", "1B", "--vocab-size", "0"],
    "--params: 1,000": ["--params", "1000"],
    "missing-model": ["missing-model"],
    "arguments": ["gpt2", "--gpu"],
}


@pytest.mark.parametrize("where", BAD)
def test_bad_input_is_one_line(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    others = {"--gpus": "8", "--gpu": "H100", "--tokens": "1B"}
    arguments = [
        x for name, value in others.items() if name not in BAD[where] for x in (name, value)
    ]
    assert main([*arguments, *BAD[where]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {where}")
    assert captured.err.count("\n") == 1


def test_why_a_layout_is_missing() -> None:
    def notes(target: Any, gpus: int, **options: Any) -> list[str]:
        return list(plan(target, **JOB | {"gpus": gpus}, **options).notes)

    no_dropout = replace(preset("gpt2"), dropout=0.0)
    assert notes(no_dropout, 1) == notes(no_dropout, 64) == []
    assert notes(no_dropout, 8) == ["no hsdp: all cards are in one server"]
    assert notes(no_dropout, 12) == ["no hsdp: 12 cards do not fill servers of 8"]
    assert notes(no_dropout, 2, gpus_per_server=1)[0] == "no hsdp: a server has one card"
    (heads,) = notes(replace(preset("gpt2-xl"), dropout=0.0), 64)
    assert "divides 64 cards, servers of 8, 25 key/value heads" in heads
    assert notes("gpt2", 64) == ["tensor parallel needs --model.dropout 0, not 0.1"]
    convolved = replace(no_dropout, convolution=2)
    assert notes(convolved, 64) == ["no tensor parallel: minilm does not divide a convolution"]
    with pytest.raises(InputError, match=r"^--tensor-parallel: 2, expected 1 for a model with"):
        notes(convolved, 64, tensor_parallel=2)


@pytest.mark.parametrize("text", ["10B", "10 B", "10billion", "1e10", "10_000_000_000", "10000M"])
def test_spellings_of_a_number_of_tokens(text: str) -> None:
    assert parse_count(text, "--tokens") == 10**10


def test_the_json_has_every_number_of_every_layout(
    gpt2: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--preset", "gpt2", "--gpus", "8", "--gpu", "h100", "--tokens", "10B"]
    assert main([*arguments, "--price", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(json.dumps(gpt2.to_dict()))
    assert result["schema"] == "minilm.plan/1"
    for row, layout in zip(result["layouts"], gpt2.layouts, strict=True):
        parts = dict(row["memory"])
        assert parts.pop("total") == sum(parts.values()) == layout.required
        assert [asdict(each) for each in layout.transfers] == row["transfers"]


@pytest.mark.parametrize(
    "model", [["llama-3-70b"], ["--params", "125M", "--tied-embeddings"], ["gpt2"]]
)
def test_the_tables_fit_into_80_columns(
    model: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*model, "--gpus", "1024", "--gpu", "H100", "--tokens", "15T"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "attention over the full context" in text.replace("\n", " ")
    assert "causal alone" in text.replace("\n", " ")
    assert ("proposed shape" in text) == ("--params" in model)


def test_shapes_are_proposed_and_the_best_is_planned() -> None:
    result = plan(params="125M", tied_embeddings=True, context=1024, **JOB)
    assert len(result.shapes) > 1
    assert result.job.config == result.shapes[0].config
    assert result.job.layout.count() == result.shapes[0].parameters
    shapes = result.to_dict()["shapes"]
    assert ModelConfig(**shapes[0]["config"]) == result.job.config


def test_a_shape_that_is_far_off_or_of_an_odd_width_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def text(params: str) -> str:
        assert main(["--params", params, "--gpus", "8", "--gpu", "H100", "--tokens", "1B"]) == 0
        return capsys.readouterr().out.replace("\n", " ")

    assert "29.8% more than asked for" in text("5M")
    close = text("10M")
    assert "-0.06%" in close
    assert "asked for" not in close
    assert "96 uses matrix units less well" in close
    assert "matrix units" not in text("125M")


def test_torch_is_not_needed() -> None:
    program = (
        "import sys, minilm.cli.plan as c\n"
        "assert c.main(['gpt2', '--gpus', '8', '--gpu', 'H100', '--tokens', '1B']) == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
