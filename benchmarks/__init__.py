"""Scripts that measure; not part of the package."""
