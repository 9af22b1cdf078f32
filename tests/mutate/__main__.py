"""Break the constructions and the reference code in small ways, and see whether the tests notice.

    python -m tests.mutate --jobs 2            a seeded sample of 60 mutants
    python -m tests.mutate --jobs 2 --all      all of them (hours)
    python -m tests.mutate --list              where they are

Each mutant runs the fast tests that reach it, then those that reach its file.  Survivors are listed; those of
tests/mutate/equivalent.toml compute the same, with the proof there.  The exit status is 1 when more than 5%
survive, or a sign, index or factor of a construction does.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import queue
import random
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from tests.mutate.reach import Reach, reach
from tests.mutate.sites import KINDS, ROOT, Site, files, sites

PROGRAM = "tests.mutate"

EQUIVALENT = Path(__file__).with_name("equivalent.toml")

FIRST, SECOND = 20.0, 60.0
"""Seconds of tests (without the mutant) that are run for one: of those that reach it, and of the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    __doc__ = __doc__

    jobs: int = 1
    """Processes."""
    all: bool = False
    """Every mutant."""
    count: int = 60
    """Mutants in the sample."""
    only: Annotated[str, flag("GLOB", "all files")] = "*"
    """Files to break, e.g. "gmm/*"."""
    list: bool = False
    """Only print where the mutants are."""
    resume: Annotated[Path | None, flag("FILE", "none")] = None
    """Keep verdicts in this file as they come, and skip those that are in it."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


def equivalent() -> dict[str, str]:
    """Names of mutants that compute the same, with the proof."""
    if not EQUIVALENT.exists():
        return {}
    entries = tomllib.loads(EQUIVALENT.read_text("utf-8")).get("mutant", [])
    return {entry["name"]: entry["proof"] for entry in entries}


def chosen(options: Options) -> list[Site]:
    """The mutants of this run."""
    found = [site for file in files() if fnmatch.fnmatch(file, options.only) for site in sites(file)]
    if not found:
        raise ValueError(f"--only {options.only} is none of {', '.join(files())}")
    if options.all or options.list:
        return found
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")
    return random.Random(options.common.seed).sample(found, min(options.count, len(found)))


class Worker:
    """One process that judges mutants."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutate.worker"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def verdict(self, site: Site, known: Reach) -> str:
        """killed, timeout, survived, or not reached."""
        stages = [(known.tests(site), FIRST), (known.others(site), SECOND)]
        if not stages[0][0] and not stages[1][0]:
            return "not reached"
        for tests, room in stages:
            picked, seconds = [], 0.0
            for test in tests:
                seconds += known.seconds[test]
                if seconds > room and picked:
                    break
                picked.append(test)
            if picked:
                answer = self.ask(site, picked, 30 + 5 * min(seconds, room))
                if answer != "survived":
                    return answer
        return "survived"

    def ask(self, site: Site, tests: list[str], limit: float) -> str:
        """What the tests make of a mutant within `limit` seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"site": site, "tests": tests, "limit": limit}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise OSError("a process that judges mutants has died")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # closes the pipes


def judge_all(todo: list[Site], known: Reach, options: Options, kept: dict[str, str]) -> None:
    """Fill `kept` with the verdict of each mutant, and write it to the file of --resume as it comes."""
    waiting: queue.SimpleQueue[Site] = queue.SimpleQueue()
    for site in todo:
        waiting.put(site)
    lock, failed = threading.Lock(), []
    bar = tqdm(total=len(todo), desc="mutants", disable=None)

    def work() -> None:
        worker = Worker()
        try:
            while not failed:
                site = waiting.get_nowait()
                verdict = worker.verdict(site, known)
                with lock:
                    kept[site.name] = verdict
                    if options.resume is not None:
                        with options.resume.open("a") as file:
                            file.write(json.dumps({"name": site.name, "verdict": verdict}) + "\n")
                    bar.update()
        except queue.Empty:
            pass
        except Exception as error:
            failed.append(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.1)
    except KeyboardInterrupt:
        failed.append(KeyboardInterrupt())
        raise
    finally:
        for thread in threads:
            thread.join()
        bar.close()
    if failed:
        raise OSError(f"the run broke off: {failed[0]}")


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {options.jobs}")
    every = chosen(options)
    if options.list:
        for site in every:
            print(f"{site.file}:{site.line}:{site.column + 1} {site.kind}: {site.before} -> {site.after}")
        counts = Counter(site.kind for site in every)
        print(f"{len(every)} mutants: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
        return
    same = equivalent()
    kept: dict[str, str] = {}
    if options.resume is not None and options.resume.exists():
        kept = {
            entry["name"]: entry["verdict"]
            for entry in map(json.loads, options.resume.read_text().splitlines())
        }
    todo = [site for site in every if site.name not in kept and site.name not in same]
    judge_all(todo, reach(), options, kept)
    counted = [site for site in every if site.name not in same]
    summary = summarise(counted, kept, sum(site.name in same for site in every))
    if options.common.json is not None:
        write_outputs(None, options.common.json, summary | {"seed": options.common.seed})
    if summary["share_killed"] < 0.95 or summary["grave"]:
        sys.exit(1)


def summarise(counted: list[Site], kept: dict[str, str], n_same: int) -> dict[str, Any]:
    """Print survivors and counts; return them."""
    alive = [site for site in counted if kept[site.name] in ("survived", "not reached")]
    for site in alive:
        print(f"{site.file}:{site.line}:{site.column + 1} {kept[site.name]} ({site.kind}) {site.name}")
    grave = [
        s.name for s in alive if s.file.startswith("constructions/") and s.kind in ("sign", "index", "factor")
    ]
    share = 1 - len(alive) / max(1, len(counted))
    print(
        f"{len(counted)} mutants, {100 * share:.1f}% killed, {len(alive)} alive, {len(grave)} of them signs, "
        f"indices and factors of constructions; {n_same} more are equivalent"
    )
    by_file = Counter(site.file for site in alive)
    return {
        "mutants": len(counted),
        "share_killed": share,
        "alive": [site.name for site in alive],
        "grave": grave,
        "equivalent": n_same,
        "alive_by_file": dict(by_file),
    }


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
