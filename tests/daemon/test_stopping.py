"""One daemon at a time, and one that ends when it is told to."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tests.daemon.box import DEADLINE_S, Box, boxed, camera, free_port


async def another(box: Box) -> tuple[int | None, str]:
    """Start a second daemon on the same folder, at other addresses; its exit code and last words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vigintd", "run", "--config", str(box.folder / "vigintd.toml"), "--log-format", "json"),
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": str(box.folder), "VIGINTD_LINKHOST__LISTEN": f"127.0.0.1:{free_port()}"},
        cwd=Path.cwd(),
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, said.decode()


async def test_a_second_daemon_on_one_state_folder_says_so_and_disturbs_nobody(short_path, log_folder, rtsp_cameras):
    """And the first one ends at once when it is told to stop twice."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        await box.start()
        code, said = await another(box)
        assert code == 1
        assert "another vigintd uses this state folder" in said
        assert "Traceback" not in said
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        assert incident_id in ((await box.letter()).link or "")

        await box.trigger("entree")
        box.signal(signal.SIGTERM)
        await box.event("daemon.stopping")
        box.signal(signal.SIGTERM)
        await box.died()
        assert (await box.event("daemon.stopped_at_once"))["level"] == "warning"
        assert "daemon.stopped" not in [event["event"] for event in box.events]
