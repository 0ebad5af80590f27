"""python scripts/experiments/quantized_speed.py PRESET[:LAYERS] ...: tokens a second, float32 and quantized.

Of random weights, one text, greedily, one thread; per second of processor time, so that other programs do not
count. The rounds of the models alternate: medians, and the ratio to float32 within a round.
"""

import dataclasses
import os
import statistics
import sys
import time

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402

from minilm.config.presets import find_preset  # noqa: E402
from minilm.generation.decoder import Decoder, ModelDecoder, make_decoder  # noqa: E402
from minilm.model.transformer import Transformer  # noqa: E402
from minilm.quantization.packings import make_packing  # noqa: E402
from minilm.transforms.quantize import round_layers  # noqa: E402

TOKENS, ROUNDS = 24, 9


def main(shapes: list[str]) -> None:
    """Print a row for each model of each shape."""
    torch.set_num_threads(1)
    for shape in shapes:
        preset, _, layers = shape.partition(":")
        config = find_preset(preset).model_config()
        if layers:
            config = dataclasses.replace(config, num_layers=int(layers))
        model = Transformer(config).eval().requires_grad_(False)
        print(f"{shape}: {sum(p.numel() for p in model.parameters()):,} parameters")
        decoders = {"float32, fast decoder": make_decoder(model)}
        decoders["float32, modules"] = ModelDecoder(model)
        for format in ("int8", "int4"):
            quantized = Transformer(config).eval().requires_grad_(False)
            round_layers(quantized, make_packing(format))
            decoders[format] = make_decoder(quantized)
        rounds = [{name: rate(each) for name, each in decoders.items()} for _ in range(ROUNDS + 1)]
        first = next(iter(decoders))
        for name in decoders:
            rates = [each[name] for each in rounds[1:]]  # the first warms up
            ratio = statistics.median(each[name] / each[first] for each in rounds[1:])
            print(f"  {name:24}{statistics.median(rates):8.1f}  {ratio:.2f}")


@torch.inference_mode()
def rate(decoder: Decoder) -> float:
    """Tokens a second of processor time."""
    cache, token = decoder.new_cache(1, TOKENS), torch.zeros(1, 1, dtype=torch.long)
    begin = time.process_time()
    for _ in range(TOKENS):
        token = decoder(token, cache).argmax(-1, keepdim=True)
    return TOKENS / (time.process_time() - begin)


if __name__ == "__main__":
    main(sys.argv[1:] or ["small:7", "gpt2"])
