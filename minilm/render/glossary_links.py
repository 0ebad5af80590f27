"""The first use of each word of the glossary in a page, as a link to its entry."""

from __future__ import annotations

import re
from collections.abc import Iterable

from markupsafe import Markup, escape

from minilm.render.glossary import GLOSSARY, anchor, forms
from minilm.render.markdown import text as markdown_text

# Letters that are words of English too.
_ALSO_WORDS = frozenset("aAI")


class GlossaryLinks:
    """Takes the texts of one page in reading order: each word and each of ``letters`` is linked once."""

    def __init__(self, letters: Iterable[str]) -> None:
        self._words = {form: word for word in GLOSSARY for form in forms(word)}
        self._words |= {letter: letter for letter in letters if letter not in _ALSO_WORDS}
        self._linked: set[str] = set()
        # The longest first: "LM head" and not "head".
        alternatives = "|".join(map(_pattern, sorted(self._words, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-]|\.\w)")

    def html(self, text: str) -> Markup:
        """The text escaped, with links."""
        return Markup(self._with_links(str(escape(text)), '<a class="word" href="#{0}">{1}</a>'))

    def markdown(self, text: str) -> str:
        """The text as Markdown, with links."""
        return self._with_links(markdown_text(text), "[{1}](#{0})")

    def _with_links(self, text: str, link: str) -> str:
        """``text`` is escaped already: no word has a character that is."""

        def linked(match: re.Match[str]) -> str:
            form = match[0]
            word = self._words.get(form) or self._words[form[0].lower() + form[1:]]
            if word in self._linked:
                return form
            self._linked.add(word)
            return link.format(anchor(word), form)

        return self._pattern.sub(linked, text)


def _pattern(form: str) -> str:
    """A word may begin a sentence; a letter of a formula is itself."""
    first = form[0]
    if len(form) > 1 and first.islower():
        return f"[{first}{first.upper()}]{re.escape(form[1:])}"
    return re.escape(form)
