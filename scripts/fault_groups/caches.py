"""Cached files that are damaged between two runs of the same command."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fault_groups.bench import Bench, Try, last_line, side_by_side

LEFT_OUT = (".lock",)  # empty


def flip(file: Path, rng: random.Random) -> None:
    """Turn one bit of a file."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(file: Path, rng: random.Random) -> None:
    """Keep the beginning of a file only, as after a full disk."""
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(1, max(2, len(content)))])


def empty(file: Path, _rng: random.Random) -> None:
    """Keep the name of a file only, as after a power cut."""
    file.write_bytes(b"")


def remove(file: Path, _rng: random.Random) -> None:
    """Delete a file."""
    file.unlink()


def scramble(file: Path, rng: random.Random) -> None:
    """Replace the content of a file by noise of the same length."""
    file.write_bytes(rng.randbytes(file.stat().st_size))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "one bit turned": flip,
    "cut": cut,
    "empty": empty,
    "missing": remove,
    "noise": scramble,
}
OF_JSON = ("one bit turned", "cut", "missing")  # the others are no JSON either, as a cut one


def caches(bench: Bench, rng: random.Random, times: int | None) -> Iterator[Try]:
    """Damage each kind of file of the cache in each way, and train again.

    Args:
        bench: where.
        rng: draws the bits, and the faults where there are more than ``times``.
        times: so many of them only.
    """
    top = bench.undisturbed.parent / "outputs" / "cache"
    files = [file.relative_to(top) for file in sorted(top.rglob("*")) if file.is_file()]
    # Arrays have numbers, and one of them is enough.
    kinds = {(file.parts[0], file.name.lstrip("0123456789")): file for file in reversed(files)}
    kinds = {kind: file for kind, file in kinds.items() if not file.name.endswith(LEFT_OUT)}
    planned = [
        (file, damage) for file in kinds.values() for damage in DAMAGES if file.suffix != ".json" or damage in OF_JSON
    ]
    chosen = planned if times is None else rng.sample(planned, min(times, len(planned)))
    return side_by_side(
        "caches",
        [
            partial(_damage, bench, f"cache-{number}", file, damage, random.Random(rng.random()))
            for number, (file, damage) in enumerate(chosen)
        ],
    )


def _damage(bench: Bench, name: str, file: Path, damage: str, rng: random.Random) -> Try:
    folder = bench.place(name)
    cache = folder / "outputs" / "cache"
    shutil.copytree(bench.undisturbed.parent / "outputs" / "cache", cache)
    DAMAGES[damage](cache / file, rng)
    running = bench.train(folder, "tracking=none")
    status = running.end()
    lost = bench.other_results(folder / "run")
    if status != 0:
        how = "a traceback" if "Traceback" in running.text else "hangs" if status is None else f"ends with {status}"
        lost.insert(0, f"{how} ({last_line(running.text)})")
    elif file.parts[1] not in "".join(running.text.split()):
        lost.append("no word of the damage")
    return Try("caches", f"{file.parts[0]}/{file.name}: {damage}", lost)
