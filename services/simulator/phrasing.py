"""Words a question or a chat reply: the same seed and content always give the same text.

A question is a short acknowledgement of the candidate's last message, a link, and the item's wording exactly as it was
given; the acknowledgement neither asks nor judges. A chat reply is three sentences about the most telling word of the
last message.
"""

import hashlib
import re

from services.simulator import judging

_WORD = re.compile(r"[^\W\d_]{6,24}")
_COMMON = frozenset(
    _WORD.findall(
        "about according actually another anything because before between candidate consider depends different during "
        "either ensure everything example experience general however implement important include instead interview "
        "introduce little maybe myself people please probably provide question questions really remember require "
        "second should something sometimes sufficient system things thought through together understand usually "
        "various whatever whether without would yourself"
    )
)
# Verb forms and adverbs read badly where a noun is expected.
_NO_NOUN = ("ed", "ing", "ly")

_ABOUT_TOPIC = (
    "Thank you, I have noted what you said about {topic}.",
    "I see, {topic} played a part there.",
    "Thanks for taking me through that, {topic} included.",
    "Understood, you brought up {topic}.",
    "All right, I follow what you say about {topic}.",
    "Thank you for the details on {topic}.",
    "Okay, I will keep {topic} in mind.",
    "Thanks, that tells me how you look at {topic}.",
)
_PLAIN = (
    "Thank you, I have that.",
    "All right, I have noted that.",
    "Thanks for your answer.",
    "Understood.",
)
_REASSURING = (
    "That is all right, not every topic comes up in everybody's work.",
    "No problem, thank you for saying so openly.",
    "That is fine, we can look at something else.",
)
_OPENING = ("Let us begin.", "Good to have you here, let us start.", "Welcome, here is the first one.")
_LINKS = (" ", " ", " Let us go on. ", " My next question: ", " Here is another one. ")

_CHAT_OPENINGS = (
    "Happy to help with {topic}.",
    "Let me say something about {topic}.",
    "{Topic} comes up often.",
    "Here is how I would look at {topic}.",
)
_CHAT_BODIES = (
    "It helps to start from what you want to achieve, and to try the smallest step towards it first.",
    "The simple approach is usually good enough, and measuring beats guessing where it is not.",
    "There are two common ways: one is quick and easy to undo, the other takes longer and lasts.",
    "What matters most is a clear goal, somebody who decides, and a date on which you look at the result.",
)
_CHAT_CLOSINGS = (
    "Tell me a little more about your situation and I can be more specific.",
    "Shall I go into one of these points?",
    "If you like, we can work through an example.",
    "What have you tried so far?",
)


def question(item: str, answer: str, seed: int) -> str:
    """Return an acknowledgement of `answer` (empty at the start of an interview) and the wording of `item`."""
    digest = _digest(seed, "question", item, answer)
    link = _LINKS[digest[1] % len(_LINKS)]
    return f"{_acknowledgement(answer, digest[0])}{link}{item}"


def chat(message: str, seed: int) -> str:
    """Return a reply to `message`."""
    digest = _digest(seed, "chat", message)
    topic = _topic(message) or "that"
    opening = _CHAT_OPENINGS[digest[0] % len(_CHAT_OPENINGS)].format(topic=topic, Topic=topic.capitalize())
    body = _CHAT_BODIES[digest[1] % len(_CHAT_BODIES)]
    return f"{opening} {body} {_CHAT_CLOSINGS[digest[2] % len(_CHAT_CLOSINGS)]}"


def _acknowledgement(answer: str, choice: int) -> str:
    if not answer.strip():
        return _OPENING[choice % len(_OPENING)]
    if judging.is_non_answer(answer):
        return _REASSURING[choice % len(_REASSURING)]
    topic = _topic(answer)
    if topic is None:
        return _PLAIN[choice % len(_PLAIN)]
    return _ABOUT_TOPIC[choice % len(_ABOUT_TOPIC)].format(topic=topic)


def _topic(text: str) -> str | None:
    """Return the longest word that looks like a noun and says something, the first of several."""
    words = [word for word in _WORD.findall(text.lower()) if word not in _COMMON and not word.endswith(_NO_NOUN)]
    return max(words, key=len, default=None)


def _digest(seed: int, *parts: str) -> bytes:
    content = "\0".join((str(seed), *parts)).encode()
    return hashlib.blake2b(content, digest_size=8).digest()
