"""What a document says of a blob; whoever loads an image imports no more than this."""

from __future__ import annotations

from typing import Any, NamedTuple

#: the media type of an image for several platforms (image-index.md)
INDEX = "application/vnd.oci.image.index.v1+json"


class Descriptor(NamedTuple):
    """What a blob is: media type, digest of its bytes, size in bytes (descriptor.md)."""

    media_type: str
    digest: str
    size: int

    def as_json(self) -> dict[str, Any]:
        """The descriptor as it stands in a document."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
