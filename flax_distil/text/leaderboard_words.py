"""What the Open ASR Leaderboard counts as the same word: fillers, spellings, names and split compounds.

These are facts about its scorer, which a word error rate that stands beside its figures has to share.

Source: the scorer's behaviour, https://github.com/huggingface/open_asr_leaderboard, August 2026.
"""

from collections.abc import Mapping

FILLERS = (
    "ah", "aha", "ahh", "ahm", "eh", "ehehe", "em", "hm", "hmm", "huh", "hum", "mhm", "mhum", "mm", "mmm",
    "uh", "uhm", "uhuh", "um", "umm",
)  # fmt: skip
"""Words that are left out."""

EXPANSIONS_NOT_MADE = ("kinda", "sorta", "dunno", "cause")
"""Contractions of Whisper's rules that are left as they are."""

WORDS_BEFORE_IS = (
    "it", "he", "she", "what", "that", "who", "here", "there", "how", "when", "where", "why", "this",
)  # fmt: skip
"""Words behind which ``'s`` stands for "is"; Whisper's rules take every ``'s`` for it."""

COMPOUNDS = (
    "alright all right", "alright al right", "etc et cetera", "however how ever", "wifi wi fi", "hifi hi fi",
    "lofi lo fi", "scifi sci fi", "email e mail", "ebook e book", "ecommerce e commerce", "xray x ray",
    "tshirt t shirt", "am a m", "pm p m", "okay o k",
)  # fmt: skip
"""A word, and the words that it may be written as."""

SPELLINGS: Mapping[str, str | None] = {
    "archaeological": "archeological", "archeological": None, "archaeology": "archeology",
    "cancellation": "cancelation", "cancelation": None, "cancellations": "cancelations",
    "cancelations": None, "etcetera": "etc", "flyer": "flier", "flyer / flier": None, "kay": "okay",
    "mm": "hmm", "ok": "okay", "pummelled": "pummeled", "pummelling": "pummeling",
    "snowploughs": "snowplows", "travelog": None, "travelogs": None, "travelogue": "travelog",
    "travelogues": "travelogs",
}  # fmt: skip
"""How the table of spellings differs from Whisper's; None for an entry that it lacks."""

NAMES = (
    "aaron aron", "alfonso alphonso", "alison allison alyson", "allen alan allan", "anne ann",
    "anthony antony", "arthur artur", "brett bret", "brian bryan", "bridget bridgette",
    "caitlin kaitlin kaitlyn katelyn", "carl karl", "carol carole carrol carroll",
    "catherine catharine katherine kathryn", "cathy kathy", "charlie charley charly", "chris kris",
    "christina kristina", "christopher cristopher kristopher", "colin collin", "deborah devorah",
    "dennis denis", "dominic dominick", "douglas douglass", "dylan dillon", "eric erick erik",
    "fatima fatimah", "frederick frederik fredrick", "gail gayle", "gary garry", "greg gregg", "henry henri",
    "ivonne yvonne", "jackie jacky", "jamie jaime", "jason jayson", "jeff geoff",
    "jeffrey geoffrey jeffery", "joanne joane joann", "john jon", "jonathan johnathan jonathon",
    "joseph josef", "karen caren caryn karin", "kelly kelley kelli kellye", "kevin kevan",
    "kristin kristen", "laurie lori", "lawrence laurence", "lee leigh", "leslie lesley", "lily lilly",
    "linda lynda", "lindsay lindsey linsey", "louis lewis", "lucas lukas", "lynn lynne", "mark marc",
    "martin martyn", "matthew mathew", "mcarthur macarthur", "mccarthy macarthy maccarthy",
    "mccartney macartney", "mcdonald macdonald", "mcgowan macgowan", "mcintosh macintosh",
    "mcintyre macintyre", "mckay mackay", "mckenzie mackenzie", "mclean maclean", "mcleod macleod",
    "mcmillan macmillan", "mcnamara macnamara", "megan meghan", "michael micheal", "michelle michele",
    "miriam myriam",
    "mohammed mahomet mohamad mohamed mohammad mouhamad mouhamed muhamad muhammad muhammed", "molly mollie",
    "natalie nathalie", "neil neal", "nicholas nicolas", "nicole nikole", "patrick patrik", "peter pieter",
    "philip phillip", "rachel rachael", "rajiv rajeev", "rebecca rebekah", "rob robb", "robin robyn",
    "roger rodger", "ronda rhonda", "russell russel", "sally sallie", "sarah sara", "sean shaun shawn",
    "shane shayne", "sherry cheri sheri sherrie", "simon symon", "stacy stacey stacie", "steven stephen",
    "stuart stewart", "susanne suzanne", "teresa theresa", "terry terri", "thomas tomas", "toby tobey",
    "tony toni", "tracy tracey tracie", "veronica veronika", "victor viktor", "victoria viktoria",
    "walter walther", "yousef yusef yusuf", "zach zak", "zachary zachery zackary",
)  # fmt: skip
"""A name, and other spellings that count as the same."""
