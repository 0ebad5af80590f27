"""What `import minilm` offers."""

import inspect
import pydoc

import minilm

NAMES = {
    *("train", "resume", "finetune", "load", "generate", "inspect", "convert"),
    *("prune", "quantize", "share", "merge", "evaluate", "set_adapter", "plan", "federate"),
    *("search", "check_claims"),
    *("ModelConfig", "TrainConfig", "preset", "Transformer", "Report"),
}


def test_dir_lists_the_interface_with_docstrings_and_types() -> None:
    assert set(dir(minilm)) == NAMES
    for name in NAMES:
        value = getattr(minilm, name)
        assert value.__doc__, name
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"


def test_help_has_them_all() -> None:
    text = pydoc.plain(pydoc.render_doc(minilm))
    for name in (
        "train(",
        "resume(",
        "finetune(",
        "generate(",
        "load(",
        "inspect(",
        "convert(",
        "class Report(",
    ):
        assert name in text
