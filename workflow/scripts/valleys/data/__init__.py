"""Images and labels: what a config may name, reading it, its cache file, a user's loaders; no networks."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.data.augment import epoch_batches
    from valleys.data.cache import load_split, read_metadata, save_split, write_split
    from valleys.data.sources.load import load_source
    from valleys.data.split import Split, channel_statistics, subset_indices

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "split": ("Split", "channel_statistics", "subset_indices"),
        "augment": ("epoch_batches",),
        "cache": ("load_split", "read_metadata", "save_split", "write_split"),
        "sources.load": ("load_source",),
    },
)
