"""Python environments: what is asked for, which Python, uv and pip, complete or as before."""
