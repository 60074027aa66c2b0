"""Train the network of crispseg refine again, on generated pictures alone; no data set is needed:
  crispseg train-refiner --out refiner.safetensors
Use it:
  crispseg refine --image photos --mask masks --out crisp --refine crispseg:weights=refiner.safetensors

The defaults are those of the weights that come with the package. The same seed gives the same weights on the same
machine with the same number of threads.
"""

from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, positive, whole
from crispseg.config import RefinerTraining

DEFAULT = RefinerTraining()


def flags() -> list[Flag]:
    """What to write and how long to train."""
    return [
        Flag(name="--out", kind=path, required=True, metavar="FILE", help="weights to write, .safetensors"),
        Flag(name="--steps", kind=whole(1), default=DEFAULT.steps, metavar="N", help="of the optimizer"),
        Flag(name="--batch-size", kind=whole(3), default=DEFAULT.batch_size, metavar="N", help="pictures a step"),
        Flag(name="--lr", kind=positive, default=DEFAULT.lr, metavar="X", help="highest learning rate"),
        Flag(name="--seed", kind=whole(0), default=DEFAULT.seed, metavar="N", help="of pictures, masks and weights"),
    ]


def run(arguments: Any) -> int:
    """Train, and say what it gained on generated pictures that it never saw."""
    from crispseg.training import train_refiner

    options = RefinerTraining(
        steps=arguments.steps, batch_size=arguments.batch_size, lr=arguments.lr, seed=arguments.seed
    )
    found = train_refiner(options, arguments.out, say=say)
    before, after = found["before"], found["after"]
    say(
        f"{arguments.out}: boundary F at 1 px {before['f1']:.3f} → {after['f1']:.3f}, mIoU {before['miou']:.3f} → "
        f"{after['miou']:.3f} on generated pictures held out; measure it on masks of your own"
    )
    return 0
