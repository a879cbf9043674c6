"""What jaxtyping puts around wandlib's functions in tests: beartype, with an int good enough for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
