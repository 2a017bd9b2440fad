"""The built-in link host with a certificate of its own, as configured."""

from __future__ import annotations

import aiohttp

from tests.daemon.box import boxed, camera
from tests.linkhost.test_tls import issue, trusting
from vigintd.demo.mailbox import Letter


async def test_a_link_of_a_host_with_a_certificate_is_https_and_opens(short_path, log_folder, rtsp_cameras):
    """Uploads go by its own socket as ever; who opens the link meets TLS, and counts with the address that a proxy told."""
    certificate, key = issue(short_path / "tls", "127.0.0.1")
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}) as box:
        box.config["linkhost"] |= {
            "certificate": str(certificate),
            "key": str(key),
            "public_url": box.base_url.replace("http:", "https:"),
            "trusted_proxies": ["127.0.0.1"],
        }
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        letter: Letter = await box.letter()
        assert letter.link
        assert letter.link.startswith("https://")
        await box.closed(incident_id)
        connector = aiohttp.TCPConnector(ssl=trusting())
        told = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "http"}
        async with aiohttp.ClientSession(connector=connector, headers=told) as session, session.get(letter.link) as page:
            assert page.status == 200
        await box.event("linkhost.in_the_clear")
