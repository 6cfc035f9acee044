"""The paper's claims, each judged from the tables by a rule that stands beside it; no measuring here."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.claims.judging import as_text, judge, verdicts_as_text
    from valleys.claims.rows import Row
    from valleys.claims.rules import INCONCLUSIVE, NOT_DECIDABLE, REFUTED, SUPPORTED
    from valleys.claims.settings import Settings
    from valleys.claims.verdicts import CLAIMS, judge_twelve

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "judging": ("as_text", "judge", "verdicts_as_text"),
        "rows": ("Row",),
        "rules": ("INCONCLUSIVE", "NOT_DECIDABLE", "REFUTED", "SUPPORTED"),
        "settings": ("Settings",),
        "verdicts": ("CLAIMS", "judge_twelve"),
    },
)
