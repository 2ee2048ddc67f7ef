"""Pass costs of this machine: measured once per model, device and dtype, and kept as a file."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from pathlib import Path

import torch

from aligner_integrations.decoding.costs import PassCosts, measure_costs
from aligner_integrations.decoding.linears import has_packed_linears
from aligner_integrations.decoding.packed import PackedModel
from aligner_integrations.models.base_file import cache_dir

logger = logging.getLogger(__name__)
_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")


def find_costs(model: PackedModel) -> PassCosts | None:
    """What `calibrate` measured here for such a model; None if it never did."""
    try:
        saved = json.loads(_path(model).read_text(encoding="utf-8"))
        return PassCosts(tuple(saved["tokens"]), tuple(saved["seconds"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("pass costs in %s can't be read (%r); using defaults", _path(model), error)
        return None


def calibrate(model: PackedModel) -> PassCosts:
    """Measure a model's pass costs and keep them for `find_costs`."""
    costs = measure_costs(model)
    path = _path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"model": describe(model), "tokens": costs.tokens, "seconds": costs.seconds}
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)
    return costs


def describe(model: PackedModel) -> str:
    """What costs depend on: the model's shape, its dtype, the device and its threads."""
    config = model.model.config.get_text_config()
    shape = "-".join(str(getattr(config, name, "")) for name in _SHAPE)
    packed = has_packed_linears(model.model)
    layers = "packed" if packed else "stock"
    return f"{shape}, {model.dtype}, {layers}, {_device(model.device)}, torch {torch.__version__}"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {kernels}, {torch.get_num_threads()} threads"


def _path(model: PackedModel) -> Path:
    digest = hashlib.sha256(describe(model).encode()).hexdigest()[:16]
    return cache_dir() / "costs" / f"{digest}.json"
