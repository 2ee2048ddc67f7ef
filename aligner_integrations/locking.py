"""One writer at a time for a file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import IO

from aligner_integrations.errors import DataError

logger = logging.getLogger(__name__)


def lock(file: IO[bytes], path: Path) -> None:
    """Lock an open file until it is closed, or its process ends in whatever way.

    Args:
        file: What `Path.open` gave.
        path: Where it was opened.

    Raises:
        DataError: Another run has it, or has put another file in its place since it was opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are the user's to avoid
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"{path}: another run is writing to it; wait for it or name another file"
        ) from error
    except OSError as error:  # a file system without locks
        logger.debug("%s: can't be locked: %s", path, error)
    if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
        raise DataError(f"{path}: another run has just written it anew; run again")
