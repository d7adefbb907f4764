"""Every message has a translation that says the same of the same values."""

import re
from pathlib import Path

import pytest

from busi_pipeline.serving.page.wording import LANGUAGES, Wording, choose_language
from tests.unit.serving.messages import CATALOGUES, list_messages, read_catalogue


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_message_is_translated_and_none_is_left_over(path: Path) -> None:
    asked = {message.id for message in list_messages() if message.id}
    assert len(asked) > 90, "they are found"
    translated = {m.id: m for m in read_catalogue(path) if m.id}
    assert set(translated) == asked, "python -m tests.unit.serving.messages"
    for message in translated.values():
        text = str(message.string)
        assert text.strip(), message.id
        assert not message.fuzzy
        first, second = (
            set(re.findall(r"%\(\w+\)s|%%|<[^>]+>", str(own))) for own in (message.id, text)
        )
        assert first == second, message.id


def test_each_language_has_a_catalogue() -> None:
    assert {path.stem for path in CATALOGUES} == set(LANGUAGES) - {"en"}


@pytest.mark.parametrize(
    ("asked", "remembered", "accepted", "expected"),
    [
        ("de", "en", "en", "de"),
        ("", "de", "en", "de"),
        ("", "", "fr-CH, de-AT;q=0.8, en;q=0.9", "en"),
        ("", "", "de-AT,en;q=0.5", "de"),
        ("../x", "<b>", "fr;q=x, *", "en"),
        ("", "", "", "en"),
    ],
)
def test_the_language_is_the_one_that_is_wished(
    asked: str, remembered: str, accepted: str, expected: str
) -> None:
    assert choose_language(asked, remembered, accepted) == expected


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (0.00001, "< 0.1 %"),
        (0.048, "4.8 %"),
        (0.05, "5 %"),
        (0.0996, "10 %"),
        (0.634, "63 %"),
        (0.9999, "> 99 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_neither_none_nor_all_where_it_is_not(share: float, shown: str) -> None:
    assert Wording("en").show_share(share).replace("\u00a0", " ") == shown


def test_numbers_are_those_of_the_language() -> None:
    assert Wording("de").show_share(0.048) == "4,8\u00a0%"
    assert Wording("de").show_number(1234.5, 1) == "1.234,5"
    assert Wording("en").show_number(1234.5, 0) == "1,234"
