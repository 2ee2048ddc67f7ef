"""Triples for a toy domain: customer mails, and replies in a house style.

The house style: "Dear customer," and "Kind regards", no exclamation marks, no slang, and dates
instead of "ASAP". A third of the replies keep to it already, and must stay as they are.

    .venv/bin/python examples/training/house_style/make_data.py train.jsonl eval.jsonl
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

TOPICS = {
    "My parcel has not arrived.": [
        "Your parcel left our warehouse on Monday.",
        "The carrier expects to deliver it by Thursday.",
        "You can follow it with the number in your confirmation.",
    ],
    "I was charged twice.": [
        "We found both payments on your account.",
        "The second one will be returned to your card.",
        "Your bank may need three days to show it.",
    ],
    "How do I return these shoes?": [
        "You can return the shoes within 30 days.",
        "Please use the label that came in the box.",
        "We refund the price when they have reached us.",
    ],
    "The lamp I bought does not work.": [
        "Please check first that the bulb is screwed in tightly.",
        "If it still does not work, we will send a new lamp.",
        "You need not return the old one.",
    ],
    "Can I change my delivery address?": [
        "We can change the address until the parcel leaves us.",
        "Please send us the new address with your order number.",
        "We will confirm the change by mail.",
    ],
    "I forgot my password.": [
        "Please choose 'Forgot password' on the sign-in page.",
        "We then send you a link that is valid for one hour.",
        "Look into your spam folder if it does not arrive.",
    ],
    "Is the blue jacket available in large?": [
        "The blue jacket is sold out in large.",
        "We expect new ones in the second week of May.",
        "We can send you a mail when they are here.",
    ],
    "How do I cancel my subscription?": [
        "You can cancel at any time under 'My account'.",
        "Your subscription then ends with the current month.",
        "Nothing is charged after that.",
    ],
    "The invoice has the wrong name on it.": [
        "We have corrected the name on your invoice.",
        "You find the new invoice attached.",
        "Please delete the old one.",
    ],
    "Do you ship to Norway?": [
        "We ship to Norway for a fee of 12 euros.",
        "A parcel takes five to seven days.",
        "Customs may charge you a fee of their own.",
    ],
}
OPENINGS = ["Hey there!", "Hi!", "Hello hello,", "Yo,"]
SLANG = [
    "No worries, happens to everyone lol.",
    "That totally sucks.",
    "Oops, our bad.",
    "Fingers crossed it works out.",
]
HURRIES = {
    "We will look at it ASAP.": "We will look at it within two working days.",
    "We get back to you ASAP.": "We answer you within two working days.",
}
CLOSINGS = ["Cheers,", "XOXO,", "Later,", "Take it easy,"]


def write_reply(draw: random.Random, facts: list[str], *, good: bool) -> tuple[str, str]:
    """A reply, and the same in house style."""
    said, wanted = list(facts), list(facts)
    hurried, patient = draw.choice(list(HURRIES.items()))
    if draw.random() < 0.5:
        said.append(patient if good else hurried)
        wanted.append(patient)
    if good:
        said = list(wanted)
    else:
        said = [f"{text[:-1]}!" if draw.random() < 0.3 else text for text in said]
        if draw.random() < 0.6:
            said.insert(draw.randrange(len(said) + 1), draw.choice(SLANG))
    opening = "Dear customer," if good else draw.choice(OPENINGS)
    closing = "Kind regards" if good else draw.choice(CLOSINGS)
    return (
        f"{opening}\n\n{' '.join(said)}\n\n{closing}\nThe service team",
        f"Dear customer,\n\n{' '.join(wanted)}\n\nKind regards\nThe service team",
    )


def make_rows(topics: list[str], count: int, seed: int) -> list[dict[str, str]]:
    """Rows about these topics, a third of them good already."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    rows = []
    for index in range(count):
        question = topics[index % len(topics)]
        facts = draw.sample(TOPICS[question], k=draw.choice([2, 3]))
        answer, correction = write_reply(draw, facts, good=index % 3 == 0)
        rows.append({"question": question, "answer": answer, "correction": correction})
    return rows


def main(train: str, held_out: str) -> None:
    topics = list(TOPICS)
    # Topics of the held-out rows are not seen in training.
    for path, chosen, count, seed in ((train, topics[:8], 96, 0), (held_out, topics[8:], 18, 1)):
        rows = make_rows(chosen, count, seed)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(path).write_text(text, encoding="utf-8")
        print(f"{path}: {len(rows)} triples")


if __name__ == "__main__":
    main(*sys.argv[1:3])
