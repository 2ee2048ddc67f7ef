"""Whether this CPU can hold bfloat16 weights in oneDNN's layout, for tests of that."""

from __future__ import annotations

import pytest
from torch import nn

from aligner_integrations.decoding.linears import pack_linears

PACKS_BFLOAT16 = pack_linears(nn.Sequential(nn.Linear(8, 8).bfloat16()))
"""oneDNN wants AVX-512 or AVX-NE-CONVERT for it; elsewhere the stock layers stay."""

needs_packed_bfloat16 = pytest.mark.skipif(
    not PACKS_BFLOAT16, reason="oneDNN packs no bfloat16 weights on this CPU"
)
