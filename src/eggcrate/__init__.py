"""zc.buildout recipes that put a Python application into a container image."""
