"""What networks answered on images, kept: run a network once, study its logits and features as often as you like.

    from uqlib import store
    answers = store.load_answers("cifar_resnet20", "cifar10")
    answers.logits, answers.labels

One file a key, where a key names the split of the data, the network, its weights and the preprocessing. Every byte is
checked on reading; a file that stands under its final name is whole. Reading needs neither timm nor the images, and
nothing of it rests on the code that runs networks: that is imported by its own name,
`from uqlib.store.fill import ask_network, fill_entry, put_answers`.

An entry grows and never shrinks: whoever asks for more columns, or for more precision, adds them to what is there.
Logits in half precision are kept as differences to the largest of their row, which stands beside them in `logits_max`.

Roots are searched in this order: the user's store ($UQLIB_STORE, else `store` in the cache folder), then `data/store`
of the checkout around the current folder or around this file. An explicit `root` is searched alone.
"""

from uqlib.store.keys import Entry, Key
from uqlib.store.read import (
    Answers,
    explain_miss,
    list_entries,
    load_answers,
    load_many_answers,
    load_versions,
    read_entry,
    roots,
    verify_store,
)

__all__ = [
    "Answers",
    "Entry",
    "Key",
    "explain_miss",
    "list_entries",
    "load_answers",
    "load_many_answers",
    "load_versions",
    "read_entry",
    "roots",
    "verify_store",
]
