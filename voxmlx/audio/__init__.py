"""Sound in, log-mel frames out. Knows nothing of models, tokens or MLX."""
