"""Writes the generated parts of the reference, and checks what the pages say about the project.

MkDocs runs this file as a hook (`hooks:` in mkdocs.yml). A page holds a line such as

    <!-- generated: parameters -->

and the hook puts the generated text in its place. `parameters` comes from the settings classes and
from conf/base, `catalog` from conf/base/catalog*.yml and reference/dataset_descriptions.yml,
`api <package>` from the modules of that package.

A warning stops `mkdocs build --strict`. The hook warns where a parameter or a dataset has
no description, where a page names a pipeline or a parameter that does not exist, and where a link
in a Markdown file outside docs/ leads to no file, and where a page would load something from
elsewhere.
"""

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks.reference")

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
CONF = ROOT / "conf" / "base"
PACKAGE = ROOT / "src" / "busi_pipeline"
# Markdown outside docs/, whose links MkDocs does not check.
OTHER_PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "conf/README.md",
)

_PLACEHOLDER = re.compile(r"^<!-- generated: (?P<what>\S+)(?: (?P<name>\S+))? -->$", re.MULTILINE)
_UNSET = object()
EXPERIMENTS, SITES = "experiments", "sites"
JOINED = "experiments with members"
# What such an entry may not set: it is that of its members.
_OF_MEMBERS = ("input.", "batch_size", "image_size", "in_default", "published", "baseline_of")
_LONGEST_DEFAULT = 50
_SHARED = ("augmentation.", "training.")  # of an experiment: listed under groups of their own
# What a browser would load from elsewhere.
_FOREIGN = re.compile(r"<(?:script|img|link rel=.stylesheet.)[^>]*(?:src|href)=.https?://[^>]*>")


class Setting(NamedTuple):
    """One row of the parameter reference; `field` is the class and the attribute it comes from."""

    name: str
    type: str
    allowed: str
    description: str
    field: str


# ---------------------------------------------------------------- parameters


def write_parameters(_: str | None = None) -> str:
    """Return one table a parameter group: name, type, default, allowed values, description."""
    defaults = _load_parameters()
    sections = []
    undescribed: dict[str, None] = {}
    for group, model in _import_groups().items():
        if group in (EXPERIMENTS, SITES):
            shown, values = f"{group}.<{group.removesuffix('s')}>", {}
            settings = [s for s in list_settings(model) if not s.name.startswith(_SHARED)]
        elif group == JOINED:
            shown, values = "experiments.<experiment> with members", {}
            settings = [s for s in list_settings(model) if not s.name.startswith(_OF_MEMBERS)]
        else:
            shown, values, settings = group, defaults.get(group, {}), list_settings(model)
        undescribed |= {row.field: None for row in settings if not row.description}
        rows = [
            [f"`{r.name}`", r.type, _show_default(values, r.name), r.allowed, r.description]
            for r in settings
        ]
        table = _table(["name", "type", "default", "allowed", "what it does"], rows)
        summary = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        sections.append(f"## `{shown}` {{ #{group} }}\n\n{summary}\n\n{table}")
    for field in undescribed:
        logger.warning("%s has no description: add a text under it in config/schemas.py", field)
    return "\n\n".join(sections)


def list_settings(model: Any, prefix: str = "") -> list[Setting]:
    """Return the settings of a pydantic model; names of settings inside settings have dots."""
    schema = model.model_json_schema()
    return list(_walk_schema(schema, schema.get("$defs", {}), prefix))


def _walk_schema(schema: dict[str, Any], defs: dict[str, Any], prefix: str) -> Iterator[Setting]:
    for name, entry in schema.get("properties", {}).items():
        options = [entry, *entry.get("anyOf", [])]
        references = [option["$ref"] for option in options if "$ref" in option]
        if references:
            inner = defs[references[0].rpartition("/")[2]]
            yield from _walk_schema(inner, defs, f"{prefix}{name}.")
            continue
        kind, allowed = _describe_type(entry)
        described = " ".join(entry.get("description", "").split())
        yield Setting(prefix + name, kind, allowed, described, f"{schema['title']}.{name}")


_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
}


def _describe_type(entry: dict[str, Any]) -> tuple[str, str]:
    """Return the type and the allowed values of one property of a JSON schema, in words."""
    if "anyOf" in entry:
        described = [_describe_type(option) for option in entry["anyOf"]]
        kinds = " or ".join(dict.fromkeys(kind for kind, _ in described))
        return kinds, ", or ".join(allowed for _, allowed in described if allowed)
    if "enum" in entry or "const" in entry:
        return "choice", " or ".join(f"`{v}`" for v in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "null":
        return "null", ""
    if entry.get("type") == "array":
        inner = _describe_type(entry.get("items", {}))[0]
        return f"list of {inner}", ""
    if entry.get("type") == "object":
        return "mapping", ""
    signs = (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    )
    bounds = [f"{sign} {entry[key]:g}" for key, sign in signs if key in entry]
    return _KINDS.get(entry.get("type", ""), "any"), ", ".join(bounds)


def _import_groups() -> dict[str, Any]:
    """Return {parameter group: its class of settings}."""
    try:
        from busi_pipeline.config.checking import GROUPS
        from busi_pipeline.config.schemas import (
            ExperimentSettings,
            JoinedSettings,
            SiteSettings,
        )
    except Exception as error:
        raise PluginError(f"the parameter reference cannot read the schemas: {error!r}") from error
    return {SITES: SiteSettings, **GROUPS, EXPERIMENTS: ExperimentSettings, JOINED: JoinedSettings}


def _load_parameters() -> dict[str, Any]:
    """Return all parameters of conf/base as they stand there; `${globals:x}` is filled in."""
    shared = yaml.safe_load((CONF / "globals.yml").read_text()) or {}
    parameters: dict[str, Any] = {}
    for path in sorted(CONF.glob("parameters*.yml")):
        text = path.read_text()
        text = re.sub(r"\$\{globals:(\w+)\}", lambda m: json.dumps(shared[m[1]]), text)
        parameters |= yaml.safe_load(text) or {}
    return parameters


def _show_default(values: Any, name: str) -> str:
    for part in name.split("."):
        values = values.get(part, _UNSET) if isinstance(values, dict) else _UNSET
    if values is _UNSET or values in ("", [], {}):
        return "–"
    shown = values if isinstance(values, str) else json.dumps(values)
    return f"`{shown}`" if len(shown) <= _LONGEST_DEFAULT else "see the file"


# ---------------------------------------------------------------- catalog


class Entry(NamedTuple):
    """One dataset of the catalog."""

    name: str
    path: str
    layer: str
    description: str


def write_catalog(_: str | None = None) -> str:
    """Return one table a catalog file: dataset, file, layer, what it is."""
    sections = []
    for path in sorted(CONF.glob("catalog*.yml")):
        stage = path.stem.removeprefix("catalog").strip("_").replace("_", " ") or "shared"
        entries = list_entries(path)
        rows = [(f"`{e.name}`", e.path, e.layer, e.description) for e in entries]
        head = ["dataset", "file, below the data folder", "layer", "what it is"]
        sections.append(
            f"## {stage.capitalize()}\n\n`conf/base/{path.name}`\n\n{_table(head, rows)}"
        )
    return "\n\n".join(sections)


def list_entries(path: Path) -> list[Entry]:
    """Return the datasets of one catalog file."""
    texts = yaml.safe_load((DOCS / "reference" / "dataset_descriptions.yml").read_text())
    entries = []
    for name, settings in (yaml.safe_load(path.read_text()) or {}).items():
        if name.startswith("_"):  # a YAML anchor, no dataset
            continue
        metadata = settings.get("metadata") or {}
        item = name.rpartition(".")[2]
        described = metadata.get("description") or texts.get(name) or texts.get(item) or ""
        if not described:
            logger.warning(
                "dataset %s of %s has no description: add %r to dataset_descriptions.yml",
                name,
                path.name,
                item,
            )
        viz = metadata.get("kedro-viz") or {}
        entries.append(Entry(name, _find_path(settings), str(viz.get("layer", "–")), described))
    return entries


def _find_path(settings: dict[str, Any]) -> str:
    inner = settings.get("dataset")
    for holder in (settings, inner if isinstance(inner, dict) else {}):
        for key in ("filepath", "path", "folder", "directory"):
            if holder.get(key):
                return f"`{str(holder[key]).replace('${globals:data}/', '')}`"
    return "in memory" if str(settings.get("type", "")).startswith("Memory") else "–"


# ---------------------------------------------------------------- API


def write_api(package: str | None) -> str:
    """Return the mkdocstrings directives of all modules of one package, or of the top level."""
    folder = PACKAGE if package in (None, "top-level") else PACKAGE / str(package)
    paths = folder.glob("*.py") if package == "top-level" else folder.rglob("*.py")
    names = []
    for path in sorted(paths):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] in ("__init__", "__main__"):
            continue
        names.append(".".join(parts))
    if not names:
        logger.warning("no module to document in %s", package)
    return "\n\n".join(f"::: {name}" for name in names)


# ---------------------------------------------------------------- checks

WRITERS: dict[str, Callable[[str | None], str]] = {
    "parameters": write_parameters,
    "catalog": write_catalog,
    "api": write_api,
}


def list_documented_pipelines() -> list[str]:
    """Return the names in the tables of reference/pipelines.md; `<experiment>` stands for any."""
    text = (DOCS / "reference" / "pipelines.md").read_text()
    return re.findall(r"^\| `([\w<>]+)` \|", text, re.MULTILINE)


def find_unknown_pipelines(text: str) -> list[str]:
    """Return the pipelines that a text runs and that reference/pipelines.md does not list."""
    known = [re.sub(r"<experiment>", r"[\\w<>]+", name) for name in list_documented_pipelines()]
    used = re.findall(r"--pipeline[= ](\w[\w<>]*)", text)
    return [name for name in used if not any(re.fullmatch(k, name) for k in known)]


def find_unknown_parameters(text: str) -> list[str]:
    """Return the parameters that a text sets with `--params` and that no schema knows."""
    known = set(_load_parameters())
    for group, model in _import_groups().items():
        prefix = f"{group}.*." if group in (EXPERIMENTS, SITES) else f"{group}."
        known |= {row.name for row in list_settings(model, prefix)}
    given = re.findall(r'--params[= ](?:"([^"]*)"|([^\s`"]+))', text)
    parts = [part for quoted, plain in given for part in (quoted or plain).split(",")]
    used = [part.partition("=")[0] for part in parts if "=" in part]
    of_any = re.compile(rf"^({EXPERIMENTS}|{SITES})\.\w+\.")
    return [name for name in used if of_any.sub(r"\1.*.", name) not in known]


def find_broken_links(page: Path) -> list[str]:
    """Return the relative links of a Markdown file that lead to no file."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return [link for link in links if not (page.parent / link).exists()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells: list[Sequence[str]] = [
        head,
        ["---"] * len(head),
        *([c.replace("|", "\\|") for c in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


# ---------------------------------------------------------------- MkDocs


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Check what the page says, then put in what is generated."""
    where = page.file.src_uri
    for name in find_unknown_pipelines(markdown):
        logger.warning("%s: reference/pipelines.md lacks the pipeline %s", where, name)
    for name in find_unknown_parameters(markdown) if "--params" in markdown else []:
        logger.warning("%s sets the parameter %s, which does not exist", where, name)
    return _PLACEHOLDER.sub(lambda match: WRITERS[match["what"]](match["name"]), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Check that the page loads nothing from elsewhere."""
    for element in _FOREIGN.findall(output):
        logger.warning("%s loads %s from elsewhere", page.file.src_uri, element)
    return output


def on_pre_build(config: MkDocsConfig) -> None:
    """Check the links of the Markdown files outside docs/."""
    for name in OTHER_PAGES:
        page = ROOT / name
        for link in find_broken_links(page) if page.exists() else []:
            logger.warning("%s links to %s, which does not exist", name, link)
