"""A small shop that sells eggs."""
