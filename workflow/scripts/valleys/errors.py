"""The one exception whose message is meant for the person at the keyboard, and what a message may offer."""

import difflib
import re
import unicodedata
from collections.abc import Iterable


def shown(text: object) -> str:
    r"""Return text with nothing in it that steers a terminal or turns the order of what follows.

    Names in files (of tensors, keys, classes) are a stranger's. Control characters, such as the one that
    begins a terminal's escape sequences, marks that change the direction of writing, invisible characters
    and halves of surrogate pairs are written as Python writes them, as in ``\x1b``. Line ends and tabs stay.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_one, text))


def _one(character: str) -> str:
    # Cc control, Cf format (direction marks, zero width), Cs surrogates, Zl and Zp line separators.
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode("ascii")


class ValleysError(Exception):
    """Bad input: the message is one line that names the file or key, the value, and what would be right.

    Scripts print the line without a traceback and exit non-zero; anything else that escapes is a defect
    of ours and keeps its traceback. What a file calls its contents may be part of the message, so it is made
    fit for a terminal here (`shown`).
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shown(message))


class PassingError(ValleysError):
    """One that may be over at the next try: a full disk, a node without its GPU."""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``, did you mean 'x'?`` for the known word nearest to one, or nothing if none is near.

    Small and capital letters count as the same.
    """
    words = {str(one).lower(): str(one) for one in known}
    close = difflib.get_close_matches(str(word).lower(), list(words), n=1, cutoff=0.5)
    return f", did you mean {words[close[0]]!r}?" if close else ""


def number_hint(value: object, *, whole: bool = False) -> str:
    """Return how to write a number that is there as text, as in ``; ... write 5.0e-2``; nothing for others.

    YAML 1.1, which PyYAML and Snakemake read, wants a point in a number with an exponent and a sign before
    the exponent; without them, ``5e-2`` is text. Of a list, the first such text counts.

    Parameters
    ----------
    whole
        Whether an integer is wanted.
    """
    if isinstance(value, list | tuple):
        return next(filter(None, (number_hint(item, whole=whole) for item in value)), "")
    found = re.fullmatch(r"\s*([+-]?)(\d*)(?:\.(\d*))?(?:e([+-]?)(\d+))?\s*", str(value), re.I | re.A)
    if not isinstance(value, str) or found is None or not (found[2] or found[3]):
        return ""
    sign, before, after, up, exponent = (part or "" for part in found.groups())
    if not abs(float(value)) < 2**63:  # an integer would not fit, and another is out of range
        return ""
    if whole:
        right = str(int(float(value))) if float(value).is_integer() else ""
    elif exponent:
        right = f"{sign}{before or 0}.{after or 0}e{up or '+'}{exponent}"
    else:
        right = value.strip() if before else f"{sign}0.{after}"
    return right and f"; YAML reads {value!r} as text, write {right}"
