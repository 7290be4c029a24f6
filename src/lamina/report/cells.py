"""The parts of xLSTM and RWKV in the field's words. Registered with `words`, as those in `mechanisms`."""

from __future__ import annotations

from lamina.arch.channel_mix import ChannelMix
from lamina.arch.mixers import MLSTM, RWKV7, SLSTM
from lamina.report.words import ACTIVATIONS, kind_of, name_of, norm, number, phrases

for kind, name in ((MLSTM, "mLSTM"), (SLSTM, "sLSTM"), (RWKV7, "RWKV-7"), (ChannelMix, "channel mix")):
    kind_of.register(kind)(lambda op, name=name: name)


@name_of.register(MLSTM)
@name_of.register(SLSTM)
@name_of.register(RWKV7)
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
def _(op: ChannelMix) -> list[str]:
    return ["reads the token before"]
