"""The same function of many cases, in several processes of this machine or on a cluster's.

`loky` are processes of this machine; with `dask` (extra of that name) the cases go to the scheduler at the
given address, or to a cluster of `jobs` processes that is started here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from joblib import Parallel, delayed, parallel_config

from constructions.cli import flag

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Where cases are computed."""

    jobs: int = 1
    """Processes."""
    backend: Literal["loky", "dask"] = "loky"
    """loky: of this machine; dask: of a cluster."""
    scheduler: Annotated[str | None, flag("ADDRESS", "a cluster of --jobs processes here")] = None
    """A dask cluster's scheduler, as tcp://host:8786."""

    def check(self) -> None:
        """ValueError for options that make no sense."""
        if self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {self.jobs}")
        if self.scheduler is not None and self.backend != "dask":
            raise ValueError(f"--scheduler {self.scheduler} needs --backend dask")

    def unordered(
        self, function: Callable[..., T], cases: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, T]]:
        """Number of the case and `function(*case)`, as they come.

        ValueError if the dask backend is asked for and not installed; OSError if its scheduler cannot be
        reached.
        """
        calls = (delayed(_numbered)(number, function, case) for number, case in enumerate(cases))
        with self._cluster():
            run = Parallel(n_jobs=self.jobs, return_as="generator_unordered", batch_size=1)
            yield from run(calls)

    @contextlib.contextmanager
    def _cluster(self) -> Iterator[None]:
        if self.backend == "loky":
            yield
            return
        try:
            from dask.distributed import Client, LocalCluster
        except ImportError:
            raise ValueError('--backend dask needs dask: pip install -e ".[dask]"') from None
        with contextlib.ExitStack() as stack:
            where = self.scheduler
            if where is None:
                where = stack.enter_context(
                    LocalCluster(n_workers=self.jobs, threads_per_worker=1, dashboard_address=None)
                )
            stack.enter_context(Client(where))
            stack.enter_context(parallel_config(backend="dask"))
            yield


def _numbered(number: int, function: Callable[..., T], case: tuple[Any, ...]) -> tuple[int, T]:
    return number, function(*case)
