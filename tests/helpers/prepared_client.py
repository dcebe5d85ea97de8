"""One call of a program of helpers/prepared.py: it hands over its arguments and files, passes on
signals, and ends as the command does.
"""

import json
import os
import signal
import socket
import sys

address, program, *arguments = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(address)
    facts = {
        "program": program,
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    text = json.dumps(facts).encode()
    socket.send_fds(server, [b"%8d" % len(text)], [0, 1, 2])
    server.sendall(text)
    answers = server.makefile("rb")
    child = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = int(answers.readline())
os._exit(code if code >= 0 else 128 - code)
