"""A thousand triggers at once: each is answered truly, and people get one mail an incident."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.daemon.box import boxed
from tests.daemon.conftest import FPS
from tests.daemon.crowd import cameras, trigger_all
from vigintd.control.door import MOST_INSIDE

TRIGGERS = 1000
assert TRIGGERS > 2 * MOST_INSIDE, "or nobody would have to wait"


@pytest.mark.parametrize("count", [1, 20], ids=["one camera", "twenty cameras"])
async def test_a_thousand_triggers_are_one_incident_a_camera_and_one_mail_each(short_path, log_folder, block_packets, count):
    """The first one of a camera opens its incident, the others extend it, and all are told which; none is lost."""
    async with cameras(count, block_packets, fps=FPS) as configured, boxed(short_path, log_folder, configured) as box:
        await box.start()
        for name in configured:
            await box.event("camera.live", camera=name)
        in_turn = list(configured) * (TRIGGERS // count)
        told = await trigger_all(box.state_dir / "run" / "control.sock", in_turn)
        opened = {one.camera: one.incident_id for one in told if one.opened}
        assert Counter(one.camera for one in told if one.opened) == Counter(list(configured))
        assert {(one.camera, one.incident_id) for one in told} == set(opened.items())
        for name, incident_id in opened.items():
            incident = await box.closed(incident_id)
            assert (incident["camera"], incident["detections"]) == (name, TRIGGERS / count)
            assert [effect["state"] for effect in incident["effects"]] == ["done", "done"]
        links = [letter.link or "" for letter in box.mailbox.letters]
        assert [sum(incident_id in link for link in links) for incident_id in opened.values()] == [1] * count
        assert len(links) == count
        counters = (await box.control.status())["counters"]
        assert not counters, "nothing was lost at a bound"
