"""Configuration texts with references."""
