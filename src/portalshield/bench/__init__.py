"""Measuring an application bare and shielded, in one process and without sockets.

`driver` calls an application the way a server does, `stacks` makes its variants, `measure` runs them in interleaved
rounds, `report` shows what came out. Used by `portalshield bench` and by `benchmarks/`.
"""
