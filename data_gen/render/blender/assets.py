"""The user's files: meshes, textures and pictures of surroundings, by names like asset:toys/car.glb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bmesh
import bpy
from mathutils import Matrix

from data_gen.render.blender import Refused
from data_gen.render.blender.lights import environment_path
from data_gen.render.blender.meshes import finish_mesh

MAX_HALF_HEIGHT = 1.2  # of a mesh that is scaled to stay within distance 1 of the vertical axis
OUTLINE_POINTS = 200


class Assets:
    """Reads files of the asset folder, and Blender's own pictures of surroundings; keeps pictures."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder.resolve() if folder else None
        self.images: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """The file called asset:... Raises Refused for one outside the folder, or none at all."""
        if self.folder is None:
            raise Refused(f"{name}: the worker was started without --assets=DIR")
        path = (self.folder / name.removeprefix("asset:")).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            raise Refused(f"{name}: no such file in the asset folder")
        return path

    def image(self, name: str) -> Any:
        """A picture, by the name of an asset or of Blender's own surroundings."""
        if name not in self.images:
            path = self.path(name) if name.startswith("asset:") else environment_path(name)
            self.images[name] = bpy.data.images.load(str(path))
        return self.images[name]

    def mesh(self, name: str) -> Any:
        """All meshes of a file as one, centred, and scaled like the solids of shapes.py. Raises Refused."""
        path = self.path(name)
        mesh = bmesh.new()
        before = set(bpy.data.objects)
        try:
            read_file(path)
        except (RuntimeError, OSError) as error:  # what Blender's importers raise for a damaged file
            raise Refused(f"{name}: {error}") from error
        bpy.context.view_layer.update()  # world matrices of what was read
        found = [item for item in bpy.data.objects if item not in before]
        for item in found:
            if item.type == "MESH":
                part = item.data.copy()
                part.transform(item.matrix_world)
                mesh.from_mesh(part)
                bpy.data.meshes.remove(part)
        for item in found:
            bpy.data.objects.remove(item)
        if not mesh.faces:
            raise Refused(f"{name}: the file has no mesh with faces")
        normalize(mesh, name)
        return finish_mesh(mesh, name, sharp=0.6)


def read_file(path: Path) -> None:
    """Reads a file's objects into Blender; it runs no scripts that a .blend may hold."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        bpy.ops.wm.obj_import(filepath=str(path))
    elif suffix == ".ply":
        bpy.ops.wm.ply_import(filepath=str(path))
    elif suffix == ".glb":
        bpy.ops.preferences.addon_enable(module="io_scene_gltf2")
        bpy.ops.import_scene.gltf(filepath=str(path))
    elif suffix == ".blend":
        with bpy.data.libraries.load(str(path), link=False) as (source, wanted):
            wanted.objects = source.objects
        for item in wanted.objects:
            bpy.context.scene.collection.objects.link(item)
    else:
        raise Refused(f"{path.name}: meshes are .blend, .obj, .glb or .ply files")


def normalize(mesh: Any, name: str) -> None:
    """Centres the mesh's box on the origin and scales it to the size of the other solids."""
    spans = [(min(v.co[axis] for v in mesh.verts), max(v.co[axis] for v in mesh.verts)) for axis in range(3)]
    mesh.transform(Matrix.Translation([-(low + high) / 2 for low, high in spans]))
    across = max((v.co[0] ** 2 + v.co[1] ** 2) ** 0.5 for v in mesh.verts)
    half_height = (spans[2][1] - spans[2][0]) / 2
    scale = max(across, half_height / MAX_HALF_HEIGHT)
    if scale < 1e-9:
        raise Refused(f"{name}: the mesh is a single point")
    mesh.transform(Matrix.Scale(1 / scale, 4))


def measure(data: Any) -> dict[str, Any]:
    """Half the height of a mesh, and points whose convex hull is (nearly) its own."""
    mesh = bmesh.new()
    mesh.from_mesh(data)
    hull = bmesh.ops.convex_hull(mesh, input=list(mesh.verts), use_existing_faces=False)
    corners = [tuple(item.co) for item in hull["geom"] if isinstance(item, bmesh.types.BMVert)]
    mesh.free()
    half_height = max(z for _, _, z in corners)
    stride = -(-len(corners) // OUTLINE_POINTS)  # every second or third corner of a fine mesh will do
    return {"half_height": half_height, "outline": corners[::stride]}
