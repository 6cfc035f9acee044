"""Rows of tables with text that means harm."""

from figure_tables import fill

HOSTILE = "<script>alert('x')</script>"


def claim(**values):
    base = {"claim": "swa_train_loss", "experiment": 2, "scope": "digits/mlp/quick", "verdict": "supported"}
    base |= {"statement": "swa is above descent", "measure": "train loss of swa - of descent", "unit": "nats"}
    base |= {"effect": 0.25, "low": 0.125, "high": 0.375, "n": 6, "p_value": 0.03125}
    base |= {"test": "exact sign test", "rule": "supported: p < 0.05", "note": ""}
    return fill("claims", **(base | values))
