"""Speaks the worker's protocol without Blender and misbehaves on request; a file counts its processes."""

import json
import os
import sys
import time
from pathlib import Path

starts = Path(sys.argv[1])
with starts.open("a") as file:
    file.write("x")

for line in sys.stdin:
    request = json.loads(line)
    reply = {"ok": True, "process": len(starts.read_text())}
    match request["op"]:
        case "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "fail":
            reply = {"ok": False, "error": "no such shape"}
        case "die in first process" if reply["process"] == 1:
            os._exit(3)
    print(json.dumps(reply), flush=True)
