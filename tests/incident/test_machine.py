"""Journal, publisher and courier against a simple model, by a machine that does what it likes in any order.

Real are the journal (an SQLite file), the spool, the publisher, the courier and the recovery; scripted are the mail server,
the host and the time. A kill leaves the files as they are at that moment, and the next life begins with them. The gate
runs the same examples each time; `make campaign-machine` runs many others.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.incident.lives import AUDIENCE, Case, CountingLoop, House, clip
from tests.incident.outside import PEOPLE, Hosting, Mail, Moment, Outside
from vigintd.incident.courier import CONCURRENT
from vigintd.journal import EffectKind, EffectState, IncidentRow, Owed
from vigintd.model import Alert, Detection, Incident, IncidentState, NoVideo

EXAMPLES = int(os.environ.get("VIGINTD_MACHINE_EXAMPLES", "0"))
"""So many random examples; 0 for those of the gate."""
GATE_EXAMPLES = 20
STEPS = 25
STATES = tuple(IncidentState)
RAN: Counter[str] = Counter()
"""How often each rule ran, the order of mails was looked at, and people were told what."""

_T = TypeVar("_T")
_Step = TypeVar("_Step", bound=Callable[..., None])


def counted(step: _Step) -> _Step:
    """Count how often this rule runs."""
    RAN[step.__name__] = 0

    @functools.wraps(step)
    def counting(*args: Any, **kwargs: Any) -> None:
        RAN[step.__name__] += 1
        step(*args, **kwargs)

    return counting  # type: ignore[return-value]  # the same signature


class Ladder(RuleBasedStateMachine):
    """Incidents from their row to their last mail, whatever happens in between."""

    def __init__(self) -> None:
        super().__init__()
        self._data, self._fragments = clip()
        first = self._fragments[1]
        memory = Path("/dev/shm")  # what is asked here is not how fast a disk is
        root = Path(tempfile.mkdtemp(prefix="vgt-", dir=memory if memory.is_dir() else None))
        self.outside = Outside(root, playable_bytes=first.offset_bytes + first.length_bytes)
        self.outside.folder.mkdir()
        self.cases: dict[str, Case] = {}
        self.failed = False
        self._runner = asyncio.Runner(loop_factory=CountingLoop)
        self.house = House(self.outside)
        self._do(self.house.begin())

    def teardown(self) -> None:
        """Everything is well again: in the end everybody was told of everything, and nothing is owed any more."""
        try:
            if not self.failed:
                self._do(self._all_ends_well())
            RAN.update(_words(alert) for _, alert in self.outside.delivered)
        finally:
            self._runner.run(self.house.end())
            self._runner.close()
            shutil.rmtree(self.outside.root)

    def _do(self, step: Coroutine[Any, Any, _T]) -> _T:
        try:
            return self._runner.run(step)
        except BaseException:
            self.failed = True
            raise

    @property
    def live(self) -> list[Case]:
        return [case for case in self.cases.values() if case.live is not None]

    # What happens

    @rule(fragments=st.integers(0, 3))
    @counted
    def an_incident_opens(self, fragments: int) -> None:
        async def open_one() -> None:
            case = await self._open()
            if fragments:
                await self._record(case, fragments)

        self._do(self._after(open_one()))

    @rule(recorded=st.booleans())
    @counted
    def incidents_open_behind_a_backlog(self, recorded: bool) -> None:
        async def open_three() -> None:
            self.outside.mail = Mail.DOWN
            for _ in range(3):
                case = await self._open()
                if recorded:
                    await self._record(case, len(self._fragments))
                await self._seal(case)

        self._do(self._after(open_three()))

    @rule(which=st.integers(0, 99))
    @counted
    def a_detection_extends_it(self, which: int) -> None:
        async def extend() -> None:
            case = await self._one_that_lives(which)
            await self._become(case, detections=case.incident.detections + 1)

        self._do(self._after(extend()))

    @rule(which=st.integers(0, 99), fragments=st.integers(1, 3))
    @counted
    def more_is_recorded(self, which: int, fragments: int) -> None:
        async def record() -> None:
            await self._record(await self._one_that_lives(which), fragments)

        self._do(self._after(record()))

    @rule(which=st.integers(0, 99))
    @counted
    def it_is_sealed(self, which: int) -> None:
        async def seal() -> None:
            await self._seal(await self._one_that_lives(which))

        self._do(self._after(seal()))

    @rule(how=st.sampled_from([Hosting.DOWN, Hosting.UP, Hosting.DOWN, Hosting.REFUSES]))
    @counted
    def the_host_changes(self, how: Hosting) -> None:
        self.outside.host = how

    @rule(how=st.sampled_from([Mail.UP, *Mail]))
    @counted
    def the_mail_server_changes(self, how: Mail) -> None:
        self.outside.mail = how

    @rule(seconds=st.sampled_from([1, 20, 300]))
    @counted
    def time_passes(self, seconds: int) -> None:
        self._do(self._pass(seconds))

    @rule(hours=st.sampled_from([6, 2 * 24, 6 * 24]))
    @counted
    def days_pass(self, hours: int) -> None:
        self._do(self._pass(3600 * hours))

    @rule(at=st.sampled_from([moment for moment in Moment if moment is not Moment.NOW]))
    @counted
    def it_will_be_killed(self, at: Moment) -> None:
        self.outside.kill_at = at

    @rule(turns=st.integers(0, 60), opening=st.booleans())
    @counted
    def it_is_killed(self, turns: int, opening: bool) -> None:
        self._do(self._killed(turns, opening=opening))

    @precondition(lambda self: self.cases)
    @rule()
    @counted
    def it_is_stopped_and_started(self) -> None:
        self._do(self._restarted())

    @precondition(lambda self: self.cases)
    @rule(mended=st.booleans())
    @counted
    def somebody_retries(self, mended: bool) -> None:
        if mended:
            self.outside.mail = Mail.UP
        self._do(self._after(self._retry()))

    # What must hold, always

    @invariant()
    def nothing_is_lost(self) -> None:
        self._do(self._look())

    async def _look(self) -> None:
        assert not self.outside.violations, self.outside.violations
        for case in self.cases.values():
            if (row := await self.house.journal.incident(case.id)) is None:
                assert not case.acknowledged, "an incident that was acknowledged is lost"
                continue
            case.acknowledged = True
            self._look_at(case, row)

    def _look_at(self, case: Case, row: IncidentRow) -> None:
        reached = STATES.index(row.incident.state)
        assert reached >= case.furthest, "a state went back"
        case.furthest = reached
        is_over = row.incident.state in (IncidentState.SEALED, IncidentState.PUBLISHED, IncidentState.CLOSED)
        owes = any(effect.state is EffectState.OWED for effect in row.effects)
        assert (row.incident.state is IncidentState.CLOSED) == (is_over and not owes), "closed is: nothing is owed"
        alerts = {effect.what: effect.state for effect in row.effects if effect.kind is EffectKind.ALERT}
        assert alerts.keys() == set(PEOPLE)
        for who, state in alerts.items():
            assert state is not EffectState.DONE or self.outside.told(case.id, who), f"{who} was never told"
        for effect in row.effects:
            if effect.kind is EffectKind.PUBLISH and effect.state is EffectState.DONE:
                at_host = {part: sha256 for (id_, part), sha256 in self.outside.sealed.items() if id_ == case.id}
                assert at_host == {part.index: part.sha256 for part in row.incident.parts}, "published is: verified there"

    # How it is done

    async def _after(self, step: Coroutine[Any, Any, _T]) -> _T | None:
        """Do it, and whatever follows from it; where the daemon dies of it, the next one begins."""
        doing, life = asyncio.ensure_future(step), self.outside.life
        dying = asyncio.ensure_future(self.outside.died.wait())
        await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if self.outside.life == life:
            await self.house.settled()
        if self.outside.life != life:
            doing.cancel()
            await asyncio.wait({doing})
            await self._next_life()
            return None
        return doing.result()

    async def _next_life(self) -> None:
        await self.house.end()
        for case in self.live:
            case.live = case.part = case.reel = None
        self.house = House(self.outside)
        await self.house.begin()
        rows = [await self.house.journal.incident(id_) for id_ in self.cases]
        self.outside.settled = {
            (effect.incident_id, effect.what, effect.kind.value)
            for row in rows
            if row is not None
            for effect in row.effects
            if effect.state is EffectState.DONE
        }
        await self._after(asyncio.sleep(0))

    async def _one_that_lives(self, which: int) -> Case:
        return self.live[which % len(self.live)] if self.live else await self._open()

    async def _open(self) -> Case:
        clock, house = self.outside.clock, self.house
        number = len(self.cases) + 1
        detection = Detection("entree", clock.monotonic_s(), clock.now(), "motion")
        case = Case(Incident(f"00000000-0000-4000-8000-{number:012d}", detection))
        self.cases[case.id] = case
        case.live = house.reels.enter_context(ExitStack())
        case.reel = case.live.enter_context(house.publisher.live(case.id))
        case.reel.pictured.set()
        due_at = house.journal.now() + timedelta(seconds=AUDIENCE.text_after_s)
        alerts = [Owed(EffectKind.ALERT, who, due_at) for who in PEOPLE]
        await house.journal.open_incident(case.incident, [*alerts, Owed(EffectKind.PUBLISH, "")])
        case.acknowledged = True
        house.courier.look()
        house.publisher.look()
        return case

    async def _become(self, case: Case, **changes: Any) -> None:
        case.incident = replace(case.incident, **changes)
        await self.house.journal.record_incident(case.incident)

    async def _record(self, case: Case, fragments: int) -> None:
        if case.part is None:
            case.part = await self.house.spool.new_part(case.id, 0)
            case.reel.add(case.part)
            await self._become(case, state=IncidentState.RECORDING)
        batch = self._fragments[case.written : case.written + fragments]
        case.written += len(batch)
        if batch:
            start = batch[0].offset_bytes
            await case.part.append(self._data[start : batch[-1].offset_bytes + batch[-1].length_bytes], batch)

    async def _seal(self, case: Case) -> None:
        assert case.live is not None
        if case.written > 1 and case.part is not None:
            parts = (await case.part.seal(duration_s=1.0),)
            await self._become(case, state=IncidentState.SEALED, parts=parts, ended_at=self.outside.clock.now())
        else:
            if case.part is not None:
                await case.part.close()
            nothing: dict[str, Any] = {"no_video": NoVideo.UNRECORDED, "problem": "nothing was recorded"}
            await self._become(case, state=IncidentState.SEALED, **nothing, ended_at=self.outside.clock.now())
            await self.house.courier.hurry(case.id)
        case.live.close()
        case.live = case.part = None

    async def _pass(self, seconds: int) -> None:
        steps = min(6, seconds)
        for _ in range(steps):
            await self._after(self.outside.clock.advance(seconds / steps))

    async def _killed(self, turns: int, *, opening: bool) -> None:
        """In the midst of whatever a look at everything, or an opening, sets going."""
        self.house.courier.look()
        self.house.publisher.look()
        doing = asyncio.ensure_future(self._open() if opening else asyncio.sleep(0))
        life = self.outside.life
        for _ in range(turns):
            await asyncio.sleep(0)
        if self.outside.life == life:
            self.outside.kill()
        doing.cancel()
        await asyncio.wait({doing})
        await self._next_life()

    async def _restarted(self) -> None:
        """As at SIGTERM: what is recorded is sealed, and everybody is told now."""
        life = self.outside.life
        for case in self.live:
            if self.outside.life == life:
                await self._after(self._seal(case))
        if self.outside.life == life:
            await self._after(self.house.courier.tell_all())
        if self.outside.life == life:
            self.outside.kill()
            await self._next_life()

    async def _retry(self) -> None:
        for case in self.cases.values():
            case.furthest = min(case.furthest, STATES.index(IncidentState.SEALED))
        self.outside.promised_again |= self.cases.keys()
        await self.house.settled()
        before = len(self.outside.tried)
        await self.house.courier.retry(None)
        self.house.publisher.look()
        due = await self.house.journal.due(EffectKind.ALERT, EffectKind.FOLLOW_UP)
        await self.house.settled()
        ranks = {(effect.incident_id, effect.what, effect.kind.value): rank for rank, effect in enumerate(due)}
        tried = [key for key in dict.fromkeys(self.outside.tried[before:]) if key in ranks]
        order = sorted(tried, key=ranks.__getitem__)
        if len(order) > CONCURRENT:
            RAN["newest_first_was_looked_at"] += 1
        for place, key in enumerate(tried):
            # A few are under way at once; none is tried while as many newer ones wait.
            assert order.index(key) < place + CONCURRENT, "an older mail went before newer ones"

    async def _all_ends_well(self) -> None:
        self.outside.mail, self.outside.host, self.outside.kill_at = Mail.UP, Hosting.UP, None
        for case in self.live:
            await self._after(self._seal(case))
        for _ in range(60):
            await self._after(self._retry())
            await self._pass(6 * 3600)
            await self._look()
            if not await self.house.journal.unfinished():
                break
        for case in self.cases.values():
            if (row := await self.house.journal.incident(case.id)) is None:
                continue
            assert row.incident.state is IncidentState.CLOSED, "it stays open although everything is well"
            promised = {effect.what for effect in row.effects if effect.kind is EffectKind.FOLLOW_UP}
            for who in PEOPLE:
                told = self.outside.told(case.id, who)
                assert told, f"{who} was never told"
                # A host may refuse its link of a clip that it has: that is told, and nothing more is promised.
                is_refused = any(alert.no_video is NoVideo.REFUSED for alert in told) and who not in promised
                assert not row.incident.parts or is_refused or any(alert.link for alert in told), f"{who} never had the link"


def _words(alert: Alert) -> str:
    return f"mail: {alert.kind.value} {alert.no_video or ''}".strip()


RAN["newest_first_was_looked_at"] = 0
OUTCOMES = ("mail: link", "mail: text late", "mail: text refused", "mail: text unrecorded", "mail: follow_up")


def test_whatever_happens_in_whatever_order_nothing_is_lost():
    """And every rule took part, and people were told all that there is to tell: how often is printed (`-rA` shows it)."""
    RAN.update({name: -count for name, count in RAN.items()} | dict.fromkeys(OUTCOMES, 0))
    given = settings(
        max_examples=EXAMPLES or GATE_EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Ladder, settings=given)
    for name, count in RAN.most_common():
        sys.stdout.write(f"{count:6} × {name}\n")
    assert all(RAN.values()), RAN
