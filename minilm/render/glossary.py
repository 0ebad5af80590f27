"""Every word of a report and of docs/parameters-explained.md, explained once. Letters: `ledger.symbols`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from minilm.ledger.symbols import letter_meaning

# In the order in which one builds on another.
GLOSSARY = {
    "parameter": "A number in the model that training sets. A model is its parameters and the program "
    "that computes with them.",
    "vector": "Numbers in one row.",
    "matrix": "Numbers in rows and columns. m × n: m rows of n numbers.",
    "tensor": "Numbers in a rectangular arrangement: a vector, a matrix, or several matrices of one "
    "size. Parameters are stored as tensors.",
    "element": "One number of a tensor.",
    "shape": "The sizes of a tensor. Their product is the number of its elements: 2 × 4 has 8.",
    "weight": "A parameter that is multiplied with an input. In a report all that is not a bias.",
    "bias": "A parameter that is added to a result, whatever the input.",
    "linear layer": "A matrix of weights and, in many models, a bias for each result: a result is the "
    "sum of all inputs, each times a weight, plus the bias.",
    "unit": "One result of a linear layer, with the weights and the bias that it is computed from.",
    "hyperparameter": "A number that people set before training, such as the number of layers or the "
    "learning rate. Training does not change it.",
    "language model": "A model that predicts text: for each token of the vocabulary how probable it "
    "is that it comes next.",
    "token": "A piece of text, about a word or a part of one, for which the model has a number.",
    "vocabulary": "All tokens that a model knows (V of them).",
    "tokenizer": "The program that cuts text into tokens and joins them again.",
    "context": "The tokens that the model can look back on (T of them at most).",
    "transformer": "The kind of model that most language models are: an embedding, blocks of "
    "attention and feed-forward, and an LM head.",
    "embedding": "A table with a row of d parameters for each token. The row of a token is the "
    "model's first description of it.",
    "learned positions": "A second table, with a row of d parameters for each place in the context, "
    "that tells the model where a token stands.",
    "RoPE": "Rotary position embedding: queries and keys are rotated by an angle that follows from "
    "the place of the token. It is computed, and has no parameters.",
    "layer": "One repetition of the same sequence of operations, each with parameters of its own.",
    "block": "The attention and the feed-forward of one layer, with their norms.",
    "attention": "The part in which a token collects information from the tokens before it. Its "
    "matrices are query, key, value and output.",
    "query, key and value": "What attention computes of each token: the values of the tokens before are "
    "added up, and those count most whose keys, multiplied with the query number by number, give the "
    "largest sum.",
    "head": "One of h parallel attentions, each on k of the d numbers. Not to be confused with the LM "
    "head.",
    "key/value heads": "The heads that keys and values have (g). Fewer than h of them make the KV "
    "cache smaller: grouped-query attention.",
    "feed-forward": "The part that works on each token alone: its matrix up makes f numbers of "
    "the d, its matrix down d of the f. Often most of the parameters.",
    "norm": "A rescaling of the d numbers of a token, so that they stay in one range. Its gains "
    "are parameters, a few; in many models, nano's too, it has as many biases.",
    "gain": "A parameter of a norm, which one of the d numbers is multiplied with.",
    "LM head": "The last matrix, which gives a score to every token of the vocabulary: what may come "
    "next.",
    "score": "What the LM head gives a token (a logit). The softmax function makes "
    "probabilities of all scores: e to the power of each, divided by the sum of these.",
    "tied": "Used twice and stored once: a tied LM head is the embedding itself, and is counted once.",
    "expert": "One of E feed-forwards, of which a token uses e. The others cost memory and no work.",
    "active parameters": "Those that one token uses. Fewer than all in a model with experts.",
    "buffer": "A stored tensor that is no parameter: training does not set it.",
    "mean": "The sum of some numbers divided by how many they are.",
    "standard deviation": "How far numbers typically are from their mean (std in tables).",
    "mean squared error": "The mean of the squared differences between results and what was wanted. "
    "Its square root is the root mean square.",
    "polynomial": "A curve such as a + b x + c x²; here a, b and c are its parameters.",
    "loss": "How wrong the predictions are, as one number: the smaller, the better. Here the mean of "
    "minus the natural logarithm of the probability that the model gave the right token.",
    "ln": "The natural logarithm: ln(x) is the power to which e = 2.718 is raised to give x.",
    "nats": "The unit of the loss with natural logarithms. 1 nat is 1.4427 bits.",
    "bits a byte": "The loss in bits for each byte of the text. Unlike nats a token it can be "
    "compared between models with different tokenizers.",
    "perplexity": "e to the power of the loss: among how many equally likely tokens the model is "
    "undecided.",
    "gradient": "For each parameter how much the loss changes when the parameter does: its sign says "
    "in which direction to go.",
    "learning rate": "How far a parameter moves for its gradient: a hyperparameter.",
    "step": "One update of all parameters, from the gradients of one batch.",
    "batch": "The sequences that are read for one step (B of them).",
    "optimizer": "The rule that makes an update of the gradients, such as SGD, AdamW or Muon.",
    "SGD": "Stochastic gradient descent, the plainest optimizer: it subtracts learning rate times "
    "gradient.",
    "AdamW": "The optimizer of most models. It divides the mean of recent gradients by their usual "
    "size.",
    "Muon": "An optimizer for matrices: it makes an update move all directions of a matrix equally "
    "far.",
    "moments": "The running means of gradients and of their squares that AdamW keeps: two numbers for "
    "each parameter.",
    "dropout": "The share of results that are set to 0 at random in training, against overfitting.",
    "initialisation": "The values that parameters have before training, mostly small random numbers.",
    "validation": "Text that the model is not trained on, for measuring the loss.",
    "overfitting": "Learning the training text by heart: the training loss falls, that of validation "
    "rises.",
    "underfitting": "Too few parameters or too few steps: both losses stay high.",
    "frozen": "Left as it is by training. A frozen parameter is counted but not trainable.",
    "trainable": "Changed by training: every parameter that is not frozen.",
    "fine-tuning": "Training further, from parameters that are trained already.",
    "LoRA": "Low-rank adaptation: fine-tuning in which a matrix stays frozen, and what two narrow "
    "matrices make of the input is added to its result. Only these are trained.",
    "adapter": "The narrow matrices that LoRA trains, for all of a model's matrices that have them.",
    "rank": "The width of LoRA's narrow matrices (r).",
    "quantization": "Storing parameters in fewer bits, as whole numbers with a scale for each group.",
    "scale": "The number that a group of quantized values is multiplied with to get the parameters "
    "back.",
    "pruning": "Setting parameters to zero, or removing whole heads, units or layers.",
    "sharing": "Letting several layers use the same parameters, which then count once.",
    "bit": "A digit that is 0 or 1. n of them tell 2 to the n numbers apart.",
    "byte": "8 bits.",
    "precision": "How many bits a number is stored in.",
    "dtype": "The kind of number: its precision, and whether it is whole or has a fraction.",
    "float32": "A number with a fraction in 32 bits (F32 in files): about 7 decimal digits.",
    "bfloat16": "A number in 16 bits with the range of float32 and 2 to 3 decimal digits.",
    "float16": "A number in 16 bits with 3 decimal digits and a smaller range: at most 65,504.",
    "int8": "A whole number in 8 bits, with a scale for each group of them.",
    "int4": "A whole number in 4 bits, with a scale for each group of them.",
    "nf4": "4 bits that stand for one of 16 values, spaced as weights usually are (normally "
    "distributed).",
    "KV cache": "The keys and values of all tokens so far, kept so that the next token does not "
    "compute them again. It is memory beside the parameters, and grows with context and batch.",
    "activations": "The results between the layers. Training keeps them until the gradients are "
    "computed.",
    "training state": "What training keeps in memory for the parameters: weights, gradients, moments.",
    "FLOPs": "Floating-point operations: multiplications and additions. A parameter of a matrix takes "
    "2 of them for each token, and 6 in training.",
    "MFU": "Model FLOPs utilisation: the share of what the processor could compute at most that the "
    "model's own FLOPs reach.",
    "KiB, MiB, GiB, TiB": "2 to the 10, 20, 30 and 40 bytes: 1,024, 1,048,576 and so on.",
    "KB, MB, GB, TB": "10 to the 3, 6, 9 and 12 bytes. As a count of parameters or FLOPs K, M, B and "
    "T are a thousand, a million, a billion and a trillion: 8B parameters are 8 billion.",
    "JSON": "A way to write names and values as text, which most programs can read.",
    "safetensors": "A file format for parameters: the length of a header, the header in JSON (name, "
    "dtype, shape, place of each tensor), then the bytes. Opening it runs no code.",
    "GGUF": "The file format of llama.cpp (a program that runs models), mostly with quantized "
    "parameters.",
    "checkpoint": "The files in which a model's parameters are saved.",
    "PyTorch": "The library with which minilm computes. nn.Linear is its linear layer, "
    "named_parameters() the list of a model's parameters by name; requires_grad = False freezes "
    "one.",
    "minilm": "The program that this page belongs to: it trains small language models and counts "
    "parameters.",
    "preset": "Hyperparameters under a name, such as nano.",
    "nano": "minilm's smallest preset.",
    "GPT-2": "A language model of OpenAI (2019).",
    "Llama 3 8B": "A language model of Meta (2024).",
    "ledger": "minilm's table of every tensor of an architecture, with shapes in letters. Counts, "
    "formulas, memory and FLOPs are computed from it.",
    "witness": "One of the independent counts that are compared: formula, file, module.",
    "claim": "Something that is said of parameters, and tested: one number is measured, and a rule that was "
    "fixed before says which values of it speak for the claim and which against it.",
    "interval": "From where to where a value may lie, by what was measured of it. Of many 99.5% intervals "
    "99.5 in 100 contain the true value.",
    "supported": "The verdict where the whole interval lies among the values that speak for a claim.",
    "contradicted": "The verdict where the whole interval lies among the values that speak against a claim.",
    "inconclusive": "The verdict where an interval lies wholly in neither, or too little was measured: "
    "nothing is decided.",
    "seed": "The number that random draws begin with. The same seed gives the same draws.",
    "bootstrap": "A way to find an interval: what was measured is drawn again many times, with repeats, and "
    "how much the mean of the draws varies is the interval.",
    "pilot": "What is measured beforehand, on other text, to choose what to test and how much text it takes.",
    "median": "The middle one of some numbers in order.",
    "slope": "How much one number changes when another grows by one.",
    "fact": "Something that a model can tell. In claims: which token follows three others, wherever these "
    "stand in a text; it is the answer.",
    "paraphrase": "The same fact after other words: another place in the text where its three tokens stand.",
    "margin": "The score of a fact's answer less that of its strongest rival: above 0 the model knows it.",
    "causal tracing": "Finding where in a model a fact is recalled: its inputs are disturbed, one inner "
    "state is put back as it was, and it is measured how much of the answer returns.",
    "spike": "A result of one unit that is far larger than the others, for some token.",
    "Shapley value": "A fair share of what several parts achieve together: what a part adds, as a mean over "
    "all orders in which the parts may come.",
    "power law": "A curve in which a number falls by the same factor whenever another doubles, here down "
    "to a floor: E + A N^-a, whose E, A and a are fitted.",
    "recipe": "How a model is trained: the optimizer, and how the learning rate goes.",
    "co-adaptation": "How much hidden units depend on each other: what two of them cost together, beyond "
    "what each costs alone.",
    "singular value": "How much a matrix stretches one of its directions; it has as many as the smaller of "
    "its sides.",
    "stable rank": "In how many directions a matrix does much: the sum of its squared singular values, "
    "divided by the largest square.",
    "evenness": "Whether all parameters moved alike (1) or few did all (near 0); of normally distributed "
    "changes it is a third.",
    "‖dW‖/‖W0‖": "How far a matrix moved: the root of the sum of its squared changes (dW), divided by that "
    "of its first values (W0).",
    "SHA-256": "A short number computed from bytes. Where one byte differs it is another.",
    "N, 2N": "How many parameters a model has, and twice as many.",
    "N·b/8": "The bytes of N parameters of b bits each.",
    "aT + bT²": "Work that grows with the tokens (T) and with their square: a and b are fitted.",
    "2Vd + 12Ld²": "The parameters of two tables of the vocabulary (V × d each) and of L layers with 4d² in "
    "attention and 8d² in the feed-forward.",
    "Q4_0, Q4_K_M, Q8_0": "Ways to quantize in GGUF files: about 4.5, 4.8 and 8.5 bits a parameter, scales "
    "included.",
    "card": "A GPU, the processor on which large models run. What several cards share is divided "
    "among them.",
}
# How else a word is written, beside its plural in -s.
_OTHER_FORMS = {
    "matrix": ("matrices",),
    "bias": ("biases",),
    "vocabulary": ("vocabularies",),
    "loss": ("losses",),
    "witness": ("witnesses",),
    "linear layer": ("nn.Linear",),
    "query, key and value": ("query", "queries", "keys and values"),
    "learned positions": ("positions are learned", "position embedding"),
    "tied": ("untied",),
    "standard deviation": ("std",),
    "mean squared error": ("root mean square",),
    "ln": ("natural logarithm",),
    "bits a byte": ("bits for each byte",),
    "optimizer": ("optimiser",),
    "initialisation": ("initialised",),
    "frozen": ("freeze", "freezes", "freezing"),
    "fine-tuning": ("fine-tuned",),
    "quantization": ("quantized", "quantize"),
    "pruning": ("pruned", "prune"),
    "sharing": ("shared", "unshared"),
    "float32": ("F32",),
    "PyTorch": ("named_parameters()", "requires_grad"),
    "card": ("GPU",),
    "Shapley value": ("Shapley share",),
    "co-adaptation": ("co-adapted",),
    "bootstrap": ("bootstrapped",),
}
# Of the letters those that every report may have; a report adds its own.
USUAL_LETTERS = "VTLdhgkfEeBr"


def letters(symbols: Iterable[str] = USUAL_LETTERS, family: str = "") -> Mapping[str, str]:
    """What each of the letters stands for."""
    meanings = {letter: letter_meaning(letter, family) for letter in symbols}
    return {letter: meaning for letter, meaning in meanings.items() if meaning}


def forms(word: str) -> list[str]:
    """How a word of the glossary is written in a text."""
    names = [*word.split(", "), *_OTHER_FORMS.get(word, ())]
    return [form for name in names for form in (name, f"{name}s")]


def anchor(word: str) -> str:
    """The id of a word's, or a letter's, entry in a page."""
    kind = "letter" if len(word) == 1 else "word"
    return f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', word)}"
