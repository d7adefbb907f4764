"""The page's words: English, and other languages by a message catalogue of gettext."""

import gettext
import io
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent
from babel.support import NullTranslations, Translations

ENGLISH: Final = "en"
LANGUAGES: Final[Mapping[str, str]] = {ENGLISH: "English", "de": "Deutsch"}
"""{code: its own name}. Of each but English there is locale/<code>.po."""
# The least share that is shown, and what at least is left of 100 % where it is not all.
_LEAST, _MOST_MISSED = 0.001, 0.01
_MOST_DIGITS = 8


@cache
def load_messages(language: str) -> NullTranslations:
    """Return the messages of one of LANGUAGES."""
    if language == ENGLISH:
        return NullTranslations()
    path = files(__package__) / "locale" / f"{language}.po"
    catalogue, compiled = read_po(io.BytesIO(path.read_bytes())), io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)


def choose_language(asked: str, remembered: str, accepted: str) -> str:
    """Return one of LANGUAGES.

    Args:
        asked: in the address.
        remembered: in a cookie.
        accepted: by the browser, as in the header Accept-Language.
    """
    for language in (asked, remembered):
        if language in LANGUAGES:
            return language
    weighed = []
    for part in accepted.split(",")[:20]:
        name, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((float(weight or 1), name.split("-")[0].lower()))
        except ValueError:
            continue
    known = [own for own in sorted(weighed, key=lambda own: -own[0]) if own[1] in LANGUAGES]
    return known[0][1] if known else ENGLISH


class Wording:
    """Words and numbers of one language.

    Attributes:
        language: its code.
        messages: gettext's translations, for Jinja2's i18n extension.
    """

    def __init__(self, language: str):
        """Take one of LANGUAGES."""
        self.language = language
        self.messages: gettext.NullTranslations = load_messages(language)
        self._locale = Locale.parse(language)

    def translate(self, message: str, **values: Any) -> str:
        """Return a message with its values, `%(name)s` each."""
        text = self.messages.gettext(message)
        return text % values if values else text

    def show_share(self, share: float) -> str:
        """Return a share in percent: at most one decimal below 10 %, and none from there on.

        A share that is not 0 is never shown as 0, and one below 1 never as 1.
        """
        bound = ""
        if 0 < share < _LEAST:
            share, bound = _LEAST, "< "
        elif 1 - _MOST_MISSED < share < 1:
            share, bound = 1 - _MOST_MISSED, "> "
        shown = "#,##0.# %" if share < 0.0995 else "#,##0 %"
        return bound + format_percent(share, shown, locale=self._locale).replace(" ", "\u00a0")

    def show_shares(self, first: float, second: float) -> tuple[str, str]:
        """Return two shares in percent, with as many decimals as it takes to see which is more."""
        shown = self.show_share(first), self.show_share(second)
        digits = 1
        while shown[0] == shown[1] and first != second and digits < _MOST_DIGITS:
            digits += 1
            shown = tuple(  # type: ignore[assignment]
                f"{self.show_number(100 * share, digits)}\u00a0%" for share in (first, second)
            )
        return shown

    def show_number(self, number: float, digits: int = 2) -> str:
        """Return a number with so many decimals."""
        shown = "#,##0" + ("." + "0" * digits if digits else "")
        return format_decimal(number, shown, locale=self._locale)
