"""Looking for cameras by ONVIF: what is found, and what strangers cannot do."""

from __future__ import annotations

import asyncio
import gzip
import socket
from datetime import timedelta
from itertools import count

import pytest

from tests.camera.xml_bombs import BOMB, OUTSIDE
from tests.manual_clock import ManualClock
from tests.real.onvif_responder import STANDARD_GROUP, Camera, fault, floods, hangs, match, on_air, own_group, says, soap
from vigintd.camera.discovery import MAX_CAMERAS, Answer, Credentials, FoundCamera, Profile, discover, named, ws_discovery
from vigintd.camera.discovery.soap import MAX_ANSWER_BYTES
from vigintd.camera.discovery.ws_discovery import _Listener, answers, search
from vigintd.clock import SystemClock
from vigintd.errors import PermanentError, TransientError

USER = ("admin", "geheim")


async def ask(*cameras: Camera, credentials: tuple[str, str] | None = None, patience_s: float = 20) -> list[FoundCamera]:
    """What those cameras, named by address, tell."""
    async with on_air(*cameras):
        at = [named(camera.place) for camera in cameras]
        user = Credentials(*credentials) if credentials else None
        return await discover(at, clock=SystemClock(), timeout_s=0, credentials=user, patience_s=patience_s)


@pytest.fixture
def group(monkeypatch):
    """Where everybody is asked: the standard's address, and a port of our own."""
    assert ws_discovery.GROUP == STANDARD_GROUP
    group = own_group()
    monkeypatch.setattr(ws_discovery, "GROUP", group)
    return group


class TestSearch:
    async def test_every_camera_in_the_network_is_found_once(self, group):
        """By a question to everybody, asked twice in two ways, and answers from the cameras' own addresses."""
        cameras = (Camera("127.0.0.2"), Camera("127.0.0.3", name="Cour"))
        found: list[Answer] = []
        both = asyncio.Event()

        def note(answer: Answer) -> None:
            found.append(answer)
            if len(found) == 2:
                both.set()

        clock = ManualClock()
        async with on_air(*cameras, group=group):
            searching = asyncio.create_task(search(note, clock=clock, timeout_s=4, interface="127.0.0.1"))
            async with asyncio.timeout(10):
                await both.wait()
                for step_s in (0.5, 3.5):
                    await clock.asleep()
                    await clock.advance(step_s)
                await searching
        assert {(answer.address, answer.name, answer.url) for answer in found} == {
            ("127.0.0.2", "Entrée #1", f"http://127.0.0.2:{cameras[0].port}/onvif/device_service"),
            ("127.0.0.3", "Cour", f"http://127.0.0.3:{cameras[1].port}/onvif/device_service"),
        }
        assert len(found) == 2

    async def test_without_an_address_every_network_card_is_asked(self, group, monkeypatch):
        """One that takes no question is passed over."""
        loopback = socket.if_nametoindex("lo")
        monkeypatch.setattr(socket, "if_nameindex", lambda: [(2**30, "gone"), (loopback, "lo")])
        heard = asyncio.Event()
        camera = Camera()
        monkeypatch.setattr(camera, "probe_match", lambda _probe: heard.set())
        async with on_air(camera, group=group):
            searching = asyncio.create_task(search(lambda _answer: None, clock=ManualClock(), timeout_s=4))
            async with asyncio.timeout(10):
                await heard.wait()
            searching.cancel()
            await asyncio.wait({searching})

    async def test_an_address_of_another_machine_is_refused(self):
        with pytest.raises(
            PermanentError, match=r"cannot ask from 192\.0\.2\.77: .*; see this machine's addresses: ip address"
        ):
            await search(lambda _answer: None, clock=ManualClock(), timeout_s=1, interface="192.0.2.77")

    async def test_a_machine_without_a_network_is_told_so(self, monkeypatch):
        monkeypatch.setattr(socket, "if_nameindex", list)
        with pytest.raises(TransientError, match="no network card; see that it is up, or name cameras by address"):
            await search(lambda _answer: None, clock=ManualClock(), timeout_s=1)

    @pytest.mark.parametrize(
        ("xaddrs", "url"),
        [
            (["http://10.0.0.5/onvif/device_service"], "http://10.0.0.5/onvif/device_service"),
            (["http://10.0.0.5:8080/x?y=1"], "http://10.0.0.5:8080/x?y=1"),
            (["https://10.0.0.5/x"], "https://10.0.0.5/x"),
            (["http://169.254.1.1/a", "http://10.0.0.5/b"], "http://10.0.0.5/b"),
            (["http://[fe80::1]/a", "http://10.0.0.5/b"], "http://10.0.0.5/b"),
            (["http://victim.example/x"], "http://10.0.0.5/x"),
            (["http://127.0.0.1:22/x"], "http://10.0.0.5:22/x"),
            (["http://me:secret@victim.example/x"], "http://10.0.0.5/x"),
            (["http://victim.example@10.0.0.5/x"], "http://10.0.0.5/x"),
            (["http://10.0.0.5\\@victim.example/x"], "http://10.0.0.5/x"),
        ],
    )
    def test_an_answer_is_followed_only_to_the_address_it_came_from(self, xaddrs, url):
        """Whatever host it names."""
        assert [answer.url for answer in answers(match(*xaddrs), "10.0.0.5")] == [url]

    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            b"\xff\xfe\x00",
            b"<a/>",
            b'<?xml version="1.0" encoding="utf-7"?><a/>',
            b'<?xml version="1.0" encoding="nonsense"?><a/>',
            BOMB.encode(),
            soap("<d:ProbeMatches/>"),
            match(),
            match("ftp://10.0.0.5/x", "file:///etc/passwd", "http://", "http://h:99999/x", "http://" + "x" * 2000),
            match("http://10.0.0.5/x", types="wsdp:Device print:PrintDeviceType"),
        ],
    )
    def test_an_answer_that_is_none_is_passed_over(self, datagram):
        assert list(answers(datagram, "10.0.0.5")) == []

    def test_a_device_of_the_newer_kind_is_known_by_its_scopes(self):
        """It need not call itself a video transmitter, and printers call themselves devices too."""
        datagram = match("http://10.0.0.5/x", types="tds:Device", scopes="onvif://www.onvif.org/hardware/EX%20200")
        assert list(answers(datagram, "10.0.0.5")) == [Answer("10.0.0.5", "http://10.0.0.5/x", hardware="EX 200")]

    def test_a_liar_cannot_crowd_out_the_others(self):
        """So many devices at one address are believed, so many in all, and no datagram after so many is read."""
        found: list[Answer] = []
        listener = _Listener(found.append)
        for port in range(1, 1000):
            listener.datagram_received(match(f"http://h:{port}/x"), ("10.0.0.66", 3702))
        assert len(found) == 8
        for number in range(1000):
            listener.datagram_received(match("http://h/x"), (f"10.1.{number // 250}.{number % 250}", 3702))
        assert len(found) == MAX_CAMERAS
        flooded: list[Answer] = []
        listener = _Listener(flooded.append)
        for _ in range(4096):
            listener.datagram_received(b"", ("10.0.0.66", 3702))
        listener.datagram_received(match("http://h/x"), ("10.0.0.5", 3702))
        assert flooded == []


class TestCameras:
    @pytest.mark.parametrize(
        "camera",
        [Camera(), Camera(media2=False), Camera(media2=False, get_services=False)],
        ids=["Media2", "Media", "before GetServices"],
    )
    async def test_a_camera_tells_its_streams(self, camera):
        (found,) = await ask(camera)
        assert found == FoundCamera(
            "127.0.0.2",
            maker="Exemple & Fils",
            model="EX-200",
            profiles=(
                Profile("main", "lens", "hevc", 2560, 1440, 25.0, "rtsp://127.0.0.2:554/main"),
                Profile("sub", "lens", "h264", 640, 360, 15.0, "rtsp://127.0.0.2:554/sub"),
                Profile("tiny", "lens", "h264", 160, 90, 5.0, "rtsp://127.0.0.2:554/tiny"),
            ),
        )

    async def test_a_camera_whose_media2_fails_is_asked_in_the_old_way(self):
        camera = Camera(replies={"media2_service/GetProfiles": says("", 500)})
        (found,) = await ask(camera)
        assert camera.asked.count("GetProfiles") == 2
        assert len(found.profiles) == 3

    async def test_a_camera_without_video_is_told_so(self):
        (found,) = await ask(Camera(profiles=()))
        assert (found.problem, found.usable) == ("offers no video stream", False)

    async def test_a_refused_stream_leaves_the_others(self):
        camera = Camera()
        numbers = count()

        async def reply(_request):
            if next(numbers) == 0:
                return fault("ter:NoProfile", "no such profile")
            return await says(soap("<trt:Uri>rtsp://127.0.0.2/x</trt:Uri>"))(_request)

        camera.replies["GetStreamUri"] = reply
        (found,) = await ask(camera)
        assert [profile.url for profile in found.profiles] == ["", "rtsp://127.0.0.2/x", "rtsp://127.0.0.2/x"]

    async def test_of_a_recorder_with_very_many_streams_the_first_64_are_told(self):
        camera = Camera(profiles=tuple((f"p{number}", "H264", 640, 360, 5) for number in range(80)))
        (found,) = await ask(camera)
        assert [profile.name for profile in found.profiles] == [f"p{number}" for number in range(64)]

    async def test_they_are_told_in_the_order_of_their_addresses(self):
        found = await ask(Camera("127.0.0.11"), Camera("127.0.0.2"))
        assert [camera.address for camera in found] == ["127.0.0.2", "127.0.0.11"]


class TestPasswords:
    @pytest.mark.parametrize("login", ["token", "digest", "basic"])
    async def test_a_camera_that_wants_one_is_told_as_locked(self, login):
        (found,) = await ask(Camera(user=USER, login=login))
        assert (found.locked, found.profiles, found.usable) == (True, (), True)

    @pytest.mark.parametrize("ahead_h", [0, -9, 24 * 365 * 20])
    async def test_it_is_proved_by_a_token_in_the_camera_s_own_time(self, ahead_h):
        """A camera whose clock was never set refuses tokens of our time."""
        camera = Camera(user=USER, clock_ahead=timedelta(hours=ahead_h))
        (found,) = await ask(camera, credentials=USER)
        assert len(found.profiles) == 3
        assert camera.logins == ["none", *["token ok"] * 6]

    async def test_it_is_proved_by_http_digest_where_the_camera_asks_for_that(self):
        camera = Camera(user=USER, login="digest")
        (found,) = await ask(camera, credentials=USER)
        assert len(found.profiles) == 3
        assert set(camera.logins) == {"none", "digest ok"}

    async def test_it_is_never_told_in_the_clear(self):
        """A camera that asks for that stays locked."""
        camera = Camera(user=USER, login="basic")
        (found,) = await ask(camera, credentials=USER)
        assert found.locked
        assert camera.logins == ["none", "token"]

    async def test_it_is_not_offered_to_a_camera_that_does_not_ask(self):
        camera = Camera()
        (found,) = await ask(camera, credentials=USER)
        assert len(found.profiles) == 3
        assert set(camera.logins) == {"none"}

    @pytest.mark.parametrize(("login", "logins"), [("token", ["none", "token"]), ("digest", ["none", "none", "digest"])])
    async def test_a_wrong_one_is_tried_once(self, login, logins):
        """Cameras lock users out after a few tries."""
        camera = Camera(user=USER, login=login)
        (found,) = await ask(camera, credentials=("admin", "wrong"))
        assert found.locked
        assert camera.logins == logins

    async def test_a_camera_that_tells_nonsense_for_its_time_gets_a_token_in_ours(self):
        camera = Camera(user=USER)
        camera.replies["GetSystemDateAndTime"] = says(
            soap("<tt:UTCDateTime><tt:Date><tt:Year>-5</tt:Year></tt:Date></tt:UTCDateTime>")
        )
        (found,) = await ask(camera, credentials=USER)
        assert "GetSystemDateAndTime" in camera.asked
        assert len(found.profiles) == 3


class TestFaults:
    """Each fault is the only one that suffers from it: a good camera beside it tells everything."""

    @pytest.mark.parametrize(
        ("question", "reply", "problem"),
        [
            ("GetDeviceInformation", floods, f"answers with more than {MAX_ANSWER_BYTES} bytes"),
            ("GetProfiles", floods, f"answers with more than {MAX_ANSWER_BYTES} bytes"),
            ("GetDeviceInformation", says(BOMB), "answers HTTP 200 with something else than ONVIF: a document type"),
            ("GetDeviceInformation", says(OUTSIDE), "answers HTTP 200 with something else than ONVIF: a document type"),
            ("GetDeviceInformation", says("<html/>"), "answers HTTP 200 with something else than ONVIF: no envelope"),
            ("GetDeviceInformation", says("", 500), "answers HTTP 500 with something else than ONVIF: no element found"),
            (
                "GetDeviceInformation",
                says(gzip.compress(bytes(1 << 24)), headers={"Content-Encoding": "gzip"}),
                "something else than ONVIF",
            ),
            ("GetDeviceInformation", says(soap("<s:Fault><s:Text>a\x85\u202eb</s:Text></s:Fault>"), 500), "refuses: a b"),
            ("GetDeviceInformation", says("<a>" * 100_000), "something else than ONVIF"),
            ("GetStreamUri", says("x"), "something else than ONVIF"),
        ],
    )
    async def test_a_bad_answer_is_told_and_harms_nobody(self, question, reply, problem):
        bad, good = Camera(replies={question: reply}), Camera("127.0.0.3")
        found = await ask(bad, good)
        assert question in bad.asked
        assert problem in found[0].problem
        assert not found[0].usable
        assert len(found[1].profiles) == 3

    @pytest.mark.parametrize("question", ["GetDeviceInformation", "GetProfiles", "GetStreamUri"])
    async def test_a_camera_that_hangs_is_given_up(self, question):
        camera = Camera(replies={question: hangs})
        (found,) = await ask(camera, patience_s=0.5)
        assert camera.asked[-1] == question
        assert found.problem == "did not tell everything within 0.5 s"
        assert found.maker == ("" if question == "GetDeviceInformation" else "Exemple & Fils")

    async def test_nobody_there_is_told(self):
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            (found,) = await discover([named(f"127.0.0.2:{free.getsockname()[1]}")], clock=SystemClock(), timeout_s=0)
        assert (found.problem, found.usable) == ("no answer: Connection refused", False)

    async def test_a_redirection_is_not_followed(self):
        """It could lead the login to another machine."""
        bad, victim = Camera(), Camera("127.0.0.9")
        async with on_air(victim):
            target = f"http://{victim.place}/onvif/device_service"
            bad.replies["GetDeviceInformation"] = says("", 307, {"Location": target})
            (found,) = await ask(bad, credentials=USER)
        assert bad.asked == ["GetDeviceInformation"]
        assert found.problem == "sends to another address (HTTP 307); that is not followed"
        assert victim.asked == []

    async def test_services_elsewhere_are_asked_at_the_camera(self):
        """As those of a camera that does not know its own address are."""
        victim = Camera("127.0.0.9")
        async with on_air(victim):
            camera = Camera(port=victim.port, xaddr_host="127.0.0.9", stream="rtsp://127.0.0.2/{token}")
            (found,) = await ask(camera)
        assert len(found.profiles) == 3
        assert victim.asked == []

    @pytest.mark.parametrize(("question", "name"), [("GetServices", "Service"), ("GetProfiles", "Profiles")])
    async def test_parts_inside_one_another_are_not_read_one_by_one(self, question, name):
        """It would take minutes."""
        deep = soap("<q>" + f"<{name} token='x'>" * 20_000 + f"</{name}>" * 20_000 + "</q>")
        camera = Camera(replies={question: says(deep)})
        async with asyncio.timeout(10):
            (found,) = await ask(camera)
        assert question in camera.asked
        assert found.maker == "Exemple & Fils"

    async def test_what_a_camera_calls_itself_is_one_short_line(self):
        """Whatever a terminal would make of it."""
        camera = Camera(maker="A\x9b31m\u202e\u200b\r\nB", model="M" * 5000)
        (found,) = await ask(camera)
        assert found.maker == "A 31m B"
        assert found.model == "M" * 80
