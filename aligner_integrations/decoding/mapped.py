"""Giving back the memory of weights that were mapped from a file and are needed no longer.

Transformers maps safetensors files into memory, and a mapping is kept whole while any of its
tensors lives. Pages that were read stay resident, so a copy of the weights would count twice.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch

_MAPS = Path("/proc/self/maps")
_DONTNEED = 4  # of madvise on Linux: pages of a file are dropped, and read again if ever needed


class MappedFiles:
    """The safetensors files that are mapped into this process; none known but on Linux."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        if not _MAPS.is_file():
            return
        for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.endswith(".safetensors"):
                start, end = line.split(maxsplit=1)[0].split("-")
                self._ranges.append((int(start, 16), int(end, 16)))

    def drop(self, tensor: torch.Tensor) -> None:
        """Drop the pages of a tensor that lies in such a file; others are left alone."""
        start = tensor.data_ptr()
        end = start + tensor.numel() * tensor.element_size()
        if not any(first <= start and end <= last for first, last in self._ranges):
            return
        page = mmap.PAGESIZE
        start, end = -(-start // page) * page, end // page * page
        if start < end:
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(_DONTNEED))
