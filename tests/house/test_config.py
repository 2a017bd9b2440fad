"""What a person who writes vigintd.toml may expect, above all when it is wrong."""

from __future__ import annotations

import errno
import os
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from vigintd.config import Settings, is_loopback, load, load_places, secrets_of
from vigintd.detect.motion import options_from
from vigintd.errors import ConfigError, Fault

EXAMPLE = Path(__file__).parents[2] / "vigintd.toml.example"

GOOD = """
site = "Boutique Rivoli"
[cameras.entree]
url = "rtsp://10.0.0.11/main"
detectors = ["mouvement"]
[detectors.mouvement]
kind = "motion"
sensitivity = 30
[mail]
server = "smtp.exemple.fr"
sender = "alerte@exemple.fr"
recipients = ["gardien@exemple.fr"]
"""


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def written(tmp_path):
    def write(text: str, old: str = "", new: str = "") -> Path:
        path: Path = tmp_path / "vigintd.toml"
        path.write_text(text.replace(old, new) if old else text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def refusing(monkeypatch):
    """Make the system refuse one of `Path`'s methods, as it refuses a user who is not root."""

    def refuse(method: str) -> None:
        def refused(_path: Path) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, method, refused)

    return refuse


def faults_of(path: Path, **environ: str) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return list(caught.value.faults)


def test_a_good_file_is_read_with_its_defaults(written):
    """What the file does not say has the default."""
    settings = load(written(GOOD), environ={})
    assert settings.cameras["entree"].pre_roll_s == 10
    assert settings.detectors["mouvement"].options == {"sensitivity": 30}
    assert settings.runtime_path == Path("/var/lib/vigintd/run")
    assert settings.linkhost.base_url == "http://127.0.0.1:8443"


def test_two_readings_of_one_file_are_equal(written):
    """A reload can tell what changed by comparing."""
    path = written(GOOD)
    assert load(path, environ={}) == load(path, environ={})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "there is no such file"),
        ("[cameras.entree\nurl = 1", "is not TOML"),
        ('site = "\xe9"'.encode("latin-1"), "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, problem):
    """A missing file, one that is not TOML and one that is not UTF-8 are faults of the whole file."""
    path = tmp_path / "vigintd.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (fault,) = faults_of(path)
    assert (fault.where, fault.key) == (str(path), "")
    assert problem in fault.problem


def test_a_folder_in_place_of_the_file_is_told(tmp_path):
    """Whatever the system refuses is said in its words."""
    (fault,) = faults_of(tmp_path)
    assert "cannot be read" in fault.problem


def test_a_file_that_only_root_can_read_says_so(written, refusing):
    """With the way out; the user need not know what errno 13 is."""
    refusing("read_bytes")
    (fault,) = faults_of(written(GOOD))
    assert fault.problem == "cannot be read: Permission denied; run it as root (sudo)?"


def test_a_byte_order_mark_is_no_fault(tmp_path):
    """Some editors put one before UTF-8."""
    path = tmp_path / "vigintd.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path, environ={}).site == "Boutique Rivoli"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["gardien@exemple.fr"]', "[]", "mail.recipients: needs at least one address"),
        ('["gardien@exemple.fr"]', "[5]", "mail.recipients.0: should be text in quotes"),
        ('["gardien@exemple.fr"]', '"gardien@exemple.fr"', 'mail.recipients: should be a list, such as ["one", "two"]'),
        ('["gardien@exemple.fr"]', str(["a@b"] * 51), "mail.recipients: has more than 50"),
        ("[cameras.entree]", "[cameras]", "cameras.url: should be a section: [cameras.NAME]"),
        ("[cameras.entree]", "[[cameras]]", "cameras: should be one section for each: write [cameras.NAME]"),
        ("[cameras.entree]", "[[cameras.entree]]", "cameras.entree: should be a section: [cameras.NAME]"),
        ("[mail]", "[[mail]]", "mail: should be a section: [mail]"),
        ("[mail]", "[mail]\nport = true", "mail.port: should be a whole number"),
        ("[mail]", '[mail]\nport = "often"', "mail.port: should be a whole number"),
        ("[mail]", "[mail]\nport = 2.5", "mail.port: should be a whole number"),
        ("[mail]", "[mail]\ntimeout_s = true", "mail.timeout_s: should be a number"),
        ("[mail]", '[mail]\ntimeout_s = "soon"', "mail.timeout_s: should be a number"),
        ("[mail]", "[mail]\nca_file = 5", "mail.ca_file: should be text in quotes"),
        ("[mail]", "[mail]\nusername = 5", "mail.username: should be text in quotes"),
        ('"Boutique Rivoli"', f'"{"x" * 201}"', "site: should have at most 200 characters"),
        ('"Boutique Rivoli"', '"b"\nlanguage = "de"', "language: should be 'fr' or 'en'"),
        ('"Boutique Rivoli"', '"b"\nstate_dir = "state"', "state_dir: write an absolute path, such as /var/lib/vigintd"),
        ('"Boutique Rivoli"', '"b"\nruntime_dir = "run"', "runtime_dir: write an absolute path, such as /var/lib/vigintd"),
        ("rtsp://10.0.0.11/main", "file://video.mp4", "cameras.entree.url: write file:///ABSOLUTE/PATH"),
        ("rtsp://10.0.0.11/main", "file:video.mp4", "cameras.entree.url: write file:///ABSOLUTE/PATH"),
        ("rtsp://10.0.0.11/main", "v4l2://dev/video0", "cameras.entree.url: write v4l2:///dev/video0"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words_and_once(written, old, new, said):
    """No word of the validator's reaches a person, and a key is told once."""
    path = written(GOOD, old, new)
    told = [str(fault).removeprefix(f"{path}: ") for fault in faults_of(path)]
    assert said in told
    # What is no section leaves other keys without theirs; of the key itself one thing is said.
    assert len([line for line in told if line.startswith(said.split(":")[0] + ":")]) == 1
    assert not any(word in line for line in told for word in ("Input", "String", "Tuple", "valid", "instance", "dictionary"))


@pytest.mark.parametrize("url", ["file:///srv/video.mp4", "file://localhost/srv/video.mp4", "v4l2:///dev/video0"])
def test_sources_on_this_machine_are_named_by_absolute_paths(written, url):
    """As the example shows them."""
    assert load(written(GOOD, "rtsp://10.0.0.11/main", url), environ={}).cameras["entree"].url == (url,)


def test_a_camera_may_have_several_addresses(written):
    """They are kept in the order in which they are tried."""
    path = written(GOOD, '"rtsp://10.0.0.11/main"', '["rtsp://10.0.0.11/main", "rtsp://10.0.0.12/main"]')
    assert load(path, environ={}).cameras["entree"].url == ("rtsp://10.0.0.11/main", "rtsp://10.0.0.12/main")


def test_of_several_addresses_the_wrong_one_is_told(written):
    """By its place in the list, and a single one without a place."""
    path = written(GOOD, '"rtsp://10.0.0.11/main"', '["rtsp://10.0.0.11/main", "pipe:0"]')
    assert [fault.key for fault in faults_of(path)] == ["cameras.entree.url.1"]


@pytest.mark.parametrize(
    "url",
    ["pipe:0", "concat:/etc/hosts|/etc/passwd", "subfile:/etc/passwd", "data:text/plain,x", "tcp://10.0.0.11:80", "/srv/x.mp4"],
)
def test_what_ffmpeg_could_open_besides_cameras_is_refused(written, url):
    """A configuration is no way to make the daemon read or run anything."""
    (fault,) = faults_of(written(GOOD, "rtsp://10.0.0.11/main", url))
    assert fault.key == "cameras.entree.url"
    assert "begins with one of" in fault.problem


def test_the_environment_may_name_the_file(written):
    """`VIGINTD_CONFIG` stands in for --config."""
    assert load(environ={"VIGINTD_CONFIG": str(written(GOOD))}).site == "Boutique Rivoli"


def test_every_fault_is_told_at_once(written):
    """Unknown keys at any depth, wrong types, bad values and detectors that do not exist come together."""
    path = written("""
langage = "fr"
language = "de"
[cameras.Entree]
url = "rtsp://10.0.0.11/main"
[cameras.quai]
url = "ftp://10.0.0.12/main"
pre_rol_s = 3
ring_mb = "big"
detectors = ["absent", "mouvement"]
[cameras.cour]
detectors = ["absente"]
post_roll_s = 200
[detectors.mouvement]
sensitivity = 1
[spool]
max_mb = 0
[publish]
host = "tus"
expiry_h = -1
[linkhost]
listen = "8443"
public_url = "videos.exemple.fr"
[mail]
server = "smtp.exemple.fr"
prot = 25
security = "none"
username = "moi"
sender = "nobody"
recipients = []
[alert]
text_after_s = 0
""")
    faults = faults_of(path)
    assert {fault.key for fault in faults} == {
        "langage",
        "language",
        "cameras.Entree",
        "cameras.quai.url",
        "cameras.quai.pre_rol_s",
        "cameras.quai.ring_mb",
        "cameras.quai.detectors",
        "cameras.cour.url",
        "cameras.cour.detectors",
        "cameras.cour.max_clip_s",
        "detectors.mouvement.kind",
        "spool.max_mb",
        "publish.url",
        "publish.api_key",
        "publish.expiry_h",
        "linkhost.listen",
        "linkhost.public_url",
        "mail.prot",
        "mail.security",
        "mail.password",
        "mail.sender",
        "mail.recipients",
        "alert.text_after_s",
    }
    assert {fault.where for fault in faults} == {str(path)}


def test_a_mistyped_key_is_answered_with_the_near_one(written):
    """The reader need not open the manual for a slip of the finger."""
    text = "\n".join(map(str, faults_of(written(GOOD.replace("sender", "sendr")))))
    assert "mail.sendr: is not a known key; did you mean sender?" in text
    assert "mail.sender: is required" in text


def test_no_camera_and_no_mail_is_a_fault_each(written):
    """An empty file is told what it must hold."""
    assert {fault.key for fault in faults_of(written(""))} == {"cameras", "mail"}


def test_a_detector_that_does_not_exist_is_told_alone_too(written):
    """It is told when everything else is right."""
    path = written(GOOD, "[detectors.mouvement]", "[detectors.autre]")
    assert faults_of(path) == [
        Fault(str(path), "cameras.entree.detectors", "names 'mouvement', but there is no [detectors.mouvement]")
    ]


def test_settings_made_by_hand_are_checked_alike(written):
    """Detectors must exist for those who make settings without a file."""
    values = load(written(GOOD), environ={}).model_dump()
    values["detectors"] = {}
    with pytest.raises(ValueError, match=r"cameras\.entree\.detectors names 'mouvement'"):
        Settings(**values)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:s3cr/et@10.0.0.11/main",
        "rtsp://admin:s3cr#et@10.0.0.11/main",
        "rtsp://admin:s3cret℀@10.0.0.11/main",
        "rtsp://[admin:s3cret@10.0.0.11/main",
        "rtsp://admin:s3cret@10.0.0.11:999999/main",
        "rtsp2://admin:s3cret@10.0.0.11/main",
        "admin:s3cret@10.0.0.11",
        "http://admin:s3cret@",
    ],
)
def test_no_fault_repeats_a_password(written, url):
    """The address of a camera is never quoted, whatever is wrong with it."""
    (fault,) = faults_of(written(GOOD, "rtsp://10.0.0.11/main", url))
    assert fault.key == "cameras.entree.url"
    assert "s3cr" not in str(fault)


def test_no_fault_repeats_a_secret_of_the_wrong_type(written):
    """Nor is the value of a password or key told."""
    path = written(GOOD + 'password = 48151623\n[publish]\nhost = "tus"\nurl = "http://u:k3y@far/x"\napi_key = ["k3y"]\n')
    faults = faults_of(path, VIGINTD_MAIL__PORT="k3y", VIGINTD_MAIL__USERNAME="moi")
    assert {fault.key for fault in faults} == {"mail.password", "mail.port", "publish.url", "publish.api_key"}
    assert "k3y" not in "".join(map(str, faults))
    assert "48151623" not in "".join(map(str, faults))


class TestLayers:
    def test_later_sources_win(self, written, tmp_path):
        """Environment over .env over credentials over the file; a section keeps what only the file says."""
        path = written(GOOD + 'port = 1\nusername = "f"\npassword = "f"\ntimeout_s = 1\n')
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        for name, value in {
            "mail__port": "2\n",
            "mail__username": "c\n",
            "mail__password": "mot de passe \n",
            "other": "x",
        }.items():
            (credentials / name).write_text(value)
        Path(".env").write_text("VIGINTD_MAIL__PORT=3\nVIGINTD_MAIL__USERNAME=d\nSPARSE_AI_API_KEY=of_the_seed\n")
        mail = load(path, environ={"CREDENTIALS_DIRECTORY": str(credentials), "VIGINTD_MAIL__PORT": "4"}).mail
        assert (mail.port, mail.username, mail.timeout_s) == (4, "d", 1)
        assert mail.password == SecretStr("mot de passe ")

    def test_a_folder_of_credentials_is_read_by_the_names_that_systemd_gives_its_files(self, written, tmp_path):
        """`LoadCredential=vigintd:FOLDER` puts `vigintd_` before each name; a fault names the file as it is there."""
        path = written(GOOD + 'username = "f"\n')
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / "vigintd_mail__password").write_text("mot de passe\n")
        assert load(path, environ={"CREDENTIALS_DIRECTORY": str(credentials)}).mail.password == SecretStr("mot de passe")
        (credentials / "vigintd_mail__port").write_text("many\n")
        (fault,) = faults_of(path, CREDENTIALS_DIRECTORY=str(credentials))
        assert (fault.where, fault.key) == (str(credentials / "vigintd_mail__port"), "mail.port")

    def test_credentials_beside_the_file_are_read_where_no_service_manager_gives_them(self, written, tmp_path):
        """A person who tries the configuration sees what the service will see."""
        path = written(GOOD + 'username = "f"\n')
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        for left in (".mail__password.swp", "mail__password~"):
            (credentials / left).write_text("x")
        (credentials / "mail__password").write_text("mot de passe\n")
        assert load(path, environ={}).mail.password == SecretStr("mot de passe")
        (credentials / "mail__password").rename(credentials / "vigintd_mail__password")
        assert load(path, environ={}).mail.password == SecretStr("mot de passe")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        assert [fault.key for fault in faults_of(path, CREDENTIALS_DIRECTORY=str(elsewhere))] == ["mail.password"]

    def test_credentials_that_only_root_can_read_keep_no_command_from_the_daemon(self, written, tmp_path, refusing):
        """Who needs them is told; who needs only the socket is not."""
        path = written(GOOD)
        refusing("iterdir")
        (fault,) = faults_of(path)
        assert str(fault) == f"{tmp_path}/credentials: cannot be read: Permission denied; run it as root (sudo)?"
        assert load_places(path, environ={}).runtime_path == Path("/var/lib/vigintd/run")

    def test_a_slip_in_a_variables_name_is_told(self, written):
        """With the near one; variables that are no settings are known."""
        names = ("CONFIG", "TEST_CLOCK_FILE", "FAILPOINTS", "FOOTAGE", "TEST_SHOTS")
        others = {f"VIGINTD_{name}": "x" for name in names}
        assert faults_of(written(GOOD), VIGINTD_SIT="x", VIGINTD_MIAL__PORT="25", **others) == [
            Fault("VIGINTD_SIT", "sit", "is not a known key; did you mean site?"),
            Fault("VIGINTD_MIAL__PORT", "mial.port", "is not a known key; did you mean mail?"),
        ]

    def test_a_whole_camera_may_come_from_the_environment(self, written):
        """Lists are JSON there."""
        path = written(GOOD)
        environ = {
            "VIGINTD_CAMERAS__QUAI__URL": "rtsp://10.0.0.12/main",
            "VIGINTD_CAMERAS__QUAI__DETECTORS": '["mouvement"]',
            "vigintd_mail__recipients": '["a@exemple.fr", "b@exemple.fr"]',
        }
        settings = load(path, environ=environ)
        assert settings.cameras["quai"].detectors == ("mouvement",)
        assert settings.mail.recipients == ("a@exemple.fr", "b@exemple.fr")

    def test_a_fault_is_told_where_its_value_stands(self, written, tmp_path):
        """Variables, .env and credentials are named beside the file, each for its own fault."""
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / "mail__timeout_s").write_text("soon")
        (credentials / "mail__ca_file").write_bytes(b"\xff")
        (credentials / "mial__password").write_text("x")
        Path(".env").write_text("VIGINTD_ALERT__TEXT_AFTER_S=never\n")
        path = written(GOOD, "[mail]", "[mail]\nsecurity = 'ssl'")
        faults = faults_of(
            path,
            CREDENTIALS_DIRECTORY=str(credentials),
            VIGINTD_MAIL__PORT="abc",
            VIGINTD_MAIL__RECIPIENTS="a@exemple.fr",
            VIGINTD_LINKHOST="nonsense",
            VIGINTD_MIAL__PORT="25",
            VIGINTD_CAMERAS__ENTREE__URLL="x",
        )
        assert {(fault.where, fault.key) for fault in faults} == {
            (str(path), "mail.security"),
            (str(credentials / "mail__timeout_s"), "mail.timeout_s"),
            (str(credentials / "mail__ca_file"), ""),
            (str(credentials / "mial__password"), "mial.password"),
            (".env: VIGINTD_ALERT__TEXT_AFTER_S", "alert.text_after_s"),
            ("VIGINTD_MAIL__PORT", "mail.port"),
            ("VIGINTD_MAIL__RECIPIENTS", "mail.recipients"),
            ("VIGINTD_LINKHOST", "linkhost"),
            ("VIGINTD_MIAL__PORT", "mial.port"),
            ("VIGINTD_CAMERAS__ENTREE__URLL", "cameras.entree.urll"),
        }

    def test_an_unreadable_dotenv_is_a_fault(self, written):
        """A .env that is not text is told like everything else."""
        Path(".env").write_bytes(b"\xff\xfe")
        (fault,) = faults_of(written(GOOD))
        assert fault == Fault(".env", "", "cannot be read: is not UTF-8")

    def test_the_service_managers_folder_is_the_default_of_runtime_dir(self, written):
        """What the file says wins over `RUNTIME_DIRECTORY`."""
        environ = {"RUNTIME_DIRECTORY": "/run/vigintd:/run/other"}
        assert load(written(GOOD), environ=environ).runtime_path == Path("/run/vigintd")
        assert load(written('runtime_dir = "/run/v"\n' + GOOD), environ=environ).runtime_path == Path("/run/v")

    def test_the_surroundings_are_read_by_load_alone(self, written, monkeypatch):
        """Settings made by hand do not depend on the machine they are made on."""
        values = load(written(GOOD), environ={}).model_dump()
        monkeypatch.setenv("VIGINTD_SITE", "elsewhere")
        assert Settings(**values).site == "Boutique Rivoli"
        assert Settings(**values | {"site": ""}).site == ""


def test_a_command_finds_the_socket_without_the_services_credentials(written):
    """A mail password that only the service can read does not keep others from reaching it."""
    path = written('state_dir = "/srv/vigintd"\n' + GOOD + 'username = "moi"\n')
    assert [fault.key for fault in faults_of(path)] == ["mail.password"]
    assert load_places(path, environ={}).runtime_path == Path("/srv/vigintd/run")


def test_a_wrong_place_is_told_to_commands_too(written):
    """The two keys that commands read are checked as ever."""
    with pytest.raises(ConfigError) as caught:
        load_places(written("state_dir = 5\n"), environ={})
    assert [fault.key for fault in caught.value.faults] == ["state_dir"]


def test_all_secrets_are_known_to_the_redactor(written):
    """Mail password, upload key, camera passwords and those in addresses, as written and as meant."""
    text = GOOD.replace("rtsp://10.0.0.11/main", "rtsp://a:caf%C3%A9@10.0.0.11/main")
    text = text.replace(
        "[detectors.mouvement]", 'detect_url = "rtsp://a:subsub@10.0.0.11/sub"\npassword = "camcam"\n[detectors.mouvement]'
    )
    settings = load(
        written(text),
        environ={"VIGINTD_MAIL__PASSWORD": "mailmail", "VIGINTD_MAIL__USERNAME": "m", "VIGINTD_PUBLISH__API_KEY": "keykey"},
    )
    assert set(secrets_of(settings)) == {"mailmail", "keykey", "camcam", "caf%C3%A9", "café", "subsub"}
    assert "mailmail" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "answer"),
    [("localhost", True), ("127.0.0.53", True), ("::1", True), ("10.0.0.1", False), ("exemple.fr", False), ("", False)],
)
def test_loopback_is_this_machine_only(host, answer):
    """Names are not looked up; `localhost` is the only one that counts."""
    assert is_loopback(host) is answer


class TestExample:
    def test_it_loads(self):
        """The shipped example is a good configuration as it is."""
        settings = load(EXAMPLE, environ={})
        assert settings.site == "Boutique Rivoli"
        assert settings.linkhost.public_url == "https://videos.exemple.fr"

    def test_every_option_of_motion_is_in_it_with_its_default(self):
        """What is shown behind # is what happens without it."""
        text = EXAMPLE.read_text(encoding="utf-8")
        shown = tomllib.loads(re.sub(r"(?m)^# ?(?=[a-z_]+ = |\[)", "", text))["detectors"]["mouvement"]
        assert shown.keys() == {"kind", "sensitivity", "min_area", "min_duration_s", "risk"}
        shown.pop("kind")
        assert options_from(shown, "fr") == options_from({}, "fr")

    def test_every_key_is_in_it_and_every_commented_one_shows_its_default(self):
        """Nobody looks for a key elsewhere, and no default is told wrong."""
        text = EXAMPLE.read_text(encoding="utf-8")
        shown = tomllib.loads(re.sub(r"(?m)^# ?(?=[a-z_]+ = |\[)", "", text))
        active = tomllib.loads(text)
        for section, model in sections():
            keys = at(shown, section)
            assert keys.keys() >= model.model_fields.keys(), section
            for key, field in model.model_fields.items():
                if isinstance(keys[key], dict):
                    continue
                if key in at(active, section) or field.is_required() or field.default in (None, ()):
                    continue
                assert keys[key] == plain(field.default), (section, key)


def plain(default: object) -> object:
    return str(default) if isinstance(default, Path) else default


def sections_of(model: type[BaseModel]) -> list[tuple[str, Any]]:
    found = []
    for name, field in model.model_fields.items():
        kind = (get_args(field.annotation) or (field.annotation,))[-1]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append((name, kind))
    return found


def sections() -> list[tuple[str, type[BaseModel]]]:
    names = {"cameras": "cameras.entree", "detectors": "detectors.mouvement"}
    return [("", Settings), *((names.get(name, name), model) for name, model in sections_of(Settings))]


def at(table: dict[str, Any], section: str) -> dict[str, Any]:
    for piece in filter(None, section.split(".")):
        table = table.get(piece, {})
    return table
