"""Textured meshes as PLY, OBJ and USDZ."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from scene4d.exporters.textured_glb import picture_bytes
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.splat_cloud import is_far
from scene4d.formats.textured_mesh import MeshData

_ALIGN = 64
"""Bytes at multiples of which members of a USDZ package begin."""
_PADDING_ID = 0x1986
"""Of the extra field that pads them, as Pixar's own tools have it."""


def _digits(mesh: MeshData) -> int:
    """Of coordinates as text: those of float32, or those of float64 far from the origin."""
    return 15 if is_far(mesh.vertices, np.full(mesh.vertices.shape, -np.inf)) else 9


def ply(mesh: MeshData, texture_name: str) -> bytes:
    """With texture coordinates at corners of faces, as MeshLab and Open3D read them; v is up."""
    kind = ("double", "<f8") if _digits(mesh) == 15 else ("float", "<f4")
    faces = np.empty(
        len(mesh.triangles),
        dtype=[("n", "u1"), ("corners", "<i4", 3), ("m", "u1"), ("uv", "<f4", (3, 2))],
    )
    faces["n"], faces["corners"], faces["m"] = 3, mesh.triangles, 6
    faces["uv"] = mesh.uv[mesh.uv_triangles] * [1, -1] + [0, 1]
    header = ["ply", "format binary_little_endian 1.0", "comment scene4d"]
    header += [f"comment TextureFile {texture_name}", f"element vertex {len(mesh.vertices)}"]
    header += [f"property {kind[0]} {axis}" for axis in "xyz"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    header += ["property list uchar float texcoord", "end_header"]
    return (
        ("\n".join(header) + "\n").encode()
        + mesh.vertices.astype(kind[1]).tobytes()
        + (faces.tobytes())
    )


def obj(mesh: MeshData, material_name: str) -> bytes:
    """With texture coordinates; v is up."""
    digits = _digits(mesh)
    place = f"v %.{digits}g %.{digits}g %.{digits}g"
    lines = ["# scene4d", f"mtllib {material_name}", "usemtl photographs"]
    lines += [place % tuple(row) for row in mesh.vertices.tolist()]
    lines += [f"vt {u:.7f} {1 - v:.7f}" for u, v in mesh.uv.tolist()]
    corners = np.stack([mesh.triangles, mesh.uv_triangles], axis=-1).reshape(-1, 6) + 1
    lines += [f"f {a}/{i} {b}/{j} {c}/{k}" for a, i, b, j, c, k in corners.tolist()]
    return ("\n".join(lines) + "\n").encode()


def material(texture_name: str) -> bytes:
    """The OBJ's material file."""
    lines = ["newmtl photographs", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    return ("\n".join([*lines, f"map_Kd {texture_name}"]) + "\n").encode()


def usdz(
    mesh: MeshData,
    moved: np.ndarray,
    *,
    metres: float = 1.0,
    turn: np.ndarray = GLTF_FROM_SOURCE,
) -> bytes:
    """A package of USDA and JPEG, stored and aligned as USDZ asks; y is up.

    ``moved`` [3]: added to the vertices, before the ``turn`` [4, 4]. ``metres``: length of a unit.
    """
    node = turn.copy()
    node[:3, 3] += turn[:3, :3] @ moved
    members = {
        "scene.usda": _usda(mesh, node, metres).encode(),
        "texture.jpg": picture_bytes(mesh, "JPEG"),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as package:
        for name, content in members.items():
            begins = file.tell() + 30 + len(name) + 4
            pad = -begins % _ALIGN
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.extra = _PADDING_ID.to_bytes(2, "little") + pad.to_bytes(2, "little") + bytes(pad)
            package.writestr(info, content)
    return file.getvalue()


def _usda(mesh: MeshData, node: np.ndarray, metres: float) -> str:
    places = mesh.vertices.astype(np.float32)
    points = ", ".join(f"({x:.8g}, {y:.8g}, {z:.8g})" for x, y, z in places.tolist())
    uv = mesh.uv[mesh.uv_triangles].reshape(-1, 2)
    st = ", ".join(f"({u:.6f}, {1 - v:.6f})" for u, v in uv.tolist())
    rows = ", ".join("(" + ", ".join(repr(x) for x in row) + ")" for row in node.T.tolist())
    corners = (places.min(axis=0).tolist(), places.max(axis=0).tolist())
    ends = ", ".join(f"({x:.8g}, {y:.8g}, {z:.8g})" for x, y, z in corners)
    counts = ", ".join(["3"] * len(mesh.triangles))
    indices = ", ".join(map(str, mesh.triangles.ravel().tolist()))
    return _USDA.format(
        metres=repr(float(metres)), points=points, st=st, rows=rows, ends=ends, counts=counts,
        indices=indices,
    )  # fmt: skip


_USDA = """#usda 1.0
(
    defaultPrim = "Scene"
    metersPerUnit = {metres}
    upAxis = "Y"
)

def Xform "Scene" (
    kind = "component"
)
{{
    matrix4d xformOp:transform = ( {rows} )
    uniform token[] xformOpOrder = ["xformOp:transform"]

    def Mesh "Surface" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform bool doubleSided = 1
        float3[] extent = [{ends}]
        int[] faceVertexCounts = [{counts}]
        int[] faceVertexIndices = [{indices}]
        rel material:binding = </Scene/Photographs>
        point3f[] points = [{points}]
        texCoord2f[] primvars:st = [{st}] (
            interpolation = "faceVarying"
        )
        uniform token subdivisionScheme = "none"
    }}

    def Material "Photographs"
    {{
        token outputs:surface.connect = </Scene/Photographs/Surface.outputs:surface>

        def Shader "Surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </Scene/Photographs/Texture.outputs:rgb>
            float inputs:metallic = 0
            float inputs:roughness = 1
            token outputs:surface
        }}

        def Shader "Texture"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @texture.jpg@
            token inputs:sourceColorSpace = "sRGB"
            float2 inputs:st.connect = </Scene/Photographs/Places.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}

        def Shader "Places"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}
    }}
}}
"""
