"""``predict_dataset``: masks of many pictures, or of parts of large ones, by the workers of a Ray cluster.

The process that asks records all masks first (``predictions.json``), so no worker touches that record. A worker is an
actor that loads the run once; a task is a few pictures, or a part of a large one. Each mask is written whole or not at
all, so a task that is done twice, because its worker was killed, does no harm.

Not here: what becomes of a picture (``crispseg.inference``), object stores (``stores``), Ray itself (``cluster``).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from crispseg.distributed import stores
from crispseg.distributed.cluster import RETRIES, Workers, cluster, work
from crispseg.errors import DataError, UsageError
from crispseg.files import write_bytes
from crispseg.inference import Input, Outcome, Scenes, record
from crispseg.inference.masks import predict_one
from crispseg.inference.scenes import Job, claim_scenes, join_scene, parts_of, predict_scene
from crispseg.runs import Run, load_run

Track = Callable[[Iterator[Any], int], Iterator[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every worker is told: the run, where masks go, and how pictures are seen."""

    run: str
    factory: str | None
    out: str
    cores: int
    device: str
    overlay: bool
    overwrite: bool
    job: Job | None
    options: dict[str, Any]


def predict_dataset(
    run: Run,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    factory: str | None = None,
    workers: Workers | None = None,
    seen: Scenes | None = None,
    overlay: bool = False,
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    track: Track = lambda answers, total: answers,
    **options: Any,
) -> Outcome:
    """Write a mask for each picture as :func:`crispseg.inference.predict_files` does, by many processes.

    Parameters
    ----------
    run
        A trained run. Each worker loads it again from ``run.path``, which every machine of the cluster must see.
    inputs, out
        As in ``predict_files``; on a cluster, folders that every machine sees. Either may be a folder of an object
        store, such as ``s3://bucket/photos``, which is read and written through fsspec.
    factory
        As in :func:`crispseg.runs.load_run`, for a network of the user's own.
    workers
        How many, and the cores of each; None: as many as fit the cluster, of one core.
    seen
        Predict by windows, as :func:`crispseg.inference.predict_scenes`. A picture with many rows of windows is
        predicted in parts, by several workers. For files, not for stores.
    overlay, overwrite
        As in ``predict_files``.
    device
        Where a worker computes; with ``cuda`` each has a GPU of its own.
    track
        ``track(answers, total)`` wraps the answers as they come, for progress.
    options
        Of ``predict_files``, or of ``predict_scenes`` with ``seen``.

    Returns
    -------
    What was written, and what was left out, as ``predict_files`` says it. A picture at which a worker ended again and
    again is left out too.

    Raises
    ------
    UsageError
        Before anything is written: as ``predict_files``; Ray, or what a store needs, is not installed; the cluster has
        not the cores or GPUs for the workers.

    Examples
    --------
    ::

        run = crispseg.runs.load_run("runs/mine")
        outcome = predict_dataset(run, ["photos/"], "masks", workers=Workers(count=8))
    """
    gpu, workers = str(device).startswith("cuda"), workers or Workers()
    with cluster(workers, gpu=gpu) as count:
        names, job = _claimed(run, inputs, str(out), seen, overlay, overwrite, options)
        parts: dict[str, list[Any]] = {}
        if job is not None:
            parts = {name: parts_of(picture, job) for name, picture in names.items()}
        units = [
            {"name": name, "path": str(picture.path), "stem": picture.name, "url": picture.url or "", "part": part}
            for name, picture in names.items()
            for part in map(json.dumps, parts.get(name) or ["all"])
        ]
        task = Task(
            run=str(run.path.resolve()),
            factory=factory,
            out=str(out),
            cores=workers.cores,
            device=str(device),
            overlay=overlay,
            overwrite=overwrite,
            job=job,
            options=options,
        )
        outcome, finished = Outcome([], []), dict.fromkeys(names, 0)
        left = {(unit["name"], unit["part"]) for unit in units}
        answers = work(Predictor, task, units, count=count, cores=workers.cores, gpu=gpu)
        for answer in track(answers, len(units)):
            name = answer["name"]
            left.remove((name, answer["part"]))
            outcome.failed.extend(map(DataError, json.loads(answer["failed"])))
            finished[name] += bool(answer["done"])
            if finished[name] == max(1, len(parts.get(name, ()))):
                try:
                    if job is not None and parts[name]:
                        join_scene(run.classes, name, names[name], Path(out), job, parts[name])
                except DataError as error:
                    outcome.failed.append(error)
                    continue
                outcome.written.append(f"{out}/{name}" if stores.is_remote(str(out)) else Path(out, name))
    for name in sorted({name for name, _ in left}):
        why = f"the process that predicted it ended {RETRIES + 1} times; it may lack memory"
        outcome.failed.append(DataError(f"{names[name].place()}: {why}"))
    return outcome


def _claimed(
    run: Run,
    inputs: Sequence[str | Path],
    out: str,
    seen: Scenes | None,
    overlay: bool,
    overwrite: bool,
    options: dict[str, Any],
) -> tuple[dict[str, Input], Job | None]:
    """The names of masks with their pictures, recorded where the masks go; the job, if they are seen by windows."""
    source = str(run.path.resolve())
    remote = stores.is_remote(out)
    if seen is not None:
        if remote or any(stores.is_remote(str(word)) for word in inputs):
            raise UsageError("large pictures in parts are read and written as files, not in an object store")
        job = claim_scenes(run.model.eval(), run.classes, inputs, Path(out), source, seen, overwrite, "cpu", options)
        return job.names, job
    pictures = stores.expand(inputs)
    pictures = pictures if remote else record.not_ours(pictures, Path(out))
    names = {record.mask(picture): picture for picture in pictures}
    files = names | ({record.overlay(picture): picture for picture in pictures} if overlay else {})
    if remote:
        stores.claim(out, files, run.classes, source, overwrite=overwrite)
    else:
        record.claim(Path(out), files, run.classes, source, overwrite=overwrite)
    return names, None


class Predictor:
    """A worker: it loads the run once, and answers a batch of units with what became of each."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(task.cores)
        self.task = task
        self.run = load_run(task.run, factory=task.factory)
        self.model = self.run.model.to(task.device).eval()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        units = [dict(zip(batch, map(str, values))) for values in zip(*batch.values())]
        found = [self._predict(unit) for unit in units]
        return {
            "name": [unit["name"] for unit in units],
            "part": [unit["part"] for unit in units],
            "done": [bool(outcome.written) for outcome in found],
            "failed": [json.dumps([str(error) for error in outcome.failed]) for outcome in found],
        }

    def _predict(self, unit: Mapping[str, str]) -> Outcome:
        task, name = self.task, unit["name"]
        picture = Input(Path(unit["path"]), unit["stem"], unit["url"] or None)
        if task.job is not None:
            part = json.loads(unit["part"])
            found = predict_scene(
                self.model,
                self.run.classes,
                name,
                picture,
                Path(task.out),
                task.job,
                part=None if part == "all" else (part[0], part[1]),
                overwrite=task.overwrite,
                device=task.device,
            )
            return found if found.failed else Outcome([name], [])
        options: dict[str, Any] = {"overlay": task.overlay, "device": task.device, **task.options}
        if picture.url is None and not stores.is_remote(task.out):
            return predict_one(self.model, self.run.classes, picture, Path(task.out), **options)
        return self._by_store(picture, options)

    def _by_store(self, picture: Input, options: dict[str, Any]) -> Outcome:
        """Predict between a store and this machine's disk."""
        with TemporaryDirectory() as folder:
            out, near = Path(folder) / "out", picture
            try:
                if picture.url is not None:
                    near = replace(picture, path=Path(folder) / picture.path.name, url=None)
                    near.path.write_bytes(stores.Store(picture.url).read(""))
                found = predict_one(self.model, self.run.classes, near, out, **options)
                for file in sorted(file for file in out.rglob("*") if file.is_file()):
                    put(self.task.out, file.relative_to(out).as_posix(), file.read_bytes())
            except DataError as error:
                return Outcome([], [error])
            told = [DataError(str(error).replace(str(near.path), picture.place())) for error in found.failed]
            return Outcome(found.written, told)


def put(out: str, name: str, data: bytes) -> None:
    """Write a file whole or not at all, to a folder or to one of a store."""
    if stores.is_remote(out):
        stores.Store(out).write(name, data)
    else:
        write_bytes(Path(out, name), data)
