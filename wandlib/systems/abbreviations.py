"""English abbreviations and what they stand for: what ends no clause of a stream, and is written out by a reader."""

from __future__ import annotations

MONTH_NAMES = "January February March April May June July August September October November December".split()
MONTHS = {month[:3]: month for month in MONTH_NAMES} | {"Sept": "September"}
DAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday"}
DAYS |= {"Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}
TITLES = {
    "Adm": "Admiral", "Capt": "Captain", "Cmdr": "Commander", "Col": "Colonel", "Ft": "Fort", "Gen": "General",
    "Gov": "Governor", "Hon": "Honorable", "Lt": "Lieutenant", "Maj": "Major", "Ms": "Miz", "Mt": "Mount",
    "Pres": "President", "Prof": "Professor", "Rep": "Representative", "Rev": "Reverend", "Sen": "Senator",
    "Sgt": "Sergeant",
}  # fmt: skip
PLACES = {
    "Ave": "Avenue", "Bldg": "Building", "Blvd": "Boulevard", "Co": "Company", "Corp": "Corporation",
    "Hwy": "Highway", "Inc": "Incorporated", "Jr": "Junior", "Ltd": "Limited", "Rd": "Road", "Sr": "Senior",
}  # fmt: skip
COUNTED = {
    "no": "number", "nos": "numbers", "fig": "figure", "figs": "figures", "p": "page", "pp": "pages",
    "ch": "chapter", "vol": "volume", "sec": "section", "eq": "equation",
}  # fmt: skip
