"""Somebody sets the clock while alerts are owed: each goes when it would have gone, and none is given up."""

from __future__ import annotations

import pytest

from tests.incident.test_courier import ID, PEOPLE, all_told, house, tell
from vigintd.errors import MailUnavailable
from vigintd.journal import EffectState
from vigintd.model import AlertKind, NoVideo

DAY_S = 86_400
jumps = pytest.mark.parametrize("jump_s", [730 * DAY_S, -DAY_S], ids=["two years on", "a day back"])


@jumps
async def test_a_text_goes_at_its_time(tmp_path, jump_s):
    async with house(tmp_path) as it:
        await it.open(playable=False)
        await it.clock.asleep()
        it.clock.jump(jump_s)
        it.courier.look()
        await it.clock.advance(19)
        assert it.channel.delivered == []
        await it.clock.advance(1)
        await it.channel.until(lambda: len(it.channel.delivered) == 2)
        assert it.told() == all_told(AlertKind.TEXT, NoVideo.LATE)


@jumps
async def test_a_mail_that_failed_is_tried_again_after_its_wait_and_not_given_up(tmp_path, jump_s):
    """Set twice: while it waits for its first try, and while it waits for its second."""
    async with house(tmp_path, MailUnavailable("451"), MailUnavailable("451")) as it:
        await it.open(people=PEOPLE[:1])
        it.clock.jump(jump_s)
        await tell(it)
        for attempts in (1, 2):
            (effect,) = (await it.effects()).values()
            assert (effect.state, effect.attempts) == (EffectState.OWED, attempts)
            assert 0 < (effect.next_try_at - it.journal.now()).total_seconds() <= 10
            it.clock.jump(jump_s)
            it.courier.look()
            await it.clock.asleep()
            await it.clock.advance(10)
            await it.courier.drained()
        assert it.channel.fired == 2
        assert it.told() == all_told(AlertKind.LINK)[:1]


@jumps
async def test_a_link_is_waited_for_as_long_as_ever(tmp_path, jump_s):
    """Whoever was told without it is owed the follow-up when it plays, however late that is by the clock."""
    async with house(tmp_path) as it:
        await it.open(playable=False)
        await tell(it)
        it.clock.jump(jump_s)
        it.courier.look()
        await it.courier.drained()
        await it.journal.record_playable(ID)
        it.courier.look()
        await it.courier.drained()
        assert it.told() == sorted(all_told(AlertKind.TEXT, NoVideo.LATE) + all_told(AlertKind.FOLLOW_UP))
