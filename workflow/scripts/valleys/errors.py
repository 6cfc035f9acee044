"""The one exception whose message is meant for the person at the keyboard."""


class ValleysError(Exception):
    """Bad input: the message is one line that names the file or key, the value, and what would be right.

    Scripts print the line without a traceback and exit non-zero; anything else that escapes is a defect
    of ours and keeps its traceback.
    """
