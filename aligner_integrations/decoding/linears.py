"""Linear layers whose weights are laid out for oneDNN once, not anew in every pass.

On a CPU the stock kernels rearrange a weight matrix each time it meets more than one token, which
costs more than multiplying by it until there are dozens. With weights in oneDNN's own layout a
pass of eight tokens costs hardly more than one of a single token, so short drafts and small batches
get cheap. These are the operators that ``torch.compile`` puts in place when it freezes a model.
"""

from __future__ import annotations

import logging
from collections import Counter

import torch
from torch import nn
from torch.nn import functional

from aligner_integrations.decoding.mapped import MappedFiles

logger = logging.getLogger(__name__)
_LEAST = 4  # tokens that a product is made for, unless fewer are as good
_TRIED = 8  # tokens of the trial of that
_STEPS = ((32, 4), (128, 8), (256, 16), (1024, 32))  # up to so many tokens, in steps of so many
_LAST_STEP = 128  # beyond


class PackedLinear(nn.Module):
    """`torch.nn.Linear` for inference on a CPU; holds the packed weights only.

    Args:
        linear: The layer to stand in for, in float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.bias = linear.bias
        with torch.inference_mode():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._short = self._find_short(linear.weight.dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The product, shape (..., out_features)."""
        tokens = inputs.numel() // self.in_features
        room = tokens if tokens in self._short else round_up(tokens)
        if room == tokens:
            return self._multiply(inputs)
        flat = functional.pad(inputs.reshape(tokens, self.in_features), (0, 0, 0, room - tokens))
        return self._multiply(flat)[:tokens].reshape(*inputs.shape[:-1], self.out_features)

    def _multiply(self, inputs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, self.bias, "none", [], ""
        )
        return output

    def _find_short(self, dtype: torch.dtype) -> frozenset[int]:
        """Numbers of tokens below four that need not be filled up.

        Without AVX-512 four tokens cost 1.3 times what one does. A trial says whether they get the
        same bits without company there.
        """
        if torch.backends.cpu.get_cpu_capability() != "AVX2":
            return frozenset()
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(_TRIED, self.in_features, generator=generator).to(dtype)
        with torch.inference_mode():
            wanted = self._multiply(inputs)
            return frozenset(
                tokens
                for tokens in (1, 2)
                if torch.equal(self._multiply(inputs[:tokens]), wanted[:tokens])
            )

    def extra_repr(self) -> str:
        """As `torch.nn.Linear` shows itself."""
        return f"in_features={self.in_features}, out_features={self.out_features}, packed"


def round_up(tokens: int) -> int:
    """For how many tokens a product is made: at least as many, from a short list of numbers.

    oneDNN compiles code for each number that it meets, half a megabyte for each kind of layer, and
    keeps thousands of them: a process whose passes have all lengths would grow for hours. The rows
    that are filled up change no bit of the others.

    Four is the least, because the kernel for one token may add up in another order than those for
    more, and then a token's bits would depend on its company. With AVX-512 four cost what one does,
    and the kernel for two is slower than that. Where one and two are cheaper, see
    `PackedLinear._find_short`.
    """
    step = next((step for limit, step in _STEPS if tokens <= limit), _LAST_STEP)
    return max(_LEAST, -(-tokens // step) * step)


def pack_linears(model: nn.Module) -> bool:
    """Replace a model's linear layers by `PackedLinear`, one by one, so memory does not double.

    Nothing is replaced where that cannot work: off the CPU, in other dtypes, without oneDNN, or
    where one trial layer differs from its stock self.

    Args:
        model: A model for inference; it can't be trained or saved afterwards.

    Returns:
        Whether the layers were replaced.
    """
    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    if not layers or not _can_pack([linear for _, _, linear in layers]):
        return False
    mapped, uses = (
        MappedFiles(),
        Counter(
            parameter.data_ptr() for _, parameter in model.named_parameters(remove_duplicate=False)
        ),
    )
    while layers:  # holds none that is replaced, so its stock weights go at once
        parent, name, linear = layers.pop()
        setattr(parent, name, PackedLinear(linear))
        if uses[linear.weight.data_ptr()] == 1:  # others are still needed, and may be altered
            mapped.drop(linear.weight)
    return True


def has_packed_linears(model: nn.Module) -> bool:
    """Whether `pack_linears` replaced a model's layers."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def _can_pack(linears: list[nn.Linear]) -> bool:
    weights = [linear.weight for linear in linears]
    if not torch._C._has_mkldnn or any(w.device.type != "cpu" for w in weights):
        return False
    if len({w.dtype for w in weights}) > 1 or weights[0].dtype not in (
        torch.float32,
        torch.bfloat16,
    ):
        return False
    try:
        return _agrees(min(linears, key=lambda linear: linear.weight.numel()))
    except Exception as error:  # operators of torch's own, which other versions may lack
        logger.info("stock linear layers, because oneDNN's packed ones failed: %r", error)
        return False


def _agrees(linear: nn.Linear) -> bool:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, linear.in_features, generator=generator).to(linear.weight.dtype)
    with torch.inference_mode():
        wanted = functional.linear(inputs, linear.weight, linear.bias).float()
        got = PackedLinear(linear)(inputs).float()
    tolerance = 1e-4 if linear.weight.dtype == torch.float32 else 0.05
    return bool((wanted - got).abs().max() <= tolerance * (wanted.std() + 1e-6))
