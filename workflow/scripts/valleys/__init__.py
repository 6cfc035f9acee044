"""Loss valleys: train, average, probe, detect. Importing the package imports no torch."""

__version__ = "0.1.0"
