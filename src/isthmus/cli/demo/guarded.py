"""`python -m isthmus.cli.demo.guarded …` is `python -m isthmus …` that ends with the process that started it.

The parent keeps the write end of the pipe that is our standard input, and never writes. However the parent ends, the
system closes the pipe: portable, and no kill -9 gets around it.
"""

import os
import signal
import sys
import threading
import time
from typing import Final

# A node that is told to stop waits for packets in flight; without its network there is nothing to wait for.
GRACE_S: Final = 5


def _watch() -> None:
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    from isthmus.cli.main import main

    main(sys.argv[1:])
