"""Twenty questions that a reader of the page can answer, with the sentences of the page that do.

They were written before the page, which must answer them; tests/test_explained.py finds each sentence in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """``sentences`` are parts of the page's text, from which the answer follows."""

    question: str
    answer: str
    sentences: tuple[str, ...]


QUESTIONS = (
    Question(
        "What is a parameter of a language model?",
        "One of the many numbers in it that training sets.",
        ("the numbers are many, and training set them. These numbers are the parameters.",),
    ),
    Question(
        "A linear layer takes 10 numbers and gives 3, with biases. How many parameters has it?",
        f"3 × 10 weights and 3 biases: {3 * 10 + 3}.",
        ("by formula: outputs × inputs + outputs",),
    ),
    Question(
        "What does a weight do with an input, and how does a bias differ?",
        "A weight is multiplied with it; a bias is added whatever the input is.",
        ("A weight is multiplied with an input", "A bias is added whatever the input is"),
    ),
    Question(
        "Is the learning rate a parameter?",
        "No, a hyperparameter: people choose it before training, and training does not change it.",
        ("Hyperparameters are chosen by people before training",),
    ),
    Question(
        "Which of these change the number of parameters: the number of layers, the learning rate, "
        "the size of the vocabulary, dropout?",
        "The number of layers and the size of the vocabulary.",
        ("Some of them decide how many parameters there are", "changes the count"),
    ),
    Question(
        "A model has 10 parameters and is trained for 200 steps. How many has it then?",
        "10: training changes their values, not their number.",
        ("The count has not changed, only the values.",),
    ),
    Question(
        "A model with a vocabulary of 50,000 tokens is not trained yet. About how large is its loss, "
        "as a formula?",
        f"ln(50,000), which is {math.log(50_000):.2f} nats: it finds all tokens equally probable.",
        ("tokens are about equally likely to it", "A probability of 1 in 1,024 gives ln(1,024)"),
    ),
    Question(
        "Why do the units of a layer not all start with the same weights?",
        "They would get the same gradients and stay the same: one unit, stored many times.",
        ("so they get equal gradients, and stay equal",),
    ),
    Question(
        "A weight is 2, its gradient is 5, the learning rate is 0.1. What is it after a step of SGD?",
        f"2 - 0.1 × 5 = {2 - 0.1 * 5:g}.",
        ("parameter after = parameter before - learning rate * gradient",),
    ),
    Question(
        "Of a model's 10 parameters 2 are frozen. How many are there, and how many does training "
        "change?",
        "There are still 10; training changes 8.",
        ("All 10 still count; training leaves the frozen ones as they are.",),
    ),
    Question(
        "How many GB are the weights of 3 billion parameters in bfloat16, and in int4 without scales?",
        f"{3 * 2} GB, and {3 * 0.5} GB.",
        ("2 in bfloat16 and float16, 1 in int8, half a byte in int4", "parameters times that"),
    ),
    Question(
        "What does training with AdamW keep in memory for each parameter?",
        "Four numbers: the parameter, its gradient, and two moments.",
        ("four numbers a parameter (itself, gradient, two moments)",),
    ),
    Question(
        "Which part of a large transformer has the most parameters?",
        "The feed-forward.",
        ("In most large models the feed-forward is the largest part",),
    ),
    Question(
        "d and f both double. By which factor do the matrices of a block grow?",
        "By four: both sides of each matrix double.",
        ("If d doubles, and f and the heads with it, they are four times as large",),
    ),
    Question(
        "The number of layers doubles. Does the number of parameters double?",
        "Not quite: what is in the blocks doubles, the embedding and the LM head stay.",
        ("If L doubles, what is in blocks doubles, and the embedding and the LM head stay.",),
    ),
    Question(
        "A model with RoPE is used with a context twice as long. What grows, the parameters or the "
        "KV cache?",
        "The KV cache; there are no more parameters.",
        (
            "a longer context needs no more parameters",
            "It is memory beside the parameters, and grows with every token of the context",
        ),
    ),
    Question(
        "The LM head of a model is tied. How often are its parameters counted?",
        "Once: they are those of the embedding.",
        ("it is stored and counted once",),
    ),
    Question(
        "The loss on the training text falls, that on other text rises. What is this called, and "
        "which state of the model is kept?",
        "Overfitting; the state with the lowest validation loss.",
        ("the model overfits", "and the state with the lowest validation loss kept"),
    ),
    Question(
        "LoRA of rank 4 is put on a matrix of 100 × 100. How many parameters does it train, and does "
        "the matrix change?",
        f"4 × (100 + 100) = {4 * (100 + 100)}; the matrix stays frozen.",
        (
            "two narrow ones of m × r and r × n are trained",
            "a matrix of m × n stays frozen, as it was",
        ),
    ),
    Question(
        "Half of a model's weights are set to zero; another model is quantized to 4 bits. Which of "
        "them has fewer parameters than before?",
        "Neither: zeros still count, and quantization stores as many in fewer bits.",
        ("zeros still count, and are stored", "Quantization stores weights in fewer bits"),
    ),
)
