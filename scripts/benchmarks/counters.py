"""Other programs that count parameters, each as one small program for the interpreter that has it.

A program gets the target's path and prints one JSON object: its version and the count it came to, or
why it is absent or fails. Its own code is used as it is; only the Hub is left out, which two of them ask
before they look at a model.
"""

from __future__ import annotations

# What every program begins and ends with; WORK stands for the tool's own lines.
_FRAME = """
import json, sys, warnings
warnings.filterwarnings("ignore")
path = sys.argv[1]
try:
    from importlib.metadata import version
{work}
except ImportError as error:
    print(json.dumps({{"absent": str(error)}}))
except Exception as error:
    print(json.dumps({{"failed": f"{{type(error).__name__}}: {{error}}"[:300]}}))
else:
    print(json.dumps({{"version": version({package!r}), "count": int(count)}}))
"""

_META = """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
"""

_WITHOUT_THE_HUB = """
    from types import SimpleNamespace
    estimate.verify_on_hub = lambda *a, **k: SimpleNamespace(config={}, library_name="transformers")
    import contextlib
    with contextlib.redirect_stdout(sys.stderr):
        model = estimate.create_empty_model(path, library_name="transformers")
"""

# Tool: the package, and the lines that count what `path` names.
_TOOLS = {
    "transformers": (
        "transformers",
        _META + "    count = sum(p.numel() for p in model.parameters())\n",
    ),
    "torchinfo": (
        "torchinfo",
        "    import torchinfo\n"
        + _META
        + "    count = torchinfo.summary(model, verbose=0).total_params\n",
    ),
    "accelerate": (
        "accelerate",
        "    from accelerate.commands import estimate\n"
        "    from accelerate.utils import calculate_maximum_sizes\n"
        + _WITHOUT_THE_HUB
        + "    count = calculate_maximum_sizes(model)[0] / 4  # float32\n",
    ),
    "calflops": (
        "calflops",
        "    import torch\n    from calflops import calculate_flops, estimate\n"
        + _WITHOUT_THE_HUB
        + "    tokens = {'input_ids': torch.zeros(1, 8, dtype=torch.long, device='meta')}\n"
        "    count = calculate_flops(model, kwargs=tokens, output_as_string=False,\n"
        "                            print_results=False)[2]\n",
    ),
    "safetensors": (
        "safetensors",
        """
    import math, os
    from safetensors import safe_open
    files = [path]
    if path.endswith(".json"):
        names = set(json.load(open(path))["weight_map"].values())
        files = [os.path.join(os.path.dirname(path), name) for name in sorted(names)]
    count = 0
    for name in files:
        with safe_open(name, framework="numpy") as stream:
            count += sum(math.prod(stream.get_slice(key).get_shape()) for key in stream.keys())
""",
    ),
    "hf-mem": (
        "hf-mem",
        """
    import os
    from hf_mem.safetensors.metadata import parse_safetensors_metadata
    files, headers = [path], {}
    if path.endswith(".json"):
        names = set(json.load(open(path))["weight_map"].values())
        files = [os.path.join(os.path.dirname(path), name) for name in sorted(names)]
    for name in files:
        with open(name, "rb") as stream:
            headers |= json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    count = parse_safetensors_metadata({"Transformer": headers}).param_count
""",
    ),
    "gguf": (
        "gguf",
        """
    from gguf import GGUFReader
    count = sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
""",
    ),
}

PROGRAMS = {
    name: _FRAME.format(work=work, package=package) for name, (package, work) in _TOOLS.items()
}
