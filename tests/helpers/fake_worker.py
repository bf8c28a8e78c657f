"""Stands in for Blender in tests: speaks the worker's protocol, draws silhouettes, misbehaves on request.

Run as an interpreter is (`fake_worker.py worker.py --threads=1`, see conftest.fake_blender), or as an
installed Blender (`--version`). The environment variable FAKE_WORKER is JSON:
  die, hang: substring of the ids of pairs at which every process dies or hangs
  die_once, hang_once: the same, in the first process alone
  delay: seconds that every picture takes
  leak: bytes that every picture leaks
  log: a file that gets one line per picture, and one per start
"""

import io
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEHAVIOUR = json.loads(os.environ.get("FAKE_WORKER", "{}"))
LEAKED = []


def log(text):
    if path := BEHAVIOUR.get("log"):
        with open(path, "a") as file:
            file.write(text + "\n")


def misbehave(request):
    first = BEHAVIOUR.get("log") is None or Path(BEHAVIOUR["log"]).read_text().count("start") == 1
    name = request.get("id", "")
    for what in ("die", "hang"):
        always, once = BEHAVIOUR.get(what), BEHAVIOUR.get(f"{what}_once")
        if (always and always in name) or (once and once in name and first):
            if what == "die":
                print("out of luck", file=sys.stderr, flush=True)
                os._exit(3)
            time.sleep(600)


def draw(request):
    """Writes the mask or picture of a scene, every object's silhouette, far ones first, or those alone."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    from PIL import Image, ImageDraw

    from data_gen.scenes import geometry
    from data_gen.scenes import scene as scenes

    scene = scenes.from_dict(request["scene"])
    size = (scene.width, scene.height)
    hulls = {}
    for item in scene.objects:
        points = geometry.project(scene.camera, *size, geometry.outline(item))
        hulls[item.id] = [tuple(point) for point in geometry._convex_hull(points)]
    if request["op"] == "silhouettes":
        for number, box in request["boxes"].items():
            alone = Image.new("L", size, 0)
            ImageDraw.Draw(alone).polygon(hulls[int(number)], fill=255)
            save(alone.crop(tuple(box)), f"{request['path']}.{number}.png")
        return
    image = Image.new("RGB", size, (178, 178, 178)) if request["op"] == "picture" else Image.new("L", size, 0)
    pen = ImageDraw.Draw(image)
    camera = np.array(scene.camera.location)
    for item in sorted(scene.objects, key=lambda item: -np.linalg.norm(camera - item.position)):
        # A material is told by its brightness: what changes must show.
        shade = tuple(value // (2 if item.material == "metal" else 1) for value in item.rgb)
        pen.polygon(hulls[item.id], fill=shade if request["op"] == "picture" else item.id)
    save(image.convert("I;16") if request["op"] == "depth" else image, request["path"])


def save(image, path):
    file = io.BytesIO()
    image.save(file, "PNG")
    Path(path).write_bytes(file.getvalue())


def serve():
    log("start")
    for line in sys.stdin:
        request = json.loads(line)
        reply = {"ok": True, "process": os.getpid()}
        if request["op"] in ("mask", "picture", "depth", "silhouettes"):
            misbehave(request)
            if request["op"] == "picture":
                time.sleep(BEHAVIOUR.get("delay", 0))
                LEAKED.append(b"x" * BEHAVIOUR.get("leak", 0))
                log(f"picture {request['id']}")
            draw(request)
        elif request["op"] == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        elif request["op"] == "hang":
            time.sleep(600)
        elif request["op"] == "fail":
            reply = {"ok": False, "error": "no such shape"}
        elif request["op"] == "leak":
            LEAKED.append(b"x" * request["bytes"])
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    if "-c" in sys.argv:
        print("4.5.15 LTS")
    elif "--version" in sys.argv:
        print("Blender 4.5.15 LTS\n\tbuild date: today")
    else:
        if "--background" in sys.argv:
            print("Blender 4.5.15 LTS (hash of nothing)", flush=True)
        serve()
