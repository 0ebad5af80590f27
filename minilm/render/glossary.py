"""Every word of a report and of docs/parameters-explained.md, explained once. Letters: `ledger.symbols`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minilm.ledger.symbols import letter_meaning

# In the order in which one builds on another.
GLOSSARY = {
    "parameter": "A number in the model that training sets. A model is its parameters and the program "
    "that computes with them.",
    "tensor": "Numbers in a rectangular arrangement: a vector in one row, a matrix in rows and columns. "
    "Parameters are stored as tensors.",
    "shape": "The sizes of a tensor. Their product is the number of its elements: 2 × 4 has 8.",
    "weight": "A parameter that is multiplied with an input. In a report all that is not a bias.",
    "bias": "A parameter that is added to a result, whatever the input.",
    "hyperparameter": "A number that people set before training, such as the number of layers or the "
    "learning rate. Training does not change it.",
    "token": "A piece of text, about a word or a part of one, for which the model has a number.",
    "vocabulary": "All tokens that a model knows (V of them).",
    "tokenizer": "The program that cuts text into tokens and joins them again.",
    "context": "The tokens that the model can look back on (T of them at most).",
    "embedding": "A table with a row of d parameters for each token. The row of a token is the model's "
    "first description of it.",
    "layer": "One repetition of the same sequence of operations, each with parameters of its own.",
    "block": "The attention and the feed-forward of one layer, with their norms.",
    "attention": "The part in which a token collects information from the tokens before it. Its matrices are "
    "query, key, value and output.",
    "head": "One of h parallel attentions, each on k of the d numbers. Not to be confused with the LM head.",
    "key/value heads": "The heads that keys and values have (g). Fewer than h of them make the KV cache "
    "smaller: grouped-query attention.",
    "feed-forward": "The part that works on each token alone: to f numbers and back to d. Often most of the "
    "parameters.",
    "norm": "A rescaling of the d numbers of a token, so that they stay in one range. Its gains are "
    "parameters, a few.",
    "LM head": "The last matrix, which gives a score to every token of the vocabulary: what may come next.",
    "tied": "Used twice and stored once: a tied LM head is the embedding itself, and is counted once.",
    "expert": "One of E feed-forwards, of which a token uses e. The others cost memory and no work.",
    "active parameters": "Those that one token uses. Fewer than all in a model with experts.",
    "buffer": "A stored tensor that is no parameter: training does not set it.",
    "loss": "How wrong the predictions are, as one number: the smaller, the better. Here the mean of minus "
    "the natural logarithm of the probability that the model gave the right token.",
    "nats": "The unit of the loss with natural logarithms. 1 nat is 1.4427 bits.",
    "bits a byte": "The loss in bits for each byte of the text. Unlike nats a token it can be compared "
    "between models with different tokenizers.",
    "perplexity": "e to the power of the loss: among how many equally likely tokens the model is undecided.",
    "gradient": "For each parameter how much the loss changes when the parameter does: its sign says in "
    "which direction to go.",
    "learning rate": "How far a parameter moves for its gradient: a hyperparameter.",
    "step": "One update of all parameters, from the gradients of one batch.",
    "batch": "The sequences that are read for one step (B of them).",
    "optimizer": "The rule that makes an update of the gradients, such as SGD, AdamW or Muon.",
    "moments": "The running means of gradients and of their squares that AdamW keeps: two numbers for each "
    "parameter.",
    "initialisation": "The values that parameters have before training, mostly small random numbers.",
    "validation": "Text that the model is not trained on, for measuring the loss.",
    "overfitting": "Learning the training text by heart: the training loss falls, that of validation rises.",
    "underfitting": "Too few parameters or too few steps: both losses stay high.",
    "frozen": "Left as it is by training. A frozen parameter is counted but not trainable.",
    "fine-tuning": "Training further, from parameters that are trained already.",
    "LoRA": "Fine-tuning in which a matrix stays frozen and the product of two narrow matrices is added to "
    "it. Only these, the adapter, are trained.",
    "rank": "The width of LoRA's narrow matrices (r).",
    "quantization": "Storing parameters in fewer bits, as whole numbers with a scale for each group.",
    "scale": "The number that a group of quantized values is multiplied with to get the parameters back.",
    "pruning": "Setting parameters to zero, or removing whole heads, units or layers.",
    "sharing": "Letting several layers use the same parameters, which then count once.",
    "precision": "How many bits a number is stored in: float32 has 32, bfloat16 16, int8 8, int4 4.",
    "dtype": "The kind of number: its precision, and whether it is whole or has a fraction.",
    "KV cache": "The keys and values of all tokens so far, kept so that the next token does not compute them "
    "again. It is memory beside the parameters, and grows with context and batch.",
    "activations": "The results between the layers. Training keeps them until the gradients are computed.",
    "training state": "What training keeps in memory for the parameters: weights, gradients, moments.",
    "FLOPs": "Floating-point operations: multiplications and additions. A parameter of a matrix takes 2 of "
    "them for each token, and 6 in training.",
    "MFU": "Model FLOPs utilisation: the share of what the processor could compute at most that the model's "
    "own FLOPs reach.",
    "MiB, GiB": "2 to the 20 and 2 to the 30 bytes: 1,048,576 and 1,073,741,824. MB and GB are 10 to the 6 "
    "and to the 9.",
    "safetensors": "A file format for parameters: the length of a header, the header in JSON (name, dtype, "
    "shape, place of each tensor), then the bytes. Opening it runs no code.",
    "GGUF": "The file format of llama.cpp, mostly with quantized parameters.",
    "checkpoint": "The files in which a model's parameters are saved.",
    "preset": "Hyperparameters under a name, such as nano.",
    "ledger": "minilm's table of every tensor of an architecture, with shapes in letters. Counts, formulas, "
    "memory and FLOPs are computed from it.",
    "witness": "One of the independent counts that are compared: formula, file, module.",
    "cards": "GPUs. What they share is divided among them.",
}
# Of the letters those that every report may have; a report adds its own.
USUAL_LETTERS = "VTLdhgkfEeB"


def letters(symbols: Iterable[str] = USUAL_LETTERS, family: str = "") -> Mapping[str, str]:
    """What each of the letters stands for."""
    meanings = {letter: letter_meaning(letter, family) for letter in symbols}
    return {letter: meaning for letter, meaning in meanings.items() if meaning}
