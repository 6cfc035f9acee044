"""The paper's claims, each judged from the tables by a rule that stands beside it; no measuring here."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.claims.judging import as_text, judge
    from valleys.claims.rows import Row
    from valleys.claims.rules import INCONCLUSIVE, REFUTED, SUPPORTED, share_verdict

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "judging": ("as_text", "judge"),
        "rows": ("Row",),
        "rules": ("INCONCLUSIVE", "REFUTED", "SUPPORTED", "share_verdict"),
    },
)
