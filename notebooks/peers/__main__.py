"""One peer in a process of its own: ``python -m peers NAME``.

A line of JSON on standard input is a request, a line on standard output its answer. It stays,
so that peers can take turns without starting again. It ends when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import ExitStack

from mousetrap.settings import Settings
from peers import peer_of


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    hop = ExitStack()
    peer = None
    for line in sys.stdin:
        wish = json.loads(line)
        do = wish.pop("do")
        answer: dict[str, object] = {}
        try:
            if do == "open":
                peer = peer_of(sys.argv[1])(Settings.from_environment())
            elif do == "publish":
                answer["seconds"] = peer.publish(body=wish.pop("body").encode(), **wish)
            elif do == "start":
                hop.enter_context(peer.hop(**wish))
            elif do == "stop":
                hop.close()
        except Exception:  # the parent process reports it
            answer["error"] = traceback.format_exc()[-3000:]
        print(json.dumps(answer), file=answers, flush=True)
    hop.close()
    if peer is not None:
        peer.close()


if __name__ == "__main__":
    main()
