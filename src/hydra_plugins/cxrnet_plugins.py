"""The sweepers and launchers of cxrnet: Hydra takes plugins from the package ``hydra_plugins`` alone.

Imported whenever a command starts, so nothing heavy is.
"""

import os
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from cxrnet.workflows.jobs import Job


class GridSweeper(BasicSweeper):
    """Runs every combination of the values on the command line, as Hydra's own, below one parent run in MLflow.

    A job that fails leaves the others alone. A sweep that is resumed runs what isn't finished.
    """

    def sweep(self, arguments: list[str]) -> list[float | None]:
        """Run the jobs, and return their scores in order.

        Raises:
            SystemExit: a job failed, or the sweep's folder or MLflow can't be used.
        """
        from cxrnet.errors import CxrnetError
        from cxrnet.workflows.sweep import open_sweep

        assert self.hydra_context is not None  # these three: set up by Hydra
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        for each in overrides:
            if each.is_interval_sweep():
                line = f"{each.input_line}: a grid has no interval; to search it: hydra/sweeper=optuna, or give values"
                raise _refused(line, self.config)
        batches: Sequence[Sequence[Sequence[str]]] = self.split_arguments(overrides, self.max_batch_size)
        try:
            _check(self, [job for batch in batches for job in batch])
        except CxrnetError as error:
            raise _refused(str(error), self.config) from error
        try:
            with open_sweep(self.config, self.launcher, sum(map(len, batches))) as sweep:
                return [job.score for batch in batches for job in sweep.launch(batch)]
        except CxrnetError as error:  # Hydra would print a traceback
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error


class OptunaSweeper(BasicSweeper):
    """Searches the values on the command line by Optuna's ask and tell, below one parent run in MLflow.

    Args:
        params: spaces of keys and further words, as they would be typed.
        settings: see :class:`cxrnet.workflows.study.SearchSettings`.
    """

    def __init__(self, params: dict[str, str] | None, **settings: Any) -> None:  # noqa: ANN401 (from YAML)
        super().__init__(max_batch_size=None, params=params)
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials.

        Raises:
            SystemExit: the search is refused, a trial failed, or the sweep's folder, the study or MLflow can't be used.
        """
        from cxrnet.cli.run_folder import discard
        from cxrnet.errors import CxrnetError
        from cxrnet.workflows.study import SearchSettings, one_a_key

        assert self.hydra_context is not None  # these three: set up by Hydra
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = one_a_key(parser.parse_overrides([*self._parse_config(), *arguments]))
        try:
            settings = SearchSettings(**self.settings)
            from cxrnet.workflows.build import check_idle
            from cxrnet.workflows.search import plan_search, search

            plan = plan_search(self.config, overrides, settings)
            (trial,) = _check(self, [plan.example()])
            check_idle(trial.model, plan.example())
        except CxrnetError as error:
            raise _refused(str(error), self.config) from error
        try:
            search(plan, overrides, self.config, self.launcher)
        except CxrnetError as error:
            discard(plan.folder)  # where nothing was begun
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error


def _check(sweeper: BasicSweeper, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Refuse, before anything is begun, jobs that can't be composed or train on several devices, and a bad launcher.

    Returns:
        The configs of the jobs.

    Raises:
        CxrnetError: that is what they are.
    """
    from cxrnet.workflows.run_context import check_one_device

    assert sweeper.hydra_context is not None  # these two: set up by Hydra
    assert sweeper.config is not None
    load = sweeper.hydra_context.config_loader.load_sweep_config
    configs = [load(sweeper.config, list(job)) for job in jobs]
    for config in configs:
        check_one_device(config)
    if isinstance(sweeper.launcher, ProcessLauncher):
        sweeper.launcher.check()
    return configs


def _refused(line: str, config: DictConfig) -> SystemExit:
    """Say what the user did wrong, and leave no folder behind; the end of the command."""
    from cxrnet.cli.run_folder import discard
    from cxrnet.core.console import refusal

    discard(Path(config.hydra.sweep.dir))
    return refusal(line)


class ProcessLauncher(Launcher):
    """A launcher whose jobs run in processes of their own."""

    share: int | None = None
    """Jobs that share a machine, where the launcher doesn't divide it."""

    def check(self) -> None:
        """Refuse what it can't work with.

        Raises:
            CxrnetError: a package isn't installed, or a value of the launcher won't do.
        """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to a launcher."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and say how each ends."""
        from cxrnet.workflows.jobs import Job, say_ends

        jobs = [
            Job(initial_job_idx + place, overrides, self.config, self.context, self.task, self.share)
            for place, overrides in enumerate(job_overrides)
        ]
        return say_ends(jobs, self.run(jobs, Singleton.get_state()))

    @abstractmethod
    def run(self, jobs: "Sequence[Job]", state: dict[type, Any]) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs; yield the place of each among them and its result, as it ends."""


class JoblibLauncher(ProcessLauncher):
    """Runs several jobs at once on this machine; they share its processors, and its GPUs are handed round.

    Args:
        n_jobs: at once; -1: one a processor.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def check(self) -> None:
        """See the base class."""
        from cxrnet.errors import CxrnetError

        if not isinstance(self.n_jobs, int) or self.n_jobs == 0:
            line = f"hydra.launcher.n_jobs: {self.n_jobs}; give a whole number from 1 on, or -1 for one a processor"
            raise CxrnetError(line)

    def run(self, jobs: "Sequence[Job]", state: dict[type, Any]) -> Iterator[tuple[int, JobReturn]]:
        """See the base class."""
        from dataclasses import replace

        from joblib import Parallel, delayed, effective_n_jobs

        from cxrnet.workflows.jobs import failed

        at_once = min(effective_n_jobs(self.n_jobs), len(jobs))

        def run(place: int, job: "Job") -> tuple[int, JobReturn]:
            return place, job(state)

        tasks = (delayed(run)(place, replace(job, share=at_once)) for place, job in enumerate(jobs))
        left = set(range(len(jobs)))
        try:
            parallel = Parallel(n_jobs=at_once, backend="loky", batch_size=1, return_as="generator_unordered")
            for place, result in parallel(tasks):
                left.discard(place)
                yield place, result
        except Exception as error:  # a process was killed, which ends the others too
            yield from ((place, failed(error)) for place in sorted(left))


class SubmititLauncher(ProcessLauncher):
    """Submits jobs to Slurm, or runs them as Slurm would on this machine.

    Args:
        executor: ``slurm`` or ``local``.
        submitit_folder: where submitit keeps its files.
        parameters: parameters of submitit's executor, as timeout_min, slurm_partition, slurm_gpus_per_node.
    """

    def __init__(self, executor: str, submitit_folder: str, parameters: dict[str, Any]) -> None:
        self.executor, self.folder, self.parameters = executor, submitit_folder, parameters

    def check(self) -> None:
        """See the base class."""
        with TemporaryDirectory() as folder:  # which an executor may make
            self._executor(folder)

    def _executor(self, folder: str) -> Any:  # noqa: ANN401 (of submitit, which may not be installed)
        from cxrnet.errors import CxrnetError

        try:
            import submitit
        except ImportError as error:
            line = f"hydra/launcher=submitit_{self.executor}: submitit isn't installed; pip install 'cxrnet[slurm]'"
            raise CxrnetError(line) from error
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=self.executor)
        except RuntimeError as error:  # no srun
            raise CxrnetError(
                f"hydra/launcher=submitit_{self.executor}: there is no Slurm here ({error}); start it on a machine of "
                "the cluster, or try it out by hydra/launcher=submitit_local"
            ) from error
        try:
            executor.update_parameters(**self.parameters)
        except Exception as error:  # a name or a kind that submitit doesn't know
            raise CxrnetError(f"hydra.launcher.parameters: {' '.join(str(error).split())}") from error
        return executor

    def run(self, jobs: "Sequence[Job]", state: dict[type, Any]) -> Iterator[tuple[int, JobReturn]]:
        """See the base class."""
        from cxrnet.workflows.jobs import failed

        submitted = self._executor(self.folder).map_array(lambda job: job(state), jobs)
        for place, each in enumerate(submitted):
            try:
                yield place, each.result()
            except Exception as error:  # the job was killed, or has run out of its time
                yield place, failed(error)


class RayLauncher(ProcessLauncher):
    """Runs jobs on a Ray cluster, or on one of its own on this machine.

    Args:
        init: for ``ray.init``, as address.
        remote: what each job needs, as num_cpus, num_gpus.
    """

    def __init__(self, init: dict[str, Any], remote: dict[str, Any]) -> None:
        self.init, self.remote = init, remote

    def check(self) -> None:
        """See the base class."""
        if find_spec("ray") is None:
            from cxrnet.errors import CxrnetError

            raise CxrnetError("hydra/launcher=ray: Ray isn't installed; pip install 'cxrnet[ray]'")

    def _check_room(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Refuse jobs that no machine has room for: Ray would wait for one without a word."""
        from cxrnet.core import console
        from cxrnet.errors import CxrnetError

        asked = {"CPU": self.remote.get("num_cpus") or 0, "GPU": self.remote.get("num_gpus") or 0}
        has = [node["Resources"] for node in nodes if node["Alive"]]
        if any(all(each.get(name, 0) >= number for name, number in asked.items()) for each in has):
            return
        most = {name: max((each.get(name, 0) for each in has), default=0) for name in asked}
        line = (
            f"hydra.launcher.remote: a job asks for {asked['CPU']:g} CPUs and {asked['GPU']:g} GPUs, and machines have "
            f"{most['CPU']:g} and {most['GPU']:g} at most"
        )
        if self.init.get("address") is None:
            raise CxrnetError(f"{line}; ask for less")
        console.warn(f"{line}; jobs wait until the cluster has grown")

    def run(self, jobs: "Sequence[Job]", state: dict[type, Any]) -> Iterator[tuple[int, JobReturn]]:
        """See the base class."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about the user leaves the machine unasked
        import ray

        from cxrnet.errors import CxrnetError
        from cxrnet.workflows.jobs import failed

        try:
            ray.init(**self.init)
        except (ConnectionError, ValueError, TypeError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise CxrnetError(
                f"hydra.launcher.init: no Ray cluster can be used ({said}); start one, or leave "
                "hydra.launcher.init.address out for one on this machine"
            ) from error
        try:
            self._check_room(ray.nodes())  # type: ignore[no-untyped-call]
            run: Any = ray.remote(**self.remote)(lambda job: job(state))
            waiting = {run.remote(job): place for place, job in enumerate(jobs)}
            while waiting:
                (done, *_), _ = ray.wait([*waiting])
                place = waiting.pop(done)
                try:
                    yield place, ray.get(done)
                except Exception as error:  # its process was killed
                    yield place, failed(error)
        finally:
            ray.shutdown()
