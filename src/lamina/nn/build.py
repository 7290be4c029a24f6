"""From a value to a model: empty, or with random weights."""

from __future__ import annotations

import torch
from torch import nn

from lamina.arch import Architecture
from lamina.errors import LaminaError
from lamina.nn.basic import LayerNorm, Part, RMSNorm, Starting
from lamina.nn.decoder import Decoder, Model
from lamina.nn.recursive import Recursive
from lamina.nn.router import Router
from lamina.nn.understood import check
from lamina.ops.packed import Packed

DTYPES = {"float64", "float32", "bfloat16", "float16"}


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A floating-point type by name.

    Raises: LaminaError for one that nothing is computed in.
    """
    name = str(dtype or "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise LaminaError(f"dtype {name!r} is not one to compute in; known: {', '.join(sorted(DTYPES))}")
    return getattr(torch, name)


def torch_device(device: str | torch.device) -> torch.device:
    """A device by name.

    Raises: LaminaError if it does not exist or is not on this machine.
    """
    try:
        found = torch.device(device)
        if found.type != "meta":
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise LaminaError(f"device {str(device)!r} cannot be used here ({reason}); try cpu, cuda or mps") from None
    return found


def empty(arch: Architecture, dtype: str | torch.dtype | None = None, device: str | torch.device = "meta") -> Model:
    """The model with its parameters allocated and not filled (not even allocated on the meta device).

    Raises: LaminaError for what can be priced and drawn, but not run yet.
    """
    check(arch)
    kind = Recursive if arch.recursion else Decoder
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch_dtype(dtype))
    try:
        with torch.device("meta"):
            model = kind(arch).eval()
    finally:
        torch.set_default_dtype(before)
    device = torch_device(device)
    if device.type != "meta":
        allocate(model, device)
    return model


def weights(model: nn.Module) -> dict[str, nn.Parameter | Packed]:
    """Every weight by name, whatever it is stored as."""
    packed = {name: module for name, module in model.named_modules() if isinstance(module, Packed)}
    return dict(model.named_parameters()) | packed


def tables(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a checkpoint holds besides weights: whole numbers by name."""
    return {name: buffer for name, buffer in model.named_buffers() if buffer.dtype == torch.int64}


def allocate(model: nn.Module, device: torch.device) -> None:
    """Gives every parameter and table that has none its memory, those of joined projections side by side."""
    for part in model.modules():
        if isinstance(part, Part) and part.joined:
            for leaf in ("weight", "bias"):
                _place([(part.get_submodule(name), leaf) for name in part.joined], device)
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                _place([(module, leaf)], device)
        for leaf, table in module._buffers.items():
            if table is not None and table.is_meta:
                module._buffers[leaf] = torch.empty_like(table, device=device)


def _place(owners: list[tuple[nn.Module, str]], device: torch.device) -> None:
    old = [module._parameters.get(leaf) for module, leaf in owners]
    found = [p for p in old if p is not None]
    if len(found) < len(old):
        return  # such as biases that not all of them have
    rows = [len(p) for p in found]
    whole = torch.empty((sum(rows), *found[0].shape[1:]), dtype=found[0].dtype, device=device)
    for (module, leaf), part, was in zip(owners, whole.split(rows), found, strict=True):
        module._parameters[leaf] = nn.Parameter(part, requires_grad=was.requires_grad)


def build(
    arch: Architecture,
    seed: int = 0,
    dtype: str | torch.dtype | None = "float32",
    device: str | torch.device = "cpu",
) -> Model:
    """The model with random weights: the same ones for the same seed, whatever the device.

    Matrices are normal with deviation 0.02, norms neutral, biases and gates zero.
    """
    model = empty(arch, dtype, device)
    if model.device.type == "meta":
        return model
    random = torch.Generator().manual_seed(seed)
    neutral = {
        id(module.weight): 1.0 - getattr(module, "offset", 0.0)
        for module in model.modules()
        if isinstance(module, RMSNorm | LayerNorm)
    }
    starting = (module for module in model.modules() if isinstance(module, Starting))
    neutral |= {id(getattr(module, name)): at for module in starting for name, at in module.starts.items()}
    for module in model.modules():
        if isinstance(module, Router):
            module.spread()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in neutral:
                parameter.fill_(neutral[id(parameter)])
            elif name.endswith((".bias", ".gate")):
                parameter.zero_()
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.02)
    return model
