"""What runs in the container: standard library only, used by the build and shipped."""
