"""Links of a running daemon: what is revoked stays revoked, who came is on record, and the clip is known as evidence."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.daemon.box import Box, boxed, camera
from tests.daemon.web import fetch
from vigintd.cli.record import checked
from vigintd.control.link_client import LinkClient

GUARD, OWNER = "gardien@exemple.fr", "patron@exemple.fr"


def links_of(box: Box) -> LinkClient:
    return LinkClient(box.state_dir / "run" / "control.sock")


async def vigintd(box: Box, *words: str) -> tuple[int, str]:
    """Run a command as a person does; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vigintd", *words, "--config", str(box.folder / "vigintd.toml")),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": str(box.folder), "LANG": "C.UTF-8"},
        cwd=Path.cwd(),
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_revoked_link_opens_nothing_also_after_a_kill(short_path, log_folder, rtsp_cameras):
    """One recipient is cut off, the daemon dies in the same moment, and the next one knows; the other watches on."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        box.config["mail"]["recipients"] = [GUARD, OWNER]
        await box.start()
        await box.event("camera.live", camera="entree")
        await box.trigger("entree")
        incident_id = str((await box.control.incidents(1))[0]["id"])
        letters = [await box.letter(), await box.letter()]
        links = {letter.message["To"]: letter.link or "" for letter in letters}
        await box.closed(incident_id)
        assert (await links_of(box).revoke(incident_id[:8], GUARD))["revoked"] == [GUARD]
        await box.kill()
        await box.start()
        answers = {to: await fetch(link.replace("?token=", "/part/0.mp4?token=")) for to, link in links.items()}
        assert {to: answer.status for to, answer in answers.items()} == {GUARD: 404, OWNER: 200}
        shown = await links_of(box).links_of(incident_id)
        assert [bool(recipient["revoked_at"]) for recipient in shown["recipients"]] == [True, False]
        (visit,) = shown["visits"]
        assert (visit["recipient"], visit["kind"]) == (OWNER, "play")
        assert "agent" in visit["signals"]
        found = await checked(links_of(box), None)
        assert (found.problem, found.noted) == ("", True)

        # What the owner downloaded is known for what it is, while the daemon runs and without it.
        (short_path / "clip.mp4").write_bytes(answers[OWNER].body)
        code, running = await vigintd(box, "verify", str(short_path / "clip.mp4"))
        assert (code, f"incident {incident_id}" in running) == (0, True)
        assert await box.stop() == 0
        assert await vigintd(box, "verify", str(short_path / "clip.mp4")) == (0, running)
        (short_path / "clip.mp4").write_bytes(answers[OWNER].body + b"x")
        assert (await vigintd(box, "verify", str(short_path / "clip.mp4")))[0] == 1
