"""Twenty questions with their answers, written before the page, which must answer them."""

from __future__ import annotations

from torch import nn

QUESTIONS = (
    (
        "What is a parameter?",
        "A number in the model that training sets.",
    ),
    (
        "How many parameters has a linear layer from 4 numbers to 2?",
        "4 × 2 weights and 2 biases: {linear}.",
    ),
    (
        "What is the difference between a weight and a bias?",
        "A weight is multiplied with an input, a bias is added whatever the input is.",
    ),
    (
        "Is the learning rate a parameter?",
        "No: people set it before training, it is a hyperparameter.",
    ),
    (
        "Is the number of layers a parameter?",
        "No, a hyperparameter; but it decides how many parameters there are.",
    ),
    (
        "What values have parameters before training?",
        "Mostly small random numbers; gains of norms are 1, biases 0.",
    ),
    (
        "Why are they not all zero at the start?",
        "Units with equal parameters get equal gradients and stay equal for ever.",
    ),
    (
        "What does one step of training do to a parameter?",
        "It subtracts the learning rate times the gradient (SGD; other optimizers rescale this).",
    ),
    (
        "Does training change the number of parameters?",
        "No. It changes their values.",
    ),
    (
        "What does freezing a parameter do?",
        "Training leaves it as it is. It still counts, but it is not trainable.",
    ),
    (
        "How many bytes does a parameter take?",
        "4 in float32, 2 in bfloat16, 1 in int8, half a byte in int4.",
    ),
    (
        "How large is a model of 70 billion parameters in 16 bits, and in 4?",
        "140 GB, and 35 GB without scales.",
    ),
    (
        "Which part of a transformer has the most parameters?",
        "Mostly the feed-forward; in a small model with a large vocabulary the embedding and "
        "the LM head.",
    ),
    (
        "If the width d doubles, what happens to the matrices of a block?",
        "They become four times as large, since both sides double.",
    ),
    (
        "If the number of layers doubles, what happens to the count?",
        "What is in the blocks doubles; the embedding and the LM head stay.",
    ),
    (
        "Does a longer context need more parameters?",
        "Only where positions are learned. It always needs a larger KV cache.",
    ),
    (
        "What is a tied head?",
        "The LM head is the embedding itself: stored and counted once.",
    ),
    (
        "How does one see overfitting?",
        "The loss on the training text falls while that on other text rises.",
    ),
    (
        "What does LoRA train?",
        "Two narrow matrices beside each chosen matrix, which stays frozen.",
    ),
    (
        "Does quantization change the number of parameters? Does pruning to zero?",
        "Neither does: quantization stores them in fewer bits, pruned ones are zeros that "
        "still count.",
    ),
)


def answers() -> list[tuple[str, str]]:
    """The questions with their answers."""
    linear = sum(value.numel() for value in nn.Linear(4, 2).parameters())
    return [(question, answer.format(linear=linear)) for question, answer in QUESTIONS]
