#!/usr/bin/env python3
"""How long the agent takes from its start to its first events: measure-start.py AGENT [RUNS]

Each run has a state directory of its own and no hub. The clock runs from before fork and exec until an event can be read
in the spool's files, where the recorder has written it; they are looked at every millisecond. What
is looked for are the words the rows have.
"""

import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# What the first row of a kind holds, as the spool keeps it.
MARKS = {"an account": b'"UserName":"root"', "a listening port": b'"LocalPort":'}


def run(agent):
    """Milliseconds to each mark."""
    with tempfile.TemporaryDirectory() as folder:
        state = pathlib.Path(folder, "state")
        state.mkdir()
        twin = pathlib.Path(folder, "twin.json")
        twin.write_text(json.dumps({"deviceId": "measure-start", "stateDirectory": str(state)}))
        started = time.monotonic()
        child = subprocess.Popen([agent, "run", "--config", twin], stderr=subprocess.DEVNULL)
        found = {}
        try:
            while len(found) < len(MARKS) and time.monotonic() - started < 10:
                held = b"".join(path.read_bytes() for path in state.glob("**/*.seg"))
                now = 1000 * (time.monotonic() - started)
                found |= {name: now for name, mark in MARKS.items() if name not in found and mark in held}
                time.sleep(0.001)
        finally:
            child.terminate()
            child.wait()
        return found


def main():
    agent, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20
    # Something listens, so that there is a row.
    listener = socket.create_server(("127.0.0.1", 0))
    results = [run(agent) for _ in range(runs)]
    listener.close()
    print(f"machine   {platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"binary    {agent}, {os.path.getsize(agent)} bytes")
    for name in MARKS:
        times = sorted(result[name] for result in results if name in result)
        missing = f", not within 10 s: {runs - len(times)}" if len(times) < runs else ""
        if times:
            middle = statistics.median(times)
            print(f"{name:<18}{middle:6.0f} ms (median of {runs}; {times[0]:.0f} to {times[-1]:.0f}){missing}")


if __name__ == "__main__":
    main()
