"""From tables to numbers: tests and intervals, measures of curves, what studies found; no verdicts."""
