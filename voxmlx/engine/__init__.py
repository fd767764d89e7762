"""Many sessions on one device: a scheduler in plain Python and the one thread that owns MLX."""
