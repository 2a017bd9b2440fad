"""The words of the alert that are not a template's: values translated, and how a language writes moments.

Owns no layout: field names and sentences stand in `templates/`, where an installer can read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vigintd.model import NoVideo, Risk


@dataclass(frozen=True, slots=True)
class Words:
    """One language."""

    locale: str
    """Babel's name of it."""
    subject: str
    reminder_subject: str
    untyped: str
    """What a detection without a type is called."""
    types: Mapping[str, str]
    """The built-in types of detections; any other is shown as it came."""
    risks: Mapping[Risk, str]
    no_video: Mapping[NoVideo, str]
    restored: str
    """In an alert whose incident was taken into the journal again from its files."""
    unknown_camera: str
    """The camera's name where even that was lost."""
    growing: str
    """In place of the size while the clip is still being recorded."""
    moment: str
    """Babel's pattern for a date with its time (Unicode TR 35, part 4)."""


_FRENCH = Words(
    locale="fr",
    subject="🚨 Alerte Vigint - {type} - SECURITY",
    reminder_subject="⏳ Rappel Vigint - vidéos en attente : {count}",
    untyped="Incident",
    types={"motion": "Mouvement", "trigger": "Déclenchement"},
    risks={Risk.LOW: "Faible", Risk.MEDIUM: "Moyen", Risk.HIGH: "Élevé", Risk.UNKNOWN: "Inconnu"},
    no_video={
        NoVideo.LATE: "La vidéo n'a pas encore pu être mise en ligne. Elle est enregistrée sur place ; "
        "le lien suivra dans cette conversation dès qu'il sera prêt.",
        NoVideo.REFUSED: "Le serveur des vidéos a refusé l'enregistrement. La vidéo reste conservée sur place.",
        NoVideo.UNRECORDED: "La caméra n'a fourni aucune image à enregistrer.",
        NoVideo.UNSTORED: "Le disque de l'appareil est plein ou défaillant : aucune vidéo n'a pu être enregistrée. "
        "Vérifiez l'appareil sans attendre.",
        NoVideo.UNWRITTEN: "L'appareil n'a pas pu inscrire l'incident dans son journal (disque plein ou défaillant) : "
        "rien n'a été enregistré. Vérifiez l'appareil sans attendre.",
    },
    restored="La trace de cet incident avait été perdue ; elle a été rétablie à partir des fichiers conservés. "
    "Il se peut que vous receviez cette alerte deux fois.",
    unknown_camera="inconnue",
    growing="enregistrement en cours",
    moment="EEEE d MMMM y 'à' HH:mm:ss",
)

_ENGLISH = Words(
    locale="en_GB",
    subject="🚨 Vigint Alert - {type} - SECURITY",
    reminder_subject="⏳ Vigint reminder - videos still awaited: {count}",
    untyped="Incident",
    types={"motion": "Motion", "trigger": "Trigger"},
    risks={Risk.LOW: "Low", Risk.MEDIUM: "Medium", Risk.HIGH: "High", Risk.UNKNOWN: "Unknown"},
    no_video={
        NoVideo.LATE: "The video could not be put online yet. It is recorded on site; "
        "the link will follow in this conversation as soon as it is ready.",
        NoVideo.REFUSED: "The video server refused the recording. The video is kept on site.",
        NoVideo.UNRECORDED: "The camera delivered no picture to record.",
        NoVideo.UNSTORED: "The disk of the box is full or failing: no video could be recorded. Look after the box now.",
        NoVideo.UNWRITTEN: "The box could not write the incident to its journal (its disk is full or failing): "
        "nothing was recorded. Look after the box now.",
    },
    restored="The record of this incident was lost, and restored from the files that were kept. You may get this alert twice.",
    unknown_camera="unknown",
    growing="recording in progress",
    moment="EEEE d MMMM y 'at' HH:mm:ss",
)


def words(language: str) -> Words:
    """The words of `language`, French for any but English: an alert goes, whatever it was asked to be written in."""
    return _ENGLISH if language == "en" else _FRENCH
