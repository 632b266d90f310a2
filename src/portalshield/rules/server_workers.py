"""How many processes a server was told to start, by its own command line."""

from __future__ import annotations

from collections.abc import Sequence

_SERVERS = frozenset(("gunicorn", "uvicorn", "hypercorn", "granian"))
_LONG, _SHORT = "--workers", "-w"


def workers_of(argv: Sequence[str]) -> int | None:
    """The number behind `--workers` or `-w` of a known server (`gunicorn -w 4 main:app`); None: nobody says.

    A process that the server started has its command line too. What stands in a configuration file is not seen.
    """
    parts = argv[0].replace("\\", "/").split("/")[-2:] if argv else []
    if _SERVERS.isdisjoint(part.removesuffix(".exe") for part in parts):
        return None
    for option, value in zip(argv, [*argv[1:], ""], strict=True):
        for name in (_LONG + "=", _SHORT):
            if option not in (_LONG, _SHORT) and option.startswith(name):
                value = option.removeprefix(name).removeprefix("=")
        if option.startswith((_LONG, _SHORT)) and value.isdecimal() and len(value) < 6:
            return int(value)
    return None
