"""A local folder whose files are uploaded to a bucket again and again while they grow."""

import logging
import tempfile
from pathlib import Path

from flax_distil.storage.background_upload import BackgroundUpload
from flax_distil.storage.bucket_path import BucketPath
from flax_distil.storage.retries import StorageError

log = logging.getLogger(__name__)


class Mirror:
    """A temporary local folder, of which every file has a copy in a folder of a bucket.

    The copies are at most some seconds old. If they cannot be written, this is logged and tried again.

    Args:
        target: Folder in the bucket.

    Attributes:
        local: The local folder.
    """

    def __init__(self, target: BucketPath):
        self._scratch = tempfile.TemporaryDirectory(prefix="flax-distil-")
        self.local, self._target = Path(self._scratch.name), target
        self._uploaded: dict[Path, tuple[int, int]] = {}
        self._uploads = BackgroundUpload(self._upload, name=f"upload to {target.name}")

    def changed(self) -> None:
        """Have the files uploaded that have changed."""
        self._uploads.changed()

    def close(self) -> None:
        """Upload what has changed, and remove the local folder."""
        self._uploads.close()
        self._scratch.cleanup()

    def _upload(self) -> None:
        for path in sorted(self.local.rglob("*")):
            status = path.stat()
            version = status.st_size, status.st_mtime_ns
            if path.is_dir() or self._uploaded.get(path) == version:
                continue
            try:
                (self._target / path.relative_to(self.local).as_posix()).upload(path)
            except StorageError as error:
                log.warning("%s", error)
                return
            self._uploaded[path] = version
