"""What text guards look for: the categories of the Cosmos paper (arXiv 2501.03575, section 7.1), and other names for them."""

CATEGORIES: dict[str, str] = {
    "violence": "killing, maiming, torture, beating, gore",
    "sexual": "sexual acts, nudity for arousal, sexual assault",
    "criminal_planning": "planning or teaching fraud, theft, abduction, arson, trafficking, hiding a crime",
    "weapons": "making, buying or using guns, bombs, poison gas and armed robots",
    "drugs": "making, selling, smuggling or taking illegal drugs",
    "suicide": "suicide, self-harm, eating disorders, urging others to it",
    "csam": "sexual abuse of minors",
    "hatred": "contempt for people for their origin, faith, sex, orientation or disability, and its symbols",
    "harassment": "bullying, humiliating, stalking, exposing somebody",
    "threat": "announcing harm to somebody",
    "profanity": "swear words",
}
"""Name → what it covers, in the paper's order."""

ALIASES: dict[str, str] = {
    "child_abuse": "csam",
    "hate_harassment": "hatred",
    "self_harm": "suicide",
    "crime_planning": "criminal_planning",
}
"""Names of earlier lists."""


def canonical(category: str) -> str:
    """The name in `CATEGORIES` of a category, or the name itself if it is another's."""
    return ALIASES.get(category, category)
