"""The whole daemon and a mail server that does not let it in. The cases one by one are in tests/faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.daemon.box import DEADLINE_S, boxed, camera
from vigintd.demo.mailbox import Mailbox


def only(password: str) -> dict[str, Any]:
    """A mail catcher's options with which it lets in who shows this password."""

    def authenticate(_server: object, _session: object, _envelope: object, _mechanism: str, shown: LoginPassword) -> AuthResult:
        return AuthResult(success=shown.password.decode() == password, handled=shown.password.decode() == password)

    return {"authenticator": authenticate, "auth_require_tls": False}


@asynccontextmanager
async def closing(mailbox: Mailbox) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await mailbox.stop()


async def test_alerts_that_a_wrong_password_kept_back_go_when_it_has_been_put_right(short_path, log_folder, rtsp_cameras):
    """As an installer does it: read the log, write the right password, start again, and ask for another try."""
    rtsp, mailbox = await rtsp_cameras(), Mailbox(short_path / "locked", **only("the right one"))
    login = {"port": await mailbox.start(), "username": "alerte", "password": "the wrong one"}
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, mail=login) as box, closing(mailbox):
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        refused = await box.event("mail.login_refused")
        assert "check mail.username and the credential mail__password" in refused["error"]
        await box.event("mail.postponed", incident=incident_id)
        assert (await box.control.status())["counters"]["mail.login_refused"] == {"": 1}
        await box.event("clip.published", incident=incident_id)
        assert await box.stop() == 0
        box.config["mail"]["password"] = "the right one"
        await box.start()
        await box.control.retry(None)
        letter = await mailbox.next(deadline_s=DEADLINE_S)
        assert letter.link
        assert incident_id in letter.link
