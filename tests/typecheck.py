"""The run-time check of annotations in the tests: beartype, with an int where a float is asked for, as in PEP 484."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
