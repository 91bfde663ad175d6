"""The project: its settings and addresses.  The application is ``visits``."""
