"""The parts of xLSTM, RWKV and Mamba-3 in the field's words. Registered with `words`, as those in `mechanisms`."""

from __future__ import annotations

from lamina.arch.channel_mix import ChannelMix
from lamina.arch.mixers import MLSTM, RWKV7, SLSTM, Mamba3
from lamina.report.words import ACTIVATIONS, kind_of, name_of, norm, number, phrases

NAMES = {MLSTM: "mLSTM", SLSTM: "sLSTM", RWKV7: "RWKV-7", Mamba3: "Mamba-3", ChannelMix: "channel mix"}
for kind, name in NAMES.items():
    kind_of.register(kind)(lambda op, name=name: name)


@name_of.register(MLSTM)
@name_of.register(SLSTM)
@name_of.register(RWKV7)
@name_of.register(Mamba3)
def _(op: MLSTM) -> str:
    return f"{kind_of(op)}, {op.heads} heads"


@name_of.register
def _(op: ChannelMix) -> str:
    return f"channel mix {op.inner:,}, {ACTIVATIONS[op.activation]}"


@phrases.register
def _(op: MLSTM) -> list[str]:
    said = [f"key {op.key_dim}, value {op.value_dim}", "exponential input gate, sigmoid forget gate"]
    said += [f"gates soft-capped at {number(op.softcap)}"] if op.softcap else []
    return [*said, f"{norm(op.norm)} per head, sigmoid gate"]


@phrases.register
def _(op: SLSTM) -> list[str]:
    said = [f"{op.head_dim} cells a head", "gates that read the last output, one token after the other"]
    return [*said, f"exponential input gate, {op.forget} forget gate", f"{norm(op.norm)} per head"]


@phrases.register
def _(op: RWKV7) -> list[str]:
    said = [f"key {op.key_dim}, value {op.value_dim}", f"a decay per row, rank {op.decay_rank}"]
    said += [f"a step per row, rank {op.step_rank}", "reads the token before"]
    said += [f"values mixed with the first ones, rank {op.value_rank}"] if op.value_rank else []
    return [*said, f"{norm(op.norm)} per head, gate of rank {op.gate_rank}"]


@phrases.register
def _(op: Mamba3) -> list[str]:
    groups = "" if op.groups == 1 else f", B and C in {op.groups} groups"
    said = [f"head {op.head_dim}, state {op.state}{groups}", f"a trapezoidal step, {op.turning} pairs that turn"]
    said += [f"{op.rank} rows a token"] if op.rank > 1 else []
    said += [f"{norm(op.norm)} of B and C"]
    said += [f"{norm(op.output_norm)} per head before a SiLU gate" if op.output_norm else "SiLU gate"]
    return said + (["bias"] if op.bias else [])


@phrases.register
def _(op: ChannelMix) -> list[str]:
    return ["reads the token before"]
