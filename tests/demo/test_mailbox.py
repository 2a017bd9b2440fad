"""The mail catcher, sent real mail by a real client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from email.message import EmailMessage

import aiosmtplib
import pytest

from vigintd import metrics
from vigintd.demo.mailbox import Mailbox

LINK = "https://videos.exemple.fr/video/123e4567-e89b-42d3-a456-426614174000?token=" + "Ab-_9" * 8 + "xyz"


def mail(subject: str, text: str = "bonjour\n") -> EmailMessage:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "alerte@exemple.fr", "gardien@exemple.fr"
    message.set_content(text)
    message.add_alternative(f"<p>{text}</p>", subtype="html")
    return message


@pytest.fixture
async def running(tmp_path):
    box = Mailbox(tmp_path / "mails", limit=3)
    port = await box.start()
    yield box, port
    await box.stop()


async def send(port: int, *messages: EmailMessage) -> None:
    for message in messages:
        await aiosmtplib.send(message, hostname="127.0.0.1", port=port, start_tls=False)


async def test_a_mail_is_kept_as_it_came(running):
    """Envelope, parsed message and the file: all of one mail."""
    box, port = running
    await send(port, mail("Entrée", "déjà vu\n.\n..point\n"))
    letter = await box.next(deadline_s=10)
    assert letter.message["Subject"] == "Entrée"
    assert letter.text.splitlines() == ["déjà vu", ".", "..point"]
    assert (letter.sender, letter.recipients) == ("alerte@exemple.fr", ("gardien@exemple.fr",))
    assert letter.path.suffix == ".eml"
    assert letter.path.read_bytes().startswith(b"Subject: ")
    assert letter.path.stat().st_mode & 0o077 == 0 or letter.path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "link"),
    [
        (f"Lien :\n{LINK}\nmerci\n", LINK),
        (f"Lien : <{LINK}>.\n", LINK),
        ("aucun lien\n", None),
        (f"{LINK[:-1]}\n", None),
        (f"{LINK}A\n", None),
    ],
    ids=["alone", "bracketed", "none", "truncated", "too long"],
)
async def test_the_private_link_is_found_and_nothing_like_it(running, text, link):
    """A link has a UUID and a token of 43 characters."""
    box, port = running
    await send(port, mail("lien", text))
    assert (await box.next(deadline_s=10)).link == link


async def test_each_letter_is_handed_out_once_to_who_wants_it(running):
    """A wait is over when a letter that it wants comes; the others stay for others."""
    box, port = running
    wanted = asyncio.create_task(box.next(lambda letter: letter.message["Subject"] == "deux", deadline_s=10))
    await send(port, mail("un"), mail("deux"), mail("trois"))
    assert (await wanted).message["Subject"] == "deux"
    assert [(await box.next(deadline_s=10)).message["Subject"] for _ in range(2)] == ["un", "trois"]
    assert len(box.letters) == 3
    with pytest.raises(TimeoutError):
        await box.next(deadline_s=0)


async def test_the_oldest_letter_goes_when_there_are_too_many(running):
    """The folder is bounded: the oldest file goes, counted."""
    box, port = running
    await send(port, *(mail(str(number)) for number in range(5)))
    assert [letter.message["Subject"] for letter in box.letters] == ["2", "3", "4"]
    assert len(list(box.letters[0].path.parent.iterdir())) == 3
    assert metrics.snapshot()["demo.letters_dropped"] == {"": 2}
    assert (await box.next(deadline_s=10)).message["Subject"] == "2"


async def test_a_folder_that_cannot_be_written_makes_the_sender_try_again(running):
    """No responsibility is taken for what was not kept."""
    box, port = running
    box._folder = box._folder / "missing"
    with pytest.raises(aiosmtplib.SMTPDataError, match="cannot keep it") as refusal:
        await send(port, mail("un"))
    assert refusal.value.code == 451
    assert box.letters == ()


async def test_stopping_cuts_who_is_connected_and_frees_the_port(running):
    """A session under way does not hold the mailbox up."""
    box, port = running
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    async with asyncio.timeout(10):
        await box.stop()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    assert await box.start(port=port) == port
