"""Lets the documentation site show `Example:` sections as intended.

Docstrings follow the style of Keras, in which the text after `Example:` is not
indented. Griffe, which reads them for the site, needs indented sections.
"""

import re
import textwrap

import griffe

# The heading, and the text after it up to the next heading or the end.
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
        # Griffe's own section, which distinguishes code from text.
        heading = "Examples"
    if heading == "Call arguments":
        # A list, because Markdown would join the lines to one paragraph.
        text = re.sub(r"^ {4}(?=\S)", "- ", text, flags=re.MULTILINE)
        text = textwrap.indent(text, "    ")
    elif not text.startswith(" "):
        text = textwrap.indent(text, "    ")
    return f"{heading}:\n{text}\n\n"
