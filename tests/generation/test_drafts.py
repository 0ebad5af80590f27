"""Drafts of the next tokens from what a text has had before."""

import pytest
import torch

from minilm.checkpoint import Loaded
from minilm.config import ModelConfig
from minilm.generation.drafts import Drafts
from minilm.generation.fast_decoder import FastDecoder
from minilm.generation.generate import Generation
from minilm.generation.sampling import Sampling
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.shapes import random_model


@pytest.mark.parametrize(
    ("text", "at_most", "expected"),
    [
        ("abcdxabc", 9, "dxa"),
        ("abcdxabc", 2, "dx"),
        ("abcdxabc", 0, ""),
        ("abcqbcdbc", 9, "dbc"),  # the newest of two letters; three have not been there
        ("abcqbcdabc", 9, "qbc"),  # three go before two
        ("aaaa", 9, "a"),
        ("abc", 9, ""),
        ("a", 9, ""),
        ("", 9, ""),
    ],
)
def test_what_followed_the_last_tokens(text: str, at_most: int, expected: str) -> None:
    ids = list(text.encode())
    assert bytes(Drafts(3).next(ids, at_most)).decode() == expected
    grown = Drafts(3)
    for end in range(len(ids)):
        grown.next(ids[:end], at_most)
    assert bytes(grown.next(ids, at_most)).decode() == expected


def test_a_text_that_repeats_itself_takes_fewer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(ModelConfig(**SHAPE))
    with torch.no_grad():  # each token is followed by the next larger one, of seven
        for name, parameter in model.named_parameters():
            if not name.startswith("embedding."):
                parameter.zero_()
        model.embedding.token.weight.zero_()
        model.embedding.token.weight[:16, :16] = torch.eye(16)
        model.final_norm.weight.fill_(1)
        for token in range(7):
            model.lm_head.weight[1 + (token + 1) % 7, 1 + token] = 1
    passes = []
    whole = FastDecoder._features
    monkeypatch.setattr(
        FastDecoder, "_features", lambda *arguments: passes.append(1) or whole(*arguments)
    )
    for drafts, expected in ((0, 40), (4, 15)):
        passes.clear()
        generation = Generation(
            FastDecoder(Loaded(model, ByteTokenizer()).model),
            ByteTokenizer(),
            [[1]],
            Sampling(temperature=0),
            speculate=drafts,
        )
        for _ in range(40):
            generation.step()
        assert generation.sequences[0] == [1 + number % 7 for number in range(41)]
        assert len(passes) <= expected


SHAPE = {
    "vocab_size": 256,
    "context_length": 64,
    "num_layers": 1,
    "d_model": 16,
    "num_heads": 2,
    "position": "rope",
}
