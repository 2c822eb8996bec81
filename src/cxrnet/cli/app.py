"""The frame of every entry point: Hydra around it, its ``--help``, and one line instead of a traceback for mistakes."""

import inspect
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from cxrnet.cli.command_line import REFUSALS, check_keys, check_options, explain, options, typed_words
from cxrnet.cli.run_folder import discard
from cxrnet.core.config import plain_config
from cxrnet.core.console import keep_streams, refusal
from cxrnet.core.machine import machine_told
from cxrnet.core.process import Terminated, is_main_process, keep_freed_memory, was_killed
from cxrnet.core.schema import build, register
from cxrnet.errors import ANOTHER_VERSION, CxrnetError

INTERRUPTED = 130  # exit status of a shell command ended by Ctrl-C
FULL_ERROR = "HYDRA_FULL_ERROR"
HELP = frozenset({"--help", "-h"})
WIDTH = 116  # of --help


def config_folder() -> Path:
    """Return the folder of the configs: inside the installed package, or at the top of the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def compose_config(settings: type[Any], words: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a command as its command line would.

    Args:
        settings: the schema of the command, of :mod:`cxrnet.workflows.settings`.
        words: words typed behind the command.
    """
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose(register(settings), list(words))


def entry_point(
    settings: type[Any], arguments: Callable[[list[str]], list[str]] | None = None
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a command of a function from config to anything.

    In a sweep a job that fails says why, and the sweep goes on with the next one. Ctrl-C and SIGTERM end everything.

    Args:
        settings: the schema of the command; its name is that of the config in ``conf/``.
        arguments: makes the command line that Hydra gets of the one that the user typed.
    """
    config_name = register(settings)

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def command() -> None:
            asked = os.environ.get(FULL_ERROR) == "1"
            keep_streams()
            typed = sys.argv[1:]
            failed: list[str] = []
            try:
                sys.argv[1:] = typed_words(typed)
                check_options(sys.argv[1:], config_folder())
                if arguments is not None:
                    with machine_told():
                        sys.argv[1:] = arguments(sys.argv[1:])
                os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would print, until the task begins
                flags = {word for word in sys.argv[1:] if word.startswith("-")}
                if flags and flags <= HELP:  # with others, as --config-dir, Hydra has to read them
                    print(help_text(config_name, [word for word in sys.argv[1:] if word not in flags]))
                    return
                composed = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
                composed(_guarded(task, settings, asked, typed, failed))()
            except CxrnetError as error:
                raise refusal(str(error)) from error
            except KeyboardInterrupt:  # before the task began
                raise SystemExit(INTERRUPTED) from None
            except REFUSALS as error:
                if asked or FULL_ERROR not in os.environ:
                    raise
                line = explain(error, config_folder(), config_name, sys.argv[1:])
                raise refusal(_of_its_version(line, typed)) from error
            finally:
                if not asked:
                    os.environ.pop(FULL_ERROR, None)
            if failed:
                raise SystemExit(1)

        return command

    return decorate


def _guarded(
    task: Callable[[DictConfig], Any],
    settings: type[Any],
    full_error: bool,
    typed: Sequence[str],
    failed: list[str],
) -> Callable[[DictConfig], Any]:
    """Wrap the task, so that a user's mistake ends in one line and a signal in its exit status.

    Args:
        task: from config to anything.
        settings: the schema of the command.
        full_error: a defect's traceback is to show Hydra's part of it too.
        typed: the command line as the user typed it.
        failed: gets the lines of the jobs of a sweep that failed; their result is NaN, as Hydra would say it again.
    """

    def guarded(config: DictConfig) -> Any:  # noqa: ANN401 (a sweeper takes whatever a task returns)
        if not full_error:
            os.environ.pop(FULL_ERROR, None)
        keep_freed_memory()
        hydra_config = HydraConfig.get()
        folder = Path(hydra_config.runtime.output_dir)
        try:
            _check(config, settings, typed)
            with machine_told():
                return task(config)
        except (CxrnetError, InstantiationException, OmegaConfBaseException) as error:
            line = _one_line(error)
            end = refusal(line)
            if hydra_config.mode == RunMode.MULTIRUN:
                failed.append(line)
                _keep_line(line, folder)
                return float("nan")
            if hydra_config.output_subdir is not None and is_main_process():
                discard(folder)
            raise end from error
        except (KeyboardInterrupt, SystemExit) as error:
            if not was_killed(error):
                raise
            if hydra_config.mode == RunMode.MULTIRUN:
                folder = Path(hydra_config.sweep.dir)
            going_on = f"; to go on: {shlex.quote(f'resume={folder}')}" if "resume" in config else ""
            print(f"stopped; what was finished stays in '{folder}'{going_on}", file=sys.stderr)
            raise SystemExit(error.code if isinstance(error, Terminated) else INTERRUPTED) from None

    return guarded


def _check(config: DictConfig, settings: type[Any], typed: Sequence[str]) -> None:
    """Check a configuration, so that what is missing or wrong is told before the imports of the task.

    Raises:
        CxrnetError: a value is missing or out of range, or a key is not known.
    """
    plain = plain_config(config)
    try:
        check_keys(config)
    except CxrnetError as error:
        raise CxrnetError(_of_its_version(str(error), typed)) from error
    build(settings, {name: plain[name] for name in plain if name in settings.__dataclass_fields__})


def _keep_line(line: str, folder: Path) -> None:
    """Write down why a job of a sweep failed, in its folder."""
    with suppress(OSError):  # on a full disk
        if not (folder / "error.txt").exists():  # a run that had begun has written it
            (folder / "error.txt").write_text(f"{line}\n", encoding="utf-8")


def _of_its_version(line: str, typed: Sequence[str]) -> str:
    """Return a refusal; of a word that nobody typed, which a resumed run brought, that the run is of another version.

    Args:
        line: ``<key>: ...``.
        typed: the command line.
    """
    keys = {word.lstrip("+~").partition("=")[0] for word in typed}
    key = line.partition(":")[0].partition("=")[0].lstrip("+")
    recorded = "resume" in keys and key != "config" and not any(f"{key}.".startswith(f"{each}.") for each in keys)
    return ANOTHER_VERSION.format(line.partition(":")[0]) if recorded else line


def _one_line(error: BaseException) -> str:
    """Return the user's mistake in a chain of errors: ours if there is one, else the first line of what Hydra says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CxrnetError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: no value is set; give {error.full_key}=<value>"
    if isinstance(error, InterpolationKeyError) and (named := re.search(r"key '(\w+)\[\d+\]'", str(error))):
        return f"{named[1]}: {error.full_key} is taken from it, and it is empty; give one at least"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "config: " + " ".join(lines[:2])


def help_text(config_name: str, words: Sequence[str]) -> str:
    """Describe a command: what it does, its options, and all keys with their values and what is said of them.

    Args:
        config_name: the config that stands at its top.
        words: words typed behind the command; the values are those that it would get.
    """
    configs = config_folder()
    with initialize_config_dir(str(configs), version_base="1.3"):
        config = compose(config_name, list(words), return_hydra_config=True)
    parts = [config.hydra.help.header]
    if groups := [group for group in config.hydra.runtime.choices if (configs / group).is_dir() and "/" not in group]:
        listed = [
            textwrap.fill(
                f"{group}: {', '.join(options(configs, group))}", WIDTH, subsequent_indent="  ", break_on_hyphens=False
            )
            for group in sorted(groups)
        ]
        parts.append("\n".join(["Options (group=option):", "", *listed]))
    with open_dict(config):
        del config["hydra"]
    parts.append("\n".join(["Values that can be changed (key=value):", "", *_keys(config)]))
    return "\n\n".join(parts)


def _keys(node: Any, indent: str = "") -> Iterator[str]:  # noqa: ANN401 (a node of OmegaConf)
    """Yield lines of YAML, with comments on the keys of data classes from their docstrings."""
    said = {}
    for each in reversed(getattr(OmegaConf.get_type(node), "settings", object).__mro__):
        text = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")[2]
        for name, words in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
            said[name] = re.sub(r":\w+:`([^`]*)`", r"\1", " ".join(words.split())).replace("``", "")
    for name in node:
        if name in said:
            mark = f"{indent}# "
            yield from textwrap.wrap(said[name], WIDTH, initial_indent=mark, subsequent_indent=mark)
        child = node._get_node(name)
        if OmegaConf.is_dict(child) and is_dataclass(OmegaConf.get_type(child)):
            yield f"{indent}{name}:"
            yield from _keys(child, f"{indent}  ")
        else:
            yield from textwrap.indent(OmegaConf.to_yaml(OmegaConf.masked_copy(node, [name])), indent).splitlines()
