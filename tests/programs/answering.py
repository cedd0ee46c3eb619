"""How the programs beside this file answer: one line of JSON, and then the process is over."""

import json
import os
import sys
from typing import NoReturn


def answer(said: dict[str, int]) -> NoReturn:
    """Print the last line and end at once.

    What Arrow's threads do while the interpreter is taken down is no part of the answer, and now
    and then it is an abort: https://github.com/apache/arrow/issues/34314.
    """
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    os._exit(0)
