"""The one exception that tipl raises for bad input, and how its messages show what was given."""

from __future__ import annotations

import re
import reprlib

LONGEST_WORD, LONGEST = 200, 1_000
"""Characters of a word of a message, such as a path, and of a whole message."""

_ADDRESS = re.compile(r"(?<![\w/])((?:s3|gs|hf|memory):)/(?=[\w.-])")

_LINE = 80  # characters of a given value


class TiplError(ValueError):
    """Bad input, explained in one sentence.

    The message names what was given, what was expected and what to do. The command line prints
    it without a traceback and exits with status 2. Where it ends work that had begun, what had been
    finished by then stays on the disk, and no file is left half written.

    Messages are one line whatever they quote: control characters are shown as escapes, and what is
    long is left out of the middle.

    Examples:
        >>> try:
        ...     tipl.Policy.load("nowhere")
        ... except tipl.TiplError as error:
        ...     print(str(error).partition(";")[0])
        there is no nowhere/policy.json, but a policy (made by `Policy.save`) is expected there
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(one_sentence(message))


def check_text(given: str) -> None:
    """Raises a TiplError for what cannot be kept on record: bytes of names that are no text."""
    if any("\ud800" <= one <= "\udfff" for one in given):  # as Python has undecodable bytes
        raise TiplError(
            f"{shown(given)} was given, with bytes that are no characters: expected text, since "
            "names are kept on record; rename the file or folder"
        )


def printable(text: str) -> str:
    r"""The text with what a terminal would obey or not show as escapes: `\x1b`, `\n`, `\u202e`.

    Addresses such as s3://bucket have the two slashes of which a `Path` keeps one.
    """
    text = _ADDRESS.sub(r"\1//", text)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def shown(value: object, longest: int = _LINE) -> str:
    """The `repr` of what was given, for a message: a line of it, whatever its size.

    Of long texts and collections only the ends are looked at.
    """
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = longest
    limits.maxlong = longest // 2
    limits.maxlevel = 3
    if isinstance(value, bytes | bytearray) and len(value) > longest:
        value = bytes(value[:longest])
    try:
        text = limits.repr(value)
    except Exception:  # somebody's own class, or an integer too long to be written
        text = f"<{type(value).__name__}>"
    return printable(_middle_left_out(text, longest))


def one_sentence(text: str) -> str:
    """A message on one line of bearable length: of what is too long, the ends stay."""
    for _ in range(2):  # escapes are longer than what they stand for
        text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", _shortened_word, text)
        text = printable(_middle_left_out(text, LONGEST))
    return _middle_left_out(text, LONGEST)


def _shortened_word(found: re.Match[str]) -> str:
    return _middle_left_out(found[0], LONGEST_WORD)


def _middle_left_out(text: str, longest: int) -> str:
    """At most so many characters; more of the end than of the beginning, where the advice is."""
    if len(text) <= longest:
        return text
    start = (longest - 3) // 3
    return f"{text[:start]}...{text[len(text) - (longest - 3 - start) :]}"
