"""Lets the documentation site show `Example:` sections as they are meant.

Docstrings are written as Keras writes them, with text behind `Example:` that is
not indented. Griffe, which reads them for the site, knows indented sections.
"""

import re
import textwrap

import griffe

# The heading, and what is behind it up to the next heading or the end.
_SECTION = re.compile(
    r"^(?P<heading>Example|Reference|Call arguments):\n"
    r"(?P<text>.*?)(?=^[A-Z][a-z ]+:$|\Z)",
    flags=re.MULTILINE | re.DOTALL,
)


class Sections(griffe.Extension):
    """Indents the sections that Keras does not indent."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = _SECTION.sub(_rewritten, obj.docstring.value)


def _rewritten(match):
    heading, text = match["heading"], match["text"].strip("\n")
    if heading == "Example":
        # Griffe's own section, which tells code from text.
        heading = "Examples"
    if heading == "Call arguments":
        # A list, as Markdown would make one paragraph of the lines.
        text = re.sub(r"^ {4}(?=\S)", "- ", text, flags=re.MULTILINE)
        text = textwrap.indent(text, "    ")
    elif not text.startswith(" "):
        text = textwrap.indent(text, "    ")
    return f"{heading}:\n{text}\n\n"
