"""Lets mkdocstrings show the examples of Keras' docstring style.

Their text is not indented under "Example:", as Google's sections are. So the
title becomes bold, and interactive examples are fenced.
"""

import re

import griffe

_TITLE = re.compile(r"^Example:$", re.MULTILINE)
_SESSION = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class KerasExamples(griffe.Extension):
    """Rewrites the examples of every docstring as Markdown."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            text = _TITLE.sub("**Example:**", obj.docstring.value)
            text = _SESSION.sub(r"```pycon\n\g<0>\n```", text)
            obj.docstring.value = text
