"""Word lists and the small random texts built from them.

Everything the model reads in training starts here or in `facts`: no outside corpus is used. `tasks` is the
next module in the chain. All functions draw from the `random.Random` they are given, so that a seed fixes the
text.
"""

import random
import string


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NOUNS = listed(
    """
    anchor apple arrow badge barrel basket beacon bell bench blanket boat book bottle bowl box branch
    bread bridge brush bucket button cabin camera candle canoe carpet castle chain chair clock cloud
    coat coin compass cookie copper corner cotton cradle crown cup curtain desk diamond door dragon drum
    eagle engine envelope feather fence field flag flame flute forest fork fountain fox garden gate
    glass glove goat guitar hammer harbor hat helmet hill honey horse house island jacket jar jewel
    kettle key kite knife ladder lake lamp lantern leaf lemon letter library lion lock map marble market
    mask meadow melon mirror monkey moon mountain mouse needle nest notebook ocean office olive onion
    orange otter oven owl paddle palace paper parrot path pearl pencil pepper piano pillow pilot pipe
    planet plate pocket pond potato prism pump puzzle rabbit radio raft rail rain raven ribbon ring
    river road robot rocket roof room rope rose saddle sail salt sandal school scissors shadow sheep
    shell ship shirt shoe shop silver skate spoon spring squirrel stair star station stone storm street
    sugar summer sword table teapot temple tent thread ticket tiger tower train tree trumpet tunnel
    turtle umbrella valley vase violin wagon wall wallet watch water wave wheel whistle window winter
    wolf wood yard zebra
    """
)
ADJECTIVES = listed(
    """
    amber ancient bitter bold brave bright broken calm careful clever cold cool crisp curious dark deep
    distant dry early eager empty faint fast fine firm fresh gentle giant golden grand grey happy heavy
    hidden hollow honest hungry icy idle jolly keen kind large late lazy light little lonely long loud
    lucky mellow mild misty modern narrow neat noble northern odd old open pale patient plain polite
    proud quick quiet rapid rare rich rough round royal rusty sandy sharp shiny short silent simple
    sleepy slow small smooth soft solid southern steady strange strong sunny sweet swift tall tame thin
    tiny tired vast warm weak wet wide wild wise wooden young
    """
)
VERBS = listed(
    """
    carried cleaned closed counted covered crossed dropped dried entered filled fixed followed found
    guarded hid left lifted lost measured moved noticed opened packed painted passed placed pulled
    pushed reached remembered repaired returned saw sold studied touched turned visited washed watched
    weighed wrapped
    """
)
COLOURS = listed(
    """
    red blue green yellow purple orange black white brown pink grey silver gold violet teal crimson
    """
)
NAMES = listed(
    """
    Ada Alan Alice Amir Anna Ben Bruno Carla Chen Clara Dana David Elena Emma Eric Fatima Felix Grace
    Hana Hugo Ines Ivan James Jana Jonas Julia Karim Kate Kenji Lara Leo Lena Linus Lucy Maria Marco Mei
    Mila Nadia Nina Noah Nora Olga Omar Oscar Paula Pedro Petra Ravi Rosa Sam Sara Sofia Sven Tara Tom
    Uma Vera Victor Wanda Yara Yusuf Zoe
    """
)
CITIES = listed(
    """
    Athens Berlin Bogota Boston Cairo Chicago Delhi Dublin Geneva Hanoi Helsinki Istanbul Jakarta Kyoto
    Lagos Lima Lisbon London Madrid Manila Milan Montreal Moscow Mumbai Nairobi Oslo Paris Prague Quito
    Riga Rome Santiago Seoul Sofia Sydney Tallinn Tokyo Toronto Tunis Vienna Warsaw Zagreb Zurich
    """
)
PLACES = (
    "at the harbor", "in the garden", "near the bridge", "behind the house", "on the table",
    "by the river", "in the market", "under the tree", "at the station", "along the road",
    "in the library", "on the roof", "across the valley", "inside the tower", "next to the window",
    "before dawn", "after lunch", "in the evening", "on Monday", "on Friday", "during the storm",
    "every morning", "last winter", "two days ago", "without a word", "for the second time", "as usual",
    "with great care",
)  # fmt: skip
STARTERS = (
    "Then", "Later", "Meanwhile", "Afterwards", "Today", "Yesterday", "Sometimes", "In fact", "At noon",
    "Of course",
)  # fmt: skip
ONSETS = (
    "b", "bl", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kl", "l", "m", "n",
    "p", "pr", "r", "s", "sh", "sk", "st", "t", "tr", "v", "w", "y", "z",
)  # fmt: skip
VOWELS = (
    "a", "e", "i", "o", "u", "ai", "ea", "io", "ou",
)  # fmt: skip
CODAS = (
    "", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd", "rt",
)  # fmt: skip


def pseudo_word(rng: random.Random, syllables: int | None = None) -> str:
    """A pronounceable word that most likely never occurred before, so that it can only be copied and never
    memorised."""
    count = syllables or rng.choice((1, 2, 2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count))


def digits(rng: random.Random, low: int, high: int) -> str:
    """A number of `low` to `high` digits without a leading zero."""
    count = rng.randint(low, high)
    return str(rng.randint(1, 9)) + "".join(rng.choice(string.digits) for _ in range(count - 1))


def code(rng: random.Random) -> str:
    """A short identifier such as `K7-3920`, `a91f04` or `XQJR`."""
    form = rng.randrange(5)
    letters = string.ascii_uppercase
    if form == 0:
        return f"{rng.choice(letters)}{rng.randint(1, 99)}-{digits(rng, 2, 4)}"
    if form == 1:
        return "".join(rng.choice("0123456789abcdef") for _ in range(rng.randint(4, 8)))
    if form == 2:
        return "".join(rng.choice(letters) for _ in range(rng.randint(3, 6)))
    if form == 3:
        return f"{pseudo_word(rng)}-{digits(rng, 1, 3)}"
    return "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(rng.randint(4, 8)))


def thing(rng: random.Random) -> str:
    """An adjective and a noun."""
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def word(rng: random.Random) -> str:
    """One word: ordinary, a name, a place or made up."""
    return rng.choice(
        (rng.choice(NOUNS), rng.choice(ADJECTIVES), rng.choice(NAMES), rng.choice(CITIES), pseudo_word(rng))
    )


def sentence(rng: random.Random) -> str:
    """One sentence of filler; some forms carry numbers or codes, so that those do not betray the records."""
    who = rng.choice((rng.choice(NAMES), f"The {thing(rng)}", f"The {rng.choice(NOUNS)}", f"A {thing(rng)}"))
    form = rng.randrange(12)
    if form < 4:
        return f"{who} {rng.choice(VERBS)} the {thing(rng)} {rng.choice(PLACES)}."
    if form < 6:
        inner = who[0].lower() + who[1:] if who.startswith(("The ", "A ")) else who
        return f"{rng.choice(STARTERS)} {inner} {rng.choice(VERBS)} a {rng.choice(NOUNS)}."
    if form == 6:
        return (
            f"{who} and the {rng.choice(NOUNS)} were {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}."
        )
    if form == 7:
        return f"{who} paid {digits(rng, 1, 4)} for the {thing(rng)}."
    if form == 8:
        return f"There were {digits(rng, 1, 3)} {rng.choice(NOUNS)}s {rng.choice(PLACES)}."
    if form == 9:
        return f"{who} wrote {code(rng)} on the {rng.choice(NOUNS)}."
    if form == 10:
        there, someone = rng.choice(CITIES), rng.choice(NAMES)
        return f"In {there} {someone} {rng.choice(VERBS)} a {rng.choice(COLOURS)} {rng.choice(NOUNS)}."
    what, where = pseudo_word(rng), rng.choice(PLACES)
    return f"{who} {rng.choice(VERBS)} {what} {where}, and {rng.choice(NAMES)} {rng.choice(VERBS)} it."


def paragraph(rng: random.Random, characters: int) -> str:
    """Filler of about that many characters."""
    parts: list[str] = []
    size = 0
    while size < characters:
        parts.append(sentence(rng))
        size += len(parts[-1]) + 1
    return " ".join(parts)
