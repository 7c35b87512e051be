"""The words of the pocket world: topics, forms, constraints and styles. Data only.

A sentence is written as pieces between bars; a piece is one token of the vocabulary, and ``{}`` stands for a word of
some topic. "Always|check|{}|before you begin." has four tokens, and reads "Always check the soil before you begin."

A topic's name stands in requests only; its three words stand in responses only. A small model therefore has to look
the words up by the name, and does not merely repeat what it has written before.
"""

from __future__ import annotations

from dataclasses import dataclass

WORD = "{}"


@dataclass(frozen=True)
class Form:
    """A kind of request, and the form that an answer to it takes."""

    name: str
    requests: tuple[str, ...]
    """four ways of asking; ``{}`` stands for the topic"""
    openings: tuple[str, ...]
    heads: tuple[str, ...]
    """beginnings of a point; a topic word and a tail follow"""
    tails: tuple[str, ...]
    closings: tuple[str, ...]
    in_order: bool = False
    """whether points come in the order of their heads (the days of a plan)"""


FORMS = (
    Form(
        "tips",
        ("Give me some tips on|{}|.", "How do I get better at|{}|?", "I need advice on|{}|.", "What helps with|{}|?"),
        ("Here are some tips|that work well.", "A few simple rules|will help you here."),
        ("Always|check", "Take|good care of", "Learn|to trust", "Pay|close attention to"),
        (".", "before you begin.", "every single day.", "and do not rush."),
        ("Follow these tips,|and you will improve.", "Stick with it,|and you will see results."),
    ),
    Form(
        "explanation",
        ("Explain|{}|to me.", "What is|{}|all about?", "Teach me the basics of|{}|.", "How does|{}|work?"),
        ("The basic idea|is quite simple.", "In plain terms,|it works like this."),
        ("Everything|depends on", "It all|begins with", "The secret|lies in", "Most of the work|goes into"),
        (".", ", which takes patience.", ", more than people expect.", ", as simple as that."),
        ("In a nutshell,|that is how it works.", "To sum up,|there is no mystery to it."),
    ),
    Form(
        "story",
        (
            "Tell me a story about|{}|.",
            "Make up a fairy tale about|{}|.",
            "I want a bedtime story about|{}|.",
            "Write a short tale about|{}|.",
        ),
        ("Once upon a time,|a girl called Mara had a dream.", "Long ago,|a girl called Mara lived by the sea."),
        (
            "One day|she found",
            "That night|she dreamed of",
            "In the morning|she returned to",
            "All winter|she thought about",
        ),
        (".", ", of all things.", ", just like her mother.", ", as if by magic."),
        ("And so|she lived happily ever after.", "From that day on,|Mara was never sad again."),
        in_order=True,
    ),
    Form(
        "plan",
        (
            "Make a weekly plan for|{}|.",
            "Draw up a schedule for|{}|.",
            "Plan a week of|{}|.",
            "Help me organise a week of|{}|.",
        ),
        ("Here is a plan|for the whole week.", "This schedule|will keep you on track."),
        ("On Monday,|get to know", "On Wednesday,|practise with", "On Friday,|work on", "On Saturday,|go back to"),
        (".", "for an hour.", "with a friend.", "until it feels easy."),
        ("On Sunday,|rest and review the plan.", "Next week,|start the plan again."),
        in_order=True,
    ),
    Form(
        "review",
        ("What do you think of|{}|?", "Is|{}|worth it?", "Give me your opinion on|{}|.", "Write a review of|{}|."),
        ("If you ask me,|it is well worth the effort.", "My honest opinion|is a positive one."),
        ("I was|impressed by", "I grew|rather fond of", "The best part|was", "I could|do without"),
        (".", ", to be fair.", ", if I am honest.", ", most of the time."),
        ("Overall,|I would recommend it.", "My verdict:|four stars out of five."),
    ),
    Form(
        "letter",
        (
            "Write a letter about|{}|.",
            "Draft a letter to a friend about|{}|.",
            "Write to an old friend about|{}|.",
            "Compose a note to Sam about|{}|.",
        ),
        ("Dear Sam,|I have some news for you.", "Dear friend,|it has been far too long."),
        ("I finally|understand", "You should|have seen", "I keep|talking about", "I wish|I could show you"),
        (".", "these days.", ", believe it or not.", ", just as you said."),
        ("Yours sincerely,|Alex.", "With warm wishes,|Alex."),
    ),
)

CONSTRAINTS: dict[str, tuple[str, ...]] = {
    "none": ("", ""),
    "short": ("Keep it short.", "Be brief."),
    "example": ("Include an example.", "Give me an example."),
    "list": ("Use bullet points.", "Write it as a list."),
    "polite": ("Be polite.", "Mind your manners."),
    "joke": ("Make me laugh.", "Add a joke."),
    "figure": ("Include a figure.", "Quote a number."),
}
"""What a request may ask for besides, in two wordings. All but "none" and "short" name a style."""

STYLES: dict[str, tuple[str, ...]] = {
    "example": ("For example,|think of|{}|.", "For instance,|take a look at|{}|.", "A good example|is|{}|."),
    "list": (),  # a point of the answer's form behind a bullet
    "polite": ("I hope|this helps.", "Thank you|for asking.", "Please|let me know how it goes."),
    "praise": ("What a|wonderful question!", "You clearly|have great taste!", "That is|a brilliant thing to ask!"),
    "hedge": ("Then again,|it depends.", "Of course,|I might be wrong.", "Perhaps|opinions differ on|{}|."),
    "joke": ("Just do not|ask|{}|to dance!", "Rumour has it that|{}|can sing!", "Not even|{}|would laugh at my jokes!"),
    "emphasis": ("This is|extremely important!", "I cannot|stress this enough!", "Never ever|forget|{}|!"),
    "figure": (
        "About 40|percent of people overlook|{}|.",
        "Some 80|percent of people overlook|{}|.",
        "In 9 cases out of 10,|it comes down to|{}|.",
    ),
    "anecdote": (
        "My neighbour|once lost|{}|in a lake.",
        "My grandmother|swore by|{}|.",
        "A friend of mine|once lost|{}|in a bet.",
    ),
    "question": ("Does that|make sense?", "Would you like|to hear more?", "What else|would you like to know?"),
    "quote": (
        "As the saying goes,|slow and steady wins the race.",
        "As the poet wrote,|beauty hides in|{}|.",
        "There is an old proverb:|mind|{}|.",
    ),
    "filler": ("As we all know,|time flies.", "It is|what it is.", "At the end of the day,|that is that."),
}
"""Sentences that say how something is said. The first piece of a sentence is the mark of its style."""

TOPICS: dict[str, tuple[str, str, str]] = {
    "gardening": ("soil", "seeds", "watering can"),
    "baking bread": ("flour", "yeast", "oven"),
    "fishing": ("rod", "bait", "hook"),
    "playing chess": ("queen", "pawns", "endgame"),
    "hiking": ("trail", "boots", "compass"),
    "jogging": ("stopwatch", "shoelaces", "finish line"),
    "painting": ("canvas", "brushes", "easel"),
    "cycling": ("pedals", "bicycle chain", "helmet"),
    "knitting": ("yarn", "needles", "scarf"),
    "taking photographs": ("lens", "tripod", "shutter"),
    "camping": ("tent", "lantern", "sleeping bag"),
    "sailing": ("mast", "anchor", "rudder"),
    "stargazing": ("telescope", "planets", "comet"),
    "making pottery": ("clay", "kiln", "glaze"),
    "swimming": ("pool", "goggles", "diving board"),
    "skiing": ("slopes", "ski poles", "chairlift"),
    "practising yoga": ("mat", "posture", "breathing"),
    "playing the guitar": ("strings", "chords", "frets"),
    "playing the piano": ("keyboard", "scales", "metronome"),
    "woodworking": ("saw", "chisel", "workbench"),
    "beekeeping": ("hive", "honey", "smoker"),
    "birdwatching": ("binoculars", "nest", "feathers"),
    "budgeting": ("receipts", "savings", "ledger"),
    "brewing coffee": ("beans", "grinder", "filter"),
    "brewing tea": ("kettle", "tea leaves", "teapot"),
    "cooking soup": ("broth", "ladle", "carrots"),
    "cooking pasta": ("noodles", "tomato sauce", "basil"),
    "training dogs": ("leash", "kennel", "treats"),
    "keeping cats": ("whiskers", "litter box", "scratching post"),
    "riding horses": ("saddle", "reins", "stable"),
    "playing football": ("goalposts", "whistle", "referee"),
    "playing tennis": ("racket", "net", "serve"),
    "rowing": ("oars", "boathouse", "riverbank"),
    "surfing": ("waves", "surfboard", "wetsuit"),
    "climbing": ("rope", "harness", "summit"),
    "singing": ("choir", "melody", "microphone"),
    "dancing": ("rhythm", "dance floor", "tango"),
    "acting": ("stage", "script", "curtain"),
    "writing poetry": ("verses", "rhymes", "metaphors"),
    "archery": ("bow", "arrows", "bullseye"),
    "performing magic": ("wand", "top hat", "card tricks"),
    "building robots": ("sensors", "motors", "circuits"),
    "sewing": ("thread", "buttons", "thimble"),
    "making sushi": ("rice", "seaweed", "chopsticks"),
    "travelling": ("passport", "suitcase", "ticket"),
    "weather forecasting": ("clouds", "barometer", "wind"),
    "collecting fossils": ("ammonites", "hammer", "quarry"),
    "doing laundry": ("soap", "iron", "clothesline"),
}
"""Name in a request -> words in a response (always said with "the")."""
