"""Rows of tables with text that means harm."""

from figure_tables import fill

HOSTILE = "<script>alert('x')</script>"


def claim(**values):
    base = {"claim": "swa_train_loss", "experiment": 2, "scope": "digits/mlp/quick", "verdict": "supported"}
    base |= {"statement": "swa is above descent", "measure": "train loss of swa - of descent", "unit": "nats"}
    base |= {"effect": 0.25, "low": 0.125, "high": 0.375, "n": 6, "p_value": 0.03125}
    base |= {"test": "exact sign test", "rule": "supported: p < 0.05", "note": ""}
    return fill("claims", **(base | values))


def verdict(number=1, **values):
    """Return a row of the table of verdicts."""
    base = {"number": number, "claim": f"claim_{number}", "statement": f"Statement {number}"}
    base |= {"verdict": "supported", "rule": f"rule {number}", "effect": "+0.25 [+0.125, +0.375] nats"}
    base |= {"n": 12, "p_value": 0.001, "p_adjusted": 0.012, "decided_by": 1, "rows": 2, "note": ""}
    return fill("verdicts", **(base | values))
