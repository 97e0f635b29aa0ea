"""Text that comes from files, made safe for terminals, pictures and pages."""

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9 ._+=,()@%-]")
_LONGEST = 80


def printable(text, lines=False):
    """Returns a text whose control characters are escaped.

    A terminal obeys escape sequences, whoever wrote them. Characters that move
    the cursor, or reorder what is shown, come out as Python writes them in a
    string: `\\x1b`.

    Example:

    >>> print(printable("red: \\x1b[31m"))
    red: \\x1b[31m
    """
    return "".join(
        character
        if character.isprintable() or (lines and character == "\n")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(text)
    )


def file_name(text):
    """Returns a part of a file name for a text, different for other texts.

    What had to be changed ends in a digest of the text.
    """
    safe = _UNSAFE.sub("_", text)[:_LONGEST]
    if safe[:1] in ("", ".", " ", "-"):
        safe = f"_{safe[1:]}"
    if safe == text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe[: _LONGEST - 9]}-{digest[:8]}"
