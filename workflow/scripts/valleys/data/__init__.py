"""Images and labels: what a config may name, reading it, its cache file, a user's loaders; no networks."""
