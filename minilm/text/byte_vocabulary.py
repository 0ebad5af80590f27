"""The names of the 256 bytes in the vocabulary of byte-level BPE, which are GPT-2's."""

from __future__ import annotations

from minilm.text.separators import END_OF_TEXT


def _byte_vocabulary() -> dict[str, int]:
    """Name -> byte: printable Latin-1 characters themselves, other bytes as U+0100 and up."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), 256),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable}
    names |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {names[byte]: byte for byte in range(256)}


BYTE_VOCABULARY = _byte_vocabulary()

# As `ByteTokenizer.to_shared_json` names the bytes.
SHARED_BYTE_VOCABULARY = {
    END_OF_TEXT if byte == 0 else name: byte for name, byte in BYTE_VOCABULARY.items()
}
