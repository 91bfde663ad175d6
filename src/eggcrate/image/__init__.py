"""The image: its plan, its layers, its documents."""
