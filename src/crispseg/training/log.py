"""What a training says while it runs: ``log.csv``, a logger of Lightning's (TensorBoard, …), and how far it is.

The rows travel in the checkpoint, so the log of a resumed run has no gap and no line twice.

Not here: what is measured.
"""

import csv
import io
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crispseg.errors import UsageError
from crispseg.files import write_text
from crispseg.progress import Ticker

Row = dict[str, float | None]
"""A number by its name, the step first; None where there was nothing to measure."""


class Log:
    """Rows of numbers, one a logged step. ``silent``: another rank writes and says them."""

    def __init__(
        self, folder: Path, state: dict[str, Any], *, total: int, logger: str = "tensorboard", silent: bool = False
    ) -> None:
        self.folder, self.rows, self.silent = folder, state["log"], silent
        start = int(self.rows[-1]["step"] or 0) if self.rows else 0
        self.logger = None if silent else _logger(logger, folder, state.get("logger"), start)
        self.state = state
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=(console := Console(stderr=True)),
            disable=silent or not console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=total, said="")
        self.ticker = Ticker("training", total, start=start)

    def __enter__(self) -> "Log":
        self.progress.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.progress.stop()
        if self.logger is not None:
            self.logger.finalize("success" if kind is None else "failed")

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar to ``step``; without a terminal, a line now and then."""
        if self.silent:
            return
        said = f"loss {loss:.3f}"
        if self.progress.disable:
            self.ticker.at(step, said)
        else:
            self.progress.update(self.task, completed=step, said=said)

    def write(self, step: int, **values: float | None) -> None:
        """Keep a row; ``log.csv`` is rewritten whole. None is an empty cell."""
        self.rows.append({"step": step, **values})
        if self.silent:
            return
        measured = {name: value for name, value in values.items() if value is not None}
        if self.logger is not None:
            self.logger.log_metrics(measured, step)
            self.state["logger"] = self.logger.version  # known from the first row on
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.folder / "log.csv", text.getvalue())
        if "val_miou" in values:
            self.progress.console.print(
                f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in measured.items()),
                highlight=False,
            ) if not self.progress.disable else None


def waited(rows: list[Row], patience: int | None, since: int = 0) -> bool:
    """Whether so many validations in a row, the last ones, were none better than the best before them.

    Those up to step ``since`` do not count: more epochs were asked for after them.

    >>> rows = [{"step": step, "val_miou": miou} for step, miou in ((1, 0.5), (2, None), (3, 0.4), (4, 0.5))]
    >>> waited(rows, 2), waited(rows, 3), waited(rows, None), waited(rows, 2, since=3), waited(rows, 1, since=3)
    (True, False, False, False, True)
    """
    scores = [(row["step"] or 0, score) for row in rows if (score := row.get("val_miou")) is not None]
    if patience is None or not scores:
        return False
    best, _ = max(scores, key=lambda row: row[1])  # the first of equals
    return sum(step > max(best, since) for step, _ in scores) >= patience


def _logger(name: str, folder: Path, version: Any, start: int) -> Any:
    """Lightning's logger of that name; ``version``: what names the same curves when a run is resumed."""
    if name == "csv":
        return None
    try:
        if name == "tensorboard":
            from lightning.fabric.loggers.tensorboard import TensorBoardLogger

            return TensorBoardLogger(folder, "tensorboard", "", purge_step=start + 1)
        from lightning.pytorch.loggers import MLFlowLogger, WandbLogger  # slow to import

        if name == "mlflow":
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute()}/mlflow.db"
            return MLFlowLogger("crispseg", run_name=folder.name, tracking_uri=uri, run_id=version)
        return WandbLogger(folder.name, folder, version, project="crispseg", resume="allow")
    except ModuleNotFoundError as error:
        raise UsageError(f'training.logger {name} needs the package {name}: pip install "crispseg[{name}]"') from error
