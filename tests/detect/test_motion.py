"""Motion: fires on what moves, and on nothing else."""

from itertools import pairwise

import av
import numpy as np
import pytest

from tests.detect.frames import HEIGHT, frame, noisy, room, scene, shown, with_person
from tests.real.parts import footage
from vigintd.detect.motion import Motion, build
from vigintd.model import Frame, Risk

ROOM = room()


def motion(language: str = "fr", **options: object) -> Motion:
    return build("entree", options, language=language)


def walk(t: float) -> np.ndarray:
    """An empty room for three seconds, then somebody who crosses it in five."""
    return ROOM if t < 3 else with_person(ROOM, (t - 3) / 5)


class TestFires:
    def test_on_somebody_who_walks_through(self):
        """Within a second of the first sight, and again each second while it goes on."""
        found = shown(motion(), scene(8, walk))
        assert 3.4 <= found[0].arrived_s <= 4.0
        assert 4 <= len(found) <= 6
        assert all(0.9 <= later.arrived_s - earlier.arrived_s <= 1.3 for earlier, later in pairwise(found))

    def test_and_says_where(self):
        """A box, in fractions of the picture, that holds whoever moved."""
        found = shown(motion(), scene(8, walk))[-1]
        x = (found.arrived_s - 3) / 5 * 300 / 320
        box = max(found.boxes, key=lambda box: box.width * box.height)
        assert box.x - 0.03 <= x <= box.x + box.width
        assert box.y <= 80 / HEIGHT + 0.05
        assert box.y + box.height >= 140 / HEIGHT - 0.05
        assert all(0 <= edge <= 1.0001 for edge in (box.x, box.y, box.x + box.width, box.y + box.height))

    def test_and_says_what(self):
        """Type, time, number of the picture, an opinion between 0 and 1, and a sentence in the language asked for."""
        found = shown(motion(language="en", risk="low"), scene(8, walk))[0]
        assert (found.camera, found.type, found.risk) == ("entree", "motion", Risk.LOW)
        assert found.frame_number == round(found.arrived_s * 5)
        assert found.confidence is not None
        assert 0.5 <= found.confidence < 1
        assert found.text.startswith("Movement in ")
        assert shown(motion(), scene(8, walk))[0].text.startswith("Mouvement sur ")

    def test_on_a_small_far_person_only_when_keen(self):
        """Sensitivity is what installers turn."""

        def far(t: float) -> np.ndarray:
            return ROOM if t < 3 else with_person(ROOM, (t - 3) / 20, size=(18, 7))

        assert shown(motion(sensitivity="high"), scene(8, far))
        assert not shown(motion(sensitivity="low"), scene(8, far))

    def test_on_a_large_thing_that_fills_much_of_the_picture(self):
        """A lorry at the gate is no change of light."""

        def lorry(t: float) -> np.ndarray:
            return ROOM if t < 3 else with_person(ROOM, (t - 3) / 5, size=(100, 110))

        assert shown(motion(), scene(8, lorry))

    def test_under_noise(self):
        """A camera at night."""
        frames = [frame(number, noisy(walk(number / 5), 8, number)) for number in range(40)]
        assert shown(motion(), frames)

    @pytest.mark.parametrize("fps", [2, 5, 15])
    def test_at_any_rate(self, fps):
        """Durations are seconds, not frames."""
        found = shown(motion(), scene(8, walk, fps=fps))
        assert found
        assert found[0].arrived_s < 5

    @pytest.mark.needs("footage")
    def test_on_every_stretch_of_real_footage_with_people(self):
        """Pedestrians of a CCTV-like view, somebody always walking: no gap of more than three seconds."""
        with av.open(footage()) as container:
            pictures = [picture.to_ndarray(format="gray") for picture in container.decode(video=0)][::2]
        found = shown(motion(), [frame(number, pixels) for number, pixels in enumerate(pictures)])
        moments = [0.0, *(detection.arrived_s for detection in found), len(pictures) / 5]
        assert max(later - earlier for earlier, later in pairwise(moments)) <= 3


class TestKeepsQuiet:
    def test_on_the_first_frames(self):
        """Somebody in the first picture who stays or goes tells nothing before the scene is known."""
        frames = scene(1, lambda t: with_person(ROOM, t / 5))
        assert shown(motion(), frames) == []

    @pytest.mark.parametrize("sigma", [0, 2, 5, 10, 20])
    @pytest.mark.parametrize("sensitivity", ["low", "medium", "high"])
    def test_on_a_still_scene_with_noise(self, sigma, sensitivity):
        """Half a minute of nothing, by day and by night."""
        frames = [frame(number, noisy(ROOM, sigma, number)) for number in range(150)]
        assert shown(motion(sensitivity=sensitivity), frames) == []

    @pytest.mark.parametrize("change", [-60, -25, 25, 60])
    def test_when_the_light_jumps(self, change):
        """A lamp is switched; everything is lighter or darker at once."""

        def lamp(t: float) -> np.ndarray:
            return ROOM if int(t) // 4 % 2 == 0 else np.clip(ROOM.astype(int) + change, 0, 255).astype(np.uint8)

        assert shown(motion(), scene(16, lamp)) == []

    def test_when_contrast_jumps(self):
        """Night vision comes on: light and dark change differently."""

        def infrared(t: float) -> np.ndarray:
            return ROOM if t < 4 else (255 - ROOM // 2)

        assert shown(motion(), scene(10, infrared)) == []

    def test_when_dusk_falls(self):
        """Slow change is no movement."""
        assert shown(motion(), scene(40, lambda t: (ROOM * (1 - t / 60)).astype(np.uint8))) == []

    @pytest.mark.parametrize("away_s", [0.9, 3, 60])
    def test_when_the_camera_was_away(self, away_s):
        """What changed between two streams was not seen to move, even if it was turned or moved."""
        before = scene(4, lambda _: ROOM)
        after = scene(4, lambda _: with_person(room(2), 0.5), from_s=4 + away_s, life=2)
        assert shown(motion(), [*before, *after]) == []

    @pytest.mark.parametrize("away_s", [0.1, 3, 60])
    def test_when_somebody_came_while_the_camera_was_away(self, away_s):
        """However little else has changed, and however short it was."""
        walking = scene(1, lambda t: with_person(ROOM, 0.3 + t / 10), from_s=4 + away_s, life=2)
        assert shown(motion(), [*scene(4, lambda _: ROOM), *walking]) == []

    @pytest.mark.parametrize("every_s", [2, 4, 10])
    def test_on_glances_at_a_clock_in_the_picture(self, every_s):
        """It differs at each, and is not one thing that moves."""

        def clock(t: float) -> np.ndarray:
            picture = ROOM.copy()
            picture[8:24, 8:72] = 0
            picture[10:22, 10:70] = np.random.default_rng(int(t)).integers(0, 2, (3, 15)).repeat(4, 0).repeat(4, 1) * 235
            return picture

        glances = [frame(number, clock(t), arrived_s=t) for number, t in enumerate(np.arange(8, 200, every_s).tolist())]
        assert shown(motion(sensitivity="high"), [*scene(8, clock), *glances]) == []

    @pytest.mark.parametrize("every_s", [2, 10])
    def test_on_glances_while_dusk_falls(self, every_s):
        """And it sees as well as ever afterwards: slow light is not learnt as noise."""

        def dusk(t: float) -> np.ndarray:
            return (ROOM * max(0.3, 1 - t / 200)).astype(np.uint8)

        detector = motion()
        quiet = [*scene(8, dusk), *(frame(9, noisy(dusk(t), 2, t), arrived_s=t) for t in range(8, 120, every_s))]
        assert shown(detector, quiet) == []
        found = shown(detector, scene(4, lambda t: with_person(dusk(120), t / 5), from_s=120))
        assert found
        assert found[0].arrived_s <= 121

    def test_when_something_is_put_down(self):
        """A parcel appears: the one who brings it moves, it does not."""
        frames = scene(20, lambda t: ROOM if t < 3 else with_person(ROOM, 0.5))
        assert shown(motion(), frames) == []

    def test_when_somebody_who_was_there_at_first_has_left(self):
        """The place where they stood looks different from then on, but does not move."""
        detector = motion()
        shown(detector, scene(2, lambda _: with_person(ROOM, 0.5)))
        assert shown(detector, scene(10, lambda _: ROOM, from_s=2)) == []

    def test_when_the_size_changes(self):
        """A camera set to another resolution is a new scene."""
        small = [frame(number, np.ascontiguousarray(ROOM[::2, ::2])) for number in range(20, 40)]
        assert shown(motion(), [*scene(4, lambda _: ROOM), *small]) == []

    def test_on_a_picture_too_small_to_have_blocks(self):
        """It sees nothing, and raises nothing."""
        tiny = [frame(number, np.full((2, 3), 20 * (number % 10), np.uint8)) for number in range(30)]
        assert shown(motion(), tiny) == []


class TestAfterwards:
    @pytest.mark.parametrize("every_s", [1, 2, 4, 10])
    def test_movement_is_seen_at_once_after_a_quiet_time_of_glances(self, every_s):
        """As soon as if every frame had been shown."""
        before = scene(6, lambda _: ROOM)
        glances = [frame(number, noisy(ROOM, 2, number), arrived_s=number) for number in range(6, 62, every_s)]
        person = scene(5, lambda t: with_person(ROOM, t / 5), from_s=62)
        full = shown(motion(), [*before, *scene(56, lambda _: ROOM, from_s=6), *person])
        assert shown(motion(), [*before, *glances, *person])[0].arrived_s <= full[0].arrived_s + 0.21

    def test_movement_is_seen_again_after_the_camera_was_away(self):
        """It learns the scene anew, for a second."""
        frames: list[Frame] = [*scene(4, lambda _: ROOM), *scene(8, walk, from_s=30, life=2)]
        assert 33 <= shown(motion(), frames)[0].arrived_s <= 34.2

    def test_movement_is_seen_again_after_the_light_changed(self):
        """The same."""

        def story(t: float) -> np.ndarray:
            picture = ROOM if t < 4 else (255 - ROOM // 2).astype(np.uint8)
            return picture if t < 7 else with_person(picture, (t - 7) / 5)

        assert 7 <= shown(motion(), scene(12, story))[0].arrived_s <= 8.2


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "word"),
        [
            ({"sensitivity": "extreme"}, "sensitivity"),
            ({"sensitivity": 0}, "sensitivity"),
            ({"sensitivity": 101}, "sensitivity"),
            ({"sensitivity": True}, "sensitivity"),
            ({"min_area": 0}, "min_area"),
            ({"min_area": "large"}, "min_area"),
            ({"min_duration_s": -1}, "min_duration_s"),
            ({"risk": "terrible"}, "risk"),
            ({"sensibility": 3}, "sensibility"),
        ],
    )
    def test_a_wrong_one_is_named_in_a_sentence(self, options, word):
        """Whoever writes the file reads what to write instead."""
        with pytest.raises(ValueError, match=word):
            build("entree", options, language="fr")

    def test_numbers_and_words_mean_the_same(self):
        """50 is medium."""
        assert motion(sensitivity=50)._options == motion(sensitivity="medium")._options == motion()._options

    def test_a_least_area_keeps_small_things_out(self):
        """In per cent of the picture."""
        assert shown(motion(min_area=10), scene(8, walk)) == []

    def test_a_least_duration_keeps_short_movement_out(self):
        """Somebody who only passes the door."""
        assert shown(motion(min_duration_s=10), scene(8, walk)) == []
