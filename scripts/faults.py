"""Make faults and count what is lost: the table in docs/reliability.md.

    python scripts/faults.py [out=faults.md]

A tiny run on made-up pictures is killed, its MLflow server and its database fail, its cached files and its bundle are
damaged. Each fault is a *try*; what it should leave is what an undisturbed run leaves. A table says how often each
fault was tried and what was lost; the exit status is 1 where anything was. It takes about 20 minutes on two cores.

Words: ``groups=kills,server,store,caches,bundles`` (some of them), ``seed=0`` (moments, bits), ``times=2`` (so many
tries of each group instead of all), ``delay=25`` (seconds of a slow server), ``work=<new folder>`` (where it works, and
what it leaves there, instead of a temporary folder), ``out=<file>.md`` (the table; every try as ``<file>.json`` beside
it), ``before=<file>.json`` (such a file of an earlier version, for a column of the table).
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fault_groups.bench import Bench, Try
from fault_groups.bundles import bundles
from fault_groups.caches import caches
from fault_groups.kills import kills
from fault_groups.server import server
from fault_groups.store import store
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

Group = Callable[[Bench, random.Random, int | None], Iterator[Try]]
GROUPS = ("kills", "server", "store", "caches", "bundles")
USAGE = 2  # exit status for a wrong word


@dataclass
class Options:
    """Options of the command line."""

    groups: str = ",".join(GROUPS)
    seed: int = 0
    times: int | None = None
    delay: float = 25.0
    work: str | None = None
    out: str | None = None
    before: str | None = None


def main(words: list[str]) -> int:
    """Try what the command line names; return the exit status."""
    if {"--help", "-h"} & set(words):
        print(__doc__)
        return 0
    try:
        options: Options = OmegaConf.to_object(OmegaConf.merge(Options, OmegaConf.from_cli(words)))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return USAGE
    names = options.groups.split(",")
    if unknown := [name for name in names if name not in GROUPS]:
        print(f"error: groups: '{unknown[0]}' is none of {', '.join(GROUPS)}", file=sys.stderr)
        return USAGE
    heed_signals()
    before = [Try(**each) for each in json.loads(Path(options.before).read_text("utf-8"))] if options.before else None
    began = time.monotonic()
    tries: list[Try] = []
    with nullcontext(options.work) if options.work else TemporaryDirectory(prefix="cxrnet-faults-") as work:
        top = Path(work).resolve()
        top.mkdir(exist_ok=True)
        bench = Bench.set_up(top)
        print(f"the undisturbed run takes {bench.seconds:.1f} s, two side by side", flush=True)
        for name in names:
            tries += group(name, options.delay)(bench, random.Random(f"{options.seed} {name}"), options.times)
    spent = f"{(time.monotonic() - began) / 60:.0f} minutes, {sum(os.times()[:4]) / 60:.0f} of processor time"
    page = f"{table(tries, before)}\n\n{verdict(tries)} seed={options.seed}, {spent}.\n"
    print(f"\n{page}", end="")
    if options.out:
        Path(options.out).write_text(page, encoding="utf-8")
        text = json.dumps([asdict(each) for each in tries], indent=2, ensure_ascii=False)
        Path(options.out).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return int(any(each.lost for each in tries))


def heed_signals() -> None:
    """Check that the commands heed signals: what ``nohup`` or ``&`` makes a process ignore, its children ignore too.

    A handler, even one that does nothing, is not handed down.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def group(name: str, delay: float) -> Group:
    """Make the tries of a group, by its name."""
    if name == "server":
        return partial(server, delay=delay)
    return {"kills": kills, "store": store, "caches": caches, "bundles": bundles}[name]


def table(tries: list[Try], before: list[Try] | None = None) -> str:
    """Write the tries as Markdown, a row for each fault, in the order in which they came.

    Args:
        tries: to be told of.
        before: of an earlier version, for a column that tells of them; ``None``: no such column.
    """
    earlier, now = _by_fault(before or []), _by_fault(tries)
    head = ["group", "fault", *(["before"] if before else []), "now", "longest wait of an epoch"]
    rows = [head, ["---"] * len(head)]
    for name in {**earlier, **now}:  # a dict keeps the order
        some = now.get(name, [])
        waits = [each.waited for each in some if each.waited is not None]
        told = [_tell(earlier.get(name, []))] if before else []
        rows.append([*name, *told, _tell(some), f"{max(0.0, *waits):.1f} s" if waits else ""])
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _by_fault(tries: list[Try]) -> dict[tuple[str, str], list[Try]]:
    rows: dict[tuple[str, str], list[Try]] = {}
    for each in tries:
        rows.setdefault((each.group, each.fault), []).append(each)
    return rows


def _tell(tries: list[Try]) -> str:
    """Count tries of a fault and name what was lost: ``1 of 2: no metrics``."""
    if not tries:
        return "not tried"
    if not (lost := sum(bool(each.lost) for each in tries)):
        return f"0 of {len(tries)}"
    often = Counter(loss for each in tries for loss in each.lost)
    what = [loss if count == lost else f"{loss} ({count} times)" for loss, count in often.items()]
    return f"**{lost} of {len(tries)}**: {'; '.join(what)}"


def verdict(tries: list[Try]) -> str:
    """Summarise all tries in one sentence."""
    lost = sum(bool(each.lost) for each in tries)
    return f"{len(tries)} faults were made; {lost or 'none'} of them cost something."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
