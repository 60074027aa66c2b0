"""What a training says while it runs: ``log.csv``, TensorBoard, and how far it is.

The rows travel in the checkpoint, so the log of a resumed run has no gap and no line twice.

Not here: what is measured.
"""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crispseg.files import write_text
from crispseg.progress import Ticker

Row = dict[str, float | None]
"""A number by its name, the step first; None where there was nothing to measure."""


class Log:
    """Rows of numbers, one a logged step."""

    def __init__(self, folder: Path, rows: list[Row], *, total: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.folder, self.rows = folder, rows
        start = int(rows[-1]["step"] or 0) if rows else 0
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=(console := Console(stderr=True)),
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=total, said="")
        self.ticker = Ticker("training", total, start=start)

    def __enter__(self) -> "Log":
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()
        self.board.close()

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar to ``step``; without a terminal, a line now and then."""
        said = f"loss {loss:.3f}"
        if self.progress.disable:
            self.ticker.at(step, said)
        else:
            self.progress.update(self.task, completed=step, said=said)

    def write(self, step: int, **values: float | None) -> None:
        """Keep a row; ``log.csv`` is rewritten whole. None is an empty cell."""
        self.rows.append({"step": step, **values})
        measured = {name: value for name, value in values.items() if value is not None}
        for name, value in measured.items():
            self.board.add_scalar(name, value, step)
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
