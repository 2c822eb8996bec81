"""The frame of every entry point: Hydra around it, and one line instead of a traceback for a user's mistake."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from cxrnet.cli.command_line import typed_words
from cxrnet.cli.help import help_text
from cxrnet.cli.hydra_errors import REFUSALS, check_keys, explain
from cxrnet.cli.streams import keep_streams
from cxrnet.core.config import plain_config
from cxrnet.core.machine import machine_told
from cxrnet.core.process import Terminated, keep_freed_memory, was_killed
from cxrnet.core.schema import build, register
from cxrnet.errors import ANOTHER_VERSION, CxrnetError

USER_ERROR = 2  # exit status, as argparse has it
INTERRUPTED = 130  # exit status of a shell command ended by Ctrl-C
FULL_ERROR = "HYDRA_FULL_ERROR"
HELP = frozenset({"--help", "-h"})


def config_folder() -> Path:
    """Return the folder of the configs: inside the installed package, or at the top of the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def compose_config(settings: type[Any], words: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a command as its command line would.

    Args:
        settings: the schema of the command, of :mod:`cxrnet.workflows.settings`.
        words: what is typed behind the command.
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
            try:
                sys.argv[1:] = typed_words(typed)
                if arguments is not None:
                    with machine_told():
                        sys.argv[1:] = arguments(sys.argv[1:])
                os.environ[FULL_ERROR] = "1"  # Hydra then raises what it would print, until the task begins
                flags = {word for word in sys.argv[1:] if word.startswith("-")}
                if flags and flags <= HELP:  # with others, as --config-dir, Hydra has to read them
                    words = [word for word in sys.argv[1:] if word not in flags]
                    print(help_text(config_folder(), config_name, words))
                    return
                composed = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
                composed(_guarded(task, settings, asked))()
            except CxrnetError as error:
                raise refusal(str(error)) from error
            except KeyboardInterrupt:  # before the task began
                raise SystemExit(INTERRUPTED) from None
            except REFUSALS as error:
                if asked or FULL_ERROR not in os.environ:
                    raise
                line = explain(error, config_folder(), config_name, sys.argv[1:])
                if _of_a_record(line, typed):
                    line = ANOTHER_VERSION.format(line.partition(":")[0])
                raise refusal(line) from error
            finally:
                if not asked:
                    os.environ.pop(FULL_ERROR, None)

        return command

    return decorate


def _guarded(task: Callable[[DictConfig], Any], settings: type[Any], full_error: bool) -> Callable[[DictConfig], Any]:
    """Wrap the task, so that a user's mistake ends in one line and a signal in its exit status.

    Args:
        task: from config to anything.
        settings: the schema of the command.
        full_error: a defect's traceback is to show Hydra's part of it too.
    """

    def guarded(config: DictConfig) -> Any:  # noqa: ANN401 (a sweeper takes whatever a task returns)
        if not full_error:
            os.environ.pop(FULL_ERROR, None)
        keep_freed_memory()
        try:
            plain = plain_config(config)  # what is missing or wrong is told before the imports of the task
            check_keys(config)
            build(settings, {name: plain[name] for name in plain if name in settings.__dataclass_fields__})
            with machine_told():
                return task(config)
        except (CxrnetError, InstantiationException, OmegaConfBaseException) as error:
            line = one_line(error)
            end = refusal(line)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _leave_reason(line)
                raise CompactHydraException(line) from error
            raise end from error
        except (KeyboardInterrupt, SystemExit) as error:
            if not was_killed(error):
                raise
            folder = HydraConfig.get().runtime.output_dir
            going_on = f"; to go on: {shlex.quote(f'resume={folder}')}" if "resume" in config else ""
            print(f"stopped; what was finished stays in '{folder}'{going_on}", file=sys.stderr)
            raise SystemExit(error.code if isinstance(error, Terminated) else INTERRUPTED) from None

    return guarded


def _of_a_record(line: str, typed: Sequence[str]) -> bool:
    """Tell whether a refusal is of a word that nobody typed: a resumed run brought it."""
    keys = {word.lstrip("+~").partition("=")[0] for word in typed}
    key = line.partition(":")[0].partition("=")[0]
    return "resume" in keys and key != "config" and not any(f"{key}.".startswith(f"{each}.") for each in keys)


def _leave_reason(line: str) -> None:
    """Write why a job failed into its folder, for the report of the sweep; a run that had begun has done so."""
    file = Path(HydraConfig.get().runtime.output_dir) / "error.txt"
    with suppress(OSError):  # on a full disk
        if not file.exists():
            file.write_text(f"{line}\n", encoding="utf-8")


def refusal(line: str) -> SystemExit:
    """Say what the user did wrong; the end of the command for it."""
    print(f"error: {line}", file=sys.stderr)
    return SystemExit(USER_ERROR)


def one_line(error: BaseException) -> str:
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
