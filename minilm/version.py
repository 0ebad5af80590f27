"""The version, defined once: pyproject.toml and every file that minilm writes take it from here."""

__version__ = "0.1.0"
