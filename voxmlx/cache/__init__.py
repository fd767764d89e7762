"""Key-value caches: rings of a sliding window, for one stream or many rows."""
