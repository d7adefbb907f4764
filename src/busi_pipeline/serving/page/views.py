"""The page's HTML, in the language of whoever asks."""

from collections.abc import Collection
from functools import cache, lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from busi_pipeline.serving.page.wording import LANGUAGES, Wording, choose_language
from busi_pipeline.serving.protection import PAGE_PATH

LANGUAGE_COOKIE = "busi_language"
_YEAR = 365 * 24 * 3600
# Nothing from elsewhere, no script or style within the HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _load_environment(language: str) -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    wording = Wording(language)
    environment.install_gettext_translations(wording.messages, newstyle=True)  # type: ignore[attr-defined]
    environment.globals.update(
        language=language,
        languages=LANGUAGES,
        share=wording.show_share,
        shares=wording.show_shares,
        number=wording.show_number,
    )
    # Of data, which is text and holds no values.
    environment.filters["word"] = lambda text: wording.translate(str(text))
    return environment


def find_wording(request: Request) -> Wording:
    """Return the words for whoever asks."""
    return Wording(
        choose_language(
            request.query_params.get("language", ""),
            request.cookies.get(LANGUAGE_COOKIE, ""),
            request.headers.get("accept-language", ""),
        )
    )


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page of a template, with its headers."""
    language = find_wording(request).language
    page = _load_environment(language).get_template(f"{template}.html.j2")
    content = page.render(path=request.url.path if status < 400 else f"{PAGE_PATH}/", **values)
    headers = {
        "content-security-policy": _POLICY,
        # Under no-referrer, browsers do not say which site a form was sent by.
        "referrer-policy": "same-origin",
    }
    response = HTMLResponse(content, status, headers)
    response.headers["vary"] = "Cookie, Accept-Language"
    if request.query_params.get("language") in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE, language, _YEAR, path=PAGE_PATH, httponly=True, samesite="strict"
        )
    return response


@lru_cache(maxsize=32)
def render_card(card: str) -> Markup:
    """Return the HTML of a model card. HTML within it stays text."""
    return Markup(_make_markdown().render(card))  # noqa: S704 - HTML of the card is escaped


def find_sections(card: str, titles: Collection[str]) -> str:
    """Return the sections of a model card that have these titles, Markdown."""
    parts = card.split("\n## ")[1:]
    return "\n".join(f"### {part}" for part in parts if part.partition("\n")[0].strip() in titles)


@cache
def _make_markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")
