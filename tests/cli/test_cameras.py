"""`vigintd cameras discover`: from a camera in the network to a configuration that works."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.real.onvif_responder import Camera, in_a_thread, own_group, says
from vigintd.camera.discovery import ws_discovery
from vigintd.config import Settings, load

MAIL = """
[mail]
server = "localhost"
security = "none"
sender = "alerte@exemple.fr"
recipients = ["gardien@exemple.fr"]
"""


@pytest.fixture
def discover(vigintd):
    """Ask cameras, named by address; they are there meanwhile."""

    def run(*cameras, options=(), **how):
        with in_a_thread(*cameras):
            return vigintd("cameras", "discover", *(camera.place for camera in cameras), *options, **how)

    return run


@pytest.fixture
def search(vigintd, monkeypatch):
    """Search the network of the loopback; the cameras are there meanwhile."""
    group = own_group()
    monkeypatch.setattr(ws_discovery, "GROUP", group)

    def run(*cameras, options=()):
        with in_a_thread(*cameras, group=group):
            return vigintd("cameras", "discover", "--interface", "127.0.0.1", "--timeout", "1", *options)

    return run


@pytest.fixture
def login(tmp_path):
    """Options of a user whose password is `geheim`."""
    file = tmp_path / "password"
    file.write_text("geheim\nnot this line\n")
    return ("--username", "admin", "--password-file", file)


@pytest.fixture
def loaded(tmp_path):
    """The settings of a file into which this was pasted."""

    def load_it(printed: str) -> Settings:
        path = tmp_path / "vigintd.toml"
        path.write_text(printed + MAIL)
        return load(path, environ={})

    return load_it


def pasted(stdout: str) -> str:
    return stdout.partition("For vigintd.toml:\n\n")[2]


class TestFinding:
    def test_a_search_of_the_network_ends_in_a_table_and_a_configuration(self, search, loaded):
        """The largest stream is recorded, the small H.264 one watched."""
        cameras = (Camera("127.0.0.2"), Camera("127.0.0.3", name="Cour", profiles=(("only", "H264", 1280, 720, 20),)))
        done = search(*cameras)
        assert done.exit_code == 0
        table = done.stdout.partition("\n\n")[0].splitlines()
        assert [" ".join(line.split()) for line in table] == [
            "address camera name profile picture codec fps stream",
            "127.0.0.2 Exemple & Fils EX-200 Entrée #1 main 2560x1440 hevc 25 rtsp://127.0.0.2:554/main",
            "sub 640x360 h264 15 rtsp://127.0.0.2:554/sub",
            "tiny 160x90 h264 5 rtsp://127.0.0.2:554/tiny",
            "127.0.0.3 Exemple & Fils EX-200 Cour only 1280x720 h264 20 rtsp://127.0.0.3:554/only",
        ]
        settings = loaded(pasted(done.stdout))
        assert {name: (camera.url, camera.detect_url) for name, camera in settings.cameras.items()} == {
            "entree-1": (("rtsp://127.0.0.2:554/main",), ("rtsp://127.0.0.2:554/sub",)),
            "cour": (("rtsp://127.0.0.3:554/only",), None),
        }
        assert "choosing H.264 in the camera's own settings spares this" in done.stdout

    def test_nothing_found_says_what_to_check(self, search):
        done = search(options=("--json",))
        assert done.exit_code == 1
        assert done.stderr.startswith("vigintd: no camera answered within 1 s; check that\n")
        assert all(word in done.stderr for word in ("same network", "ONVIF is switched on", "UDP port 3702", "--interface"))
        assert json.loads(done.stdout) == {"cameras": [], "toml": ""}

    def test_cameras_in_json(self, discover, loaded):
        done = discover(Camera(profiles=(("p", "H264", 640, 360, 15),)), options=("--json",))
        answer = json.loads(done.stdout)
        (camera,) = answer["cameras"]
        profile = {"name": "p", "source": "lens", "codec": "h264", "width_px": 640, "height_px": 360, "fps": 15.0}
        assert camera["profiles"] == [profile | {"url": "rtsp://127.0.0.2:554/p", "elsewhere": ""}]
        assert (camera["address"], camera["locked"], camera["problem"]) == ("127.0.0.2", False, "")
        assert list(loaded(answer["toml"]).cameras) == ["ex-200"]

    @pytest.mark.parametrize("columns", [60, 149])
    def test_a_narrow_terminal_gets_lines_that_fit(self, discover, columns):
        """But what is to be pasted is never folded."""
        done = discover(Camera(stream="rtsp://{host}/" + "x" * 200 + "/{token}"), env={"COLUMNS": str(columns)})
        told, _, toml = done.stdout.partition("For vigintd.toml:")
        assert all(len(line) <= columns for line in told.splitlines())
        assert tomllib.loads(toml)["cameras"]["ex-200"]["url"].endswith("/main")

    def test_a_named_camera_that_does_not_answer_is_told_beside_the_others(self, vigintd):
        with in_a_thread(camera := Camera()):
            done = vigintd("cameras", "discover", camera.place, "127.0.0.66:9")
            alone = vigintd("cameras", "discover", "127.0.0.66:9")
        assert done.exit_code == 0
        assert "! no answer: Connection refused" in done.stdout
        assert alone.exit_code == 1


class TestPasswords:
    def test_a_locked_camera_is_told_with_the_way_in(self, discover):
        done = discover(Camera(user=("admin", "geheim")))
        assert done.exit_code == 0
        assert "! wants a user name and a password" in done.stdout
        assert "vigintd cameras discover --username NAME --password-file FILE" in done.stdout
        assert "For vigintd.toml" not in done.stdout

    def test_with_a_password_the_streams_are_told_and_the_password_is_not(self, discover, login, loaded):
        """What is pasted names the user, and where the password goes."""
        done = discover(Camera(user=("admin", "geheim"), stream="rtsp://admin:geheim@{host}/{token}"), options=login)
        camera = loaded(pasted(done.stdout)).cameras["ex-200"]
        assert (camera.url, camera.username) == (("rtsp://127.0.0.2/main",), "admin")
        assert "credentials/cameras__ex-200__password" in done.stdout
        assert "geheim" not in done.output

    def test_a_refused_password_is_told(self, discover, login):
        done = discover(Camera(user=("admin", "another")), options=login)
        assert "! refuses the user admin or the password" in done.stdout
        assert "keep users for ONVIF apart" in done.stdout

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "cannot be read: No such file"),
            (b"", "holds no password"),
            (b"\ngeheim", "holds no password"),
            (b"\xff", "not text"),
        ],
    )
    def test_a_file_without_one_is_1(self, vigintd, tmp_path, content, problem):
        file = tmp_path / "password"
        if content is not None:
            file.write_bytes(content)
        done = vigintd("cameras", "discover", "127.0.0.2", "--username", "admin", "--password-file", file)
        assert done.exit_code == 1
        assert problem in done.stderr


class TestStrangers:
    def test_no_text_of_a_camera_reaches_the_terminal_or_the_configuration_as_more_than_text(self, search, loaded):
        """Neither terminal codes, nor lines of TOML, nor markup."""
        camera = Camera(name="%1B%5B31m%0A%5Bmail%5D%0Aserver%3D%22evil%22", maker='[bold]"\x9b', model="]\u2028\u202e#")
        done = search(camera)
        assert "Probe" in camera.asked
        assert all(c.isprintable() or c == "\n" for c in done.stdout)
        assert "[bold]" in done.stdout
        settings = loaded(pasted(done.stdout))
        assert list(settings.cameras) == ["31m-mail-server-evil"]
        assert settings.mail.server == "localhost"

    def test_a_stream_on_another_machine_is_told_and_not_configured(self, discover):
        done = discover(Camera(stream="rtsp://evil.example/{token}"))
        assert done.exit_code == 0
        assert "rtsp://evil.example/main (another machine: evil.example)" in done.stdout
        assert "see first that you know that machine" in done.stdout
        toml = pasted(done.stdout)
        assert '# 127.0.0.2 names a stream on another machine, evil.example: url = "rtsp://evil.example/main"' in toml
        assert tomllib.loads(toml) == {}

    def test_cameras_of_one_name_get_names_of_their_own(self, discover, loaded):
        done = discover(
            Camera("127.0.0.2", model="\uff25\uff38!"), Camera("127.0.0.3", model="ex"), Camera("127.0.0.4", model="防犯")
        )
        assert list(loaded(pasted(done.stdout)).cameras) == ["ex", "ex-2", "camera"]

    def test_a_password_in_a_path_is_hidden_and_told_to_be(self, discover):
        done = discover(Camera(stream="rtsp://{host}/user=a&password=sesame&{token}"))
        assert "sesame" not in done.output
        assert "put back what *** hides" in done.stdout

    def test_what_a_camera_says_that_is_no_answer_is_told_in_a_sentence(self, discover):
        camera = Camera(replies={"GetDeviceInformation": says("<html>\x1b[2J</html>")})
        done = discover(camera)
        assert camera.asked == ["GetDeviceInformation"]
        assert "! answers HTTP 200 with something else than ONVIF" in done.stdout
        assert done.exit_code == 1


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["camera.local"], "'camera.local' is no IP address such as 10.0.0.11 or 10.0.0.11:8080"),
            (["127.0.0.2"] * 257, "at most 256 addresses"),
            (["--interface", "eth0"], "--interface is one of this machine's IPv4 addresses"),
            (["127.0.0.2", "--interface", "127.0.0.1"], "--interface is for the search"),
            (["127.0.0.2", "--username", "admin"], "--username and --password-file go together"),
            (["127.0.0.2", "--password-file", "x"], "--username and --password-file go together"),
            (["--timeout", "0"], "greater than or equal to 1"),
            (["--password", "x"], "No such option: --password"),
        ],
    )
    def test_wrong_usage_is_2(self, vigintd, words, sentence):
        done = vigintd("cameras", "discover", *words)
        assert done.exit_code == 2
        assert sentence in done.stderr
        assert done.stdout == ""

    def test_a_user_name_with_a_colon_is_2(self, vigintd, login):
        done = vigintd("cameras", "discover", "127.0.0.2", *login, "--username", "a:b")
        assert done.exit_code == 2
        assert "a user name holds no colon" in done.stderr

    def test_an_address_that_this_machine_has_not_is_1(self, vigintd):
        done = vigintd("cameras", "discover", "--interface", "192.0.2.77")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "cannot ask from 192.0.2.77" in done.stderr

    def test_help_names_it(self, vigintd):
        assert "cameras" in vigintd("--help").stdout.split()
        told = vigintd("cameras", "discover", "-h").stdout
        assert all(
            word in told for word in ("--timeout S", "--interface ADDRESS", "--username NAME", "--password-file FILE", "--json")
        )
