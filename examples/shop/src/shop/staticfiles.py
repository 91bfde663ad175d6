"""Where collected static files lie, and what their names are."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class HashedStaticFiles(ManifestStaticFilesStorage):
    """Static files whose names hold a hash of their content, with a sorted list of them.

    Django writes the list in the order in which the file system names the files.  Sorted,
    the same files give the same list on every machine, and an image with the same digest.
    """

    def save_manifest(self) -> None:
        """Write ``staticfiles.json``."""
        self.hashed_files = dict(sorted(self.hashed_files.items()))
        super().save_manifest()
