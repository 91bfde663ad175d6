"""Which files belong into an image, and where they lie there."""
