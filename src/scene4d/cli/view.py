"""``scene4d view``: the web player with a scene, in this machine's browser or on a phone."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scene4d.cli.parse import parse
from scene4d.errors import DataError, UsageError
from scene4d.ranges import Within

if TYPE_CHECKING:
    from scene4d.bundle.container import Bundle

PLAYED = {"ply", "compressed-ply", "splat", "spz", "sog", "glb", "s4d"}
"""Splat formats that the player opens itself, by scene4d's names."""


@dataclass(frozen=True, kw_only=True)
class ViewArgs:
    """Opens the web player with a scene. The server gives out the player and this scene, nothing
    else, under an address that cannot be guessed; Ctrl-C ends it."""

    source: tyro.conf.Positional[Path]
    """Bundle (.s4d or its unpacked folder), splat file of any format, textured mesh (.glb), or run
    folder; what the player does not open itself, and a mesh, becomes a temporary bundle. Read whole
    before anything is served."""
    phone: bool = False
    """Serve in the local network and print a QR code, for a phone in the same Wi-Fi. The scene
    becomes a bundle, if it is none."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port to serve on; 0: a free one."""
    host: str | None = None
    """Address to serve on; by default 127.0.0.1, which only this machine reaches, and with --phone
    this machine's in the local network."""
    https: Literal["auto", "always", "never"] = "auto"
    """With --phone: over HTTPS phones have WebGPU, but warn about the certificate first. auto: for
    large scenes, where WebGPU matters."""
    drop_invalid: bool = False
    """Leave out splats whose values are not finite or whose rotation is 0; says how many."""
    open: bool = True
    """Open the browser; not with --phone."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port must be from 0 to 65535, got {self.port}")
        if self.https != "auto" and not self.phone:
            raise UsageError("--https is for --phone", fix="add --phone")


def main(argv: list[str]) -> None:
    """Runs the verb: the address on stdout, the rest on stderr; returns after Ctrl-C."""
    args = parse(ViewArgs, argv, prog="scene4d view")
    from scene4d.player.player_files import player_folder
    from scene4d.player.server import LOOPBACK, SceneServer, stopped_by_signals
    from scene4d.player.site import scene_site, title_of

    player = player_folder()
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="scene4d-view-") as folder:
        scene = playable(
            args.source,
            Path(folder) / "scene.s4d",
            bundle=args.phone,
            drop_invalid=args.drop_invalid,
            player=player,
        )
        site = scene_site(scene, title=title_of(args.source), player=player)
        if args.phone:
            host, certificate = phone_access(args, scene, Path(folder))
        else:
            host, certificate = args.host or LOOPBACK, None
        server = SceneServer(site, host=host, port=args.port, certificate=certificate)

        def announce() -> None:
            print_address(server.url, phone=args.phone, host=host)
            if args.open and not args.phone:
                import webbrowser

                webbrowser.open(server.url)

        server.serve_until_stopped(announce)


def playable(
    source: Path,
    temporary: Path,
    *,
    bundle: bool,
    drop_invalid: bool = False,
    player: Path | None = None,
) -> Path:
    """``source``, or a bundle of it written to ``temporary`` where the player needs one; beside
    that a plain PLY for one of another kind.

    The scene is read whole, so that what is damaged, no scene, or of a kind that the build
    ``player`` does not draw, is told before an address is. Raises :class:`DataError` then.
    """
    from scene4d.bundle.container import MANIFEST, open_bundle
    from scene4d.formats.registry import format_of, is_splats, read_splats, write_splats
    from scene4d.formats.textured_gltf import holds_mesh

    folder = source.parent if source.name == MANIFEST else source
    if (folder / MANIFEST).is_file():
        _check(open_bundle(folder), player)
        return folder  # an unpacked bundle, whatever the folder's name
    if source.exists() and is_splats(source) and not holds_mesh(source):
        form = format_of(source).name
        if form == "s4d":
            _check(open_bundle(source), player)
            return source
        if form in PLAYED and not bundle:
            cloud = read_splats(source, drop_invalid=drop_invalid)
            if not drop_invalid and not cloud.far and _is_plain(source, form):
                return source
            if not cloud.far:
                standard = temporary.with_suffix(".ply")
                write_splats(standard, cloud)
                return standard
            # a bundle has a frame of its own, where float32 is fine enough
    elif source.is_file() and source.name != "config.toml" and not holds_mesh(source):
        raise DataError(
            "is no scene that the player can show",
            where=source,
            fix="give a run folder, a bundle (.s4d), a file of splats (docs/formats.md lists them)"
            " or a mesh as .glb",
        )
    from scene4d.exporters.bundle import export, kind_for
    from scene4d.player.player_files import check_played
    from scene4d.training.open_scene import open_scene

    opened = open_scene(source, drop_invalid=drop_invalid)
    if player is not None:
        check_played(player, kind_for(opened), where=source)
    print(f"scene4d view: making a bundle of {source} ...", file=sys.stderr, flush=True)
    print(f"  {export(opened, temporary)}", file=sys.stderr, flush=True)
    return temporary


def _check(bundle: Bundle, player: Path | None) -> None:
    """Reads every member, which checks its length and hash; the kind is one that is drawn."""
    from scene4d.bundle.kinds import kind_of
    from scene4d.player.player_files import check_played

    if player is not None:
        check_played(player, kind_of(bundle), where=bundle.path)
    for name in bundle.names():
        bundle.read(name)


def _is_plain(source: Path, form: str) -> bool:
    """Whether a file that can be read is of the kind that every player of its format takes: for a
    PLY, binary little-endian float32 with three sizes and harmonics up to degree 3, no filter."""
    if form != "ply":
        return True
    from scene4d.formats.ply_tables import read_header

    header = read_header(source)
    vertex = header.element("vertex")
    assert vertex is not None
    names = {name for name, _ in vertex.properties}
    return (
        header.order == "<"
        and all(kind == "f4" for _, kind in vertex.properties)
        and "scale_2" in names
        and not names & {"filter_3D", "f_rest_45"}
    )


def phone_access(args: ViewArgs, scene: Path, folder: Path) -> tuple[str, Path | None]:
    """The address to serve on, and the certificate for HTTPS; says in one line which and why."""
    from scene4d.bundle.container import open_bundle
    from scene4d.bundle.kinds import kind_of
    from scene4d.player import phone
    from scene4d.player.server import printable_host

    host = args.host or phone.lan_address()
    opened = open_bundle(scene)
    count = int(opened.manifest["count"])
    what = kind_of(opened).describe(opened.manifest)
    large, possible = count > phone.HTTPS_FROM_SPLATS, phone.can_make_certificates()
    if args.https == "always" or (args.https == "auto" and large and possible):
        certificate = folder / "certificate.pem"
        fingerprint = phone.make_certificate(certificate, printable_host(host))
        told = (
            f"HTTPS, so that the phone has WebGPU for {what}; it warns once about the"
            f" certificate made just now (SHA-256 {fingerprint[:23]}...): go on to the page"
        )
    else:
        certificate = None
        why = f"fine for {what}" if not large else "slower with so many splats"
        hint = "" if possible or not large else "; pip install 'scene4d[viewer]' for HTTPS"
        told = f"plain HTTP, where phones have WebGL2 and no WebGPU: {why}{hint}"
    print(f"scene4d view: {told}", file=sys.stderr)
    return host, certificate


def print_address(url: str, *, phone: bool, host: str) -> None:
    """Prints the address, for a phone with its QR code, and who can reach ``host``."""
    from scene4d.player.server import is_loopback

    if phone:
        from scene4d.player.phone import qr_code

        code = qr_code(url)
        try:
            print(code or "  (pip install 'scene4d[viewer]' for a QR code here)", file=sys.stderr)
        except UnicodeEncodeError:
            print("  (this terminal has no block characters for a QR code)", file=sys.stderr)
    others = "phones in the same network" if phone else "all who reach this machine's network"
    where = "this machine alone" if is_loopback(host) else f"{others} and know the address"
    if phone and is_loopback(host):
        where += f" ({host} is no address that a phone reaches)"
    print(f"scene4d view: open to {where}; Ctrl-C ends it", file=sys.stderr, flush=True)
    print(url, flush=True)  # last: who reads it may ask at once
