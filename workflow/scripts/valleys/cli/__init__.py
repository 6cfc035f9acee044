"""Commands of ``python -m valleys`` and what they are asked for; the work is done by the library."""
