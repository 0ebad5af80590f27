"""What the fuzzer begins with: small files of each format; and what it draws: files, configurations, values.

A provider turns the bytes of an input into choices and numbers (atheris.FuzzedDataProvider).
"""

import base64
import hashlib
import io
import json
import math
import struct
import zipfile
from typing import Any

from minilm.architectures.gguf_architecture import GgufArchitecture
from minilm.architectures.gguf_architectures import GGUF_ARCHITECTURES
from minilm.architectures.gguf_names import KEYS
from minilm.config import ModelConfig
from minilm.formats.tensor_io import HASH, NO_HASH

# data.pkl of torch.save({"a": tensor, "b": that tensor's transpose, "n": 3}).
PICKLE = base64.b64decode(
    "gAJ9cQAoWAEAAABhcQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MgpxAigoWAcAAABzdG9yYWdlcQNj"
    "dG9yY2gKRmxvYXRTdG9yYWdlCnEEWAEAAAAwcQVYAwAAAGNwdXEGSwZ0cQdRSwBLAksDhnEISwNLAYZxCYljY29s"
    "bGVjdGlvbnMKT3JkZXJlZERpY3QKcQopUnELdHEMUnENWAEAAABicQ5oAigoaANoBGgFaAZLBnRxD1FLAEsDSwKG"
    "cRBLAUsDhnERiWgKKVJxEnRxE1JxFFgBAAAAbnEVSwN1Lg=="
)


def tiny_safetensors(name: str) -> bytes:
    """One tensor of one number."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def tiny_gguf(is_llama: bool) -> bytes:
    """Two tensors, a scalar, a string and arrays of numbers and of strings."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.5),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("nested") + struct.pack("<IIQIQB", 9, 9, 1, 0, 1, 7),
    ]
    if is_llama:
        sizes = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
        keys += [text(f"llama.{size}") + struct.pack("<II", 4, 2) for size in sizes]
    tensors = [
        text("a") + struct.pack("<IQQIQ", 2, 2, 3, 0, 0),
        text("b") + struct.pack("<IQIQ", 1, 32, 2, 32),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32) + bytes(32 + 18)


def tiny_zip(pickle: bytes) -> bytes:
    """A checkpoint around data.pkl."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("x/data.pkl", pickle)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", bytes(24))
        archive.writestr("x/version", "3\n")
    return whole.getvalue()


def drawn_safetensors(provider: Any) -> bytes:
    """A file whose header has the fields that it should, with values that it may not."""
    entries = {}
    end = 0
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        shape = [provider.ConsumeIntInRange(0, 3) for _ in range(provider.ConsumeIntInRange(0, 3))]
        entry = {
            "dtype": provider.PickValueInList(["F32", "U8", "F4", "BOOL", "X"]),
            "shape": shape,
        }
        begin, end = end, end + provider.ConsumeIntInRange(0, 12)
        entry["data_offsets"] = [begin, end]
        if provider.ConsumeIntInRange(0, 5) == 0:
            entry[provider.PickValueInList(["dtype", "shape", "data_offsets"])] = draw(provider)
        entries[provider.PickValueInList(["a", "b", "c", "__metadata__", "\x1b"])] = entry
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def _keys_in(architecture: GgufArchitecture) -> list[str]:
    """The keys from which fields follow."""
    pairs = (*architecture.ratios.values(), *architecture.differences.values())
    kinds = (key for _, each in architecture.kinds.values() for key, _ in each)
    return [*(each for pair in pairs for key in pair for each in key.split("|")), *kinds]


def drawn_gguf(provider: Any) -> bytes:
    """A file that is whole, with keys of any type and tensors of any shape under names that are read."""

    def text(value: str) -> bytes:
        raw = value.encode("utf-8", "replace")
        return struct.pack("<Q", len(raw)) + raw

    architecture = provider.PickValueInList(
        ["llama", "qwen3moe", "gpt2", "clip", "", *sorted(GGUF_ARCHITECTURES)]
    )
    keys_of = GGUF_ARCHITECTURES.get(architecture, GgufArchitecture())
    own = {*keys_of.sizes, *keys_of.may_have, *_keys_in(keys_of)}
    names = [f"{architecture}.{key}" for key in (*KEYS, *sorted(own), "nextn_predict_layers")]
    names += ["general.type", "split.count", "tokenizer.ggml.tokens.length", "adapter.lora.alpha"]
    keys = {"general.architecture": struct.pack("<I", 8) + text(architecture)}
    for _ in range(provider.ConsumeIntInRange(0, 12)):
        kind = provider.ConsumeIntInRange(0, 6)
        number = provider.PickValueInList([0, 1, 2, 4, 64, 2**31, 2**32 - 1, 3])
        value = {
            0: struct.pack("<IQ", 10, number * provider.PickValueInList([1, 1, 2**32])),
            1: struct.pack("<Ii", 5, -1),
            2: struct.pack("<Id", 12, provider.ConsumeFloat()),
            3: struct.pack("<I", 8)
            + text(provider.PickValueInList(["9" * 4000, "x", "7", "adapter"])),
            4: struct.pack("<IIQ", 9, 4, 0),
            6: struct.pack("<IIQ4I", 9, 4, 4, *(number * i % 2**32 for i in (1, 0, 1, 0))),
        }.get(kind, struct.pack("<II", 4, number))
        keys[provider.PickValueInList(names)] = value
    stems = [
        "token_embd",
        "output",
        "blk.0.attn_q",
        "blk.0.attn_kv_b",
        "blk.2.ffn_gate_inp",
        "token_types",
        "blk.0.laurel_l",
        "blk.0.ssm_in",
        "blk.0.ffn_up_exps",
        "blk.1.attn_k_b",
        "a.lora_a",
    ]
    tensors, data = [], b""
    for stem in stems[: provider.ConsumeIntInRange(0, len(stems))]:
        dimensions = range(provider.ConsumeIntInRange(0, 3))
        shape = [provider.PickValueInList([0, 1, 2, 32, 64]) for _ in dimensions]
        tensors.append(
            text(f"{stem}.weight")
            + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            + struct.pack("<IQ", 0, len(data))
        )
        data += bytes(-(-4 * math.prod(shape) // 32) * 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(key) + value for key, value in keys.items()) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def changed_json(raw: bytes, provider: Any) -> bytes:
    """A JSON object with one of its values, at any depth, replaced by a drawn one."""
    content = json.loads(raw)
    outer, key = content, provider.PickValueInList(sorted(content))
    while isinstance(outer[key], (dict, list)) and outer[key] and provider.ConsumeIntInRange(0, 7):
        outer = outer[key]
        keys = sorted(outer) if isinstance(outer, dict) else list(range(len(outer)))
        key = provider.PickValueInList(keys[:300])
    outer[key] = draw(provider)
    return json.dumps(content).encode()


def changed_state(raw: bytes, provider: Any) -> bytes:
    """A training state with one value of its progress or settings replaced, and the hash that it then has."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    metadata = header["__metadata__"]
    name = provider.PickValueInList(["progress", "settings"])
    metadata[name] = changed_json(metadata[name].encode(), provider).decode()
    metadata[HASH] = NO_HASH
    text = json.dumps(header, separators=(",", ":")).encode()
    whole = len(text).to_bytes(8, "little") + text + raw[end:]
    return whole.replace(NO_HASH.encode(), hashlib.sha256(whole).hexdigest().encode(), 1)


class Drawn(dict[str, Any]):
    """A config.json whose fields come into being when they are asked for."""

    def __init__(self, provider: Any) -> None:
        super().__init__()
        self.provider = provider

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self.keys():
            self[name] = draw(self.provider)
        value = super().__getitem__(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def filled(self) -> "Drawn":
        """With some fields of ModelConfig and one that it does not have."""
        for name in [*ModelConfig.__dataclass_fields__, "other"]:
            if self.provider.ConsumeBool():
                self.get(name)
        return self

    def __contains__(self, name: object) -> bool:
        return self.get(str(name)) is not None


def draw(provider: Any, depth: int = 0) -> Any:
    """A value of JSON, most often one that a field could have."""
    kind = provider.ConsumeIntInRange(0, 15)
    if kind < 4:
        return None
    if kind < 9:
        return provider.ConsumeIntInRange(1, 300)
    if kind == 9:
        return provider.ConsumeBool()
    if kind == 10:
        return provider.ConsumeInt(8)
    if kind == 11:
        return provider.ConsumeFloat()
    if kind == 12:
        names = ["gelu", "silu", "rope", "full_attention", "sliding_attention", "fp8", "", "\x1b["]
        return provider.PickValueInList(names)
    if kind == 13 and depth < 3:
        return [draw(provider, depth + 1) for _ in range(provider.ConsumeIntInRange(0, 6))]
    if kind == 14 and depth < 3:
        return Drawn(provider)
    return provider.ConsumeUnicode(8)
