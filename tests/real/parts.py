"""The real parts that tests run against: an RTSP server, a browser, a mail server, real footage.

Owns how each is started and ended, and the sentence that says what a machine lacks. What is missing is skipped with
that sentence; in the gate (`CI=true`) it fails the test instead.
"""

from __future__ import annotations

import functools
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme
from selenium import webdriver

from tests.real.scripted_camera import deafen
from vigintd.demo.mailbox import Mailbox

SYSTEM_PYTHON = "/usr/bin/python3"
GST_RTSP = Path(__file__).with_name("gst_rtsp.py")
START_S = 20.0
OPTIONAL = frozenset({"footage", "axe-core"})
"""What comes from elsewhere than the system's packages."""
NGINX_PATH = os.pathsep.join((os.defpath, "/usr/sbin", "/usr/local/sbin"))
"""It is among the administrator's programs, where a user's own search does not look."""

PHONE = (390, 844)
DESKTOP = (1280, 800)

_GST_PROBE = """
import gi
for name in ("Gst", "GstRtspServer", "GstRtsp"):
    gi.require_version(name, "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
wanted = ("x264enc", "x265enc", "qtdemux", "h264parse", "rtph264pay", "videotestsrc", "alawenc", "voaacenc", "audiotestsrc")
lacking = [name for name in wanted if not Gst.ElementFactory.find(name)]
raise SystemExit(f"GStreamer lacks {', '.join(lacking)}" if lacking else 0)
"""
_CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing_part(name: str) -> str | None:
    """Why this machine cannot give a test that part, or None when it can. Raises `KeyError` for an unknown part."""
    lacks: dict[str, Callable[[], str | None]] = {
        "axe-core": _lacks_axe,
        "gst-rtsp-server": _lacks_gst,
        "chromium": _lacks_chromium,
        "ffmpeg": _lacks_ffmpeg,
        "footage": _lacks_footage,
        "nginx": _lacks_nginx,
        "small-disk": _lacks_small_disk,
        "socket-filter": _lacks_socket_filter,
        "strace": _lacks_strace,
    }
    return lacks[name]()


def require(name: str) -> None:
    """Skip the running test with the reason where the part is missing; in the gate, fail it, but for what is optional."""
    if reason := missing_part(name):
        if os.environ.get("CI") == "true" and name not in OPTIONAL:
            pytest.fail(f"the gate lacks a real part: {reason}", pytrace=False)
        pytest.skip(reason)


@contextmanager
def gst_rtsp(*arguments: str) -> Iterator[str]:
    """Run `gst_rtsp.py` with these arguments; gives the URL of its camera."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([SYSTEM_PYTHON, GST_RTSP, *arguments], stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            line = process.stdout.readline() if _readable(process.stdout.fileno()) else b""
            word, _, port = line.decode("ascii").partition(" ")
            if word != "READY":
                errors.seek(0)
                pytest.fail(f"gst_rtsp.py did not get ready: {errors.read().decode('utf-8', 'replace')}", pytrace=False)
            yield f"{'rtsps' if '--tls' in arguments else 'rtsp'}://127.0.0.1:{int(port)}/cam"
        finally:
            process.kill()
            process.wait(START_S)
            process.stdout.close()


@contextmanager
def chromium(size: tuple[int, int] = DESKTOP, *, mobile: bool = False) -> Iterator[webdriver.Chrome]:
    """A headless browser with a fresh profile and a page of `size`; with `mobile`, one that claims to be a phone."""
    profile = tempfile.mkdtemp(prefix="chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_CHROMIUM_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    if mobile:
        metrics = {"width": size[0], "height": size[1], "pixelRatio": 2.0, "touch": True, "mobile": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    # Named, so that selenium does not look for a driver on the network.
    service = webdriver.ChromeService(executable_path=str(shutil.which("chromedriver")))
    try:
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_page_load_timeout(START_S)
            if not mobile:
                _fit(driver, size)
            yield driver
        finally:
            driver.quit()
    finally:
        shutil.rmtree(profile, ignore_errors=True)


@contextmanager
def small_disk(folder: Path, *, size_kb: int) -> Iterator[None]:
    """A disk of its own (tmpfs) of this size on `folder`, which is made where it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_kb}k,mode=0700", "tmpfs", str(folder))
    try:
        yield
    finally:
        # Lazily: what a test left open shall not keep it for ever.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """Make a small disk `ro` or `rw`. Raises `OSError` while a file is open for writing there."""
    _mount("-o", f"remount,{option}", str(folder))


@asynccontextmanager
async def mailbox(folder: Path) -> AsyncIterator[tuple[Mailbox, int]]:
    """A real SMTP server in this loop, and its port on 127.0.0.1."""
    box = Mailbox(folder)
    port = await box.start()
    try:
        yield box, port
    finally:
        await box.stop()


def certificate(folder: Path) -> Path:
    """A file in `folder` with a fresh key and the certificate for 127.0.0.1 that no authority vouches for."""
    path = folder / "certificate.pem"
    trustme.CA().issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def footage(name: str = "pedestrians.mp4") -> Path:
    """A file of the real footage; ask `missing_part("footage")` first."""
    return Path(os.environ["VIGINTD_FOOTAGE"]) / name


def _fit(driver: webdriver.Chrome, size: tuple[int, int]) -> None:
    """A window's size counts its frame; make the page that large instead."""
    inner = driver.execute_script("return [window.innerWidth, window.innerHeight]")
    driver.set_window_size(2 * size[0] - inner[0], 2 * size[1] - inner[1])


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], START_S)[0])


@functools.cache
def _lacks_gst() -> str | None:
    if not Path(SYSTEM_PYTHON).exists():
        return f"no RTSP server: there is no {SYSTEM_PYTHON}; see tests/real/install.sh"
    probe = subprocess.run([SYSTEM_PYTHON, "-c", _GST_PROBE], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode == 0:
        return None
    problem = (probe.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    return f"no RTSP server: {problem}; see tests/real/install.sh"


@functools.cache
def _lacks_chromium() -> str | None:
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no browser: {' and '.join(lacking)} not found; see tests/real/install.sh" if lacking else None


@functools.cache
def _lacks_socket_filter() -> str | None:
    with socket.socket() as connection:
        try:
            deafen(connection)
        except OSError as error:
            return f"no camera can vanish: a filter on a socket is refused here ({error.strerror}); run as root"
    return None


def _lacks_nginx() -> str | None:
    return None if shutil.which("nginx", path=NGINX_PATH) else "nginx is missing; as root on Debian, make setup installs it"


def axe() -> Path | None:
    """The script of axe-core, where `VIGINTD_AXE` names it or `make setup` has put it."""
    if named := os.environ.get("VIGINTD_AXE"):
        return Path(named)
    return next(Path(sys.prefix, "share", "axe-core").glob("*.js"), None)


def _lacks_axe() -> str | None:
    return None if axe() else "no axe-core: make setup fetches it where there is npm; or VIGINTD_AXE names its axe.min.js"


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


@functools.cache
def _lacks_small_disk() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), size_kb=64):
                return None
        except OSError as error:
            return f"no small disk: mounting a tmpfs is refused here ({error}); run as root"


@functools.cache
def _lacks_strace() -> str | None:
    if shutil.which("strace") is None:
        return "no failing fsync: strace not found; see tests/real/install.sh"
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"no failing fsync: {probe.stderr.strip()}" if probe.returncode else None


def _lacks_ffmpeg() -> str | None:
    return (
        "no RTMP server and no live HLS: ffmpeg not found; see tests/real/install.sh"
        if shutil.which("ffmpeg") is None
        else None
    )


def _lacks_footage() -> str | None:
    folder = os.environ.get("VIGINTD_FOOTAGE")
    if not folder:
        return "no footage: VIGINTD_FOOTAGE names no folder with pedestrians.mp4"
    return None if footage().is_file() else f"no footage: {footage()} is not there"
