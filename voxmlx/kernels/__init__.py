"""Array kernels below the networks, each beside a reference in plain MLX operations."""
