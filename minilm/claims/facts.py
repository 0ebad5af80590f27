"""Facts that a model knows: cues in a text that one token always follows, one for each such token.

A fact is a cue of a few tokens and its answer; its paraphrases are occurrences of the cue after different
tokens, far from each other. It is chosen where the model is sure of it in paraphrase A, and scored on the
others, B: its margin is the logit of the answer less that of a distractor, the token that is likeliest
besides it in A.
Shapes: f facts, b paraphrases of each in B, t tokens of context, V tokens in the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minilm.data.token_store import Tokens
from minilm.model.transformer import Transformer

CUE = 3  # tokens
CONTEXT = 32  # tokens before an answer
PARAPHRASES = 2  # in B
SEARCHED = 1_000_000  # tokens of the text
SURE = 0.75  # probability of the answer in A
MOST = 300
CUES_TRIED = 8  # of an answer


@dataclass(frozen=True)
class Facts:
    """Contexts that end with the cue, ``a`` (f, t) and ``b`` (f, b, t), and two tokens of each, (f,)."""

    a: Tensor
    b: Tensor
    answers: Tensor
    distractors: Tensor

    def __len__(self) -> int:
        return len(self.answers)

    def one(self, number: int) -> Facts:
        """That fact alone."""
        rows = slice(number, number + 1)
        return self.part(rows)

    def part(self, rows: slice) -> Facts:
        return Facts(self.a[rows], self.b[rows], self.answers[rows], self.distractors[rows])


def find_facts(
    model: Transformer, text: Tokens, random: np.random.Generator, *, shuffled: bool = False
) -> Facts:
    """At most `MOST` facts that ``model`` knows, drawn at random, each with another answer.

    ``shuffled``: the answers stand with the cues of others, which nothing can know: the null.
    """
    context = min(CONTEXT, model.config.context_length)
    tokens = np.asarray(text[:SEARCHED]).astype(np.int64)
    a, b, answers = _recurring(tokens, context, random)
    if shuffled and len(answers):
        answers = answers[random.permutation(len(answers))]
    if not len(answers):
        empty = torch.zeros(0, context, dtype=torch.int64)
        return Facts(empty, empty[:, None].repeat(1, PARAPHRASES, 1), empty[:, 0], empty[:, 0])
    logits = torch.cat([last_logits(model, part) for part in torch.split(a, 256)])
    probability = logits.softmax(-1).gather(1, answers[:, None])[:, 0]
    others = logits.scatter(1, answers[:, None], -torch.inf).argmax(-1)
    known: dict[int, int] = {}
    sure = np.flatnonzero(probability.numpy() >= SURE)
    for number in random.permutation(sure).tolist():  # the surest are the hardest to turn
        if len(known) < MOST:
            known.setdefault(int(answers[number]), number)
    rows = torch.tensor(sorted(known.values()), dtype=torch.int64)
    return Facts(a[rows], b[rows], answers[rows], others[rows])


def _recurring(
    tokens: NDArray[np.int64], context: int, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Contexts and answers of cues that one token always follows, `CUES_TRIED` of each token at most."""
    base = int(tokens.max(initial=0)) + 1
    n = len(tokens) - CUE
    keys = np.zeros(max(n, 0), np.int64)
    for offset in range(CUE):
        keys = keys * base + tokens[offset : offset + n]
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    groups = np.split(order, starts[1:])
    tried: dict[int, int] = {}
    a, b, answers = [], [], []
    for number in random.permutation(len(groups)):
        places = groups[number][groups[number] >= context - CUE]
        if len(places) <= PARAPHRASES:
            continue
        following = tokens[places + CUE]
        answer = int(following[0])
        if (following != answer).any() or tried.get(answer, 0) >= CUES_TRIED:
            continue
        chosen = _paraphrases(places, tokens, context)
        if len(chosen) > PARAPHRASES:
            tried[answer] = tried.get(answer, 0) + 1
            windows = [tokens[place + CUE - context : place + CUE] for place in chosen]
            a.append(windows[0])
            b.append(np.stack(windows[1 : PARAPHRASES + 1]))
            answers.append(answer)
    if not answers:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty, empty
    return (
        torch.from_numpy(np.stack(a)),
        torch.from_numpy(np.stack(b)),
        torch.tensor(answers, dtype=torch.int64),
    )


def _paraphrases(places: NDArray[np.int64], tokens: NDArray[np.int64], context: int) -> list[int]:
    """Occurrences of a cue after different tokens, a context apart."""
    chosen: list[int] = []
    before: set[int] = set()
    for place in places.tolist():
        token = int(tokens[place - 1])
        if token not in before and (not chosen or place - chosen[-1] >= context):
            before.add(token)
            chosen.append(place)
        if len(chosen) > PARAPHRASES:
            break
    return chosen


def last_logits(model: Transformer, tokens: Tensor) -> Tensor:
    """(r, t) -> (r, V): of what follows each row."""
    logits: Tensor = model.lm_head(model.features(tokens)[:, -1]).float()
    return logits


def margins(model: Transformer, contexts: Tensor, facts: Facts) -> Tensor:
    """(f, t) or (f, b, t) -> (f,): logit of the answer less that of the distractor, the mean over b."""
    several = contexts.view(len(facts), -1, contexts.shape[-1])  # f b t
    logits = last_logits(model, several.flatten(0, 1)).view(*several.shape[:2], -1)  # f b V
    answer = logits.gather(2, facts.answers[:, None, None].expand(-1, several.shape[1], 1))
    other = logits.gather(2, facts.distractors[:, None, None].expand(-1, several.shape[1], 1))
    return (answer - other)[..., 0].mean(dim=1)
