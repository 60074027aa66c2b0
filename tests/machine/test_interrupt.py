"""Ctrl-C during a long call to a library: one line, at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crispseg import machine

START = f"import sys, time; sys.path.append({str(Path(machine.__file__).parents[1])!r})\n"  # torch is slow to load
START += "from machine import interrupt; interrupt.SECONDS = 0.3; interrupt.watch(); print('ready', flush=True)\n"
LONG = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
SAYS = "try:\n    time.sleep(99)\nexcept KeyboardInterrupt:\n    print('said', file=sys.stderr)\n"


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (LONG, 130, "\ncrispseg: interrupted\n"),
        (SAYS + "    sys.exit(7)", 7, "said\n"),  # a command that ends by itself ends its own way
        (SAYS + "    import threading; threading.Thread(target=time.sleep, args=(99,)).start()", 130, "said\n"),
    ],
    ids=["in a library", "by itself", "waits at its end"],
)
def test_an_interrupt_is_answered(work, code, said):
    with subprocess.Popen([sys.executable, "-c", START + work], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == code
        assert process.stderr.read() == said
