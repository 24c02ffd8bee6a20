"""What the templates of the page have in common: texts that the script puts into the reader's language.

    page_environment(folder).get_template("template.html").render(…)

In a template: ``{{ word("rows.found", n=3) }}`` is a text, ``{{ named("reason", "too_long") }}`` a name of the run's
own, and ``{{ label("…") }}``, ``{{ cell("…") }}`` and ``{{ placeholder("…") }}`` are attributes. All else is escaped.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.lib.page.words import said, words

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def page_environment(folder: Path) -> "Environment":
    """The templates of a folder, with the functions above."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": lambda number: f"{number:,}"}
    environment.globals |= {"word": word, "named": named, "cell": cell, "label": label, "placeholder": placeholder}
    return environment


def word(key: str, /, **values: Any) -> "Markup":
    """A text that the script puts into the reader's language."""
    from markupsafe import Markup

    given = Markup(" data-values='{}'").format(json.dumps(values, ensure_ascii=False)) if values else ""
    return Markup('<span data-word="{}"{}>{}</span>').format(key, given, said(key, **values))


def named(group: str, name: str) -> "Markup":
    """A name of the run's own, such as a reason: its word where the page has one."""
    from markupsafe import escape

    return word(f"{group}.{name}") if f"{group}.{name}" in words()["en"] else escape(name.replace("_", " "))


def cell(key: str) -> "Markup":
    """The attribute with a cell's heading, for narrow screens."""
    from markupsafe import Markup

    return Markup('data-name="{}" data-word-name="{}"').format(said(key), key)


def label(key: str, /, **values: Any) -> "Markup":
    """The attribute that names an element for a screen reader."""
    from markupsafe import Markup

    given = Markup(" data-label-values='{}'").format(json.dumps(values, ensure_ascii=False)) if values else ""
    return Markup('aria-label="{}" data-word-label="{}"{}').format(said(key, **values), key, given)


def placeholder(key: str) -> "Markup":
    """The attribute with the text in an empty box."""
    from markupsafe import Markup

    return Markup('placeholder="{}" data-word-placeholder="{}"').format(said(key), key)
